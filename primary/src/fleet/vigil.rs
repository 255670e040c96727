//! When a zygote counts as hung. Pure: it is given the time.
//!
//! Whatever is said to a zygote has one answer, which is its sign of life; where nothing is owed it
//! is asked for one. A machine that is so busy that a healthy one does not come to answer is given
//! more time after each that was ended for nothing, so that it does not end them in a loop.

use std::time::{Duration, Instant};

/// Between two questions where nothing else is said.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// After which somebody looks whether it is stopped, which no busy machine does to it.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// What it does at once takes milliseconds; with its successor's start this is within the five
/// seconds that a wake may wait.
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE_MAX: Duration = Duration::from_secs(24);
/// One that answered for so long was well, and the next is expected to answer as quickly.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// For a sign of life.
    Ask,
    Wait,
    Hung,
}

#[derive(Debug)]
pub struct Vigil {
    began: Instant,
    patience: Duration,
    /// Answers that are owed.
    owed: u32,
    /// When it gave a sign last, or came to owe one.
    since: Instant,
    /// How long it may be silent from then on until somebody looks.
    given: Duration,
}

impl Vigil {
    pub fn new(now: Instant) -> Self {
        Self { began: now, patience: PATIENCE, owed: 0, since: now, given: FIRST_LOOK }
    }

    /// Over the next zygote, when this one is gone.
    pub fn next(&self, was_hung: bool, now: Instant) -> Self {
        let was_well = now.saturating_duration_since(self.began) >= HEALTHY_AFTER;
        let patience = match (was_well, was_hung) {
            (true, _) => PATIENCE,
            (false, true) => (self.patience * 2).min(PATIENCE_MAX),
            (false, false) => self.patience,
        };
        Self { patience, ..Self::new(now) }
    }

    /// Something was said to it that has an answer.
    pub fn asked(&mut self, now: Instant) {
        if self.owed == 0 {
            self.heard(now);
        }
        self.owed = self.owed.saturating_add(1);
    }

    pub fn answered(&mut self, now: Instant) {
        self.owed = self.owed.saturating_sub(1);
        self.heard(now);
    }

    /// It said something of itself.
    pub fn heard(&mut self, now: Instant) {
        (self.since, self.given) = (now, FIRST_LOOK);
    }

    /// When to look.
    pub fn due(&self) -> Instant {
        self.since + if self.owed == 0 { ASK_EVERY } else { self.given }
    }

    /// By when it must have given a sign, whatever is found before.
    pub fn deadline(&self) -> Instant {
        self.since + self.patience
    }

    /// To be called when it is due. One that somebody has stopped is not waited for any longer.
    pub fn look(&mut self, is_stopped: impl FnOnce() -> bool) -> Look {
        if self.owed == 0 {
            return Look::Ask;
        }
        if self.given >= self.patience || is_stopped() {
            return Look::Hung;
        }
        self.given = self.patience;
        Look::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn one_that_owes_nothing_is_asked_and_never_hung() {
        let start = Instant::now();
        let mut vigil = Vigil::new(start);
        for second in 1..100 {
            assert_eq!(vigil.due(), at(start, second));
            assert_eq!(vigil.look(|| true), Look::Ask);
            vigil.asked(at(start, second));
            vigil.answered(at(start, second));
        }
    }

    #[test]
    fn one_that_answers_something_else_first_is_not_hung() {
        let start = Instant::now();
        let mut vigil = Vigil::new(start);
        for _ in 0..10 {
            vigil.asked(start);
        }
        for answer in 1..10 {
            vigil.answered(at(start, 2 * answer));
            assert_eq!(vigil.due(), at(start, 2 * answer + 1));
            assert_eq!(vigil.look(|| false), Look::Wait);
            assert_eq!(vigil.due(), at(start, 2 * answer + 3));
        }
        vigil.heard(at(start, 20));
        assert_eq!((vigil.due(), vigil.deadline()), (at(start, 21), at(start, 23)));
        assert_eq!(vigil.look(|| false), Look::Wait);
        assert_eq!(vigil.look(|| false), Look::Hung);
    }

    #[test]
    fn a_busy_machine_is_given_more_time_each_time_and_a_stopped_one_none() {
        let mut now = Instant::now();
        let mut vigil = Vigil::new(now);
        for seconds in [3, 6, 12, 24, 24, 24] {
            vigil.asked(now);
            let (asked, mut looks) = (now, 0);
            loop {
                now = vigil.due();
                looks += 1;
                match vigil.look(|| false) {
                    Look::Wait => {}
                    Look::Hung => break,
                    Look::Ask => panic!("it owes an answer"),
                }
            }
            assert_eq!(now - asked, Duration::from_secs(seconds));
            assert!(looks <= 2);
            vigil = vigil.next(true, now);
        }
        vigil.asked(now);
        assert_eq!(vigil.due(), at(now, 1));
        assert_eq!(vigil.look(|| true), Look::Hung);
        // One that was killed says nothing about the machine.
        assert_eq!(vigil.next(false, at(now, 1)).patience, PATIENCE_MAX);
        assert_eq!(vigil.next(true, at(now, 60)).patience, PATIENCE);
    }
}
