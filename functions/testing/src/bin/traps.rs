//! Panics before it has answered; with `?late=1` a moment after its head and half of its body.

use std::io::Write;

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    if testing::number(&request, "late").is_some() {
        let body = testing::begin(out, 200, &[("content-length", "10")]);
        let mut sink = body.write().unwrap();
        sink.write_all(b"half ").unwrap();
        sink.flush().unwrap();
        testing::pause(100);
    }
    panic!("this function always fails");
}
