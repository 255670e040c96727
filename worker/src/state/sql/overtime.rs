//! What SQLite cannot be stopped in: it looks at the clock between two steps of a statement, and one
//! step can be a function that compares every place of a long text with another one. A worker with
//! such a statement ends, since everything that waits for its writer or readers would wait with it.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{io, process};

use hearth_wire::complain;

/// Beyond its time, which a step may take.
const GRACE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const STACK_BYTES: usize = 256 << 10;

#[derive(Default)]
struct Watched {
    next: u64,
    /// By which each of those that run has to have ended.
    running: BTreeMap<u64, Instant>,
}

static WATCHED: Mutex<Watched> = Mutex::new(Watched { next: 0, running: BTreeMap::new() });
static BEGAN: Condvar = Condvar::new();
static WATCH: OnceLock<()> = OnceLock::new();

/// Until it is dropped, a statement runs.
pub struct Overtime(u64);

impl Overtime {
    /// Of one that has until then. Without a thread that watches, nobody is ended.
    pub fn watch(until: Instant) -> Self {
        // Where it could not be started, the host still looks for a sign of life.
        let _ = start();
        let mut watched = lock();
        let number = watched.next;
        watched.next += 1;
        watched.running.insert(number, until + GRACE);
        if watched.running.len() == 1 {
            BEGAN.notify_one();
        }
        Self(number)
    }
}

impl Drop for Overtime {
    fn drop(&mut self) {
        lock().running.remove(&self.0);
    }
}

/// Starts the thread that watches, once.
pub fn start() -> io::Result<()> {
    if WATCH.get().is_none() {
        let thread = thread::Builder::new().name("overtime".to_owned()).stack_size(STACK_BYTES);
        // Of two that start one at once, one watches as well and finds the same.
        thread.spawn(run)?;
        let _ = WATCH.set(());
    }
    Ok(())
}

fn run() {
    let mut watched = lock();
    loop {
        watched = if watched.running.is_empty() {
            BEGAN.wait(watched).unwrap_or_else(PoisonError::into_inner)
        } else {
            let waited = BEGAN.wait_timeout(watched, LOOK_EVERY);
            waited.unwrap_or_else(PoisonError::into_inner).0
        };
        if is_over(&watched, Instant::now()) {
            complain(format_args!(
                "hearth-worker: a statement of SQL ran for {} s longer than it may, within one step of \
                 SQLite's that cannot be stopped: the worker ends; functions on long texts, such as \
                 instr, replace or trim, take that long",
                GRACE.as_secs()
            ));
            process::exit(1);
        }
    }
}

fn is_over(watched: &Watched, now: Instant) -> bool {
    watched.running.values().any(|until| *until <= now)
}

fn lock() -> MutexGuard<'static, Watched> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_over_when_its_time_and_the_grace_are() {
        let now = Instant::now();
        let mut watched = Watched::default();
        assert!(!is_over(&watched, now));
        watched.running.insert(1, now + GRACE);
        watched.running.insert(2, now + 2 * GRACE);
        assert!(!is_over(&watched, now));
        assert!(is_over(&watched, now + GRACE));
        watched.running.remove(&1);
        assert!(!is_over(&watched, now + GRACE));
    }

    #[test]
    fn what_has_ended_is_watched_no_more() {
        let number = {
            let overtime = Overtime::watch(Instant::now() + GRACE);
            assert!(lock().running.contains_key(&overtime.0));
            overtime.0
        };
        assert!(!lock().running.contains_key(&number));
    }
}
