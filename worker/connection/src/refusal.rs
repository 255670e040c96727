//! What is said to bytes that came to no request. Whoever answers requests never saw them.

use bytes::Bytes;
use hearth_wire::limits::{HEAD_DEADLINE, HEAD_MAX_BYTES, HEAD_MAX_FIELDS};
use hearth_wire::{Code, PROBLEM_JSON, Problem, RequestId, header as hearth};
use http::Response;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use http_body_util::{BodyExt, Full};

use crate::Answer;

const NO_STORE: &str = "no-store";
const NOSNIFF: &str = "nosniff";

/// What the platform itself answers is kept by nobody, and taken for nothing but what it says it is.
pub fn guard(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(NO_STORE));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static(NOSNIFF));
}

/// Why a head was refused: as hyper says it in a bare answer that is not sent, or by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    TooLarge,
    Malformed,
    /// It was not complete in time.
    Late,
    /// Nor when nobody could wait for it any more.
    Stopping,
}

impl Refused {
    pub fn of(bare: &[u8]) -> Self {
        let status = bare.strip_prefix(b"HTTP/1.1 ").or_else(|| bare.strip_prefix(b"HTTP/1.0 "));
        match status.and_then(|status| status.get(..3)) {
            Some(b"431" | b"414") => Self::TooLarge,
            _ => Self::Malformed,
        }
    }

    /// The answer, whole and as it is sent.
    pub fn answer(self) -> Vec<u8> {
        let (code, detail) = match self {
            Self::TooLarge => (
                Code::HeadersTooLarge,
                format!(
                    "a request's head may have {} KiB and {HEAD_MAX_FIELDS} fields",
                    HEAD_MAX_BYTES >> 10
                ),
            ),
            Self::Malformed => {
                (Code::BadRequest, "this is not a valid HTTP/1.1 request".to_owned())
            }
            Self::Late => (
                Code::RequestTimeout,
                format!("the request's head was not complete within {} s", HEAD_DEADLINE.as_secs()),
            ),
            Self::Stopping => (
                Code::WorkerUnavailable,
                "this server is stopping, and the request's head was not complete".to_owned(),
            ),
        };
        let id = new_id();
        let status = code.status();
        let json = Problem::new(code, detail).of_request(id.clone()).to_json();
        let mut answer = format!(
            "HTTP/1.1 {} {}\r\n{CONTENT_TYPE}: {PROBLEM_JSON}\r\n{CONTENT_LENGTH}: {}\r\n\
             {CACHE_CONTROL}: {NO_STORE}\r\n{X_CONTENT_TYPE_OPTIONS}: {NOSNIFF}\r\n\
             {}: {id}\r\n{CONNECTION}: close\r\n\r\n",
            status.as_str(),
            status.canonical_reason().unwrap_or_default(),
            json.len(),
            hearth::REQUEST_ID,
        )
        .into_bytes();
        answer.extend(json);
        answer
    }
}

/// The answer to a request that hyper took for one, and that is none all the same.
pub fn answer(wrong: &'static str) -> Answer {
    let (id, code) = (new_id(), Code::BadRequest);
    let json = Problem::new(code, wrong).of_request(id.clone()).to_json();
    let body = Full::new(Bytes::from(json)).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = code.status();
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    guard(headers);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let id = HeaderValue::from_str(id.as_str()).expect("it is visible ASCII");
    headers.insert(hearth::REQUEST_ID, id);
    answer
}

fn new_id() -> RequestId {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the kernel gives random numbers once it has booted");
    RequestId::from_random(random)
}
