//! A request from its head to its answer, in order: what the peer may say, request id, route, who
//! calls and what that reaches, what the guest sees of its path, schema of the head, a body that
//! is small, a turn, schema of the body, the call, schema of the answer.
//!
//! Bytes and connections are [`crate::connection`]'s, the guest is [`crate::call`]'s; what a peer
//! may say is for [`crate::peer`], whom a function is for for [`crate::admit`].

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hearth_connection::{Answer, BoxError, Received, has_content};
use hearth_schema::Checks;
use hearth_wire::limits::CHECKED_BODY_MAX_BYTES;
use hearth_wire::{
    Answers, Builtin, Code, FunctionPath, LogStream, NotAllowed, Origin, Outcome, Problem,
    RequestId, Route, StateAddress, below, complain, header as hearth,
};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use wasmtime_wasi_http::Error as BodyError;

use crate::admit::{Caller, admit};
use crate::builtin;
use crate::call;
use crate::check;
use crate::cors::{self, Leave};
use crate::finish::Time;
use crate::held::{self, Held, HoldError};
use crate::host::http::{RequestBody, ResponseBody};
use crate::ledger::{Failure, Ledger};
use crate::limits::NoTurn;
use crate::peer::{self, Peer, X_FORWARDED_PREFIX};
use crate::refusal::{Refusal, full, header_value, too_large};
use crate::report::CallLog;
use crate::serving::Serving;

/// When to come again, where all turns are taken.
const RETRY_AFTER_BUSY: HeaderValue = HeaderValue::from_static("1");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const REQUEST_ID: HeaderName = HeaderName::from_static(hearth::REQUEST_ID);
const VERSION: HeaderName = HeaderName::from_static(hearth::VERSION);

/// Answers one request. `cold` is how long its worker took to be there for it, where it waited
/// for that.
pub async fn answer(
    serving: &Arc<Serving>,
    peer: Peer,
    cold: Option<Duration>,
    mut request: Request<Received>,
) -> Answer {
    let read_at = Instant::now();
    peer.believe(request.headers_mut(), &serving.trusted);
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, header_value(id.as_str()));
    peer::complete(request.headers_mut(), &serving.name);
    let mut answer = match peer.leads_to(&request, &serving.name, serving.domain.as_deref()) {
        Ok(()) => dispatch(serving, peer.origin(), read_at, cold, &id, request).await,
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

async fn dispatch(
    serving: &Arc<Serving>,
    origin: Origin,
    read_at: Instant,
    cold: Option<Duration>,
    id: &RequestId,
    request: Request<Received>,
) -> Answer {
    if origin.may_ask_state()
        && let Some(address) = StateAddress::of(request.uri().path())
    {
        let answered = builtin::state::answer(serving, address, request).await;
        return answered.unwrap_or_else(|refusal| refusal.into_answer(id));
    }
    match serving.generation.routes.find(request.uri().path()) {
        Route::Function(function) => {
            function_answer(serving, origin, read_at, cold, id, function, request).await
        }
        Route::Builtin(Builtin::Usage) if !origin.may_ask_usage() => no_function(&request, id),
        Route::Builtin(builtin) => builtin::answer(serving, origin, builtin, request)
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
    serving: &Arc<Serving>,
    origin: Origin,
    read_at: Instant,
    cold: Option<Duration>,
    id: &RequestId,
    number: usize,
    mut request: Request<Received>,
) -> Answer {
    let function = &serving.generation.manifest.functions[number];
    let log = CallLog {
        reporter: serving.reporter.clone(),
        function: function.path.clone(),
        version: function.version.clone(),
        request_id: id.clone(),
    };
    let ledger = Arc::new(Ledger::new(log, origin, request.method(), read_at, cold));
    let now_seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let caller = {
        let grants = serving.grants.borrow();
        Caller::identify(request.headers_mut(), origin, &grants, now_seconds.cast_signed())
    };
    // Of one that no page can call, no page is told anything.
    let leave = match caller.may_call(function) {
        Err(NotAllowed::Internal) => None,
        _ => Leave::of(&function.options, request.headers()),
    };
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
    let answered = match admit(&request, caller, function) {
        Ok(()) => {
            if function.options.strip_prefix {
                strip_prefix(&mut request, &function.path);
            }
            called(serving, number, request, &ledger).await
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

/// A request's body before its call has a turn.
enum Taken {
    /// It was small.
    Whole(Held),
    Coming(RequestBody),
}

/// What the schemas say, a small body, a turn, and then the guest.
async fn called(
    serving: &Arc<Serving>,
    number: usize,
    request: Request<Received>,
    ledger: &Arc<Ledger>,
) -> Result<Answer, Refusal> {
    let options = &serving.generation.manifest.functions[number].options;
    let checks = serving.generation.checks(number).map_err(|error| {
        complain(format_args!(
            "hearth-worker: a schema that was tried before does not compile: {error}"
        ));
        Refusal::new(Code::Internal, "the function's schemas cannot be used; upload it again")
    })?;
    if let Some(checks) = checks {
        check::head(checks, request.uri().query(), request.headers())?;
    }
    ledger.count(serving.doing.activity.begin());
    let admitted = async {
        serving.room.permits.come(Instant::now()).map_err(no_turn)?;
        let (head, body) = request.into_parts();
        let checks = checks.filter(|_| options.schema.body.is_some());
        // A body is judged as it stands, and the guest would unpack it.
        if checks.is_some()
            && let Some(packed) = Problem::of_coding(&head.headers)
        {
            return Err(packed.into());
        }
        let is_early = held::is_early(&head.headers, &body);
        let body = RequestBody::new(body, options.max_body, Arc::clone(ledger));
        let hold = async |body| {
            let places = serving.room.checks.requests();
            let held = held::hold(body, &head.headers, options.max_body, places);
            held.await.map_err(|error| unheld(error, options.max_body))
        };
        let body = match is_early {
            true => Taken::Whole(hold(body).await?),
            false => Taken::Coming(body),
        };
        let permit = serving.room.permits.turn().await.map_err(no_turn)?;
        let body = match (body, checks) {
            (Taken::Coming(body), None) => body.boxed_unsync(),
            (Taken::Whole(held), None) => held.into_body().boxed_unsync(),
            (body, Some(checks)) => {
                let held = match body {
                    Taken::Whole(held) => held,
                    Taken::Coming(body) => hold(body).await?,
                };
                check::request(&serving.room.checks, checks, &head.method, &held.bytes).await?;
                held.into_body().boxed_unsync()
            }
        };
        Ok::<_, Refusal>((permit, Request::from_parts(head, body)))
    };
    let (permit, request) = tokio::select! {
        biased;
        admitted = admitted => admitted?,
        () = serving.doing.finish.comes(Time::Up) => {
            ledger.end(Outcome::Stopped);
            return Err(failed(Failure::Stopped, options));
        }
    };
    let method = request.method().clone();
    let answered = call::call(serving, number, request, permit, Arc::clone(ledger)).await;
    let response = answered.map_err(|failure| failed(failure, options))?;
    let status = response.status().as_u16();
    let has_content = has_content(&method, response.status());
    match (checks, options.schema.response(status)) {
        (Some(checks), Some((answers, _))) if has_content => {
            let checked = checked(serving, checks, answers, response, ledger).await;
            checked.map_err(|failure| failed(failure, options))
        }
        _ => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
    }
}

/// An answer that its schema allows. Its head goes out when all of it is known.
async fn checked(
    serving: &Serving,
    checks: &Arc<Checks>,
    answers: Answers,
    response: Response<ResponseBody>,
    ledger: &Ledger,
) -> Result<Answer, Failure> {
    let (mut head, body) = response.into_parts();
    let most = CHECKED_BODY_MAX_BYTES;
    let broken = match held::hold(body, &head.headers, most, serving.room.checks.answers()).await {
        Ok(held) => match check::answer(&serving.room.checks, checks, answers, &held.bytes).await {
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

fn unheld(error: HoldError<BodyError>, most: u64) -> Refusal {
    match error {
        HoldError::TooLarge | HoldError::Body(BodyError::HttpRequestBodySize(_)) => too_large(most),
        HoldError::Body(_) => Refusal::new(Code::BadRequest, Problem::BROKEN_BODY),
    }
}

fn failed(failure: Failure, options: &hearth_wire::Options) -> Refusal {
    match failure {
        Failure::Trapped => Refusal::new(
            Code::FunctionTrapped,
            "the function failed before it answered; its log says why",
        ),
        Failure::Unavailable(interface) => Refusal::new(
            Code::FunctionTrapped,
            format!("the function needs `{interface}`, an interface that Hearth does not offer"),
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
            Refusal::new(Code::WorkerUnavailable, detail).with(RETRY_AFTER, RETRY_AFTER_BUSY)
        }
        Failure::RequestTooLarge => too_large(options.max_body),
        Failure::RequestBroken => Refusal::new(Code::BadRequest, Problem::BROKEN_BODY),
        Failure::Internal => {
            Refusal::new(Code::Internal, "the call could not be made; the host's log says why")
        }
    }
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
    Refusal::new(Code::TooManyRequests, detail).with(RETRY_AFTER, retry_after)
}

#[cfg(test)]
mod tests {
    use super::*;
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
