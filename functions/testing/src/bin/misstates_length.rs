//! Says that its body has `?says=` bytes, and sends `?sends=`.

use std::io::Write;

use wasip2::http::types::OutgoingBody;

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let number = |name| testing::number(&request, name).unwrap_or(0);
    let body = testing::begin(out, 200, &[("content-length", &number("says").to_string())]);
    // What comes of it is for the caller to see.
    let _ = body.write().unwrap().write_all(&vec![b'x'; number("sends") as usize]);
    let _ = OutgoingBody::finish(body, None);
}
