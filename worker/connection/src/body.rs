//! A request's body and an answer's, which tell the gate how far they are.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use crate::Shared;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;
pub type Answer = Response<AnswerBody>;

/// What is read of a body that its function did not want, so that the connection can be kept.
const FORGOTTEN_MAX: (usize, Duration) = (256 << 10, Duration::from_secs(5));

/// A request's body.
pub struct Received {
    incoming: Option<Incoming>,
    /// Nobody wants what is left of it.
    forgotten: bool,
    shared: Shared,
}

impl Received {
    pub(crate) fn new(incoming: Incoming, shared: Shared) -> Self {
        Self { incoming: Some(incoming), forgotten: false, shared }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let whole = matches!(polled, Poll::Ready(None)) || incoming.is_end_stream();
        match polled {
            Poll::Pending => self.shared.body_wanted(cx.waker()),
            Poll::Ready(_) => self.shared.body_came(whole),
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
    /// What nobody wanted is read and forgotten, since the next request comes after it. Where
    /// that would be much, or is not sent before we ask for it, hyper ends the connection.
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take() else { return };
        let forgets = {
            let gate = self.shared.lock();
            !self.forgotten && gate.body_is_left() && !gate.continue_is_owed()
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && forgets
        {
            let (incoming, shared) = (Some(incoming), self.shared.clone());
            runtime.spawn(forget(Self { incoming, forgotten: true, shared }));
        }
    }
}

async fn forget(mut body: Received) {
    let (most, deadline) = FORGOTTEN_MAX;
    let reading = async {
        let mut forgotten = 0;
        while forgotten <= most {
            match body.frame().await {
                Some(Ok(frame)) => forgotten += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => break,
            }
        }
    };
    // Whether it came whole the gate has heard.
    let _ = tokio::time::timeout(deadline, reading).await;
}

/// An answer's body.
pub struct Answering {
    pub(crate) body: AnswerBody,
    pub(crate) shared: Shared,
}

impl Body for Answering {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
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
        self.shared.lock().responded(Instant::now());
    }
}
