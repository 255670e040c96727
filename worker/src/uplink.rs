//! Uplinks: HTTP/2 to the host, over sockets that it hands us when we ask for them, for whatever
//! this worker wants of it. What can be asked for is [`hearth_wire::uplink`]'s to say.
//!
//! ```text
//!  whoever asks ── request ──► the kind's pool ── room on a connection ──► the host's uplink.rs
//!                                  │ full, broken, none: wanted
//!                                  └──► control ── WantUplink ──► the host ── a socket ──► opened
//! ```
//!
//! Owns the connections, each kind's apart from the others', and nothing of what is said over
//! them. Who has room on which is decided in [`pool`]; asking for a socket and bringing it is
//! [`crate::control`]'s. At the other end is the host, which is believed.

mod pool;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hearth_connection::{Answer, BoxError, end_hop};
use hearth_wire::uplink::{Bounds, Kind, Service};
use http::header::{EXPECT, HOST};
use http::{Request, Uri};
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};

use pool::{Crowded, Ends, Pool, Room};

/// From asking for room on a connection to having it.
const ROOM_DEADLINE: Duration = Duration::from_secs(5);
/// After that, for what came while this process stood still itself.
const LAST_LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    #[error("no connection to the host had room in time")]
    Late,
    #[error("too many requests wait for a connection to the host")]
    Crowded,
    #[error("the connection to the host broke")]
    Broken(#[from] hyper::Error),
    #[error("the socket to the host cannot be used")]
    Socket(#[source] io::Error),
    #[error("the request's body broke off")]
    BrokenBody,
    #[error("the request cannot be passed on")]
    Request(#[from] http::Error),
}

type Sender = http2::SendRequest<UnsyncBoxBody<Bytes, BoxError>>;
type Waiter = oneshot::Sender<Lease>;

impl Ends for Sender {
    fn has_ended(&self) -> bool {
        self.is_closed()
    }
}

impl Ends for Waiter {
    fn has_ended(&self) -> bool {
        self.is_closed()
    }
}

/// All of a worker's. Tests have kinds of their own.
pub struct Uplinks<K = Kind> {
    kinds: Vec<(K, Arc<Connections>)>,
    wanted: Arc<Notify>,
}

/// Those of one kind.
struct Connections {
    pool: Mutex<Pool<Sender, Waiter>>,
    /// Whether one is to be asked for.
    is_wanted: AtomicBool,
    wanted: Arc<Notify>,
}

/// Room on a connection for one request, until its answer's last byte.
struct Lease {
    room: Option<Room<Sender>>,
    of: Arc<Connections>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(room) = self.room.take() {
            self.of.change(|pool| pool.returned(room));
        }
    }
}

impl Connections {
    fn new(bounds: Bounds, wanted: Arc<Notify>) -> Arc<Self> {
        let pool = Mutex::new(Pool::new(bounds));
        Arc::new(Self { pool, is_wanted: AtomicBool::new(false), wanted })
    }

    fn pool(&self) -> MutexGuard<'_, Pool<Sender, Waiter>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the pool what happened, gives room to whoever can have it now, and asks for what is
    /// still missing.
    fn change<T>(self: &Arc<Self>, happened: impl FnOnce(&mut Pool<Sender, Waiter>) -> T) -> T {
        let mut pool = self.pool();
        let done = happened(&mut pool);
        while let Some((waiter, room)) = pool.next() {
            let lease = Lease { room: Some(room), of: Arc::clone(self) };
            if let Err(mut unwanted) = waiter.send(lease)
                && let Some(room) = unwanted.room.take()
            {
                pool.returned(room);
            }
        }
        if pool.asks(Instant::now()) {
            self.is_wanted.store(true, Ordering::Relaxed);
            self.wanted.notify_one();
        }
        done
    }

    async fn lease(self: &Arc<Self>) -> Result<Lease, UplinkError> {
        let (waiter, mut given) = oneshot::channel();
        let waits = self.change(|pool| pool.wait(waiter));
        waits.map_err(|Crowded| UplinkError::Crowded)?;
        for patience in [ROOM_DEADLINE, LAST_LOOK] {
            if let Ok(given) = tokio::time::timeout(patience, &mut given).await {
                return given.map_err(|_| UplinkError::Late);
            }
        }
        Err(UplinkError::Late)
    }
}

impl Uplinks {
    pub fn new() -> Self {
        Self::of(Kind::ALL.map(|kind| (kind, kind.bounds())))
    }

    /// Asks the host for a service: with this request, body unread, but for its path, which is the
    /// service's. The query stays.
    pub async fn request<B>(
        &self,
        service: &Service,
        request: Request<B>,
    ) -> Result<Answer, UplinkError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.send(service.kind(), &service.path(), request).await
    }
}

impl<K: Copy + PartialEq> Uplinks<K> {
    fn of(kinds: impl IntoIterator<Item = (K, Bounds)>) -> Self {
        let wanted = Arc::new(Notify::new());
        let connections = |bounds| Connections::new(bounds, Arc::clone(&wanted));
        let kinds = kinds.into_iter().map(|(kind, bounds)| (kind, connections(bounds))).collect();
        Self { kinds, wanted }
    }

    fn kind(&self, kind: K) -> &Arc<Connections> {
        let mut kinds = self.kinds.iter();
        let (_, connections) =
            kinds.find(|(other, _)| *other == kind).expect("all are in the list");
        connections
    }

    /// Resolves with a kind of which another connection is to be asked for. Cancel-safe.
    pub async fn wanted(&self) -> K {
        loop {
            for (kind, connections) in &self.kinds {
                if connections.is_wanted.swap(false, Ordering::Relaxed) {
                    return *kind;
                }
            }
            self.wanted.notified().await;
        }
    }

    /// The host has sent a connection's other end. The answer is the connection, to be polled to
    /// its end.
    pub async fn open(
        &self,
        kind: K,
        socket: std::os::unix::net::UnixStream,
    ) -> Result<impl Future<Output = ()> + Send + 'static, UplinkError> {
        let connections = Arc::clone(self.kind(kind));
        let bounds = connections.pool().bounds();
        let stream = UnixStream::from_std(socket).map_err(UplinkError::Socket)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(bounds.window_bytes)
            .initial_connection_window_size(bounds.connection_window_bytes())
            .max_send_buf_size(bounds.window_bytes as usize)
            .handshake(TokioIo::new(stream))
            .await?;
        connections.change(|pool| pool.opened(sender));
        Ok(async move {
            // What ended it is told to each request that was under way.
            let _ = connection.await;
            connections.change(|_| ());
        })
    }

    async fn send<B>(&self, kind: K, path: &str, request: Request<B>) -> Result<Answer, UplinkError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut head, body) = request.into_parts();
        let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        head.uri = Uri::builder()
            .scheme("http")
            .authority("hearth")
            .path_and_query(format!("{path}{query}"))
            .build()?;
        head.version = http::Version::HTTP_2;
        end_hop(&mut head.headers);
        head.headers.remove(HOST);
        // Answered by our own side of the connection, once the host reads the body.
        head.headers.remove(EXPECT);
        let broke_off = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&broke_off);
        let body = body.map_err(move |error| {
            told.store(true, Ordering::Relaxed);
            error.into()
        });
        let lease = self.kind(kind).lease().await?;
        let mut sender = lease.sender();
        sender.ready().await?;
        let answer = sender.send_request(Request::from_parts(head, body.boxed_unsync())).await;
        let answer = answer.map_err(|error| match broke_off.load(Ordering::Relaxed) {
            true => UplinkError::BrokenBody,
            false => error.into(),
        })?;
        let (mut head, body) = answer.into_parts();
        end_hop(&mut head.headers);
        head.version = http::Version::HTTP_11;
        let body = body.map_err(move |error| {
            let _ = &lease;
            error.into()
        });
        Ok(Answer::from_parts(head, body.boxed_unsync()))
    }
}

impl Lease {
    fn sender(&self) -> Sender {
        let room = self.room.as_ref().expect("it is there until this is dropped");
        room.connection.clone()
    }
}

#[cfg(test)]
mod tests;
