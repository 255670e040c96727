//! What dies: workers, at any time and over and over, and the process that they are forked from.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::guests;
use crate::host::{Address, Host};
use crate::http::Connection;
use crate::processes::{Beside, children, eventually, is_alive, kill_at_birth, pause, signal};

#[test]
fn queued_connections_outlive_their_worker() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let first = host.workers(&tenant)[0];
    // A stopped process accepts nothing, so these wait in the kernel's queue.
    signal(first, Signal::SIGSTOP);
    let request = tenant.address().request("POST", "/one").bytes("demo");
    let mut queued: Vec<Connection> = (0..20).map(|_| tenant.open()).collect();
    for connection in &mut queued {
        connection.send(&request).unwrap();
    }
    signal(first, Signal::SIGKILL);
    for connection in &mut queued {
        assert_eq!(connection.answer("POST").expect(200).text(), "version one");
    }
    assert_ne!(host.workers(&tenant)[0], first);
    assert!(!is_alive(first));
}

#[test]
fn row_02_a_worker_that_gives_no_sign_of_life_is_ended() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let stuck = host.workers(&tenant)[0];
    // As one whose only thread never comes back from a call of the host.
    signal(stuck, Signal::SIGSTOP);
    let begun = Instant::now();
    eventually("its end", || (!is_alive(stuck)).then_some(()));
    assert!(begun.elapsed() > Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(host.log().contains("the worker is stuck: it did not answer the host for 15 seconds"));
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
}

#[test]
fn only_the_calls_in_flight_notice_a_workers_death() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("slow", guests::slow());
    let slow = tenant.address().request("POST", "/slow?ms=60000");
    let mut direct = tenant.open();
    direct.send(&slow.bytes("demo")).unwrap();
    let by_path = &tenant.addresses()[2];
    let mut through = Connection::open(by_path.to).unwrap();
    through.send(&by_path.request("POST", "/slow?ms=60000").bytes("front")).unwrap();
    eventually("both calls", || {
        let lines = tenant.ask("/logs");
        (lines["lines"].as_array().unwrap().len() == 2).then_some(())
    });
    signal(host.workers(&tenant)[0], Signal::SIGKILL);
    assert!(direct.is_closed());
    // Nobody can say whether that call did its work, so it is not made again.
    let answer = through.answer("POST");
    assert!(matches!(answer.status, 502 | 503), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    tenant.post("/slow?ms=1", "").expect(200);
}

#[test]
fn who_dies_at_every_start_is_turned_away_and_its_fix_goes_up_at_its_own_port() {
    // A worker that was a spare child has its start behind it.
    let host = Host::with(&["--spares", "0"]);
    let (sick, well) = (host.tenant("sick"), host.tenant("well"));
    sick.deploy("one", guests::version_one());
    well.deploy("one", guests::version_one());
    let spared = host.workers(&well);
    assert_eq!(spared.len(), 1);

    // The one that there is, and from now on each as soon as it is born.
    let killer = kill_at_birth(host.zygote().unwrap());
    signal(host.workers(&sick)[0], Signal::SIGKILL);
    let neighbour = Beside::run({
        let well = well.clone();
        let mut connection = well.open();
        move |wrong: &mut BTreeSet<String>| {
            let answer = connection.call(&well.address().request("POST", "/one"));
            if answer.status != 200 {
                wrong.insert(answer.text());
            }
        }
    });

    // The first pauses are short and waited out in the queue; later ones are told.
    let refused = eventually("503 with a long pause", || {
        let call = sick.address().request("POST", "/one");
        let refused = call.try_send(sick.address().to).ok().filter(|it| it.status == 503)?;
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        (wait >= 3).then_some(refused)
    });
    refused.expect_problem(503, "worker_unavailable");
    let worker = sick.ask("/worker");
    assert_eq!((&worker["state"], &worker["pid"]), (&json!("backoff"), &Value::Null), "{worker}");
    assert!(worker["reason"].as_str().is_some_and(|reason| reason.contains("killed")), "{worker}");
    let listed = host.command(&sick.token, &["worker", "list"]).done();
    assert!(listed.contains("backoff") && listed.contains("killed"), "{listed}");
    for address in sick.addresses() {
        let refused = address.post("/one", "").expect_problem(503, "worker_unavailable");
        assert!(refused.header("retry-after").is_some(), "{}", address.name);
        is_not_healthy(&address);
    }

    let killed = killer.stop();
    assert!(killed.len() >= 3, "{killed:?}");
    sick.deploy("one", guests::version_two());
    for address in sick.addresses() {
        assert_eq!(address.post("/one", "").expect(200).text(), "version two", "{}", address.name);
    }
    assert_eq!(sick.state(), "ready");
    assert_eq!(neighbour.stop(), BTreeSet::new(), "the neighbour noticed something");
    assert_eq!(host.workers(&well), spared);
}

fn is_not_healthy(address: &Address) {
    let health = address.get("/$health").expect_problem(503, "worker_unavailable");
    assert!(health.header("retry-after").is_some(), "{}", address.name);
    assert_eq!(address.send(&address.request("HEAD", "/$health")).status, 503, "{}", address.name);
}

#[test]
fn workers_outlive_their_zygote_and_a_new_one_wakes_others() {
    let host = Host::start();
    let (awake, asleep) = (host.tenant("awake"), host.tenant("asleep"));
    awake.deploy("one", guests::version_one());
    let worker = host.workers(&awake)[0];
    let mut connection = awake.open();
    connection.call(&awake.address().request("POST", "/one")).expect(200);

    let zygote = host.zygote().unwrap();
    signal(zygote, Signal::SIGKILL);
    let begun = Instant::now();
    asleep.post("/hello", "{}").expect(200);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "a wake took {took:?}");
    assert_ne!(host.zygote(), Some(zygote));

    connection.call(&awake.address().request("POST", "/one")).expect(200);
    assert_eq!(host.workers(&awake), [worker]);
    // The host learns of the death of a worker that no zygote watches any more.
    signal(worker, Signal::SIGKILL);
    awake.post("/one", "").expect(200);
    assert_ne!(host.workers(&awake), [worker]);
    awake.deploy("one", guests::version_two());
    assert_eq!(awake.post("/one", "").expect(200).text(), "version two");
}

#[test]
fn a_zygote_that_hangs_is_replaced_and_no_wake_waits_long_for_it() {
    let host = Host::with(&["--idle", "300ms"]);
    let [awake, one, two, three] = ["awake", "one", "two", "three"].map(|name| {
        let tenant = host.tenant(name);
        tenant.deploy("one", guests::version_one());
        tenant
    });
    for tenant in [&one, &two, &three] {
        host.sleeps(tenant);
    }
    // One that is called all the while, and keeps its worker.
    awake.deploy("slow", guests::slow());
    let mut running = awake.open();
    running.send(&awake.address().request("POST", "/slow?ms=60000").bytes("demo")).unwrap();
    let kept = host.workers(&awake);
    assert_eq!(kept.len(), 1);

    // Twice, since the second comes before the first one's successor has shown that it is well.
    for _ in 0..2 {
        let hung = host.zygote().unwrap();
        for tenant in [&one, &two, &three] {
            host.sleeps(tenant);
        }
        signal(hung, Signal::SIGSTOP);
        std::thread::scope(|scope| {
            for address in
                [&one, &two, &three].map(|tenant| tenant.addresses()).into_iter().flatten()
            {
                scope.spawn(move || {
                    let begun = Instant::now();
                    assert_eq!(address.post("/one", "").expect(200).text(), "version one");
                    let took = begun.elapsed();
                    // Five seconds are promised of a machine that does nothing else.
                    assert!(took < Duration::from_secs(10), "{}: {took:?}", address.name);
                });
            }
        });
        assert!(!is_alive(hung));
        assert_ne!(host.zygote(), Some(hung));
    }
    assert!(host.log().contains("the zygote does not answer"));

    // Its worker lives on, and its end is noticed.
    assert_eq!(host.workers(&awake), kept);
    signal(kept[0], Signal::SIGKILL);
    assert!(running.is_closed());
    assert_eq!(awake.post("/one", "").expect(200).text(), "version one");
    // Nothing that the old ones forked is left, not even as a name.
    eventually("no process without a parent that asks after it", || {
        let dead = children(host.pid()).into_iter().filter(|pid| !is_alive(*pid)).count();
        (dead == 0).then_some(())
    });
}

#[test]
fn a_zygote_that_is_left_alone_or_hardly_comes_to_run_is_kept() {
    let host = Host::with(&["--idle", "300ms"]);
    let tenant = host.tenant("demo");
    let zygote = host.zygote().unwrap();
    // It runs for a sixth of the time, as on a machine that is far too busy.
    let slowed = Beside::run(move |_: &mut BTreeSet<()>| {
        signal(zygote, Signal::SIGSTOP);
        pause(Duration::from_millis(250));
        signal(zygote, Signal::SIGCONT);
        pause(Duration::from_millis(50));
    });
    for _ in 0..4 {
        tenant.post("/hello", "{}").expect(200);
        host.sleeps(&tenant);
    }
    slowed.stop();
    signal(zygote, Signal::SIGCONT);
    assert_eq!(host.zygote(), Some(zygote));
    assert!(!host.log().contains("the zygote is gone"));
}
