//! How a host stops, and how it refuses to start.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::guests;
use crate::host::Host;
use crate::http::Connection;
use crate::processes::{descendants, eventually, is_alive, is_listening, signal};

#[test]
fn a_polite_end_waits_for_what_runs() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("streams", guests::streams());
    let mut running: Vec<Connection> = tenant
        .doors()
        .iter()
        .map(|door| {
            let mut connection = Connection::open(door.to).unwrap();
            let head = door.request("POST", "/streams").header("transfer-encoding", "chunked");
            connection.send(&head.bytes("demo")).unwrap();
            connection.send(b"6\r\nbefore\r\n").unwrap();
            connection.head().unwrap();
            assert_eq!(connection.chunk().unwrap().as_deref(), Some(&b"before"[..]));
            connection
        })
        .collect();
    let mut idle = tenant.open();
    idle.call(&tenant.door().request("POST", "/hello").body("{}")).expect(200);
    let processes = descendants(host.pid());
    assert!(processes.len() >= 2, "{processes:?}");

    host.terminate();
    eventually("a front door that is closed", || {
        Connection::open(host.front).is_err().then_some(())
    });
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

#[test]
fn who_asks_twice_is_not_kept_waiting() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("slow", guests::slow());
    let mut running = tenant.open();
    running.send(&tenant.door().request("POST", "/slow?ms=60000").bytes("demo")).unwrap();
    eventually("a call that runs", || {
        (!tenant.ask("/logs")["lines"].as_array().unwrap().is_empty()).then_some(())
    });
    host.terminate();
    eventually("a front door that is closed", || {
        Connection::open(host.front).is_err().then_some(())
    });
    host.terminate();
    host.ended();
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
