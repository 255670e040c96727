//! What the workers of one tenant are told of it and have to confirm: which of them is behind, who
//! waits for that, and who is to be ended for staying behind. Pure: what is said to a worker is
//! said by whoever asks here.
//!
//! A subject is a row in [`What`]: its newest content has a serial number, which a worker confirms
//! when it goes by it. What there is when a worker is forked, it is told before its birth.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hearth_wire::{Subject, ToWorker, What};
use tokio::sync::oneshot;

use super::lifecycle::WorkerId;

/// How long a worker may take to go by what it was told before it is ended.
pub const APPLY_DEADLINE: Duration = Duration::from_secs(5);

/// What is on one subject, and who of the workers goes by it.
#[derive(Debug)]
pub struct Told<T> {
    newest: T,
    serial: u64,
    workers: HashMap<WorkerId, Knows>,
    asked: Vec<Asked>,
}

/// Up to which serial number a worker goes by what it was told.
#[derive(Debug, Clone, Copy)]
enum Knows {
    /// It is being forked, and will find this.
    Given(u64),
    /// It lives, and has confirmed this; 0 is nothing yet.
    Confirmed(u64),
}

impl Knows {
    fn serial(self) -> u64 {
        match self {
            Self::Given(serial) | Self::Confirmed(serial) => serial,
        }
    }
}

#[derive(Debug)]
struct Asked {
    serial: u64,
    deadline: Instant,
    answer: oneshot::Sender<()>,
}

impl<T> Told<T> {
    pub fn new(newest: T) -> Self {
        Self { newest, serial: 1, workers: HashMap::new(), asked: Vec::new() }
    }

    pub fn newest(&self) -> (u64, &T) {
        (self.serial, &self.newest)
    }

    /// There is something newer. Whoever waits for it is among [`Self::answered`] when no worker
    /// goes by anything older.
    pub fn set(&mut self, newest: T, answer: oneshot::Sender<()>, now: Instant) {
        self.newest = newest;
        self.serial += 1;
        let deadline = now + APPLY_DEADLINE;
        self.asked.push(Asked { serial: self.serial, deadline, answer });
    }

    /// A worker is forked with the newest.
    pub fn forks(&mut self, worker: WorkerId) {
        self.workers.insert(worker, Knows::Given(self.serial));
    }

    /// It lives. Whether there is something newer by now than it was given.
    pub fn lives(&mut self, worker: WorkerId) -> bool {
        let given = self.workers.insert(worker, Knows::Confirmed(0));
        given.is_none_or(|given| given.serial() < self.serial)
    }

    pub fn applied(&mut self, worker: WorkerId, serial: u64) {
        if let Some(Knows::Confirmed(confirmed)) = self.workers.get_mut(&worker) {
            *confirmed = serial.max(*confirmed);
        }
    }

    /// It does not live any more, or never did.
    pub fn gone(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
    }

    /// When a worker is late.
    pub fn deadline(&self) -> Option<Instant> {
        self.asked.iter().map(|asked| asked.deadline).min()
    }

    /// Who is late and is to be ended for it. Whoever waits does so until they are gone.
    pub fn late(&mut self, now: Instant) -> Vec<WorkerId> {
        let late = self.asked.iter_mut().filter(|asked| asked.deadline <= now);
        let serials = late.map(|asked| {
            asked.deadline = now + APPLY_DEADLINE;
            asked.serial
        });
        let Some(due) = serials.max() else { return Vec::new() };
        let behind = self.workers.iter().filter(|(_, knows)| match knows {
            // Its fork has a deadline of its own.
            Knows::Given(_) => false,
            Knows::Confirmed(serial) => *serial < due,
        });
        behind.map(|(worker, _)| *worker).collect()
    }

    /// Who has waited long enough: all workers go by what was set, or by something newer.
    pub fn answered(&mut self) -> Vec<oneshot::Sender<()>> {
        let oldest = self.workers.values().map(|knows| knows.serial()).min();
        let is_answered = |asked: &mut Asked| oldest.is_none_or(|oldest| oldest >= asked.serial);
        self.asked.extract_if(.., is_answered).map(|asked| asked.answer).collect()
    }
}

/// All subjects on which the workers of a tenant are told something.
#[derive(Debug)]
pub struct AllTold(Vec<Told<What>>);

impl AllTold {
    pub fn new(newest: impl IntoIterator<Item = What>) -> Self {
        Self(newest.into_iter().map(Told::new).collect())
    }

    fn on(&mut self, subject: Subject) -> &mut Told<What> {
        let found = self.0.iter_mut().find(|told| told.newest.subject() == subject);
        found.expect("there is something on each subject from the start")
    }

    /// What is to be said to every worker that lives.
    pub fn set(&mut self, what: What, answer: oneshot::Sender<()>, now: Instant) -> ToWorker {
        let told = self.on(what.subject());
        told.set(what, answer, now);
        message(told)
    }

    /// What a worker is to be told before its birth.
    pub fn forks(&mut self, worker: WorkerId) -> Vec<ToWorker> {
        let forks = |told: &mut Told<What>| {
            told.forks(worker);
            message(told)
        };
        self.0.iter_mut().map(forks).collect()
    }

    /// What it is to be told as soon as it lives.
    pub fn lives(&mut self, worker: WorkerId) -> Vec<ToWorker> {
        let behind = self.0.iter_mut().filter_map(|told| told.lives(worker).then_some(&*told));
        behind.map(message).collect()
    }

    pub fn applied(&mut self, worker: WorkerId, subject: Subject, serial: u64) {
        self.on(subject).applied(worker, serial);
    }

    pub fn gone(&mut self, worker: WorkerId) {
        self.0.iter_mut().for_each(|told| told.gone(worker));
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.0.iter().filter_map(Told::deadline).min()
    }

    pub fn late(&mut self, now: Instant) -> Vec<(WorkerId, Subject)> {
        let late = self.0.iter_mut().flat_map(|told| {
            let subject = told.newest.subject();
            told.late(now).into_iter().map(move |worker| (worker, subject))
        });
        late.collect()
    }

    pub fn answered(&mut self) -> Vec<oneshot::Sender<()>> {
        self.0.iter_mut().flat_map(Told::answered).collect()
    }
}

fn message(told: &Told<What>) -> ToWorker {
    let (serial, what) = told.newest();
    ToWorker::Told { serial, what: what.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: WorkerId = WorkerId(1);
    const SECOND: WorkerId = WorkerId(2);

    /// Something newer, and who waits for it.
    fn set(told: &mut Told<&'static str>, newest: &'static str, now: Instant) {
        // Whoever waits may have stopped: that changes nothing for the workers.
        told.set(newest, oneshot::channel().0, now);
    }

    /// One that lives and goes by what it was given.
    fn settled(worker: WorkerId) -> Told<&'static str> {
        let mut told = Told::new("a");
        told.forks(worker);
        assert!(!told.lives(worker));
        told.applied(worker, 1);
        told
    }

    #[test]
    fn where_nobody_lives_it_is_settled_at_once() {
        let mut told = Told::new("a");
        assert_eq!((told.newest(), told.deadline()), ((1, &"a"), None));
        set(&mut told, "b", Instant::now());
        assert_eq!(told.answered().len(), 1);
        assert_eq!((told.newest(), told.deadline()), ((2, &"b"), None));
    }

    #[test]
    fn it_is_settled_when_the_last_worker_has_confirmed_it() {
        let now = Instant::now();
        let mut told = settled(FIRST);
        told.forks(SECOND);
        assert!(!told.lives(SECOND));
        set(&mut told, "b", now);
        told.applied(FIRST, 2);
        assert_eq!(told.answered().len(), 0, "the second one has confirmed nothing");
        told.applied(SECOND, 1);
        assert_eq!(told.answered().len(), 0, "nor this");
        set(&mut told, "c", now);
        told.applied(SECOND, 2);
        assert_eq!(told.answered().len(), 1, "the first of two");
        told.applied(SECOND, 3);
        told.applied(FIRST, 3);
        assert_eq!(told.answered().len(), 1);
        told.applied(FIRST, 2);
        set(&mut told, "d", now);
        told.applied(SECOND, 4);
        told.gone(FIRST);
        assert_eq!(told.answered().len(), 1, "nobody waits for who is gone");
    }

    /// Whatever is set while a worker is being forked, it is behind until it has confirmed that.
    #[test]
    fn one_that_was_forked_with_less_is_told_the_rest() {
        let mut told = Told::new("a");
        told.forks(FIRST);
        set(&mut told, "b", Instant::now());
        assert_eq!(told.answered().len(), 0, "it may come to life with what it was given");
        assert!(told.lives(FIRST), "and is told then");
        told.applied(FIRST, 1);
        assert_eq!(told.answered().len(), 0);
        told.applied(FIRST, 2);
        assert_eq!(told.answered().len(), 1);
        told.forks(SECOND);
        assert!(!told.lives(SECOND), "that was forked with it");
        set(&mut told, "c", Instant::now());
        told.gone(SECOND);
        told.gone(FIRST);
        assert_eq!(told.answered().len(), 1);
        assert!(told.workers.is_empty());
    }

    #[test]
    fn who_stays_behind_is_ended_and_waited_for() {
        let now = Instant::now();
        let mut told = settled(FIRST);
        told.forks(SECOND);
        set(&mut told, "b", now);
        assert_eq!(told.deadline(), Some(now + APPLY_DEADLINE));
        assert_eq!(told.late(now), []);
        let late = now + APPLY_DEADLINE;
        assert_eq!(told.late(late), [FIRST], "and not one that is being forked");
        assert_eq!(told.late(late), [], "once at a time");
        assert_eq!(told.answered().len(), 0, "it still goes by what is old");
        told.gone(FIRST);
        assert_eq!(told.answered().len(), 0, "and so may the other");
        assert!(told.lives(SECOND));
        assert_eq!(told.late(late + APPLY_DEADLINE), [SECOND]);
        told.gone(SECOND);
        assert_eq!((told.answered().len(), told.deadline()), (1, None));
    }

    #[test]
    fn a_worker_that_confirms_what_is_older_is_not_late_for_that() {
        let now = Instant::now();
        let mut told = settled(FIRST);
        set(&mut told, "b", now);
        set(&mut told, "c", now + Duration::from_secs(1));
        told.applied(FIRST, 2);
        assert_eq!(told.answered().len(), 1);
        assert_eq!(told.late(now + APPLY_DEADLINE), []);
        assert_eq!(told.late(now + APPLY_DEADLINE + Duration::from_secs(1)), [FIRST]);
    }

    #[test]
    fn every_subject_is_told_from_the_start() {
        let mut all = AllTold::new([What::Tokens(Vec::new())]);
        let told: Vec<_> = all.0.iter().map(|told| told.newest.subject()).collect();
        assert_eq!(told, Subject::ALL);
        let first = ToWorker::Told { serial: 1, what: What::Tokens(Vec::new()) };
        assert_eq!(all.forks(FIRST), [first]);
        let newer = all.set(What::Tokens(Vec::new()), oneshot::channel().0, Instant::now());
        assert_eq!(all.lives(FIRST), [newer]);
        let late = all.deadline().unwrap();
        assert_eq!(all.late(late), [(FIRST, Subject::Tokens)]);
        all.applied(FIRST, Subject::Tokens, 2);
        assert_eq!(all.answered().len(), 1);
    }
}
