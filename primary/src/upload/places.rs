//! How many uploads there are at once: of one tenant, and of all. The last quarter of the places
//! is for tenants that have none, so that a few who take all they may leave some for others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::TenantId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    pub most: usize,
    pub most_of_one: usize,
}

impl Places {
    /// Whether one that has so many may have one more, where all have so many together.
    fn lets_in(&self, has: usize, all: usize) -> bool {
        let shared = self.most - self.most / 4;
        all < self.most && has < self.most_of_one && (has == 0 || all < shared)
    }
}

#[derive(Debug, Clone)]
pub struct Crowd {
    places: Places,
    taken: Arc<Mutex<HashMap<TenantId, usize>>>,
}

/// Of one upload.
pub struct Place {
    crowd: Crowd,
    tenant: TenantId,
}

impl Crowd {
    pub fn new(places: Places) -> Self {
        Self { places, taken: Arc::default() }
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<TenantId, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn enter(&self, tenant: TenantId) -> Option<Place> {
        let mut taken = self.taken();
        let all = taken.values().sum();
        let has = taken.get(&tenant).copied().unwrap_or_default();
        if !self.places.lets_in(has, all) {
            return None;
        }
        taken.insert(tenant, has + 1);
        Some(Place { crowd: self.clone(), tenant })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.crowd.taken();
        if let Some(has) = taken.get_mut(&self.tenant) {
            *has -= 1;
            if *has == 0 {
                taken.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(crowd: &Crowd, tenant: i64, times: usize) -> Vec<Place> {
        (0..times).map_while(|_| crowd.enter(TenantId(tenant))).collect()
    }

    #[test]
    fn a_few_who_take_all_they_may_leave_some_for_others() {
        let crowd = Crowd::new(Places { most: 32, most_of_one: 8 });
        let mut places: Vec<Vec<Place>> = (0..4).map(|it| enter(&crowd, it, 100)).collect();
        let numbers: Vec<usize> = places.iter().map(Vec::len).collect();
        assert_eq!(numbers, [8, 8, 8, 1]);
        let one_each: Vec<_> = (10..100).filter_map(|it| crowd.enter(TenantId(it))).collect();
        assert_eq!(one_each.len(), 7);
        assert!(crowd.enter(TenantId(100)).is_none(), "all are taken");
        places[0].pop();
        assert!(crowd.enter(TenantId(0)).is_none(), "that one is for who has none");
        assert!(crowd.enter(TenantId(101)).is_some());
        drop((places, one_each));
        assert_eq!(enter(&crowd, 0, 100).len(), 8);
        assert!(crowd.taken().is_empty());
    }

    #[test]
    fn a_host_of_one_place_takes_one() {
        let crowd = Crowd::new(Places { most: 1, most_of_one: 8 });
        let place = crowd.enter(TenantId(1)).unwrap();
        assert!(crowd.enter(TenantId(2)).is_none());
        drop(place);
        assert!(crowd.enter(TenantId(2)).is_some());
    }
}
