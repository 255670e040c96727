//! The connections at the front door that wait for their clients. Where there is no room left the
//! one that has waited longest goes, so that whoever opens connections and says nothing takes
//! them from nobody who has something to say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Default)]
pub struct Crowd {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// By when they began to wait.
    connections: BTreeMap<u64, Arc<Notify>>,
    last: u64,
}

/// One connection, while it waits.
pub struct Place {
    crowd: Arc<Crowd>,
    number: u64,
}

impl Crowd {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this one waits; it is told where it has to go.
    pub fn enter(self: &Arc<Self>, told: &Arc<Notify>) -> Place {
        let mut waiting = self.waiting();
        waiting.last += 1;
        let number = waiting.last;
        waiting.connections.insert(number, told.clone());
        Place { crowd: self.clone(), number }
    }

    /// Tells the one that has waited longest to go, if any waits.
    pub fn make_room(&self) {
        let longest = self.waiting().connections.pop_first();
        if let Some((_, told)) = longest {
            told.notify_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.waiting().connections.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    async fn is_told(told: &Notify) -> bool {
        let mut notified = pin!(told.notified());
        poll_fn(|cx| Poll::Ready(notified.as_mut().poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn the_longest_waiting_goes_first() {
        let crowd = Arc::new(Crowd::default());
        let told = [(); 3].map(|()| Arc::new(Notify::new()));
        let first = crowd.enter(&told[0]);
        let _second = crowd.enter(&told[1]);
        let _third = crowd.enter(&told[2]);
        // It is answered, and waits anew.
        drop(first);
        let _first = crowd.enter(&told[0]);
        crowd.make_room();
        assert_eq!([is_told(&told[0]).await, is_told(&told[1]).await], [false, true]);
        crowd.make_room();
        crowd.make_room();
        crowd.make_room();
        assert_eq!([is_told(&told[0]).await, is_told(&told[2]).await], [true, true]);
    }
}
