//! One lock for each tenant, for what may happen to a tenant once at a time. A lock is there while
//! somebody holds it or waits for it, and no longer. It holds within this process; where several
//! hosts serve the same tenants, theirs takes the place of this one, and nothing else changes.
//!
//! What is locked, how many may wait and for how long, is each owner's to say.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex as Short, MutexGuard, PoisonError};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::store::TenantId;

/// Cheap to clone: all clones lock the same.
pub struct TenantLocks<K: Clone + Eq + Hash = TenantId>(Arc<Short<HashMap<K, Slot>>>);

/// Of one tenant.
struct Slot {
    lock: Arc<Mutex<()>>,
    /// Who holds it, and who waits for it.
    claims: usize,
}

/// What is its tenant's alone until this is dropped.
pub struct TenantLock<K: Clone + Eq + Hash = TenantId> {
    // Given back before its claim goes.
    _guard: OwnedMutexGuard<()>,
    _claim: Claim<K>,
}

/// As many wait for the lock as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowded;

struct Claim<K: Clone + Eq + Hash> {
    locks: TenantLocks<K>,
    key: K,
    lock: Arc<Mutex<()>>,
}

impl<K: Clone + Eq + Hash> Default for TenantLocks<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Clone + Eq + Hash> Clone for TenantLocks<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Clone + Eq + Hash> TenantLocks<K> {
    fn slots(&self) -> MutexGuard<'_, HashMap<K, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more claim, unless there are as many before it.
    fn enter(&self, key: &K, before_max: usize) -> Result<Claim<K>, Crowded> {
        let mut slots = self.slots();
        let claims = slots.get(key).map_or(0, |slot| slot.claims);
        if claims > before_max {
            return Err(Crowded);
        }
        let new = || Slot { lock: Arc::default(), claims: 0 };
        let slot = slots.entry(key.clone()).or_insert_with(new);
        slot.claims += 1;
        Ok(Claim { locks: self.clone(), key: key.clone(), lock: slot.lock.clone() })
    }

    /// Waits for its turn, behind all who came before.
    pub async fn lock(&self, key: &K) -> TenantLock<K> {
        self.lock_among(key, usize::MAX).await.expect("there are fewer claims than numbers")
    }

    /// The same where fewer than so many wait already.
    pub async fn lock_among(&self, key: &K, waiting_max: usize) -> Result<TenantLock<K>, Crowded> {
        let claim = self.enter(key, waiting_max)?;
        let guard = claim.lock.clone().lock_owned().await;
        Ok(TenantLock { _guard: guard, _claim: claim })
    }

    /// The same on a thread that may wait.
    pub fn blocking_lock(&self, key: &K) -> TenantLock<K> {
        let claim = self.enter(key, usize::MAX).expect("there are fewer claims than numbers");
        let guard = claim.lock.clone().blocking_lock_owned();
        TenantLock { _guard: guard, _claim: claim }
    }

    /// Now or not at all.
    pub fn try_lock(&self, key: &K) -> Option<TenantLock<K>> {
        let claim = self.enter(key, 0).ok()?;
        let guard = claim.lock.clone().try_lock_owned().ok()?;
        Some(TenantLock { _guard: guard, _claim: claim })
    }
}

impl<K: Clone + Eq + Hash> Drop for Claim<K> {
    fn drop(&mut self) {
        let mut slots = self.locks.slots();
        if let Some(slot) = slots.get_mut(&self.key) {
            slot.claims -= 1;
            if slot.claims == 0 {
                slots.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::Pin;
    use std::task::Poll;

    use proptest::prelude::*;

    use super::*;

    type Waiting = Pin<Box<dyn Future<Output = Result<TenantLock<u8>, Crowded>>>>;

    async fn poll(waiting: &mut Waiting) -> Option<Result<TenantLock<u8>, Crowded>> {
        poll_fn(|cx| match waiting.as_mut().poll(cx) {
            Poll::Ready(locked) => Poll::Ready(Some(locked)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn one_tenant_s_lock_is_no_other_s_and_none_is_left() {
        let locks = TenantLocks::default();
        let acme = locks.lock(&1).await;
        assert!(locks.try_lock(&1).is_none());
        let beta = locks.try_lock(&2).unwrap();
        assert_eq!(locks.slots().len(), 2);
        drop((acme, beta));
        assert!(locks.slots().is_empty());
        assert!(locks.try_lock(&1).is_some());
        assert!(locks.slots().is_empty());
    }

    #[tokio::test]
    async fn so_many_wait_and_no_more() {
        let locks = TenantLocks::default();
        let held = locks.lock(&1).await;
        let among = || -> Waiting {
            let locks = locks.clone();
            Box::pin(async move { locks.lock_among(&1, 2).await })
        };
        let (mut first, mut second, mut third) = (among(), among(), among());
        assert!(poll(&mut first).await.is_none());
        assert!(poll(&mut second).await.is_none());
        assert!(matches!(poll(&mut third).await, Some(Err(Crowded))));
        // Who stops waiting leaves its place.
        drop(second);
        let mut fourth = among();
        assert!(poll(&mut fourth).await.is_none());
        drop(held);
        let first = poll(&mut first).await.unwrap();
        assert!(first.is_ok() && poll(&mut fourth).await.is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whoever comes, waits, goes and gives up, in whatever order: one at a time has it, in the
        /// order in which they came, and what is known of a tenant goes with its last claim.
        #[test]
        fn one_at_a_time_in_turn_and_nothing_stays(
            events in prop::collection::vec((0..4_u8, 0..3_u8, 0..8_usize), 0..60),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let locks = TenantLocks::default();
                let mut waiting: Vec<(u8, u32, Waiting)> = Vec::new();
                let mut held: Vec<(u8, TenantLock<u8>)> = Vec::new();
                for (number, (event, key, which)) in (0_u32..).zip(events) {
                    match event {
                        0 => {
                            let locks = locks.clone();
                            let asked = async move { locks.lock_among(&key, usize::MAX).await };
                            waiting.push((key, number, Box::pin(asked)));
                        }
                        1 if !held.is_empty() => drop(held.swap_remove(which % held.len())),
                        2 if !waiting.is_empty() => drop(waiting.remove(which % waiting.len())),
                        3 => {
                            let is_free = !held.iter().any(|(other, _)| *other == key)
                                && !waiting.iter().any(|(other, _, _)| *other == key);
                            let got = locks.try_lock(&key);
                            assert!(got.is_some() == is_free);
                        }
                        _ => {}
                    }
                    let mut still = Vec::new();
                    for (key, number, mut asked) in waiting {
                        match poll(&mut asked).await {
                            Some(locked) => {
                                assert!(!held.iter().any(|(other, _)| *other == key));
                                let before = |other: &(u8, u32, Waiting)| other.0 == key;
                                assert!(!still.iter().any(before), "out of turn");
                                held.push((key, locked.unwrap()));
                            }
                            None => still.push((key, number, asked)),
                        }
                    }
                    waiting = still;
                    let used = |key: &u8| {
                        held.iter().any(|(other, _)| other == key)
                            || waiting.iter().any(|(other, _, _)| other == key)
                    };
                    let known = (0..3_u8).filter(used).count();
                    assert_eq!(locks.slots().len(), known);
                }
            });
        }
    }
}
