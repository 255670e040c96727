//! The disk refuses: at every step of every operation that it can refuse, once with an error and
//! once for want of room. The change is refused and says so, or is done; what was there serves on,
//! and no sync is tried a second time. A real disk that is full is in `damage.rs`.

use std::collections::BTreeSet;

use super::checker;
use super::stage::{
    self, Operation, Reached, SETTINGS, SWITCHES, Stage, TENANTS, UPLOADS, WORKERS,
};
use crate::http::Answer;
use crate::processes::eventually;

/// Whether a step only tidies up behind a change that is done.
fn tidies(operation: &Operation, at: &Reached) -> bool {
    let removes = operation.name == "a tenant's end" && at.point.starts_with("Tenant");
    // The next start puts a key in its place that seals already.
    let replaces = operation.name == "another key for secrets"
        && matches!(&*at.point, "KeyPlace" | "KeySyncDir");
    removes || replaces || matches!(&*at.point, "ReleaseRemove" | "ModuleRemove" | "ArtifactRemove")
}

/// What a disk says that fails, is full, of which its owner has had its share, or that the kernel
/// has stopped writing to.
const ERRORS: [&str; 4] = ["EIO", "ENOSPC", "EDQUOT", "EROFS"];

#[test]
fn a_disk_that_fails_a_step_fails_that_change_alone() {
    let mut stage = Stage::new();
    let (mut refused, mut steps) = (0, BTreeSet::new());
    // Two files are uploaded as one is, step by step.
    for operation in
        UPLOADS[..1].iter().chain(SWITCHES).chain(SETTINGS).chain(TENANTS).chain(WORKERS)
    {
        for at in super::points::comes_to(&stage, operation) {
            // Each commit is another one; a second write or link is like the first.
            if !at.is_step || (at.times > 1 && at.point != "StoreCommit") {
                continue;
            }
            // What is behind them is the same for each operation.
            let errors = if operation.name == UPLOADS[0].name { &ERRORS[..] } else { &ERRORS[..2] };
            for errno in errors {
                refuse(&mut stage, operation, &at, errno);
                refused += 1;
            }
            steps.insert(at.point);
        }
    }
    println!("{refused} refusals at {} steps; nothing changed, all went on", steps.len());
    assert!(steps.len() >= 15, "{steps:?}");
}

fn refuse(stage: &mut Stage, operation: &Operation, at: &Reached, errno: &str) {
    let when = format!("{}, {errno} at {} ({})", operation.name, at.point, at.times);
    (operation.prepare)(stage);
    let before = checker::read(&stage.data());
    let pid = stage.host.pid();
    let logged = stage.host.log().len();
    stage.arm(at, errno);
    let answer = (operation.act)(stage).unwrap_or_else(|error| panic!("{when}: {error}"));
    let reached = stage.reached();
    stage.disarm();

    let after = checker::read(&stage.data());
    let mut expected = before.clone();
    if tidies(operation, at) {
        assert!(answer.status < 300, "{when}: {}", answer.text());
        (operation.expect)(stage, &mut expected);
    } else {
        is_told(&when, answer);
        // By the operator, too, whatever it was that was asked.
        eventually(&format!("the log's line of {when}"), || {
            let log = stage.host.log();
            let mut since = log.get(logged..).unwrap_or_default().lines();
            since.any(|it| it.contains("ERROR") && it.contains("the host's disk")).then_some(())
        });
    }
    assert!(stage::same(&after, &expected), "{when}: {after:#?}\nnot {expected:#?}");
    // A sync is not tried again. Other steps may be, where they take back what was begun.
    let times = reached.iter().filter(|reached| reached.point == at.point).count();
    assert!(!at.point.contains("Sync") || times == at.times, "{when}: come to {times} times");
    stage.is_whole(&when);
    assert_eq!(stage.host.pid(), pid);
    let mut half = checker::left_over(&stage.data());
    half.retain(|left| left.contains("tmp/") || left.contains(".half"));
    assert!(half.is_empty(), "{when}: {half:?}");

    if at.point == "StoreCommit" && matches!(errno, "EIO" | "EROFS") {
        // What is on the disk nobody knows until it is read again.
        let refused = (operation.act)(stage).unwrap();
        let refused = refused.expect_problem(507, "storage_full");
        refused.expect_detail("start Hearth again");
        assert_eq!(stage.host.figure("hearth_store_read_only"), 1);
        stage.host.kill();
        stage.start_again(&when);
    }
    if !tidies(operation, at) && errno == "ENOSPC" {
        let again = (operation.act)(stage).unwrap();
        assert!(again.status < 300, "{when}, and again: {}", again.text());
    }
}

fn is_told(when: &str, answer: Answer) {
    assert_eq!(answer.status, 507, "{when}: {}", answer.text());
    answer.expect_problem(507, "storage_full");
}
