//! One connection: hyper in a loop of our own, which can take the connection away from it
//! between two requests.
//!
//! ```text
//!  socket ── stream ──► hyper ── body ──► serve
//!              │ bytes     │ poll          │ phases
//!              └────────►  gate  ◄─────────┘
//! ```
//!
//! [`gate`] decides and is pure; this drives. There is one way for every connection, from the
//! first accept on: a connection that another process began is begun here like a new one, with
//! what was read of it in front. What is answered is [`crate::serve`]'s; when to drain and where
//! a connection goes is [`crate::control`]'s.

#![cfg_attr(feature = "plain-hyper", expect(dead_code, unused_imports, reason = "it has no gate"))]

mod body;
mod gate;
#[cfg(feature = "plain-hyper")]
mod plain;
mod stream;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderValue};
use http::{Request, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;

use crate::serve::{self, Answer, Peer, Tenant};
use body::Answering;
pub use body::Received;
pub use gate::Drain;
use gate::{FINISH_DEADLINE, Gate, Side, Verdict};
use hearth_wire::limits::{HEAD_MAX_BYTES, SILENCE_MAX};
#[cfg(feature = "plain-hyper")]
pub use plain::serve;
use stream::Gated;
pub use stream::Refused;

const HEADERS_MAX: usize = 128;
/// Of a body that nobody wanted, on a connection that is being closed.
const FORGOTTEN_MAX_BYTES: usize = 256 << 20;

/// A connection as it comes to this process.
pub struct Arrival<S> {
    pub stream: S,
    pub peer: Peer,
    /// What another process has read of it.
    pub unread: Bytes,
    /// Since when it waits for its client.
    pub since: Instant,
    /// When its worker was woken, where that was for it.
    pub woken_at: Option<Instant>,
}

impl<S> Arrival<S> {
    pub fn new(stream: S, peer: Peer, woken_at: Option<Instant>) -> Self {
        Self { stream, peer, unread: Bytes::new(), since: Instant::now(), woken_at }
    }
}

/// A connection between two requests, as it leaves this process.
pub struct Departure<S> {
    pub stream: S,
    pub peer: Peer,
    pub unread: Bytes,
    pub since: Instant,
}

/// What stream, bodies and driver of one connection share.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    gate: Mutex<Gate>,
    /// The driver, where it waits for the service to want more of a body or to have all of it.
    wanted: Mutex<Option<Waker>>,
}

impl Shared {
    fn new(gate: Gate) -> Self {
        Self(Arc::new(Inner { gate: Mutex::new(gate), wanted: Mutex::new(None) }))
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.0.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_when_wanted(&self, waker: &Waker) {
        *self.waker() = Some(waker.clone());
    }

    fn body_wanted(&self) {
        self.lock().body_wanted();
        self.wake();
    }

    fn body_came(&self, whole: bool) {
        self.lock().body_came(whole);
        if whole {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(driver) = self.waker().take() {
            driver.wake();
        }
    }
}

/// Serves one connection to its end, or until it is another process's.
#[cfg(not(feature = "plain-hyper"))]
pub async fn serve<S>(
    arrival: Arrival<S>,
    tenant: Arc<Tenant>,
    drain: watch::Receiver<Drain>,
) -> Option<Departure<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Arrival { stream, peer, unread, since, woken_at } = arrival;
    let side = match peer {
        Peer::Tcp(..) => Side::Outside,
        Peer::Link(_) => Side::Primary,
    };
    let shared = Shared::new(Gate::new(side, since, !unread.is_empty()));
    let stream =
        Gated { stream, refused: None, unread, shared: shared.clone(), drain: drain.clone() };
    let draining = drain.clone();
    let woken_at = Mutex::new(woken_at);
    let service = service_fn({
        let (shared, tenant) = (shared.clone(), Arc::clone(&tenant));
        move |request: Request<Incoming>| {
            let version = request.version();
            let has_body = !request.body().is_end_stream();
            let expects = request.headers().contains_key(EXPECT);
            let closes = asks_to_close(version, request.headers());
            shared.lock().requested(has_body, expects, closes);
            let waited = woken_at.lock().unwrap_or_else(PoisonError::into_inner).take();
            let cold = waited.map(|since| since.elapsed());
            let (tenant, shared, draining) =
                (Arc::clone(&tenant), shared.clone(), draining.clone());
            let request = request.map(|body| Received::new(body, shared.clone()));
            Box::pin(async move {
                let mut answer = serve::answer(&tenant, peer, cold, request).await;
                let ends = matches!((*draining.borrow(), side), (Drain::Close(_), Side::Outside));
                let mut gate = shared.lock();
                if ends || gate.continue_is_owed() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                gate.answering(is_last(version, &answer));
                drop(gate);
                Ok::<_, Infallible>(answer.map(|body| Answering { body, shared }))
            })
        }
    });
    let mut connection = http1::Builder::new()
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let mut drain_seen = drain.clone();
    let mut told = pin!(async move {
        // Fails where its sender goes with the worker, and this task with it.
        let _ = drain_seen.wait_for(|drain| *drain != Drain::No).await;
    });
    // Both wake this task, which is always the same one: once polled they need no other look.
    let mut is_listening = false;
    let mut alarm_is_set = false;
    // A client in the middle of a head keeps the worker awake, as one in the middle of a call.
    let mut asking = None;
    let mut alarm = pin!(tokio::time::sleep(SILENCE_MAX));
    // A request may have arrived that the runtime has not noticed yet: before an idle connection
    // is closed the runtime looks once more.
    let mut looked = None;
    let end = poll_fn(|cx| {
        loop {
            match connection.poll_without_shutdown(cx) {
                // It can say so with bytes still to write, where a request's body was left.
                Poll::Ready(Ok(())) if shared.lock().write_is_blocked() => {
                    shared.lock().finishing();
                }
                Poll::Ready(Ok(())) => return Poll::Ready(End::Done),
                Poll::Ready(Err(error)) if error.is_parse() => return Poll::Ready(End::Refused),
                // Why it broke is its client's business: there is no one to tell.
                Poll::Ready(Err(_)) => return Poll::Ready(End::Broken),
                Poll::Pending => {}
            }
            if !std::mem::replace(&mut is_listening, true) {
                let _ = told.as_mut().poll(cx);
            }
            let asked = *drain.borrow();
            let (verdict, in_head) = {
                let gate = shared.lock();
                (gate.verdict(asked, Instant::now), gate.is_asking() && side == Side::Outside)
            };
            if in_head != asking.is_some() {
                asking = in_head.then(|| tenant.activity.begin());
            }
            match verdict {
                Verdict::Wait(deadline) => {
                    looked = None;
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
                Verdict::Close if in_head => return Poll::Ready(End::Late),
                Verdict::Close => return Poll::Ready(End::Broken),
            }
        }
    })
    .await;
    let gate = *shared.lock();
    let taken = match end {
        End::Taken => true,
        End::Done => *drain.borrow() == Drain::HandOver && gate.can_be_handed_over(),
        End::Refused | End::Late => false,
        End::Broken => return None,
    };
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    if taken {
        let unread = join(parts.read_buf, stream.unread);
        return Some(Departure { stream: stream.stream, peer, unread, since: gate.waits_since() });
    }
    let (refused, mut stream) = (stream.refused, stream.stream);
    let refused = if end == End::Late { Some(Refused::Late) } else { refused };
    // Late clients get the time that a head gets; what is still open then is cut.
    let sends = matches!(end, End::Refused | End::Late) || gate.body_is_left();
    let close = async move {
        match refused {
            Some(refused) if stream.write_all(&serve::no_request(refused)).await.is_err() => {}
            _ => close(stream, sends).await,
        }
    };
    let _ = tokio::time::timeout(FINISH_DEADLINE, close).await;
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

fn join(first: Bytes, second: Bytes) -> Bytes {
    if second.is_empty() {
        return first;
    }
    let mut both = BytesMut::from(first);
    both.extend_from_slice(&second);
    both.freeze()
}

/// Whether a request is its connection's last by its own word.
fn asks_to_close(version: Version, headers: &HeaderMap) -> bool {
    let says = |word: &str| {
        let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    says("close") || (version < Version::HTTP_11 && !says("keep-alive"))
}

/// Whether an answer is its connection's last: by its word, or because only the connection's end
/// tells where it ends.
fn is_last(version: Version, answer: &Answer) -> bool {
    let endless = version < Version::HTTP_11
        && answer.body().size_hint().exact().is_none()
        && !answer.headers().contains_key(CONTENT_LENGTH);
    endless || asks_to_close(Version::HTTP_11, answer.headers())
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
