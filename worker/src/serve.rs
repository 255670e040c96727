//! A request from its head to its answer, in order: request id, what the peer may say, route,
//! origin, method, token, size, what the guest sees of its path, schema of the head, a turn,
//! schema of the body, the call, schema of the answer. Every refusal is a problem and is made here.
//!
//! Bytes and connections are [`crate::connection`]'s, the guest is [`crate::call`]'s.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hearth_connection::{credentials, end_request_hop, forwarding, guard, has_content};
use hearth_schema::Checks;
use hearth_wire::limits::CHECKED_BODY_MAX_BYTES;
use hearth_wire::{
    Answers, Auth, Code, Entry, FunctionPath, LogStream, ManifestFunction, Origin, Outcome,
    PROBLEM_JSON, Problem, RequestId, Scope, TenantName, TokenDigest, TokenGrant, below,
    header as hearth,
};
use http::header::{
    self, ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use ipnet::IpNet;
use tokio::sync::watch;
use wasmtime::Engine;
use wasmtime_wasi_http::Error as BodyError;

use crate::builtin;
use crate::call::{self, Calls, Failure, Ledger};
use crate::check::{self, HoldError};
pub use crate::connection::{Answer, AnswerBody};
use crate::connection::{BoxError, Received};
use crate::cors::{self, Leave};
use crate::finish::{Finish, Time};
use crate::generation::Generation;
use crate::host::http::{RequestBody, ResponseBody};
use crate::instance::Instances;
use crate::limits::{ActivityCount, Newcomers, NoTurn, Permits, Ticker};
use crate::report::{CallLog, Reporter};
use crate::uplink::Uplinks;
use hearth_wire::{Builtin, Route, complain};

/// When to come again, where all turns are taken.
const RETRY_AFTER_BUSY: HeaderValue = HeaderValue::from_static("1");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static(hearth::FORWARDED_PREFIX);
const REQUEST_ID: HeaderName = HeaderName::from_static(hearth::REQUEST_ID);
const VERSION: HeaderName = HeaderName::from_static(hearth::VERSION);
const CALLER: HeaderName = HeaderName::from_static(hearth::CALLER);

pub type Grants = HashMap<TokenDigest, TokenGrant>;

/// All that answering needs, the same for every connection.
pub struct Tenant {
    pub name: TenantName,
    pub trusted: Trusted,
    /// Below which it has a name at the front door, besides `localhost`.
    pub domain: Option<String>,
    pub engine: Engine,
    pub generation: Generation,
    pub grants: watch::Receiver<Arc<Grants>>,
    pub permits: Permits,
    pub newcomers: Newcomers,
    pub room: check::Room,
    /// Those from outside, as the control loop counted them last.
    pub connections: AtomicUsize,
    pub activity: ActivityCount,
    /// On their way to the host, which are no calls.
    pub uploads: ActivityCount,
    pub finish: Finish,
    pub ticker: Ticker,
    pub calls: Calls,
    pub instances: Instances,
    pub reporter: Reporter,
    pub uplinks: Uplinks,
}

/// The operator's own proxies, and the headers in which they are believed.
#[derive(Debug, Clone, Default)]
pub struct Trusted {
    pub networks: Vec<IpNet>,
    pub headers: Vec<HeaderName>,
}

impl Trusted {
    fn peer(&self, ip: IpAddr) -> forwarding::Peer<'_> {
        let ip = ip.to_canonical();
        match self.networks.iter().any(|network| network.contains(&ip)) {
            true => forwarding::Peer::Trusted(ip, &self.headers),
            false => forwarding::Peer::Stranger(ip),
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Tcp(IpAddr, Entry),
    Link(Origin),
}

/// Answers one request. `cold` is how long its worker took to be there for it, where it waited
/// for that.
pub async fn answer(
    tenant: &Arc<Tenant>,
    peer: Peer,
    cold: Option<Duration>,
    mut request: Request<Received>,
) -> Answer {
    let read_at = Instant::now();
    if let Peer::Tcp(..) = peer {
        end_request_hop(request.headers_mut());
    }
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, header_value(id.as_str()));
    believe(request.headers_mut(), peer, &tenant.trusted);
    complete(request.headers_mut(), &tenant.name);
    let mut answer = match is_for(&request, peer, &tenant.name, tenant.domain.as_deref()) {
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
fn believe(headers: &mut HeaderMap, peer: Peer, trusted: &Trusted) {
    let keeps_caller = peer == Peer::Link(Origin::Api);
    let unwelcome = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with(hearth::RESERVED_PREFIX) && !(keeps_caller && name == hearth::CALLER)
    };
    let dropped: Vec<_> = headers.keys().filter(|name| unwelcome(name)).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    // Of what came by a link, the front door has said whom it believes.
    if let Peer::Tcp(ip, _) = peer {
        forwarding::tell(headers, trusted.peer(ip));
    }
}

/// A request without its host, as HTTP/1.0 has them, gets the tenant's name.
fn complete(headers: &mut HeaderMap, tenant: &TenantName) {
    headers.entry(HOST).or_insert_with(|| header_value(&format!("{tenant}.localhost")));
}

/// A connection that came in at the front door is here because its first request named this
/// tenant. One that names another is not for us to answer, nor to pass on.
fn is_for(
    request: &Request<Received>,
    peer: Peer,
    tenant: &TenantName,
    domain: Option<&str>,
) -> Result<(), Refusal> {
    let Peer::Tcp(_, Entry::Front) = peer else { return Ok(()) };
    let named = request.uri().authority().map(|authority| authority.as_str());
    let named = named.or_else(|| request.headers().get(HOST)?.to_str().ok());
    if named.and_then(|host| TenantName::of_host(host, domain)) == Some(Ok(tenant.clone())) {
        return Ok(());
    }
    let detail = format!("this connection leads to {tenant} alone; open another one");
    let mut refusal = Refusal::new(Code::Misdirected, detail);
    refusal.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Err(refusal)
}

async fn dispatch(
    tenant: &Arc<Tenant>,
    peer: Peer,
    read_at: Instant,
    cold: Option<Duration>,
    id: &RequestId,
    request: Request<Received>,
) -> Answer {
    match tenant.generation.routes.find(request.uri().path()) {
        Route::Function(function) => {
            function_answer(tenant, peer, read_at, cold, id, function, request).await
        }
        Route::Builtin(Builtin::Usage) if peer != Peer::Link(Origin::Api) => {
            no_function(&request, id)
        }
        Route::Builtin(builtin) => builtin::answer(tenant, builtin, request)
            .await
            .unwrap_or_else(|refusal| refusal.into_answer(id)),
        Route::NotFound => no_function(&request, id),
        Route::InvalidPath => {
            let detail = "a function's path is 1 to 8 segments of letters, digits, '_', '.' and \
                          '-', each beginning with a letter, digit or '_', and nothing encoded";
            Refusal::new(Code::InvalidPath, detail).into_answer(id)
        }
    }
}

fn no_function(request: &Request<Received>, id: &RequestId) -> Answer {
    let detail = format!("there is no function at {}", request.uri().path());
    Refusal::new(Code::NotFound, detail).into_answer(id)
}

async fn function_answer(
    tenant: &Arc<Tenant>,
    peer: Peer,
    read_at: Instant,
    cold: Option<Duration>,
    id: &RequestId,
    number: usize,
    mut request: Request<Received>,
) -> Answer {
    let function = &tenant.generation.manifest.functions[number];
    let log = CallLog {
        reporter: tenant.reporter.clone(),
        function: function.path.clone(),
        version: function.version,
        request_id: id.clone(),
    };
    let ledger = Arc::new(Ledger::new(log, request.method(), read_at, cold));
    let leave = Leave::of(&function.options, request.headers());
    if let Some(leave) = &leave
        && cors::is_preflight(request.method(), request.headers())
    {
        let (status, headers) = cors::preflight(leave, &function.options, request.headers());
        ledger.end(Outcome::Refused);
        ledger.answered(status);
        let mut answer = Response::new(full(Bytes::new()));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        return answer;
    }
    let now_seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let allowed = {
        let grants = tenant.grants.borrow();
        admit(&mut request, peer, function, &grants, now_seconds.cast_signed())
    };
    let answered = match allowed {
        Ok(()) => {
            if function.options.strip_prefix {
                strip_prefix(&mut request, &function.path);
            }
            called(tenant, number, request, &ledger).await
        }
        Err(refusal) => Err(refusal),
    };
    let mut answer = answered.unwrap_or_else(|refusal| {
        // Says nothing where the guest had begun: how that ended is known better already.
        ledger.end(Outcome::Refused);
        refusal.into_answer(id)
    });
    ledger.answered(answer.status());
    let version = header_value(&format!("{}@{}", function.path, function.version));
    answer.headers_mut().insert(VERSION, version);
    answer.headers_mut().append(SERVER_TIMING, header_value(&ledger.server_timing()));
    if let Some(leave) = leave {
        leave.give(answer.headers_mut());
    }
    answer
}

/// Method, token, whether there is something to call, and announced size, in this order; what was
/// verified is taken off.
fn admit(
    request: &mut Request<Received>,
    peer: Peer,
    function: &ManifestFunction,
    grants: &Grants,
    now_seconds: i64,
) -> Result<(), Refusal> {
    let options = &function.options;
    if !options.methods.iter().any(|method| method == request.method().as_str()) {
        return Err(method_refused(&options.methods.join(", ")));
    }
    if peer != Peer::Link(Origin::Api) {
        authorize(request.headers_mut(), options.auth, grants, now_seconds)?;
    }
    // Another tenant's or the host's own is none of this function's business either.
    credentials::withhold_tokens(request.headers_mut());
    if function.damaged {
        let ManifestFunction { path, version, .. } = function;
        return Err(Refusal::new(Code::ModuleDamaged, Problem::damaged(path, *version)));
    }
    let announced = request.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > options.max_body) {
        return Err(too_large(options.max_body));
    }
    Ok(())
}

/// Gives the guest a root of its own: what follows its function's path is the path, and that path
/// stands behind what was taken off before. What a root is called by elsewhere is not below its
/// path, and stays as it is.
fn strip_prefix<B>(request: &mut Request<B>, function: &FunctionPath) {
    let uri = request.uri();
    let Some(rest) = below(uri.path(), function) else { return };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target: PathAndQuery =
        format!("{rest}{query}").parse().expect("the end of a valid target is one");
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target);
    *request.uri_mut() = Uri::from_parts(parts).expect("it has a path, as before");
    let before = request.headers().get(X_FORWARDED_PREFIX).map(HeaderValue::as_bytes);
    let mut prefix = before.unwrap_or_default().to_vec();
    while prefix.last() == Some(&b'/') {
        prefix.pop();
    }
    prefix.extend_from_slice(function.as_str().as_bytes());
    let prefix = HeaderValue::from_bytes(&prefix).expect("two valid values make one");
    request.headers_mut().insert(X_FORWARDED_PREFIX, prefix);
}

fn authorize(
    headers: &mut HeaderMap,
    needed: Auth,
    grants: &Grants,
    now_seconds: i64,
) -> Result<(), Refusal> {
    let token = credentials::token(headers);
    let grant = token.as_deref().and_then(|token| grants.get(&TokenDigest::of(token)));
    let grant = grant.filter(|grant| grant.is_live(now_seconds));
    match (needed, grant) {
        (Auth::Public, None) => return Ok(()),
        (Auth::Scope(_), None) => {
            let detail = match token {
                None => {
                    "this function needs a token of its tenant: send it as `Authorization: Bearer …`"
                }
                Some(_) => "the token is unknown or has expired",
            };
            let mut refusal = Refusal::new(Code::Unauthenticated, detail);
            let challenge = HeaderValue::from_static("Bearer realm=\"hearth\"");
            refusal.headers.insert(WWW_AUTHENTICATE, challenge);
            return Err(refusal);
        }
        (Auth::Scope(scope), Some(grant)) if !may(grant.scope, scope) => {
            let detail = format!("this function needs a token with the scope `{scope}`");
            return Err(Refusal::new(Code::Forbidden, detail));
        }
        (Auth::Public | Auth::Scope(_), Some(grant)) => {
            let name = HeaderValue::from_bytes(grant.name.as_bytes());
            headers.insert(CALLER, name.unwrap_or(HeaderValue::from_static("token")));
        }
    }
    headers.remove(AUTHORIZATION);
    Ok(())
}

/// An admin's token is no tenant's, and is not accepted at a tenant's addresses.
fn may(scope: Scope, needed: Scope) -> bool {
    scope != Scope::Admin && scope.covers(needed)
}

/// What the schemas say, a turn, and then the guest.
async fn called(
    tenant: &Arc<Tenant>,
    number: usize,
    request: Request<Received>,
    ledger: &Arc<Ledger>,
) -> Result<Answer, Refusal> {
    let options = &tenant.generation.manifest.functions[number].options;
    let checks = tenant.generation.checks(number).map_err(|error| {
        complain(format_args!(
            "hearth-worker: a schema that was tried before does not compile: {error}"
        ));
        Refusal::new(Code::Internal, "the function's schemas cannot be used; upload it again")
    })?;
    if let Some(checks) = checks {
        check::head(checks, request.uri().query(), request.headers())?;
    }
    ledger.count(tenant.activity.begin());
    let admitted = async {
        let permit = tenant.permits.turn(Instant::now()).await.map_err(no_turn)?;
        let (head, body) = request.into_parts();
        let body = RequestBody::new(body, options.max_body, Arc::clone(ledger));
        let body = match checks.filter(|_| options.schema.body.is_some()) {
            None => body.boxed_unsync(),
            Some(checks) => {
                // It is judged as it stands, and the guest would unpack it.
                if let Some(packed) = Problem::of_coding(&head.headers) {
                    return Err(packed.into());
                }
                let room = tenant.room.requests();
                let held = check::hold(body, &head.headers, options.max_body, room);
                let held = held.await.map_err(|error| match error {
                    HoldError::TooLarge | HoldError::Body(BodyError::HttpRequestBodySize(_)) => {
                        too_large(options.max_body)
                    }
                    HoldError::Body(_) => Refusal::new(Code::BadRequest, Problem::BROKEN_BODY),
                })?;
                check::request(&tenant.room, checks, &head.method, &held.bytes).await?;
                held.into_body().boxed_unsync()
            }
        };
        Ok::<_, Refusal>((permit, Request::from_parts(head, body)))
    };
    let (permit, request) = tokio::select! {
        biased;
        admitted = admitted => admitted?,
        () = tenant.finish.comes(Time::Up) => {
            ledger.end(Outcome::Stopped);
            return Err(failed(Failure::Stopped, options));
        }
    };
    let method = request.method().clone();
    let answered = call::call(tenant, number, request, permit, Arc::clone(ledger)).await;
    let response = answered.map_err(|failure| failed(failure, options))?;
    let status = response.status().as_u16();
    let has_content = has_content(&method, response.status());
    match (checks, options.schema.response(status)) {
        (Some(checks), Some((answers, _))) if has_content => {
            let checked = checked(tenant, checks, answers, response, ledger).await;
            checked.map_err(|failure| failed(failure, options))
        }
        _ => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
    }
}

/// An answer that its schema allows. Its head goes out when all of it is known.
async fn checked(
    tenant: &Tenant,
    checks: &Arc<Checks>,
    answers: Answers,
    response: Response<ResponseBody>,
    ledger: &Ledger,
) -> Result<Answer, Failure> {
    let (mut head, body) = response.into_parts();
    let most = CHECKED_BODY_MAX_BYTES;
    let broken = match check::hold(body, &head.headers, most, tenant.room.answers()).await {
        Ok(held) => match check::answer(&tenant.room, checks, answers, &held.bytes).await {
            Ok(()) => {
                head.headers.insert(CONTENT_LENGTH, held.bytes.len().into());
                let body = held.into_body::<BoxError>();
                return Ok(Response::from_parts(head, body.boxed_unsync()));
            }
            Err(broken) => broken,
        },
        Err(HoldError::TooLarge) => format!(
            "the answer is longer than the {} MiB that can be checked against its schema",
            most >> 20
        ),
        Err(HoldError::Body(_)) => return Err(ledger.failure()),
    };
    ledger.fail(Outcome::ResponseInvalid);
    ledger.log.line(LogStream::Host, broken);
    Err(Failure::ResponseInvalid)
}

fn failed(failure: Failure, options: &hearth_wire::Options) -> Refusal {
    match failure {
        Failure::Trapped => Refusal::new(
            Code::FunctionTrapped,
            "the function failed before it answered; its log says why",
        ),
        Failure::MemoryLimit => Refusal::new(
            Code::MemoryLimit,
            format!("the function needs more than its {} MiB of memory", options.memory_mb),
        ),
        Failure::Timeout => Refusal::new(
            Code::Timeout,
            format!("the function did not answer within {} ms", options.timeout_ms),
        ),
        Failure::NoResponse(None) => {
            Refusal::new(Code::FunctionNoResponse, "the function returned without a response")
        }
        Failure::NoResponse(Some(said)) => Refusal::new(
            Code::FunctionNoResponse,
            format!("the function gave an error instead of a response: {said}"),
        ),
        Failure::ResponseInvalid => Refusal::new(
            Code::ResponseInvalid,
            "the function's answer is not what its schema promises; its log says where",
        ),
        Failure::Stopped => {
            let detail = "the call was ended before it had answered: its worker was replaced or is \
                          stopping, and had no more time for it; whether it had an effect is not \
                          known";
            let mut refusal = Refusal::new(Code::WorkerUnavailable, detail);
            refusal.headers.insert(RETRY_AFTER, RETRY_AFTER_BUSY);
            refusal
        }
        Failure::RequestTooLarge => too_large(options.max_body),
        Failure::RequestBroken => Refusal::new(Code::BadRequest, Problem::BROKEN_BODY),
        Failure::Internal => {
            Refusal::new(Code::Internal, "the call could not be made; the host's log says why")
        }
    }
}

fn too_large(most: u64) -> Refusal {
    Refusal::new(Code::TooLarge, format!("this function takes a body of at most {most} bytes"))
}

fn no_turn(no: NoTurn) -> Refusal {
    let (detail, retry_after) = match no {
        NoTurn::Crowded => {
            ("too many calls of this tenant are running and waiting", RETRY_AFTER_BUSY)
        }
        NoTurn::TooFast(wait) => {
            let seconds = wait.as_secs_f64().ceil() as u64;
            ("this tenant is called more often than its limit allows", seconds.max(1).into())
        }
    };
    let mut refusal = Refusal::new(Code::TooManyRequests, detail);
    refusal.headers.insert(RETRY_AFTER, retry_after);
    refusal
}

pub fn method_refused(allowed: &str) -> Refusal {
    let detail = format!("this address takes {allowed}");
    let mut refusal = Refusal::new(Code::MethodNotAllowed, detail);
    refusal.headers.insert(ALLOW, header_value(allowed));
    refusal
}

/// The platform's no.
#[derive(Debug)]
pub struct Refusal {
    problem: Box<Problem>,
    headers: HeaderMap,
}

impl Refusal {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { problem: Box::new(Problem::new(code, detail)), headers: HeaderMap::new() }
    }

    #[cfg(test)]
    pub fn code(&self) -> Code {
        self.problem.code
    }

    pub fn into_answer(self, id: &RequestId) -> Answer {
        let Self { problem, headers } = self;
        let status = problem.code.status();
        let mut answer = Response::new(full(problem.of_request(id.clone()).to_json()));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        guard(answer.headers_mut());
        answer
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), headers: HeaderMap::new() }
    }
}

pub fn full(bytes: impl Into<Bytes>) -> AnswerBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("parsed names and numbers are valid in a header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    fn grants() -> Grants {
        let grant = |token: &str, scope, expires_at| TokenGrant {
            digest: TokenDigest::of(token),
            scope,
            name: format!("{scope}'s"),
            expires_at,
        };
        [
            grant("own", Scope::Owner, None),
            grant("dep", Scope::Deploy, None),
            grant("inv", Scope::Invoke, Some(100)),
            grant("adm", Scope::Admin, None),
        ]
        .into_iter()
        .map(|grant| (grant.digest, grant))
        .collect()
    }

    fn basic(password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("anybody:{password}")))
    }

    /// What becomes of a request with this header: its problem, or its caller and what is left.
    fn judged(sent: Option<&str>, needed: Auth, now: i64) -> Result<(String, bool), Code> {
        let mut headers = HeaderMap::new();
        if let Some(sent) = sent {
            headers.insert(AUTHORIZATION, sent.parse().unwrap());
        }
        authorize(&mut headers, needed, &grants(), now).map_err(|refusal| refusal.code())?;
        let caller = headers.get(CALLER).map_or("", |name| name.to_str().unwrap());
        Ok((caller.to_owned(), headers.contains_key(AUTHORIZATION)))
    }

    #[test]
    fn who_may_call() {
        use Code::{Forbidden, Unauthenticated};
        let invoke = Auth::Scope(Scope::Invoke);
        let is = |name: &str, kept| Ok((name.to_owned(), kept));
        for (sent, needed, now, result) in [
            (None, Auth::Public, 0, is("", false)),
            (Some("Bearer foreign"), Auth::Public, 0, is("", true)),
            (Some("Bearer inv"), Auth::Public, 0, is("invoke's", false)),
            (Some("Bearer inv"), Auth::Public, 100, is("", true)),
            (None, invoke, 0, Err(Unauthenticated)),
            (Some("Bearer foreign"), invoke, 0, Err(Unauthenticated)),
            (Some("Bearer inv"), invoke, 99, is("invoke's", false)),
            (Some("bearer  inv "), invoke, 99, is("invoke's", false)),
            (Some("Token inv"), invoke, 99, is("invoke's", false)),
            (Some(basic("inv").as_str()), invoke, 99, is("invoke's", false)),
            (Some("Bearer inv"), invoke, 100, Err(Unauthenticated)),
            (Some("Bearer dep"), invoke, 0, Err(Forbidden)),
            (Some("Bearer own"), invoke, 0, is("owner's", false)),
            (Some("Bearer adm"), invoke, 0, Err(Forbidden)),
            (Some("Basic !"), invoke, 0, Err(Unauthenticated)),
            (Some("Digest inv"), invoke, 0, Err(Unauthenticated)),
            (Some("inv"), invoke, 0, Err(Unauthenticated)),
        ] {
            assert_eq!(judged(sent, needed, now), result, "{sent:?} {needed:?} {now}");
        }
    }

    #[test]
    fn what_each_peer_may_say() {
        let sent = [
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-hearth-caller", "me"),
            ("x-hearth-other", "x"),
            ("x-other", "kept"),
        ];
        let trusted = Trusted {
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            headers: vec![forwarding::FORWARDED_FOR, forwarding::FORWARDED_PROTO],
        };
        let tcp = |ip: &str| Peer::Tcp(ip.parse().unwrap(), Entry::Port);
        let front = Peer::Tcp("192.0.2.7".parse().unwrap(), Entry::Front);
        let kept = |headers: &[(&str, &str)]| -> Vec<(String, String)> {
            headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let stranger = kept(&[
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "http"),
            ("x-other", "kept"),
        ]);
        let proxied = kept(&[("x-forwarded-for", "1.2.3.4, 10.1.1.1"), sent[2], sent[5]]);
        for (peer, left) in [
            (tcp("192.0.2.7"), stranger.clone()),
            (tcp("::ffff:192.0.2.7"), stranger.clone()),
            (tcp("::ffff:10.1.1.1"), proxied.clone()),
            (front, stranger),
            (tcp("10.1.1.1"), proxied),
            (Peer::Link(Origin::Gateway), kept(&[sent[0], sent[1], sent[2], sent[5]])),
            (Peer::Link(Origin::Api), kept(&[sent[0], sent[1], sent[2], sent[3], sent[5]])),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.append(name, value.parse().unwrap());
            }
            believe(&mut headers, peer, &trusted);
            let mut found: Vec<_> = headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect();
            found.sort();
            assert_eq!(found, left, "{peer:?}");
        }
    }

    #[test]
    fn what_a_guest_with_a_root_of_its_own_sees() {
        let seen = |target: &str, before: Option<&'static str>| {
            let mut request = Request::get(target).body(()).unwrap();
            if let Some(before) = before {
                let before = HeaderValue::from_static(before);
                request.headers_mut().insert(X_FORWARDED_PREFIX, before);
            }
            strip_prefix(&mut request, &"/site/app".parse().unwrap());
            let prefix = request.headers().get(X_FORWARDED_PREFIX);
            (request.uri().to_string(), prefix.map(|it| it.to_str().unwrap().to_owned()))
        };
        let own = Some("/site/app".to_owned());
        for (target, path) in [
            ("/site/app", "/"),
            ("/site/app?a=/site/app", "/?a=/site/app"),
            ("/site/app/", "/"),
            ("/site/app/?", "/?"),
            ("/site/app/a%2Fb/", "/a%2Fb/"),
            ("/site/app//x", "//x"),
            ("/site/app/site/app", "/site/app"),
            ("http://demo.localhost/site/app/x?y", "http://demo.localhost/x?y"),
        ] {
            assert_eq!(seen(target, None), (path.to_owned(), own.clone()), "{target}");
        }
        for before in ["/t/demo", "/t/demo/"] {
            let prefix = Some("/t/demo/site/app".to_owned());
            assert_eq!(seen("/site/app/x", Some(before)), ("/x".to_owned(), prefix));
        }
        assert_eq!(seen("/elsewhere", None), ("/elsewhere".to_owned(), None));
        let kept = Some("/t/demo".to_owned());
        assert_eq!(seen("/", Some("/t/demo")), ("/".to_owned(), kept));
    }

    #[test]
    fn a_request_id_is_kept_or_made() {
        let mut headers = HeaderMap::new();
        assert_eq!(request_id(&headers).as_str().len(), 32);
        headers.insert(REQUEST_ID, HeaderValue::from_static("mine-1"));
        assert_eq!(request_id(&headers).as_str(), "mine-1");
        headers.insert(REQUEST_ID, HeaderValue::from_static("not mine"));
        assert_ne!(request_id(&headers).as_str(), "not mine");
    }
}
