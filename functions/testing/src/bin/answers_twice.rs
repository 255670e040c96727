//! Answers, and with `?forged=` tries what the types of `wasi:http` forbid: it takes a handle
//! that it was never given (1), or begins a second answer by one that it has given away (2).

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    match testing::number(&request, "forged") {
        None => testing::respond(out, 200, &[], b"once"),
        Some(1) => testing::respond(forge(1_000_000), 200, &[], b"forged"),
        Some(_) => {
            let handle = out.handle();
            let _unfinished = testing::begin(out, 200, &[]);
            testing::respond(forge(handle), 200, &[], b"twice");
        }
    }
}

#[expect(unsafe_code, reason = "a guest may hand over any number as a handle")]
fn forge(handle: u32) -> testing::Out {
    // SAFETY: a handle is a number to its owner; whether it leads anywhere is the host's to say.
    unsafe { testing::Out::from_handle(handle) }
}
