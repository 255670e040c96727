//! Connections whose worker went to sleep: the host keeps them until they speak.

use nix::sys::signal::Signal;

use super::{Stage, answered, ask, is_read};
use crate::host::Address;
use crate::http::{Answer, Connection};
use crate::processes::{allow_many_descriptors, eventually, pause, signal};

/// A worker that is left alone for this long goes to sleep.
const IDLE: &str = "200ms";
/// What a tenant may have running; more of them wait.
const CALLS_RUNNING_MAX: usize = 64;

#[test]
fn an_idle_kept_connection_wakes_its_worker() {
    let stage = Stage::with(&["--idle", IDLE]);
    for address in stage.addresses() {
        let mut connection = stage.kept(&address);
        for _ in 0..3 {
            is_parked(&stage, 1);
            let answer = connection.call(&ask(&address, "awake?"));
            answered(&stage.history.current(), "awake?", &answer);
            assert!(answer.header("server-timing").unwrap().contains("cold"), "{answer:?}");
            stage.goes_on(&address, &mut connection);
        }
        drop(connection);
        is_parked(&stage, 0);
    }
}

#[test]
fn a_connection_that_sleeps_through_an_upload_meets_the_new_version() {
    let stage = Stage::with(&["--idle", IDLE]);
    for address in stage.addresses() {
        let mut connection = stage.kept(&address);
        is_parked(&stage, 1);
        stage.swap();
        stage.goes_on(&address, &mut connection);
        is_parked(&stage, 1);
        stage.swap();
        is_parked(&stage, 1);
        stage.goes_on(&address, &mut connection);
        drop(connection);
        is_parked(&stage, 0);
    }
}

#[test]
fn a_fresh_connection_without_a_byte_wakes_its_worker_once_it_speaks() {
    let stage = Stage::with(&["--idle", IDLE]);
    let [port, _] = stage.addresses();
    let mut connection = Connection::open(port.to).unwrap();
    is_read(&connection);
    is_parked(&stage, 1);
    stage.goes_on(&port, &mut connection);
    stage.goes_on(&port, &mut connection);
}

#[test]
fn half_a_head_is_not_forgotten() {
    let stage = Stage::with(&["--idle", IDLE]);
    for address in stage.addresses() {
        let request = ask(&address, "half").bytes("demo");
        for half in [1, 20] {
            for mut connection in [Connection::open(address.to).unwrap(), stage.kept(&address)] {
                connection.send(&request[..half]).unwrap();
                is_read(&connection);
                // Whether anybody sleeps with half a head in hand is left open.
                pause(std::time::Duration::from_millis(600));
                connection.send(&request[half..]).unwrap();
                answered(&stage.history.current(), "half", &connection.answer("POST"));
                stage.goes_on(&address, &mut connection);
            }
        }
    }
}

#[test]
fn who_has_closed_is_kept_no_longer() {
    let stage = Stage::with(&["--idle", IDLE]);
    for address in stage.addresses() {
        let mut connections: Vec<_> = (0..20).map(|_| stage.kept(&address)).collect();
        is_parked(&stage, 20);
        drop(connections.split_off(5));
        parked(&stage, 5);
        for connection in &connections {
            connection.finish_sending().unwrap();
        }
        parked(&stage, 0);
        for connection in &mut connections {
            assert!(connection.is_closed());
        }
        assert_eq!(stage.tenant.state(), "asleep", "that wakes nobody");
    }
}

/// The request and the end behind it are there before the host looks, or one after the other.
#[test]
fn last_words_are_answered() {
    let stage = Stage::with(&["--idle", IDLE]);
    for address in stage.addresses() {
        for at_once in [true, false] {
            let mut connection = stage.kept(&address);
            is_parked(&stage, 1);
            if at_once {
                signal(stage.host.pid(), Signal::SIGSTOP);
            }
            connection.send(&ask(&address, "my last words").bytes("demo")).unwrap();
            connection.finish_sending().unwrap();
            signal(stage.host.pid(), Signal::SIGCONT);
            let answer: Answer = connection.answer("POST");
            assert_eq!((answer.status, answer.text().as_str()), (200, "one: my last words"));
            assert!(connection.is_closed(), "{}", address.name);
        }
    }
}

#[test]
fn parked_connections_end_with_their_tenant_and_with_the_host() {
    let mut stage = Stage::with(&["--idle", IDLE]);
    let other = stage.host.tenant("other");
    let mut theirs = other.open();
    theirs.call(&other.address().request("POST", "/hello").body("{}")).expect(200);
    let mut ours: Vec<_> = stage.addresses().iter().map(|address| stage.kept(address)).collect();
    is_parked(&stage, 2);
    stage.host.sleeps(&other);

    stage.host.send(&stage.host.admin("DELETE", "/tenants/other")).expect(204);
    assert!(theirs.is_closed());
    parked(&stage, 2);
    stage.host.terminate();
    for connection in &mut ours {
        assert!(connection.is_closed());
    }
    assert_eq!(stage.host.ended().code(), Some(0));
}

#[test]
fn a_thousand_sleep_and_wake_at_once() {
    allow_many_descriptors();
    let stage = Stage::with(&["--idle", "500ms"]);
    let [port, _] = stage.addresses();
    let mut thousand: Vec<Connection> =
        (0..1_000).map(|_| Connection::open(port.to).unwrap()).collect();
    each_speaks(&stage, &port, &mut thousand, "first");
    for round in 0..3 {
        is_parked(&stage, 1_000);
        all_speak(&stage, &port, &mut thousand, &format!("round {round}"));
    }
    is_parked(&stage, 1_000);
    drop(thousand.split_off(990));
    parked(&stage, 990);
    each_speaks(&stage, &port, &mut thousand, "fewer");
    is_parked(&stage, 990);
}

#[test]
fn beyond_a_thousand_the_longest_silent_goes() {
    allow_many_descriptors();
    let stage = Stage::with(&["--idle", "500ms"]);
    let [port, _] = stage.addresses();
    let mut first = stage.kept(&port);
    is_parked(&stage, 1);
    let mut others: Vec<Connection> =
        (0..999).map(|_| Connection::open(port.to).unwrap()).collect();
    each_speaks(&stage, &port, &mut others, "second");
    is_parked(&stage, 1_000);
    let mut last = stage.kept(&port);
    is_parked(&stage, 1_000);
    assert!(first.is_closed());
    each_speaks(&stage, &port, &mut others, "still here");
    stage.goes_on(&port, &mut last);
}

/// Never more of them than a tenant may have running.
#[track_caller]
fn each_speaks(stage: &Stage, address: &Address, connections: &mut [Connection], body: &str) {
    for some in connections.chunks_mut(CALLS_RUNNING_MAX) {
        all_speak(stage, address, some, body);
    }
}

/// All of them at once, and each is served: a crowd that waited outside waits its turn.
#[track_caller]
fn all_speak(stage: &Stage, address: &Address, connections: &mut [Connection], body: &str) {
    let request = ask(address, body).bytes("demo");
    let version = stage.history.current();
    for connection in &mut *connections {
        connection.send(&request).unwrap();
    }
    for (at, connection) in connections.iter_mut().enumerate() {
        let answer = connection.try_answer("POST").unwrap_or_else(|e| panic!("{at}: {e}"));
        answered(&version, body, &answer);
    }
}

/// Waits until the tenant sleeps, and so many connections are kept for it.
#[track_caller]
fn is_parked(stage: &Stage, connections: u64) {
    stage.host.sleeps(&stage.tenant);
    parked(stage, connections);
}

#[track_caller]
fn parked(stage: &Stage, connections: u64) {
    let mut seen = u64::MAX;
    eventually(&format!("{connections} parked connections"), || {
        seen = stage.tenant.parked();
        (seen == connections).then_some(())
    });
}
