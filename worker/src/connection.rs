//! One connection: when it may be closed, and the loop that drives it.
//!
//! ```text
//!  Never ── request ──► InService ── head out ──► Answering ── body out ──► Responded
//!                           ▲                                                  │
//!                           └──────────────────── next request ───────────────┘
//! ```
//!
//! [`Gate`] is pure: it knows the phase, the time and whether a drain was asked for, and says
//! whether to wait, to close politely or to close. The driver asks it after every poll. A drain
//! closes idle connections here; handing them to the next generation instead takes the place of
//! [`Verdict::Finish`] in the driver, and changes nothing of the gate.
//!
//! What is answered is [`crate::serve`]'s; when to drain is [`crate::control`]'s.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http::header::{CONNECTION, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::serve::{self, AnswerBody, BoxError, Peer, Tenant};

/// From a head's first byte to its last; in a drain also to its first.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Without a byte, before the first request and between two.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// For the last bytes of a connection that is being closed.
const FINISH_DEADLINE: Duration = Duration::from_secs(10);
/// Of a body that nobody wanted.
const FORGOTTEN_MAX_BYTES: usize = 256 << 20;
const HEAD_MAX_BYTES: usize = 32 << 10;
const HEADERS_MAX: usize = 128;

/// Whether the worker is coming to its end, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    No,
    Since(Instant),
}

/// How far the exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No request so far.
    Never,
    /// A request is read and its answer's head is not made.
    InService,
    /// The head is made, the body is on its way.
    Answering,
    /// At least one answer is complete, and no request has come since.
    Responded,
}

/// What to do with the connection while nothing happens on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Until that moment, or until something happens.
    Wait(Option<Instant>),
    /// Nothing is under way: close it as politely as HTTP can.
    Finish,
    /// Its time is up.
    Close,
}

#[derive(Debug, Clone, Copy)]
struct Gate {
    peer: Peer,
    phase: Phase,
    /// When the phase began.
    since: Instant,
    /// When the first byte of a head came that is not complete yet.
    head_began: Option<Instant>,
    /// Whether the last request's body has not come whole.
    body_left: bool,
    /// Whether the client takes no more bytes for now.
    write_blocked: bool,
}

impl Gate {
    fn new(peer: Peer, now: Instant) -> Self {
        Self {
            peer,
            phase: Phase::Never,
            since: now,
            head_began: None,
            body_left: false,
            write_blocked: false,
        }
    }

    fn bytes_read(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Never | Phase::Responded) {
            self.head_began.get_or_insert(now);
        }
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
        self.head_began = None;
    }

    fn verdict(&self, drain: Drain, now: Instant) -> Verdict {
        let until = |deadline: Instant, then: Verdict| {
            if now < deadline { Verdict::Wait(Some(deadline)) } else { then }
        };
        match (self.phase, self.peer) {
            // A call has its own deadline, and the answer's end a new phase.
            (Phase::InService | Phase::Answering, _) => Verdict::Wait(None),
            // A link is the primary's to close.
            (_, Peer::Link(_)) => Verdict::Wait(None),
            (Phase::Never | Phase::Responded, Peer::Tcp(_)) => match (self.head_began, drain) {
                // Somebody is asking: nobody who asks is turned away.
                (Some(began), _) => until(began + HEAD_DEADLINE, Verdict::Close),
                (None, Drain::No) => until(self.since + SILENCE_MAX, Verdict::Finish),
                (None, Drain::Since(asked)) if self.phase == Phase::Never => {
                    until(asked.max(self.since) + HEAD_DEADLINE, Verdict::Finish)
                }
                (None, Drain::Since(_)) => Verdict::Finish,
            },
        }
    }
}

/// The gate, shared by the driver, the stream and the answers' bodies of one connection.
#[derive(Clone)]
struct Shared(Arc<Mutex<Gate>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one connection to its end. `woken_at` is given where its worker was woken for it.
pub async fn serve<S>(
    stream: S,
    peer: Peer,
    woken_at: Option<Instant>,
    tenant: Arc<Tenant>,
    mut drain: watch::Receiver<Drain>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = Shared(Arc::new(Mutex::new(Gate::new(peer, Instant::now()))));
    let draining = drain.clone();
    let woken_at = Mutex::new(woken_at);
    let service = service_fn({
        let shared = shared.clone();
        move |request: Request<Incoming>| {
            shared.lock().enter(Phase::InService, Instant::now());
            let waited = woken_at.lock().unwrap_or_else(PoisonError::into_inner).take();
            let cold = waited.map(|since| since.elapsed());
            let (tenant, shared, draining) =
                (Arc::clone(&tenant), shared.clone(), draining.clone());
            let request = request.map(|body| Received::new(body, shared.clone()));
            Box::pin(async move {
                let mut answer = serve::answer(&tenant, peer, cold, request).await;
                if matches!((*draining.borrow(), peer), (Drain::Since(_), Peer::Tcp(_))) {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                shared.lock().enter(Phase::Answering, Instant::now());
                Ok::<_, Infallible>(answer.map(|body| AnsweringBody { body, shared }))
            })
        }
    });
    let stream = TokioIo::new(Watched { stream, shared: shared.clone() });
    let mut connection = http1::Builder::new()
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .header_read_timeout(None)
        .serve_connection(stream, service);
    let mut drained = pin!(async move {
        let asked = drain.wait_for(|drain| *drain != Drain::No).await.map(|drain| *drain);
        match asked {
            Ok(drain) => drain,
            // Its sender goes with the worker, and this task with it.
            Err(_) => std::future::pending().await,
        }
    });
    let mut asked = Drain::No;
    let mut finishing = None;
    let mut alarm = pin!(tokio::time::sleep(SILENCE_MAX));
    // A request may have arrived that the runtime has not noticed yet: before an idle connection
    // is closed the runtime looks once more.
    let mut looked = None;
    let end = poll_fn(|cx| {
        loop {
            match connection.poll_without_shutdown(cx) {
                // It can say so with bytes still to write, where a request's body was left.
                Poll::Ready(Ok(())) if shared.lock().write_blocked => {
                    finishing.get_or_insert_with(|| Instant::now() + FINISH_DEADLINE);
                }
                Poll::Ready(Ok(())) => return Poll::Ready(End::Done),
                // Why it broke is its client's business: there is no one to tell.
                Poll::Ready(Err(_)) => return Poll::Ready(End::Broken),
                Poll::Pending => {}
            }
            if asked == Drain::No
                && let Poll::Ready(now) = drained.as_mut().poll(cx)
            {
                asked = now;
            }
            let verdict = match finishing {
                None => shared.lock().verdict(asked, Instant::now()),
                Some(deadline) if Instant::now() < deadline => Verdict::Wait(Some(deadline)),
                Some(_) => Verdict::Close,
            };
            match verdict {
                Verdict::Wait(deadline) => {
                    looked = None;
                    let Some(deadline) = deadline else { return Poll::Pending };
                    if alarm.deadline() != deadline.into() {
                        alarm.as_mut().reset(deadline.into());
                    }
                    if alarm.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Verdict::Finish => {
                    let look = looked.get_or_insert_with(|| Box::pin(tokio::task::yield_now()));
                    if look.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    Pin::new(&mut connection).graceful_shutdown();
                    finishing = Some(Instant::now() + FINISH_DEADLINE);
                }
                Verdict::Close => return Poll::Ready(End::Broken),
            }
        }
    })
    .await;
    if end == End::Done {
        let body_left = shared.lock().body_left;
        // Late clients get the time that a head gets; what is still open then is cut.
        let close = close(connection.into_parts().io.into_inner().stream, body_left);
        let _ = tokio::time::timeout(FINISH_DEADLINE, close).await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Every answer is written.
    Done,
    Broken,
}

/// Says that nothing more comes. Where the client is still sending a body that nobody wanted, it
/// is read and forgotten first: closing on unread bytes resets the connection, and takes away
/// the answer that says why.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, body_left: bool) {
    let shut = poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await;
    if shut.is_err() || !body_left {
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

/// A request's body. The gate is told when it has come whole.
pub struct Received {
    incoming: Incoming,
    shared: Shared,
}

impl Received {
    fn new(incoming: Incoming, shared: Shared) -> Self {
        shared.lock().body_left = !incoming.is_end_stream();
        Self { incoming, shared }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if frame.is_none() || self.incoming.is_end_stream() {
            self.shared.lock().body_left = false;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The stream of a connection, which tells the gate when bytes come and when none can go.
struct Watched<S> {
    stream: S,
    shared: Shared,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        if into.filled().len() > before {
            self.shared.lock().bytes_read(Instant::now());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.shared.lock().write_blocked = written.is_pending();
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.shared.lock().write_blocked = written.is_pending();
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// An answer's body, which tells the gate when it is done.
struct AnsweringBody {
    body: AnswerBody,
    shared: Shared,
}

impl Body for AnsweringBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnsweringBody {
    fn drop(&mut self) {
        self.shared.lock().enter(Phase::Responded, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_wire::Origin;

    const TCP: Peer = Peer::Tcp(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    const LINK: Peer = Peer::Link(Origin::Gateway);
    const PHASES: [Phase; 4] = [Phase::Never, Phase::InService, Phase::Answering, Phase::Responded];

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_call_is_never_cut_and_a_link_never_closed() {
        let now = Instant::now();
        let late = now + seconds(100_000);
        for drain in [Drain::No, Drain::Since(now)] {
            for phase in [Phase::InService, Phase::Answering] {
                for peer in [TCP, LINK] {
                    let gate = Gate { phase, ..Gate::new(peer, now) };
                    assert_eq!(gate.verdict(drain, late), Verdict::Wait(None), "{gate:?}");
                }
            }
            for phase in PHASES {
                for head_began in [None, Some(now)] {
                    let gate = Gate { phase, head_began, ..Gate::new(LINK, now) };
                    assert_eq!(gate.verdict(drain, late), Verdict::Wait(None), "{gate:?}");
                }
            }
        }
    }

    #[test]
    fn when_a_connection_from_outside_is_closed() {
        use Phase::{Never, Responded};
        let start = Instant::now();
        let at = |s: u64| start + seconds(s);
        let wait = |s: u64| Verdict::Wait(Some(at(s)));
        let (no, since_20) = (Drain::No, Drain::Since(at(20)));
        for (phase, head_began, drain, now, verdict) in [
            (Never, None, no, 5, wait(75)),
            (Never, None, no, 75, Verdict::Finish),
            (Never, Some(30), no, 35, wait(40)),
            (Never, Some(30), no, 40, Verdict::Close),
            (Never, None, since_20, 25, wait(30)),
            (Never, None, since_20, 30, Verdict::Finish),
            (Never, Some(21), since_20, 25, wait(31)),
            (Never, Some(21), since_20, 31, Verdict::Close),
            (Responded, None, no, 5, wait(75)),
            (Responded, None, no, 75, Verdict::Finish),
            (Responded, None, since_20, 20, Verdict::Finish),
            (Responded, Some(19), since_20, 20, wait(29)),
            (Responded, Some(19), since_20, 29, Verdict::Close),
        ] {
            let gate = Gate { phase, head_began: head_began.map(at), ..Gate::new(TCP, start) };
            assert_eq!(gate.verdict(drain, at(now)), verdict, "{gate:?} {drain:?} at {now}");
        }
    }

    #[test]
    fn bytes_begin_a_head_only_between_exchanges() {
        let now = Instant::now();
        for phase in PHASES {
            let mut gate = Gate { phase, ..Gate::new(TCP, now) };
            gate.bytes_read(now);
            let begins = matches!(phase, Phase::Never | Phase::Responded);
            assert_eq!(gate.head_began, begins.then_some(now), "{phase:?}");
            gate.bytes_read(now + seconds(1));
            assert_eq!(gate.head_began, begins.then_some(now), "the first byte counts");
            gate.enter(Phase::InService, now);
            assert_eq!(gate.head_began, None);
        }
    }
}
