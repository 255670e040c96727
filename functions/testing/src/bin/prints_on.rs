//! Writes `?lines=` lines of 1,000 bytes to standard output and answers; without the number, ever
//! more of them.

use std::io::Write;

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let lines = testing::number(&request, "lines").unwrap_or(u64::MAX);
    let line = [b'x'; 1_000];
    let mut stdout = std::io::stdout().lock();
    for _ in 0..lines {
        stdout.write_all(&line).unwrap();
        stdout.write_all(b"\n").unwrap();
    }
    testing::respond(out, 200, &[], b"well");
}
