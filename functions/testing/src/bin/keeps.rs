//! Answers with how many calls its instance has served, and keeps what `?what=` says of each:
//! 0 nothing, 1 fields, 2 the request, 3 its body, 4 a timer.

use std::mem::forget;
use std::sync::atomic::{AtomicU32, Ordering};

use wasip2::clocks::monotonic_clock;
use wasip2::http::types::Fields;

testing::guest!(handle);

static CALLS: AtomicU32 = AtomicU32::new(0);

fn handle(request: testing::Request, out: testing::Out) {
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    match testing::number(&request, "what") {
        Some(1) => forget(Fields::new()),
        Some(2) => forget(request),
        Some(3) => forget(request.consume().unwrap()),
        Some(4) => forget(monotonic_clock::subscribe_duration(1_000_000_000)),
        _ => {}
    }
    testing::respond(out, 200, &[], calls.to_string().as_bytes());
}
