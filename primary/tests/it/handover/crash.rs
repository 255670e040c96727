//! Connections that are between two processes when one of them dies.

use nix::sys::signal::Signal;

use super::{Stage, answered, ask};
use crate::http::Connection;
use crate::processes::{eventually, is_alive, signal};

const SOME: usize = 40;

#[test]
fn parked_connections_outlive_a_worker_that_somebody_else_woke() {
    let stage = Stage::with(&["--idle", "200ms"]);
    for address in stage.addresses() {
        let mut parked: Vec<Connection> = (0..SOME).map(|_| stage.kept(&address)).collect();
        stage.host.sleeps(&stage.tenant);
        stage.kept(&address);
        for worker in stage.host.workers(&stage.tenant) {
            signal(worker, Signal::SIGKILL);
        }
        for connection in &mut parked {
            stage.goes_on(&address, connection);
        }
    }
}

#[test]
fn parked_connections_outlive_the_zygote() {
    let stage = Stage::with(&["--idle", "200ms"]);
    for address in stage.addresses() {
        let mut parked: Vec<Connection> = (0..SOME).map(|_| stage.kept(&address)).collect();
        stage.host.sleeps(&stage.tenant);
        let zygote = stage.host.zygote().unwrap();
        signal(zygote, Signal::SIGKILL);
        for connection in &mut parked {
            stage.goes_on(&address, connection);
        }
        assert_ne!(stage.host.zygote(), Some(zygote));
    }
}

/// The old worker hands them over, the new one is stopped before it can take them and dies; and
/// others wait in its listener's queue meanwhile.
#[test]
fn connections_on_their_way_to_a_worker_outlive_it() {
    let stage = Stage::new();
    for address in stage.addresses() {
        let old = stage.host.workers(&stage.tenant)[0];
        let words = "words in two parts";
        let request = ask(&address, words).bytes("demo");
        let (first, second) = request.split_at(request.len() - 5);
        let mut passed: Vec<Connection> = (0..SOME).map(|_| stage.kept(&address)).collect();
        for connection in &mut passed {
            connection.send(first).unwrap();
            super::is_read(connection);
        }
        let before = stage.swap();
        let new = stage.host.workers(&stage.tenant);
        let new: Vec<i32> = new.into_iter().filter(|pid| *pid != old).collect();
        let [new] = new[..] else { panic!("{new:?}") };
        signal(new, Signal::SIGSTOP);
        for connection in &mut passed {
            connection.send(second).unwrap();
            answered(&before, words, &connection.answer("POST"));
        }
        eventually("the end of the old worker", || (!is_alive(old)).then_some(()));

        let mut queued: Vec<Connection> = (0..SOME).map(|_| stage.tenant.open()).collect();
        let port = stage.tenant.address();
        for connection in &mut queued {
            connection.send(&ask(&port, "queued").bytes("demo")).unwrap();
        }
        // Half of them speak before it dies, half after.
        for connection in &mut passed[..SOME / 2] {
            connection.send(&ask(&address, "early").bytes("demo")).unwrap();
        }
        signal(new, Signal::SIGKILL);
        for connection in &mut passed[..SOME / 2] {
            answered(&stage.history.current(), "early", &connection.answer("POST"));
        }
        for connection in &mut passed {
            stage.goes_on(&address, connection);
        }
        for connection in &mut queued {
            answered(&stage.history.current(), "queued", &connection.answer("POST"));
            stage.goes_on(&port, connection);
        }
    }
}

#[test]
fn connections_that_the_front_door_hands_to_a_dying_worker_reach_the_next() {
    let stage = Stage::new();
    let [_, by_name] = stage.addresses();
    for _ in 0..3 {
        let worker = stage.host.workers(&stage.tenant)[0];
        signal(worker, Signal::SIGSTOP);
        let before = stage.host.handed_over();
        let mut passed: Vec<Connection> =
            (0..SOME).map(|_| Connection::open(by_name.to).unwrap()).collect();
        for connection in &mut passed {
            connection.send(&ask(&by_name, "to nobody").bytes("demo")).unwrap();
        }
        eventually("connections handed over", || {
            (stage.host.handed_over() - before == SOME as u64).then_some(())
        });
        signal(worker, Signal::SIGKILL);
        for connection in &mut passed {
            answered(&stage.history.current(), "to nobody", &connection.answer("POST"));
            stage.goes_on(&by_name, connection);
        }
    }
}
