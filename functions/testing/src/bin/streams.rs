//! Sends back each piece of its body as it comes, and then their number as a trailer. With
//! `?pieces=N&pause=MS` it sends N lines of its own with pauses between them.

use std::io::Write;

use wasip2::http::types::{Fields, OutgoingBody};

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let outgoing = testing::begin(out, 200, &[("trailer", "x-pieces")]);
    let mut sink = outgoing.write().unwrap();
    let mut sent: u64 = 0;
    if let Some(pieces) = testing::number(&request, "pieces") {
        let pause = testing::number(&request, "pause").unwrap_or(1);
        for piece in 0..pieces {
            testing::pause(pause);
            writeln!(sink, "piece {piece}").unwrap();
            sink.flush().unwrap();
            sent += 1;
        }
    } else {
        let incoming = request.consume().unwrap();
        let source = incoming.stream().unwrap();
        while let Ok(piece) = source.blocking_read(64 << 10) {
            sink.write_all(&piece).unwrap();
            sink.flush().unwrap();
            sent += 1;
        }
    }
    drop(sink);
    let trailers = Fields::new();
    trailers.append("x-pieces", sent.to_string().as_bytes()).unwrap();
    OutgoingBody::finish(outgoing, Some(trailers)).unwrap();
}
