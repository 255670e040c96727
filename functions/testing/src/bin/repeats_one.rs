//! Says its body again, as the first of two versions. With `?ms=` it waits before it reads.

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    if let Some(milliseconds) = testing::number(&request, "ms") {
        testing::pause(milliseconds);
    }
    let (body, _) = testing::read(&request);
    let said = [b"one: ", body.as_slice()].concat();
    testing::respond(out, 200, &[("content-length", &said.len().to_string())], &said);
}
