//! Answers with `?bytes=` bytes of a pattern in which no two neighbours are alike.

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let bytes = testing::number(&request, "bytes").unwrap_or(1 << 20);
    let pattern: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    testing::respond(out, 200, &[("content-type", "application/octet-stream")], &pattern);
}
