//! The second of two versions of one function.

testing::guest!(handle);

fn handle(_: testing::Request, out: testing::Out) {
    testing::respond(out, 200, &[("content-type", "text/plain")], b"version two");
}
