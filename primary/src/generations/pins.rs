//! Modules on their way: kept and compiled, and not yet named by the store. A sweep leaves them
//! where they are, so that nobody has to wait for a moment in which nothing arrives.
//!
//! A sweep asks the store what is named, which takes a while. Whatever is pinned at any time from
//! before it asks until it removes is left, since its name may have come too late for the answer.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hearth_wire::ModuleDigest;

#[derive(Default)]
struct Pinned {
    now: HashMap<ModuleDigest, usize>,
    sweeps: usize,
    /// While there is a sweep.
    seen: HashSet<ModuleDigest>,
}

#[derive(Clone, Default)]
pub struct Pins(Arc<Mutex<Pinned>>);

/// One module, which no sweep takes.
pub struct Pin {
    pins: Pins,
    sha256: ModuleDigest,
}

/// From before the store is asked until everything is removed.
pub struct Sweep {
    pins: Pins,
}

impl Pins {
    fn pinned(&self) -> MutexGuard<'_, Pinned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before its files get their names.
    pub fn pin(&self, sha256: ModuleDigest) -> Pin {
        let mut pinned = self.pinned();
        *pinned.now.entry(sha256).or_default() += 1;
        if pinned.sweeps > 0 {
            pinned.seen.insert(sha256);
        }
        Pin { pins: self.clone(), sha256 }
    }

    /// To be called before the store is asked what it names.
    pub fn sweep(&self) -> Sweep {
        let mut pinned = self.pinned();
        pinned.sweeps += 1;
        let now: Vec<_> = pinned.now.keys().copied().collect();
        pinned.seen.extend(now);
        Sweep { pins: self.clone() }
    }
}

impl Sweep {
    /// Removes what nothing names, unless it is on its way; whether it did. What removes must be
    /// short: nothing is pinned meanwhile.
    pub fn remove<E>(
        &self,
        sha256: ModuleDigest,
        remove: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, E> {
        let pinned = self.pins.pinned();
        if pinned.seen.contains(&sha256) {
            return Ok(false);
        }
        remove()?;
        Ok(true)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pinned = self.pins.pinned();
        if let Some(number) = pinned.now.get_mut(&self.sha256) {
            *number -= 1;
            if *number == 0 {
                pinned.now.remove(&self.sha256);
            }
        }
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        let mut pinned = self.pins.pinned();
        pinned.sweeps -= 1;
        if pinned.sweeps == 0 {
            pinned.seen.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removes(sweep: &Sweep, sha256: ModuleDigest) -> bool {
        sweep.remove(sha256, || Ok::<_, ()>(())).unwrap()
    }

    #[test]
    fn what_was_on_its_way_since_the_sweep_began_is_left() {
        let digest = |byte| ModuleDigest::new([byte; 32]);
        let pins = Pins::default();
        let (before, gone) = (pins.pin(digest(1)), pins.pin(digest(2)));
        drop(gone);
        let sweep = pins.sweep();
        let meanwhile = pins.pin(digest(3));
        drop((before, meanwhile));
        let removed = [1, 2, 3, 4].map(|byte| removes(&sweep, digest(byte)));
        assert_eq!(removed, [false, true, false, true]);
        let another = pins.sweep();
        assert!(!removes(&another, digest(1)), "the first one goes on");
        drop((sweep, another));
        let next = pins.sweep();
        assert!([1, 2, 3, 4].into_iter().all(|byte| removes(&next, digest(byte))));
    }

    #[test]
    fn one_module_can_be_on_its_way_twice() {
        let digest = ModuleDigest::new([1; 32]);
        let pins = Pins::default();
        let (one, two) = (pins.pin(digest), pins.pin(digest));
        drop(one);
        assert!(!removes(&pins.sweep(), digest));
        drop(two);
        assert!(removes(&pins.sweep(), digest));
    }
}
