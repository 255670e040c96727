//! How the API refuses: every error of the parts behind it becomes a problem here, once, and every
//! answer gets its request id here.

use std::error::Error;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hearth_wire::{Code, PROBLEM_JSON, Problem, RequestId, header as names};
use http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tracing::{Instrument, error, info_span};

use crate::fleet::{FleetError, SwapError};
use crate::logs::LogsError;
use crate::provision::ProvisionError;
use crate::store::StoreError;
use crate::upload::UploadError;

const REQUEST_ID: HeaderName = HeaderName::from_static(names::REQUEST_ID);

/// A problem on its way out. Its body is written by [`identify`], which knows the request.
#[derive(Debug)]
pub struct Refusal(Problem);

impl Refusal {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Problem::new(code, detail))
    }

    /// For answers that are written elsewhere.
    pub fn into_problem(self) -> Problem {
        self.0
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(self.0);
        response
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Exists | StoreError::PortTaken(_) | StoreError::Stale { .. } => {
                Code::Conflict
            }
            StoreError::TooMany { .. } => Code::Conflict,
            StoreError::Missing(_) => Code::NotFound,
            StoreError::Full(_) => {
                return failed(Code::StorageFull, "the host's disk is full", &error);
            }
            StoreError::Closed => {
                return failed(Code::WorkerUnavailable, "the host is going down", &error);
            }
            StoreError::TooNew { .. }
            | StoreError::Thread(_)
            | StoreError::Random(_)
            | StoreError::Sqlite(_) => {
                return failed(Code::Internal, "the host's store failed", &error);
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<FleetError> for Refusal {
    fn from(error: FleetError) -> Self {
        let code = match &error {
            FleetError::NoTenant | FleetError::Swap(SwapError::NoTenant) => Code::NotFound,
            FleetError::Swap(SwapError::Busy) => Code::Conflict,
            FleetError::PortTaken(_) | FleetError::Swap(SwapError::NotStarted(_)) => {
                Code::WorkerUnavailable
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<LogsError> for Refusal {
    fn from(error: LogsError) -> Self {
        match &error {
            LogsError::TooManyFollowers => Self::new(Code::TooManyRequests, error.to_string()),
            LogsError::Read(_) => failed(Code::Internal, "the journal could not be read", &error),
            LogsError::Closed => failed(Code::WorkerUnavailable, "the host is going down", &error),
        }
    }
}

impl From<UploadError> for Refusal {
    fn from(error: UploadError) -> Self {
        Self(error.problem())
    }
}

impl From<ProvisionError> for Refusal {
    fn from(error: ProvisionError) -> Self {
        Self(error.problem())
    }
}

/// Ours to mend: logged with its causes, of which the caller learns nothing.
fn failed(code: Code, detail: &str, error: &(dyn Error + 'static)) -> Refusal {
    error!(error, "{detail}");
    Refusal::new(code, detail)
}

/// The whole answer that a problem is.
pub fn respond(problem: Problem, id: &RequestId) -> Response {
    let status =
        StatusCode::from_u16(problem.status).expect("a problem's status is one of its code's");
    let unauthenticated = problem.code == Code::Unauthenticated;
    let mut response = Response::new(Body::from(problem.of_request(id.clone()).to_json()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(REQUEST_ID, header_value(id));
    if unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Gives every request its id, kept from the caller or made, and every answer the same one.
pub async fn identify(mut request: Request, next: Next) -> Response {
    let known = request.extensions().get::<RequestId>().cloned();
    let id = known.unwrap_or_else(|| request_id(request.headers()));
    request.extensions_mut().insert(id.clone());
    request.headers_mut().insert(REQUEST_ID, header_value(&id));
    let span = info_span!(
        "request", request_id = %id, method = %request.method(), path = request.uri().path()
    );
    let mut response = next.run(request).instrument(span).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        // That of a 405 comes from the router.
        let allow = response.headers_mut().remove(ALLOW);
        response = respond(problem, &id);
        response.headers_mut().extend(allow.map(|methods| (ALLOW, methods)));
    }
    response.headers_mut().entry(REQUEST_ID).or_insert_with(|| header_value(&id));
    let status = response.status().as_u16().to_string();
    metrics::counter!("hearth_api_requests_total", "status" => status).increment(1);
    response
}

fn request_id(headers: &HeaderMap) -> RequestId {
    let kept = headers.get(REQUEST_ID).and_then(|id| RequestId::parse(id.as_bytes()));
    kept.unwrap_or_else(|| {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("the kernel gives random bytes once it has booted");
        RequestId::from_random(random)
    })
}

fn header_value(id: &RequestId) -> HeaderValue {
    HeaderValue::from_str(id.as_str()).expect("a request id is visible ASCII")
}

pub async fn not_found() -> Refusal {
    Refusal::new(Code::NotFound, "there is nothing at this address; see /api/docs")
}

pub async fn method_not_allowed() -> Refusal {
    Refusal::new(Code::MethodNotAllowed, "this address takes the methods named in `Allow`")
}
