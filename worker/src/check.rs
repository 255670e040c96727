//! Requests and answers against a function's schemas: how much of a body is held for that, and
//! what a violation comes to. What a schema means is `hearth-schema`'s.
//!
//! A body with a schema is held whole, so there is a bound on all that are held at once. Small
//! ones are free; the rest take turns.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hearth_schema::{Checks, Extent};
use hearth_wire::limits::CHECKED_BODY_MAX_BYTES;
use hearth_wire::{Answers, Code, Problem, Violation};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::refusal::Refusal;

/// Held for nothing: 64 calls at once can hold no more than 4 MiB so.
const SMALL_BYTES: u64 = 64 << 10;
/// Checked beside the other calls' work and not before it.
const LONG_BYTES: usize = 256 << 10;
/// Of a check beside the others. Nothing can stop it but the worker's end.
const DEADLINE: Duration = Duration::from_secs(10);
/// Of them at once.
pub const THREADS: usize = 4;

/// The room for bodies that are being checked, each way.
pub struct Room {
    requests: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    stuck: Notify,
}

impl Room {
    pub fn new() -> Self {
        let room = || Arc::new(Semaphore::new(kib(CHECKED_BODY_MAX_BYTES) as usize));
        Self { requests: room(), answers: room(), stuck: Notify::new() }
    }

    /// Resolves when a check has not come to its end in time: a schema that leads back to itself
    /// and a value that was made for it can take for ever.
    pub async fn stuck(&self) {
        self.stuck.notified().await;
    }

    pub fn requests(&self) -> &Arc<Semaphore> {
        &self.requests
    }

    pub fn answers(&self) -> &Arc<Semaphore> {
        &self.answers
    }
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX)
}

/// A whole body, and the room that it takes.
pub struct Held {
    pub bytes: Bytes,
    pub room: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// The body again, which gives the room back once it is read.
    pub fn into_body<E>(self) -> impl Body<Data = Bytes, Error = E> + Send {
        let Self { bytes, room } = self;
        Full::new(bytes)
            .map_frame(move |frame| {
                let _room = &room;
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
    room: &Arc<Semaphore>,
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
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let length = (first.len() + all.len()) as u64;
        if length > SMALL_BYTES && taken.is_none() {
            // All of it at once, so that no two wait for what the other has.
            let needed = kib(announced.unwrap_or(most).max(length));
            let permit = Arc::clone(room).acquire_many_owned(needed).await;
            taken = Some(permit.expect("the room is never closed"));
        }
        let frame = match body.frame().await {
            None => break,
            Some(frame) => frame.map_err(HoldError::Body)?,
        };
        let Ok(data) = frame.into_data() else { continue };
        if length + data.len() as u64 > most {
            return Err(HoldError::TooLarge);
        }
        // Most bodies are one frame, which is not copied.
        if length == 0 {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    let bytes = if all.is_empty() { first } else { all.freeze() };
    Ok(Held { bytes, room: taken })
}

/// A request's body. Where a method has none as a rule, none is fine.
pub async fn request(
    room: &Room,
    checks: &Arc<Checks>,
    method: &Method,
    body: &Bytes,
) -> Result<(), Refusal> {
    let rare = !matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    if rare && body.is_empty() {
        return Ok(());
    }
    match beside(room, checks, body, |checks, body| checks.body(body)).await {
        Ok(found) => found.map_err(|errors| violation("body", errors)),
        Err(Stuck) => {
            let detail = format!(
                "the body could not be checked against its schema within {} s",
                DEADLINE.as_secs()
            );
            Err(Refusal::new(Code::Timeout, detail))
        }
    }
}

pub fn head(checks: &Checks, query: Option<&str>, headers: &HeaderMap) -> Result<(), Refusal> {
    checks.head(query, headers).map_err(|errors| violation("query or headers", errors))
}

fn violation(of: &str, errors: Vec<Violation>) -> Refusal {
    let first = errors.first().map(|first| format!(": at {:?}: {}", first.pointer, first.message));
    let detail =
        format!("the request's {of} is not what this function takes{}", first.unwrap_or_default());
    Problem { errors, ..Problem::new(Code::SchemaViolation, detail) }.into()
}

/// An answer's body. What is wrong is for the function's log.
pub async fn answer(
    room: &Room,
    checks: &Arc<Checks>,
    answers: Answers,
    body: &Bytes,
) -> Result<(), String> {
    let schema = String::from(answers);
    match beside(room, checks, body, move |checks, body| checks.response(answers, body)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err((pointer, message))) => {
            Err(format!("the answer breaks `schema.response.{schema}` at {pointer:?}: {message}"))
        }
        Err(Stuck) => Err(format!(
            "the answer could not be checked against `schema.response.{schema}` within {} s",
            DEADLINE.as_secs()
        )),
    }
}

struct Stuck;

/// A check that may be long is not done on the thread that serves everybody.
async fn beside<T: Send + 'static>(
    room: &Room,
    checks: &Arc<Checks>,
    body: &Bytes,
    check: impl FnOnce(&Checks, &[u8]) -> T + Send + 'static,
) -> Result<T, Stuck> {
    if body.len() < LONG_BYTES && checks.extent() == Extent::Plain {
        return Ok(check(checks, body));
    }
    let (checks, body) = (Arc::clone(checks), body.clone());
    let checking = tokio::task::spawn_blocking(move || check(&checks, &body));
    match tokio::time::timeout(DEADLINE, checking).await {
        Ok(checked) => Ok(checked.expect("a check does not panic, and the runtime outlives it")),
        Err(_) => {
            room.stuck.notify_one();
            Err(Stuck)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::Frame;

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

    /// How much came, and how much room it takes; `None` where it was too large.
    async fn held(
        frames: &[usize],
        announced: Option<u64>,
        most: u64,
        room: &Room,
    ) -> Option<(usize, usize)> {
        let body = Frames(frames.iter().copied().collect());
        let announced = announced.map(|length| (CONTENT_LENGTH, length.into()));
        let headers = announced.into_iter().collect();
        match hold(body, &headers, most, room.requests()).await {
            Ok(Held { bytes, room }) => {
                assert!(bytes.iter().all(|&byte| byte == b'x'));
                Some((bytes.len(), room.map_or(0, |permit| permit.num_permits())))
            }
            Err(HoldError::TooLarge) => None,
            Err(HoldError::Body(never)) => match never {},
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn a_body_is_held_up_to_its_bound_and_a_large_one_takes_room() {
        block_on(async {
            let room = Room::new();
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
                let held = held(frames, announced, most, &room).await;
                assert_eq!(held, expected, "{frames:?} {announced:?} {most}");
            }
            assert_eq!(room.requests.available_permits() as u64, CHECKED_BODY_MAX_BYTES >> 10);
        });
    }

    #[test]
    fn large_bodies_take_turns_and_small_ones_need_not_wait() {
        block_on(async {
            let room = Room::new();
            let all = Arc::clone(room.requests()).acquire_many_owned(1 << 14).await.unwrap();
            assert_eq!(held(&[65_536], None, 1 << 20, &room).await, Some((65_536, 0)));
            let waiting = held(&[70_000], Some(70_000), 1 << 20, &room);
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
    fn a_method_without_a_body_may_have_none() {
        block_on(async {
            let schemas = serde_json::json!({"body": {"type": "object"}});
            let schemas = hearth_wire::Schemas::from_value(schemas).unwrap();
            let checks = Arc::new(Checks::compile(&schemas).unwrap());
            let room = Room::new();
            let code = |checked: Result<(), Refusal>| checked.err().map(|refusal| refusal.code());
            let violation = Some(Code::SchemaViolation);
            for (method, body, expected) in [
                (Method::POST, "", violation),
                (Method::GET, "", None),
                (Method::GET, "1", violation),
                (Method::POST, "{}", None),
            ] {
                let checked = request(&room, &checks, &method, &Bytes::from(body)).await;
                assert_eq!(code(checked), expected, "{method} {body:?}");
            }
            let large = Bytes::from(vec![b' '; LONG_BYTES]);
            assert_eq!(code(request(&room, &checks, &Method::POST, &large).await), violation);
        });
    }
}
