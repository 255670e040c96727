//! Random numbers from the kernel, which no fork repeats, fetched in bulk: most draws cost no
//! system call.
//!
//! What was fetched and not drawn belongs to its thread, and a fork would copy it. The zygote
//! draws nothing.

use std::cell::RefCell;
use std::convert::Infallible;

use rand_core::TryRng;

const BULK_BYTES: usize = 1 << 10;
/// More than this is worth a system call of its own.
const DRAW_MAX_BYTES: usize = 64;

struct Bulk {
    bytes: [u8; BULK_BYTES],
    /// How many of them, from the first on, were not drawn.
    left: usize,
}

thread_local! {
    static BULK: RefCell<Bulk> = const { RefCell::new(Bulk { bytes: [0; BULK_BYTES], left: 0 }) };
}

pub fn fill(bytes: &mut [u8]) {
    if bytes.len() > DRAW_MAX_BYTES {
        return fetch(bytes);
    }
    BULK.with_borrow_mut(|bulk| {
        if bulk.left < bytes.len() {
            fetch(&mut bulk.bytes);
            bulk.left = BULK_BYTES;
        }
        let rest = bulk.left - bytes.len();
        let drawn = &mut bulk.bytes[rest..bulk.left];
        bytes.copy_from_slice(drawn);
        // Nobody who reads this memory later learns what was drawn.
        drawn.fill(0);
        bulk.left = rest;
    });
}

/// What was fetched and not drawn is nobody's any more.
pub fn forget() {
    BULK.with_borrow_mut(|bulk| *bulk = Bulk { bytes: [0; BULK_BYTES], left: 0 });
}

fn fetch(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the kernel gives random numbers once it has booted");
}

/// The same as a generator.
#[derive(Clone, Copy)]
pub struct Kernel;

impl TryRng for Kernel {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        fill(&mut bytes);
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        fill(&mut bytes);
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        fill(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_draw_is_given_twice() {
        let mut seen = HashSet::new();
        for length in [16, DRAW_MAX_BYTES, DRAW_MAX_BYTES + 1, 24] {
            for _ in 0..200 {
                let mut bytes = vec![0; length];
                fill(&mut bytes);
                assert!(bytes.iter().any(|&byte| byte != 0));
                assert!(seen.insert(bytes));
            }
        }
    }

    #[test]
    fn what_was_drawn_is_not_kept() {
        fill(&mut [0; DRAW_MAX_BYTES]);
        BULK.with_borrow(|bulk| {
            assert!(bulk.left < BULK_BYTES);
            assert!(bulk.bytes[bulk.left..].iter().all(|&byte| byte == 0));
        });
        forget();
        BULK.with_borrow(|bulk| assert!(bulk.left == 0 && bulk.bytes == [0; BULK_BYTES]));
    }
}
