//! A worker's connections, from outside and from the primary: who is at the other end, and what
//! that has to do with the tenant. How one is served, passed on and closed is
//! [`hearth_connection`]'s; what is answered is [`crate::serve`]'s; when to drain and where a
//! connection goes is [`crate::control`]'s.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
pub use hearth_connection::{Drain, Received};
use hearth_connection::{Order, Presence, Side, Socket, Waiting};
use http::Request;
use tokio::sync::watch;

use crate::finish::Time;
use crate::peer::Peer;
use crate::serve;
use crate::serving::Serving;

/// How the paths of uploads end, and no function's.
const UPLOAD: &str = "/$upload";

/// A connection as it comes to this process.
pub struct Arrival<S> {
    pub stream: S,
    pub peer: Peer,
    /// What another process has read of it.
    pub unread: Bytes,
    /// Since when it waits for its client.
    pub since: Instant,
    /// When its worker was woken, where that was for it.
    pub woken_at: Option<Instant>,
    /// Whether it was counted as one on which nothing was asked yet.
    pub is_newcomer: bool,
}

impl<S> Arrival<S> {
    pub fn new(stream: S, peer: Peer, woken_at: Option<Instant>) -> Self {
        let (unread, since) = (Bytes::new(), Instant::now());
        Self { stream, peer, unread, since, woken_at, is_newcomer: false }
    }
}

/// A connection between two requests, as it leaves this process.
pub struct Departure<S> {
    pub stream: S,
    pub peer: Peer,
    pub unread: Bytes,
    pub since: Instant,
}

/// Serves one connection to its end, or until it is another process's.
pub async fn serve<S>(
    arrival: Arrival<S>,
    serving: Arc<Serving>,
    drain: watch::Receiver<Drain>,
) -> Option<Departure<S>>
where
    S: Socket,
{
    let Arrival { stream, peer, unread, since, woken_at, is_newcomer } = arrival;
    let side = peer.side();
    let uploads = AtomicBool::new(false);
    // Of the first request alone.
    let first = Mutex::new((woken_at, is_newcomer));
    let answer = |request: Request<Received>| {
        uploads.store(request.uri().path().ends_with(UPLOAD), Ordering::Relaxed);
        let first = std::mem::take(&mut *first.lock().unwrap_or_else(PoisonError::into_inner));
        let (woken_at, is_newcomer) = first;
        if is_newcomer {
            serving.room.newcomers.give_back();
        }
        let cold = woken_at.map(|since| since.elapsed());
        let serving = Arc::clone(&serving);
        async move { serve::answer(&serving, peer, cold, request).await }
    };
    // A client in the middle of a head keeps the worker awake, as one in the middle of a call.
    let asking = |presence| match (presence, side) {
        (Presence::Asking, Side::Outside) => Some(serving.doing.activity.begin()),
        _ => None,
    };
    let arrival = Waiting { stream, unread, since };
    // A worker may not set how a socket ends: the primary closes some that it has had, and would
    // wait there for as long as a worker says.
    let break_off = |_: &S| ();
    let served =
        hearth_connection::serve(arrival, side, Order::InRound, drain, asking, break_off, answer);
    let cut = async {
        serving.doing.finish.comes(Time::Over).await;
        // That is no call, and has a time of its own.
        if uploads.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    let left = tokio::select! {
        biased;
        left = served => left,
        () = cut => None,
    };
    left.map(|Waiting { stream, unread, since }| Departure { stream, peer, unread, since })
}
