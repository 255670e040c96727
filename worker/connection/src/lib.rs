//! One HTTP/1.1 connection, wherever it came in: hyper in a loop of our own, which can take the
//! connection away from it between two requests. Workers and the front door serve theirs with
//! this, so that what is a request, what is none, and how long one waits for either is the same
//! at every address.
//!
//! ```text
//!  socket ── stream ──► hyper ── body ──► whoever answers
//!              │ bytes     │ poll          │ phases
//!              └────────►  gate  ◄─────────┘
//! ```
//!
//! [`gate`] decides and is pure; this drives. There is one way for every connection, from the
//! first accept on: a connection that another process began is begun here like a new one, with
//! what was read of it in front. What a request is answered is its caller's to decide, and so is
//! when to drain and where a connection goes; only what is no request is answered here.

#![cfg_attr(feature = "plain-hyper", expect(dead_code, unused_imports, reason = "it has no gate"))]

mod body;
mod calendar;
pub mod caller;
mod cookies;
pub mod credentials;
pub mod forwarding;
mod framing;
mod gate;
mod head;
mod hop;
#[cfg(feature = "plain-hyper")]
mod plain;
mod refusal;
mod stream;
mod trailers;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderValue};
use http::{Request, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;

pub use body::{Answer, AnswerBody, BoxError, Pacing, Received};
use body::{Answering, Left};
pub use calendar::begin_calendar;
pub use framing::has_content;
pub use gate::{Drain, Presence, Side, begins_head};
use gate::{Exchange, FINISH_DEADLINE, Gate, STOP_GRACE, Verdict};
use hearth_wire::limits::SILENCE_MAX;
pub use hop::{end_hop, end_request_hop};
#[cfg(feature = "plain-hyper")]
pub use plain::serve;
use refusal::Refused;
pub use refusal::guard;
use stream::Gated;
pub use stream::Socket;

/// Of a body that nobody wanted, on a connection that is being closed.
const FORGOTTEN_MAX_BYTES: usize = 256 << 20;

/// Before a client is taken for late, for what it has sent in time: this process may have stood
/// still itself, and its runtime not have looked yet.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// A connection between two requests, as it comes to this process or leaves it.
pub struct Waiting<S> {
    pub stream: S,
    /// What was read of it and not parsed.
    pub unread: Bytes,
    /// Since when it waits for its client.
    pub since: Instant,
}

impl<S> Waiting<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, unread: Bytes::new(), since: Instant::now() }
    }
}

/// What stream, bodies and driver of one connection share.
#[derive(Clone)]
struct Shared(Arc<Inner>);

struct Inner {
    gate: Mutex<Gate>,
    /// What the driver has to read for nobody. Without the way back here: it would keep itself.
    left: Mutex<Option<Left>>,
    /// The driver's, which is always the same task.
    driver: OnceLock<Waker>,
}

impl Shared {
    fn new(gate: Gate) -> Self {
        let (gate, left) = (Mutex::new(gate), Mutex::new(None));
        Self(Arc::new(Inner { gate, left, driver: OnceLock::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.0.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> MutexGuard<'_, Option<Left>> {
        self.0.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn body_wanted(&self, exchange: Exchange) {
        let looks = self.lock().body_wanted(exchange, Instant::now);
        self.wake_if(looks);
    }

    fn body_came(&self, exchange: Exchange, whole: bool) {
        let looks = self.lock().body_came(exchange, whole);
        self.wake_if(looks);
    }

    /// From now on the driver reads it.
    fn forget(&self, left: Left) {
        *self.left() = Some(left);
        self.wake_if(true);
    }

    /// Reads what has come of it. hyper is woken by that, and so is this task again.
    fn read_left(&self, drain: Drain, cx: &mut Context<'_>) {
        let mut left = self.left();
        if left.as_mut().is_some_and(|left| !left.goes_on(self, drain, cx)) {
            *left = None;
        }
    }

    fn wake_if(&self, looks: bool) {
        if let Some(driver) = self.0.driver.get().filter(|_| looks) {
            driver.wake_by_ref();
        }
    }
}

/// Serves one connection to its end, or until it is another process's. What `present` returns is
/// kept until it is asked again. `break_off` has a connection that is closed next be reset, where
/// its owner may do that, since nothing else would tell that an answer is not whole.
#[cfg(not(feature = "plain-hyper"))]
pub async fn serve<S, F, A, G>(
    arrival: Waiting<S>,
    side: Side,
    drain: watch::Receiver<Drain>,
    present: impl Fn(Presence) -> G,
    break_off: impl Fn(&S),
    answer: F,
) -> Option<Waiting<S>>
where
    S: Socket,
    F: Fn(Request<Received>) -> A,
    A: Future<Output = Answer>,
{
    let Waiting { stream, unread, since } = arrival;
    let shared = Shared::new(Gate::new(side, since, begins_head(&unread)));
    let stream = Gated::new(stream, side, unread, shared.clone(), drain.clone());
    let service = service_fn(|request: Request<Incoming>| {
        let (version, method) = (request.version(), request.method().clone());
        let has_body = !request.body().is_end_stream();
        let expects = request.headers().contains_key(EXPECT);
        let closes = asks_to_close(version, request.headers());
        let exchange = shared.lock().requested(has_body, expects, closes);
        let checked = head::check(&request);
        let request = request.map(|body| Received::new(body, exchange, shared.clone()));
        let answered = match checked {
            Ok(()) => Ok(answer(request)),
            Err(wrong) => Err(refusal::answer(wrong)),
        };
        let (shared, draining) = (shared.clone(), drain.clone());
        Box::pin(async move {
            let mut answer = match answered {
                Ok(answered) => answered.await,
                Err(refused) => refused,
            };
            framing::frame(&method, &mut answer);
            let ends = side == Side::Outside && draining.borrow().closes();
            let mut gate = shared.lock();
            let endless = is_endless(version, &answer);
            let is_last = ends || gate.is_last() || endless || says_close(&answer);
            gate.answering(exchange, is_last, endless);
            drop(gate);
            if is_last {
                say_last(version, &mut answer);
            }
            Ok::<_, Infallible>(answer.map(|body| Answering { body, exchange, shared }))
        })
    });
    let mut connection = http1::Builder::new()
        .max_buf_size(side.head_max_bytes())
        .max_headers(side.head_max_fields())
        .header_read_timeout(None)
        // hyper reads nothing but bodies in an exchange: who leaves in one is the gate's to notice.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut drain_seen = drain.clone();
    let mut told = pin!(async move {
        // Fails where its sender goes with the worker, and this task with it.
        let _ = drain_seen.wait_for(|drain| *drain != Drain::No).await;
    });
    // Both wake this task, which is always the same one: once polled they need no other look.
    let mut is_listening = false;
    let mut alarm_is_set = false;
    let mut presence = (Presence::Silent, present(Presence::Silent));
    let mut alarm = pin!(tokio::time::sleep(SILENCE_MAX));
    // A request may have arrived that the runtime has not noticed yet: before an idle connection
    // is closed the runtime looks once more.
    let mut looked = None;
    let mut last_look = None;
    let end = poll_fn(|cx| {
        shared.0.driver.get_or_init(|| cx.waker().clone());
        loop {
            match connection.poll_without_shutdown(cx) {
                // It can say so with bytes still to write, where a request's body was left.
                Poll::Ready(Ok(())) if shared.lock().write_is_blocked() => {
                    shared.lock().finishing();
                }
                Poll::Ready(Ok(())) => {
                    // It is done with what it has passed on, and that may lie unread.
                    shared.read_left(*drain.borrow(), cx);
                    return Poll::Ready(End::Done);
                }
                Poll::Ready(Err(error)) if error.is_parse() => return Poll::Ready(End::Refused),
                // Why it broke is its client's business: there is no one to tell.
                Poll::Ready(Err(_)) => return Poll::Ready(End::Broken),
                Poll::Pending => {}
            }
            if !std::mem::replace(&mut is_listening, true) {
                let _ = told.as_mut().poll(cx);
            }
            let asked = *drain.borrow();
            shared.read_left(asked, cx);
            let (verdict, look, now_is) = {
                let gate = shared.lock();
                (gate.verdict(asked, Instant::now), gate.looks_at(), gate.presence())
            };
            if now_is != presence.0 {
                presence = (now_is, present(now_is));
            }
            match verdict {
                Verdict::Wait(deadline) => {
                    (looked, last_look) = (None, None);
                    let deadline = [deadline, look].into_iter().flatten().min();
                    let Some(deadline) = deadline else { return Poll::Pending };
                    // One that rings too early is set again then, which is cheaper than setting
                    // it with each request.
                    if deadline < alarm.deadline().into() || alarm.is_elapsed() {
                        alarm.as_mut().reset(deadline.into());
                        alarm_is_set = false;
                    }
                    if alarm_is_set || alarm.as_mut().poll(cx).is_pending() {
                        alarm_is_set = true;
                        return Poll::Pending;
                    }
                }
                Verdict::HandOver => return Poll::Ready(End::Taken),
                Verdict::Finish => {
                    if asked != Drain::HandOver {
                        let look = looked.get_or_insert_with(|| Box::pin(tokio::task::yield_now()));
                        if look.as_mut().poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                    }
                    Pin::new(&mut connection).graceful_shutdown();
                    shared.lock().finishing();
                }
                Verdict::CutOff | Verdict::Close => {
                    let look =
                        last_look.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_LOOK)));
                    if look.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    if verdict == Verdict::CutOff {
                        last_look = None;
                        shared.lock().cut_off(Instant::now());
                        continue;
                    }
                    let is_asking = now_is == Presence::Asking;
                    return Poll::Ready(if is_asking { End::Late } else { End::Broken });
                }
            }
        }
    })
    .await;
    let gate = *shared.lock();
    let taken = match end {
        End::Taken => true,
        End::Done => *drain.borrow() == Drain::HandOver && gate.can_be_handed_over(),
        End::Refused | End::Late => false,
        End::Broken => {
            if gate.looks_whole() {
                break_off(&connection.into_parts().io.into_inner().stream);
            }
            return None;
        }
    };
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if taken {
        let unread = stream.left_behind(parts.read_buf);
        // Empty lines would be taken for somebody who asks.
        let unread = if begins_head(&unread) { unread } else { Bytes::new() };
        return Some(Waiting { stream: stream.stream, unread, since: gate.waits_since() });
    }
    let (refused, mut stream) = (stream.refused, stream.stream);
    let refused = match end {
        End::Late if drain.borrow().closes() => Some(Refused::Stopping),
        End::Late => Some(Refused::Late),
        // hyper has nothing to say to some.
        End::Refused if gate.is_refusing() => refused.or(Some(Refused::Malformed)),
        _ => refused,
    };
    // Late clients get the time that a head gets; what is still open then is cut.
    let sends = matches!(end, End::Refused | End::Late) || gate.body_is_left();
    let close = async move {
        match refused {
            Some(refused) if stream.write_all(&refused.answer()).await.is_err() => {}
            _ => close(stream, sends).await,
        }
    };
    let mut drain = drain;
    let stopped = async move {
        let stops = drain.wait_for(|drain| drain.closes()).await.is_ok();
        if !stops {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        _ = tokio::time::timeout(FINISH_DEADLINE, close) => {}
        () = stopped => {}
    }
    None
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Between two requests, with nothing owed.
    Taken,
    /// Every answer is written.
    Done,
    /// What came is no request. That is still to be said, unless hyper did behind an answer's
    /// last bytes.
    Refused,
    /// A head was not complete in time.
    Late,
    Broken,
}

/// Whether a request is its connection's last by its own word, or an answer.
pub fn asks_to_close(version: Version, headers: &HeaderMap) -> bool {
    let says = |word: &str| {
        let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    says("close") || (version < Version::HTTP_11 && !says("keep-alive"))
}

/// Whether an answer is its connection's last by its own word.
fn says_close(answer: &Answer) -> bool {
    asks_to_close(Version::HTTP_11, answer.headers())
}

/// Whether only the connection's end tells where an answer ends.
fn is_endless(version: Version, answer: &Answer) -> bool {
    version < Version::HTTP_11
        && answer.body().size_hint().exact().is_none()
        && !answer.headers().contains_key(CONTENT_LENGTH)
}

/// Has an answer say that the connection ends with it. To a client of HTTP/1.0 hyper would say
/// beside it that it is kept, unless the answer is of that version.
fn say_last(version: Version, answer: &mut Answer) {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if version < Version::HTTP_11 {
        *answer.version_mut() = version;
    }
}

/// Says that nothing more comes. Where the client is still sending what nobody wanted, it is
/// read and forgotten first: closing on unread bytes resets the connection, and takes away the
/// answer that says why.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, sends: bool) {
    let shut = poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await;
    if shut.is_err() || !sends {
        return;
    }
    let mut forgotten = 0;
    let mut bytes = [0; 8 << 10];
    while forgotten < FORGOTTEN_MAX_BYTES {
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut buffer)).await;
        match (read, buffer.filled().len()) {
            (Ok(()), more) if more > 0 => forgotten += more,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unread;
