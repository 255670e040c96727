//! Holds `?handles=` resources of its host at once and answers; without the number, ever more.

use wasip2::http::types::Fields;

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let wanted = testing::number(&request, "handles").unwrap_or(u64::MAX);
    for _ in 0..wanted {
        std::mem::forget(Fields::new());
    }
    testing::respond(out, 200, &[], b"well");
}
