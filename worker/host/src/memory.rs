//! How much memory an instance may have: its own, and what the host keeps for it until it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::ResourceLimiter;

/// All memories of one instance together.
pub struct MemoryLimit {
    most: usize,
    held: usize,
    kept: Arc<AtomicUsize>,
    refused: bool,
}

/// So much is kept for an instance until this is gone.
pub(crate) struct Kept {
    bytes: usize,
    of: Arc<AtomicUsize>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl MemoryLimit {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, held: 0, kept: Arc::default(), refused: false }
    }

    /// Counts what the guest has not read yet. The error is a trap, as of memory of its own.
    pub(crate) fn keep(&mut self, bytes: usize) -> wasmtime::Result<Kept> {
        let kept = self.kept.load(Ordering::Relaxed).saturating_add(bytes);
        if self.held.saturating_add(kept) > self.most {
            self.refused = true;
            wasmtime::bail!("the function keeps more unread than it has memory for");
        }
        self.kept.store(kept, Ordering::Relaxed);
        Ok(Kept { bytes, of: Arc::clone(&self.kept) })
    }

    /// Another call begins.
    pub fn begin(&mut self) {
        self.refused = false;
    }

    /// Whether the guest asked for more than it may have: a trap after that is for want of it.
    pub fn was_reached(&self) -> bool {
        self.refused
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let held = self.held.saturating_add(desired.saturating_sub(current));
        if held.saturating_add(self.kept.load(Ordering::Relaxed)) > self.most {
            self.refused = true;
            return Ok(false);
        }
        // Above its own maximum the engine refuses by itself, and nothing is held.
        if maximum.is_none_or(|maximum| desired <= maximum) {
            self.held = held;
        }
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        _desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Bounded by the pool.
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_are_counted_together() {
        let mut limit = MemoryLimit::new(100);
        assert!(limit.memory_growing(0, 60, None).unwrap());
        assert!(limit.memory_growing(0, 40, Some(40)).unwrap());
        assert!(!limit.was_reached());
        assert!(!limit.memory_growing(60, 61, None).unwrap());
        assert!(limit.was_reached());
    }

    #[test]
    fn what_is_kept_unread_counts_until_it_is_gone() {
        let mut limit = MemoryLimit::new(100);
        assert!(limit.memory_growing(0, 60, None).unwrap());
        let kept = limit.keep(30).unwrap();
        assert!(!limit.was_reached());
        assert!(limit.keep(11).is_err() && limit.was_reached());
        assert!(!limit.memory_growing(60, 71, None).unwrap());
        drop(kept);
        assert!(limit.memory_growing(60, 100, None).unwrap());
        assert!(limit.keep(1).is_err());
    }
}
