//! Never ends and never waits for anything.

testing::guest!(handle);

fn handle(_: testing::Request, _: testing::Out) {
    loop {
        std::hint::spin_loop();
    }
}
