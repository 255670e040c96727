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

use hearth_wire::GenerationNumber;

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
        generation: GenerationNumber,
        since: Instant,
    },
    Loading {
        worker: WorkerId,
        generation: GenerationNumber,
        stage: Stage,
    },
    /// `lost` tells how the worker died while the store was still at it.
    Committing {
        worker: WorkerId,
        generation: GenerationNumber,
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
    pub generation: GenerationNumber,
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
    Swap(GenerationNumber),
    Committed,
    CommitFailed(String),
    Forked(WorkerId),
    /// No process came of it, through no fault of the tenant.
    NotForked(WorkerId, String),
    /// Nothing is to be forked before somebody acts.
    Barred(WorkerId, String),
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
        generation: GenerationNumber,
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
    Commit(GenerationNumber),
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
    pub fn new(generation: GenerationNumber) -> Self {
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
            Event::Barred(worker, reason) => self.barred(worker, reason, &mut actions),
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

    /// A number that no worker has had.
    pub fn next_worker(&mut self) -> WorkerId {
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

    fn barred(&mut self, barred: WorkerId, reason: String, actions: &mut Vec<Action>) {
        match (&self.current, &self.swap) {
            (Phase::Starting { worker, .. }, _) if *worker == barred => {
                self.current = Phase::Barred { reason };
            }
            (_, Some(Swap::Loading { worker, .. })) if *worker == barred => {
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
mod tests;
