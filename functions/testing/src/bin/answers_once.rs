//! Answers its instance's first call and fails at the second.

use std::sync::atomic::{AtomicBool, Ordering};

testing::guest!(handle);

static HAS_ANSWERED: AtomicBool = AtomicBool::new(false);

fn handle(_: testing::Request, out: testing::Out) {
    assert!(!HAS_ANSWERED.swap(true, Ordering::Relaxed), "this instance has answered already");
    testing::respond(out, 200, &[], b"once");
}
