//! How many calls at once, and how many a second.

use serde_json::json;

use super::{set, used};
use crate::guests;
use crate::host::{Host, Tenant};
use crate::http::{Answer, Connection};
use crate::processes::eventually;

#[test]
fn more_calls_than_may_run_wait_for_their_turn() {
    const CALLS: usize = 150;
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("slow", guests::slow());
    let request = tenant.address().request("POST", "/slow?ms=50").bytes("demo");
    let mut callers: Vec<Connection> = (0..CALLS).map(|_| tenant.open()).collect();
    for caller in &mut callers {
        caller.send(&request).unwrap();
    }
    for caller in &mut callers {
        assert_eq!(caller.answer("POST").expect(200).text(), "waited 50 ms");
    }
}

#[test]
fn what_can_neither_run_nor_wait_is_told_to_come_again() {
    const CALLS: usize = 64 + 256 + 40;
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("slow", guests::slow());
    let request = tenant.address().request("POST", "/slow?ms=1500").bytes("demo");
    let mut callers: Vec<Connection> = (0..CALLS).map(|_| tenant.open()).collect();
    for caller in &mut callers {
        caller.send(&request).unwrap();
    }
    let mut refused = 0;
    for caller in &mut callers {
        let answer = caller.answer("POST");
        if answer.status == 429 {
            refused += 1;
            is_turned_away(answer);
        } else {
            answer.expect(200);
        }
    }
    assert!((1..=40).contains(&refused), "{refused}");
}

#[track_caller]
fn is_turned_away(answer: Answer) {
    assert_eq!(answer.header("retry-after"), Some("1"), "{:?}", answer.headers);
    answer.expect_problem(429, "too_many_requests");
}

/// Calls that run or wait until the end of their bodies comes, of which nobody knows how much it is.
#[track_caller]
fn hold(tenant: &Tenant, running: u64, waiting: u64) -> Vec<Connection> {
    let head = tenant.address().request("POST", "/counts").header("transfer-encoding", "chunked");
    let callers = (0..running + waiting).map(|_| {
        let mut caller = tenant.open();
        caller.send(&head.bytes("demo")).unwrap();
        caller
    });
    let callers = callers.collect();
    eventually("all of them counted", || {
        let now = (used(tenant, "calls_running"), used(tenant, "calls_waiting"));
        (now == (running, waiting)).then_some(())
    });
    callers
}

#[track_caller]
fn are_answered(tenant: &Tenant, mut callers: Vec<Connection>) {
    for caller in &mut callers {
        caller.send(b"1\r\nx\r\n0\r\n\r\n").unwrap();
    }
    for caller in &mut callers {
        assert_eq!(caller.answer("POST").expect(200).text(), "1");
    }
    eventually("none of them left", || {
        let now = (used(tenant, "calls_running"), used(tenant, "calls_waiting"));
        (now == (0, 0)).then_some(())
    });
}

#[test]
fn exactly_so_many_run_and_wait_as_the_tenant_may_have() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("counts", guests::counts());
    for (running, waiting) in [(2, 3), (1, 0)] {
        set(&host, &tenant, &json!({ "calls_running": running, "calls_waiting": waiting }));
        let callers = hold(&tenant, running, waiting);
        let [port, _, path] = tenant.addresses();
        is_turned_away(port.post("/counts", "x"));
        is_turned_away(path.post("/counts", "x"));
        // What is no call is answered all the same.
        port.get("/$health").expect(200);
        are_answered(&tenant, callers);
        assert_eq!(port.post("/counts", "x").expect(200).text(), "1");
    }
}

#[test]
fn a_rate_lets_its_burst_pass_and_turns_the_next_away() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    set(&host, &tenant, &json!({ "rate_per_second": 1, "rate_burst": 3 }));
    let mut callers: Vec<Connection> = (0..4).map(|_| tenant.open()).collect();
    // Its worker is there, and what is no call is not counted.
    tenant.get("/$health").expect(200);
    let call = tenant.address().request("POST", "/hello").body("{}").bytes("demo");
    for caller in &mut callers {
        caller.send(&call).unwrap();
    }
    let answers: Vec<Answer> = callers.iter_mut().map(|caller| caller.answer("POST")).collect();
    let (passed, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((passed.len(), refused.len()), (3, 1), "{refused:?}");
    refused.into_iter().for_each(is_turned_away);
    for address in tenant.addresses() {
        eventually("a call after a while", || {
            let answer = address.post("/hello", "{}");
            if answer.status == 200 {
                return Some(());
            }
            is_turned_away(answer);
            None
        });
    }
}

#[test]
fn without_a_rate_quick_calls_are_no_matter() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let call = tenant.address().request("POST", "/hello").body("{}");
    let mut caller = tenant.open();
    for _ in 0..300 {
        caller.call(&call).expect(200);
    }
}
