//! Says on standard output that it has begun, waits for a minute, or `?ms=`, and then answers. With `?head=1` it sends its head before that,
//! in it `?length=` as its content-length, and behind it `?sends=` bytes; with `?reads=1` it has read
//! its request to the end first. At last it comes to its end; with `?traps=1` it fails instead, and
//! with `?drops=1` it takes its answer back.

#![expect(clippy::print_stdout, reason = "a function's standard output is its log")]

use std::io::Write;

use wasip2::http::types::OutgoingBody;

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    println!("begun");
    let number = |name| testing::number(&request, name);
    let pause = || testing::pause(number("ms").unwrap_or(60_000));
    if number("reads").is_some() {
        testing::read(&request);
    }
    if number("head").is_none() {
        pause();
        assert!(number("traps").is_none(), "it was asked to");
        return testing::respond(out, 200, &[], b"late");
    }
    let length = number("length").map(|length| length.to_string());
    let headers: Vec<_> = length.iter().map(|length| ("content-length", &**length)).collect();
    let body = testing::begin(out, 200, &headers);
    if let Some(bytes) = number("sends") {
        let mut sink = body.write().unwrap();
        sink.write_all(&vec![b'x'; bytes as usize]).unwrap();
        sink.flush().unwrap();
    }
    pause();
    assert!(number("traps").is_none(), "it was asked to");
    if number("drops").is_none() {
        let _ = OutgoingBody::finish(body, None);
    }
}
