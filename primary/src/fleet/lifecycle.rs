//! The life of one tenant's workers, as a pure function of state, event and time.
//!
//! ```text
//!           wanted                             ready
//!  Asleep ──────────► Starting ──────────────────────► Ready ──── leaving ───► Asleep
//!    ▲                   │ died, late                    │ died      (the old one drains)
//!    │ over              ▼                               │
//!    └──────────────  Backoff ◄──────────────────────────┘    too many quick deaths ─► Barred
//!
//!  Swap: Loading (the next one beside the current) ─ ready ─► Committing ─ committed ─► the next
//!        one is current, the old one drains; Quiescing until the old one takes no more connections.
//! ```
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
/// From being told to finish to being gone.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
/// Workers that finish beside the current one.
pub const DRAINING_MAX: usize = 2;
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
fn told(pause: Duration) -> Told {
    if pause <= PATIENCE { Told::Wait } else { Told::Refused }
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
        told: Told,
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
pub enum Told {
    Wait,
    Refused,
}

/// At most one at a time; who asks for a second is told so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
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
    pub deadline: Instant,
    /// When it must have stopped taking connections; `None` once it has.
    pub quiesce_by: Option<Instant>,
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
    Died(WorkerId, String),
    /// A deadline may have passed.
    Tick,
    Shutdown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Fork {
        worker: WorkerId,
        generation: Generation,
    },
    Accept(WorkerId),
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
pub enum Door {
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

    pub fn door(&self) -> Door {
        match &self.current {
            Phase::Asleep => Door::Watched,
            Phase::Starting { .. } | Phase::Stopped => Door::Held,
            Phase::Ready { .. } => Door::Worker,
            Phase::Backoff { told: Told::Wait, .. } => Door::Held,
            Phase::Backoff { told: Told::Refused, until, .. } => Door::Refused(Some(*until)),
            Phase::Barred { .. } => Door::Refused(None),
        }
    }

    /// When to send the next [`Event::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        let current = match &self.current {
            Phase::Starting { stage, .. } => Some(stage.deadline()),
            Phase::Backoff { until, .. } => Some(*until),
            Phase::Asleep | Phase::Ready { .. } | Phase::Barred { .. } | Phase::Stopped => None,
        };
        let swap = match &self.swap {
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
                    let worker = self.next_worker();
                    let stage = Stage::Queued { since: now };
                    self.swap = Some(Swap::Loading { worker, generation, stage });
                    actions.push(Action::Fork { worker, generation });
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
                    let deadline = now + DRAIN_DEADLINE;
                    self.draining.push(Draining { worker, deadline, quiesce_by: None });
                    self.bound_draining(&mut actions);
                }
                // One that is draining already asked before it heard; it is let go all the same.
                actions.push(Action::Leave(worker));
            }
            Event::NotForked(worker, reason) => self.not_forked(worker, reason, now, &mut actions),
            Event::Died(worker, reason) => self.died(worker, reason, now, &mut actions),
            Event::Tick => self.tick(now, &mut actions),
            Event::Shutdown => self.shutdown(now, &mut actions),
        }
        actions
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
        self.draining.push(Draining { worker, deadline: now + DRAIN_DEADLINE, quiesce_by });
        actions.push(match self.current {
            // Nobody comes after it.
            Phase::Stopped => Action::Close(worker),
            Phase::Asleep
            | Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Backoff { .. }
            | Phase::Barred { .. } => Action::Quiesce(worker),
        });
        self.bound_draining(actions);
    }

    fn bound_draining(&mut self, actions: &mut Vec<Action>) {
        while self.draining.len() > DRAINING_MAX {
            let oldest = self.draining.remove(0).worker;
            let reason = format!("more than {DRAINING_MAX} older workers were still finishing");
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
                self.current = Phase::Backoff { until: now + pause, told: told(pause), reason };
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
                Some(Swap::Loading { .. } | Swap::Committing { .. } | Swap::Quiescing { .. })
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
            Phase::Backoff { until: now + pause, told: told(pause), reason }
        };
    }

    fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match &self.current {
            Phase::Starting { worker, stage } if stage.deadline() <= now => {
                let (worker, reason) = (*worker, late(*stage));
                actions.push(Action::Kill(worker, reason.clone()));
                self.back_off(None, reason, now);
            }
            Phase::Backoff { until, .. } if *until <= now => self.current = Phase::Asleep,
            _ => {}
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
            let reason = match draining.quiesce_by {
                Some(_) => "it did not stop taking connections in time",
                None => "its calls did not finish in time",
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
            Phase::Backoff { until: now + PATIENCE, told: Told::Wait, reason: reason() },
            Phase::Backoff { until: now + PATIENCE, told: Told::Refused, reason: reason() },
            Phase::Barred { reason: reason() },
            Phase::Stopped,
        ];
        phases.extend(stages.map(|stage| Phase::Starting { worker: WorkerId(1), stage }));
        let mut swaps = vec![None, Some(Swap::Quiescing { old: WorkerId(3) })];
        swaps.extend(
            stages.map(|stage| Some(Swap::Loading { worker: WorkerId(2), generation: 8, stage })),
        );
        swaps.extend(
            [None, Some(reason())]
                .map(|lost| Some(Swap::Committing { worker: WorkerId(2), generation: 8, lost })),
        );
        let draining = Draining {
            worker: WorkerId(3),
            deadline: now + DRAIN_DEADLINE,
            quiesce_by: Some(now + QUIESCE_DEADLINE),
        };
        let mut states = Vec::new();
        for current in &phases {
            for swap in &swaps {
                states.push(Life {
                    generation: 7,
                    current: current.clone(),
                    swap: swap.clone(),
                    draining: vec![draining.clone()],
                    deaths: 0,
                    unforked: 0,
                    last_worker: 3,
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
            Event::Shutdown,
        ];
        for worker in (1..=4).map(WorkerId) {
            events.extend([
                Event::Forked(worker),
                Event::NotForked(worker, reason()),
                Event::Ready(worker),
                Event::Quiesced(worker),
                Event::Leaving(worker),
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
                assert!(life.draining.len() <= DRAINING_MAX, "{context}");
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
        assert_eq!(life.door(), Door::Watched);
        let fork = Action::Fork { worker: WorkerId(1), generation: 7 };
        assert_eq!(life.step(Event::Wanted, now), [fork]);
        for _ in 0..100 {
            assert_eq!(life.step(Event::Wanted, now), []);
        }
        assert_eq!(life.door(), Door::Held);
        assert_eq!(life.step(Event::Forked(WorkerId(1)), now), []);
        assert_eq!(life.step(Event::Ready(WorkerId(1)), now), [Action::Accept(WorkerId(1))]);
        assert_eq!(life.door(), Door::Worker);
    }

    #[test]
    fn sleeping_opens_the_door_before_the_worker_is_gone() {
        let now = Instant::now();
        let mut life = ready(now);
        assert_eq!(life.step(Event::Leaving(WorkerId(1)), now), [Action::Leave(WorkerId(1))]);
        assert_eq!(life.door(), Door::Watched);
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
            [Action::Accept(next), Action::Quiesce(WorkerId(1))]
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
            (Event::Tick, later),
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
        let mut doors = Vec::new();
        loop {
            let started = life.step(Event::Wanted, now);
            let [Action::Fork { worker, .. }] = started[..] else { panic!("{started:?}") };
            assert_eq!(life.step(Event::Died(worker, reason()), now), []);
            doors.push(life.door());
            let Some(deadline) = life.deadline() else { break };
            assert_eq!(life.step(Event::Wanted, now), []);
            now = deadline;
            assert_eq!(life.step(Event::Tick, now), []);
        }
        assert_eq!(doors.len(), BARRED_AFTER as usize);
        assert_eq!(doors[..3], [Door::Held; 3]);
        assert!(doors[3..7].iter().all(|door| matches!(door, Door::Refused(Some(_)))));
        assert_eq!(doors[7], Door::Refused(None));

        let fork = life.step(Event::Swap(8), now);
        let [Action::Fork { worker, .. }] = fork[..] else { panic!("{fork:?}") };
        assert_eq!(life.door(), Door::Refused(None));
        let _ = life.step(Event::Ready(worker), now);
        assert_eq!(
            life.step(Event::Committed, now),
            [Action::Accept(worker), Action::Answer(Swapped::Done)]
        );
        assert_eq!((life.door(), life.deaths), (Door::Worker, 0));
    }

    #[test]
    fn starts_without_a_process_are_put_off_longer_each_time_and_bar_nobody() {
        let mut now = Instant::now();
        let mut life = Life::new(7);
        let mut doors = Vec::new();
        for _ in 0..3 * BARRED_AFTER {
            let started = life.step(Event::Wanted, now);
            let [Action::Fork { worker, .. }] = started[..] else { panic!("{started:?}") };
            assert_eq!(life.step(Event::NotForked(worker, reason()), now), []);
            let next = life.deadline().unwrap();
            assert!(next > now && next <= now + RETRY.1);
            doors.push(life.door());
            now = next;
            assert_eq!(life.step(Event::Tick, now), []);
        }
        // Waited out at first, told later.
        assert_eq!(doors[..3], [Door::Held; 3]);
        assert!(doors[3..].iter().all(|door| matches!(door, Door::Refused(Some(_)))));
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
        assert_eq!(ready(now).step(Event::Stop, now), [Action::Quiesce(worker)]);
        assert_eq!(ready(now).step(Event::Shutdown, now), [Action::Close(worker)]);
    }

    #[test]
    fn a_third_swap_ends_the_oldest() {
        let now = Instant::now();
        let mut life = ready(now);
        let mut killed = Vec::new();
        for generation in 8..=10 {
            let fork = life.step(Event::Swap(generation), now);
            let [Action::Fork { worker, .. }] = fork[..] else { panic!("{fork:?}") };
            let _ = life.step(Event::Ready(worker), now);
            let actions = life.step(Event::Committed, now);
            killed.extend(actions.into_iter().filter_map(|a| match a {
                Action::Kill(worker, _) => Some(worker),
                _ => None,
            }));
            let _ = life.step(Event::Quiesced(WorkerId(worker.0 - 1)), now);
        }
        assert_eq!(killed, [WorkerId(1)]);
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
                    Event::Leaving(worker), Event::Died(worker, reason()), Event::Tick,
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
                        Action::Leave(_) | Action::Commit(_) | Action::Answer(_) => {}
                    }
                }
                prop_assert!(accepting.len() <= 1, "{:?}", accepting);
                prop_assert!(life.draining.len() <= DRAINING_MAX);
            }
        }
    }
}
