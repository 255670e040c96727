//! Turns at something that tenants share: so many at once, so many of them for one asker, and who
//! waits has a turn for each turn of every other who waits, however many of its own it waits for.
//!
//! [`Line`] decides and is pure; [`Fair`] has tasks wait by it. What the turns are at, and how
//! long one takes, is its owner's to say; who waits is bounded where they come from.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Who has a turn and who waits for one. A waiter is known by its number.
struct Line<K, W> {
    free: usize,
    most_of_one: usize,
    has: HashMap<K, usize>,
    waits: HashMap<K, VecDeque<(u64, W)>>,
    /// Those who wait, each once: the first has waited longest since its last turn.
    next: VecDeque<K>,
    last: u64,
}

impl<K: Clone + Eq + Hash, W> Line<K, W> {
    fn new(at_once: usize, most_of_one: usize) -> Self {
        let (has, waits) = (HashMap::new(), HashMap::new());
        Self { free: at_once, most_of_one, has, waits, next: VecDeque::new(), last: 0 }
    }

    fn may_have(&self, key: &K) -> bool {
        self.free > 0 && self.has.get(key).is_none_or(|has| *has < self.most_of_one)
    }

    /// A turn now, where there is one: whoever waits then could not have it.
    fn take(&mut self, key: &K) -> bool {
        let takes = self.may_have(key);
        if takes {
            self.free -= 1;
            *self.has.entry(key.clone()).or_default() += 1;
        }
        takes
    }

    fn wait(&mut self, key: &K, waiter: W) -> u64 {
        self.last += 1;
        let waits = self.waits.entry(key.clone()).or_default();
        if waits.is_empty() {
            self.next.push_back(key.clone());
        }
        waits.push_back((self.last, waiter));
        self.last
    }

    /// It waits no more. One that was given its turn is not there.
    fn leave(&mut self, key: &K, number: u64) {
        let Some(waits) = self.waits.get_mut(key) else { return };
        waits.retain(|(waiter, _)| *waiter != number);
        if waits.is_empty() {
            self.waits.remove(key);
            self.next.retain(|other| other != key);
        }
    }

    /// A turn is over. It is given to the next who may have one.
    fn give_back(&mut self, key: &K) -> Option<(K, W)> {
        self.free += 1;
        if let Some(has) = self.has.get_mut(key) {
            *has -= 1;
            if *has == 0 {
                self.has.remove(key);
            }
        }
        let at = self.next.iter().position(|key| self.may_have(key))?;
        let key = self.next.remove(at)?;
        let waits = self.waits.get_mut(&key)?;
        let (_, waiter) = waits.pop_front()?;
        if waits.is_empty() {
            self.waits.remove(&key);
        } else {
            self.next.push_back(key.clone());
        }
        self.take(&key).then_some((key, waiter))
    }
}

/// Turns for tasks. Cheap to clone.
pub struct Fair<K: Clone + Eq + Hash>(Arc<Mutex<Line<K, oneshot::Sender<Turn<K>>>>>);

/// What it is a turn at, until it is dropped.
pub struct Turn<K: Clone + Eq + Hash> {
    /// Whose it is; nobody's once it was given back.
    of: Option<(Fair<K>, K)>,
}

/// One that waits: with it goes its place.
struct Place<'a, K: Clone + Eq + Hash> {
    fair: &'a Fair<K>,
    key: &'a K,
    number: u64,
}

impl<K: Clone + Eq + Hash> Clone for Fair<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Clone + Eq + Hash> Fair<K> {
    /// So many turns at once, and of them so many for one: where these are fewer, others find one
    /// free however long the turns of one take.
    pub fn new(at_once: usize, most_of_one: usize) -> Self {
        Self(Arc::new(Mutex::new(Line::new(at_once, most_of_one))))
    }

    fn line(&self) -> MutexGuard<'_, Line<K, oneshot::Sender<Turn<K>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn turn(&self, key: K) -> Turn<K> {
        let (number, given) = {
            let mut line = self.line();
            if line.take(&key) {
                drop(line);
                return Turn { of: Some((self.clone(), key)) };
            }
            let (give, given) = oneshot::channel();
            (line.wait(&key, give), given)
        };
        let place = Place { fair: self, key: &key, number };
        let turn = given.await.expect("whoever waits is given a turn");
        drop(place);
        turn
    }
}

impl<K: Clone + Eq + Hash> Drop for Place<'_, K> {
    fn drop(&mut self) {
        self.fair.line().leave(self.key, self.number);
    }
}

impl<K: Clone + Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        let Some((fair, mut key)) = self.of.take() else { return };
        loop {
            let next = fair.line().give_back(&key);
            let Some((next, waiter)) = next else { return };
            let turn = Turn { of: Some((fair.clone(), next.clone())) };
            match waiter.send(turn) {
                Ok(()) => return,
                // It left just now: the turn is for the one behind it.
                Err(mut turn) => turn.of = None,
            }
            key = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use proptest::prelude::*;

    #[test]
    fn who_waits_has_a_turn_for_each_of_another() {
        let mut line = Line::new(1, 1);
        assert!(line.take(&'a'));
        for number in 0..16 {
            assert!(!line.take(&'a'));
            line.wait(&'a', number);
        }
        line.wait(&'b', 100);
        line.wait(&'c', 200);
        line.wait(&'b', 101);
        let mut turns = Vec::new();
        let mut key = 'a';
        while let Some((next, waiter)) = line.give_back(&key) {
            turns.push((next, waiter));
            key = next;
        }
        let first = [('a', 0), ('b', 100), ('c', 200), ('a', 1), ('b', 101), ('a', 2)];
        assert_eq!(turns[..6], first);
        assert_eq!(turns.len(), 19);
    }

    #[test]
    fn one_has_no_more_than_its_own_and_leaves_the_others_free() {
        let mut line = Line::new(3, 2);
        assert!(line.take(&'a') && line.take(&'a') && !line.take(&'a'));
        let waiter = line.wait(&'a', 1);
        line.wait(&'a', 2);
        assert!(line.take(&'b'), "there is one for another");
        assert_eq!(line.give_back(&'b'), None, "and it is not for whom has enough");
        line.leave(&'a', waiter);
        assert_eq!(line.give_back(&'a'), Some(('a', 2)));
        assert!(line.take(&'c') && !line.take(&'d'));
    }

    #[tokio::test]
    async fn who_goes_gives_its_place_and_its_turn() {
        let fair = Fair::new(1, 1);
        let turn = fair.turn('a').await;
        let mut gone = Box::pin(fair.turn('b'));
        let mut late = Box::pin(fair.turn('b'));
        let mut last = Box::pin(fair.turn('c'));
        for waiting in [&mut gone, &mut late, &mut last] {
            assert!(waiting.now_or_never().is_none());
        }
        drop(gone);
        drop(turn);
        // It was given the turn, and goes before it has seen it.
        drop(late);
        let turn = last.now_or_never().expect("the turn of those who went");
        assert!(fair.turn('a').now_or_never().is_none());
        drop(turn);
        assert!(fair.turn('a').now_or_never().is_some());
    }

    proptest! {
        /// Whatever happens: nobody has more than it may, no turn is lost, and nobody waits who
        /// could have one.
        #[test]
        fn no_turn_is_lost(events in prop::collection::vec((0..3_u8, 0..4_u8), 0..80)) {
            let (at_once, most_of_one) = (3, 2);
            let mut line = Line::new(at_once, most_of_one);
            let (mut has, mut waits) = (Vec::new(), Vec::new());
            for (event, key) in events {
                match event {
                    0 if line.take(&key) => has.push(key),
                    0 => waits.push((key, line.wait(&key, ()))),
                    1 if !has.is_empty() => {
                        let over = has.remove(usize::from(key) % has.len());
                        if let Some((next, ())) = line.give_back(&over) {
                            let at = waits.iter().position(|(waits, _)| *waits == next);
                            waits.remove(at.expect("who is given a turn has waited"));
                            has.push(next);
                        }
                    }
                    2 if !waits.is_empty() => {
                        let (key, number) = waits.remove(usize::from(key) % waits.len());
                        line.leave(&key, number);
                    }
                    _ => {}
                }
                prop_assert_eq!(line.free, at_once - has.len());
                let of = |key: u8| has.iter().filter(|has| **has == key).count();
                prop_assert!((0..4).all(|key| of(key) <= most_of_one));
                prop_assert!(waits.iter().all(|(key, _)| !line.may_have(key)));
            }
        }
    }
}
