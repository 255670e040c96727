//! HTTP between a connection and a guest: the bodies on their way in and out.
//!
//! Both stream. The way in counts what a request may hold; the way out ends well only if the
//! guest did not fail in the middle, so that a caller can tell half an answer from a whole one.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hearth_connection::Received;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::held::Pieces;
use crate::ledger::{Abandon, Failure, Ledger};
use crate::meeting::Unfit;

/// What is taken of an answer before its head goes out. A function that writes no more than that has
/// ended by then, in the usual case.
const BEGUN_BYTES: u64 = 16 << 10;

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
    begun: Begun,
    /// What is left of a body whose length is told: its end is not asked for then.
    left: Option<u64>,
    state: State,
}

#[derive(Default)]
struct Begun {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Whole,
    /// It breaks behind what has come of it, so that the caller sees how far the function came.
    Breaking,
    /// It is broken, and what came before is let out.
    Broken,
}

impl ResponseBody {
    /// One that nobody reads.
    pub fn none(abandon: Abandon) -> Self {
        let inner = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let begun = Begun::default();
        Self { abandon, inner, begun, left: Some(0), state: State::Whole }
    }

    /// Takes what there is of it, or waits for that, but no longer than its head may be held. One
    /// that is there whole goes out with its length.
    pub async fn begun(
        mut inner: WasiBody,
        length: Option<u64>,
        mut abandon: Abandon,
        moment: impl Future<Output = ()>,
    ) -> Result<Self, Failure> {
        let left = length.or(inner.size_hint().exact());
        let mut moment = pin!(moment);
        let mut pieces = Pieces::default();
        let came = poll_fn(|cx| {
            if abandon.ledger().is_refused(cx) {
                return Poll::Ready(Came::Broken);
            }
            loop {
                let bytes = pieces.len() as u64;
                let is_promised = bytes > 0 && left.is_some_and(|left| bytes >= left);
                if is_promised || bytes > BEGUN_BYTES {
                    return Poll::Ready(Came::Some);
                }
                let frame = match Pin::new(&mut inner).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => frame,
                    Poll::Ready(Some(Err(error))) => {
                        abandon.ledger().gives_up(&error);
                        return Poll::Ready(Came::Broken);
                    }
                    Poll::Ready(None) => return Poll::Ready(Came::All),
                    Poll::Pending if bytes > 0 => return Poll::Ready(Came::Some),
                    Poll::Pending => return moment.as_mut().poll(cx).map(|()| Came::Some),
                };
                match frame.into_data() {
                    Ok(data) => pieces.push(data),
                    Err(frame) => return Poll::Ready(Came::Trailers(frame.into_trailers().ok())),
                }
            }
        });
        let came = came.await;
        let bytes = pieces.len() as u64;
        let data = (bytes > 0).then(|| pieces.join());
        let missing = left.map(|left| left.saturating_sub(bytes));
        let (left, trailers, state) = match came {
            Came::Some => (left, None, State::Open),
            Came::Trailers(trailers) => (left, trailers, State::Open),
            Came::All if is_whole(abandon.ledger(), missing) => match bytes {
                0 => {
                    abandon.disarm();
                    (left, None, State::Whole)
                }
                bytes => (Some(left.unwrap_or(bytes)), None, State::Open),
            },
            Came::All | Came::Broken if bytes == 0 => return Err(abandon.ledger().failure()),
            Came::All | Came::Broken => (left, None, State::Breaking),
        };
        Ok(Self { abandon, inner, begun: Begun { data, trailers }, left, state })
    }

    fn ledger(&self) -> &Ledger {
        self.abandon.ledger()
    }

    fn breaks(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenAnswer>>> {
        self.state = State::Broken;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_whole_now(&mut self) {
        self.state = State::Whole;
        self.abandon.disarm();
    }
}

/// What is known of an answer before its head goes out.
enum Came {
    /// What has come, which may be nothing.
    Some,
    Trailers(Option<HeaderMap>),
    All,
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
            State::Open | State::Breaking => {}
            State::Whole => return Poll::Ready(None),
            State::Broken => return Poll::Ready(Some(Err(BrokenAnswer))),
        }
        if self.ledger().is_refused(cx) {
            return self.breaks(cx);
        }
        let frame = if let Some(data) = self.begun.data.take() {
            Some(Ok(Frame::data(data)))
        } else if self.state == State::Breaking {
            return self.breaks(cx);
        } else if let Some(trailers) = self.begun.trailers.take() {
            Some(Ok(Frame::trailers(trailers)))
        } else {
            ready!(Pin::new(&mut self.inner).poll_frame(cx))
        };
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let bytes = data.len() as u64;
                    self.ledger().answered_bytes(bytes);
                    self.left = self.left.map(|left| left.saturating_sub(bytes));
                    if self.left == Some(0) && self.state == State::Open {
                        self.is_whole_now();
                    }
                } else {
                    // Trailers, behind which nobody asks for an end.
                    self.is_whole_now();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.ledger().gives_up(&error);
                self.breaks(cx)
            }
            None if is_whole(self.ledger(), self.left) => {
                self.is_whole_now();
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Instant;

    use hearth_wire::{Origin, Outcome, RequestId};
    use http::{HeaderMap, Method};

    use super::*;
    use crate::report::{CallLog, Reporter};
    use crate::scrub::Scrub;

    /// What a function's body does when it is asked for more, one thing after another.
    #[derive(Clone, Copy)]
    enum Does {
        Sends(&'static str),
        Waits,
        Trails,
        Breaks,
        /// Its guest fails, which ends its body as if it were whole.
        Fails,
    }
    use Does::{Breaks, Fails, Sends, Trails, Waits};

    struct Scripted {
        script: VecDeque<Does>,
        ledger: Arc<Ledger>,
    }

    impl Body for Scripted {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            Poll::Ready(match self.script.pop_front() {
                Some(Sends(text)) => Some(Ok(Frame::data(text.into()))),
                Some(Waits) => return Poll::Pending,
                Some(Trails) => Some(Ok(Frame::trailers(HeaderMap::new()))),
                Some(Breaks) => Some(Err(Error::HttpProtocolError)),
                Some(Fails) => {
                    self.ledger.end(Outcome::Trapped);
                    None
                }
                None => None,
            })
        }
    }

    fn ledger() -> Arc<Ledger> {
        let log = CallLog {
            reporter: Reporter::new(1 << 20, Scrub::default()),
            function: "/one".parse().unwrap(),
            version: 1.into(),
            request_id: RequestId::from_random([7; 16]),
        };
        Arc::new(Ledger::new(log, Origin::Outside, &Method::POST, Instant::now(), None))
    }

    /// What is known of its length when its head goes out, and then all that comes of it: pieces,
    /// `-` where it waits, `;` for trailers, `!` where it breaks off. Or why there is no answer.
    fn comes(length: Option<u64>, script: &[Does]) -> Result<(Option<u64>, String), Failure> {
        let ledger = ledger();
        let script = script.iter().copied().collect();
        let inner = Scripted { script, ledger: Arc::clone(&ledger) }.boxed_unsync();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let abandon = Abandon::armed(Arc::clone(&ledger));
            let moment = std::future::ready(());
            let mut body = ResponseBody::begun(inner, length, abandon, moment).await?;
            let (length, mut came) = (body.size_hint().exact(), String::new());
            while !body.is_end_stream() {
                let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await;
                match polled {
                    Poll::Pending => came.push('-'),
                    Poll::Ready(None) => break,
                    Poll::Ready(Some(Err(BrokenAnswer))) => {
                        came.push('!');
                        break;
                    }
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => came += &format!("{}.", String::from_utf8_lossy(&data)),
                        Err(_) => came.push(';'),
                    },
                }
            }
            Ok((length, came))
        })
    }

    #[test]
    fn what_is_there_whole_has_its_length_and_the_rest_goes_on_as_it_comes() {
        let whole = |length, came: &str| Ok((Some(length), came.to_owned()));
        let open = |came: &str| Ok((None, came.to_owned()));
        for (length, script, expected) in [
            (None, &[][..], whole(0, "")),
            (None, &[Sends("one")], whole(3, "one.")),
            (None, &[Sends("one"), Sends(""), Sends("two")], whole(6, "onetwo.")),
            // Without an end it is not whole yet, and its beginning is not kept for that.
            (None, &[Sends("one"), Waits], open("one.")),
            (None, &[Sends("one"), Sends("two"), Waits, Sends("three")], open("onetwo.three.")),
            (None, &[Waits], open("")),
            (None, &[Waits, Sends("one"), Waits], open("one.-")),
            // Trailers have a place behind chunks alone.
            (None, &[Sends("one"), Trails], open("one.;")),
            (None, &[Trails], open(";")),
            // A length of its own is a promise, and its end is not asked for.
            (Some(3), &[Sends("one"), Waits], whole(3, "one.")),
            (Some(3), &[Sends("o"), Sends("ne"), Waits], whole(3, "one.")),
            (Some(6), &[Sends("one"), Waits, Sends("two"), Waits], whole(6, "one.two.")),
            (Some(2), &[Sends("one")], whole(2, "one.")),
            (Some(0), &[], whole(0, "")),
            (Some(4), &[Sends("one")], whole(4, "one.-!")),
            (Some(4), &[], Err(Failure::Trapped)),
            // As far as it came is told, where anything came.
            (None, &[Breaks], Err(Failure::Trapped)),
            (None, &[Fails], Err(Failure::Trapped)),
            (None, &[Sends("one"), Breaks], open("one.-!")),
            (None, &[Sends("one"), Sends("two"), Fails], open("onetwo.-!")),
            (None, &[Sends("one"), Waits, Fails], open("one.-!")),
            (Some(6), &[Sends("one"), Fails], whole(6, "one.-!")),
        ] {
            assert_eq!(comes(length, script), expected, "{length:?} of {expected:?}");
        }
    }

    #[test]
    fn no_more_is_taken_than_may_be_held() {
        const PIECE: &str = match std::str::from_utf8(&[b'x'; 4 << 10]) {
            Ok(piece) => piece,
            Err(_) => "",
        };
        let held = |pieces| comes(None, &vec![Sends(PIECE); pieces]).unwrap().0;
        assert_eq!([held(1), held(4)], [Some(4 << 10), Some(16 << 10)]);
        // It may go on.
        assert_eq!([held(5), held(100)], [None, None]);
    }
}
