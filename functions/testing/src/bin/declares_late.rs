//! Is asked for its options and takes longer than anybody waits.

testing::declares!(crate::options);
testing::guest!(handle);

#[expect(clippy::disallowed_methods, reason = "to be late is what it is for")]
fn options() -> String {
    std::thread::sleep(std::time::Duration::from_secs(60));
    String::new()
}

fn handle(_: testing::Request, out: testing::Out) {
    testing::respond(out, 200, &[], b"");
}
