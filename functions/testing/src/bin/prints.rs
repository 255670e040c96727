//! Writes its body to standard output and to standard error, as it is.

use std::io::Write;

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let (body, _) = testing::read(&request);
    std::io::stdout().write_all(&body).unwrap();
    std::io::stdout().flush().unwrap();
    std::io::stderr().write_all(&body).unwrap();
    testing::respond(out, 204, &[], b"");
}
