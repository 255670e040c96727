//! The power fails between any two syncs. The host runs on undisturbed; at each of its syncs the
//! data directory is laid aside as a disk would have it then, once with nothing but what was synced,
//! and once with what chance wrote of the rest. Each of them is looked at by the checker, and from
//! some a host is started.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use super::checker::{self, State};
use super::disk::Disk;
use super::stage::{self, Stage};
use crate::syncs::{Said, Sync, Watch};
use crate::traffic::{Choices, is_long};

/// From so many a host is started.
const STARTED: usize = 6;

/// A disk as it was at some moment.
struct Moment {
    disk: Disk,
    /// The counter, before and after it was looked at.
    from: usize,
    to: usize,
    torn: bool,
}

/// Counted up when a step begins and when it is done: even while nothing is under way.
type Counter = Arc<AtomicUsize>;

#[test]
fn row_41_what_was_acknowledged_outlives_the_power() {
    let mut stage = Stage::new();
    let (counter, moments) = (Counter::default(), Arc::new(Mutex::new(Vec::new())));
    // What the store said before each step, and after the last. Steps take turns: what brings
    // about a change's conditions, in several changes, and the change itself.
    let mut said = vec![checker::read(&stage.data())];
    let watch = watch(&stage, &counter, &moments);
    for operation in (0..if is_long() { 3 } else { 1 }).flat_map(|_| stage::all()) {
        counter.fetch_add(1, SeqCst);
        (operation.prepare)(&stage);
        counter.fetch_add(1, SeqCst);
        said.push(checker::read(&stage.data()));
        counter.fetch_add(1, SeqCst);
        let answer = (operation.act)(&stage).unwrap();
        counter.fetch_add(1, SeqCst);
        assert!(answer.status < 300, "{}: {}", operation.name, answer.text());
        said.push(checker::read(&stage.data()));
    }
    drop(watch);
    let moments = std::mem::take(&mut *moments.lock().unwrap());

    let (mut old, mut new) = (0, 0);
    for (at, moment) in moments.iter().enumerate() {
        let Moment { from, to, torn, .. } = moment;
        let when = format!("moment {at}, {from} to {to}, torn: {torn}");
        let found = look_at(moment, &when);
        let may_be = *from / 2..=to.div_ceil(2);
        let is_known = may_be.clone().skip(1).all(|after| after % 2 == 0);
        if is_known {
            let may_be = &said[may_be];
            assert!(may_be.contains(&found), "{when}: {found:#?}\nis none of {may_be:#?}");
            if may_be.len() > 1 {
                *(if found == may_be[0] { &mut old } else { &mut new }) += 1;
            }
        }
    }
    let all = moments.len();
    println!("{all} moments; amid a change {old} times as before and {new} times as asked");
    assert!(all > 100 && old > 0 && new > 0);

    for moment in moments.iter().step_by(all / STARTED) {
        stage.host.kill();
        fs::remove_dir_all(stage.data()).unwrap();
        moment.disk.write(&stage.data()).unwrap();
        let when = format!("started after {} of {}", moment.to, said.len());
        stage.start_again(&when);
        stage.is_whole(&when);
    }
}

/// At each sync of the host, until it is dropped.
fn watch(stage: &Stage, counter: &Counter, moments: &Arc<Mutex<Vec<Moment>>>) -> Watch {
    let (data, counter, moments) = (stage.data(), counter.clone(), moments.clone());
    let mut choices = Choices::new();
    let mut durable = Disk::of(&data).unwrap();
    Watch::begin(stage.host.pid(), move |sync| {
        let from = counter.load(SeqCst);
        let (disk, torn) = match sync {
            Sync::Begins => (durable.torn(&Disk::of(&data).unwrap(), &mut choices), true),
            Sync::Done(path) => {
                durable.sync(&path).unwrap();
                (durable.clone(), false)
            }
        };
        let to = counter.load(SeqCst);
        moments.lock().unwrap().push(Moment { disk, from, to, torn });
        Said::AsItIs
    })
}

fn look_at(moment: &Moment, when: &str) -> State {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    moment.disk.write(&data).unwrap();
    let wrong = checker::wrong(&data);
    assert!(wrong.is_empty(), "{when}: {wrong:#?}");
    checker::read(&data)
}
