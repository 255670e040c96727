//! Writes nothing, `?times=` over, to its standard output, its standard error or its answer
//! (`?to=0|1|2`), and then says how often.

use std::io::Write;

use wasip2::cli::{stderr, stdout};
use wasip2::http::types::OutgoingBody;
use wasip2::io::streams::OutputStream;

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let times = testing::number(&request, "times").unwrap();
    let to = testing::number(&request, "to").unwrap();
    match to {
        0 => write(&stdout::get_stdout(), times),
        1 => write(&stderr::get_stderr(), times),
        _ => {}
    }
    let body = testing::begin(out, 200, &[]);
    let mut stream = body.write().unwrap();
    if to == 2 {
        write(&stream, times);
    }
    write!(stream, "{times} times nothing").unwrap();
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

fn write(stream: &OutputStream, times: u64) {
    for _ in 0..times {
        while stream.check_write().unwrap() == 0 {
            stream.subscribe().block();
        }
        stream.write(&[]).unwrap();
    }
}
