//! Calls itself `?depth=` times, each time with something left to do after it; without the
//! number, for ever.

use std::hint::black_box;

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let depth = testing::number(&request, "depth").unwrap_or(u64::MAX);
    testing::respond(out, 200, &[], descend(depth).to_string().as_bytes());
}

#[inline(never)]
fn descend(depth: u64) -> u64 {
    let kept = black_box([depth; 8]);
    if depth == 0 {
        return 0;
    }
    let below = descend(black_box(depth - 1));
    // Read after the call, so that every frame is needed until then.
    below + black_box(kept)[0].min(1)
}
