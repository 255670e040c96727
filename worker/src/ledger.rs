//! What is known of one call, and what is recorded of it. The record is told when the last holder
//! lets go of it.
//!
//! How caller and guest meet is [`crate::meeting`]'s; how a call goes, [`crate::call`]'s.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hearth_wire::{CallRecord, LogStream, Origin, Outcome};
use http::{Method, StatusCode};
use wasmtime_wasi_http::Error;

use crate::limits::Counted;
use crate::meeting::{Ended, Head, Meeting, NoHead, Unfit};
use crate::report::CallLog;

/// Why there is no answer of the function's.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    Trapped,
    /// It needed this interface, which is not offered.
    Unavailable(String),
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

/// What is known of one call.
pub struct Ledger {
    pub log: Arc<CallLog>,
    origin: Origin,
    method: Method,
    time_ms: i64,
    read_at: Instant,
    cold: Option<Duration>,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    known: Mutex<Known>,
}

/// What becomes known while it goes on.
struct Known {
    status: StatusCode,
    outcome: Option<Outcome>,
    guest_began: Option<Instant>,
    /// The interface that the guest needed and that is not offered.
    lacking: Option<String>,
    /// From its admission on it is a call that keeps the worker alive.
    counted: Option<Counted>,
    meeting: Meeting,
}

impl Known {
    /// Why a call that has failed did.
    fn failure(&self) -> Failure {
        match (self.outcome, self.meeting.unfit()) {
            (Some(Outcome::Refused), Some(unfit)) => unfit.into(),
            (Some(Outcome::Trapped), _) => match &self.lacking {
                Some(interface) => Failure::Unavailable(interface.clone()),
                None => Failure::Trapped,
            },
            (Some(Outcome::MemoryLimit), _) => Failure::MemoryLimit,
            (Some(Outcome::Timeout), _) => Failure::Timeout,
            (Some(Outcome::NoResponse), _) => Failure::NoResponse(None),
            (Some(Outcome::ResponseInvalid), _) => Failure::ResponseInvalid,
            (Some(Outcome::Stopped), _) => Failure::Stopped,
            (Some(Outcome::Answered | Outcome::Refused | Outcome::Abandoned) | None, _) => {
                Failure::Internal
            }
        }
    }
}

impl From<Unfit> for Failure {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::TooLarge => Self::RequestTooLarge,
            Unfit::Broken => Self::RequestBroken,
        }
    }
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
            known: Mutex::new(Known {
                status: caller_went(),
                outcome: None,
                guest_began: None,
                lacking: None,
                counted: None,
                meeting: Meeting::new(),
            }),
        }
    }

    pub fn count(&self, counted: Counted) {
        self.known().counted = Some(counted);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first to say how the call ended is right.
    pub fn end(&self, outcome: Outcome) {
        self.known().outcome.get_or_insert(outcome);
    }

    pub fn has_failed(&self) -> bool {
        !matches!(self.known().outcome, None | Some(Outcome::Answered))
    }

    /// The guest called an interface that is not offered, which ends it.
    pub fn lacks(&self, interface: &str) {
        self.known().lacking = Some(interface.to_owned());
    }

    /// What was known of the end before is not what came of it.
    pub fn fail(&self, outcome: Outcome) {
        self.known().outcome = Some(outcome);
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
        self.known().failure()
    }

    /// What the caller is told.
    pub fn answered(&self, status: StatusCode) {
        self.known().status = status;
    }

    /// All that have come so far.
    pub fn requested_bytes(&self, bytes: u64) -> u64 {
        self.request_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    pub fn answered_bytes(&self, bytes: u64) {
        self.response_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn guest_began(&self) {
        self.known().guest_began = Some(Instant::now());
    }

    /// The request's body is not taken any further.
    pub fn refuse(&self, unfit: Unfit) {
        let wakes = {
            let mut known = self.known();
            let (wakes, matters) = known.meeting.refuse(unfit);
            if matters {
                known.outcome.get_or_insert(Outcome::Refused);
            }
            wakes
        };
        wakes.wake();
    }

    /// Whether the request's body was refused. Wakes when it is.
    pub fn is_refused(&self, cx: &Context<'_>) -> bool {
        self.known().meeting.is_refused(cx)
    }

    pub fn give(&self, head: Head) {
        let (wakes, _unwanted) = self.known().meeting.give(head, Instant::now());
        wakes.wake();
    }

    pub fn guest_ended(&self) {
        let wakes = self.known().meeting.guest_ended();
        wakes.wake();
    }

    /// The head, or why there is none.
    pub fn poll_head(&self, cx: &Context<'_>) -> Poll<Result<Head, Failure>> {
        let mut known = self.known();
        let polled = known.meeting.poll_head(cx);
        polled.map_err(|no| match no {
            NoHead::Unfit(unfit) => unfit.into(),
            // The head can be given up long before the guest ends.
            NoHead::GuestEnded => known.failure(),
        })
    }

    pub fn head_was_made(&self) -> bool {
        self.known().meeting.head_made().is_some()
    }

    pub fn is_abandoned(&self) -> bool {
        self.known().meeting.is_abandoned()
    }

    pub fn poll_abandoned(&self, cx: &Context<'_>) -> Poll<()> {
        self.known().meeting.poll_abandoned(cx)
    }

    fn caller_ends(&self, ended: Ended) {
        let (wakes, _untaken) = self.known().meeting.end(ended, Instant::now());
        wakes.wake();
    }

    /// Milliseconds outside the guest until now, and what of them was waking up.
    pub fn server_timing(&self) -> String {
        let known = self.known();
        let guest = match (known.guest_began, known.meeting.head_made()) {
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
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        let ended = known.meeting.ended_at().unwrap_or_else(Instant::now);
        self.log.reporter.call(CallRecord {
            time_ms: self.time_ms,
            function: self.log.function.clone(),
            version: self.log.version.clone(),
            origin: self.origin,
            request_id: self.log.request_id.to_string(),
            method: named(&self.method),
            status: known.status.as_u16(),
            outcome: known.outcome.unwrap_or(Outcome::Abandoned),
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
    pub fn armed(ledger: Arc<Ledger>) -> Self {
        Self { is_armed: true, ledger }
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The caller has all that it waited for; the guest may finish what it does.
    pub fn disarm(&mut self) {
        self.is_armed = false;
        self.ledger.caller_ends(Ended::Whole);
    }
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if self.is_armed {
            self.ledger.caller_ends(Ended::Abandoned);
        }
    }
}
