//! Connections from the primary into one worker: stream sockets whose other end went down its
//! control socket, speaking HTTP/1.1. What comes on them is proved to come from here, and of which
//! origin it is: a link carries calls of one origin, from its first to its last.
//!
//! Belongs to one worker and closes with it: once closed no new link is made, idle ones end and
//! busy ones end with their answer. The worker sees the end of all of them before it leaves.
//!
//! A link stands for its caller's connection: it is closed when the caller goes, and no more is
//! sent on it when the caller's body breaks off, whose answer is the worker's to give. Only one on
//! which request and answer came to their ends is used again.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use hearth_wire::{Origin, ToWorker, limits};
use http::header::EXPECT;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::ext::on_informational;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// A message for a worker and the descriptors that go with it.
pub type Outgoing = (ToWorker, Vec<Arc<OwnedFd>>);

/// One more than a worker runs and queues has no use.
const LINKS_MAX: usize = limits::CALLS_RUNNING_MAX + limits::CALLS_WAITING_MAX;
const IDLE_MAX: usize = limits::CALLS_RUNNING_MAX;

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The worker is leaving; the request was not sent and another worker may have it.
    #[error("the worker is leaving")]
    Closed(Box<Request<Body>>),
    #[error("all connections to the worker are busy")]
    Busy,
    #[error("a connection to the worker could not be made")]
    Io(#[from] io::Error),
    /// The worker may have seen the request: it is not sent again.
    #[error("the worker ended the connection before it answered")]
    Lost(#[source] hyper::Error),
}

pub struct Links {
    outgoing: mpsc::Sender<Outgoing>,
    permits: Arc<Semaphore>,
    /// `None` once closed.
    idle: Mutex<Option<Vec<Idle>>>,
    idle_places: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// A link that waits for a request, with its place among those of all tenants.
struct Idle {
    link: Link,
    _place: OwnedSemaphorePermit,
}

struct Link {
    origin: Origin,
    sender: http1::SendRequest<Upload>,
    request: Arc<RequestEnd>,
    /// Ends with the link, at once: hyper would first have all written that it has, and nobody may
    /// be reading at the other end.
    _connection: AbortOnDropHandle<hyper::Result<()>>,
    _permit: OwnedSemaphorePermit,
}

/// How the body of the request that is on a link has ended, if it has.
#[derive(Default)]
struct RequestEnd {
    is_whole: AtomicBool,
    broke_off: AtomicBool,
}

impl Links {
    /// As many as `most`, and among those of all tenants that are idle as many as have a place.
    pub fn new(
        outgoing: mpsc::Sender<Outgoing>,
        most: usize,
        idle_places: Arc<Semaphore>,
    ) -> Arc<Self> {
        Arc::new(Self {
            outgoing,
            permits: Arc::new(Semaphore::new(most.min(LINKS_MAX))),
            idle: Mutex::new(Some(Vec::new())),
            idle_places,
            tasks: TaskTracker::new(),
        })
    }

    /// Must come before the worker is told to leave, so that it hears of every link first.
    pub fn close(&self) {
        self.idle.lock().expect("no one panics with it").take();
        self.tasks.close();
    }

    /// Sends one request. The answer's body streams, and gives its link back at its end.
    pub async fn call(
        self: &Arc<Self>,
        origin: Origin,
        request: Request<Body>,
    ) -> Result<Response<Body>, LinkError> {
        let mut request = request;
        loop {
            let pooled = match self.idle.lock().expect("no one panics with it").as_mut() {
                Some(idle) => take_ready(idle, origin),
                None => return Err(LinkError::Closed(Box::new(request))),
            };
            let reused = pooled.is_some();
            let mut link = match pooled {
                Some(link) => link,
                None => match self.open(origin).await? {
                    Some(link) => link,
                    None => return Err(LinkError::Closed(Box::new(request))),
                },
            };
            if link.sender.ready().await.is_err() && reused {
                continue;
            }
            let sent = request.map(|body| Upload::new(body, link.request.clone()));
            match link.sender.try_send_request(continued(sent)).await {
                Ok(response) => {
                    return Ok(response.map(|body| {
                        let lease = Some((link, self.clone()));
                        Body::new(LinkBody { body, ended: false, lease })
                    }));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if reused => request = unsent.map(|upload| upload.body),
                    Some(unsent) => {
                        return Err(LinkError::Closed(Box::new(unsent.map(|upload| upload.body))));
                    }
                    None => return Err(LinkError::Lost(error.into_error())),
                },
            }
        }
    }

    /// `None` where the links are closed.
    async fn open(&self, origin: Origin) -> Result<Option<Link>, LinkError> {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| LinkError::Busy)?;
        let (near, far) = UnixStream::pair()?;
        let far = OwnedFd::from(far.into_std()?);
        {
            // Under the lock, so that no link is sent after `close`.
            let idle = self.idle.lock().expect("no one panics with it");
            if idle.is_none() {
                return Ok(None);
            }
            match self.outgoing.try_send((ToWorker::Link(origin), vec![Arc::new(far)])) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => return Err(LinkError::Busy),
                Err(mpsc::error::TrySendError::Closed(_)) => return Ok(None),
            }
        }
        let request = Arc::new(RequestEnd::default());
        let near = Near { stream: near, request: request.clone(), is_shut: false };
        let (sender, connection) =
            http1::handshake(TokioIo::new(near)).await.map_err(LinkError::Lost)?;
        // What went wrong is told to whoever waits for the answer.
        let connection = AbortOnDropHandle::new(self.tasks.spawn(connection));
        Ok(Some(Link { origin, sender, request, _connection: connection, _permit: permit }))
    }

    fn give_back(&self, link: Link) {
        if let Some(idle) = self.idle.lock().expect("no one panics with it").as_mut()
            && idle.len() < IDLE_MAX
            && !link.sender.is_closed()
            && link.request.is_whole.load(Ordering::Acquire)
            && let Ok(place) = self.idle_places.clone().try_acquire_owned()
        {
            idle.push(Idle { link, _place: place });
        }
    }
}

/// One of this origin that can be sent on now. A worker may have answered before it had all of a
/// request, the rest of which is still on its way, and nobody waits for another's client.
fn take_ready(idle: &mut Vec<Idle>, origin: Origin) -> Option<Link> {
    idle.retain(|Idle { link, .. }| !link.sender.is_closed());
    let is_ready = |Idle { link, .. }: &Idle| link.origin == origin && link.sender.is_ready();
    let ready = idle.iter().rposition(is_ready)?;
    Some(idle.swap_remove(ready).link)
}

/// Has the body of a request whose sender waits to be told wait for the worker's word, so that one
/// that nobody wants is not sent.
fn continued(mut request: Request<Upload>) -> Request<Upload> {
    // As hyper reads it at the other end.
    let expects = |headers: &HeaderMap| {
        let last = headers.get_all(EXPECT).iter().next_back();
        last.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    };
    if expects(request.headers()) && !http_body::Body::is_end_stream(request.body()) {
        let told = CancellationToken::new();
        request.body_mut().waits = Some(Box::pin(told.clone().cancelled_owned()));
        on_informational(&mut request, move |said| {
            if said.status() == StatusCode::CONTINUE {
                told.cancel();
            }
        });
    }
    request
}

/// A request's body. Where it breaks off, the link is told, and hyper that more is to come: it
/// would close the link, and with it what the worker answers.
struct Upload {
    body: Body,
    waits: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    end: Arc<RequestEnd>,
}

impl Upload {
    fn new(body: Body, end: Arc<RequestEnd>) -> Self {
        end.is_whole.store(http_body::Body::is_end_stream(&body), Ordering::Release);
        Self { body, waits: None, end }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.end.broke_off.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        if let Some(waits) = &mut self.waits {
            ready!(waits.as_mut().poll(cx));
            self.waits = None;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Err(_)) = frame {
            self.end.broke_off.store(true, Ordering::Relaxed);
            return Poll::Pending;
        }
        if frame.is_none() || self.body.is_end_stream() {
            self.end.is_whole.store(true, Ordering::Release);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Our end of a link, which hyper writes to.
struct Near {
    stream: UnixStream,
    request: Arc<RequestEnd>,
    is_shut: bool,
}

impl AsyncRead for Near {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Near {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper comes by here with everything written that it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if !self.is_shut && self.request.broke_off.load(Ordering::Relaxed) {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.is_shut = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// An answer's body, and the link that it comes on.
struct LinkBody {
    body: Incoming,
    ended: bool,
    lease: Option<(Link, Arc<Links>)>,
}

impl Drop for LinkBody {
    /// Gives the link back, if nothing of this answer is left on it. Nobody polls a body of known
    /// length to its end: it is dropped with its last byte.
    fn drop(&mut self) {
        let whole = self.ended || http_body::Body::is_end_stream(&self.body);
        if let Some((link, links)) = self.lease.take().filter(|_| whole) {
            links.give_back(link);
        }
    }
}

impl http_body::Body for LinkBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() {
            self.ended = true;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net;

    use http_body_util::{BodyExt, Full};
    use hyper::server;
    use hyper::service::service_fn;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    /// What a worker makes of links: it answers with the origin of the one that a call came on.
    struct Worker {
        links: Arc<Links>,
        opened: Arc<Mutex<Vec<Origin>>>,
        _serving: AbortOnDropHandle<()>,
    }

    impl Worker {
        fn new(idle_places: usize) -> Self {
            let (outgoing, mut told) = mpsc::channel::<Outgoing>(16);
            let opened = Arc::<Mutex<Vec<Origin>>>::default();
            let seen = opened.clone();
            let serving = tokio::spawn(async move {
                while let Some((message, fds)) = told.recv().await {
                    let ToWorker::Link(origin) = message else { panic!("{message:?}") };
                    seen.lock().unwrap().push(origin);
                    let [fd] = <[Arc<OwnedFd>; 1]>::try_from(fds).unwrap();
                    let stream = net::UnixStream::from(Arc::into_inner(fd).unwrap());
                    let stream = TokioIo::new(UnixStream::from_std(stream).unwrap());
                    let answer = move |_| async move {
                        let body = Full::new(Bytes::from(origin.as_str()));
                        Ok::<_, hyper::Error>(Response::new(body))
                    };
                    let service = service_fn(answer);
                    tokio::spawn(
                        server::conn::http1::Builder::new().serve_connection(stream, service),
                    );
                }
            });
            let links = Links::new(outgoing, 8, Arc::new(Semaphore::new(idle_places)));
            Self { links, opened, _serving: AbortOnDropHandle::new(serving) }
        }

        async fn call(&self, origin: Origin) -> String {
            let request = Request::post("/").header("host", "demo").body(Body::empty()).unwrap();
            let answer = self.links.call(origin, request).await.unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            // What drives a link sees its end after we do.
            let is_settled = || {
                let idle = self.links.idle.lock().unwrap();
                idle.iter().flatten().all(|Idle { link, .. }| link.sender.is_ready())
            };
            while !is_settled() {
                tokio::task::yield_now().await;
            }
            String::from_utf8(body.to_vec()).unwrap()
        }

        fn opened(&self) -> Vec<Origin> {
            self.opened.lock().unwrap().clone()
        }
    }

    /// Whatever waits idle, a call never travels on a link of another origin than its own.
    #[tokio::test]
    async fn a_link_carries_calls_of_one_origin() {
        let worker = Worker::new(8);
        for round in 0..3 {
            for origin in Origin::ALL {
                assert_eq!(worker.call(origin).await, origin.as_str(), "{round}");
            }
        }
        assert_eq!(worker.opened(), Origin::ALL, "each was used again");
        worker.links.close();
        let request = Request::post("/").body(Body::empty()).unwrap();
        let closed = worker.links.call(Origin::Trigger, request).await;
        assert!(matches!(closed, Err(LinkError::Closed(_))));
    }

    #[tokio::test]
    async fn one_without_a_place_to_wait_in_is_closed() {
        let worker = Worker::new(1);
        use Origin::{Outside, Trigger};
        for origin in [Outside, Trigger, Outside, Trigger] {
            assert_eq!(worker.call(origin).await, origin.as_str());
        }
        assert_eq!(worker.opened(), [Outside, Trigger, Trigger]);
    }
}
