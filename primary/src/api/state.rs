//! What the API asks a tenant's worker of its state, and how the answer goes out: the one place that
//! goes to a worker's built-in routes. The addresses are `/kv` ([`super::kv`]) and `/sql`
//! ([`super::sql`]).
//!
//! The primary opens no tenant's file, reads no body of an answer, and believes no header of it but
//! a few: what a body is, its address says.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::Response;
use hearth_wire::{
    Code, Expires, KeptName, NameError, PROBLEM_JSON, Page, StateAddress, header as names,
};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::request::Parts;
use http::{Method, Request};
use jiff::Timestamp;
use serde::Deserialize;

use super::error::Refusal;
use super::request::{self, segments};
use crate::actor::Author;
use crate::invoke::Calls;
use crate::patience::to_its_end;
use crate::store::{Action, Event, Sides, Store, Tenant};

const REQUEST_ID: HeaderName = HeaderName::from_static(names::REQUEST_ID);
const EXPIRES_MS: HeaderName = HeaderName::from_static(names::EXPIRES_MS);
const EXPIRES: HeaderName = HeaderName::from_static(names::EXPIRES);
pub const JSON: &str = "application/json";
pub const BYTES: &str = "application/octet-stream";
pub const TEXT: &str = "text/plain; charset=utf-8";

/// Which part of a list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageParams {
    /// At most so many: 100, if it is missing.
    #[param(maximum = 1_000)]
    limit: Option<usize>,
    /// Only what comes behind this: the `next` of the page before.
    after: Option<String>,
}

impl PageParams {
    pub fn page(self) -> Result<Page, Refusal> {
        let Self { limit, after } = self;
        page(limit, after, None)
    }
}

pub fn page(
    limit: Option<usize>,
    after: Option<String>,
    prefix: Option<String>,
) -> Result<Page, Refusal> {
    Ok(Page { limit: request::limit(limit, Page::LIMIT_DEFAULT)?, after, prefix })
}

/// What is asked of a worker.
pub struct Asked {
    pub method: Method,
    pub address: StateAddress,
    /// With its `?`; nothing where there is none.
    pub query: String,
    pub body: Body,
}

impl Asked {
    pub fn get(address: StateAddress) -> Self {
        Self { method: Method::GET, address, query: String::new(), body: Body::empty() }
    }

    pub fn page(address: StateAddress, page: &Page) -> Self {
        Self { query: page.to_query(), ..Self::get(address) }
    }
}

/// Asks, and answers what the worker says. Of a request's headers the worker has its id, and how
/// long its body is.
pub async fn ask(
    calls: &Calls,
    tenant: &Tenant,
    headers: &HeaderMap,
    asked: Asked,
    content: &'static str,
) -> Result<Response, Refusal> {
    let Asked { method, address, query, body } = asked;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() =
        format!("{address}{query}").parse().expect("an address is written percent-encoded");
    for name in [REQUEST_ID, CONTENT_LENGTH] {
        if let Some(value) = headers.get(&name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    answered(calls.state(&tenant.name, request).await, content)
}

/// What is told of a change: its kind, the store or database, and whose it is.
pub struct Change {
    pub action: Action,
    pub object: KeptName,
    pub by: Author,
}

/// The same of what changes something, which is noted once the worker says that it is done, and
/// before anybody else is told. Where nobody waits for it any more, it is noted all the same.
pub async fn change(
    calls: Calls,
    store: Store,
    tenant: Tenant,
    headers: HeaderMap,
    asked: Asked,
    change: Change,
) -> Result<Response, Refusal> {
    to_its_end(async move {
        let answer = ask(&calls, &tenant, &headers, asked, JSON).await?;
        if answer.status().is_success() {
            let Change { action, object, by } = change;
            let (tenant, object) = (Some(tenant.id), Some(object.to_string()));
            store.note(by, Event { action, tenant, object, sides: Sides::none() }).await?;
        }
        Ok(answer)
    })
    .await
}

/// A worker's answer as the API's own. A worker serves strangers' code, so that this origin says
/// nothing that only it has said.
fn answered(answer: Response, content: &'static str) -> Result<Response, Refusal> {
    let (mut head, body) = answer.into_parts();
    let theirs = std::mem::take(&mut head.headers);
    let is_problem = theirs.get(CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_JSON);
    let content = match (head.status.is_success(), is_problem) {
        (true, _) => content,
        (false, true) => PROBLEM_JSON,
        (false, false) => {
            let detail = "the tenant's worker gave an answer that Hearth does not know";
            return Err(Refusal::new(Code::Internal, detail));
        }
    };
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
    for name in [CONNECTION, CONTENT_LENGTH, RETRY_AFTER, REQUEST_ID] {
        if let Some(value) = theirs.get(&name) {
            head.headers.insert(name, value.clone());
        }
    }
    if let Some(at) = theirs.get(EXPIRES_MS).and_then(expires) {
        head.headers.insert(EXPIRES, at);
    }
    head.extensions.clear();
    Ok(Response::from_parts(head, body))
}

fn expires(ms: &HeaderValue) -> Option<HeaderValue> {
    let at = Timestamp::from_millisecond(ms.to_str().ok()?.parse().ok()?).ok()?;
    HeaderValue::from_str(&at.to_string()).ok()
}

/// As it is told the worker.
pub fn expires_query(at: Option<Timestamp>) -> String {
    at.map(|at| Expires(at.as_millisecond()).to_query()).unwrap_or_default()
}

fn named(name: &str) -> Result<KeptName, Refusal> {
    name.parse().map_err(|error: NameError| Refusal::new(Code::BadRequest, error.to_string()))
}

/// The store that the address names.
pub struct InStore(pub(crate) KeptName);

impl<S: Sync> FromRequestParts<S> for InStore {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Segments {
            store: String,
        }
        let Segments { store } = segments(parts).await?;
        Ok(Self(named(&store)?))
    }
}

/// The store that the address names and the key in it, which is percent-encoded as one segment.
pub struct AtKey(pub(crate) KeptName, pub(crate) String);

impl<S: Sync> FromRequestParts<S> for AtKey {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Segments {
            store: String,
            key: String,
        }
        let Segments { store, key } = segments(parts).await?;
        Ok(Self(named(&store)?, key))
    }
}

/// The database that the address names.
pub struct InDatabase(pub(crate) KeptName);

impl<S: Sync> FromRequestParts<S> for InDatabase {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Segments {
            database: String,
        }
        let Segments { database } = segments(parts).await?;
        Ok(Self(named(&database)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> Result<Response, Refusal> {
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        answered(answer.body(Body::empty()).unwrap(), BYTES)
    }

    fn pairs(answer: &Response) -> Vec<(String, String)> {
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        let mut pairs: Vec<_> = answer.headers().iter().map(text).collect();
        pairs.sort();
        pairs
    }

    /// Whatever a worker says, it is not the word of this origin.
    #[test]
    fn a_worker_says_little_of_its_answer() {
        let said = answer(
            200,
            &[
                ("content-type", "text/html"),
                ("content-length", "3"),
                ("set-cookie", "a=b"),
                ("location", "https://elsewhere.example"),
                ("x-hearth-expires-ms", "1800000000123"),
                ("x-request-id", "r-1"),
            ],
        )
        .unwrap();
        let expected = [
            ("content-length", "3"),
            ("content-type", BYTES),
            ("x-hearth-expires", "2027-01-15T08:00:00.123Z"),
            ("x-request-id", "r-1"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs(&said), expected);
        for wrong in ["", "soon", "9999999999999999999"] {
            assert_eq!(expires(&HeaderValue::from_str(wrong).unwrap()), None, "{wrong}");
        }
    }

    #[test]
    fn a_refusal_is_a_problem_or_nothing_that_is_passed_on() {
        let refused = answer(507, &[("content-type", PROBLEM_JSON)]).unwrap();
        assert_eq!(refused.status(), 507);
        assert_eq!(refused.headers()[CONTENT_TYPE], PROBLEM_JSON);
        for status in [302, 404, 500] {
            let refusal = answer(status, &[("content-type", "text/html")]).unwrap_err();
            assert_eq!(refusal.into_problem().code, Code::Internal, "{status}");
        }
    }

    #[test]
    fn a_page_has_bounds() {
        let of = |limit| PageParams { limit, after: None }.page().map(|page| page.limit).ok();
        assert_eq!(of(None), Some(100));
        assert_eq!(of(Some(1_000)), Some(1_000));
        assert_eq!((of(Some(0)), of(Some(1_001))), (None, None));
    }
}
