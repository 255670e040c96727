//! The same connection on hyper alone: no gate, no deadline, no hand-over. What the bench
//! compares with, and never part of what is installed.

use std::convert::Infallible;
use std::io::Cursor;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use crate::gate::{Drain, Gate, Presence, Side};
use crate::{Answer, Order, Received, Shared, Socket, Waiting};

pub async fn serve<S, F, A, G>(
    arrival: Waiting<S>,
    side: Side,
    order: Order,
    _drain: watch::Receiver<Drain>,
    _present: impl Fn(Presence) -> G,
    _break_off: impl Fn(&S),
    answer: F,
) -> Option<Waiting<S>>
where
    S: Socket,
    F: Fn(Request<Received>) -> A,
    A: Future<Output = Answer>,
{
    let shared = Shared::new(Gate::new(Side::Outside, arrival.since, false));
    let service = service_fn(|request: Request<Incoming>| {
        let exchange = shared.lock().requested(false, false, false);
        let answered = answer(request.map(|body| Received::new(body, exchange, shared.clone())));
        let shared = shared.clone();
        async move {
            let answer = answered.await;
            if order == Order::InRound {
                shared.0.due.behind_the_others().await;
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = http1::Builder::new();
    http.max_buf_size(side.head_max_bytes()).max_headers(side.head_max_fields());
    http.header_read_timeout(None);
    // How it ends is its client's business.
    let _ = if arrival.unread.is_empty() {
        http.serve_connection(TokioIo::new(arrival.stream), service).await
    } else {
        // At the front door, whose connections are not what is measured.
        let (reads, writes) = tokio::io::split(arrival.stream);
        let stream = tokio::io::join(Cursor::new(arrival.unread).chain(reads), writes);
        http.serve_connection(TokioIo::new(stream), service).await
    };
    None
}
