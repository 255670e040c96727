//! The platform's own answers: `application/problem+json` (RFC 9457), with one closed list of
//! codes. What a function answers by itself is never touched by this.

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use crate::bundle::FunctionVersion;
use crate::name::FunctionPath;
use crate::request_id::RequestId;

pub const PROBLEM_JSON: &str = "application/problem+json";

/// What went wrong, for programs. The variants group by whose fault it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    // The caller's.
    BadRequest,
    InvalidPath,
    InvalidModule,
    SchemaViolation,
    Unauthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    TooLarge,
    UnsupportedMediaType,
    HeadersTooLarge,
    RequestTimeout,
    Misdirected,
    TooManyRequests,
    // The function's.
    FunctionTrapped,
    FunctionNoResponse,
    ResponseInvalid,
    // A limit's.
    MemoryLimit,
    Timeout,
    StorageFull,
    // Ours.
    Internal,
    ModuleDamaged,
    WorkerUnavailable,
}

impl Code {
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::InvalidPath | Self::InvalidModule | Self::SchemaViolation => {
                StatusCode::BAD_REQUEST
            }
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::FunctionTrapped | Self::ResponseInvalid | Self::MemoryLimit | Self::Internal => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::FunctionNoResponse => StatusCode::BAD_GATEWAY,
            Self::ModuleDamaged | Self::WorkerUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad request",
            Self::InvalidPath => "Invalid path",
            Self::InvalidModule => "Invalid module",
            Self::SchemaViolation => "The request breaks the function's schema",
            Self::Unauthenticated => "Authentication needed",
            Self::Forbidden => "Not allowed",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::Conflict => "Conflict",
            Self::TooLarge => "Too large",
            Self::UnsupportedMediaType => "The body is of a kind that is not understood",
            Self::HeadersTooLarge => "Headers too large",
            Self::RequestTimeout => "The request did not come in time",
            Self::Misdirected => "Misdirected request",
            Self::TooManyRequests => "Too many requests",
            Self::FunctionTrapped => "The function failed",
            Self::FunctionNoResponse => "The function gave no response",
            Self::ResponseInvalid => "The function's answer breaks its schema",
            Self::MemoryLimit => "The function needs more memory than it may have",
            Self::Timeout => "Time is up",
            Self::StorageFull => "Storage is full",
            Self::Internal => "Internal error",
            Self::ModuleDamaged => "The function's module is damaged",
            Self::WorkerUnavailable => "The worker is unavailable",
        }
    }
}

/// Where a request breaks its schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    #[serde(rename = "in")]
    pub place: Place,
    /// A JSON pointer (RFC 6901) into the body, or into the object that query or headers make.
    pub pointer: String,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    Body,
    Querystring,
    Headers,
}

/// A problem's body. `detail` says what to do, and never names a path or an address of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub code: Code,
    /// Of a `schema_violation`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
    /// Of an `invalid_module` whose imports are not offered: all of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
}

impl Problem {
    /// Said of a request whose body is not what its head says, wherever that is noticed.
    pub const BROKEN_BODY: &str =
        "the body ended before it was complete, or its chunks are not valid";

    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: code.title().to_owned(),
            status: code.status().as_u16(),
            detail: detail.into(),
            code,
            errors: Vec::new(),
            imports: Vec::new(),
            request_id: None,
        }
    }

    /// What is told where a body is to be read and is packed: nobody unpacks it here, and to read it
    /// as it stands would be to read something else.
    pub fn of_coding(headers: &HeaderMap) -> Option<Self> {
        let codings = headers.get_all(CONTENT_ENCODING).iter();
        let is_plain = |coding: &[u8]| {
            let coding = coding.trim_ascii();
            coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
        };
        let mut codings = codings.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        codings.any(|coding| !is_plain(coding)).then(|| {
            let detail = "a body with this `Content-Encoding` is not understood here; send it \
                          without, as it is";
            Self::new(Code::UnsupportedMediaType, detail)
        })
    }

    /// What is told of a function whose module the host's disk has changed.
    pub fn damaged(path: &FunctionPath, version: &FunctionVersion) -> String {
        if version.is_bundled() {
            return format!(
                "{path}@{version} comes with the host, which could not load it: its operator finds why in the log"
            );
        }
        format!(
            "the host's copy of {path}@{version} is damaged: upload it again, or roll back to another version"
        )
    }

    pub fn of_request(mut self, request_id: RequestId) -> Self {
        self.request_id = Some(request_id);
        self
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a problem is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_not_understood() {
        let coded = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_ENCODING, line.parse().unwrap());
            }
            Problem::of_coding(&headers).map(|problem| problem.status)
        };
        for plain in [&[][..], &[""], &["identity"], &["Identity, ", " identity"]] {
            assert_eq!(coded(plain), None, "{plain:?}");
        }
        for packed in [&["gzip"][..], &["identity, br"], &["identity", "x"], &["identity gzip"]] {
            assert_eq!(coded(packed), Some(415), "{packed:?}");
        }
    }

    #[test]
    fn a_problem_as_the_contract_writes_it() {
        let problem = Problem::new(Code::NotFound, "there is no function at /nix")
            .of_request(RequestId::parse(b"r-1").unwrap());
        assert_eq!(
            String::from_utf8(problem.to_json()).unwrap(),
            r#"{"type":"about:blank","title":"Not found","status":404,"detail":"there is no function at /nix","code":"not_found","request_id":"r-1"}"#
        );
    }
}
