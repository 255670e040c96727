//! The zygote's heap, made ready for its children.
//!
//! A child that writes to a page which it shares with the zygote gets a copy of it: some
//! microseconds, and four kilobytes of its own. What building the engine freed lies in holes all
//! over the heap, and an allocator prefers holes to new memory. With every hole taken before the
//! fork, what a child allocates lies side by side in pages of its own.

/// What is asked for: large holes first, in blocks; then each size that the allocator rounds to
/// (glibc: 16 bytes apart, 24 the least), so that what is left of a hole is too small for anybody.
const BLOCKS: [usize; 6] = [64 << 10, 32 << 10, 16 << 10, 8 << 10, 4 << 10, 2 << 10];
const STEP: usize = 16;
const LEAST: usize = 24;
/// More than there is room for in any heap that this is made for.
const ALLOCATIONS_MAX: usize = 1 << 16;

/// Takes the holes, for good. How many there were is nobody's business but the test's.
pub fn fill_holes() -> usize {
    let end = end_of_heap();
    let mut taken = 0;
    let sizes = BLOCKS.into_iter().chain((LEAST..BLOCKS[BLOCKS.len() - 1]).rev().step_by(STEP));
    for size in sizes {
        while taken < ALLOCATIONS_MAX {
            let block = Vec::<u8>::with_capacity(size);
            let at = block.as_ptr().addr();
            // Even the last: given back, it would be a hole.
            std::mem::forget(block);
            // From behind everything: there is no hole of this size any more.
            if at >= end {
                break;
            }
            taken += 1;
        }
    }
    taken
}

/// Where new memory begins: blocks for which no hole has room lie there side by side.
fn end_of_heap() -> usize {
    let blocks: [Vec<u8>; 16] = std::array::from_fn(|_| Vec::with_capacity(BLOCKS[0]));
    let mut starts = blocks.each_ref().map(|block| block.as_ptr().addr());
    starts.sort_unstable();
    let mut sides = starts.windows(2).rev();
    let gap = sides.find(|pair| pair[1] - pair[0] > BLOCKS[0] + STEP);
    gap.map_or(starts[0], |pair| pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_lies_behind_everything() {
        // Holes: every other one of many blocks is given back.
        let blocks: Vec<Vec<u8>> = (0..2_000).map(|it| vec![1; 40 + it % 400]).collect();
        let kept: Vec<_> = blocks.into_iter().step_by(2).collect();
        let highest = kept.iter().map(|block| block.as_ptr().addr()).max().unwrap();
        assert!(fill_holes() > 100);
        let after: Vec<Vec<u8>> = (0..200).map(|it| vec![1; 40 + it % 400]).collect();
        let behind = after.iter().filter(|block| block.as_ptr().addr() > highest).count();
        assert!(behind > 190, "{behind}");
    }
}
