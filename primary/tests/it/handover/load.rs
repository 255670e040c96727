//! Traffic under change. Nothing is lost, nothing is closed, and whoever asks after a change was
//! acknowledged is not answered by what was before. The seeded short form, or with SOAK in the
//! environment the long one.

use std::time::Duration;

use super::Stage;
use crate::host::Address;
use crate::processes::pause;
use crate::traffic::{CONNECTIONS, Choices, Traffic, is_long};

/// How many requests are made, and how many changes meanwhile.
fn extent() -> (usize, usize) {
    if is_long() { (100_000, 50) } else { (10_000, 5) }
}

#[test]
fn uploads_lose_no_request_of_kept_connections() {
    let stage = Stage::new();
    under_uploads(&stage, &stage.tenant.address());
}

#[test]
fn neither_do_rollbacks_and_new_options() {
    let stage = Stage::new();
    let mut choices = Choices::new();
    let (requests, changes) = extent();
    Traffic::run(&stage.tenant.address(), &stage.history, requests, |traffic| {
        for change in 1..=changes {
            traffic.reach(change, changes + 1);
            match choices.below(3) {
                0 => stage.history.upload(),
                1 => stage.history.roll_back(&mut choices),
                _ => stage.history.reconfigure(),
            }
        }
    });
    stage.settles();
}

#[test]
fn neither_does_sleep_under_kept_connections() {
    let stage = Stage::with(&["--idle", "200ms"]);
    let mut choices = Choices::new();
    let (requests, changes) = extent();
    Traffic::run(&stage.tenant.address(), &stage.history, requests, |traffic| {
        for change in 1..=changes {
            traffic.reach(change, changes + 1);
            let changed_asleep = choices.below(2) == 0;
            traffic.silence(|| {
                stage.host.sleeps(&stage.tenant);
                if changed_asleep {
                    stage.history.upload();
                }
            });
            if !changed_asleep {
                stage.history.upload();
            }
        }
    });
    stage.settles();
}

/// Pauses around the idle time, so that kept connections speak to workers that are just leaving.
#[test]
fn neither_do_pauses_around_the_idle_time() {
    const IDLE_MS: u64 = 100;
    let stage = Stage::with(&["--idle", "100ms"]);
    let mut choices = Choices::new();
    let (requests, pauses) = if is_long() { (100_000, 1_000) } else { (5_000, 40) };
    let mut asleep = 0;
    Traffic::run(&stage.tenant.address(), &stage.history, requests, |traffic| {
        for at in 1..=pauses {
            traffic.reach(at, pauses + 1);
            let length = Duration::from_micros(choices.below(2 * IDLE_MS * 1_000));
            asleep += traffic.silence(|| {
                pause(length);
                usize::from(stage.host.workers(&stage.tenant).is_empty())
            });
        }
    });
    assert!(asleep > 0, "some must have found nobody");
}

#[test]
fn uploads_lose_no_request_of_connections_that_the_front_door_handed_over() {
    let stage = Stage::new();
    let [_, by_name, _] = stage.tenant.addresses();
    let before = stage.host.handed_over();
    under_uploads(&stage, &by_name);
    // One for each connection.
    stage.host.has_handed_over(before + CONNECTIONS);
}

#[test]
fn uploads_lose_no_request_that_the_front_door_proxies() {
    let stage = Stage::new();
    let [_, _, by_path] = stage.tenant.addresses();
    under_uploads(&stage, &by_path);
    assert_eq!(stage.host.handed_over(), 0);
    assert!(stage.host.proxied() >= CONNECTIONS, "{}", stage.host.proxied());
}

#[track_caller]
fn under_uploads(stage: &Stage, address: &Address) {
    let (requests, changes) = extent();
    Traffic::run(address, &stage.history, requests, |traffic| {
        for change in 1..=changes {
            traffic.reach(change, changes + 1);
            stage.history.upload();
        }
    });
    stage.settles();
}
