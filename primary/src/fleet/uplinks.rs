//! How many uplinks of each kind a worker has. What comes on them is [`crate::uplink`]'s.

use std::sync::Arc;

use hearth_wire::uplink::{Bounds, Kind};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lifecycle::WorkerId;
use crate::store::Tenant;

/// A worker's uplink, seen from here: whatever comes on it comes from that worker.
pub struct Uplink {
    pub tenant: Tenant,
    pub worker: WorkerId,
    pub kind: Kind,
    pub stream: UnixStream,
    /// One of the few of this kind that its worker may have at once.
    pub place: OwnedSemaphorePermit,
}

/// The places of one worker. Those of one kind are nobody else's.
pub struct Places<K = Kind>(Vec<(K, Arc<Semaphore>)>);

impl Places {
    pub fn new() -> Self {
        Self::of(Kind::ALL.map(|kind| (kind, kind.bounds())))
    }
}

impl<K: Copy + PartialEq> Places<K> {
    fn of(kinds: impl IntoIterator<Item = (K, Bounds)>) -> Self {
        let places = |bounds: Bounds| Arc::new(Semaphore::new(bounds.connections));
        Self(kinds.into_iter().map(|(kind, bounds)| (kind, places(bounds))).collect())
    }

    /// `None` where it has as many as it may.
    pub fn take(&self, kind: K) -> Option<OwnedSemaphorePermit> {
        let (_, places) = self.0.iter().find(|(other, _)| *other == kind)?;
        places.clone().try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_is_full_takes_nothing_of_another() {
        let few = Bounds { connections: 2, streams: 1, window_bytes: 1, waiting: 1 };
        let places = Places::of([("one", few), ("other", few)]);
        let held = [places.take("one").unwrap(), places.take("one").unwrap()];
        assert!(places.take("one").is_none());
        assert!(places.take("other").is_some() && places.take("none").is_none());
        drop(held);
        assert!(places.take("one").is_some());
    }
}
