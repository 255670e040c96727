//! The connections that the primary itself answers, and the loop that accepts them.
//!
//! ```text
//!  front door ── gateway::keep ──── the tenant's own from then on ──► worker
//!             └─ gateway::route ─┬─ platform ─────────► api
//!                                └─ tenant ─┬─ $upload ► upload
//!                                           └─ call ───► gateway ──► invoke ──► worker
//!  a port whose tenant is turned away ─┬─ $upload ─────► upload
//!                                      └─ all else: 503, come back later
//! ```
//!
//! Owns listening, how many connections there are and how much the kernel keeps for one. How one is
//! served is `hearth_connection`'s, as it is in a worker; what an answer says is decided elsewhere.

mod crowd;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use hearth_connection::{Drain, Order, Presence, Received, Side, Waiting};
use hearth_wire::uplink::{UploadDir, upload_dir};
use hearth_wire::{Code, Problem, TenantName};
use http::Request;
use http::header::{CONNECTION, HeaderValue};
use http_body_util::BodyExt;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::warn;

use crate::descriptors::{Shares, is_shortage};
use crate::fleet::{Turned, Unavailable, sockets};
use crate::gateway::route::Target;
use crate::gateway::{Gateway, named, unknown_name};
use crate::problem;
use crate::refusal::{refuse, request_id};
use crate::store::{Store, Tenant};
use crate::upload::request::UploadRequests;
use crowd::{Crowd, Origin};

/// For a place, or a descriptor, that becomes free: trying at once changes nothing.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// That it happened is said once in this time, and not as often as somebody connects.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// What the kernel keeps of an answer that the primary writes, for a client that does not read it:
/// it doubles this, and would go up to some megabytes by itself.
const UNREAD_ANSWER_BYTES: usize = 64 << 10;

/// What is told as long as there is a host.
const STATE_OF_HOST: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

#[derive(Clone)]
pub struct Front {
    pub platform: Router,
    pub gateway: Gateway,
    pub uploads: UploadRequests,
    pub store: Store,
    /// Whether the host is stopping: whoever comes then is told so.
    pub stop: CancellationToken,
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub places: usize,
    /// Of one client.
    pub of_one: usize,
    /// At ports whose tenants are turned away.
    pub turned: usize,
}

impl Bounds {
    /// Whoever is one client never has more than a quarter of the places.
    pub fn new(shares: &Shares, of_one: u32) -> Self {
        let of_one = usize::try_from(of_one).unwrap_or(usize::MAX);
        let of_one = of_one.min(shares.front / 4).max(1);
        Self { places: shares.front, of_one, turned: shares.turned }
    }
}

impl Front {
    /// Accepts at the front door until told to close it; returns when every connection has ended.
    pub async fn run(self, listener: TcpListener, bounds: Bounds, close: CancellationToken) {
        let permits = Arc::new(Semaphore::new(bounds.places));
        let crowd = Crowd::new(bounds.of_one);
        let connections = TaskTracker::new();
        let drain = drained(&self.stop);
        let mut spare = Spare::new();
        let mut said: Option<Instant> = None;
        loop {
            let permit = tokio::select! {
                permit = place(&permits, &crowd) => permit,
                () = close.cancelled() => break,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = close.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                // Its client has gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    if said.is_none_or(|said| said.elapsed() > SAY_AGAIN) {
                        warn!(
                            error = &error as &dyn std::error::Error,
                            "a connection at the front door could not be accepted"
                        );
                        said = Some(Instant::now());
                    }
                    // Whoever went before this one is told has left nothing that is still there.
                    let mut gone = pin!(crowd.gone());
                    gone.as_mut().enable();
                    // It is also said where nobody waits to be accepted.
                    let is_wanted = is_shortage(&error) && sockets::is_called(&listener);
                    let freed = is_wanted && crowd.make_room();
                    if is_wanted && !freed {
                        spare.shed(&listener);
                    }
                    match freed {
                        true => drop(tokio::time::timeout(ACCEPT_PAUSE, gone).await),
                        false => tokio::time::sleep(ACCEPT_PAUSE).await,
                    }
                    continue;
                }
            };
            let is_one = !self.gateway.is_trusted(peer.ip());
            let Some(member) = crowd.arrive(is_one.then(|| Origin::of(peer.ip()))) else {
                metrics::counter!("hearth_connections_dropped_total").increment(1);
                continue;
            };
            let (front, drain) = (self.clone(), drain.clone());
            connections.spawn(async move {
                // It only makes small answers wait.
                let _ = stream.set_nodelay(true);
                let served = async {
                    let unheard = member.is(Presence::Silent);
                    let kept = front.gateway.keep(stream, peer, &front.stop).await;
                    drop(unheard);
                    let Some(connection) = kept else { return };
                    let unread = UNREAD_ANSWER_BYTES;
                    // The listener's own bound is there in any case.
                    let _ = sockopt::set_socket_send_buffer_size(&connection.stream, unread);
                    let answer = |request| front.clone().answer(request, peer);
                    serve(connection, drain, |presence| member.is(presence), answer).await;
                };
                tokio::select! {
                    () = served => {}
                    () = member.told() => {
                        metrics::counter!("hearth_connections_dropped_total").increment(1);
                    }
                }
                drop((member, permit));
            });
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }

    async fn answer(self, request: Request<Body>, peer: SocketAddr) -> Response {
        match self.gateway.target(&request) {
            Target::Platform if STATE_OF_HOST.contains(&request.uri().path()) => {
                self.platform(request, peer).await
            }
            _ if self.stop.is_cancelled() => {
                problem::answer(&Unavailable::stopping(), &request_id(request.headers()))
            }
            Target::Platform => self.platform(request, peer).await,
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
            Target::Stranger => {
                let problem = unknown_name(named(&request).unwrap_or_default());
                refuse(problem, None, &request_id(request.headers()))
            }
        }
    }

    async fn platform(self, mut request: Request<Body>, peer: SocketAddr) -> Response {
        request.extensions_mut().insert(ConnectInfo(peer));
        self.platform.oneshot(request).await.unwrap_or_else(|never| match never {})
    }

    /// Answers connections to tenants without a worker. How many there are is bounded by the places
    /// of each.
    pub async fn receive(
        self,
        mut turned: mpsc::Receiver<Turned>,
        bounds: Bounds,
        stop: CancellationToken,
    ) {
        let permits = Arc::new(Semaphore::new(bounds.turned));
        let connections = TaskTracker::new();
        let drain = drained(&stop);
        loop {
            let turned = tokio::select! {
                turned = turned.recv() => turned,
                () = stop.cancelled() => break,
            };
            let Some(turned) = turned else { break };
            let Turned { tenant, stream, unread, retry_after, cause, place } = turned;
            let Ok(permit) = permits.clone().try_acquire_owned() else {
                metrics::counter!("hearth_connections_dropped_total").increment(1);
                continue;
            };
            let (front, drain) = (self.clone(), drain.clone());
            connections.spawn(async move {
                match TcpStream::from_std(stream) {
                    Ok(stream) => {
                        let unread = unread.into();
                        let connection = Waiting { unread, ..Waiting::new(stream) };
                        let answer = move |request| {
                            let why = Unavailable::until(retry_after, cause);
                            front.clone().turn_away(tenant.clone(), why, request)
                        };
                        serve(connection, drain, |_| (), answer).await;
                    }
                    Err(error) => warn!(error = &error as &dyn std::error::Error, "turned away"),
                }
                drop((place, permit));
            });
        }
        connections.close();
        connections.wait().await;
    }

    /// A connection to the port of a tenant that backs off or is barred: an upload is taken, so
    /// that the fix can come this way; all else is told to come back.
    async fn turn_away(self, tenant: Tenant, why: Unavailable, request: Request<Body>) -> Response {
        let id = request_id(request.headers());
        let mut response = match upload_dir(request.method(), request.uri().path()) {
            _ if self.stop.is_cancelled() => problem::answer(&Unavailable::stopping(), &id),
            Some(dir) => self.uploads.answer(&tenant, dir, request).await,
            None => problem::answer(&why, &id),
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
        let id = request_id(request.headers());
        match self.store.tenant(name).await {
            Ok(Some(tenant)) => self.uploads.answer(&tenant, dir, request).await,
            Ok(None) => {
                let detail = format!("there is no tenant {name}");
                refuse(Problem::new(Code::NotFound, detail), None, &id)
            }
            Err(error) => problem::answer(&error, &id),
        }
    }
}

/// Serves one connection from outside until its end.
async fn serve<F, A, G>(
    connection: Waiting<TcpStream>,
    drain: watch::Receiver<Drain>,
    present: impl Fn(Presence) -> G,
    answer: F,
) where
    F: Fn(Request<Body>) -> A,
    A: Future<Output = Response>,
{
    let answer = |mut request: Request<Received>| {
        let pacing = request.body().pacing();
        request.extensions_mut().insert(pacing);
        let answered = answer(request.map(Body::new));
        async move { answered.await.map(|body| body.map_err(Into::into).boxed_unsync()) }
    };
    let break_off = |stream: &TcpStream| {
        // What cannot be done so ends as it would have.
        let _ = stream.set_zero_linger();
    };
    // What is between two requests is nobody else's: it ends with this.
    let side = Side::Outside;
    let _ = hearth_connection::serve(
        connection,
        side,
        Order::AtOnce,
        drain,
        present,
        break_off,
        answer,
    )
    .await;
}

/// Room for one more connection. Who has waited longest gives it, where there is none.
async fn place(permits: &Arc<Semaphore>, crowd: &Arc<Crowd>) -> OwnedSemaphorePermit {
    loop {
        if let Ok(permit) = permits.clone().try_acquire_owned() {
            return permit;
        }
        crowd.make_room();
        let freed = permits.clone().acquire_owned();
        if let Ok(permit) = tokio::time::timeout(ACCEPT_PAUSE, freed).await {
            return permit.expect("it is never closed");
        }
    }
}

/// A descriptor that is held for the moment in which there is no other.
struct Spare(Option<File>);

impl Spare {
    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// Takes one connection with it and closes that: its client hears at once that it is not served,
    /// and those behind it come nearer.
    fn shed(&mut self, listener: &TcpListener) {
        drop(self.0.take());
        if let Ok(Some(_closed)) = sockets::accept(listener.as_fd()) {
            metrics::counter!("hearth_connections_dropped_total").increment(1);
        }
        *self = Self::new();
    }
}

/// Says to connections that the host is stopping.
fn drained(stop: &CancellationToken) -> watch::Receiver<Drain> {
    let (told, drain) = watch::channel(Drain::No);
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => drop(told.send(Drain::Close(Instant::now()))),
            () = told.closed() => {}
        }
    });
    drain
}
