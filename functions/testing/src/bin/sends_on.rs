//! Answers with `?bytes=` bytes, of which it never holds more than 64 KiB.

use std::io::Write;

use wasip2::http::types::OutgoingBody;

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let mut left = testing::number(&request, "bytes").unwrap_or(0) as usize;
    let piece = vec![b'x'; 64 << 10];
    let body = testing::begin(out, 200, &[]);
    let mut sink = body.write().unwrap();
    while left > 0 {
        let next = left.min(piece.len());
        sink.write_all(&piece[..next]).unwrap();
        left -= next;
    }
    drop(sink);
    OutgoingBody::finish(body, None).unwrap();
}
