//! How long a call may take, and what it may keep others from meanwhile.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use super::set;
use crate::guests;
use crate::host::Host;
use crate::processes::eventually;

#[test]
fn a_call_that_takes_too_long_is_ended() {
    let host = Host::start();
    let (tenant, other) = (host.tenant("demo"), host.tenant("other"));
    let brief = json!({ "timeout_ms": 300 });
    tenant.deploy_with("loops", guests::loops(), &brief);
    tenant.deploy_with("waits", guests::slow(), &brief);
    tenant.deploy("one", guests::version_one());
    let worker = host.workers(&tenant);
    for (path, address) in ["/loops", "/waits?ms=60000"].into_iter().zip(tenant.addresses()) {
        let begun = Instant::now();
        address.post(path, "").expect_problem(504, "timeout").expect_detail("300");
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }
    // A loop does not keep the others waiting for as long as it may run.
    let mut looping = tenant.open();
    tenant.deploy_with("loops", guests::loops(), &json!({ "timeout_ms": 20_000 }));
    looping.send(&tenant.address().request("POST", "/loops").bytes("demo")).unwrap();
    let begun = Instant::now();
    for _ in 0..5 {
        tenant.post("/one", "").expect(200);
        other.post("/hello", "{}").expect(200);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(looping);
    assert_eq!(worker.len(), 1);
}

#[test]
fn an_answer_within_the_time_is_given_and_a_later_one_is_not() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("slow", guests::slow(), &json!({ "timeout_ms": 2_000 }));
    std::thread::scope(|scope| {
        for address in tenant.addresses() {
            scope.spawn(move || {
                assert_eq!(address.post("/slow?ms=1000", "").expect(200).text(), "waited 1000 ms");
                let begun = Instant::now();
                let late = address.post("/slow?ms=3000", "");
                late.expect_problem(504, "timeout").expect_detail("2000");
                assert!(begun.elapsed() >= Duration::from_millis(2_000), "{}", address.name);
            });
        }
    });
}

/// In a namespace of its own a clock begins where one likes; a program that is run there enters it
/// (Linux 6.3 on).
#[test]
fn row_35_time_passes_alike_right_after_a_start_and_ten_years_later() {
    const TEN_YEARS: i64 = 315_360_000;
    let up = fs::read_to_string("/proc/uptime").unwrap();
    let up: i64 = up.split('.').next().unwrap().parse().unwrap();
    for seconds_up in [1, TEN_YEARS] {
        let offset = seconds_up - up;
        let clocks = [format!("--monotonic={offset}"), format!("--boottime={offset}")];
        let wrapper = ["unshare", "--time", &clocks[0], &clocks[1]];
        let host = Host::wrapped(&wrapper, &["--idle", "300ms"]);
        let offsets = fs::read_to_string(format!("/proc/{}/timens_offsets", host.pid())).unwrap();
        assert_eq!(offsets.matches(&offset.to_string()).count(), 2, "{offsets}");

        let tenant = host.tenant("demo");
        tenant.deploy("one", guests::version_one());
        tenant.deploy_with("loops", guests::loops(), &json!({ "timeout_ms": 300 }));
        for _ in 0..2 {
            for address in tenant.addresses() {
                address.post("/one", "").expect(200);
                let begun = Instant::now();
                address.post("/loops", "").expect_problem(504, "timeout");
                let took = begun.elapsed();
                assert!(took >= Duration::from_millis(300), "{took:?}");
            }
            eventually("the sleep", || host.workers(&tenant).is_empty().then_some(()));
        }
    }
}

#[test]
fn a_function_has_no_more_time_than_its_tenant() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("slow", guests::slow());
    tenant.deploy_with("asks", guests::slow(), &json!({ "timeout_ms": 60_000 }));
    set(&host, &tenant, &json!({ "timeout_ms": 500 }));
    for path in ["/slow", "/asks"] {
        let late = tenant.post(&format!("{path}?ms=60000"), "");
        late.expect_problem(504, "timeout").expect_detail("500");
    }
    set(&host, &tenant, &json!({ "timeout_ms": null }));
    assert_eq!(tenant.post("/slow?ms=700", "").expect(200).text(), "waited 700 ms");
}

#[test]
fn a_call_whose_caller_has_gone_is_abandoned() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("slow", guests::slow());
    let mut caller = tenant.open();
    caller.send(&tenant.address().request("POST", "/slow?ms=60000").bytes("demo")).unwrap();
    eventually("a call that runs", || {
        (!tenant.ask("/logs")["lines"].as_array().unwrap().is_empty()).then_some(())
    });
    drop(caller);
    eventually("its end", || {
        let calls = tenant.ask("/calls");
        (calls["calls"][0]["outcome"] == "abandoned").then_some(())
    });
}
