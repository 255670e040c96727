//! What becomes of those who get no memory: who goes first where the machine has none left, and how
//! a process ends that has all that it may have.

use std::alloc::{GlobalAlloc, Layout, System};

use crate::process::leave;

/// The system's allocator, for a process whose memory is bounded: where there is none it ends with
/// this code and in no other way, so that this end is told from one by a mistake of ours.
pub struct Bounded(pub u8);

impl Bounded {
    fn given(&self, memory: *mut u8) -> *mut u8 {
        if memory.is_null() { leave(self.0) } else { memory }
    }
}

// SAFETY: all of it is the system's allocator's, asked as this one is asked.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as this was asked.
        self.given(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as this was asked.
        self.given(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as this was asked.
        self.given(unsafe { System.realloc(memory, layout, size) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as this was asked.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// What this process has written to that no other process shares with it, in bytes: see
/// proc_pid_smaps(5).
pub fn private_bytes() -> std::io::Result<u64> {
    let sums = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let dirty = sums.lines().find_map(|line| line.strip_prefix("Private_Dirty:"));
    let kilobytes = dirty.and_then(|sum| sum.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kilobytes.ok_or(std::io::ErrorKind::InvalidData)? << 10)
}

/// Of what can be made again at the least cost, first; the primary, without which nobody serves,
/// offers nothing. For `oom_score_adj`, which adds a share of all memory in 1,000 to what a process has: see
/// proc_pid_oom_score_adj(5).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Offer {
    /// An upload, which is told.
    Compiler = 1_000,
    /// One job in a tenant's directory.
    Tree = 900,
    /// The calls of one tenant.
    Worker = 700,
    /// The next wakes, for as long as another one takes to start.
    Zygote = 400,
}

impl Offer {
    /// Raising it is everybody's right. Where it cannot be written, or is higher already by
    /// somebody's word, the kernel chooses by size alone, as it does for others.
    pub fn make(self) {
        let _ = std::fs::write("/proc/self/oom_score_adj", (self as i32).to_string());
    }
}
