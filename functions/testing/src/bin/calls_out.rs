//! Makes a request of its own and answers with how it ended.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{ErrorCode, Fields, OutgoingRequest, Scheme};

testing::guest!(handle);

fn handle(_: testing::Request, out: testing::Out) {
    let said = match fetch("example.com") {
        Ok(status) => format!("status {status}"),
        Err(code) => format!("{code:?}"),
    };
    testing::respond(out, 200, &[], said.as_bytes());
}

fn fetch(authority: &str) -> Result<u16, ErrorCode> {
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some("/")).unwrap();
    let response = outgoing_handler::handle(request, None)?;
    response.subscribe().block();
    Ok(response.get().unwrap().unwrap()?.status())
}
