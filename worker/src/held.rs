//! Bodies that are held whole: those that are small, so that a call has its request before it takes a
//! turn or an instance; and those that are judged by a schema.
//!
//! There is a bound on all that are held at once. Small ones are free; the rest take places.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hearth_wire::limits::{CHECKED_BODY_MAX_BYTES, READ_MAX_BYTES};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Of a request, read before anything is done for it: what comes with its head in one read. All
/// connections of a worker can hold no more than 16 MiB so.
const EARLY_BYTES: u64 = READ_MAX_BYTES as u64;
/// Held for nothing: 64 calls at once can hold no more than 4 MiB so.
const SMALL_BYTES: u64 = 64 << 10;

/// Whether a request's body is so small, by its own word, that it is read first. Not one that is
/// sent only when it is asked for: whether it is, is its function's to say.
pub fn is_early(headers: &HeaderMap, body: &impl Body) -> bool {
    body.size_hint().exact().is_some_and(|bytes| bytes <= EARLY_BYTES)
        && (body.is_end_stream() || !headers.contains_key(EXPECT))
}

/// For bodies that are not small.
pub struct Places(Arc<Semaphore>);

impl Places {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(kib(CHECKED_BODY_MAX_BYTES) as usize)))
    }

    async fn take(&self, bytes: u64) -> OwnedSemaphorePermit {
        let taken = Arc::clone(&self.0).acquire_many_owned(kib(bytes)).await;
        taken.expect("the semaphore is never closed")
    }
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX)
}

/// A whole body, and the places that it takes.
pub struct Held {
    pub bytes: Bytes,
    places: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// The body again, which gives its places back once it is read.
    pub fn into_body<E>(self) -> impl Body<Data = Bytes, Error = E> + Send {
        let Self { bytes, places } = self;
        Full::new(bytes)
            .map_frame(move |frame| {
                let _places = &places;
                frame
            })
            .map_err(|never| match never {})
    }
}

#[derive(Debug)]
pub enum HoldError<E> {
    TooLarge,
    Body(E),
}

/// Reads a body to its end, at most so many bytes of it.
pub async fn hold<B>(
    body: B,
    headers: &HeaderMap,
    most: u64,
    places: &Places,
) -> Result<Held, HoldError<B::Error>>
where
    B: Body<Data = Bytes>,
{
    let mut body = std::pin::pin!(body);
    let most = most.min(CHECKED_BODY_MAX_BYTES);
    let announced = headers.get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|announced| announced > most) {
        return Err(HoldError::TooLarge);
    }
    let mut taken = None;
    let mut pieces = Pieces::default();
    loop {
        let length = pieces.len() as u64;
        if length > SMALL_BYTES && taken.is_none() {
            // All of them at once, so that no two wait for what the other has.
            taken = Some(places.take(announced.unwrap_or(most).max(length)).await);
        }
        let frame = match body.frame().await {
            None => break,
            Some(frame) => frame.map_err(HoldError::Body)?,
        };
        let Ok(data) = frame.into_data() else { continue };
        if length + data.len() as u64 > most {
            return Err(HoldError::TooLarge);
        }
        pieces.push(data);
    }
    Ok(Held { bytes: pieces.join(), places: taken })
}

/// Pieces of a body that become one. Most bodies are one piece, which is not copied.
#[derive(Default)]
pub struct Pieces {
    first: Bytes,
    all: BytesMut,
}

impl Pieces {
    pub fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    pub fn push(&mut self, piece: Bytes) {
        if self.len() == 0 {
            self.first = piece;
        } else {
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
            self.all.extend_from_slice(&piece);
        }
    }

    pub fn join(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http::header::HeaderValue;
    use http_body::{Frame, SizeHint};

    use super::*;

    struct Frames(VecDeque<usize>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let length = self.0.pop_front();
            Poll::Ready(length.map(|length| Ok(Frame::data(vec![b'x'; length].into()))))
        }
    }

    /// How much came, and how many places it takes; `None` where it was too large.
    async fn held(
        frames: &[usize],
        announced: Option<u64>,
        most: u64,
        places: &Places,
    ) -> Option<(usize, usize)> {
        let body = Frames(frames.iter().copied().collect());
        let announced = announced.map(|length| (CONTENT_LENGTH, length.into()));
        let headers = announced.into_iter().collect();
        match hold(body, &headers, most, places).await {
            Ok(Held { bytes, places }) => {
                assert!(bytes.iter().all(|&byte| byte == b'x'));
                Some((bytes.len(), places.map_or(0, |permit| permit.num_permits())))
            }
            Err(HoldError::TooLarge) => None,
            Err(HoldError::Body(never)) => match never {},
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_body_is_held_up_to_its_bound_and_a_large_one_takes_places() {
        block_on(async {
            let places = Places::new();
            for (frames, announced, most, expected) in [
                (&[][..], None, 10, Some((0, 0))),
                (&[4, 0, 6], None, 10, Some((10, 0))),
                (&[4, 7], None, 10, None),
                (&[11], Some(11), 10, None),
                (&[65_536], None, 1 << 20, Some((65_536, 0))),
                (&[65_536, 1], None, 1 << 20, Some((65_537, 1 << 10))),
                (&[65_537], Some(65_537), 1 << 20, Some((65_537, 65))),
                (&[1 << 24], None, 1 << 30, Some((1 << 24, 1 << 14))),
                (&[1 << 24, 1], None, 1 << 30, None),
            ] {
                let held = held(frames, announced, most, &places).await;
                assert_eq!(held, expected, "{frames:?} {announced:?} {most}");
            }
            assert_eq!(places.0.available_permits() as u64, CHECKED_BODY_MAX_BYTES >> 10);
        });
    }

    #[test]
    fn large_bodies_take_turns_and_small_ones_need_not_wait() {
        block_on(async {
            let places = Places::new();
            let all = places.take(CHECKED_BODY_MAX_BYTES).await;
            assert_eq!(held(&[65_536], None, 1 << 20, &places).await, Some((65_536, 0)));
            let waiting = held(&[70_000], Some(70_000), 1 << 20, &places);
            let mut waiting = std::pin::pin!(waiting);
            assert!(futures_poll(waiting.as_mut()).await.is_pending());
            drop(all);
            assert_eq!(waiting.await, Some((70_000, 69)));
        });
    }

    async fn futures_poll<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
    }

    #[test]
    fn what_is_announced_and_small_comes_first_unless_it_waits_to_be_asked() {
        struct Announced(Option<u64>);

        impl Body for Announced {
            type Data = Bytes;
            type Error = Infallible;

            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                Poll::Pending
            }

            fn is_end_stream(&self) -> bool {
                self.0 == Some(0)
            }

            fn size_hint(&self) -> SizeHint {
                self.0.map(SizeHint::with_exact).unwrap_or_default()
            }
        }

        let expects = HeaderMap::from_iter([(EXPECT, HeaderValue::from_static("100-continue"))]);
        for (bytes, first, first_if_asked) in [
            (Some(0), true, true),
            (Some(1), true, false),
            (Some(16_384), true, false),
            (Some(16_385), false, false),
            (None, false, false),
        ] {
            let body = Announced(bytes);
            let early = [&HeaderMap::new(), &expects].map(|headers| is_early(headers, &body));
            assert_eq!(early, [first, first_if_asked], "{bytes:?}");
        }
    }
}
