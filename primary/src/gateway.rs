//! The way from the front door and the API to a tenant's worker.
//!
//! `route` says whom a request is for, `peek` whether its connection may be the worker's from then
//! on, `handover` gives it away, `proxy` says what becomes of headers where it may not, and the
//! fleet has the links. A request that no worker has seen is offered to the next one; one that a
//! worker may have seen is not. Tokens are the worker's to check.

pub mod handover;
mod origin;
pub mod peek;
pub mod proxy;
pub mod route;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use hearth_connection::forwarding::Peer;
use hearth_connection::{Pacing, credentials, guard};
use hearth_wire::{
    Code, FunctionPath, Origin, PROBLEM_JSON, Problem, RequestId, TenantName, TokenDigest, Usage,
    header,
};
use http::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Uri, Version};
use ipnet::IpNet;
use tracing::warn;

use crate::config::Handover;
use crate::fleet::{CallError, Cause, Fleet, LinkError, Unavailable};
use crate::names::Names;
use crate::patience::within;
use crate::store::Store;
use route::Target;

/// How long a call waits for a worker.
const WAKE_DEADLINE: Duration = Duration::from_secs(30);
/// Between two offers of a request to workers that were just leaving.
const AGAIN: Duration = Duration::from_millis(10);
const OFFERS_MAX: u32 = 50;
/// What a worker says of itself: three numbers.
const USAGE_MAX_BYTES: usize = 1 << 10;
const USAGE_DEADLINE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error("there is no such tenant")]
    NoTenant,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("no worker was ready in time")]
    Late,
}

#[derive(Clone)]
pub struct Gateway {
    fleet: Fleet,
    store: Store,
    names: Arc<Names>,
    trusted: Arc<Trusted>,
    handover: Handover,
}

/// The operator's own proxies, and the headers in which they are believed.
#[derive(Debug)]
pub struct Trusted {
    pub networks: Vec<IpNet>,
    pub headers: Vec<HeaderName>,
}

impl Gateway {
    pub fn new(
        fleet: Fleet,
        store: Store,
        names: Arc<Names>,
        trusted: Trusted,
        handover: Handover,
    ) -> Self {
        Self { fleet, store, names, trusted: trusted.into(), handover }
    }

    /// Whom a request at the front door is for.
    pub fn target<'a>(&self, request: &'a Request<Body>) -> Target<'a> {
        route::route(named(request), request.uri().path(), &self.names)
    }

    /// Whether it is a proxy of the operator's, whose connections carry requests of many clients.
    pub fn is_trusted(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.trusted.networks.iter().any(|net| net.contains(&ip))
    }

    fn peer(&self, ip: IpAddr) -> Peer<'_> {
        let ip = ip.to_canonical();
        match self.is_trusted(ip) {
            true => Peer::Trusted(ip, &self.trusted.headers),
            false => Peer::Stranger(ip),
        }
    }

    /// No function gets to see a token of the host, nor is any of them called with it.
    fn refuses(&self, headers: &HeaderMap) -> Option<Problem> {
        if !self.carries_admins(&credentials::candidates(headers)) {
            return None;
        }
        let detail = "an admin's token is for the management API and is not passed on to functions; \
                      send one of this tenant's, or none where the function is public";
        Some(Problem::new(Code::Forbidden, detail))
    }

    fn carries_admins(&self, tokens: &[String]) -> bool {
        tokens.iter().any(|token| self.store.is_admins(&TokenDigest::of(token)))
    }

    /// Serves a request for the tenant that its host names.
    pub async fn by_host(
        &self,
        tenant: &TenantName,
        mut request: Request<Body>,
        peer: SocketAddr,
    ) -> Response {
        if let Some(problem) = self.refuses(request.headers()) {
            return refuse(problem, None, &request_id(request.headers()));
        }
        proxy::request_headers(request.headers_mut(), self.peer(peer.ip()), None);
        *request.uri_mut() = origin_form(request.uri(), request.uri().path());
        self.pass(tenant, request, "host").await
    }

    /// Serves a request for the tenant that its path names.
    pub async fn by_path(
        &self,
        tenant: &TenantName,
        prefix: &str,
        rest: &str,
        mut request: Request<Body>,
        peer: SocketAddr,
    ) -> Response {
        if let Some(problem) = self.refuses(request.headers()) {
            return refuse(problem, None, &request_id(request.headers()));
        }
        proxy::request_headers(request.headers_mut(), self.peer(peer.ip()), Some(prefix));
        *request.uri_mut() = origin_form(request.uri(), rest);
        foreign(self.pass(tenant, request, "path").await)
    }

    async fn pass(
        &self,
        tenant: &TenantName,
        mut request: Request<Body>,
        by: &'static str,
    ) -> Response {
        metrics::counter!("hearth_gateway_requests_total", "by" => by).increment(1);
        proxy::to_worker(&mut request, &format!("{tenant}.localhost"));
        let id = name_request(request.headers_mut());
        match self.forward(tenant, Origin::Gateway, request).await {
            Ok(mut response) => {
                *response.version_mut() = Version::HTTP_11;
                proxy::response_headers(response.headers_mut());
                response
            }
            Err(error) => refusal(tenant, error, &id),
        }
    }

    /// Calls a function for the management API, which has checked the caller.
    pub async fn invoke(
        &self,
        tenant: &TenantName,
        (method, path): (&Method, &FunctionPath),
        caller: &str,
        request: Request<Body>,
    ) -> Response {
        let (parts, body) = request.into_parts();
        let kept =
            [CONTENT_TYPE, CONTENT_LENGTH, ACCEPT, HeaderName::from_static(header::REQUEST_ID)];
        let mut headers: HeaderMap = kept
            .into_iter()
            .filter_map(|name| Some((name.clone(), parts.headers.get(name)?.clone())))
            .collect();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        if let Ok(caller) = HeaderValue::from_str(caller) {
            headers.insert(HeaderName::from_static(header::CALLER), caller);
        }
        let id = name_request(&mut headers);
        let mut call = Request::new(body);
        *call.method_mut() = method.clone();
        *call.uri_mut() = path.as_str().parse().expect("a function's path is a path");
        *call.headers_mut() = headers;
        match self.forward(tenant, Origin::Api, call).await {
            Ok(mut response) => {
                proxy::response_headers(response.headers_mut());
                // It answers on the platform's own origin, like an answer by path.
                foreign(response)
            }
            Err(error) => refusal(tenant, error, &id),
        }
    }

    /// What the tenant's worker has of its limits now: nothing where it is asleep, or too busy
    /// to say.
    pub async fn usage(&self, tenant: &TenantName) -> Usage {
        let Some(links) = self.fleet.links_awake(tenant) else { return Usage::default() };
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static(Usage::PATH);
        request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
        let asked = async {
            let answer = links.call(Origin::Api, request).await.ok()?;
            let answer = axum::body::to_bytes(answer.into_body(), USAGE_MAX_BYTES).await.ok()?;
            serde_json::from_slice(&answer).ok()
        };
        tokio::time::timeout(USAGE_DEADLINE, asked).await.ok().flatten().unwrap_or_default()
    }

    async fn forward(
        &self,
        tenant: &TenantName,
        origin: Origin,
        mut request: Request<Body>,
    ) -> Result<Response, ForwardError> {
        if let Some(pacing) = request.extensions_mut().remove::<Pacing>() {
            pacing.leave_to_next_hop();
        }
        let mut offers = 0;
        loop {
            let links = within(WAKE_DEADLINE, self.fleet.links(tenant));
            let links = match links.await.map_err(|_| ForwardError::Late)? {
                Ok(links) => links,
                Err(CallError::NoTenant) => return Err(ForwardError::NoTenant),
                Err(CallError::Unavailable(unavailable)) => return Err(unavailable.into()),
            };
            match links.call(origin, request).await {
                Ok(response) => return Ok(response.map(Body::new)),
                Err(LinkError::Closed(unsent)) if offers < OFFERS_MAX => request = *unsent,
                Err(error) => return Err(error.into()),
            }
            offers += 1;
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// The name under which this was asked, if it has any.
pub fn named(request: &Request<Body>) -> Option<&str> {
    let target = request.uri().authority().map(|authority| authority.as_str());
    target.or_else(|| request.headers().get(HOST)?.to_str().ok())
}

fn foreign(mut response: Response) -> Response {
    let status = response.status();
    proxy::foreign_headers(response.headers_mut(), status);
    response
}

/// What is told where a request names none of this host's names.
pub fn unknown_name(host: &str) -> Problem {
    // Whatever else it is, it is nobody's name.
    let is_name = |host: &&str| {
        host.len() <= 255
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
    };
    // A name as the setting takes it has no port.
    let name = host.parse::<Authority>();
    let name = name.as_ref().map_or(host, Authority::host);
    let shown = Some(name).filter(is_name).map(|name| format!(" `{name}`")).unwrap_or_default();
    let detail = format!(
        "this host is not known by the name{shown}; if that is one of its names, its operator adds \
         it to the setting `name` (`hearth up --name`, HEARTH_NAME); else use its address"
    );
    Problem::new(Code::Misdirected, detail)
}

/// Makes sure that a request has an id before it is passed on.
fn name_request(headers: &mut HeaderMap) -> RequestId {
    let id = request_id(headers);
    let value = HeaderValue::from_str(id.as_str()).expect("it is visible ASCII");
    headers.insert(HeaderName::from_static(header::REQUEST_ID), value);
    id
}

/// The target that a worker sees: path and query, without an authority.
pub fn origin_form(uri: &Uri, path: &str) -> Uri {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("{path}{query}");
    let target: PathAndQuery = target.parse().expect("a request without a path is refused before");
    Uri::from(target)
}

fn refusal(tenant: &TenantName, error: ForwardError, id: &RequestId) -> Response {
    let (problem, retry_after) = match &error {
        ForwardError::NoTenant => {
            (Problem::new(Code::NotFound, format!("there is no tenant {tenant}")), None)
        }
        ForwardError::Unavailable(Unavailable { retry_after, cause, .. }) => {
            return turned_away(*retry_after, *cause, id);
        }
        ForwardError::Link(LinkError::Busy) => {
            let detail = "the tenant has as many calls running and waiting as it may";
            (Problem::new(Code::TooManyRequests, detail), Some(Duration::from_secs(1)))
        }
        ForwardError::Link(LinkError::Lost(_) | LinkError::Closed(_) | LinkError::Io(_))
        | ForwardError::Late => {
            warn!(%tenant, request_id = %id, error = &error as &dyn std::error::Error, "call lost");
            let detail = "the worker ended before it answered; whether the call ran is not known";
            (Problem::new(Code::WorkerUnavailable, detail), Some(Duration::from_secs(1)))
        }
    };
    refuse(problem, retry_after, id)
}

/// What callers of a tenant are told whose worker does not come. Why is its owner's to see.
pub fn turned_away(retry_after: Duration, cause: Cause, id: &RequestId) -> Response {
    let detail = match cause {
        Cause::Ended => {
            "this tenant's worker ended unexpectedly and is not started again for now; its owner \
             finds the reason with `hearth worker list`, and can upload a fix meanwhile"
        }
        Cause::Crowded => "too many callers wait for this tenant's worker",
        Cause::Stopping => "the host is stopping",
    };
    let problem = Problem::new(Code::WorkerUnavailable, detail);
    refuse(problem, Some(retry_after), id)
}

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
