//! Which port a new tenant gets. What a tenant has left in its visitors' browsers (cookies, a
//! service worker, storage) is there for whoever is at its port next: so a port that was somebody's
//! rests, and of all that are free the one that has been so for longest is given first. Pure.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;

use crate::store::Freed;

/// What is not taken of a range.
#[derive(Debug, PartialEq, Eq)]
pub struct Free {
    /// In the order in which they are given.
    pub ports: Vec<u16>,
    pub resting: usize,
    /// When the first of those has rested.
    pub resting_until: Option<Timestamp>,
}

/// When what was freed then may be somebody's again, if that is still to come.
pub fn rests_until(freed: Timestamp, rest: Duration, now: Timestamp) -> Option<Timestamp> {
    let until = freed.checked_add(rest).unwrap_or(Timestamp::MAX);
    (now < until).then_some(until)
}

pub fn free(
    range: RangeInclusive<u16>,
    taken: &HashSet<u16>,
    freed: &HashMap<u16, Freed>,
    rest: Duration,
    now: Timestamp,
) -> Free {
    let (mut ports, mut resting) = (Vec::new(), Vec::new());
    for port in range.filter(|port| !taken.contains(port)) {
        // Those that nobody has ever had come first.
        let freed = freed.get(&port).map(|freed| freed.at);
        match freed.and_then(|at| rests_until(at, rest, now)) {
            Some(until) => resting.push(until),
            None => ports.push((freed, port)),
        }
    }
    ports.sort_unstable();
    let ports = ports.into_iter().map(|(_, port)| port).collect();
    Free { ports, resting: resting.len(), resting_until: resting.into_iter().min() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(100);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn freed(ports: &[(u16, i64)]) -> HashMap<u16, Freed> {
        let name = || "gone".parse().unwrap();
        ports
            .iter()
            .map(|(port, second)| (*port, Freed { name: name(), at: at(*second) }))
            .collect()
    }

    #[test]
    fn the_one_that_is_free_longest_comes_first_and_what_rests_not_at_all() {
        let taken = HashSet::from([3, 9]);
        let left = freed(&[(1, 850), (2, 700), (4, 950), (5, 901), (6, 900), (9, 1), (99, 1)]);
        let found = free(1..=9, &taken, &left, REST, at(1_000));
        assert_eq!(found.ports, [7, 8, 2, 1, 6]);
        assert_eq!((found.resting, found.resting_until), (2, Some(at(1_001))));
        let found = free(1..=9, &taken, &left, Duration::ZERO, at(1_000));
        assert_eq!(found.ports, [7, 8, 2, 1, 6, 5, 4]);
        assert_eq!((found.resting, found.resting_until), (0, None));
    }

    #[test]
    fn a_clock_that_was_ahead_ends_no_rest() {
        assert_eq!(rests_until(at(2_000), REST, at(1_000)), Some(at(2_100)));
        assert_eq!(rests_until(at(1_000), Duration::ZERO, at(1_000)), None);
        assert_eq!(rests_until(Timestamp::MAX, REST, at(1_000)), Some(Timestamp::MAX));
    }
}
