//! Callers that wait for a tenant's worker, and since when somebody does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{Cause, Unavailable};
use super::inbox::Answer;
use super::lifecycle::{Life, Phase, Reception, WorkerId};
use super::links::Links;

/// Through the gateway, at once.
const WAITING_MAX: usize = 1_024;

/// What those who wait hear.
#[derive(Debug)]
pub enum Told {
    /// Nothing yet.
    Wait,
    /// This worker serves.
    Worker(WorkerId),
    Unavailable(Unavailable),
}

impl Told {
    /// `cause` is why no worker is started, where none is.
    pub fn of(life: &Life, cause: Cause, now: Instant) -> Self {
        match &life.current {
            Phase::Asleep | Phase::Starting { .. } => Self::Wait,
            Phase::Ready { worker, .. } => Self::Worker(*worker),
            Phase::Backoff { until, reason, .. } => match life.reception() {
                Reception::Refused(_) => Self::Unavailable(Unavailable {
                    retry_after: until.saturating_duration_since(now),
                    cause,
                    reason: reason.clone(),
                }),
                Reception::Held | Reception::Watched | Reception::Worker => Self::Wait,
            },
            Phase::Barred { reason } => Self::Unavailable(Unavailable {
                retry_after: Unavailable::BARRED,
                cause,
                reason: reason.clone(),
            }),
            Phase::Stopped => Self::Unavailable(Unavailable {
                retry_after: Duration::from_secs(1),
                cause: Cause::Stopping,
                reason: "the host is stopping".to_owned(),
            }),
        }
    }
}

#[derive(Default)]
pub struct Callers {
    waiting: Vec<Answer<Result<Arc<Links>, Unavailable>>>,
    /// When the call that is being woken for was noticed.
    woken_at: Option<Instant>,
}

impl Callers {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One more, unless there are too many already, which it is told. Tells which.
    pub fn wait(&mut self, answer: Answer<Result<Arc<Links>, Unavailable>>) -> bool {
        if self.waiting.len() >= WAITING_MAX {
            let reason = "too many callers wait for the worker".to_owned();
            let (retry_after, cause) = (Duration::from_secs(1), Cause::Crowded);
            let _ = answer.send(Err(Unavailable { retry_after, cause, reason }));
            return false;
        }
        self.waiting.push(answer);
        self.notice();
        true
    }

    /// Notes when the first of those who wait was noticed.
    pub fn notice(&mut self) {
        self.woken_at.get_or_insert_with(Instant::now);
    }

    pub fn woken_at(&self) -> Option<Instant> {
        self.woken_at
    }

    /// A worker takes them from here.
    pub fn accepted(&mut self) {
        if let Some(at) = self.woken_at.take() {
            metrics::counter!("hearth_wakes_total").increment(1);
            metrics::histogram!("hearth_wake_seconds").record(at.elapsed());
        }
    }

    /// Answers all of them. Where no worker comes, nobody is woken for any more.
    pub fn answer(&mut self, answer: &Result<Arc<Links>, Unavailable>) {
        for waiter in self.waiting.drain(..) {
            let _ = waiter.send(answer.clone());
        }
        if answer.is_err() {
            self.woken_at = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use hearth_wire::GenerationNumber;

    use super::*;

    fn told(current: Phase) -> Told {
        let mut life = Life::new(GenerationNumber(1));
        life.current = current;
        Told::of(&life, Cause::Ended, Instant::now())
    }

    #[test]
    fn whoever_waits_hears_of_a_worker_or_why_there_is_none() {
        assert!(matches!(told(Phase::Asleep), Told::Wait));
        let barred = told(Phase::Barred { reason: "it fell too often".to_owned() });
        let Told::Unavailable(barred) = barred else { panic!("{barred:?}") };
        assert_eq!((barred.cause, barred.retry_after), (Cause::Ended, Unavailable::BARRED));
        let stopped = told(Phase::Stopped);
        let Told::Unavailable(stopped) = stopped else { panic!("{stopped:?}") };
        assert_eq!(stopped.cause, Cause::Stopping);
    }

    #[test]
    fn one_too_many_is_told_so_and_wakes_nobody() {
        let mut callers = Callers::default();
        let mut answers = Vec::new();
        for number in 0..=WAITING_MAX {
            let (answer, answered) = tokio::sync::oneshot::channel();
            assert_eq!(callers.wait(answer), number < WAITING_MAX);
            answers.push(answered);
        }
        let refused = answers.pop().unwrap().try_recv().unwrap();
        assert_eq!(refused.err().map(|it| it.cause), Some(Cause::Crowded));
        assert!(callers.woken_at().is_some());
        let stopping = Unavailable::stopping();
        callers.answer(&Err(stopping));
        assert!(callers.is_empty() && callers.woken_at().is_none());
        for mut answered in answers {
            assert!(answered.try_recv().unwrap().is_err());
        }
    }
}
