//! HTTP between a connection and a guest: the bodies on their way in and out.
//!
//! Both stream. The way in counts what a request may hold; the way out ends well only if the
//! guest did not fail in the middle, so that a caller can tell half an answer from a whole one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::call::{Abandon, Ledger};
use crate::connection::Received;

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
                self.ledger.break_off();
                return Poll::Ready(Some(Err(Error::Hyper(error))));
            }
        };
        if let Some(data) = frame.data_ref()
            && self.ledger.requested_bytes(data.len() as u64) > self.most
        {
            self.ledger.overflow();
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

/// The answer broke off after its head was out.
#[derive(Debug, thiserror::Error)]
pub enum BrokenAnswer {
    #[error("the function failed in the middle of its answer")]
    Failed,
    #[error("the function's body")]
    Guest(#[source] Error),
}

/// A guest's answer, as the connection writes it. Dropped before its end, it ends the call.
pub struct ResponseBody {
    inner: WasiBody,
    /// What is left of a body whose length was told: its end is not asked for then.
    left: Option<u64>,
    /// It is broken; what came before is let out first, so that the caller sees how far the
    /// function came.
    broken: bool,
    abandon: Abandon,
}

impl ResponseBody {
    pub fn new(inner: WasiBody, length: Option<u64>, mut abandon: Abandon) -> Self {
        if length == Some(0) {
            abandon.disarm();
        }
        Self { inner, left: length, broken: false, abandon }
    }

    fn ledger(&self) -> &Ledger {
        self.abandon.ledger()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenAnswer;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenAnswer>>> {
        if self.broken {
            return Poll::Ready(Some(Err(BrokenAnswer::Failed)));
        }
        match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let bytes = data.len() as u64;
                    self.ledger().answered_bytes(bytes);
                    self.left = self.left.map(|left| left.saturating_sub(bytes));
                    if self.left == Some(0) {
                        self.abandon.disarm();
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                // The guest gave its answer up and goes on; how that ends is still to be told.
                self.abandon.disarm();
                Poll::Ready(Some(Err(BrokenAnswer::Guest(error))))
            }
            None => {
                let missing = self.left.filter(|&left| left > 0);
                // A store that is dropped ends its bodies as if they were complete.
                if self.ledger().has_failed() || missing.is_some() {
                    if let Some(missing) = missing.filter(|_| !self.ledger().has_failed()) {
                        self.ledger().falls_short(missing);
                    }
                    self.broken = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                self.abandon.disarm();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && !self.ledger().has_failed()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
