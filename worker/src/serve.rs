//! A request from its head to its answer, in order: request id, what the peer may say, route,
//! method, token, size, a turn, the call. Every refusal is a problem and is made here.
//!
//! Bytes and connections are [`crate::connection`]'s, the guest is [`crate::call`]'s.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hearth_wire::{
    Auth, Code, ManifestFunction, Origin, Outcome, PROBLEM_JSON, Problem, RequestId, Scope,
    TenantName, TokenDigest, TokenGrant, header as hearth,
};
use http::header::{
    self, ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Method, Request, Response, Version};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use ipnet::IpNet;
use tokio::sync::watch;
use wasmtime::Engine;

use crate::builtin;
use crate::call::{self, Calls, Failure, Ledger};
use crate::door::Door;
use crate::generation::Generation;
use crate::host::http::RequestBody;
use crate::limits::{ActivityCount, Permits, Ticker};
use crate::report::{CallLog, Reporter};
use crate::route::Route;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;
pub type Answer = Response<AnswerBody>;

/// When to come again, where all turns are taken.
const RETRY_AFTER_BUSY: HeaderValue = HeaderValue::from_static("1");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const X_FORWARDED: &str = "x-forwarded-";
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REQUEST_ID: HeaderName = HeaderName::from_static(hearth::REQUEST_ID);
const VERSION: HeaderName = HeaderName::from_static(hearth::VERSION);
const CALLER: HeaderName = HeaderName::from_static(hearth::CALLER);

pub type Grants = HashMap<TokenDigest, TokenGrant>;

/// All that answering needs, the same for every connection.
pub struct Tenant {
    pub name: TenantName,
    pub trusted: Vec<IpNet>,
    pub engine: Engine,
    pub generation: Generation,
    pub grants: watch::Receiver<Arc<Grants>>,
    pub permits: Permits,
    pub activity: ActivityCount,
    pub ticker: Ticker,
    pub calls: Calls,
    pub reporter: Reporter,
    pub door: Door,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Tcp(IpAddr),
    Link(Origin),
}

/// Answers one request. `cold` is how long its worker took to be there for it, where it waited
/// for that.
pub async fn answer(
    tenant: &Arc<Tenant>,
    peer: Peer,
    cold: Option<Duration>,
    mut request: Request<Incoming>,
) -> Answer {
    let read_at = Instant::now();
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, header_value(id.as_str()));
    believe(request.headers_mut(), peer, &tenant.trusted);
    let mut answer = match complete(&mut request, &tenant.name) {
        Ok(()) => dispatch(tenant, peer, read_at, cold, &id, request).await,
        Err(refusal) => refusal.into_answer(&id),
    };
    answer.headers_mut().insert(REQUEST_ID, header_value(id.as_str()));
    answer
}

fn request_id(headers: &HeaderMap) -> RequestId {
    let sent = headers.get(REQUEST_ID).and_then(|id| RequestId::parse(id.as_bytes()));
    sent.unwrap_or_else(|| {
        let mut random = [0; 16];
        crate::host::fill(&mut random);
        RequestId::from_random(random)
    })
}

/// Takes off what this peer may not say.
fn believe(headers: &mut HeaderMap, peer: Peer, trusted: &[IpNet]) {
    let keeps_caller = peer == Peer::Link(Origin::Api);
    let forwarded_by = match peer {
        Peer::Link(_) => None,
        Peer::Tcp(ip) => {
            let ip = ip.to_canonical();
            (!trusted.iter().any(|network| network.contains(&ip))).then_some(ip)
        }
    };
    let unwelcome = |name: &HeaderName| {
        let name = name.as_str();
        let reserved = name.starts_with(hearth::RESERVED_PREFIX);
        let forwarded = name == header::FORWARDED.as_str() || name.starts_with(X_FORWARDED);
        (reserved && !(keeps_caller && name == hearth::CALLER))
            || (forwarded && forwarded_by.is_some())
    };
    let dropped: Vec<_> = headers.keys().filter(|name| unwelcome(name)).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    if let Some(ip) = forwarded_by {
        headers.insert(X_FORWARDED_FOR, header_value(&ip.to_string()));
    }
}

/// A request without its host is no request in HTTP/1.1; an older one gets the tenant's name.
fn complete(request: &mut Request<Incoming>, tenant: &TenantName) -> Result<(), Refusal> {
    let bad = |detail: &str| Refusal::new(Code::BadRequest, detail);
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if host.to_str().is_ok() => Ok(()),
        (Some(_), None) => Err(bad("the Host header is no text")),
        (Some(_), Some(_)) => Err(bad("there is more than one Host header")),
        (None, _) if request.uri().authority().is_some() => Ok(()),
        (None, _) if request.version() < Version::HTTP_11 => {
            let host = header_value(&format!("{tenant}.localhost"));
            request.headers_mut().insert(HOST, host);
            Ok(())
        }
        (None, _) => Err(bad("the Host header is missing")),
    }
}

async fn dispatch(
    tenant: &Arc<Tenant>,
    peer: Peer,
    read_at: Instant,
    cold: Option<Duration>,
    id: &RequestId,
    request: Request<Incoming>,
) -> Answer {
    match tenant.generation.routes.find(request.uri().path()) {
        Route::Function(function) => {
            function_answer(tenant, peer, read_at, cold, id, function, request).await
        }
        Route::Builtin(builtin) => builtin::answer(tenant, builtin, request)
            .await
            .unwrap_or_else(|refusal| refusal.into_answer(id)),
        Route::NotFound => {
            let detail = format!("there is no function at {}", request.uri().path());
            Refusal::new(Code::NotFound, detail).into_answer(id)
        }
        Route::InvalidPath => {
            let detail = "a function's path is 1 to 8 segments of letters, digits, '_', '.' and \
                          '-', each beginning with a letter, digit or '_', and nothing encoded";
            Refusal::new(Code::InvalidPath, detail).into_answer(id)
        }
    }
}

async fn function_answer(
    tenant: &Arc<Tenant>,
    peer: Peer,
    read_at: Instant,
    cold: Option<Duration>,
    id: &RequestId,
    number: usize,
    request: Request<Incoming>,
) -> Answer {
    let function = &tenant.generation.manifest.functions[number];
    let log = CallLog {
        reporter: tenant.reporter.clone(),
        function: function.path.clone(),
        version: function.version,
        request_id: id.clone(),
    };
    let ledger = Ledger::new(log, request.method(), read_at, cold);
    let (mut answer, timing) = match admit(tenant, peer, function, request) {
        Ok((request, overflow)) => {
            let ledger = Arc::new(ledger.counted(tenant.activity.begin()));
            let request = request.map(|body| {
                let (body, overflow_seen) = RequestBody::new(
                    body,
                    function.options.max_body,
                    Arc::clone(&ledger.request_bytes),
                );
                *overflow.lock() = Some(overflow_seen);
                body.boxed_unsync()
            });
            run(tenant, number, request, ledger).await
        }
        Err(refusal) => todo!(),
    };
    answer
}
