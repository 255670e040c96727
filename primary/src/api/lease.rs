//! How long a token holds for what it began. Whatever is looked at once is over before anybody could
//! take its token away; what goes on, a stream of events or a body under way, ends with its token.
//!
//! Looks at bodies from outside: no handler has to know of it. What a request asked for is carried
//! out once its body is here, since then nothing more is taken from whoever sent it.

use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hearth_wire::{Code, Problem};
use http::request::Parts;
use http_body::{Frame, SizeHint};
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::error::Refusal;
use crate::store::Removed;

/// The clock of the wall may be set meanwhile.
const LOOK: Duration = Duration::from_secs(10);

/// Says of an answer that it is a stream of events, in which an end can be told.
#[derive(Debug, Clone, Copy)]
pub struct Events;

/// Why a token holds no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Removed,
    Expired,
}

impl Ended {
    pub fn problem(self) -> Problem {
        let detail = match self {
            Self::Removed => "this token was removed",
            Self::Expired => "this token has expired",
        };
        Problem::new(Code::Unauthenticated, detail)
    }

    fn event(self) -> Bytes {
        let json = String::from_utf8(self.problem().to_json()).expect("JSON is UTF-8");
        format!("event: ended\ndata: {json}\n\n").into()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem().detail)
    }
}

impl std::error::Error for Ended {}

/// A token that was good when it was looked at.
pub struct Lease {
    id: i64,
    expires_at: Option<Timestamp>,
    removed: Removed,
}

impl Lease {
    pub fn new(id: i64, expires_at: Option<Timestamp>, removed: Removed) -> Self {
        Self { id, expires_at, removed }
    }

    async fn ended(&mut self) -> Ended {
        tokio::select! {
            () = self.removed.wait(self.id) => Ended::Removed,
            () = expired(self.expires_at) => Ended::Expired,
        }
    }

    /// Does what takes a body, unless the token ends before the body does.
    pub async fn over<T>(
        &mut self,
        coming: &Coming,
        work: impl Future<Output = T>,
    ) -> Result<T, Ended> {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            done = &mut work => return Ok(done),
            ended = self.ended() => if coming.is_coming() {
                return Err(ended);
            },
        }
        Ok(work.await)
    }
}

async fn expired(at: Option<Timestamp>) {
    let Some(at) = at else { return pending().await };
    loop {
        match Duration::try_from(Timestamp::now().duration_until(at)) {
            Ok(left) if !left.is_zero() => sleep(left.min(LOOK)).await,
            // It is behind us.
            Ok(_) | Err(_) => return,
        }
    }
}

/// Whether more of a request's body is to come.
#[derive(Clone)]
pub struct Coming(Arc<AtomicBool>);

impl Coming {
    pub fn of(body: Body) -> (Body, Self) {
        let coming = Self(Arc::new(AtomicBool::new(!body.is_end_stream())));
        (Body::new(Watched { body, coming: coming.clone() }), coming)
    }

    fn is_coming(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

struct Watched {
    body: Body,
    coming: Coming,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.coming.0.store(false, Ordering::Release);
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

/// Where whoever looks at a request's token leaves how long it holds.
#[derive(Clone)]
struct Slot(Arc<Mutex<Option<oneshot::Sender<Lease>>>>);

/// Leaves it to [`hold`].
pub fn give(parts: &Parts, lease: Lease) {
    if let Some(Slot(slot)) = parts.extensions.get()
        && let Some(slot) = slot.lock().unwrap_or_else(PoisonError::into_inner).take()
    {
        // Nobody waits for it where the request has ended.
        let _ = slot.send(lease);
    }
}

/// Around every operation: its token is looked at within, by `auth.rs`.
pub async fn hold(request: Request, next: Next) -> Response {
    let (slot, mut given) = oneshot::channel();
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(Slot(Arc::new(Mutex::new(Some(slot)))));
    let (body, coming) = Coming::of(body);
    let mut answering = std::pin::pin!(next.run(Request::from_parts(parts, body)));
    let (answered, lease) = tokio::select! {
        biased;
        lease = &mut given => match lease {
            Ok(mut lease) => match lease.over(&coming, &mut answering).await {
                Ok(answered) => (answered, Some(lease)),
                Err(ended) => return Refusal::from(ended.problem()).into_response(),
            },
            // It asks for no token.
            Err(_) => (answering.await, None),
        },
        answered = &mut answering => (answered, given.try_recv().ok()),
    };
    let Some(lease) = lease else { return answered };
    // What is whole already tells nothing that comes later.
    if answered.body().size_hint().exact().is_some() {
        return answered;
    }
    let (mut parts, body) = answered.into_parts();
    let last = parts.extensions.remove::<Events>();
    Response::from_parts(parts, Body::new(Leased::new(body, lease, last)))
}

/// A body that ends with its token: with a last word where there is a place for one, else broken off.
struct Leased {
    body: Body,
    ended: Pin<Box<dyn Future<Output = Ended> + Send>>,
    last: Option<Events>,
    is_over: bool,
}

impl Leased {
    fn new(body: Body, mut lease: Lease, last: Option<Events>) -> Self {
        let ended = Box::pin(async move { lease.ended().await });
        Self { body, ended, last, is_over: false }
    }
}

impl HttpBody for Leased {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(ended) = self.ended.as_mut().poll(cx) {
            self.is_over = true;
            // What stands behind it is left at once, and not when the connection closes.
            self.body = Body::empty();
            return Poll::Ready(Some(match self.last {
                Some(Events) => Ok(Frame::data(ended.event())),
                None => Err(axum::Error::new(ended)),
            }));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::State;
    use axum::middleware;
    use axum::routing::{get, post};
    use futures_util::stream;
    use hearth_wire::Scope;
    use http::StatusCode;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::actor::Author;
    use crate::api::auth::Admin;
    use crate::store::Store;

    /// Says one thing and then nothing.
    fn endless() -> Body {
        let once = stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"begun")) });
        Body::from_stream(futures_util::StreamExt::chain(once, stream::pending()))
    }

    async fn plain(_admin: Admin) -> Response {
        Response::new(endless())
    }

    async fn events(_admin: Admin) -> Response {
        let mut response = Response::new(endless());
        response.extensions_mut().insert(Events);
        response
    }

    async fn take(_admin: Admin, State(store): State<Store>, body: Bytes) -> Response {
        // Long after the body has come.
        let _ = store.tokens(None).await;
        Response::new(Body::from(body))
    }

    async fn here() -> (tempfile::TempDir, Store, Router) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let router = Router::new()
            .route("/plain", get(plain))
            .route("/events", get(events))
            .route("/take", post(take))
            .route("/open", get(|| async { Response::new(endless()) }))
            .route_layer(middleware::from_fn(hold))
            .with_state(store.clone());
        (directory, store, router)
    }

    async fn admin(store: &Store, expires_at: Option<Timestamp>) -> (i64, String) {
        let made = store.create_token(None, "ops".into(), Scope::Admin, expires_at, Author::host());
        let (row, text) = made.await.unwrap();
        (row.id, text)
    }

    fn request(path: &str, text: &str, body: Body) -> Request {
        let request = Request::builder().method(if path == "/take" { "POST" } else { "GET" });
        request
            .uri(path)
            .header("authorization", format!("Bearer {text}"))
            .header("x-request-id", "r-1")
            .body(body)
            .unwrap()
    }

    async fn next(body: &mut Body) -> Option<Result<String, String>> {
        let frame = body.frame().await?;
        Some(match frame {
            Ok(frame) => Ok(String::from_utf8(frame.into_data().unwrap().into()).unwrap()),
            Err(error) => Err(error.to_string()),
        })
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_token_and_says_so_where_it_can() {
        let (_directory, store, router) = here().await;
        let (id, text) = admin(&store, None).await;
        let mut bodies = Vec::new();
        for path in ["/plain", "/events", "/open"] {
            let answer = router.clone().oneshot(request(path, &text, Body::empty())).await.unwrap();
            let mut body = answer.into_body();
            assert_eq!(next(&mut body).await, Some(Ok("begun".to_owned())));
            bodies.push(body);
        }
        store.delete_token(None, id, Author::host()).await.unwrap();
        assert_eq!(next(&mut bodies[0]).await, Some(Err("this token was removed".to_owned())));
        assert_eq!(next(&mut bodies[0]).await, None);
        let last = next(&mut bodies[1]).await.unwrap().unwrap();
        assert!(last.starts_with("event: ended\ndata: {") && last.ends_with("}\n\n"), "{last}");
        assert!(last.contains("this token was removed"), "{last}");
        assert_eq!(next(&mut bodies[1]).await, None);
        let brief = tokio::time::timeout(Duration::from_millis(1), next(&mut bodies[2])).await;
        assert!(brief.is_err(), "what needs no token goes on");
    }

    #[tokio::test]
    async fn a_stream_ends_when_its_token_expires() {
        let (_directory, store, router) = here().await;
        let soon = Timestamp::now() + jiff::SignedDuration::from_secs(2);
        let (_, text) = admin(&store, Some(soon)).await;
        let answer = router.oneshot(request("/plain", &text, Body::empty())).await.unwrap();
        let mut body = answer.into_body();
        assert_eq!(next(&mut body).await, Some(Ok("begun".to_owned())));
        assert_eq!(next(&mut body).await, Some(Err("this token has expired".to_owned())));
        // What is kept of an instant is in milliseconds, and the timer goes by another clock.
        assert!(Timestamp::now() + jiff::SignedDuration::from_millis(50) >= soon);
    }

    #[tokio::test]
    async fn a_body_under_way_ends_with_its_token_and_a_whole_one_does_not() {
        let (_directory, store, router) = here().await;
        let (id, text) = admin(&store, None).await;
        let whole = request("/take", &text, Body::from("whole"));
        let answer = router.clone().oneshot(whole).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let taking = router.oneshot(request("/take", &text, endless()));
        let removing = async {
            // Until it is at the body, its token may be refused as unknown.
            tokio::task::yield_now().await;
            for _ in 0..20 {
                let _ = store.tokens(None).await;
            }
            store.delete_token(None, id, Author::host()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(taking, removing);
        let answer = answer.unwrap();
        let problem = answer.extensions().get::<Refusal>().unwrap().clone().into_problem();
        assert_eq!(problem.detail, "this token was removed");
    }
}
