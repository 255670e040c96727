//! One call: a fresh instance in a task of its own, the guest's head handed out as soon as it is
//! made, and the one place that says how a call ended.
//!
//! ```text
//! call() ── spawn ──► run(): store, instance, guest ── head ──► call() ──► ResponseBody
//!    │                  │ ends by itself, its deadline, or because its caller went
//!    └── Ledger ◄───────┘ the call's record, told when nothing of the call is left
//! ```
//!
//! Who may call what is decided before this, and what a failure is answered with after it, in
//! [`crate::serve`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hearth_engine::Handler;
use hearth_wire::{CallRecord, LogStream, Outcome};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use wasmtime::{Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{WasiBody, WasiHttpView, p3};

use crate::host::http::ResponseBody;
use crate::host::log::GuestLog;
use crate::host::{Guest, HOSTCALL_BYTES};
use crate::limits::{Counted, Permit};
use crate::report::CallLog;
use crate::serve::Tenant;

/// Why there is no answer of the function's.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    Trapped,
    MemoryLimit,
    Timeout,
    /// With what the function said instead, if it said something.
    NoResponse(Option<String>),
    RequestTooLarge,
    ResponseInvalid,
    /// Ours.
    Internal,
}

/// The guests' tasks. They outlive their connections where a guest works on after its answer.
#[derive(Default)]
pub struct Calls {
    tasks: Mutex<JoinSet<()>>,
}

impl Calls {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Waits for those that are left; no new one comes any more.
    pub async fn finish(&self) {
        let mut tasks = {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        while tasks.join_next().await.is_some() {}
    }
}

/// What is known of one call. Its record is told when the last holder lets go of it.
pub struct Ledger {
    pub log: CallLog,
    method: String,
    time_ms: i64,
    read_at: Instant,
    cold: Option<Duration>,
    pub request_bytes: Arc<AtomicU64>,
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
}

impl Ledger {
    pub fn new(log: CallLog, method: &Method, read_at: Instant, cold: Option<Duration>) -> Self {
        Self {
            log,
            method: method.to_string(),
            time_ms: crate::report::now_ms(),
            read_at,
            cold,
            request_bytes: Arc::default(),
            response_bytes: AtomicU64::new(0),
            progress: Mutex::new(Progress {
                status: caller_went(),
                outcome: None,
                guest_began: None,
                head_made: None,
                answer_ended: None,
                counted: None,
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

    /// Why a call that has failed did.
    pub fn failure(&self) -> Failure {
        match self.progress().outcome {
            Some(Outcome::Trapped) => Failure::Trapped,
            Some(Outcome::MemoryLimit) => Failure::MemoryLimit,
            Some(Outcome::Timeout) => Failure::Timeout,
            Some(Outcome::NoResponse) => Failure::NoResponse(None),
            Some(Outcome::ResponseInvalid) => Failure::ResponseInvalid,
            Some(Outcome::Answered | Outcome::Refused | Outcome::Abandoned) | None => {
                Failure::Internal
            }
        }
    }

    /// What the caller is told.
    pub fn answered(&self, status: StatusCode) {
        self.progress().status = status;
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

    fn head_made(&self) {
        self.progress().head_made = Some(Instant::now());
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
            version: self.log.version,
            request_id: self.log.request_id.to_string(),
            method: std::mem::take(&mut self.method),
            status: progress.status.as_u16(),
            outcome: progress.outcome.unwrap_or(Outcome::Abandoned),
            duration_us: micros(ended.saturating_duration_since(self.read_at)),
            request_bytes: self.request_bytes.load(Ordering::Relaxed),
            response_bytes: *self.response_bytes.get_mut(),
            cold_us: self.cold.map(micros),
        });
    }
}

/// Held by whoever waits for the call. Dropped while armed, it ends the call.
pub struct Abandon {
    guest: Option<oneshot::Sender<()>>,
    ledger: Arc<Ledger>,
}

impl Abandon {
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The caller has all that it waited for; the guest may finish what it does.
    pub fn disarm(&mut self) {
        self.guest = None;
        self.ledger.answer_ended();
    }
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if let Some(guest) = self.guest.take() {
            self.ledger.answer_ended();
            // Fails where the guest has ended already.
            let _ = guest.send(());
        }
    }
}

/// What the guest made of its head.
enum Head {
    Response(Response<WasiBody>),
    Refused(String),
}

/// Calls a function. `overflow` resolves if the request's body turns out too large.
pub async fn call(
    tenant: &Arc<Tenant>,
    function: usize,
    request: Request<WasiBody>,
    overflow: oneshot::Receiver<()>,
    permit: Permit,
    ledger: Arc<Ledger>,
) -> Result<Response<ResponseBody>, Failure> {
    let method = request.method().clone();
    let (head, made) = oneshot::channel();
    let (abandon, abandoned) = oneshot::channel();
    let (_done, done) = oneshot::channel::<()>();
    let mut abandon = Abandon { guest: Some(abandon), ledger: Arc::clone(&ledger) };
    let guest = run(Arc::clone(tenant), function, request, head, abandoned, ledger, permit);
    tenant.calls.spawn(async move {
        let _done = _done;
        guest.await;
    });

    let made = tokio::select! {
        biased;
        Ok(()) = overflow => {
            abandon.ledger.end(Outcome::Refused);
            return Err(Failure::RequestTooLarge);
        }
        made = made => made,
    };
    let response = match made {
        // Even if the guest has failed since: once a head is made, it is the answer's.
        Ok(Head::Response(response)) => response,
        Ok(Head::Refused(said)) => {
            abandon.ledger.end(Outcome::NoResponse);
            return Err(Failure::NoResponse(Some(said)));
        }
        Err(_) => {
            // The head can be given up long before the guest ends.
            let _ = done.await;
            return Err(abandon.ledger.failure());
        }
    };
    let (head, mut body) = response.into_parts();
    let status = head.status;
    if status.is_informational() {
        // Not sent on: it would say that the answer is still to come.
        abandon.ledger.end(Outcome::NoResponse);
        return Err(Failure::NoResponse(Some(format!("the status {}", status.as_u16()))));
    }
    if method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        // Nobody reads this body, and a guest must not fail for that.
        while let Some(Ok(_)) = body.frame().await {}
        abandon.disarm();
    }
    let length = head.headers.get(http::header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    Ok(Response::from_parts(head, ResponseBody::new(body, length, abandon)))
}

/// How the guest's task came to its end.
enum End {
    Returned,
    Failed(wasmtime::Error),
    Late,
    Abandoned,
}

async fn run(
    tenant: Arc<Tenant>,
    function: usize,
    request: Request<WasiBody>,
    head: oneshot::Sender<Head>,
    abandoned: oneshot::Receiver<()>,
    ledger: Arc<Ledger>,
    permit: Permit,
) {
    let options = &tenant.generation.manifest.functions[function].options;
    let handler = &tenant.generation.handlers[function];
    let deadline = Duration::from_millis(options.timeout_ms.into());
    let memory_bytes = options.memory_mb as usize * (1 << 20);

    let _ticking = tenant.ticker.run();
    let log = |stream| GuestLog::new(ledger.log.clone(), stream);
    let guest = Guest::new(log(LogStream::Stdout), log(LogStream::Stderr), memory_bytes);
    let mut store = Store::new(&tenant.engine, guest);
    store.limiter(|guest| &mut guest.memory);
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    store.set_epoch_deadline(1);
    // Tokio's own yield, since only that lets the runtime look at its sockets and clocks first.
    store.epoch_deadline_callback(|_| {
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });

    let caller_went = async {
        if abandoned.await.is_err() {
            std::future::pending().await
        }
    };
    let end = tokio::select! {
        biased;
        () = caller_went => End::Abandoned,
        () = tokio::time::sleep(deadline) => End::Late,
        ended = drive(&mut store, handler, request, head, &ledger) => match ended {
            Ok(()) => End::Returned,
            Err(error) => End::Failed(error),
        },
    };
    let head_made = ledger.progress().head_made.is_some();
    let (outcome, reason) = judge(end, head_made, store.data().memory.was_reached());
    // Before the store, whose end ends the answer's body as well.
    ledger.end(outcome);
    // And the store before the reason, since the guest's last words may be in it.
    drop(store);
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
        End::Abandoned => (Outcome::Abandoned, None),
        End::Failed(error) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(0)) if head_made => (Outcome::Answered, None),
            Some(I32Exit(status)) => {
                (Outcome::Trapped, Some(format!("the function ended itself with status {status}")))
            }
            None if memory_was_reached => {
                let reason =
                    format!("the function needed more memory than it may have: {}", reason(&error));
                (Outcome::MemoryLimit, Some(reason))
            }
            None => (Outcome::Trapped, Some(format!("the function failed: {}", reason(&error)))),
        },
    }
}

/// The innermost cause. The outer ones name our own calls.
fn reason(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    }
}

async fn drive(
    store: &mut Store<Guest>,
    handler: &Handler<Guest>,
    request: Request<WasiBody>,
    head: oneshot::Sender<Head>,
    ledger: &Arc<Ledger>,
) -> wasmtime::Result<()> {
    match handler {
        Handler::P2(handler) => {
            let proxy = handler.instantiate_async(&mut *store).await?;
            let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
            let noted = Arc::clone(ledger);
            let out = store.data_mut().http().new_response_outparam_from_callback(move |said| {
                let said = match said {
                    Ok(response) => {
                        noted.head_made();
                        Head::Response(response)
                    }
                    Err(code) => Head::Refused(code.to_string()),
                };
                // Fails where the caller went away, which ends the guest by itself.
                let _ = head.send(said);
            })?;
            ledger.guest_began();
            proxy.wasi_http_incoming_handler().call_handle(store, request, out).await
        }
        Handler::P3(handler) => {
            let service = handler.instantiate_async(&mut *store).await?;
            let view = store.data_mut().http();
            let (request, sent) = p3::Request::from_http(view.hooks, request);
            ledger.guest_began();
            let answered = async |accessor: &wasmtime::component::Accessor<Guest>| {
                let said = match service.handle(accessor, request).await? {
                    Ok(response) => {
                        let response = accessor.with(|store| response.into_http(store, sent))?;
                        ledger.head_made();
                        Head::Response(response)
                    }
                    Err(code) => Head::Refused(code.to_string()),
                };
                let _ = head.send(said);
                // The guest goes on writing its body, in tasks of its own.
                std::future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                wasmtime::Result::Ok(())
            };
            store.run_concurrent(answered).await?
        }
    }
}

#[cfg(test)]
mod tests {
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
