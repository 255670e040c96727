//! A tenant that nobody calls has no process, and whoever calls it next does not notice.

use std::time::Duration;

use crate::guests;
use crate::host::{Host, Tenant};
use crate::http::{Answer, Connection};
use crate::processes::{Beside, descendants, eventually, holders, is_alive, pause};

const AT_ONCE: usize = 100;

#[test]
fn after_the_idle_time_there_is_no_process_and_a_burst_wakes_one() {
    let host = Host::with(&["--idle", "300ms"]);
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    for _ in 0..3 {
        sleep(&host, &tenant);
        let workers = watch(&host, &tenant);
        burst(&tenant);
        let mut seen = workers.stop();
        seen.extend(host.workers(&tenant));
        assert_eq!(seen.len(), 1, "one worker answers all of them: {seen:?}");
    }
    let is_cold = |answer: Answer| answer.header("server-timing").unwrap().contains("cold");
    assert!(!is_cold(tenant.post("/one", "")));
    sleep(&host, &tenant);
    assert!(is_cold(tenant.post("/one", "")));
}

/// Bursts whose distance lies around the idle time, so that they meet workers that are just
/// about to leave. The seeded short form, or with SOAK in the environment the long one.
#[test]
fn bursts_around_the_idle_time_lose_nothing() {
    const IDLE: u64 = 100;
    let host = Host::with(&["--idle", "100ms"]);
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut asleep = 0;
    let rounds = if std::env::var_os("SOAK").is_some() { 1_000 } else { 40 };
    for _ in 0..rounds {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        pause(Duration::from_micros(seed % (2 * IDLE * 1_000)));
        asleep += u32::from(host.workers(&tenant).is_empty());
        burst(&tenant);
    }
    assert!(asleep > 0, "some bursts must have met nobody");
}

#[test]
fn a_running_call_keeps_its_worker_awake() {
    let host = Host::with(&["--idle", "100ms"]);
    let tenant = host.tenant("demo");
    tenant.deploy("slow", guests::slow());
    assert_eq!(tenant.post("/slow?ms=700", "").expect(200).text(), "waited 700 ms");
    sleep(&host, &tenant);
}

#[test]
fn asking_for_health_keeps_nobody_awake() {
    let host = Host::with(&["--idle", "300ms"]);
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let worker = host.workers(&tenant)[0];
    eventually("the end of a worker that is only asked for its health", || {
        tenant.get("/$health").expect(200);
        tenant.address().send(&tenant.address().request("HEAD", "/$health")).expect(200);
        tenant.get("/$functions").expect(200);
        (!is_alive(worker)).then_some(())
    });
}

#[test]
fn a_silent_connection_keeps_nobody_awake_and_is_answered_all_the_same() {
    let host = Host::with(&["--idle", "200ms"]);
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let mut silent = tenant.open();
    eventually("a worker that leaves", || (tenant.state() != "ready").then_some(()));
    silent.send(&tenant.address().request("POST", "/one").bytes("demo")).unwrap();
    assert_eq!(silent.answer("POST").expect(200).text(), "version one");
    sleep(&host, &tenant);
}

#[test]
fn a_sleeping_tenant_is_healthy() {
    let host = Host::with(&["--idle", "150ms"]);
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    sleep(&host, &tenant);
    for address in tenant.addresses() {
        address.get("/$health").expect(200);
    }
}

#[test]
fn an_owner_can_stop_start_and_restart_a_worker() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let ask = |what: &str| host.send(&tenant.api("POST", &format!("/worker/{what}"))).expect(200);
    ask("start");
    let started = eventually("a worker", || host.workers(&tenant).first().copied());
    assert_eq!(tenant.ask("/worker")["pid"], started);
    ask("restart");
    let restarted = eventually("another worker", || {
        host.workers(&tenant).into_iter().find(|pid| *pid != started)
    });
    eventually("the end of the first", || (!is_alive(started)).then_some(()));
    assert_eq!(
        tenant.post("/hello", "{}").expect(200).header("x-hearth-version"),
        Some(concat!("/hello@", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(host.workers(&tenant), [restarted]);
    ask("stop");
    sleep(&host, &tenant);
    tenant.post("/hello", "{}").expect(200);
}

/// Waits until the kernel knows of no process that serves the tenant.
#[track_caller]
fn sleep(host: &Host, tenant: &Tenant) {
    eventually("sleep", || (tenant.state() == "asleep").then_some(()));
    assert_eq!(tenant.ask("/worker")["pid"], serde_json::Value::Null);
    eventually("the last process", || host.workers(tenant).is_empty().then_some(()));
}

/// The processes that serve the tenant while the test does something else.
fn watch(host: &Host, tenant: &Tenant) -> Beside<i32> {
    let (pid, zygote, port) = (host.pid(), host.zygote().unwrap(), tenant.port);
    Beside::run(move |seen| {
        let mut pids = descendants(pid);
        pids.retain(|pid| *pid != zygote);
        seen.extend(holders(port, &pids));
    })
}

/// Connections that arrive at once and are all answered.
#[track_caller]
fn burst(tenant: &Tenant) {
    let address = tenant.address();
    let request = address.request("POST", "/one").bytes("demo");
    let mut connections: Vec<Connection> = (0..AT_ONCE).map(|_| tenant.open()).collect();
    for connection in &mut connections {
        connection.send(&request).unwrap();
    }
    for (at, connection) in connections.iter_mut().enumerate() {
        let answer = connection.try_answer("POST").unwrap_or_else(|e| panic!("{at}: {e}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "version one"));
    }
}
