//! The connections of one kind: how full each is, who waits for room on one, and whether another
//! is to be asked for. Pure: what happens goes in with its time, and what a connection or a waiter
//! is, nobody here knows.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hearth_wire::uplink::Bounds;

/// After asking for a connection that has not come: the host gives none beyond what it allows, and
/// says nothing.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A connection, or somebody who waits for one.
pub trait Ends {
    fn has_ended(&self) -> bool;
}

pub struct Pool<C, W> {
    bounds: Bounds,
    open: Vec<Open<C>>,
    waiting: VecDeque<W>,
    /// When a connection was asked for that has not come.
    asked: Option<Instant>,
    /// Numbers connections; none is used twice.
    opened: u64,
}

struct Open<C> {
    number: u64,
    connection: C,
    /// Requests that are on it.
    taken: u32,
}

/// Room for one request on a connection. To be given back.
#[derive(Debug, PartialEq, Eq)]
pub struct Room<C> {
    pub connection: C,
    number: u64,
}

/// As many wait already as may.
#[derive(Debug, PartialEq, Eq)]
pub struct Crowded;

impl<C: Ends + Clone, W: Ends> Pool<C, W> {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, open: Vec::new(), waiting: VecDeque::new(), asked: None, opened: 0 }
    }

    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Whoever waits is given room by [`Self::next`], in turn.
    pub fn wait(&mut self, waiter: W) -> Result<(), Crowded> {
        self.waiting.retain(|waiting| !waiting.has_ended());
        if self.waiting.len() >= self.bounds.waiting {
            return Err(Crowded);
        }
        self.waiting.push_back(waiter);
        Ok(())
    }

    /// Who has waited longest, with room for what he wants.
    pub fn next(&mut self) -> Option<(W, Room<C>)> {
        self.waiting.retain(|waiting| !waiting.has_ended());
        self.open.retain(|open| !open.connection.has_ended());
        // The fullest one that has room, so that others become empty.
        let streams = self.bounds.streams;
        let free = self.open.iter_mut().filter(|open| open.taken < streams);
        let open = free.max_by_key(|open| open.taken)?;
        let waiter = self.waiting.pop_front()?;
        open.taken += 1;
        Some((waiter, Room { connection: open.connection.clone(), number: open.number }))
    }

    /// Whether another connection is to be asked for now. To be asked when whoever could be given
    /// room has it.
    pub fn asks(&mut self, now: Instant) -> bool {
        let is_due = self.asked.is_none_or(|asked| asked + ASK_AGAIN <= now);
        let asks = is_due && !self.waiting.is_empty() && self.open.len() < self.bounds.connections;
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    /// One has come, asked for or not.
    pub fn opened(&mut self, connection: C) {
        self.asked = None;
        self.opened += 1;
        self.open.push(Open { number: self.opened, connection, taken: 0 });
        self.close_spare();
    }

    /// A request is done with its room.
    pub fn returned(&mut self, room: Room<C>) {
        if let Some(open) = self.open.iter_mut().find(|open| open.number == room.number) {
            open.taken -= 1;
        }
        self.close_spare();
    }

    /// Lets go of connections that nobody uses or waits for, but for one.
    fn close_spare(&mut self) {
        self.open.retain(|open| !open.connection.has_ended());
        if !self.waiting.is_empty() {
            return;
        }
        while let Some(spare) = self.open.iter().rposition(|open| open.taken == 0)
            && self.open.len() > 1
        {
            self.open.swap_remove(spare);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// A connection or a waiter, by its name.
    #[derive(Debug, Clone)]
    struct It(&'static str, Rc<Cell<bool>>);

    impl It {
        fn end(&self) {
            self.1.set(true);
        }
    }

    impl Ends for It {
        fn has_ended(&self) -> bool {
            self.1.get()
        }
    }

    fn it(name: &'static str) -> It {
        It(name, Rc::default())
    }

    fn pool(connections: usize, streams: u32, waiting: usize) -> Pool<It, It> {
        Pool::new(Bounds { connections, streams, window_bytes: 1, waiting })
    }

    fn next(pool: &mut Pool<It, It>) -> Option<(&'static str, &'static str, Room<It>)> {
        pool.next().map(|(waiter, room)| (waiter.0, room.connection.0, room))
    }

    #[test]
    fn one_connection_is_asked_for_and_serves_whoever_waited_in_turn() {
        let (mut pool, now) = (pool(2, 2, 9), Instant::now());
        assert!(!pool.asks(now), "nobody waits");
        for waiter in ["a", "b", "c"] {
            pool.wait(it(waiter)).unwrap();
        }
        assert!(pool.asks(now));
        assert!(!pool.asks(now), "it is on its way");
        assert!(next(&mut pool).is_none());
        pool.opened(it("one"));
        let (a, first, room) = next(&mut pool).unwrap();
        let (b, second, _kept) = next(&mut pool).unwrap();
        assert_eq!((a, b, first, second), ("a", "b", "one", "one"));
        assert!(next(&mut pool).is_none(), "it is full");
        pool.returned(room);
        assert_eq!(next(&mut pool).unwrap().0, "c");
    }

    #[test]
    fn a_full_one_is_joined_by_others_up_to_the_bound() {
        let (mut pool, now) = (pool(2, 1, 9), Instant::now());
        let mut rooms = Vec::new();
        for (waiter, connection) in [("a", "one"), ("b", "two")] {
            pool.wait(it(waiter)).unwrap();
            assert!(next(&mut pool).is_none());
            assert!(pool.asks(now));
            pool.opened(it(connection));
            let (_, on, room) = next(&mut pool).unwrap();
            assert_eq!(on, connection);
            rooms.push(room);
        }
        pool.wait(it("c")).unwrap();
        assert!(next(&mut pool).is_none());
        assert!(!pool.asks(now), "there are as many as may be");
        pool.returned(rooms.remove(0));
        let (waiter, on, room) = next(&mut pool).unwrap();
        assert_eq!((waiter, on), ("c", "one"));
        // What nobody needs any more is let go, but for one.
        pool.returned(room);
        pool.returned(rooms.remove(0));
        assert_eq!(pool.open.len(), 1);
        pool.opened(it("unasked"));
        assert_eq!(pool.open.len(), 1);
    }

    #[test]
    fn no_more_wait_than_may() {
        let mut pool = pool(1, 1, 2);
        let leaves = it("a");
        pool.wait(leaves.clone()).unwrap();
        pool.wait(it("b")).unwrap();
        assert_eq!(pool.wait(it("c")), Err(Crowded));
        leaves.end();
        assert_eq!(pool.wait(it("c")), Ok(()), "who left waits no longer");
        pool.opened(it("one"));
        assert_eq!(next(&mut pool).unwrap().0, "b");
    }

    #[test]
    fn one_that_broke_is_replaced_and_one_that_never_came_is_asked_for_again() {
        let (mut pool, now) = (pool(1, 1, 9), Instant::now());
        pool.wait(it("a")).unwrap();
        assert!(pool.asks(now));
        assert!(!pool.asks(now + ASK_AGAIN - Duration::from_millis(1)));
        assert!(pool.asks(now + ASK_AGAIN));
        let one = it("one");
        pool.opened(one.clone());
        let (_, _, room) = next(&mut pool).unwrap();
        pool.wait(it("b")).unwrap();
        assert!(!pool.asks(now), "there is one, and it is full");
        one.end();
        pool.returned(room);
        assert!(next(&mut pool).is_none());
        assert!(pool.asks(now));
        pool.opened(it("two"));
        assert_eq!(next(&mut pool).unwrap().1, "two");
    }
}
