//! How much memory an instance may have.

use wasmtime::ResourceLimiter;

/// All memories of one instance together.
pub struct MemoryLimit {
    most: usize,
    held: usize,
    refused: bool,
}

impl MemoryLimit {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, held: 0, refused: false }
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
        if held > self.most {
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
}
