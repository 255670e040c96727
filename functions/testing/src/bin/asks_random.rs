//! Asks for `?bytes=` random bytes at once and answers with how many came.

use wasip2::random::random::get_random_bytes;

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let bytes = get_random_bytes(testing::number(&request, "bytes").unwrap_or(0));
    testing::respond(out, 200, &[], bytes.len().to_string().as_bytes());
}
