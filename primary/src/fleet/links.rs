//! Connections from the primary into one worker: stream sockets whose other end went down its
//! control socket, speaking HTTP/1.1. What comes on them is proved to come from here.
//!
//! Belongs to one worker and closes with it: once closed no new link is made, idle ones end and
//! busy ones end with their answer. The worker sees the end of all of them before it leaves.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use hearth_wire::{Origin, ToWorker, limits};
use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::TaskTracker;

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
    #[error("all {LINKS_MAX} connections to the worker are busy")]
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
    /// Idle links of the gateway. `None` once closed.
    idle: Mutex<Option<Vec<Link>>>,
    tasks: TaskTracker,
}

struct Link {
    sender: http1::SendRequest<Body>,
    _permit: OwnedSemaphorePermit,
}

impl Links {
    pub fn new(outgoing: mpsc::Sender<Outgoing>) -> Arc<Self> {
        Arc::new(Self {
            outgoing,
            permits: Arc::new(Semaphore::new(LINKS_MAX)),
            idle: Mutex::new(Some(Vec::new())),
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
            let pooled = match origin {
                Origin::Gateway => {
                    match self.idle.lock().expect("no one panics with it").as_mut() {
                        Some(idle) => take_ready(idle),
                        None => return Err(LinkError::Closed(Box::new(request))),
                    }
                }
                Origin::Api => None,
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
            match link.sender.try_send_request(request).await {
                Ok(response) => {
                    return Ok(response.map(|body| {
                        let links = matches!(origin, Origin::Gateway).then(|| self.clone());
                        Body::new(LinkBody { body, ended: false, lease: Some((link, links)) })
                    }));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if reused => request = unsent,
                    Some(unsent) => return Err(LinkError::Closed(Box::new(unsent))),
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
        let (sender, connection) =
            http1::handshake(TokioIo::new(near)).await.map_err(LinkError::Lost)?;
        // Ends with its sender or its worker; what went wrong is told to whoever waits for the answer.
        self.tasks.spawn(connection);
        Ok(Some(Link { sender, _permit: permit }))
    }

    fn give_back(&self, link: Link) {
        if let Some(idle) = self.idle.lock().expect("no one panics with it").as_mut()
            && idle.len() < IDLE_MAX
            && !link.sender.is_closed()
        {
            idle.push(link);
        }
    }
}

/// One that can be sent on now. A worker may have answered before it had all of a request, the
/// rest of which is still on its way, and nobody waits for another's client.
fn take_ready(idle: &mut Vec<Link>) -> Option<Link> {
    idle.retain(|link| !link.sender.is_closed());
    let ready = idle.iter().rposition(|link| link.sender.is_ready())?;
    Some(idle.swap_remove(ready))
}

/// An answer's body, and the link that it comes on.
struct LinkBody {
    body: Incoming,
    ended: bool,
    lease: Option<(Link, Option<Arc<Links>>)>,
}

impl Drop for LinkBody {
    /// Gives the link back, if nothing of this answer is left on it. Nobody polls a body of known
    /// length to its end: it is dropped with its last byte.
    fn drop(&mut self) {
        let whole = self.ended || http_body::Body::is_end_stream(&self.body);
        if let Some((link, Some(links))) = self.lease.take().filter(|_| whole) {
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

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
