//! The sweep: for every point that an operation comes to, the host is killed there, started again
//! and checked. Which points there are is told by the program; one that no operation comes to fails
//! the test.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use super::checker;
use super::stage::{
    self, Operation, RESTORES, Reached, SETTINGS, SWITCHES, Stage, TENANTS, UPLOADS, WORKERS,
};
use crate::processes::{descendants, eventually, is_alive};

const KILL: Option<i32> = Some(nix::sys::signal::Signal::SIGKILL as i32);

#[test]
fn an_upload_is_whole_or_nothing_wherever_the_host_dies() {
    sweep(UPLOADS);
}

#[test]
fn so_are_a_rollback_a_removal_and_new_settings() {
    sweep(SWITCHES);
}

/// Row 159 of the checklist, for what functions are told; and no death leaves a secret without its key.
#[test]
fn row_159_so_are_configuration_secrets_and_their_key() {
    sweep(SETTINGS);
}

#[test]
fn so_are_tenants_and_tokens() {
    sweep(TENANTS);
}

#[test]
fn what_a_worker_is_told_is_on_record_or_was_never_said() {
    sweep(WORKERS);
}

#[test]
fn a_tenant_that_comes_back_is_whole_and_told_of_or_neither() {
    sweep(RESTORES);
}

fn sweep(operations: &[Operation]) {
    let mut stage = Stage::new();
    let (mut kills, mut old, mut new) = (0, 0, 0);
    for operation in operations {
        for at in comes_to(&stage, operation) {
            let when = format!("{}, killed at {} ({})", operation.name, at.point, at.times);
            (operation.prepare)(&stage);
            let before = checker::read(&stage.data());
            let processes = descendants(stage.host.pid());
            stage.arm(&at, "kill");
            let answer = (operation.act)(&stage);
            assert_eq!(stage.host.ended().signal(), KILL, "{when}: {answer:?}");
            stage.disarm();
            stage.start_again(&when);

            let after = checker::read(&stage.data());
            stage.is_whole(&when);
            kills += 1;
            if stage::same(&before, &after) {
                let told = answer.ok().filter(|answer| answer.status < 300);
                assert!(told.is_none(), "{when}: {told:?} was said, and then forgotten");
                old += 1;
            } else {
                let mut expected = before;
                (operation.expect)(&stage, &mut expected);
                assert!(stage::same(&expected, &after), "{when}: {after:#?}\nnot {expected:#?}");
                new += 1;
            }
            eventually("the end of the old host's processes", || {
                processes.iter().all(|pid| !is_alive(*pid)).then_some(())
            });
        }
    }
    println!("{kills} kills: {old} times as before, {new} times as asked; nothing dangled");
    assert!(old > 0 && new > 0);
}

/// Every point of an operation that is left alone.
pub fn comes_to(stage: &Stage, operation: &Operation) -> Vec<Reached> {
    (operation.prepare)(stage);
    let mut expected = checker::read(&stage.data());
    stage.count_points();
    let answer = (operation.act)(stage).unwrap();
    let reached = stage.reached();
    assert!(answer.status < 300, "{}: {} {}", operation.name, answer.status, answer.text());
    (operation.expect)(stage, &mut expected);
    let after = checker::read(&stage.data());
    assert!(stage::same(&expected, &after), "{}: {after:#?}\nnot {expected:#?}", operation.name);
    assert!(!reached.is_empty(), "{}", operation.name);
    // In how many pieces an upload comes is another matter each time; a first one there always is.
    reached.into_iter().filter(|at| at.point != "SpoolWrite" || at.times == 1).collect()
}

#[test]
fn a_start_can_die_anywhere_and_the_next_one_makes_up_for_it() {
    let mut stage = Stage::new();
    let expected = checker::read(&stage.data());
    let mut kills = 0;
    for at in a_start_comes_to(&mut stage) {
        let when = format!("a start, killed at {} ({})", at.point, at.times);
        stage.host.kill();
        stage::leave_work_for_a_start(&stage);
        stage.arm(&at, "kill");
        if stage.host.try_start_again().is_ok() {
            // What it sweeps, it sweeps while it serves.
            assert_eq!(stage.host.ended().signal(), KILL, "{when}");
        }
        stage.disarm();
        stage.host.start_again();
        stage.is_whole(&when);
        stage.is_swept(&when);
        let after = checker::read(&stage.data());
        assert_eq!(after, expected, "{when}");
        kills += 1;
    }
    println!("{kills} kills of a host that starts; nothing was lost");
}

fn a_start_comes_to(stage: &mut Stage) -> Vec<Reached> {
    stage.host.kill();
    stage::leave_work_for_a_start(stage);
    stage.count_points();
    stage.host.start_again();
    stage.is_swept("a start");
    stage.reached()
}

#[test]
fn every_point_that_there_is_is_come_to_by_one_of_these() {
    let mut stage = Stage::new();
    let mut come_to: BTreeSet<String> = BTreeSet::new();
    for operation in stage::all() {
        come_to.extend(comes_to(&stage, operation).into_iter().map(|at| at.point));
    }
    come_to.extend(a_start_comes_to(&mut stage).into_iter().map(|at| at.point));
    let all: BTreeSet<String> = stage.points().into_iter().collect();
    println!("{} points", all.len());
    assert_eq!(come_to, all);
}
