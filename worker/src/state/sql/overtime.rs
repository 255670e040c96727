//! What SQLite cannot be stopped in: it looks at the clock between two steps of a statement, and one
//! step can be a function that compares every place of a long text with another one. A worker with
//! such a statement ends, since everything that waits for its writer or readers would wait with it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Beyond its time, which a step may take.
pub const GRACE: Duration = Duration::from_secs(5);

struct Watched {
    next: u64,
    /// By which each of those that run has to have ended.
    running: BTreeMap<u64, Instant>,
    /// When it is looked at them next.
    looks: Option<Instant>,
}

/// Of the process, which ends as a whole.
static WATCHED: Mutex<Watched> = Mutex::new(Watched::new());
static EARLIER: Notify = Notify::const_new();

/// Until it is dropped, a statement runs.
pub struct Overtime(u64);

impl Overtime {
    /// Of one that has until then.
    pub fn watch(until: Instant) -> Self {
        let (number, is_earlier) = lock().begin(until + GRACE);
        if is_earlier {
            EARLIER.notify_one();
        }
        Self(number)
    }
}

impl Drop for Overtime {
    fn drop(&mut self) {
        lock().running.remove(&self.0);
    }
}

/// Waits until a statement runs that should have ended.
pub async fn over() {
    loop {
        let looks = lock().next_look(Instant::now());
        match looks {
            Look::Over => return,
            Look::Nobody => EARLIER.notified().await,
            Look::At(at) => tokio::select! {
                () = tokio::time::sleep_until(at.into()) => {}
                () = EARLIER.notified() => {}
            },
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Look {
    Over,
    Nobody,
    At(Instant),
}

impl Watched {
    const fn new() -> Self {
        Self { next: 0, running: BTreeMap::new(), looks: None }
    }

    /// Its number, and whether it has to be looked at earlier than was meant.
    fn begin(&mut self, until: Instant) -> (u64, bool) {
        let number = self.next;
        self.next += 1;
        self.running.insert(number, until);
        (number, self.looks.is_none_or(|at| until < at))
    }

    fn next_look(&mut self, now: Instant) -> Look {
        let first = self.running.values().min().copied();
        self.looks = first;
        match first {
            None => Look::Nobody,
            Some(at) if at <= now => Look::Over,
            Some(at) => Look::At(at),
        }
    }
}

fn lock() -> MutexGuard<'static, Watched> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_at_the_first_that_has_to_end() {
        let mut watched = Watched::new();
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(watched.next_look(now), Look::Nobody);
        assert_eq!(watched.begin(after(20)), (0, true));
        assert_eq!(watched.next_look(now), Look::At(after(20)));
        assert_eq!(watched.begin(after(30)), (1, false));
        assert_eq!(watched.begin(after(6)), (2, true));
        assert_eq!(watched.next_look(now), Look::At(after(6)));
        watched.running.remove(&2);
        assert_eq!(watched.next_look(after(6)), Look::At(after(20)));
        assert_eq!(watched.next_look(after(20)), Look::Over);
    }

    #[test]
    fn what_has_ended_is_watched_no_more() {
        let overtime = Overtime::watch(Instant::now() + GRACE);
        let number = overtime.0;
        assert!(lock().running.contains_key(&number));
        drop(overtime);
        assert!(!lock().running.contains_key(&number));
    }
}
