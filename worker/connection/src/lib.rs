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

#![cfg_attr(plain_hyper, expect(dead_code, unused_imports, reason = "it has no gate"))]

mod asked;
mod body;
mod calendar;
pub mod caller;
mod cookies;
pub mod credentials;
mod ending;
pub mod forwarding;
mod framing;
mod gate;
mod head;
mod hop;
#[cfg(plain_hyper)]
mod plain;
mod refusal;
mod round;
mod stream;
mod trailers;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;

use asked::Asked;
pub use asked::asks_to_close;
use body::Left;
pub use body::{Answer, AnswerBody, BoxError, Pacing, Received};
pub use calendar::begin_calendar;
use ending::End;
pub use framing::has_content;
pub use gate::{Drain, Presence, Side, begins_head};
use gate::{Exchange, Gate, Verdict};
use hearth_wire::limits::SILENCE_MAX;
pub use hop::{end_hop, end_request_hop};
#[cfg(plain_hyper)]
pub use plain::serve;
pub use refusal::guard;
use round::Due;
pub use round::Order;
use stream::Gated;
pub use stream::Socket;

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
    due: Due,
}

impl Shared {
    fn new(gate: Gate) -> Self {
        let (gate, left) = (Mutex::new(gate), Mutex::new(None));
        Self(Arc::new(Inner { gate, left, driver: OnceLock::new(), due: Due::default() }))
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
#[cfg(not(plain_hyper))]
pub async fn serve<S, F, A, G>(
    arrival: Waiting<S>,
    side: Side,
    order: Order,
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
        let asked = Asked::by(&request, &shared);
        let checked = head::check(&request);
        let request = request.map(|body| Received::new(body, asked.exchange(), shared.clone()));
        let answered = match checked {
            Ok(()) => Ok(answer(request)),
            Err(wrong) => Err(refusal::answer(wrong)),
        };
        let (shared, draining) = (shared.clone(), drain.clone());
        Box::pin(async move {
            let answer = match answered {
                Ok(answered) => answered.await,
                Err(refused) => refused,
            };
            if order == Order::InRound {
                shared.0.due.behind_the_others().await;
            }
            let ends = side == Side::Outside && draining.borrow().closes();
            Ok::<_, Infallible>(asked.framed(answer, ends, shared))
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
                // It is next in a moment, and nobody is waited for: no alarm is set for that.
                Poll::Pending if shared.0.due.is() => return Poll::Pending,
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
    end.tell(&gate, stream.refused, stream.stream, drain).await;
    None
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unread;
