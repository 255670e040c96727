//! A worker's life: what it does when it is told something, when time goes by, and when nothing is
//! left to do. Pure; [`crate::control`] performs it, and [`crate::birth`] comes before it.
//!
//! ```text
//!             Accept              idle               Leave
//!  Standby ───────────► Accepting ─────► Leaving ────────────┐
//!     │                     │               │                ▼   the last connection
//!     └──── Quiesce, Close ─┴───────────────┴──────────► Draining ───────► (exit)
//! ```
//!
//! A drain has a time, where the primary gives one: at its end the calls that still run are given
//! up, and a moment later what is left of them is cut, so that each is answered or on record before
//! the primary loses its patience. Uploads on their way to it are no calls, and go on.

use std::io;
use std::time::{Duration, Instant};

use hearth_jail::WallError;
use hearth_wire::{SocketError, VERSION};

use crate::limits::Activity;
use crate::state::sql::GRACE;

/// From giving calls up to cutting what is left of them: for what their callers are told.
const CUT_AFTER: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("the control socket broke")]
    Socket(#[source] SocketError),
    #[error("the primary is gone")]
    Gone,
    #[error("the primary sent an unexpected message: {0}")]
    Unexpected(String),
    #[error("the primary speaks version {0} and this worker {VERSION}")]
    Version(u32),
    #[error(transparent)]
    Wall(#[from] WallError),
    #[error("the runtime cannot be built")]
    Runtime(#[source] io::Error),
    #[error("the tenant's state cannot be looked at")]
    State(#[source] io::Error),
    #[error("a socket cannot be taken")]
    Sockets(#[source] io::Error),
    #[error("a check against a schema did not end in time")]
    Stuck,
    #[error(
        "a statement of SQL ran for {} s longer than it may, within one step of SQLite's that cannot \
         be stopped; functions on long texts, such as instr, replace or trim, take that long",
        GRACE.as_secs()
    )]
    Overtime,
}

impl From<SocketError> for WorkerError {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Io(io) if io.kind() == io::ErrorKind::BrokenPipe => Self::Gone,
            error => Self::Socket(error),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Standby,
    Accepting {
        /// A worker that is accepting and never called is idle from here on.
        since: Instant,
    },
    Leaving,
    Draining(Left),
}

/// What there still is of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Calls run, for as long as there is time.
    Calls,
    /// They are given up, since then.
    GivenUp(Instant),
    /// They are cut, and just ending.
    Cut,
    /// Nothing but uploads.
    Uploads,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Accept,
    Quiesce,
    Close,
    Leave,
    /// It has until then to finish what runs, once it is told to.
    Finish(Instant),
    /// Time went on, or a call ended.
    Clock(Activity),
    /// Nothing is left but uploads.
    OnlyUploads,
    /// No connection and no call is left, and none is on its way.
    Empty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    StartAccepting,
    StopAccepting,
    SayAccepting,
    SayQuiesced,
    SayLeaving,
    SayCallsDone,
    /// No further request is taken from now on.
    HandOver,
    /// The same, and connections are closed.
    CloseConnections,
    GiveUpCalls,
    CutCalls,
    Exit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub state: State,
    idle: Duration,
    /// Until when calls may run in a drain. `None` where nobody has said.
    finish_by: Option<Instant>,
}

impl Life {
    pub fn new(idle: Duration) -> Self {
        Self { state: State::Standby, idle, finish_by: None }
    }

    /// When the clock is to be asked again: at the end of the idle time, or when that could be
    /// at the earliest.
    pub fn alarm(&self, activity: Activity, now: Instant) -> Option<Instant> {
        match self.state {
            State::Accepting { since } if activity.calls == 0 => {
                Some(activity.quiet_since.max(since) + self.idle)
            }
            State::Accepting { .. } => Some(now + self.idle),
            State::Draining(Left::Calls) => self.finish_by,
            State::Draining(Left::GivenUp(since)) => Some(since + CUT_AFTER),
            State::Standby | State::Leaving | State::Draining(Left::Cut | Left::Uploads) => None,
        }
    }

    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        use Action::*;
        if let Event::Finish(by) = event {
            self.finish_by = Some(self.finish_by.map_or(by, |before| before.min(by)));
            return vec![];
        }
        let draining = State::Draining(Left::Calls);
        let (state, actions) = match (self.state, event) {
            (State::Standby, Event::Accept) => {
                (State::Accepting { since: now }, vec![StartAccepting, SayAccepting])
            }
            (State::Standby | State::Accepting { .. } | State::Leaving, Event::Quiesce) => {
                (draining, vec![StopAccepting, HandOver, SayQuiesced])
            }
            (State::Standby | State::Accepting { .. } | State::Leaving, Event::Close) => {
                (draining, vec![StopAccepting, CloseConnections, SayQuiesced])
            }
            (state @ State::Draining(_), Event::Close) => (state, vec![CloseConnections]),
            (State::Accepting { .. }, Event::Clock(activity))
                if activity.calls == 0
                    && self.alarm(activity, now).is_some_and(|alarm| alarm <= now) =>
            {
                (State::Leaving, vec![StopAccepting, SayLeaving])
            }
            (State::Leaving, Event::Leave) => (draining, vec![HandOver]),
            (State::Draining(Left::Calls), Event::Clock(_))
                if self.finish_by.is_some_and(|by| by <= now) =>
            {
                (State::Draining(Left::GivenUp(now)), vec![GiveUpCalls])
            }
            (State::Draining(Left::GivenUp(since)), Event::Clock(_))
                if since + CUT_AFTER <= now =>
            {
                (State::Draining(Left::Cut), vec![CutCalls])
            }
            (State::Draining(Left::Calls | Left::GivenUp(_) | Left::Cut), Event::OnlyUploads) => {
                (State::Draining(Left::Uploads), vec![SayCallsDone])
            }
            (state @ State::Draining(_), Event::Empty) => (state, vec![Exit]),
            // Crossed on the way, or nothing to do yet.
            (
                state @ State::Standby,
                Event::Leave | Event::Clock(_) | Event::OnlyUploads | Event::Empty,
            )
            | (
                state @ State::Accepting { .. },
                Event::Accept | Event::Leave | Event::Clock(_) | Event::OnlyUploads | Event::Empty,
            )
            | (
                state @ State::Leaving,
                Event::Accept | Event::Clock(_) | Event::OnlyUploads | Event::Empty,
            )
            | (
                state @ State::Draining(_),
                Event::Accept
                | Event::Quiesce
                | Event::Leave
                | Event::Clock(_)
                | Event::OnlyUploads,
            )
            | (state, Event::Finish(_)) => (state, vec![]),
        };
        self.state = state;
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{
        CloseConnections, CutCalls, Exit, GiveUpCalls, HandOver, SayAccepting, SayCallsDone,
        SayLeaving, SayQuiesced, StartAccepting, StopAccepting,
    };

    const IDLE: Duration = Duration::from_secs(60);

    /// Every state by every event: the state after it and what is done.
    #[test]
    fn every_state_by_every_event() {
        let start = Instant::now();
        let now = start + IDLE;
        let accepting = State::Accepting { since: start };
        let quiet = Event::Clock(Activity { calls: 0, quiet_since: start });
        let recent =
            Event::Clock(Activity { calls: 0, quiet_since: start + Duration::from_secs(1) });
        let busy = Event::Clock(Activity { calls: 1, quiet_since: start });
        let draining = State::Draining(Left::Calls);
        let [given_up, long_ago] = [now, start].map(|since| State::Draining(Left::GivenUp(since)));
        let [cut, uploads] = [Left::Cut, Left::Uploads].map(State::Draining);
        let begun = State::Accepting { since: now };
        let quiesced: &[Action] = &[StopAccepting, HandOver, SayQuiesced];
        let closed: &[Action] = &[StopAccepting, CloseConnections, SayQuiesced];
        let table: [(State, Event, State, &[Action]); 52] = [
            (State::Standby, Event::Accept, begun, &[StartAccepting, SayAccepting]),
            (State::Standby, Event::Quiesce, draining, quiesced),
            (State::Standby, Event::Close, draining, closed),
            (State::Standby, Event::Leave, State::Standby, &[]),
            (State::Standby, quiet, State::Standby, &[]),
            (State::Standby, recent, State::Standby, &[]),
            (State::Standby, busy, State::Standby, &[]),
            (State::Standby, Event::Empty, State::Standby, &[]),
            (accepting, Event::Accept, accepting, &[]),
            (accepting, Event::Quiesce, draining, quiesced),
            (accepting, Event::Close, draining, closed),
            (accepting, Event::Leave, accepting, &[]),
            (accepting, quiet, State::Leaving, &[StopAccepting, SayLeaving]),
            (accepting, recent, accepting, &[]),
            (accepting, busy, accepting, &[]),
            (accepting, Event::Empty, accepting, &[]),
            (begun, quiet, begun, &[]),
            (begun, recent, begun, &[]),
            (begun, busy, begun, &[]),
            (begun, Event::Empty, begun, &[]),
            (State::Leaving, Event::Accept, State::Leaving, &[]),
            (State::Leaving, Event::Quiesce, draining, quiesced),
            (State::Leaving, Event::Close, draining, closed),
            (State::Leaving, Event::Leave, draining, &[HandOver]),
            (State::Leaving, quiet, State::Leaving, &[]),
            (State::Leaving, recent, State::Leaving, &[]),
            (State::Leaving, busy, State::Leaving, &[]),
            (State::Leaving, Event::Empty, State::Leaving, &[]),
            (draining, Event::Accept, draining, &[]),
            (draining, Event::Quiesce, draining, &[]),
            (draining, Event::Close, draining, &[CloseConnections]),
            (draining, Event::Leave, draining, &[]),
            (draining, quiet, draining, &[]),
            (draining, recent, draining, &[]),
            (draining, busy, draining, &[]),
            (draining, Event::Empty, draining, &[Exit]),
            (State::Standby, Event::OnlyUploads, State::Standby, &[]),
            (accepting, Event::OnlyUploads, accepting, &[]),
            (State::Leaving, Event::OnlyUploads, State::Leaving, &[]),
            (draining, Event::OnlyUploads, uploads, &[SayCallsDone]),
            (given_up, Event::OnlyUploads, uploads, &[SayCallsDone]),
            (cut, Event::OnlyUploads, uploads, &[SayCallsDone]),
            (uploads, Event::OnlyUploads, uploads, &[]),
            (given_up, busy, given_up, &[]),
            (long_ago, busy, cut, &[CutCalls]),
            (cut, busy, cut, &[]),
            (uploads, busy, uploads, &[]),
            (given_up, Event::Close, given_up, &[CloseConnections]),
            (uploads, Event::Close, uploads, &[CloseConnections]),
            (given_up, Event::Empty, given_up, &[Exit]),
            (cut, Event::Empty, cut, &[Exit]),
            (uploads, Event::Empty, uploads, &[Exit]),
        ];
        for (before, event, after, actions) in table {
            let mut life = Life { state: before, idle: IDLE, finish_by: None };
            assert_eq!(life.step(event, now), actions, "{before:?} {event:?}");
            assert_eq!(life.state, after, "{before:?} {event:?}");
        }
    }

    #[test]
    fn the_alarm_is_the_end_of_the_idle_time() {
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        let life = |state| Life { state, idle: IDLE, finish_by: None };
        let quiet = |quiet_since| Activity { calls: 0, quiet_since };
        let accepting = life(State::Accepting { since: start });
        assert_eq!(accepting.alarm(quiet(later), later), Some(later + IDLE));
        let busy = Activity { calls: 2, quiet_since: start };
        assert_eq!(accepting.alarm(busy, later), Some(later + IDLE));
        let accepting = life(State::Accepting { since: later });
        assert_eq!(accepting.alarm(quiet(start), later), Some(later + IDLE));
        for state in [State::Standby, State::Leaving, State::Draining(Left::Calls)] {
            assert_eq!(life(state).alarm(quiet(start), later), None, "{state:?}");
        }
    }

    /// Whatever it is told, and however often, calls have the least of the times that they were given.
    #[test]
    fn calls_run_until_their_time_is_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let busy = Event::Clock(Activity { calls: 1, quiet_since: start });
        let begun = State::Accepting { since: start };
        let mut life = Life { state: begun, idle: IDLE, finish_by: None };
        for event in [Event::Finish(at(30)), busy, Event::Quiesce] {
            assert!(!life.step(event, at(40)).contains(&GiveUpCalls), "it is no drain yet");
        }
        let mut life = Life { state: begun, idle: IDLE, finish_by: None };
        assert_eq!(life.step(Event::Quiesce, start), [StopAccepting, HandOver, SayQuiesced]);
        assert_eq!(life.step(busy, at(1_000)), [], "nobody has said when");
        assert_eq!(life.step(Event::Finish(at(30)), start), []);
        assert_eq!(life.step(busy, at(29)), []);
        let Event::Clock(seen) = busy else { unreachable!() };
        assert_eq!(life.alarm(seen, at(29)), Some(at(30)));
        assert_eq!(life.step(Event::Finish(at(10)), start), [], "it is hurried");
        assert_eq!(life.step(Event::Finish(at(60)), start), [], "and has no more time for that");
        assert_eq!(life.step(busy, at(10)), [GiveUpCalls]);
        assert_eq!(life.alarm(seen, at(10)), Some(at(10) + CUT_AFTER));
        assert_eq!(life.step(busy, at(10)), []);
        assert_eq!(life.step(busy, at(10) + CUT_AFTER), [CutCalls]);
        assert_eq!(life.alarm(seen, at(11)), None);
        assert_eq!(life.step(busy, at(100)), []);
    }
}
