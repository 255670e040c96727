//! Ends before it has answered, in the way that its query names; without one, it answers.

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    match testing::target(&request).split_once('?').map(|(_, way)| way) {
        Some("trap") => core::arch::wasm32::unreachable(),
        Some("panic") => panic!("this function gave up"),
        Some("exit") => wasip2::cli::exit::exit(Err(())),
        Some("return") => {}
        _ => testing::respond(out, 200, &[], b"well"),
    }
}
