//! One call: a guest in a task of its own, its head handed out as soon as it is made, and the
//! one place that says how a call ended.
//!
//! ```text
//! call() ── spawn ──► run(): instance, guest ── head ──► call() ──► ResponseBody
//!    │                  │ ends by itself, its deadline, or because its caller went
//!    └── Ledger ◄───────┘ the call's record, told when nothing of the call is left
//! ```
//!
//! Who may call what is decided before this, and what a failure is answered with after it, in
//! [`crate::serve`]. Instances are made and kept in [`crate::instance`].

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hearth_connection::{end_hop, has_content};
use hearth_engine::reason;
use hearth_host::Guest;
use hearth_wire::{CallRecord, LogStream, Origin, Outcome};
use http::header::HOST;
use http::uri::{self, Authority};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::Notify;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::handler::Proxy;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView, p3};

use crate::finish::Time;
use crate::host::http::ResponseBody;
use crate::instance::Instance;
use crate::limits::{Counted, Permit};
use crate::report::CallLog;
use crate::serve::Tenant;

/// Of an answer's head. With what the platform adds it is what the gateway takes.
const FIELDS_MAX: usize = 90;
/// How long a head waits for what comes behind it. A function that fails right after it is told as
/// what it is then, as long as nothing was sent; and nobody notices that a stream begins so much
/// later.
const HEAD_HELD: Duration = Duration::from_millis(20);
/// What is said of a call in its log.
const STOPPED: &str = "the function was stopped: its worker was replaced or told to stop, and had \
                       no more time for it";

/// Why there is no answer of the function's.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    Trapped,
    MemoryLimit,
    Timeout,
    /// With what the function said instead, if it said something.
    NoResponse(Option<String>),
    RequestTooLarge,
    RequestBroken,
    ResponseInvalid,
    /// Its worker had no more time for it.
    Stopped,
    /// Ours.
    Internal,
}

/// The guests' tasks. They outlive their connections where a guest works on after its answer.
#[derive(Default)]
pub struct Calls {
    running: AtomicUsize,
    ended: Notify,
}

impl Calls {
    /// Waits for those that are left; no new one comes any more.
    pub async fn finish(&self) {
        loop {
            let ended = self.ended.notified();
            if self.running.load(Ordering::Relaxed) == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// What is known of one call, and where its caller and its guest meet: the guest leaves its head
/// here, the caller that it went. The call's record is told when the last holder lets go of it.
pub struct Ledger {
    pub log: Arc<CallLog>,
    origin: Origin,
    method: Method,
    time_ms: i64,
    read_at: Instant,
    cold: Option<Duration>,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    progress: Mutex<Progress>,
}

struct Progress {
    status: StatusCode,
    outcome: Option<Outcome>,
    guest_began: Option<Instant>,
    head_made: Option<Instant>,
    answer_ended: Option<Instant>,
    /// From its admission on it is a call that keeps the worker alive.
    counted: Option<Counted>,
    head: Option<Head>,
    overflown: bool,
    broken_off: bool,
    abandoned: bool,
    guest_ended: bool,
    /// Who waits for the head.
    caller: Option<Waker>,
    /// Who must hear that the caller went.
    guest: Option<Waker>,
}

impl Ledger {
    pub fn new(
        log: CallLog,
        origin: Origin,
        method: &Method,
        read_at: Instant,
        cold: Option<Duration>,
    ) -> Self {
        Self {
            log: Arc::new(log),
            origin,
            method: method.clone(),
            time_ms: crate::report::now_ms(),
            read_at,
            cold,
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            progress: Mutex::new(Progress {
                status: caller_went(),
                outcome: None,
                guest_began: None,
                head_made: None,
                answer_ended: None,
                counted: None,
                head: None,
                overflown: false,
                broken_off: false,
                abandoned: false,
                guest_ended: false,
                caller: None,
                guest: None,
            }),
        }
    }

    pub fn count(&self, counted: Counted) {
        self.progress().counted = Some(counted);
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first to say how the call ended is right.
    pub fn end(&self, outcome: Outcome) {
        self.progress().outcome.get_or_insert(outcome);
    }

    pub fn has_failed(&self) -> bool {
        !matches!(self.progress().outcome, None | Some(Outcome::Answered))
    }

    /// What was known of the end before is not what came of it.
    pub fn fail(&self, outcome: Outcome) {
        self.progress().outcome = Some(outcome);
    }

    /// The guest's body ended before the length that its head told.
    pub fn falls_short(&self, missing: u64) {
        self.fail(Outcome::Trapped);
        let reason = format!("the answer ended {missing} bytes before its content-length");
        self.log.line(LogStream::Host, reason);
    }

    /// The guest took its answer back when it had begun.
    pub fn gives_up(&self, error: &Error) {
        self.fail(Outcome::Trapped);
        let reason = format!("the answer ended before it was whole: {error}");
        self.log.line(LogStream::Host, reason);
    }

    /// Why a call that has failed did.
    pub fn failure(&self) -> Failure {
        let progress = self.progress();
        match progress.outcome {
            Some(Outcome::Refused) if progress.overflown => Failure::RequestTooLarge,
            Some(Outcome::Refused) if progress.broken_off => Failure::RequestBroken,
            Some(Outcome::Trapped) => Failure::Trapped,
            Some(Outcome::MemoryLimit) => Failure::MemoryLimit,
            Some(Outcome::Timeout) => Failure::Timeout,
            Some(Outcome::NoResponse) => Failure::NoResponse(None),
            Some(Outcome::ResponseInvalid) => Failure::ResponseInvalid,
            Some(Outcome::Stopped) => Failure::Stopped,
            Some(Outcome::Answered | Outcome::Refused | Outcome::Abandoned) | None => {
                Failure::Internal
            }
        }
    }

    /// What the caller is told.
    pub fn answered(&self, status: StatusCode) {
        self.progress().status = status;
    }

    /// All that have come so far.
    pub fn requested_bytes(&self, bytes: u64) -> u64 {
        self.request_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    pub fn answered_bytes(&self, bytes: u64) {
        self.response_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn answer_ended(&self) {
        self.progress().answer_ended.get_or_insert_with(Instant::now);
    }

    fn guest_began(&self) {
        self.progress().guest_began = Some(Instant::now());
    }

    /// The request's body is larger than it may be.
    pub fn overflow(&self) {
        self.refuse(|progress| progress.overflown = true);
    }

    /// The request's body is not what its head says, or ended before it was whole.
    pub fn break_off(&self) {
        self.refuse(|progress| progress.broken_off = true);
    }

    /// What was answered to such a request is no answer to a whole one, unless all of it was sent.
    fn refuse(&self, why: impl FnOnce(&mut Progress)) {
        self.tell_caller(|progress| {
            if progress.answer_ended.is_none() {
                why(progress);
                progress.outcome.get_or_insert(Outcome::Refused);
            }
        });
    }

    /// Whether the request's body was refused. Wakes when it is.
    pub fn is_refused(&self, cx: &Context<'_>) -> bool {
        let mut progress = self.progress();
        keep(&mut progress.caller, cx);
        progress.overflown || progress.broken_off
    }

    fn is_abandoned(&self) -> bool {
        self.progress().abandoned
    }

    fn give(&self, head: Head) {
        let is_response = matches!(head, Head::Response(_));
        self.tell_caller(|progress| {
            if is_response {
                progress.head_made = Some(Instant::now());
            }
            // Nobody waits for it where the caller went, which ends the guest by itself.
            progress.head = (!progress.abandoned).then_some(head);
        });
    }

    fn guest_ended(&self) {
        self.tell_caller(|progress| progress.guest_ended = true);
    }

    fn tell_caller(&self, tell: impl FnOnce(&mut Progress)) {
        let caller = {
            let mut progress = self.progress();
            tell(&mut progress);
            progress.caller.take()
        };
        if let Some(caller) = caller {
            caller.wake();
        }
    }

    /// The head, or why there is none.
    fn poll_made(&self, cx: &Context<'_>) -> Poll<Result<Head, Failure>> {
        let mut progress = self.progress();
        if progress.overflown {
            return Poll::Ready(Err(Failure::RequestTooLarge));
        }
        if progress.broken_off {
            return Poll::Ready(Err(Failure::RequestBroken));
        }
        // Even if the guest has failed since: once a head is made, it is the answer's.
        if let Some(head) = progress.head.take() {
            return Poll::Ready(Ok(head));
        }
        // The head can be given up long before the guest ends.
        if progress.guest_ended {
            drop(progress);
            return Poll::Ready(Err(self.failure()));
        }
        keep(&mut progress.caller, cx);
        Poll::Pending
    }

    fn abandon(&self) {
        let (guest, _head) = {
            let mut progress = self.progress();
            progress.abandoned = true;
            (progress.guest.take(), progress.head.take())
        };
        if let Some(guest) = guest {
            guest.wake();
        }
    }

    fn poll_abandoned(&self, cx: &Context<'_>) -> Poll<()> {
        let mut progress = self.progress();
        if progress.abandoned {
            return Poll::Ready(());
        }
        keep(&mut progress.guest, cx);
        Poll::Pending
    }

    /// Milliseconds outside the guest until now, and what of them was waking up.
    pub fn server_timing(&self) -> String {
        let progress = self.progress();
        let guest = match (progress.guest_began, progress.head_made) {
            (Some(began), Some(made)) => made.saturating_duration_since(began),
            (Some(began), None) => began.elapsed(),
            (None, _) => Duration::ZERO,
        };
        let host = self.read_at.elapsed().saturating_sub(guest);
        let cold = self.cold.map(|cold| format!(", cold;dur={}", milliseconds(cold)));
        format!("host;dur={}{}", milliseconds(host), cold.unwrap_or_default())
    }
}

fn keep(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}

/// Of a call whose caller did not wait for an answer; the number that other servers log.
fn caller_went() -> StatusCode {
    StatusCode::from_u16(499).expect("a number of three digits")
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1_000.0)
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let progress = self.progress.get_mut().unwrap_or_else(PoisonError::into_inner);
        let ended = progress.answer_ended.unwrap_or_else(Instant::now);
        self.log.reporter.call(CallRecord {
            time_ms: self.time_ms,
            function: self.log.function.clone(),
            version: self.log.version.clone(),
            origin: self.origin,
            request_id: self.log.request_id.to_string(),
            method: named(&self.method),
            status: progress.status.as_u16(),
            outcome: progress.outcome.unwrap_or(Outcome::Abandoned),
            duration_us: micros(ended.saturating_duration_since(self.read_at)),
            request_bytes: *self.request_bytes.get_mut(),
            response_bytes: *self.response_bytes.get_mut(),
            cold_us: self.cold.map(micros),
        });
    }
}

/// A method as it is recorded, which is a token of any length as it is sent.
fn named(method: &Method) -> String {
    let method = method.as_str();
    method[..method.floor_char_boundary(CallRecord::METHOD_MAX_BYTES)].to_owned()
}

/// Held by whoever waits for the call. Dropped while armed, it ends the call.
pub struct Abandon {
    is_armed: bool,
    ledger: Arc<Ledger>,
}

impl Abandon {
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The caller has all that it waited for; the guest may finish what it does.
    pub fn disarm(&mut self) {
        self.is_armed = false;
        self.ledger.answer_ended();
    }
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if self.is_armed {
            self.ledger.answer_ended();
            self.ledger.abandon();
        }
    }
}

/// What the guest made of its head.
enum Head {
    Response(Response<WasiBody>),
    Refused(String),
}

/// Calls a function.
pub async fn call(
    tenant: &Arc<Tenant>,
    function: usize,
    request: Request<WasiBody>,
    permit: Permit,
    ledger: Arc<Ledger>,
) -> Result<Response<ResponseBody>, Failure> {
    let method = request.method().clone();
    let mut abandon = Abandon { is_armed: true, ledger: Arc::clone(&ledger) };
    tenant.calls.running.fetch_add(1, Ordering::Relaxed);
    let ending = Ending { tenant: Arc::clone(tenant), ledger };
    // In a box, since a task is moved several times before it is where it stays.
    tokio::spawn(Box::pin(run(ending, function, request, permit)));

    let response = match poll_fn(|cx| abandon.ledger.poll_made(cx)).await? {
        Head::Response(response) => response,
        Head::Refused(said) => {
            abandon.ledger.end(Outcome::NoResponse);
            return Err(Failure::NoResponse(Some(said)));
        }
    };
    let (mut head, mut body) = response.into_parts();
    end_hop(&mut head.headers);
    let status = head.status;
    if status.is_informational() {
        // Not sent on: it would say that the answer is still to come.
        abandon.ledger.end(Outcome::NoResponse);
        return Err(Failure::NoResponse(Some(format!("the status {}", status.as_u16()))));
    }
    if head.headers.len() > FIELDS_MAX {
        abandon.ledger.end(Outcome::NoResponse);
        let said = format!("an answer with more than {FIELDS_MAX} header fields");
        return Err(Failure::NoResponse(Some(said)));
    }
    if !has_content(&method, status) {
        // Nobody reads this body, and a guest must not fail for that.
        while let Some(Ok(_)) = body.frame().await {}
        if abandon.ledger.has_failed() {
            return Err(abandon.ledger.failure());
        }
        abandon.disarm();
        return Ok(Response::from_parts(head, ResponseBody::none(abandon)));
    }
    let length = head.headers.get(http::header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let body = ResponseBody::begun(body, length, abandon, tokio::time::sleep(HEAD_HELD)).await?;
    Ok(Response::from_parts(head, body))
}

/// Held by the guest's task to its very end.
struct Ending {
    tenant: Arc<Tenant>,
    ledger: Arc<Ledger>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.ledger.guest_ended();
        if self.tenant.calls.running.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.tenant.calls.ended.notify_waiters();
        }
    }
}

/// How the guest's task came to its end.
enum End {
    Returned,
    Failed(wasmtime::Error),
    Late,
    /// The worker's time is up.
    Stopped,
    Abandoned,
}

async fn run(ending: Ending, function: usize, request: Request<WasiBody>, permit: Permit) {
    let Ending { tenant, ledger } = &ending;
    let options = &tenant.generation.manifest.functions[function].options;
    let deadline = Duration::from_millis(options.timeout_ms.into());

    let _ticking = tenant.ticker.run();
    let mut instance = Instance::take(tenant, function, &ledger.log);
    let end = tokio::select! {
        biased;
        ended = drive(&mut instance, tenant, request, ledger) => match ended {
            Ok(()) => End::Returned,
            Err(error) => End::Failed(error),
        },
        // Before the next one, since whoever waits for the answer goes then as well.
        () = tenant.finish.comes(Time::Up) => End::Stopped,
        () = poll_fn(|cx| ledger.poll_abandoned(cx)) => End::Abandoned,
        () = tokio::time::sleep(deadline) => End::Late,
    };
    // However it ended then, that was for want of a caller.
    let end = if ledger.is_abandoned() { End::Abandoned } else { end };
    let has_returned = matches!(end, End::Returned);
    let head_made = ledger.progress().head_made.is_some();
    let (outcome, reason) = judge(end, head_made, instance.memory_was_reached());
    // Before the instance, whose end ends the answer's body as well.
    ledger.end(outcome);
    // And the instance before the reason, since the guest's last words may be in it.
    match outcome {
        Outcome::Answered if has_returned => instance.give_back(tenant),
        _ => instance.end(tenant),
    }
    if let Some(reason) = reason {
        ledger.log.line(LogStream::Host, reason);
    }
    drop(permit);
}

/// How the call ended, and what is said of it in its log.
fn judge(end: End, head_made: bool, memory_was_reached: bool) -> (Outcome, Option<String>) {
    match end {
        End::Returned if head_made => (Outcome::Answered, None),
        End::Returned => {
            (Outcome::NoResponse, Some("the function returned without a response".to_owned()))
        }
        End::Late => {
            (Outcome::Timeout, Some("the function was stopped: its time was up".to_owned()))
        }
        End::Stopped => (Outcome::Stopped, Some(STOPPED.to_owned())),
        End::Abandoned => (Outcome::Abandoned, None),
        End::Failed(error) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(0)) if head_made => (Outcome::Answered, None),
            Some(I32Exit(status)) => {
                (Outcome::Trapped, Some(format!("the function ended itself with status {status}")))
            }
            None if memory_was_reached => {
                let said =
                    format!("the function needed more memory than it may have: {}", reason(&error));
                (Outcome::MemoryLimit, Some(said))
            }
            None => (Outcome::Trapped, Some(format!("the function failed: {}", reason(&error)))),
        },
    }
}

async fn drive(
    instance: &mut Instance,
    tenant: &Tenant,
    request: Request<WasiBody>,
    ledger: &Arc<Ledger>,
) -> wasmtime::Result<()> {
    let (store, proxy) = instance.ready(tenant, &ledger.log).await?;
    match proxy {
        Proxy::P2(proxy) => {
            let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
            let noted = Arc::clone(ledger);
            let out = store.data_mut().http().new_response_outparam_from_callback(move |said| {
                noted.give(match said {
                    Ok(response) => Head::Response(response),
                    Err(code) => Head::Refused(code.to_string()),
                });
            })?;
            ledger.guest_began();
            proxy.wasi_http_incoming_handler().call_handle(store, request, out).await
        }
        Proxy::P3(service) => {
            let view = store.data_mut().http();
            let host = request.headers().get(HOST);
            let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
            let (mut request, sent) = p3::Request::from_http(view.hooks, request);
            // As 0.2 has them, where a request's line has a path alone. Guests make an address of
            // the two, which has both or none.
            if let Some(authority) = authority {
                request.scheme = Some(uri::Scheme::HTTP);
                request.authority = Some(authority);
            }
            ledger.guest_began();
            let answered = async |accessor: &wasmtime::component::Accessor<Guest>| {
                let said = match service.handle(accessor, request).await? {
                    Ok(response) => {
                        Head::Response(accessor.with(|store| response.into_http(store, sent))?)
                    }
                    Err(code) => Head::Refused(code.to_string()),
                };
                ledger.give(said);
                // The guest goes on writing its body, in tasks of its own.
                poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                wasmtime::Result::Ok(())
            };
            store.run_concurrent(answered).await?
        }
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::Trap;

    use super::*;

    #[test]
    fn how_a_call_ended() {
        let trap = || End::Failed(Trap::UnreachableCodeReached.into());
        let exit = |status| End::Failed(I32Exit(status).into());
        for (end, head_made, memory, outcome, said) in [
            (End::Returned, true, false, Outcome::Answered, None),
            (End::Returned, true, true, Outcome::Answered, None),
            (End::Returned, false, false, Outcome::NoResponse, Some("without a response")),
            (End::Late, true, false, Outcome::Timeout, Some("time was up")),
            (End::Late, false, true, Outcome::Timeout, Some("time was up")),
            (End::Stopped, true, false, Outcome::Stopped, Some("no more time")),
            (End::Stopped, false, true, Outcome::Stopped, Some("no more time")),
            (End::Abandoned, true, false, Outcome::Abandoned, None),
            (trap(), false, false, Outcome::Trapped, Some("unreachable")),
            (trap(), true, false, Outcome::Trapped, Some("unreachable")),
            (trap(), false, true, Outcome::MemoryLimit, Some("more memory")),
            (exit(0), true, false, Outcome::Answered, None),
            (exit(0), false, false, Outcome::Trapped, Some("status 0")),
            (exit(7), true, false, Outcome::Trapped, Some("status 7")),
        ] {
            let (was, reason) = judge(end, head_made, memory);
            assert_eq!(was, outcome);
            match (said, &reason) {
                (None, None) => {}
                (Some(said), Some(reason)) => assert!(reason.contains(said), "{reason}"),
                _ => panic!("{reason:?}"),
            }
        }
    }
}
