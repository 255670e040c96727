//! How many spare children there should be, and when the next one is forked. Pure: it is given the
//! time.
//!
//! One, while wakes come one at a time; more of them once a wake has found none, up to a bound; and
//! one again when nobody has woken for a while. A fork costs the zygote, which does nothing else
//! meanwhile, and what the child runs first costs a core: so the next one waits until the worker
//! that was given before it has had time to answer.

use std::time::{Duration, Instant};

/// After a wake, in which whoever was woken has the machine.
const AFTER_A_WAKE: Duration = Duration::from_millis(4);
/// Without a wake for this long, one is enough.
const QUIET: Duration = Duration::from_secs(5);
/// After one was lost that was nobody's, doubling from the first to the second.
const AFTER_A_LOSS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(10));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// There are enough, and nothing will change that but a wake.
    Nothing,
    /// One more, from then on.
    OneMore(Instant),
    /// So many fewer, from then on.
    Fewer(usize, Instant),
}

impl Wish {
    pub fn due(self) -> Option<Instant> {
        match self {
            Self::Nothing => None,
            Self::OneMore(at) | Self::Fewer(_, at) => Some(at),
        }
    }
}

#[derive(Debug)]
pub struct Stock {
    most: usize,
    wanted: usize,
    last_wake: Option<Instant>,
    /// Not before this, since one was lost.
    rests_until: Option<Instant>,
    losses: u32,
}

impl Stock {
    /// None, until it is [renewed](Stock::renew).
    pub fn new() -> Self {
        Self { most: 0, wanted: 0, last_wake: None, rests_until: None, losses: 0 }
    }

    /// So many at most, of a new bundle.
    pub fn renew(&mut self, most: usize) {
        *self = Self { most, wanted: most.min(1), last_wake: self.last_wake, ..Self::new() };
    }

    pub fn most(&self) -> usize {
        self.most
    }

    /// Somebody was woken, by a spare child or, where none was at hand, without.
    pub fn woken(&mut self, was_at_hand: bool, now: Instant) {
        self.last_wake = Some(now);
        if !was_at_hand {
            self.wanted = (self.wanted * 2).min(self.most);
        }
    }

    /// One has become what it was forked for.
    pub fn served(&mut self) {
        (self.losses, self.rests_until) = (0, None);
    }

    /// One ended that was nobody's.
    pub fn lost(&mut self, now: Instant) {
        let (first, longest) = AFTER_A_LOSS;
        let pause = first.saturating_mul(1 << self.losses.min(16)).min(longest);
        self.losses = self.losses.saturating_add(1);
        self.rests_until = Some(now + pause);
    }

    /// What to do, where there are so many that nobody has yet.
    pub fn wish(&mut self, have: usize, now: Instant) -> Wish {
        let quiet_at = self.last_wake.map(|last| last + QUIET).filter(|_| self.wanted > 1);
        if quiet_at.is_some_and(|at| now >= at) {
            self.wanted = 1;
        }
        if have < self.wanted {
            let after_wake = self.last_wake.map(|last| last + AFTER_A_WAKE);
            let at = after_wake.into_iter().chain(self.rests_until).fold(now, Instant::max);
            return Wish::OneMore(at);
        }
        match quiet_at {
            Some(at) if now < at => Wish::Fewer(0, at),
            _ if have > self.wanted => Wish::Fewer(have - self.wanted, now),
            _ => Wish::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: usize = 4;

    fn stocked() -> (Stock, Instant) {
        let mut stock = Stock::new();
        stock.renew(MOST);
        (stock, Instant::now())
    }

    #[test]
    fn there_is_one_from_the_start_and_the_next_comes_after_the_wake() {
        let (mut stock, now) = stocked();
        assert_eq!(stock.wish(0, now), Wish::OneMore(now));
        assert_eq!(stock.wish(1, now), Wish::Nothing);
        stock.woken(true, now);
        assert_eq!(stock.wish(0, now), Wish::OneMore(now + AFTER_A_WAKE));
        let later = now + AFTER_A_WAKE;
        assert_eq!(stock.wish(0, later), Wish::OneMore(later));
    }

    #[test]
    fn there_are_more_while_wakes_find_none_and_one_when_it_is_quiet() {
        let (mut stock, now) = stocked();
        stock.woken(true, now);
        assert_eq!(stock.wish(1, now), Wish::Nothing);
        for wanted in [2, 4, 4, 4] {
            stock.woken(false, now);
            assert!(matches!(stock.wish(wanted - 1, now), Wish::OneMore(_)), "{wanted}");
            assert_eq!(stock.wish(wanted, now), Wish::Fewer(0, now + QUIET), "{wanted}");
        }
        let quiet = now + QUIET;
        assert_eq!(stock.wish(4, quiet), Wish::Fewer(3, quiet));
        assert_eq!(stock.wish(1, quiet), Wish::Nothing);
    }

    #[test]
    fn who_loses_them_is_given_them_ever_later() {
        let (mut stock, now) = stocked();
        let (first, longest) = AFTER_A_LOSS;
        for pause in [first, first * 2, first * 4] {
            stock.lost(now);
            assert_eq!(stock.wish(0, now), Wish::OneMore(now + pause));
        }
        for _ in 0..100 {
            stock.lost(now);
        }
        assert_eq!(stock.wish(0, now), Wish::OneMore(now + longest));
        stock.served();
        assert_eq!(stock.wish(0, now), Wish::OneMore(now));
    }

    #[test]
    fn where_none_can_be_had_none_is_asked_for() {
        for mut stock in [Stock::new(), {
            let (mut stock, _) = stocked();
            stock.renew(0);
            stock
        }] {
            let now = Instant::now();
            stock.woken(false, now);
            stock.lost(now);
            assert_eq!((stock.most(), stock.wish(0, now)), (0, Wish::Nothing));
            assert_eq!(stock.wish(2, now), Wish::Fewer(2, now));
        }
    }

    proptest! {
        /// Whatever happens, there are never more than may be, and when all is quiet there is one.
        #[test]
        fn it_keeps_its_bound_and_comes_to_rest(events in prop::collection::vec(0..4_u8, 0..200)) {
            let (mut stock, mut now) = stocked();
            let mut have = 0;
            let mut follow = |stock: &mut Stock, now: Instant| {
                match stock.wish(have, now) {
                    Wish::OneMore(at) if at <= now => have += 1,
                    Wish::Fewer(fewer, at) if at <= now => have -= fewer,
                    _ => {}
                }
                have
            };
            for event in events {
                match event {
                    0 => stock.woken(false, now),
                    1 => stock.lost(now),
                    2 => stock.served(),
                    _ => now += Duration::from_millis(700),
                }
                prop_assert!(follow(&mut stock, now) <= MOST);
            }
            for _ in 0..3 {
                now += QUIET + AFTER_A_LOSS.1;
                for _ in 0..MOST {
                    follow(&mut stock, now);
                }
            }
            prop_assert_eq!(follow(&mut stock, now), 1);
            prop_assert_eq!(stock.wish(1, now), Wish::Nothing);
        }
    }
}
