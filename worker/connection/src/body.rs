//! A request's body and an answer's, which tell the gate how far they are.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use crate::Shared;
use crate::gate::{Drain, Exchange};
use crate::trailers::end_trailers;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;
pub type Answer = Response<AnswerBody>;

/// A request's body.
pub struct Received {
    incoming: Option<Incoming>,
    exchange: Exchange,
    shared: Shared,
}

impl Received {
    pub(crate) fn new(incoming: Incoming, exchange: Exchange, shared: Shared) -> Self {
        Self { incoming: Some(incoming), exchange, shared }
    }

    pub fn pacing(&self) -> Pacing {
        Pacing { exchange: self.exchange, shared: self.shared.clone() }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let mut polled = poll(incoming, this.exchange, &this.shared, cx);
        match &mut polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    end_trailers(trailers);
                }
            }
            Poll::Ready(Some(Err(_))) => this.incoming = None,
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Received {
    /// What nobody wanted is the connection's own to read, as long as hyper does not hear of it:
    /// it ends the connection, said or not.
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take() else { return };
        let left = incoming.size_hint().exact();
        if self.shared.lock().body_dropped(self.exchange, left) {
            self.shared.forget(Left { incoming, exchange: self.exchange });
        }
    }
}

/// Whose it is to say that a body's sender is too slow.
#[derive(Clone)]
pub struct Pacing {
    exchange: Exchange,
    shared: Shared,
}

impl Pacing {
    /// The next hop's, which knows whether anybody waits for more of the body: here it is passed on
    /// as it comes, wanted or not.
    pub fn leave_to_next_hop(&self) {
        self.shared.lock().is_paced_elsewhere(self.exchange);
    }
}

/// What is left of a body that nobody wants.
pub struct Left {
    incoming: Incoming,
    exchange: Exchange,
}

impl Left {
    /// Reads on. Whether there is more to wait for.
    pub fn goes_on(&mut self, shared: &Shared, drain: Drain, cx: &mut Context<'_>) -> bool {
        while shared.lock().forgets(self.exchange, drain) {
            if poll(&mut self.incoming, self.exchange, shared, cx).is_pending() {
                return true;
            }
        }
        false
    }
}

fn poll(
    incoming: &mut Incoming,
    exchange: Exchange,
    shared: &Shared,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    let polled = Pin::new(&mut *incoming).poll_frame(cx);
    match &polled {
        Poll::Pending => shared.body_wanted(exchange),
        Poll::Ready(Some(Ok(_))) => shared.body_came(exchange, incoming.is_end_stream()),
        Poll::Ready(Some(Err(_))) => shared.lock().body_broke(exchange),
        Poll::Ready(None) => shared.body_came(exchange, true),
    }
    polled
}

/// An answer's body.
pub struct Answering {
    pub(crate) body: AnswerBody,
    pub(crate) exchange: Exchange,
    pub(crate) shared: Shared,
}

impl Body for Answering {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = &polled {
            self.shared.lock().cut(self.exchange);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.shared.lock().responded(self.exchange, Instant::now());
    }
}
