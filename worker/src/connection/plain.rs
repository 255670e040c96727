//! The same connection on hyper alone: no gate, no deadline, no hand-over. What the bench
//! compares with, and never part of what is installed.

use std::convert::Infallible;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::gate::{Drain, Gate, Side};
use super::{Arrival, Departure, HEADERS_MAX, Received, Shared};
use crate::serve::{self, Tenant};
use hearth_wire::limits::HEAD_MAX_BYTES;

pub async fn serve<S>(
    arrival: Arrival<S>,
    tenant: Arc<Tenant>,
    _drain: watch::Receiver<Drain>,
) -> Option<Departure<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Arrival { stream, peer, since, .. } = arrival;
    let shared = Shared::new(Gate::new(Side::Outside, since, false));
    let service = service_fn(|request: Request<Incoming>| {
        let request = request.map(|body| Received::new(body, shared.clone()));
        let tenant = Arc::clone(&tenant);
        async move { Ok::<_, Infallible>(serve::answer(&tenant, peer, None, request).await) }
    });
    // How it ends is its client's business.
    let _ = http1::Builder::new()
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    None
}
