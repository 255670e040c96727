//! Never ends and never waits: with `?sends=` once it has sent its head and so many bytes, with
//! `?at_once=1` before that, with `?after=1` after its whole answer. Without any it answers.

use std::io::Write;

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    if testing::number(&request, "at_once").is_some() {
        spin();
    }
    if testing::number(&request, "after").is_some() {
        testing::respond(out, 200, &[], b"well");
        spin();
    }
    let Some(bytes) = testing::number(&request, "sends") else {
        return testing::respond(out, 200, &[], b"well");
    };
    let body = testing::begin(out, 200, &[]);
    let mut sink = body.write().unwrap();
    sink.write_all(&vec![b'x'; bytes as usize]).unwrap();
    sink.flush().unwrap();
    spin();
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}
