//! Reads its body to the end, keeps nothing of it, and answers with how many bytes there were.

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let body = request.consume().unwrap();
    let source = body.stream().unwrap();
    let mut bytes = 0;
    while let Ok(piece) = source.blocking_read(64 << 10) {
        bytes += piece.len();
    }
    testing::respond(out, 200, &[], bytes.to_string().as_bytes());
}
