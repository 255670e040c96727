//! What workers ask of the host: their uplinks, HTTP/2 over socket pairs, and the one place that
//! serves what comes on them, by path.
//!
//! ```text
//!  a worker ── uplink of a kind ──► serve ── Services ─┬─ $upload ──► upload
//!                                                      └─ all else: 404
//! ```
//!
//! Owns the connections while they last, and which service an address leads to. Whose a connection
//! is follows from its socket; how many there may be is decided where they are opened, in
//! `fleet`. What can be asked for, on connections of which kind and within which bounds, is
//! [`hearth_wire::uplink`]'s to say.
//!
//! A worker may be hostile: it can ask for no more than its tenant could, so each service asks for
//! what its caller brought. What one stream or one connection takes is bounded, whoever reads or
//! sends no more; a worker that opens or resets too many loses its connection.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use hearth_wire::limits::{HEAD_MAX_BYTES, PASSED_ON_BYTES};
use hearth_wire::uplink::{Bounds, Kind, Service};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::fleet::Uplink;
use crate::refusal::{refuse, request_id};
use crate::store::Tenant;
use crate::upload::request::UploadRequests;

/// Everything that a worker can ask for.
#[derive(Clone)]
pub struct Services {
    pub uploads: UploadRequests,
}

impl Services {
    /// Serves uplinks as they are opened, until told to stop; returns when every one has ended.
    pub async fn run(self, mut opened: mpsc::Receiver<Uplink>, stop: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let uplink = tokio::select! {
                uplink = opened.recv() => uplink,
                () = stop.cancelled() => break,
            };
            let Some(Uplink { tenant, worker, kind, stream, place }) = uplink else { break };
            let (services, stop) = (self.clone(), stop.clone());
            connections.spawn(async move {
                let tenant = Arc::new(tenant);
                let answer = |request| services.clone().answer(tenant.clone(), kind, request);
                if let Err(error) = serve(stream, kind.bounds(), stop, answer).await {
                    let error = &error as &dyn std::error::Error;
                    let (tenant, worker, kind) = (&tenant.name, worker.0, kind.as_str());
                    debug!(%tenant, worker, kind, error, "uplink closed");
                }
                drop(place);
            });
        }
        connections.close();
        connections.wait().await;
    }

    async fn answer(self, tenant: Arc<Tenant>, kind: Kind, request: Request<Body>) -> Response {
        match Service::find(kind, request.method(), request.uri().path()) {
            Ok(Service::Upload { dir }) => self.uploads.answer(&tenant, Ok(dir), request).await,
            Err(problem) => refuse(*problem, None, &request_id(request.headers())),
        }
    }
}

/// Serves one connection, within these bounds, until its end or until what is on it has ended.
async fn serve<F, A>(
    stream: UnixStream,
    bounds: Bounds,
    stop: CancellationToken,
    answer: F,
) -> hyper::Result<()>
where
    F: Fn(Request<Body>) -> A,
    A: Future<Output = Response> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answered = answer(request.map(Body::new));
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.streams)
        .max_pending_accept_reset_streams(Some(bounds.streams as usize))
        .max_local_error_reset_streams(Some(bounds.streams as usize))
        .initial_stream_window_size(bounds.window_bytes)
        .initial_connection_window_size(bounds.connection_window_bytes())
        .max_send_buf_size(bounds.window_bytes as usize)
        .max_header_list_size((HEAD_MAX_BYTES + PASSED_ON_BYTES) as u32);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

#[cfg(test)]
mod tests;
