//! The way from the front door to a tenant's worker.
//!
//! `route` says whom a request is for, `peek` whether its connection may be the worker's from then
//! on, `handover` gives it away, `proxy` says what becomes of headers where it may not, and
//! [`crate::invoke`] sends the call. Tokens are the worker's to check, but for the host's own.

pub mod handover;
mod origin;
pub mod peek;
pub mod proxy;
pub mod route;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use hearth_connection::credentials;
use hearth_connection::forwarding::Word;
use hearth_wire::{Code, Origin, Problem, TenantName, TokenDigest};
use http::header::{HOST, HeaderName};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Request, Uri};
use ipnet::IpNet;

use crate::config::Handover;
use crate::fleet::Fleet;
use crate::invoke::Calls;
use crate::names::Names;
use crate::refusal::{refuse, request_id};
use crate::store::Store;
use route::Target;

#[derive(Clone)]
pub struct Gateway {
    fleet: Fleet,
    calls: Calls,
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
        calls: Calls,
        store: Store,
        names: Arc<Names>,
        trusted: Trusted,
        handover: Handover,
    ) -> Self {
        Self { fleet, calls, store, names, trusted: trusted.into(), handover }
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

    fn peer(&self, ip: IpAddr) -> Word<'_> {
        let ip = ip.to_canonical();
        match self.is_trusted(ip) {
            true => Word::Believed(ip, &self.trusted.headers),
            false => Word::Stranger(ip),
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
        proxy::foreign(self.pass(tenant, request, "path").await)
    }

    async fn pass(
        &self,
        tenant: &TenantName,
        mut request: Request<Body>,
        by: &'static str,
    ) -> Response {
        metrics::counter!("hearth_gateway_requests_total", "by" => by).increment(1);
        proxy::to_worker(&mut request, &format!("{tenant}.localhost"));
        self.calls.send(tenant, Origin::Outside, request).await
    }
}

/// The name under which this was asked, if it has any.
pub fn named(request: &Request<Body>) -> Option<&str> {
    let target = request.uri().authority().map(|authority| authority.as_str());
    target.or_else(|| request.headers().get(HOST)?.to_str().ok())
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

/// The target that a worker sees: path and query, without an authority.
pub fn origin_form(uri: &Uri, path: &str) -> Uri {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("{path}{query}");
    let target: PathAndQuery = target.parse().expect("a request without a path is refused before");
    Uri::from(target)
}
