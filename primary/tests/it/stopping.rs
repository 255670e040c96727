//! How a host stops, and how it refuses to start.

use std::process::Command;

use nix::sys::signal::Signal;

use std::time::{Duration, Instant};

use crate::guests;
use crate::host::{self, Host, Tenant};
use crate::http::{Connection, Request};
use crate::processes::{
    command_line, descendants, eventually, is_alive, is_listening, pause, signal, stop_thread,
};
use crate::terminal::Terminal;

/// At a terminal its key reaches every process of the host's group, and the compiler is none of it.
#[test]
fn a_stop_in_the_midst_of_the_first_start_is_a_stop() {
    let place = tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap();
    let mut command = host::hearth(place.path());
    command.args(["up", "--data", "data", "--listen", "127.0.0.1:0"]);
    command.args(["--tenant-ports", "29000-29010"]).current_dir(place.path());
    let mut terminal = Terminal::run(&command);
    eventually("a compiler", || {
        let all = descendants(terminal.pid());
        all.iter().any(|pid| command_line(*pid).contains("hearth-compile")).then_some(())
    });
    terminal.type_in("\x03");
    let (shown, status) = terminal.finish();
    assert_eq!(status.code(), Some(0), "{shown}");
    assert!(shown.contains("stopped before it served"), "{shown}");
    assert!(!shown.contains("make them smaller") && !shown.contains("serves at"), "{shown}");
    // And the next one starts on what there is.
    let mut terminal = Terminal::run(&command);
    terminal.shows("sign in");
    terminal.type_in("\x03");
    assert_eq!(terminal.finish().1.code(), Some(0));
}

#[test]
fn a_polite_end_waits_for_what_runs() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("streams", guests::streams());
    let mut running: Vec<Connection> = tenant
        .addresses()
        .iter()
        .map(|address| {
            let mut connection = Connection::open(address.to).unwrap();
            let head = address.request("POST", "/streams").header("transfer-encoding", "chunked");
            connection.send(&head.bytes("demo")).unwrap();
            connection.send(b"6\r\nbefore\r\n").unwrap();
            connection.head().unwrap();
            assert_eq!(connection.chunk().unwrap().as_deref(), Some(&b"before"[..]));
            connection
        })
        .collect();
    let mut idle = tenant.open();
    idle.call(&tenant.address().request("POST", "/hello").body("{}")).expect(200);
    let processes = descendants(host.pid());
    assert!(processes.len() >= 2, "{processes:?}");

    host.terminate();
    is_stopping(&host);
    for address in tenant.addresses() {
        // Its worker hears of it a moment later than the front door.
        let refused = eventually("a refusal", || {
            let answer = address.post("/hello", "{}");
            (answer.status != 200).then_some(answer)
        });
        let refused = refused.expect_problem(503, "worker_unavailable");
        assert!(refused.closes() && refused.header("retry-after").is_some(), "{refused:?}");
        let health = address.send(&address.request("HEAD", "/$health"));
        assert_eq!(health.status, 503, "{}", address.name);
    }
    host.send(&Request::new("GET", "/healthz")).expect(200);
    host.send(&host.admin("GET", "/tenants")).expect_problem(503, "worker_unavailable");
    for connection in &mut running {
        connection.send(b"5\r\nafter\r\n0\r\n\r\n").unwrap();
        assert_eq!(connection.chunk().unwrap().as_deref(), Some(&b"after"[..]));
        assert_eq!(connection.chunk().unwrap(), None);
        connection.fields().unwrap();
    }
    assert!(idle.is_closed(), "what idles is closed politely");
    drop(running);
    assert_eq!(host.ended().code(), Some(0));
    eventually("the end of every process", || {
        processes.iter().all(|pid| !is_alive(*pid)).then_some(())
    });
    assert!(!is_listening(tenant.port));
}

/// It says so itself, to whoever spreads the load.
#[track_caller]
fn is_stopping(host: &Host) {
    eventually("a host that is stopping", || {
        let ready = Request::new("GET", "/readyz").try_send(host.front).ok()?;
        (ready.status == 503).then(|| ready.expect_problem(503, "worker_unavailable"))
    });
}

/// A call that runs.
fn slow(tenant: &Tenant, milliseconds: u64) -> Connection {
    let mut running = tenant.open();
    let request = tenant.address().request("POST", &format!("/slow?ms={milliseconds}"));
    running.send(&request.bytes("demo")).unwrap();
    eventually("a call that runs", || {
        (!tenant.ask("/logs")["lines"].as_array().unwrap().is_empty()).then_some(())
    });
    running
}

/// Nobody is waited for who has asked nothing, be his connection new, kept, or parked, nor for the
/// rest of half a request.
#[test]
fn where_no_call_runs_the_end_is_near() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    let (mut silent, mut halves) = (Vec::new(), Vec::new());
    for address in tenant.addresses() {
        silent.push(Connection::open(address.to).unwrap());
        let mut kept = Connection::open(address.to).unwrap();
        kept.call(&address.request("POST", "/hello").body("{}")).expect(200);
        silent.push(kept);
        let mut half = Connection::open(address.to).unwrap();
        let request = address.request("POST", "/hello").body("{}").bytes("demo");
        half.send(&request[..request.len() / 2]).unwrap();
        halves.push(half);
        // Behind an answer.
        let mut half = Connection::open(address.to).unwrap();
        half.call(&address.request("POST", "/hello").body("{}")).expect(200);
        half.send(&request[..20]).unwrap();
        halves.push(half);
        // One that is refused and goes on sending.
        let mut refused = Connection::open(address.to).unwrap();
        refused.send(b"nonsense\r\n\r\n").unwrap();
        let _ = refused.answer("GET").expect_problem(400, "bad_request");
        silent.push(refused);
    }
    for half in &halves {
        eventually("a reader", || {
            let end = crate::processes::far_end(half.ends())?;
            (end.accepted && end.unread == 0).then_some(())
        });
    }
    let begun = Instant::now();
    host.terminate();
    assert_eq!(host.ended().code(), Some(0));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    for mut half in halves {
        half.answer("POST").expect_problem(503, "worker_unavailable").expect_detail("stopping");
    }
    for mut silent in silent {
        eventually("its end", || silent.is_closed().then_some(()));
    }
}

#[test]
fn a_terminal_that_closes_stops_the_host_as_politely() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("slow", guests::slow());
    let mut running = slow(&tenant, 3_000);
    // A shell and the kernel both say so.
    signal(host.pid(), Signal::SIGHUP);
    is_stopping(&host);
    signal(host.pid(), Signal::SIGHUP);
    running.answer("POST").expect(200);
    assert_eq!(host.ended().code(), Some(0));
}

#[test]
fn a_hang_up_is_nothing_to_a_service_or_to_who_was_told_to_outlive_it() {
    for wrapper in [&["env", "NOTIFY_SOCKET=@nobody-listens-to-this"][..], &["nohup"]] {
        let mut host = Host::wrapped(wrapper, &[]);
        let tenant = host.tenant("demo");
        for _ in 0..3 {
            signal(host.pid(), Signal::SIGHUP);
        }
        tenant.post("/hello", "{}").expect(200);
        pause(Duration::from_millis(200));
        host.send(&Request::new("GET", "/readyz")).expect(200);
        host.terminate();
        assert_eq!(host.ended().code(), Some(0));
    }
}

#[test]
fn a_host_whose_store_does_not_answer_is_not_ready() {
    let host = Host::start();
    let ready = || Request::new("GET", "/readyz").send(host.front);
    ready().expect(200);
    let stopped = stop_thread(host.pid(), "store");
    let begun = Instant::now();
    // Many at once, as of many that spread the load.
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..16).map(|_| scope.spawn(ready)).collect();
        for answer in asked {
            let _ = answer.join().unwrap().expect_problem(503, "worker_unavailable");
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    host.send(&Request::new("GET", "/healthz")).expect(200);
    drop(stopped);
    eventually("a host that is ready again", || (ready().status == 200).then_some(()));
}

#[test]
fn nothing_is_left_of_a_host_that_was_killed() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    tenant.post("/hello", "{}").expect(200);
    let processes = descendants(host.pid());
    assert!(processes.len() >= 2, "{processes:?}");
    signal(host.pid(), Signal::SIGKILL);
    host.ended();
    eventually("the end of every process", || {
        processes.iter().all(|pid| !is_alive(*pid)).then_some(())
    });
}

#[test]
fn a_second_host_does_not_touch_the_data_of_the_first() {
    let host = Host::start();
    let data = host.data();
    let second = hearth(&["up", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(second.0, Some(1));
    assert!(second.1.contains("another"), "{}", second.1);
    host.tenant("demo").post("/hello", "{}").expect(200);
}

#[test]
fn what_it_does_not_understand_keeps_it_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hearth.toml");
    std::fs::write(&file, "lissten = \"127.0.0.1:0\"\n").unwrap();
    let file = file.to_str().unwrap();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    for (arguments, said) in [
        (vec!["--config", file], "lissten"),
        (vec!["--listen", "nowhere"], "listen"),
        (vec!["--idle", "soon"], "idle"),
        (vec!["--tenant-ports", "9-1"], "tenant-ports"),
        (vec!["--trusted-proxy", "everybody"], "trusted-proxy"),
        (vec!["--isolation", "Z"], "isolation"),
        (vec!["--handover", "always"], "handover"),
        (vec!["--ready-fd", "77"], "ready-fd"),
    ] {
        let all: Vec<&str> = ["up", "--data", data].into_iter().chain(arguments).collect();
        let (status, error) = hearth(&all);
        assert!(matches!(status, Some(1 | 2)), "{all:?}: {status:?} {error}");
        assert!(error.contains(said), "{all:?}: {error}");
    }
    assert!(!std::path::Path::new(data).join("hearth.db").exists());
}

fn hearth(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hearth")).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}
