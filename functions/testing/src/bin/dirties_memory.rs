//! Tells whether an earlier call left its trace in memory that outlives a call.

use std::sync::atomic::{AtomicBool, Ordering};

testing::guest!(handle);

static TOUCHED: AtomicBool = AtomicBool::new(false);

fn handle(_: testing::Request, out: testing::Out) {
    let was = if TOUCHED.swap(true, Ordering::Relaxed) { "dirty" } else { "clean" };
    testing::respond(out, 200, &[], was.as_bytes());
}
