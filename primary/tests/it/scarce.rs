//! Where the machine has not enough: of descriptors, in the host, in the zygote and in a worker; of
//! memory and of processes. Whoever can be served is; whoever cannot is told or waits, and when there
//! is enough again nothing is left of it.
//!
//! Names that begin with `row_` are those of the matrix in `docs/security.md`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;

use crate::denied::{Denial, Denied, Whose};
use crate::guests;
use crate::host::{Address, Host, Tenant};
use crate::http::{Connection, Request};
use crate::limits::used;
use crate::processes::{
    Beside, allow_descriptors, deny_descriptors, descriptors, eventually, highest_descriptor,
    pause, processor_time,
};

/// Whoever turns round in a loop takes a whole core.
const BUSY: f64 = 0.5;

fn client(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 8, (number / 250) as u8, (number % 250) as u8 + 1)
}

fn healthz() -> Request {
    Request::new("GET", "/healthz")
}

/// Somebody else, who is called all the while and must not notice.
fn neighbour(host: &Host) -> (Tenant, Beside<String>) {
    let tenant = host.tenant("neighbour");
    tenant.deploy("one", guests::version_one());
    let address = tenant.address();
    let mut connection = tenant.open();
    let beside = Beside::run(move |wrong: &mut BTreeSet<String>| {
        let sent = connection.send(&address.request("POST", "/one").bytes("demo"));
        match sent.and_then(|()| connection.try_answer("POST")) {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => drop(wrong.insert(answer.text())),
            Err(error) => drop(wrong.insert(error.to_string())),
        }
        pause(Duration::from_millis(5));
    });
    (tenant, beside)
}

/// How much of a core a process takes meanwhile.
fn busy(pid: i32, meanwhile: Duration) -> f64 {
    let (began, before) = (Instant::now(), processor_time(pid));
    pause(meanwhile);
    (processor_time(pid) - before).as_secs_f64() / began.elapsed().as_secs_f64()
}

#[test]
fn row_37_with_few_descriptors_a_silent_crowd_keeps_nobody_out() {
    const CROWD: usize = 616;
    let host = Host::with_descriptors(512, &[]);
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let (_, beside) = neighbour(&host);
    assert!(host.log().contains("few open files are allowed"), "{}", host.log());
    // All from one address, and then as many from many.
    for clients in [1, 50] {
        let crowd: Vec<Connection> = (0..CROWD)
            .map(|at| Connection::open_from(client(at % clients), host.front).unwrap())
            .collect();
        for _ in 0..10 {
            host.send(&healthz()).expect(200);
            host.send(&host.admin("GET", "/tenants")).expect(200);
            for address in tenant.addresses() {
                assert_eq!(address.post("/one", "").expect(200).text(), "version one");
            }
        }
        tenant.deploy("one", guests::version_one());
        tenant.deploy(&format!("other{clients}"), guests::version_two());
        let most = descriptors(host.pid());
        assert!(most < 400, "{most} of 512 descriptors are open");
        drop(crowd);
    }
    // The tenant's own port, where its worker has as few.
    let crowd: Vec<Connection> = (0..CROWD / 3).map(|_| tenant.open()).collect();
    for address in tenant.addresses() {
        address.post("/one", "").expect(200);
    }
    drop(crowd);
    assert!(!host.log().contains("Too many open files"), "{}", host.log());
    assert_eq!(beside.stop(), BTreeSet::new());
}

#[test]
fn row_37_a_host_that_could_have_next_to_no_descriptors_says_so_and_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let ulimit = |most: u32, words: &[&str]| {
        let program = env!("CARGO_BIN_EXE_hearth");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!(r#"ulimit -n {most}; exec "$0" "$@""#), program]);
        command.args(words).env_clear().env("HOME", directory.path());
        let output = command.env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let data = directory.path().join("data");
    let (started, said) = ulimit(128, &["up", "--data", data.to_str().unwrap()]);
    assert!(!started && said.contains("may have 128 open files, and needs 256"), "{said}");
    let (_, said) = ulimit(128, &["doctor"]);
    assert!(said.contains("up to 128, with which it does not start"), "{said}");
    let (_, said) = ulimit(512, &["doctor"]);
    assert!(said.contains("up to 512: 104 connections at the front door"), "{said}");
}

#[test]
fn row_37_a_front_door_without_a_descriptor_makes_room_and_turns_round_in_no_loop() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("slow", guests::slow());
    let (_, beside) = neighbour(&host);
    let by_path = &tenant.addresses()[2];
    let mut served = Connection::open(host.front).unwrap();
    served.send(&by_path.request("POST", "/slow?ms=10000").bytes("front")).unwrap();
    eventually("its call", || (used(&tenant, "calls_running") == 1).then_some(()));
    let mut crowd: Vec<Connection> =
        (0..30).map(|at| Connection::open_from(client(at), host.front).unwrap()).collect();
    for connection in &mut crowd {
        connection.call(&healthz()).expect(200);
    }
    let before = descriptors(host.pid());
    // Each number that is given back must be one that can be taken again.
    let most = highest_descriptor(host.pid()) + 1;
    allow_descriptors(host.pid(), most);
    let mut fillers = Vec::new();
    while descriptors(host.pid()) < most {
        let at = 50 + fillers.len();
        let mut filler = Connection::open_from(client(at), host.front).unwrap();
        filler.call(&healthz()).expect(200);
        fillers.push(filler);
    }

    // The longest silent goes for each that comes.
    let mut newcomers = Vec::new();
    for at in 0..10 {
        let mut connection = Connection::open_from(client(100 + at), host.front).unwrap();
        connection.call(&healthz()).expect(200);
        newcomers.push(connection);
    }
    assert!(crowd[0].is_closed());
    crowd.last_mut().unwrap().call(&healthz()).expect(200);
    let taken = busy(host.pid(), Duration::from_secs(1));
    assert!(taken < BUSY, "{taken} of a core with nobody there");

    // Whoever is served keeps what he has, and with nobody left to go newcomers are told at once.
    drop((crowd, fillers, newcomers));
    allow_descriptors(host.pid(), 4_096);
    eventually("the end of those who left", || {
        (descriptors(host.pid()) < before - 20).then_some(())
    });
    let mut calls: Vec<Connection> = Vec::new();
    for _ in 0..5 {
        let mut call = Connection::open(host.front).unwrap();
        call.send(&by_path.request("POST", "/slow?ms=4000").bytes("front")).unwrap();
        calls.push(call);
    }
    eventually("all of them in service", || (used(&tenant, "calls_running") == 6).then_some(()));
    deny_descriptors(host.pid());
    let mut waiting: Vec<Connection> =
        (0..5).map(|_| Connection::open(host.front).unwrap()).collect();
    let taken = busy(host.pid(), Duration::from_secs(1));
    assert!(taken < BUSY, "{taken} of a core with somebody there");
    // One may have found a descriptor that something else has given back meanwhile.
    for connection in &mut waiting[..4] {
        assert!(connection.is_closed());
    }
    for call in calls.iter_mut().chain([&mut served]) {
        call.answer("POST").expect(200);
    }
    allow_descriptors(host.pid(), 4_096);
    host.send(&healthz()).expect(200);
    for address in tenant.addresses() {
        address.post("/slow?ms=1", "").expect(200);
    }
    assert_eq!(beside.stop(), BTreeSet::new());
}

#[test]
fn row_37_a_worker_without_a_descriptor_serves_whom_it_has_and_turns_round_in_no_loop() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let (_, beside) = neighbour(&host);
    let worker = host.workers(&tenant)[0];
    let call = tenant.address().request("POST", "/one");
    let mut kept = tenant.open();
    kept.call(&call).expect(200);
    let denial = Denial {
        calls: &[libc::SYS_accept4, libc::SYS_accept],
        with: Errno::EMFILE,
        of: Whose::Own,
        after: 0,
        times: usize::MAX,
    };
    let denied = Denied::of(worker, denial);
    let mut crowd: Vec<Connection> = (0..20).map(|_| tenant.open()).collect();
    eventually("its first try", || (denied.refused() > 0).then_some(()));
    let before = denied.refused();
    let began = Instant::now();
    pause(Duration::from_secs(1));
    let a_second = (denied.refused() - before) as f64 / began.elapsed().as_secs_f64();
    assert!(a_second < 50.0, "it tries {a_second} times a second");
    for _ in 0..20 {
        kept.call(&call).expect(200);
    }
    // Who waits in the kernel's queue is served when there is a descriptor.
    for connection in &mut crowd {
        connection.send(&call.bytes("demo")).unwrap();
    }
    drop(denied);
    for connection in &mut crowd {
        assert_eq!(connection.answer("POST").expect(200).text(), "version one");
    }
    assert_eq!(host.workers(&tenant), [worker]);
    assert_eq!(beside.stop(), BTreeSet::new());
}

#[test]
fn row_37_a_zygote_without_a_descriptor_is_followed_by_another() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let (_, beside) = neighbour(&host);
    let zygote = host.zygote().unwrap();
    deny_descriptors(zygote);
    for address in tenant.addresses() {
        eventually("an answer", || {
            let answer = address.request("POST", "/hello").body("{}").try_send(address.to).ok()?;
            assert!(matches!(answer.status, 200 | 503), "{answer:?}");
            (answer.status == 200).then_some(())
        });
    }
    assert_ne!(host.zygote(), Some(zygote));
    assert_eq!(beside.stop(), BTreeSet::new());
}

/// Put to sleep, so that its next call needs a process.
fn sleeps(host: &Host, tenant: &Tenant) {
    host.send(&tenant.api("POST", "/worker/stop"));
    host.sleeps(tenant);
}

#[test]
fn row_38_a_fork_that_fails_is_tried_again_and_callers_wait_or_are_told() {
    const FORKS: &[libc::c_long] = &[libc::SYS_clone, libc::SYS_fork, libc::SYS_vfork];
    // Forks that are asked for, and no others.
    let host = Host::with(&["--spares", "0"]);
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let (_, beside) = neighbour(&host);
    for with in [Errno::ENOMEM, Errno::EAGAIN] {
        for address in tenant.addresses() {
            // Once or twice: nobody notices but by the wait.
            sleeps(&host, &tenant);
            let denial = Denial { calls: FORKS, with, of: Whose::Own, after: 0, times: 2 };
            let denied = Denied::of(host.zygote().unwrap(), denial);
            let answer = address.post("/one", "").expect(200);
            assert_eq!(answer.text(), "version one", "{} {with}", address.name);
            assert_eq!(denied.refused(), 2, "{} {with}", address.name);
        }
    }
    // For longer than anybody waits: they are told when to come back, and how often it is tried
    // grows less.
    sleeps(&host, &tenant);
    let zygote = host.zygote().unwrap();
    let always =
        Denial { calls: FORKS, with: Errno::ENOMEM, of: Whose::Own, after: 0, times: usize::MAX };
    let denied = Denied::of(zygote, always);
    for address in tenant.addresses() {
        let refused = eventually("503", || {
            let answer = address.request("POST", "/one").try_send(address.to).ok()?;
            (answer.status == 503).then_some(answer)
        });
        let refused = refused.expect_problem(503, "worker_unavailable");
        assert!(refused.header("retry-after").is_some(), "{}", address.name);
    }
    assert!(denied.refused() < 40, "{} tries", denied.refused());
    let uploaded = tenant.upload(&[("two.wasm", guests::version_two())], None);
    assert_eq!(uploaded.status, 503, "{}", uploaded.text());
    drop(denied);
    for address in tenant.addresses() {
        eventually("an answer", || {
            let answer = address.request("POST", "/one").try_send(address.to).ok()?;
            (answer.status == 200).then_some(())
        });
    }
    tenant.deploy("two", guests::version_two());
    assert_eq!(host.zygote(), Some(zygote));
    assert_eq!(beside.stop(), BTreeSet::new());
}

/// An answer, or the end of its connection, and never a wrong one.
fn asks(address: &Address) -> Option<u16> {
    let answer = address.request("POST", "/one").try_send(address.to).ok()?;
    match answer.status {
        200 => assert_eq!(answer.text(), "version one"),
        500 | 502 | 503 => {}
        _ => panic!("{answer:?}"),
    }
    Some(answer.status)
}

#[test]
fn row_38_memory_that_a_worker_does_not_get_costs_it_alone() {
    const MEMORY: &[libc::c_long] =
        &[libc::SYS_mmap, libc::SYS_mremap, libc::SYS_brk, libc::SYS_mprotect, libc::SYS_madvise];
    // Of whose children, all of them.
    let host = Host::with(&["--spares", "0"]);
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let (_, beside) = neighbour(&host);
    let zygote = host.zygote().unwrap();
    let mut refused = 0;
    for nth in 0..16 {
        // Quick deaths are forgiven to whom somebody starts.
        sleeps(&host, &tenant);
        host.send(&tenant.api("POST", "/worker/start")).expect(200);
        eventually("a worker", || (tenant.state() == "ready").then_some(()));
        sleeps(&host, &tenant);
        let times = if nth % 2 == 0 { 1 } else { usize::MAX };
        let denial =
            Denial { calls: MEMORY, with: Errno::ENOMEM, of: Whose::Children, after: nth, times };
        let denied = Denied::of(zygote, denial);
        let addresses = tenant.addresses();
        let address = &addresses[nth % addresses.len()];
        let came = asks(address);
        refused += denied.refused();
        println!("from call {nth} on, {times} times, {}: {came:?}", address.name);
        drop(denied);
        eventually("an answer again", || (asks(address) == Some(200)).then_some(()));
    }
    assert!(refused >= 16, "{refused} were refused");
    assert_eq!(host.zygote(), Some(zygote));
    tenant.deploy("one", guests::version_one());
    let listed = host.command(&tenant.token, &["worker", "list"]).done();
    assert!(listed.contains("ready"), "{listed}");
    assert_eq!(beside.stop(), BTreeSet::new());
}
