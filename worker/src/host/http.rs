//! HTTP between a connection and a guest: the bodies on their way in and out.
//!
//! Both stream. The way in counts what a request may hold; the way out ends well only if the
//! guest did not fail in the middle, so that a caller can tell half an answer from a whole one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hearth_connection::Received;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::ledger::{Abandon, Failure, Ledger};
use crate::meeting::Unfit;

/// A request's body, as the guest reads it.
pub struct RequestBody {
    received: Received,
    most: u64,
    ledger: Arc<Ledger>,
}

impl RequestBody {
    /// The ledger is told what comes, and if it turns out to be more than `most` bytes, or none.
    pub fn new(received: Received, most: u64, ledger: Arc<Ledger>) -> Self {
        Self { received, most, ledger }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(frame) = ready!(Pin::new(&mut self.received).poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                self.ledger.refuse(Unfit::Broken);
                return Poll::Ready(Some(Err(Error::Hyper(error))));
            }
        };
        if let Some(data) = frame.data_ref()
            && self.ledger.requested_bytes(data.len() as u64) > self.most
        {
            self.ledger.refuse(Unfit::TooLarge);
            return Poll::Ready(Some(Err(Error::HttpRequestBodySize(Some(self.most)))));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.received.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.received.size_hint()
    }
}

/// The answer broke off after its head was out. Why, its call's ledger knows.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub struct BrokenAnswer;

/// A guest's answer, as the connection writes it. Dropped before its end, it ends the call.
pub struct ResponseBody {
    /// First, so that the guest hears that its caller went before it hears that nobody reads it.
    abandon: Abandon,
    inner: WasiBody,
    /// What came of it before its head went out.
    first: Option<Frame<Bytes>>,
    /// What is left of a body whose length was told: its end is not asked for then.
    left: Option<u64>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Whole,
    /// It is broken; what came before is let out first, so that the caller sees how far the
    /// function came.
    Broken,
}

impl ResponseBody {
    /// One that nobody reads.
    pub fn none(abandon: Abandon) -> Self {
        let inner = Empty::new().map_err(|never| match never {}).boxed_unsync();
        Self { abandon, inner, first: None, left: Some(0), state: State::Whole }
    }

    /// Waits for what comes first of it, or for the moment that its head may be held for.
    pub async fn begun(
        mut inner: WasiBody,
        length: Option<u64>,
        mut abandon: Abandon,
        moment: impl Future<Output = ()>,
    ) -> Result<Self, Failure> {
        let left = length.or(inner.size_hint().exact());
        let mut moment = std::pin::pin!(moment);
        let first = std::future::poll_fn(|cx| {
            if abandon.ledger().is_refused(cx) {
                return Poll::Ready(First::Broken);
            }
            match Pin::new(&mut inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => Poll::Ready(First::Frame(frame)),
                Poll::Ready(Some(Err(error))) => {
                    abandon.ledger().gives_up(&error);
                    Poll::Ready(First::Broken)
                }
                Poll::Ready(None) => Poll::Ready(First::End),
                Poll::Pending => moment.as_mut().poll(cx).map(|()| First::Later),
            }
        });
        let (first, state) = match first.await {
            First::Frame(frame) => (Some(frame), State::Open),
            First::Later => (None, State::Open),
            First::End if is_whole(abandon.ledger(), left) => (None, State::Whole),
            First::End | First::Broken => return Err(abandon.ledger().failure()),
        };
        if state == State::Whole {
            abandon.disarm();
        }
        Ok(Self { abandon, inner, first, left, state })
    }

    fn ledger(&self) -> &Ledger {
        self.abandon.ledger()
    }

    fn breaks(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenAnswer>>> {
        self.state = State::Broken;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// What is known of an answer before its head goes out.
enum First {
    Frame(Frame<Bytes>),
    End,
    Later,
    Broken,
}

/// Whether a body that has ended is all of it. A store that is dropped ends its bodies as if they
/// were complete.
fn is_whole(ledger: &Ledger, left: Option<u64>) -> bool {
    if ledger.has_failed() {
        return false;
    }
    match left {
        Some(missing) if missing > 0 => {
            ledger.falls_short(missing);
            false
        }
        _ => true,
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenAnswer;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenAnswer>>> {
        match self.state {
            State::Open => {}
            State::Whole => return Poll::Ready(None),
            State::Broken => return Poll::Ready(Some(Err(BrokenAnswer))),
        }
        if self.ledger().is_refused(cx) {
            return self.breaks(cx);
        }
        let frame = match self.first.take() {
            Some(frame) => Some(Ok(frame)),
            None => ready!(Pin::new(&mut self.inner).poll_frame(cx)),
        };
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let bytes = data.len() as u64;
                    self.ledger().answered_bytes(bytes);
                    self.left = self.left.map(|left| left.saturating_sub(bytes));
                    if self.left == Some(0) {
                        self.state = State::Whole;
                        self.abandon.disarm();
                    }
                } else {
                    // Trailers, behind which nobody asks for an end.
                    self.state = State::Whole;
                    self.abandon.disarm();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.ledger().gives_up(&error);
                self.breaks(cx)
            }
            None if is_whole(self.ledger(), self.left) => {
                self.state = State::Whole;
                self.abandon.disarm();
                Poll::Ready(None)
            }
            None => self.breaks(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Whole
    }

    fn size_hint(&self) -> SizeHint {
        match (self.state, self.left) {
            (State::Whole, _) => SizeHint::with_exact(0),
            (_, Some(left)) => SizeHint::with_exact(left),
            (_, None) => SizeHint::default(),
        }
    }
}
