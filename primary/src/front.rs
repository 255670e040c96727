//! The connections that the primary itself answers, and the loop that accepts them.
//!
//! ```text
//!  front door ── gateway::keep ──── the tenant's own from then on ──► worker
//!             └─ gateway::route ─┬─ platform ─────────► api
//!                                └─ tenant ─┬─ $upload ► upload
//!                                           └─ call ───► gateway ──► worker
//!  a worker's door (HTTP/2)          ─┬─ $upload ──────► upload
//!  a port whose tenant is turned away ┴─ all else: 503, come back later
//! ```
//!
//! Owns listening, connection bounds and the polite end of every connection. What an answer
//! says is decided elsewhere.

use std::convert::Infallible;
use std::io::Cursor;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::response::Response;
use hearth_wire::{Code, FunctionPath, NameError, Problem, Scope, TenantName};
use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, error, warn};

use crate::api::auth;
use crate::fleet::Visit;
use crate::gateway::route::Target;
use crate::gateway::{Gateway, refuse, request_id, turned_away};
use crate::store::{Store, Tenant};
use crate::upload::Uploads;

/// Connections at the front door at once, and visits at once.
const CONNECTIONS_MAX: usize = 10_000;
const VISITS_MAX: usize = 1_000;
/// A request's head, and the pause before the next one on a kept connection.
const HEAD_DEADLINE: Duration = Duration::from_secs(75);
const HEAD_MAX_BYTES: usize = 32 << 10;
/// What is read of a body that nobody wanted.
const UNREAD_MAX: (usize, Duration) = (64 << 20, Duration::from_secs(10));
/// Uploads that one worker passes on at once.
const DOOR_STREAMS_MAX: u32 = 32;
/// After the kernel refused to accept: descriptors are short, and trying at once changes nothing.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub struct Front {
    pub platform: Router,
    pub gateway: Gateway,
    pub uploads: Uploads,
    pub store: Store,
}

impl Front {
    /// Accepts at the front door until told to stop; returns when every connection has ended.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = TaskTracker::new();
        loop {
            let permit = permits.clone().acquire_owned().await.expect("it is never closed");
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (front, stop) = (self.clone(), stop.clone());
            connections.spawn(async move {
                // It only makes small answers wait.
                let _ = stream.set_nodelay(true);
                if let Some((stream, unread)) = front.gateway.keep(stream, peer, &stop).await {
                    let answer = move |request| front.clone().answer(request, peer);
                    serve(stream, unread, stop, answer).await;
                }
                drop(permit);
            });
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }

    async fn answer(self, request: Request<Body>, peer: SocketAddr) -> Response {
        match self.gateway.target(&request) {
            Target::Platform => {
                let mut request = request;
                request.extensions_mut().insert(ConnectInfo(peer));
                self.platform.oneshot(request).await.unwrap_or_else(|never| match never {})
            }
            Target::Host(tenant) => match upload_dir(request.method(), request.uri().path()) {
                Some(dir) => self.take_upload(&tenant, dir, request).await,
                None => self.gateway.by_host(&tenant, request, peer).await,
            },
            Target::Path { tenant, prefix, rest } => match upload_dir(request.method(), rest) {
                Some(dir) => self.take_upload(&tenant, dir, request).await,
                None => {
                    let (prefix, rest) = (prefix.to_owned(), rest.to_owned());
                    self.gateway.by_path(&tenant, &prefix, &rest, request, peer).await
                }
            },
            Target::Nobody => {
                let problem = Problem::new(Code::NotFound, "no tenant can have this address");
                refuse(problem, None, &request_id(request.headers()))
            }
        }
    }

    /// Answers what the fleet cannot: doors, and connections to tenants without a worker.
    pub async fn receive(self, mut visits: mpsc::Receiver<Visit>, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(VISITS_MAX));
        let connections = TaskTracker::new();
        loop {
            let permit = permits.clone().acquire_owned().await.expect("it is never closed");
            let visit = tokio::select! {
                visit = visits.recv() => visit,
                () = stop.cancelled() => break,
            };
            let Some(visit) = visit else { break };
            let (front, stop) = (self.clone(), stop.clone());
            connections.spawn(async move {
                match visit {
                    Visit::Door { tenant, stream } => front.door(tenant, stream, stop).await,
                    Visit::Turned { tenant, stream, unread, retry_after } => {
                        match TcpStream::from_std(stream) {
                            Ok(stream) => {
                                let answer = move |request| {
                                    front.clone().turn_away(tenant.clone(), retry_after, request)
                                };
                                serve(stream, unread, stop, answer).await;
                            }
                            Err(error) => warn!(error = &error as &dyn std::error::Error, "visit"),
                        }
                    }
                }
                drop(permit);
            });
        }
        connections.close();
        connections.wait().await;
    }

    /// A worker's door. The peer may be hostile: it can ask for no more than its tenant could.
    async fn door(self, tenant: Tenant, stream: UnixStream, stop: CancellationToken) {
        let service = service_fn(move |request: Request<Incoming>| {
            let (front, tenant) = (self.clone(), tenant.clone());
            async move {
                let request = request.map(Body::new);
                let id = request_id(request.headers());
                let response = match upload_dir(request.method(), request.uri().path()) {
                    Some(dir) => front.upload(&tenant, dir, request).await,
                    None => refuse(Problem::new(Code::NotFound, "no door leads there"), None, &id),
                };
                Ok::<_, Infallible>(response)
            }
        });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(DOOR_STREAMS_MAX)
            .max_header_list_size(HEAD_MAX_BYTES as u32);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(error = &error as &dyn std::error::Error, "door closed");
        }
    }

    /// A connection to the port of a tenant that backs off or is barred: an upload is taken, so
    /// that the fix can come this way; all else is told to come back.
    async fn turn_away(
        self,
        tenant: Tenant,
        retry_after: Duration,
        request: Request<Body>,
    ) -> Response {
        let id = request_id(request.headers());
        let mut response = match upload_dir(request.method(), request.uri().path()) {
            Some(dir) => self.upload(&tenant, dir, request).await,
            None => turned_away(retry_after, &id),
        };
        // The next request belongs to a worker, and this connection does not lead to one.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// An upload at the front door needs no worker, so a barred tenant's fix can come this way too.
    async fn take_upload(
        &self,
        name: &TenantName,
        dir: UploadDir,
        request: Request<Body>,
    ) -> Response {
        let problem = match self.store.tenant(name).await {
            Ok(Some(tenant)) => return self.upload(&tenant, dir, request).await,
            Ok(None) => Problem::new(Code::NotFound, format!("there is no tenant {name}")),
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "store");
                Problem::new(Code::Internal, "the host's store failed")
            }
        };
        refuse(problem, None, &request_id(request.headers()))
    }

    async fn upload(&self, tenant: &Tenant, dir: UploadDir, request: Request<Body>) -> Response {
        let id = request_id(request.headers());
        let dir = match dir {
            Ok(dir) => dir,
            Err(problem) => return refuse(problem, None, &id),
        };
        let caller = match auth::authenticate(&self.store, request.headers()).await {
            // An admin's token is never taken at a tenant's address.
            Ok(caller)
                if caller.tenant == Some(tenant.id) && caller.scope.covers(Scope::Deploy) =>
            {
                caller
            }
            Ok(_) => {
                let detail = "this token may not deploy here; it takes one of this tenant with the scope deploy";
                return refuse(Problem::new(Code::Forbidden, detail), None, &id);
            }
            Err(problem) => return refuse(problem, None, &id),
        };
        let (parts, body) = request.into_parts();
        match self.uploads.receive(tenant, dir, &parts.headers, body, &caller.name).await {
            Ok(uploaded) => {
                let body = serde_json::to_vec(&uploaded).expect("it is plain data");
                let mut response = Response::new(Body::from(body));
                let headers = response.headers_mut();
                let json = HeaderValue::from_static("application/json");
                headers.insert(http::header::CONTENT_TYPE, json);
                let id = HeaderValue::from_str(id.as_str()).expect("it is visible ASCII");
                headers.insert(hearth_wire::header::REQUEST_ID, id);
                response
            }
            Err(error) => refuse(error.problem(), None, &id),
        }
    }
}

/// Serves one HTTP/1.1 connection until its end, or politely to its next pause once told to stop.
/// What was read of it already comes first.
async fn serve<F, A>(stream: TcpStream, unread: Vec<u8>, stop: CancellationToken, answer: F)
where
    F: Fn(Request<Body>) -> A,
    A: Future<Output = Response>,
{
    let (reads, writes) = stream.into_split();
    let stream = tokio::io::join(Cursor::new(unread).chain(reads), writes);
    let service = service_fn(|request: Request<Incoming>| {
        let (request, unread) = Unread::of(request);
        let answer = answer(request);
        async move {
            let response = answer.await;
            unread.forget().await;
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(error = &error as &dyn std::error::Error, "connection closed");
    }
}

/// What nobody wanted of a request's body. It is read and forgotten before the answer goes out,
/// within bounds: closing on unread bytes resets the connection, and takes away the answer that
/// says why.
struct Unread {
    body: Arc<Mutex<Option<Incoming>>>,
    /// The sender waits for `100 Continue` before it sends anything.
    waits: bool,
}

/// A request's body, which leaves what is unread of it behind.
struct Received {
    incoming: Option<Incoming>,
    unread: Arc<Mutex<Option<Incoming>>>,
}

impl Unread {
    fn of(request: Request<Incoming>) -> (Request<Body>, Self) {
        let waits = request.headers().contains_key(http::header::EXPECT);
        let body = Arc::new(Mutex::new(None));
        let unread = body.clone();
        let request =
            request.map(|incoming| Body::new(Received { incoming: Some(incoming), unread }));
        (request, Self { body, waits })
    }

    async fn forget(self) {
        let unread = self.body.lock().expect("no one panics with it").take();
        let Some(mut unread) = unread.filter(|_| !self.waits) else { return };
        let (most, deadline) = UNREAD_MAX;
        let mut left = most;
        let reading = async {
            while let Some(Ok(frame)) = unread.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    break;
                }
            }
        };
        // What is left then is cut off with the connection.
        let _ = tokio::time::timeout(deadline, reading).await;
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.incoming.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take().filter(|body| !body.is_end_stream())
            && let Ok(mut unread) = self.unread.lock()
        {
            *unread = Some(incoming);
        }
    }
}

/// The directory that an upload's address names, if it may be one.
type UploadDir = Result<Option<FunctionPath>, Problem>;

/// `None` where it is no upload's address at all.
fn upload_dir(method: &Method, path: &str) -> Option<UploadDir> {
    let dir = path.strip_suffix("/$upload")?;
    if method != Method::POST {
        let detail = "an upload is a POST of multipart/form-data";
        return Some(Err(Problem::new(Code::MethodNotAllowed, detail)));
    }
    if dir.is_empty() {
        return Some(Ok(None));
    }
    let parsed = dir.parse().map(Some);
    Some(parsed.map_err(|error: NameError| Problem::new(Code::InvalidPath, error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_uploads_go() {
        let dir = |path| upload_dir(&Method::POST, path);
        assert_eq!(dir("/$upload"), Some(Ok(None)));
        assert_eq!(dir("/jobs/nightly/$upload"), Some(Ok("/jobs/nightly".parse().ok())));
        assert_eq!(dir("/hello"), None);
        assert_eq!(dir("/$upload/x"), None);
        for bad in ["/../$upload", "/%2e%2e/$upload", "/a//$upload", "/./$upload", "//$upload"] {
            let problem = dir(bad).unwrap().unwrap_err();
            assert_eq!(problem.code, Code::InvalidPath, "{bad}");
        }
        let problem = upload_dir(&Method::GET, "/$upload").unwrap().unwrap_err();
        assert_eq!(problem.code, Code::MethodNotAllowed);
    }
}
