//! Says on standard output that it has begun, waits for `?ms=`, and answers. With `?reads=1` it
//! reads its body to the end before.

#![expect(clippy::print_stdout, reason = "a function's standard output is its log")]

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let milliseconds = testing::number(&request, "ms").unwrap_or(100);
    if testing::number(&request, "reads") == Some(1) {
        testing::read(&request);
    }
    println!("waiting");
    testing::pause(milliseconds);
    testing::respond(out, 200, &[], format!("waited {milliseconds} ms").as_bytes());
}
