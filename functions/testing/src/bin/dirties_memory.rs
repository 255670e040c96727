//! Tells whether an earlier call left its trace in what outlives a call: in memory of the module's
//! own, near and far, and in memory that it grows. The header `x-begins-at` has where memory ended
//! and where the stack was when the call began. With `?exit=1` it ends itself deep in its stack.

use core::arch::wasm32::{memory_grow, memory_size};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use wasip2::cli::exit::exit;

testing::guest!(handle);

static TOUCHED: AtomicBool = AtomicBool::new(false);
static FAR: [AtomicU8; 3 << 20] = [const { AtomicU8::new(0) }; 3 << 20];

const PAGE: usize = 64 << 10;
const GROWN_PAGES: usize = 24;

fn handle(request: testing::Request, out: testing::Out) {
    let here = 0_u8;
    let begins_at = format!("{} {:p}", memory_size::<0>(), black_box(&here));
    let mut dirty = TOUCHED.swap(true, Ordering::Relaxed);
    for place in [0, 700 << 10, (1 << 20) + 5, (3 << 20) - 1] {
        dirty |= FAR[place].swap(1, Ordering::Relaxed) != 0;
    }
    let grown = memory_grow::<0>(GROWN_PAGES) * PAGE;
    for place in [0, PAGE - 1, (GROWN_PAGES / 2) * PAGE + 7, GROWN_PAGES * PAGE - 1] {
        dirty |= swap(grown + place) != 0;
    }
    let answer: &[u8] = if dirty { b"dirty" } else { b"clean" };
    testing::respond(out, 200, &[("x-begins-at", &begins_at)], answer);
    if testing::number(&request, "exit").is_some() {
        end(100);
    }
}

fn swap(address: usize) -> u8 {
    let place = address as *mut u8;
    #[expect(unsafe_code, reason = "what nobody has written cannot be looked at otherwise")]
    // SAFETY: this memory was just grown, and nothing else knows of it.
    unsafe {
        let was = place.read_volatile();
        place.write_volatile(1);
        was
    }
}

fn end(depth: usize) {
    let frame = [depth as u8; 64];
    if depth > 0 {
        end(depth - 1);
    }
    black_box(frame);
    exit(Ok(()));
}
