//! A worker that serves no function and takes no connection, for what its tenant keeps: where none
//! is started that serves functions, since the tenant is barred or backs off, its owner still reads
//! and mends that. Pure; there is at most one that is asked, beside one that closes.
//!
//! ```text
//!  (none) ── asked ──► Starting ── ready ──► Ready ── nobody asks ──► closing ──► (gone)
//! ```
//!
//! Its end is nobody's death: it counts for nothing in the tenant's [`Life`](super::lifecycle::Life).

use std::time::{Duration, Instant};

use super::lifecycle::{DRAIN_DEADLINE, FAREWELL_DEADLINE, FORK_DEADLINE, LOAD_DEADLINE, WorkerId};

/// How long it is there after it was asked for last: longer than an export takes.
pub const IDLE: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum State {
    #[default]
    None,
    Starting {
        worker: WorkerId,
        by: Instant,
    },
    Ready {
        worker: WorkerId,
        until: Instant,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keeper {
    current: State,
    /// And when it must be gone.
    closing: Option<(WorkerId, Instant)>,
}

/// How one ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It finishes what it was asked.
    Close(WorkerId),
    Kill(WorkerId, &'static str),
}

impl Keeper {
    /// Somebody asks for one. Says which one is to be started for it, if one is.
    pub fn asked(&mut self, new: impl FnOnce() -> WorkerId, now: Instant) -> Option<WorkerId> {
        match &mut self.current {
            State::Ready { until, .. } => {
                *until = now + IDLE;
                None
            }
            State::Starting { .. } => None,
            State::None => {
                let worker = new();
                self.current = State::Starting { worker, by: now + FORK_DEADLINE };
                Some(worker)
            }
        }
    }

    pub fn forked(&mut self, forked: WorkerId, now: Instant) {
        if let State::Starting { worker, by } = &mut self.current
            && *worker == forked
        {
            *by = now + LOAD_DEADLINE;
        }
    }

    pub fn ready(&mut self, ready: WorkerId, now: Instant) {
        if matches!(self.current, State::Starting { worker, .. } if worker == ready) {
            self.current = State::Ready { worker: ready, until: now + IDLE };
        }
    }

    /// It has ended, or there never was one.
    pub fn gone(&mut self, gone: WorkerId) {
        match self.current {
            State::Starting { worker, .. } | State::Ready { worker, .. } if worker == gone => {
                self.current = State::None;
            }
            State::None | State::Starting { .. } | State::Ready { .. } => {}
        }
        self.closing.take_if(|(worker, _)| *worker == gone);
    }

    /// The one that can be asked.
    pub fn worker(&self) -> Option<WorkerId> {
        match self.current {
            State::Ready { worker, .. } => Some(worker),
            State::None | State::Starting { .. } => None,
        }
    }

    pub fn is_coming(&self) -> bool {
        matches!(self.current, State::Starting { .. })
    }

    /// When there is something to end.
    pub fn deadline(&self) -> Option<Instant> {
        let current = match self.current {
            State::None => None,
            State::Starting { by: at, .. } | State::Ready { until: at, .. } => Some(at),
        };
        current.into_iter().chain(self.closing.map(|(_, by)| by)).min()
    }

    /// What is to be ended by now.
    #[must_use]
    pub fn overdue(&mut self, now: Instant) -> Vec<End> {
        let mut ends = Vec::new();
        if let Some((worker, _)) = self.closing.take_if(|(_, by)| *by <= now) {
            ends.push(End::Kill(worker, "what it was asked did not finish in time"));
        }
        match self.current {
            State::Starting { worker, by } if by <= now => {
                self.current = State::None;
                ends.push(End::Kill(worker, "it did not get ready in time"));
            }
            State::Ready { until, .. } if until <= now => ends.extend(self.dismiss(now)),
            State::None | State::Starting { .. } | State::Ready { .. } => {}
        }
        ends
    }

    /// Nobody needs one any more.
    #[must_use]
    pub fn dismiss(&mut self, now: Instant) -> Vec<End> {
        match std::mem::take(&mut self.current) {
            State::None => vec![],
            State::Starting { worker, .. } => vec![End::Kill(worker, "it is not wanted any more")],
            State::Ready { worker, .. } => {
                let by = now + DRAIN_DEADLINE + FAREWELL_DEADLINE;
                let before = self.closing.replace((worker, by));
                let killed = before.map(|(worker, _)| End::Kill(worker, "another one closes"));
                killed.into_iter().chain([End::Close(worker)]).collect()
            }
        }
    }

    /// There is no more time for any of them.
    #[must_use]
    pub fn hurry(&mut self) -> Vec<End> {
        let closing = self.closing.take().map(|(worker, _)| worker);
        let current = match std::mem::take(&mut self.current) {
            State::None => None,
            State::Starting { worker, .. } | State::Ready { worker, .. } => Some(worker),
        };
        let all = closing.into_iter().chain(current);
        all.map(|worker| End::Kill(worker, "there is no more time for it")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: WorkerId = WorkerId(1);
    const SECOND: WorkerId = WorkerId(2);

    fn nobody() -> WorkerId {
        panic!("one is there")
    }

    fn ready(now: Instant) -> Keeper {
        let mut keeper = Keeper::default();
        assert_eq!(keeper.asked(|| FIRST, now), Some(FIRST));
        keeper.forked(FIRST, now);
        keeper.ready(FIRST, now);
        keeper
    }

    #[test]
    fn one_is_started_for_all_who_ask() {
        let now = Instant::now();
        let mut keeper = Keeper::default();
        assert_eq!((keeper.deadline(), keeper.worker(), keeper.is_coming()), (None, None, false));
        assert_eq!(keeper.asked(|| FIRST, now), Some(FIRST));
        assert_eq!(keeper.asked(nobody, now), None);
        assert!(keeper.is_coming());
        keeper.forked(FIRST, now);
        assert_eq!(keeper.deadline(), Some(now + LOAD_DEADLINE));
        keeper.ready(FIRST, now);
        assert_eq!((keeper.worker(), keeper.is_coming()), (Some(FIRST), false));
        assert_eq!(keeper.asked(nobody, now), None);
    }

    #[test]
    fn it_closes_when_nobody_has_asked_for_a_while() {
        let now = Instant::now();
        let mut keeper = ready(now);
        let later = now + IDLE / 2;
        assert_eq!(keeper.asked(nobody, later), None);
        assert_eq!(keeper.overdue(now + IDLE), []);
        let end = later + IDLE;
        assert_eq!(keeper.deadline(), Some(end));
        assert_eq!(keeper.overdue(end), [End::Close(FIRST)]);
        // The next one waits for nothing.
        assert_eq!(keeper.asked(|| SECOND, end), Some(SECOND));
        keeper.ready(SECOND, end);
        keeper.gone(FIRST);
        assert_eq!(keeper.worker(), Some(SECOND));
        keeper.gone(SECOND);
        assert_eq!(keeper, Keeper::default());
    }

    #[test]
    fn who_is_late_is_killed() {
        let now = Instant::now();
        let mut keeper = Keeper::default();
        let _ = keeper.asked(|| FIRST, now);
        assert_eq!(keeper.overdue(now), []);
        assert!(matches!(keeper.overdue(now + FORK_DEADLINE)[..], [End::Kill(FIRST, _)]));
        assert_eq!(keeper, Keeper::default());
        let mut keeper = ready(now);
        assert_eq!(keeper.dismiss(now), [End::Close(FIRST)]);
        let by = keeper.deadline().unwrap();
        assert!(matches!(keeper.overdue(by)[..], [End::Kill(FIRST, _)]));
        assert_eq!(keeper.deadline(), None);
    }

    #[test]
    fn an_end_of_the_host_leaves_none() {
        let now = Instant::now();
        let mut starting = Keeper::default();
        let _ = starting.asked(|| FIRST, now);
        assert!(matches!(starting.dismiss(now)[..], [End::Kill(FIRST, _)]));
        let mut keeper = ready(now);
        let _ = keeper.dismiss(now);
        let _ = keeper.asked(|| SECOND, now);
        assert_eq!(keeper.hurry().len(), 2);
        assert_eq!(keeper, Keeper::default());
    }

    #[test]
    fn a_stranger_changes_nothing() {
        let now = Instant::now();
        let mut keeper = ready(now);
        let before = keeper.clone();
        keeper.forked(SECOND, now);
        keeper.ready(SECOND, now);
        keeper.gone(SECOND);
        assert_eq!(keeper, before);
    }
}
