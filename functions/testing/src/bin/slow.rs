//! Says on standard output that it has begun, waits for `?ms=`, and answers.

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let milliseconds = testing::number(&request, "ms").unwrap_or(100);
    println!("waiting");
    testing::pause(milliseconds);
    testing::respond(out, 200, &[], format!("waited {milliseconds} ms").as_bytes());
}
