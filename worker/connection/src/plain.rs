//! The same connection on hyper alone: no gate, no deadline, no hand-over. What the bench
//! compares with, and never part of what is installed.

use std::convert::Infallible;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::gate::{Drain, Gate, Presence, Side};
use crate::{Answer, Received, Shared, Waiting};

pub async fn serve<S, F, A, G>(
    arrival: Waiting<S>,
    side: Side,
    _drain: watch::Receiver<Drain>,
    _present: impl Fn(Presence) -> G,
    answer: F,
) -> Option<Waiting<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Received>) -> A,
    A: Future<Output = Answer>,
{
    let shared = Shared::new(Gate::new(Side::Outside, arrival.since, false));
    let service = service_fn(|request: Request<Incoming>| {
        let answered = answer(request.map(|body| Received::new(body, shared.clone())));
        async move { Ok::<_, Infallible>(answered.await) }
    });
    // How it ends is its client's business.
    let _ = http1::Builder::new()
        .max_buf_size(side.head_max_bytes())
        .max_headers(side.head_max_fields())
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(arrival.stream), service)
        .await;
    None
}
