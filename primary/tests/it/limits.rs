//! What a function may use, and what its caller is told when it wants more.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::guests;
use crate::host::Host;
use crate::http::Connection;
use crate::processes::eventually;

#[test]
fn a_call_that_takes_too_long_is_ended() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let brief = json!({ "timeout_ms": 300 });
    tenant.deploy_with("loops", guests::loops(), &brief);
    tenant.deploy_with("waits", guests::slow(), &brief);
    tenant.deploy("one", guests::version_one());
    let worker = host.workers(&tenant);
    for (path, door) in ["/loops", "/waits?ms=60000"].into_iter().zip(tenant.doors()) {
        let begun = Instant::now();
        door.post(path, "").expect_problem(504, "timeout").expect_detail("300");
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }
    // A loop does not keep the others waiting for as long as it may run.
    let mut looping = tenant.open();
    tenant.deploy_with("loops", guests::loops(), &json!({ "timeout_ms": 20_000 }));
    looping.send(&tenant.door().request("POST", "/loops").bytes("demo")).unwrap();
    let begun = Instant::now();
    for _ in 0..5 {
        tenant.post("/one", "").expect(200);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(looping);
    assert_eq!(worker.len(), 1);
}

#[test]
fn a_call_whose_caller_has_gone_is_abandoned() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("slow", guests::slow());
    let mut caller = tenant.open();
    caller.send(&tenant.door().request("POST", "/slow?ms=60000").bytes("demo")).unwrap();
    eventually("a call that runs", || {
        (!tenant.ask("/logs")["lines"].as_array().unwrap().is_empty()).then_some(())
    });
    drop(caller);
    eventually("its end", || {
        let calls = tenant.ask("/calls");
        (calls["calls"][0]["outcome"] == "abandoned").then_some(())
    });
}

#[test]
fn memory_is_bounded() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("eats", guests::eats_memory(), &json!({ "memory_mb": 16 }));
    tenant.deploy_with("more", guests::eats_memory(), &json!({ "memory_mb": 128 }));
    let worker = host.workers(&tenant);
    for door in tenant.doors() {
        assert_eq!(door.post("/eats?mb=8", "").expect(200).text(), "8");
        door.post("/eats", "").expect_problem(500, "memory_limit").expect_detail("16");
        assert_eq!(door.post("/more?mb=100", "").expect(200).text(), "100");
    }
    assert_eq!(host.workers(&tenant), worker);
}

#[test]
fn bodies_are_bounded() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("small", guests::echo(), &json!({ "max_body": 1000 }));
    tenant.deploy("usual", guests::echo());
    for door in tenant.doors() {
        let seen = door.post("/small", &"x".repeat(1000)).expect(200).json();
        assert_eq!(seen["bytes"], 1000, "{}", door.name);
        let large = door.request("POST", "/small").body("x".repeat(1001));
        large.try_send(door.to).unwrap().expect_problem(413, "too_large").expect_detail("1000");
        let mut chunked = Connection::open(door.to).unwrap();
        let head = door.request("POST", "/small").header("transfer-encoding", "chunked");
        chunked.send(&head.bytes("demo")).unwrap();
        chunked.send(format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001)).as_bytes()).unwrap();
        chunked.answer("POST").expect_problem(413, "too_large");
        let seen = door.post("/usual", &"x".repeat(5 << 20)).expect(200).json();
        assert_eq!(seen["bytes"], 5 << 20, "{}", door.name);
    }
}

#[test]
fn a_head_is_bounded_in_size_and_in_time() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    for door in tenant.doors() {
        let large = door.request("POST", "/hello").header("x-large", &"x".repeat(1 << 20));
        let answer = large.try_send(door.to);
        if let Ok(answer) = answer {
            assert!(matches!(answer.status, 400 | 431), "{}: {answer:?}", door.name);
        }
        let mut many = door.request("POST", "/hello");
        for at in 0..1_000 {
            many = many.header(&format!("x-{at}"), "x");
        }
        if let Ok(answer) = many.try_send(door.to) {
            assert!(matches!(answer.status, 400 | 431), "{}: {answer:?}", door.name);
        }
        door.post("/hello", "{}").expect(200);
    }
    let begun = Instant::now();
    let mut slow = tenant.open();
    slow.send(b"POST /hello HTTP/1.1\r\nhost: demo\r\nx-half: ").unwrap();
    assert!(slow.try_answer("POST").is_err() || slow.is_closed());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn more_calls_than_may_run_wait_for_their_turn() {
    const CALLS: usize = 150;
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("slow", guests::slow());
    let request = tenant.door().request("POST", "/slow?ms=50").bytes("demo");
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
    let request = tenant.door().request("POST", "/slow?ms=1500").bytes("demo");
    let mut callers: Vec<Connection> = (0..CALLS).map(|_| tenant.open()).collect();
    for caller in &mut callers {
        caller.send(&request).unwrap();
    }
    let mut refused = 0;
    for caller in &mut callers {
        let answer = caller.answer("POST");
        if answer.status == 429 {
            refused += 1;
            assert!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
            answer.expect_problem(429, "too_many_requests");
        } else {
            answer.expect(200);
        }
    }
    assert!((1..=40).contains(&refused), "{refused}");
}
