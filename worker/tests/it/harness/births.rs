//! How a worker comes to be: forked when it is wanted, forked before, or started by itself; and what
//! it is told before it is ready.

use std::time::Instant;

use hearth_e2e::process::waits_for_message;
use hearth_wire::{Setting, Start, ToWorker};

use super::{PATIENCE, Release, Worker, Zygote, bundle, exec, tokens};

impl Zygote {
    /// One with this guest as its bundle, and with as many spare children as this.
    pub fn with_spares(spares: u8, guest: &str) -> Self {
        let mut zygote = Self::start();
        zygote.spares = spares;
        let path = format!("/bundled/{guest}");
        zygote.bundle(&bundle(&[(&path, guest, "{}")]), &[guest]);
        zygote
    }

    /// Its children that wait to be somebody's worker, once there are so many.
    pub fn await_spares(&self, count: usize) -> Vec<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pid = self.child.id();
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let children = children.unwrap_or_default();
            let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
            let waiting: Vec<i32> = children.filter(|pid| waits_for_message(*pid)).collect();
            if waiting.len() == count {
                return waiting;
            }
            assert!(Instant::now() < deadline, "{waiting:?} and not {count} wait");
            std::thread::yield_now();
        }
    }
}

impl Worker {
    /// Tells one that was started with so many parts of settings all of them.
    pub fn told(self, parts: &[Vec<Setting>]) -> Self {
        for part in parts {
            self.say(&ToWorker::Settings(part.clone()));
        }
        self.say(&tokens(1, vec![]));
        self
    }
}

/// The same worker of each birth: forked when it was wanted, forked before, and without a zygote.
/// The zygotes end with what is given.
pub fn of_each_birth(
    release: &Release,
    guest: &str,
    start: &Start,
) -> Vec<(Worker, Option<Zygote>)> {
    let mut zygotes = [Zygote::with_spares(0, guest), Zygote::with_spares(1, guest)];
    let spare = zygotes[1].await_spares(1);
    let [forked, given] = zygotes.each_mut().map(|zygote| zygote.fork(release, start.clone()));
    assert_eq!(given.pid, Some(spare[0]));
    let [one, two] = zygotes.map(Some);
    vec![(forked, one), (given, two), (exec(release, start.clone()), None)]
}
