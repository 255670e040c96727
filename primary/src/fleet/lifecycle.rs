//! The life of one tenant's workers, as a pure function of state, event and time.
//!
//! ```text
//!           wanted                             ready
//!  Asleep ──────────► Starting ──────────────────────► Ready ──── leaving ───► Asleep
//!    ▲                   │ died, late                    │ died      (the old one drains)
//!    │ over              ▼                               │
//!    └──────────────  Backoff ◄──────────────────────────┘    too many quick deaths ─► Barred
//!
//!  Swap: Waiting for a place ─► Loading (the next one beside the current) ─ ready ─► Committing
//!        ─ committed ─► the next one is current, the old one drains; Quiescing until the old one
//!        takes no more connections.
//! ```
//!
//! Few workers may finish their calls beside the current one, and a swap that would make one more
//! waits for a place. A worker that only passes uploads on to the host has no calls to finish and
//! takes no place: the upload that waits may be one of those.
//!
//! Decides only. Processes, sockets and clocks are the supervisor's, which performs the actions
//! and brings back what came of them as events. Nobody else writes a [`Life`].

use std::time::{Duration, Instant};

use hearth_wire::Generation;

/// From being forked to being ready.
pub const LOAD_DEADLINE: Duration = Duration::from_secs(10);
/// From being wanted to being forked: the queue of starts, and a compilation where the engine changed.
pub const FORK_DEADLINE: Duration = Duration::from_secs(180);
/// From being told to take no more connections to having done so.
pub const QUIESCE_DEADLINE: Duration = Duration::from_secs(5);
/// What calls have from their worker being told to finish until it gives them up.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
/// From that to its being gone: callers are answered, and what there is to report is.
pub const FAREWELL_DEADLINE: Duration = Duration::from_secs(3);
/// Workers that finish calls beside the current one.
pub const DRAINING_MAX: usize = 2;
/// All that are on their way out: with calls, with uploads, or just leaving. An upload takes long,
/// and each of a tenant's can have come through another worker.
pub const LEAVING_MAX: usize = 32;
/// How long a worker may pass uploads on after it was told to finish: longer than one may take.
pub const UPLOADS_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// How long a swap waits for a place. Each place is free again after [`DRAIN_DEADLINE`].
pub const PLACE_DEADLINE: Duration = Duration::from_secs(60);
/// A worker that was ready for this long did not die quickly.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// Quick deaths in a row that bar the tenant until somebody acts.
pub const BARRED_AFTER: u32 = 8;
/// A pause up to this long is waited out in the listener's queue; callers are told of longer ones.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// After starts that failed through no fault of the tenant: the first pause, doubling up to the
/// second.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The pause after so many quick deaths in a row: the first few are short, so that callers in
/// the queue are served by the next worker; then doubling to half a minute.
fn pause(deaths: u32) -> Duration {
    match deaths {
        0 | 1 => Duration::from_millis(50),
        2 => Duration::from_millis(200),
        3 => Duration::from_millis(800),
        more => Duration::from_secs(1 << (more - 3).min(5)).min(Duration::from_secs(30)),
    }
}

/// The pause after so many starts in a row of which no process came. What is short may be there in a
/// moment, and where it is not, asking all the time makes it no better.
fn retry(failures: u32) -> Duration {
    let (first, longest) = RETRY;
    first.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(longest)
}

/// Whether a pause is waited out.
fn callers(pause: Duration) -> Callers {
    if pause <= PATIENCE { Callers::Wait } else { Callers::Refused }
}

/// Counts a tenant's workers; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    Asleep,
    Starting {
        worker: WorkerId,
        stage: Stage,
    },
    Ready {
        worker: WorkerId,
        since: Instant,
    },
    Backoff {
        until: Instant,
        callers: Callers,
        reason: String,
    },
    Barred {
        reason: String,
    },
    /// The host is going down or the tenant is being removed: nothing starts any more.
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Queued { since: Instant },
    Loading { since: Instant },
}

impl Stage {
    fn deadline(self) -> Instant {
        match self {
            Self::Queued { since } => since + FORK_DEADLINE,
            Self::Loading { since } => since + LOAD_DEADLINE,
        }
    }
}

/// Whether callers wait a pause out or are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    Wait,
    Refused,
}

/// At most one at a time; who asks for a second is told so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// For a place among those that finish.
    Waiting {
        generation: Generation,
        since: Instant,
    },
    Loading {
        worker: WorkerId,
        generation: Generation,
        stage: Stage,
    },
    /// `lost` tells how the worker died while the store was still at it.
    Committing {
        worker: WorkerId,
        generation: Generation,
        lost: Option<String>,
    },
    Quiescing {
        old: WorkerId,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draining {
    pub worker: WorkerId,
    pub kept_by: KeptBy,
    pub deadline: Instant,
    /// When it must have stopped taking connections; `None` once it has.
    pub quiesce_by: Option<Instant>,
}

/// What a worker that is to finish is still there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptBy {
    Calls,
    /// Its farewell alone: it had no calls, or has no more time for them.
    Farewell,
    Uploads,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// What a new worker is started with.
    pub generation: Generation,
    pub current: Phase,
    pub swap: Option<Swap>,
    /// Oldest first.
    pub draining: Vec<Draining>,
    /// Quick deaths in a row.
    pub deaths: u32,
    /// Starts in a row of which no process came.
    pub unforked: u32,
    last_worker: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody waits for an answer: a connection, a call through the gateway, a trigger.
    Wanted,
    /// The operator or the owner wants a worker now, whatever happened before.
    Start,
    /// Finish the worker; the next call starts one again.
    Stop,
    /// Start this generation beside the current one and put it in its place.
    Swap(Generation),
    Committed,
    CommitFailed(String),
    Forked(WorkerId),
    /// No process came of it, through no fault of the tenant.
    NotForked(WorkerId, String),
    Ready(WorkerId),
    Quiesced(WorkerId),
    Leaving(WorkerId),
    /// Nothing is left of it but uploads.
    CallsDone(WorkerId),
    Died(WorkerId, String),
    /// A pause of ours may be over.
    Tick,
    /// A worker may be late. Not to be said before what it has sent in time was read.
    Overdue,
    Shutdown,
    /// Whatever finishes has no more time for it.
    Hurry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Fork {
        worker: WorkerId,
        generation: Generation,
    },
    Accept(WorkerId),
    /// It has so long to finish its calls, if it is told to.
    Finish(WorkerId, Duration),
    /// Take nothing new, and pass on what is between two requests.
    Quiesce(WorkerId),
    /// Take nothing new, and close what is between two requests.
    Close(WorkerId),
    Leave(WorkerId),
    Kill(WorkerId, String),
    Commit(Generation),
    Answer(Swapped),
}

/// How a swap ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swapped {
    Done,
    /// Another one is under way.
    Busy,
    /// The generation did not get ready, or could not be committed; nothing changed.
    Failed(String),
}

/// Who takes connections from the tenant's listener. Follows from the state alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reception {
    /// A worker accepts.
    Worker,
    /// Nobody yet; the primary watches, and a connection wakes the tenant.
    Watched,
    /// Nobody for a moment; connections wait in the queue.
    Held,
    /// The primary accepts and refuses, until then or until somebody acts.
    Refused(Option<Instant>),
}

impl Life {
    pub fn new(generation: Generation) -> Self {
        Self {
            generation,
            current: Phase::Asleep,
            swap: None,
            draining: Vec::new(),
            deaths: 0,
            unforked: 0,
            last_worker: 0,
        }
    }

    pub fn reception(&self) -> Reception {
        match &self.current {
            Phase::Asleep => Reception::Watched,
            Phase::Starting { .. } => Reception::Held,
            Phase::Ready { .. } => Reception::Worker,
            Phase::Backoff { callers: Callers::Wait, .. } => Reception::Held,
            Phase::Backoff { callers: Callers::Refused, until, .. } => {
                Reception::Refused(Some(*until))
            }
            Phase::Barred { .. } | Phase::Stopped => Reception::Refused(None),
        }
    }

    /// When to send the next [`Event::Tick`].
    pub fn resumes(&self) -> Option<Instant> {
        match &self.current {
            Phase::Backoff { until, .. } => Some(*until),
            Phase::Asleep
            | Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Barred { .. }
            | Phase::Stopped => None,
        }
    }

    /// When a worker is late with something, and the next [`Event::Overdue`] is to be sent.
    pub fn deadline(&self) -> Option<Instant> {
        let current = match &self.current {
            Phase::Starting { stage, .. } => Some(stage.deadline()),
            Phase::Asleep
            | Phase::Ready { .. }
            | Phase::Backoff { .. }
            | Phase::Barred { .. }
            | Phase::Stopped => None,
        };
        let swap = match &self.swap {
            Some(Swap::Waiting { since, .. }) => Some(*since + PLACE_DEADLINE),
            Some(Swap::Loading { stage, .. }) => Some(stage.deadline()),
            Some(Swap::Committing { .. } | Swap::Quiescing { .. }) | None => None,
        };
        let draining =
            self.draining.iter().flat_map(|d| [Some(d.deadline), d.quiesce_by]).flatten();
        current.into_iter().chain(swap).chain(draining).min()
    }

    /// Takes one event. The actions are to be performed in their order.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Wanted => {
                if self.current == Phase::Asleep {
                    self.start(now, &mut actions);
                }
            }
            Event::Start => match self.current {
                Phase::Asleep | Phase::Backoff { .. } | Phase::Barred { .. } => {
                    self.deaths = 0;
                    self.start(now, &mut actions);
                }
                Phase::Starting { .. } | Phase::Ready { .. } | Phase::Stopped => {}
            },
            Event::Stop => match self.current {
                Phase::Starting { worker, .. } => {
                    self.current = Phase::Asleep;
                    actions.push(Action::Kill(worker, "stopped".to_owned()));
                }
                Phase::Ready { worker, .. } => {
                    self.current = Phase::Asleep;
                    self.drain(worker, now, &mut actions);
                }
                Phase::Asleep | Phase::Backoff { .. } | Phase::Barred { .. } | Phase::Stopped => {}
            },
            Event::Swap(generation) => {
                if self.current == Phase::Stopped {
                    let reason = "the host is stopping".to_owned();
                    actions.push(Action::Answer(Swapped::Failed(reason)));
                } else if self.swap.is_some() {
                    actions.push(Action::Answer(Swapped::Busy));
                } else {
                    self.swap = Some(Swap::Waiting { generation, since: now });
                }
            }
            Event::Forked(forked) => {
                let loading = Stage::Loading { since: now };
                self.unforked = 0;
                match (&mut self.current, &mut self.swap) {
                    (Phase::Starting { worker, stage }, _) if *worker == forked => *stage = loading,
                    (_, Some(Swap::Loading { worker, stage, .. })) if *worker == forked => {
                        *stage = loading;
                    }
                    _ => {}
                }
            }
            Event::Ready(ready) => self.ready(ready, now, &mut actions),
            Event::Committed => self.committed(now, &mut actions),
            Event::CommitFailed(reason) => {
                if let Some(Swap::Committing { worker, .. }) = self.swap {
                    self.swap = None;
                    actions
                        .push(Action::Kill(worker, "its generation was not committed".to_owned()));
                    actions.push(Action::Answer(Swapped::Failed(reason)));
                }
            }
            Event::Quiesced(worker) => {
                for draining in &mut self.draining {
                    if draining.worker == worker {
                        draining.quiesce_by = None;
                    }
                }
                self.settle_swap(worker, &mut actions);
            }
            Event::Leaving(worker) => {
                if matches!(self.current, Phase::Ready { worker: current, .. } if current == worker)
                {
                    self.current = Phase::Asleep;
                    // One that leaves has no calls.
                    self.drains(worker, KeptBy::Farewell, None, now, &mut actions);
                }
                // One that is draining already asked before it heard; it is let go all the same.
                actions.push(Action::Leave(worker));
            }
            Event::CallsDone(worker) => {
                for draining in self.draining.iter_mut().filter(|d| d.worker == worker) {
                    draining.kept_by = KeptBy::Uploads;
                    draining.deadline = now + UPLOADS_DEADLINE;
                }
            }
            Event::NotForked(worker, reason) => self.not_forked(worker, reason, now, &mut actions),
            Event::Died(worker, reason) => self.died(worker, reason, now, &mut actions),
            Event::Tick => {
                if self.resumes().is_some_and(|until| until <= now) {
                    self.current = Phase::Asleep;
                }
            }
            Event::Overdue => self.overdue(now, &mut actions),
            Event::Shutdown => self.shutdown(now, &mut actions),
            Event::Hurry => {
                for draining in &mut self.draining {
                    draining.hurry(now, &mut actions);
                }
            }
        }
        self.take_place(now, &mut actions);
        actions
    }

    /// Begins the swap that waits, where there is a place for the worker that it replaces.
    fn take_place(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(Swap::Waiting { generation, .. }) = self.swap else { return };
        let with_calls = self.draining.iter().filter(|d| d.kept_by == KeptBy::Calls).count();
        // Nobody calls one that is paused or barred, and this may be what mends it.
        let replaces = !matches!(self.current, Phase::Backoff { .. } | Phase::Barred { .. });
        if self.draining.len() < LEAVING_MAX && (with_calls < DRAINING_MAX || !replaces) {
            let worker = self.next_worker();
            let stage = Stage::Queued { since: now };
            self.swap = Some(Swap::Loading { worker, generation, stage });
            actions.push(Action::Fork { worker, generation });
        }
    }

    fn next_worker(&mut self) -> WorkerId {
        self.last_worker += 1;
        WorkerId(self.last_worker)
    }

    fn start(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let worker = self.next_worker();
        self.current = Phase::Starting { worker, stage: Stage::Queued { since: now } };
        actions.push(Action::Fork { worker, generation: self.generation });
    }

    fn ready(&mut self, ready: WorkerId, now: Instant, actions: &mut Vec<Action>) {
        match (&self.current, &self.swap) {
            (Phase::Starting { worker, .. }, _) if *worker == ready => {
                self.current = Phase::Ready { worker: ready, since: now };
                actions.push(Action::Accept(ready));
            }
            (_, &Some(Swap::Loading { worker, generation, .. })) if worker == ready => {
                self.swap = Some(Swap::Committing { worker, generation, lost: None });
                actions.push(Action::Commit(generation));
            }
            _ => {}
        }
    }

    /// The next generation is current in the store: now in fact. The new worker accepts before
    /// the old one stops, so that the listener is never without one.
    fn committed(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let (worker, generation, lost) = match self.swap.take() {
            Some(Swap::Committing { worker, generation, lost }) => (worker, generation, lost),
            other => {
                self.swap = other;
                return;
            }
        };
        self.generation = generation;
        self.deaths = 0;
        let old = std::mem::replace(&mut self.current, Phase::Ready { worker, since: now });
        match lost {
            Some(reason) => self.back_off(None, reason, now),
            None => actions.push(Action::Accept(worker)),
        }
        match old {
            Phase::Ready { worker: old, .. } => {
                self.swap = Some(Swap::Quiescing { old });
                self.drain(old, now, actions);
            }
            Phase::Starting { worker: old, .. } => {
                actions.push(Action::Kill(old, "a newer generation serves".to_owned()));
                actions.push(Action::Answer(Swapped::Done));
            }
            Phase::Asleep | Phase::Backoff { .. } | Phase::Barred { .. } | Phase::Stopped => {
                actions.push(Action::Answer(Swapped::Done));
            }
        }
    }

    fn drain(&mut self, worker: WorkerId, now: Instant, actions: &mut Vec<Action>) {
        let quiesce_by = Some(now + QUIESCE_DEADLINE);
        self.drains(worker, KeptBy::Calls, quiesce_by, now, actions);
        actions.push(match self.current {
            // Nobody comes after it.
            Phase::Stopped => Action::Close(worker),
            Phase::Asleep
            | Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Backoff { .. }
            | Phase::Barred { .. } => Action::Quiesce(worker),
        });
    }

    /// Puts it among those that finish. A swap has waited for a place there; who stops workers again
    /// and again has the oldest hurry, and in the end fall.
    fn drains(
        &mut self,
        worker: WorkerId,
        kept_by: KeptBy,
        quiesce_by: Option<Instant>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let deadline = now + DRAIN_DEADLINE + FAREWELL_DEADLINE;
        self.draining.push(Draining { worker, kept_by, deadline, quiesce_by });
        actions.push(Action::Finish(worker, DRAIN_DEADLINE));
        let with_calls = self.draining.iter_mut().rev().filter(|d| d.kept_by == KeptBy::Calls);
        for draining in with_calls.skip(DRAINING_MAX) {
            draining.hurry(now, actions);
        }
        while self.draining.len() > LEAVING_MAX {
            let oldest = self.draining.remove(0).worker;
            let reason = format!("more than {LEAVING_MAX} older workers were still finishing");
            actions.push(Action::Kill(oldest, reason));
            self.settle_swap(oldest, actions);
        }
    }

    /// Answers the swap that waited for this worker to take no more connections.
    fn settle_swap(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        if self.swap == Some(Swap::Quiescing { old: worker }) {
            self.swap = None;
            actions.push(Action::Answer(Swapped::Done));
        }
    }

    fn not_forked(
        &mut self,
        failed: WorkerId,
        reason: String,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        match (&self.current, &self.swap) {
            (Phase::Starting { worker, .. }, _) if *worker == failed => {
                self.unforked = self.unforked.saturating_add(1);
                let pause = retry(self.unforked);
                self.current =
                    Phase::Backoff { until: now + pause, callers: callers(pause), reason };
            }
            (_, Some(Swap::Loading { worker, .. })) if *worker == failed => {
                self.swap = None;
                actions.push(Action::Answer(Swapped::Failed(reason)));
            }
            _ => {}
        }
    }

    fn died(&mut self, dead: WorkerId, reason: String, now: Instant, actions: &mut Vec<Action>) {
        self.draining.retain(|draining| draining.worker != dead);
        self.settle_swap(dead, actions);
        match self.current {
            Phase::Starting { worker, .. } if worker == dead => self.back_off(None, reason, now),
            Phase::Ready { worker, since } if worker == dead => {
                self.back_off(Some(now - since), reason, now);
            }
            _ => match &mut self.swap {
                Some(Swap::Loading { worker, .. }) if *worker == dead => {
                    self.swap = None;
                    actions.push(Action::Answer(Swapped::Failed(reason)));
                }
                // The store decides: its commit may already be on the disk.
                Some(Swap::Committing { worker, lost, .. }) if *worker == dead => {
                    *lost = Some(reason)
                }
                Some(
                    Swap::Waiting { .. }
                    | Swap::Loading { .. }
                    | Swap::Committing { .. }
                    | Swap::Quiescing { .. },
                )
                | None => {}
            },
        }
    }

    fn back_off(&mut self, lived: Option<Duration>, reason: String, now: Instant) {
        self.deaths = match lived {
            Some(lived) if lived >= HEALTHY_AFTER => 1,
            _ => self.deaths + 1,
        };
        self.current = if self.deaths >= BARRED_AFTER {
            Phase::Barred {
                reason: format!("{} quick deaths in a row; the last: {reason}", self.deaths),
            }
        } else {
            let pause = pause(self.deaths);
            Phase::Backoff { until: now + pause, callers: callers(pause), reason }
        };
    }

    fn overdue(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if let Phase::Starting { worker, stage } = self.current
            && stage.deadline() <= now
        {
            let reason = late(stage);
            actions.push(Action::Kill(worker, reason.clone()));
            self.back_off(None, reason, now);
        }
        if let Some(Swap::Waiting { since, .. }) = self.swap
            && since + PLACE_DEADLINE <= now
        {
            self.swap = None;
            let reason = "the workers before it are still finishing; try again".to_owned();
            actions.push(Action::Answer(Swapped::Failed(reason)));
        }
        if let Some(Swap::Loading { worker, stage, .. }) = self.swap
            && stage.deadline() <= now
        {
            self.swap = None;
            actions.push(Action::Kill(worker, late(stage)));
            actions.push(Action::Answer(Swapped::Failed(late(stage))));
        }
        let (kept, over): (Vec<_>, Vec<_>) = std::mem::take(&mut self.draining)
            .into_iter()
            .partition(|d| d.deadline > now && d.quiesce_by.is_none_or(|by| by > now));
        self.draining = kept;
        for draining in over {
            let reason = match (draining.quiesce_by, draining.kept_by) {
                (Some(by), _) if by <= now => "it did not stop taking connections in time",
                (_, KeptBy::Calls | KeptBy::Farewell) => "its calls did not finish in time",
                (_, KeptBy::Uploads) => "uploads that came through it did not finish in time",
            };
            actions.push(Action::Kill(draining.worker, reason.to_owned()));
            self.settle_swap(draining.worker, actions);
        }
    }

    fn shutdown(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.swap.take() {
            Some(Swap::Loading { worker, .. } | Swap::Committing { worker, .. }) => {
                actions.push(Action::Kill(worker, "the host is stopping".to_owned()));
                actions.push(Action::Answer(Swapped::Failed("the host is stopping".to_owned())));
            }
            Some(Swap::Waiting { .. }) => {
                actions.push(Action::Answer(Swapped::Failed("the host is stopping".to_owned())));
            }
            Some(Swap::Quiescing { .. }) => actions.push(Action::Answer(Swapped::Done)),
            None => {}
        }
        match std::mem::replace(&mut self.current, Phase::Stopped) {
            Phase::Starting { worker, .. } => {
                actions.push(Action::Kill(worker, "the host is stopping".to_owned()));
            }
            Phase::Ready { worker, .. } => self.drain(worker, now, actions),
            Phase::Asleep | Phase::Backoff { .. } | Phase::Barred { .. } | Phase::Stopped => {}
        }
    }
}

impl Draining {
    /// It has no more time, and is to be told so.
    fn hurry(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.kept_by == KeptBy::Calls {
            self.kept_by = KeptBy::Farewell;
        }
        self.deadline = self.deadline.min(now + FAREWELL_DEADLINE);
        actions.push(Action::Finish(self.worker, Duration::ZERO));
    }
}

fn late(stage: Stage) -> String {
    match stage {
        Stage::Queued { .. } => format!("it was not started within {} s", FORK_DEADLINE.as_secs()),
        Stage::Loading { .. } => {
            format!("it did not get ready within {} s", LOAD_DEADLINE.as_secs())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn reason() -> String {
        "killed".to_owned()
    }

    /// Every phase, with and without every kind of swap beside it, each worker at a number of its own.
    fn states(now: Instant) -> Vec<Life> {
        let stages = [Stage::Queued { since: now }, Stage::Loading { since: now }];
        let mut phases = vec![
            Phase::Asleep,
            Phase::Ready { worker: WorkerId(1), since: now },
            Phase::Backoff { until: now + PATIENCE, callers: Callers::Wait, reason: reason() },
            Phase::Backoff { until: now + PATIENCE, callers: Callers::Refused, reason: reason() },
            Phase::Barred { reason: reason() },
            Phase::Stopped,
        ];
        phases.extend(stages.map(|stage| Phase::Starting { worker: WorkerId(1), stage }));
        let mut swaps = vec![
            None,
            Some(Swap::Quiescing { old: WorkerId(3) }),
            Some(Swap::Waiting { generation: 8, since: now }),
        ];
        swaps.extend(
            stages.map(|stage| Some(Swap::Loading { worker: WorkerId(2), generation: 8, stage })),
        );
        swaps.extend(
            [None, Some(reason())]
                .map(|lost| Some(Swap::Committing { worker: WorkerId(2), generation: 8, lost })),
        );
        // All places are taken.
        let draining = |worker| Draining {
            worker: WorkerId(worker),
            kept_by: KeptBy::Calls,
            deadline: now + DRAIN_DEADLINE + FAREWELL_DEADLINE,
            quiesce_by: Some(now + QUIESCE_DEADLINE),
        };
        let draining = [3, 4].map(draining).to_vec();
        let mut states = Vec::new();
        for current in &phases {
            for swap in &swaps {
                states.push(Life {
                    generation: 7,
                    current: current.clone(),
                    swap: swap.clone(),
                    draining: draining.clone(),
                    deaths: 0,
                    unforked: 0,
                    last_worker: 4,
                });
            }
        }
        states
    }

    fn events() -> Vec<Event> {
        let mut events = vec![
            Event::Wanted,
            Event::Start,
            Event::Stop,
            Event::Swap(9),
            Event::Committed,
            Event::CommitFailed(reason()),
            Event::Tick,
            Event::Overdue,
            Event::Shutdown,
            Event::Hurry,
        ];
        for worker in (1..=5).map(WorkerId) {
            events.extend([
                Event::Forked(worker),
                Event::NotForked(worker, reason()),
                Event::Ready(worker),
                Event::Quiesced(worker),
                Event::Leaving(worker),
                Event::CallsDone(worker),
                Event::Died(worker, reason()),
            ]);
        }
        events
    }

    #[test]
    fn every_state_by_every_event_keeps_the_rules() {
        let now = Instant::now();
        for before in states(now) {
            for event in events() {
                let mut life = before.clone();
                let actions = life.step(event.clone(), now);
                let context = format!("{before:#?}\n{event:?}\n{actions:?}\n{life:#?}");
                assert!(with_calls(&life) <= DRAINING_MAX, "{context}");
                if before.current == Phase::Stopped {
                    let committed = event == Event::Committed
                        && matches!(before.swap, Some(Swap::Committing { .. }));
                    assert!(life.current == Phase::Stopped || committed, "{context}");
                }
                // A generation becomes current by a commit and by nothing else.
                if life.generation != before.generation {
                    assert_eq!(event, Event::Committed, "{context}");
                }
                // Each swap is answered once: when it ends, or at once where it cannot begin.
                let answers = actions.iter().filter(|a| matches!(a, Action::Answer(_))).count();
                let began = before.swap.is_none() && life.swap.is_some();
                let ended = before.swap.is_some() && life.swap.is_none();
                let refused = matches!(event, Event::Swap(_)) && !began;
                assert_eq!(answers, usize::from(ended || refused), "{context}");
                // Whoever is told to accept is the current worker.
                for action in &actions {
                    if let Action::Accept(worker) = action {
                        assert!(
                            matches!(life.current, Phase::Ready { worker: current, .. } if current == *worker),
                            "{context}"
                        );
                    }
                }
                // What can wait for ever waits for somebody, not for something that is gone.
                let waits = matches!(life.current, Phase::Starting { .. } | Phase::Backoff { .. });
                assert!(!waits || life.deadline().is_some(), "{context}");
            }
        }
    }

    #[test]
    fn a_connection_wakes_exactly_one_worker() {
        let now = Instant::now();
        let mut life = Life::new(7);
        assert_eq!(life.reception(), Reception::Watched);
        let fork = Action::Fork { worker: WorkerId(1), generation: 7 };
        assert_eq!(life.step(Event::Wanted, now), [fork]);
        for _ in 0..100 {
            assert_eq!(life.step(Event::Wanted, now), []);
        }
        assert_eq!(life.reception(), Reception::Held);
        assert_eq!(life.step(Event::Forked(WorkerId(1)), now), []);
        assert_eq!(life.step(Event::Ready(WorkerId(1)), now), [Action::Accept(WorkerId(1))]);
        assert_eq!(life.reception(), Reception::Worker);
    }

    #[test]
    fn sleeping_has_the_socket_watched_before_the_worker_is_gone() {
        let now = Instant::now();
        let mut life = ready(now);
        let finish = Action::Finish(WorkerId(1), DRAIN_DEADLINE);
        let leave = Action::Leave(WorkerId(1));
        assert_eq!(life.step(Event::Leaving(WorkerId(1)), now), [finish, leave]);
        assert_eq!(life.reception(), Reception::Watched);
        let fork = Action::Fork { worker: WorkerId(2), generation: 7 };
        assert_eq!(life.step(Event::Wanted, now), [fork]);
        assert_eq!(life.step(Event::Died(WorkerId(1), reason()), now), []);
        assert_eq!(life.deaths, 0);
    }

    #[test]
    fn a_swap_in_its_order() {
        let now = Instant::now();
        let mut life = ready(now);
        let next = WorkerId(2);
        assert_eq!(life.step(Event::Swap(8), now), [Action::Fork { worker: next, generation: 8 }]);
        assert_eq!(life.step(Event::Forked(next), now), []);
        assert_eq!(life.step(Event::Swap(9), now), [Action::Answer(Swapped::Busy)]);
        assert_eq!(life.step(Event::Ready(next), now), [Action::Commit(8)]);
        assert_eq!(life.generation, 7);
        assert_eq!(
            life.step(Event::Committed, now),
            [
                Action::Accept(next),
                Action::Finish(WorkerId(1), DRAIN_DEADLINE),
                Action::Quiesce(WorkerId(1))
            ]
        );
        assert_eq!(life.generation, 8);
        assert_eq!(life.step(Event::Quiesced(WorkerId(1)), now), [Action::Answer(Swapped::Done)]);
        assert_eq!(life.step(Event::Died(WorkerId(1), reason()), now), []);
        assert_eq!(life.current, Phase::Ready { worker: next, since: now });
    }

    #[test]
    fn a_generation_that_does_not_start_changes_nothing() {
        let now = Instant::now();
        let later = now + FORK_DEADLINE;
        for (event, at) in [
            (Event::Died(WorkerId(2), reason()), now),
            (Event::NotForked(WorkerId(2), reason()), now),
            (Event::Overdue, later),
        ] {
            let mut life = ready(now);
            let _ = life.step(Event::Swap(8), now);
            let answers = life.step(event, at);
            assert!(
                matches!(answers.last(), Some(Action::Answer(Swapped::Failed(_)))),
                "{answers:?}"
            );
            assert_eq!((life.generation, life.swap.clone()), (7, None));
            assert_eq!(life.current, Phase::Ready { worker: WorkerId(1), since: now });
        }
    }

    #[test]
    fn quick_deaths_end_in_a_bar_and_a_fix_lifts_it() {
        let mut now = Instant::now();
        let mut life = Life::new(7);
        let mut receptions = Vec::new();
        loop {
            let started = life.step(Event::Wanted, now);
            let [Action::Fork { worker, .. }] = started[..] else { panic!("{started:?}") };
            assert_eq!(life.step(Event::Died(worker, reason()), now), []);
            receptions.push(life.reception());
            let Some(resumes) = life.resumes() else { break };
            assert_eq!(life.step(Event::Wanted, now), []);
            now = resumes;
            assert_eq!(life.step(Event::Tick, now), []);
        }
        assert_eq!(receptions.len(), BARRED_AFTER as usize);
        assert_eq!(receptions[..3], [Reception::Held; 3]);
        assert!(
            receptions[3..7]
                .iter()
                .all(|reception| matches!(reception, Reception::Refused(Some(_))))
        );
        assert_eq!(receptions[7], Reception::Refused(None));

        let fork = life.step(Event::Swap(8), now);
        let [Action::Fork { worker, .. }] = fork[..] else { panic!("{fork:?}") };
        assert_eq!(life.reception(), Reception::Refused(None));
        let _ = life.step(Event::Ready(worker), now);
        assert_eq!(
            life.step(Event::Committed, now),
            [Action::Accept(worker), Action::Answer(Swapped::Done)]
        );
        assert_eq!((life.reception(), life.deaths), (Reception::Worker, 0));
    }

    #[test]
    fn starts_without_a_process_are_put_off_longer_each_time_and_bar_nobody() {
        let mut now = Instant::now();
        let mut life = Life::new(7);
        let mut receptions = Vec::new();
        for _ in 0..3 * BARRED_AFTER {
            let started = life.step(Event::Wanted, now);
            let [Action::Fork { worker, .. }] = started[..] else { panic!("{started:?}") };
            assert_eq!(life.step(Event::NotForked(worker, reason()), now), []);
            let next = life.resumes().unwrap();
            assert!(next > now && next <= now + RETRY.1);
            receptions.push(life.reception());
            now = next;
            assert_eq!(life.step(Event::Tick, now), []);
        }
        // Waited out at first, told later.
        assert_eq!(receptions[..3], [Reception::Held; 3]);
        assert!(
            receptions[3..]
                .iter()
                .all(|reception| matches!(reception, Reception::Refused(Some(_))))
        );
        let started = life.step(Event::Wanted, now);
        let [Action::Fork { worker, .. }] = started[..] else { panic!("{started:?}") };
        assert_eq!(life.step(Event::Forked(worker), now), []);
        assert_eq!((life.unforked, life.deaths), (0, 0));
    }

    #[test]
    fn a_long_life_forgives() {
        let now = Instant::now();
        let mut life = ready(now);
        life.deaths = BARRED_AFTER - 1;
        let _ = life.step(Event::Died(WorkerId(1), reason()), now + HEALTHY_AFTER);
        assert_eq!(life.deaths, 1);
    }

    #[test]
    fn connections_are_closed_where_nobody_takes_them() {
        let now = Instant::now();
        let worker = WorkerId(1);
        let finish = Action::Finish(worker, DRAIN_DEADLINE);
        let stopped = ready(now).step(Event::Stop, now);
        assert_eq!(stopped, [finish.clone(), Action::Quiesce(worker)]);
        assert_eq!(ready(now).step(Event::Shutdown, now), [finish, Action::Close(worker)]);
    }

    /// Swaps so often; the last one's answer is still to come.
    fn swap(life: &mut Life, now: Instant) -> WorkerId {
        let fork = life.step(Event::Swap(life.generation + 1), now);
        let [Action::Fork { worker, .. }] = fork[..] else { panic!("{fork:?}") };
        let Phase::Ready { worker: old, .. } = life.current else { panic!("{life:?}") };
        let _ = life.step(Event::Ready(worker), now);
        let _ = life.step(Event::Committed, now);
        let _ = life.step(Event::Quiesced(old), now);
        old
    }

    #[test]
    fn a_third_swap_waits_until_one_of_the_others_has_finished_its_calls() {
        let now = Instant::now();
        for done in [Event::Died(WorkerId(1), reason()), Event::CallsDone(WorkerId(2))] {
            let mut life = ready(now);
            assert_eq!([swap(&mut life, now), swap(&mut life, now)], [WorkerId(1), WorkerId(2)]);
            assert_eq!(life.step(Event::Swap(10), now), []);
            assert_eq!(life.step(Event::Swap(11), now), [Action::Answer(Swapped::Busy)]);
            let fork = Action::Fork { worker: WorkerId(4), generation: 10 };
            assert_eq!(life.step(done, now), [fork]);
        }
    }

    #[test]
    fn the_place_comes_with_the_end_of_the_calls_time_or_its_swap_changes_nothing() {
        let now = Instant::now();
        let mut life = ready(now);
        let (_, _) = (swap(&mut life, now), swap(&mut life, now));
        assert_eq!(life.step(Event::Swap(10), now), []);
        let late = life.deadline().unwrap();
        assert_eq!(late, now + DRAIN_DEADLINE + FAREWELL_DEADLINE);
        let actions = life.step(Event::Overdue, late);
        let [Action::Kill(WorkerId(1), _), Action::Kill(WorkerId(2), _), fork] = &actions[..]
        else {
            panic!("{actions:?}")
        };
        assert_eq!(*fork, Action::Fork { worker: WorkerId(4), generation: 10 });

        let mut life = ready(now);
        let (_, _) = (swap(&mut life, now), swap(&mut life, now));
        let _ = life.step(Event::Swap(10), now);
        for draining in &mut life.draining {
            draining.deadline = now + PLACE_DEADLINE * 2;
        }
        let actions = life.step(Event::Overdue, now + PLACE_DEADLINE);
        assert!(matches!(&actions[..], [Action::Answer(Swapped::Failed(_))]), "{actions:?}");
        assert_eq!((life.generation, life.swap), (9, None));
    }

    #[test]
    fn uploads_keep_their_workers_and_take_no_place() {
        let now = Instant::now();
        let mut life = ready(now);
        let mut old = Vec::new();
        for _ in 0..LEAVING_MAX {
            let worker = swap(&mut life, now);
            let _ = life.step(Event::CallsDone(worker), now);
            old.push(worker);
        }
        let _ = life.step(Event::Overdue, now + DRAIN_DEADLINE * 2);
        let left: Vec<_> = life.draining.iter().map(|draining| draining.worker).collect();
        assert_eq!(left, old, "none is killed, and none is forgotten");
        assert_eq!(life.step(Event::Swap(1_000), now), [], "but there is an end of it");
        let over = life.step(Event::Overdue, now + UPLOADS_DEADLINE);
        let killed = over.iter().filter(|action| matches!(action, Action::Kill(..))).count();
        assert_eq!((killed, life.draining.len()), (LEAVING_MAX, 0));
    }

    #[test]
    fn who_stops_again_and_again_has_the_oldest_hurry() {
        let now = Instant::now();
        let mut life = Life::new(7);
        let mut hurried = Vec::new();
        for _ in 0..4 {
            let start = life.step(Event::Start, now);
            let [Action::Fork { worker, .. }] = start[..] else { panic!("{start:?}") };
            let _ = life.step(Event::Ready(worker), now);
            hurried.extend(life.step(Event::Stop, now).into_iter().filter_map(
                |action| match action {
                    Action::Finish(worker, Duration::ZERO) => Some(worker),
                    Action::Kill(..) => panic!("{action:?}"),
                    _ => None,
                },
            ));
        }
        assert_eq!(hurried, [WorkerId(1), WorkerId(2)]);
        // One that sleeps in between has no calls, and hurries nobody.
        let start = life.step(Event::Start, now);
        let [Action::Fork { worker, .. }] = start[..] else { panic!("{start:?}") };
        let _ = life.step(Event::Ready(worker), now);
        let finish = Action::Finish(worker, DRAIN_DEADLINE);
        let left = life.step(Event::Leaving(worker), now);
        assert_eq!(left, [finish, Action::Leave(worker)]);
    }

    #[test]
    fn a_hurry_leaves_time_to_say_so_and_no_more() {
        let now = Instant::now();
        let mut life = ready(now);
        let _ = swap(&mut life, now);
        let _ = life.step(Event::Shutdown, now);
        let finish = [WorkerId(1), WorkerId(2)].map(|w| Action::Finish(w, Duration::ZERO));
        assert_eq!(life.step(Event::Hurry, now), finish);
        assert_eq!(life.deadline(), Some(now + FAREWELL_DEADLINE));
    }

    /// A tenant that nobody can call waits for no calls' end with what may mend it.
    #[test]
    fn a_fix_waits_for_nothing() {
        let now = Instant::now();
        let mut life = ready(now);
        let (_, _) = (swap(&mut life, now), swap(&mut life, now));
        let Phase::Ready { worker, .. } = life.current else { panic!("{life:?}") };
        let _ = life.step(Event::Died(worker, reason()), now);
        assert!(matches!(life.step(Event::Swap(10), now)[..], [Action::Fork { .. }]));
    }

    fn with_calls(life: &Life) -> usize {
        life.draining.iter().filter(|draining| draining.kept_by == KeptBy::Calls).count()
    }

    fn ready(now: Instant) -> Life {
        let mut life = Life::new(7);
        let _ = life.step(Event::Wanted, now);
        let _ = life.step(Event::Ready(WorkerId(1)), now);
        life
    }

    proptest! {
        /// Whatever happens in whatever order: nobody accepts twice at once, and a worker's number is new.
        #[test]
        fn at_most_one_worker_accepts(picks in prop::collection::vec((any::<prop::sample::Index>(), 0u64..4, 0u64..40), 1..200)) {
            let mut now = Instant::now();
            let mut life = Life::new(1);
            let mut forked = HashSet::new();
            let mut accepting: HashSet<WorkerId> = HashSet::new();
            for (pick, back, seconds) in picks {
                now += Duration::from_secs(seconds);
                let worker = WorkerId(life.last_worker.saturating_sub(back));
                let all = [
                    Event::Wanted, Event::Start, Event::Stop, Event::Swap(life.generation + 1),
                    Event::Committed, Event::CommitFailed(reason()), Event::Forked(worker),
                    Event::NotForked(worker, reason()), Event::Ready(worker), Event::Quiesced(worker),
                    Event::Leaving(worker), Event::CallsDone(worker), Event::Died(worker, reason()),
                    Event::Tick, Event::Overdue, Event::Hurry,
                ];
                let event = pick.get(&all).clone();
                match &event {
                    Event::Died(worker, _) | Event::NotForked(worker, _) => { accepting.remove(worker); }
                    // A worker says so after it stopped.
                    Event::Leaving(worker) => { accepting.remove(worker); }
                    _ => {}
                }
                // The next one accepts before the old one stops, so look when the step is over.
                for action in life.step(event, now) {
                    match action {
                        Action::Fork { worker, .. } => prop_assert!(forked.insert(worker)),
                        Action::Accept(worker) => { accepting.insert(worker); }
                        Action::Quiesce(worker) | Action::Close(worker) | Action::Kill(worker, _) => { accepting.remove(&worker); }
                        Action::Finish(..) | Action::Leave(_) | Action::Commit(_) | Action::Answer(_) => {}
                    }
                }
                prop_assert!(accepting.len() <= 1, "{:?}", accepting);
                prop_assert!(with_calls(&life) <= DRAINING_MAX);
                prop_assert!(life.draining.len() <= LEAVING_MAX);
            }
        }
    }
}
