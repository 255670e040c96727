//! Hands its host one list: of `?entries=` empty fields, or of one that is `?mb=` MiB long; and
//! answers.

use wasip2::http::types::Fields;

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let entries = testing::number(&request, "entries").unwrap_or(1) as usize;
    let bytes = testing::number(&request, "mb").unwrap_or(0) as usize * (1 << 20);
    let list = vec![("x".to_owned(), vec![b'x'; bytes]); entries];
    // What does not fit fields is told; what does not fit a call of the host never comes there.
    let _ = Fields::from_list(&list);
    testing::respond(out, 200, &[], b"well");
}
