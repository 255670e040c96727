//! A refusal as an answer: a problem with its status, its headers and the id of its request. What
//! is refused, and why, is everybody's own to say.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use hearth_connection::guard;
use hearth_wire::{Code, PROBLEM_JSON, Problem, RequestId, header};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

/// The request id that a caller sent, or a new one.
pub fn request_id(headers: &HeaderMap) -> RequestId {
    let sent = headers.get(header::REQUEST_ID).and_then(|id| RequestId::parse(id.as_bytes()));
    sent.unwrap_or_else(|| {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("the kernel has random bytes once it has booted");
        RequestId::from_random(random)
    })
}

/// A problem as an answer.
pub fn refuse(problem: Problem, retry_after: Option<Duration>, id: &RequestId) -> Response {
    let text = |text: &str| HeaderValue::from_str(text).expect("it is visible ASCII");
    let code = problem.code;
    let mut response = Response::new(Body::from(problem.of_request(id.clone()).to_json()));
    *response.status_mut() = code.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    guard(headers);
    headers.insert(HeaderName::from_static(header::REQUEST_ID), text(id.as_str()));
    if code == Code::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(after) = retry_after {
        // Whole seconds, rounded up: who comes back then is not told to wait again.
        let seconds = after.as_millis().div_ceil(1_000).max(1);
        headers.insert(RETRY_AFTER, text(&seconds.to_string()));
    }
    response
}
