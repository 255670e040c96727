//! How the API refuses: what the parts behind it say of their errors is an answer here, and every
//! answer gets its request id here.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hearth_connection::guard;
use hearth_wire::{Code, Problem, RequestId, header as names};
use http::header::ALLOW;
use http::{HeaderName, HeaderValue};
use tracing::{Instrument, info_span};

use crate::backup::BackupError;
use crate::backup::restore::RestoreError;
use crate::fault::{self, Fault};
use crate::fleet::FleetError;
use crate::generations::GenerationError;
use crate::logs::LogsError;
use crate::problem;
use crate::provision::ProvisionError;
use crate::refusal::{refuse, request_id};
use crate::settings::SettingsError;
use crate::store::StoreError;
use crate::token_push::PushError;
use crate::upload::UploadError;

const REQUEST_ID: HeaderName = HeaderName::from_static(names::REQUEST_ID);

/// A problem on its way out. Its body is written by [`identify`], which knows the request, and so is
/// the log's line of what it comes from.
#[derive(Debug, Clone)]
pub struct Refusal {
    problem: Box<Problem>,
    unlogged: Option<Arc<dyn Fault + Send + Sync>>,
}

impl Refusal {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem::new(code, detail).into()
    }

    #[cfg(test)]
    pub fn into_problem(self) -> Problem {
        *self.problem
    }

    fn answer(self, id: &RequestId) -> Response {
        if let Some(fault) = self.unlogged {
            problem::log(&*fault);
        }
        // Whoever refuses for a while says so with the code.
        let after = fault::again_after(self.problem.code);
        refuse(*self.problem, after, id)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), unlogged: None }
    }
}

/// Of parts whose errors nobody else logs: that is done where the answer is written.
macro_rules! faults {
    ($($error:ty),+ $(,)?) => {$(
        impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                let problem = Box::new(problem::of(&error));
                Self { problem, unlogged: Some(Arc::new(error)) }
            }
        }
    )+};
}

faults![
    StoreError,
    FleetError,
    LogsError,
    BackupError,
    RestoreError,
    GenerationError,
    ProvisionError,
    PushError,
    SettingsError
];

/// A change is logged by whoever carries it out, since nobody may wait for it any more.
impl From<UploadError> for Refusal {
    fn from(error: UploadError) -> Self {
        problem::of(&error).into()
    }
}

/// Gives every request its id, kept from the caller or made, and every answer the same one; and has
/// every answer kept by nobody and taken for what it says it is.
pub async fn identify(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, header_value(&id));
    let span = info_span!(
        "request", request_id = %id, method = %request.method(), path = request.uri().path()
    );
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        // That of a 405 comes from the router.
        let allow = response.headers_mut().remove(ALLOW);
        response = span.in_scope(|| refusal.answer(&id));
        response.headers_mut().extend(allow.map(|methods| (ALLOW, methods)));
    }
    guard(response.headers_mut());
    response.headers_mut().entry(REQUEST_ID).or_insert_with(|| header_value(&id));
    let status = response.status().as_u16().to_string();
    metrics::counter!("hearth_api_requests_total", "status" => status).increment(1);
    response
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

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use axum::{Router, middleware};
    use hearth_wire::PROBLEM_JSON;
    use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::api::request::{JsonBody, Params};

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Named {
        name: String,
    }

    fn router() -> Router {
        Router::new()
            .route("/plain", get(async || "plain"))
            .route("/body", post(async |JsonBody(_): JsonBody<Named>| "taken"))
            .route("/query", get(async |Params(_): Params<Named>| "taken"))
            .route("/secret", get(async || Refusal::new(Code::Unauthenticated, "no token")))
            .route("/busy", get(async || Refusal::from(LogsError::TooManyFollowers(32))))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(middleware::from_fn(identify))
    }

    async fn ask(request: http::request::Builder, body: &str) -> (Response<()>, String) {
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = router().oneshot(request).await.unwrap().into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (Response::from_parts(parts, ()), String::from_utf8(body.into()).unwrap())
    }

    async fn refused(request: http::request::Builder, body: &str) -> (Response<()>, Value) {
        let (response, body) = ask(request, body).await;
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], response.status().as_u16());
        assert_eq!(problem["request_id"], *response.headers()[REQUEST_ID].to_str().unwrap());
        (response, problem)
    }

    #[tokio::test]
    async fn a_request_id_is_kept_or_made() {
        let (kept, body) = ask(Request::get("/plain").header("x-request-id", "r-1"), "").await;
        assert_eq!((kept.headers()[REQUEST_ID].as_bytes(), &*body), (&b"r-1"[..], "plain"));
        assert_eq!(kept.headers()["cache-control"], "no-store");
        assert_eq!(kept.headers()["x-content-type-options"], "nosniff");
        let (made, _) = ask(Request::get("/plain").header("x-request-id", "no good"), "").await;
        assert_eq!(made.headers()[REQUEST_ID].len(), 32);
        let (problem, _) = refused(Request::get("/nix").header("x-request-id", "r-2"), "").await;
        assert_eq!(problem.headers()[REQUEST_ID], "r-2");
    }

    #[tokio::test]
    async fn refusals_are_problems() {
        let (_, problem) = refused(Request::get("/nix"), "").await;
        assert_eq!((&problem["code"], &problem["status"]), (&"not_found".into(), &404.into()));

        let (response, problem) = refused(Request::delete("/plain"), "").await;
        assert_eq!(problem["code"], "method_not_allowed");
        assert_eq!(response.headers()[ALLOW], "GET,HEAD");

        let (response, problem) = refused(Request::get("/secret"), "").await;
        assert_eq!(problem["code"], "unauthenticated");
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");

        let (response, problem) = refused(Request::get("/busy"), "").await;
        assert_eq!(problem["code"], "too_many_requests");
        assert_eq!(response.headers()[RETRY_AFTER], "5");
    }

    #[tokio::test]
    async fn bodies_and_queries_are_parsed_whole() {
        let giant = format!(r#"{{"name":"{}"}}"#, "x".repeat(64 << 10));
        for (body, code, said) in [
            ("{", "bad_request", "EOF while parsing"),
            (r#"{"name":1}"#, "bad_request", "expected a string"),
            (r#"{"name":"a","nam":1}"#, "bad_request", "unknown field `nam`, expected `name`"),
            (r#"{"name":"a"}x"#, "bad_request", "trailing characters"),
            ("", "bad_request", "EOF while parsing"),
            (&giant, "too_large", "64 KiB"),
        ] {
            let (_, problem) = refused(Request::post("/body"), body).await;
            let detail = problem["detail"].as_str().unwrap();
            assert_eq!(problem["code"], code, "{detail}");
            assert!(detail.contains(said), "{detail}");
        }
        let (response, _) = ask(Request::post("/body"), r#"{"name":"a"}"#).await;
        assert_eq!(response.status(), 200);

        for (query, said) in [("", "missing field"), ("?name=a&x=1", "unknown field `x`")] {
            let (_, problem) = refused(Request::get(format!("/query{query}")), "").await;
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(said), "{detail}");
        }
    }

    /// What a store's failure says inside stays inside.
    #[test]
    fn our_own_failures_are_not_explained_to_callers() {
        let inner = rusqlite::Error::InvalidColumnName("secret".into());
        let problem = Refusal::from(StoreError::from(inner)).into_problem();
        assert_eq!((problem.code, &*problem.detail), (Code::Internal, "the host's store failed"));
    }
}
