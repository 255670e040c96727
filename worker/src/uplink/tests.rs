use std::convert::Infallible;

use http::{Response, StatusCode};
use http_body_util::{Channel, Empty, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2 as server;
use hyper::service::service_fn;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;

/// Kinds of this test's own, with bounds of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    One,
    Other,
}

const FEW: Bounds = Bounds { connections: 2, streams: 2, window_bytes: 64 << 10, waiting: 1 };

/// Uplinks, and a host at their other end, which opens one whenever it is asked to.
struct Both {
    uplinks: Arc<Uplinks<Test>>,
    /// Requests at `/holds` are answered when there is a permit for them.
    release: Arc<Semaphore>,
    held: Arc<Semaphore>,
    opened: Arc<Mutex<Vec<Test>>>,
}

impl Both {
    fn new() -> Self {
        let both = Self {
            uplinks: Arc::new(Uplinks::of([(Test::One, FEW), (Test::Other, FEW)])),
            release: Arc::new(Semaphore::new(0)),
            held: Arc::new(Semaphore::new(0)),
            opened: Arc::default(),
        };
        let uplinks = Arc::clone(&both.uplinks);
        let (release, held) = (Arc::clone(&both.release), Arc::clone(&both.held));
        let opened = Arc::clone(&both.opened);
        tokio::spawn(async move {
            loop {
                let kind = uplinks.wanted().await;
                let (near, far) = UnixStream::pair().unwrap();
                tokio::spawn(host(near, Arc::clone(&release), Arc::clone(&held)));
                tokio::spawn(uplinks.open(kind, far.into_std().unwrap()).await.unwrap());
                opened.lock().unwrap().push(kind);
            }
        });
        both
    }

    fn ask(&self, kind: Test, path: &'static str) -> JoinHandle<Result<Answer, UplinkError>> {
        let uplinks = Arc::clone(&self.uplinks);
        tokio::spawn(async move {
            let request = Request::post("/before?x=1").body(Empty::<Bytes>::new()).unwrap();
            uplinks.send(kind, path, request).await
        })
    }

    /// So many requests that the host has and does not answer.
    async fn hold(&self, kind: Test, number: u32) -> Vec<JoinHandle<Result<Answer, UplinkError>>> {
        let mut held = Vec::new();
        for _ in 0..number {
            held.push(self.ask(kind, "/holds"));
            self.held.acquire().await.unwrap().forget();
        }
        held
    }
}

async fn host(near: UnixStream, release: Arc<Semaphore>, held: Arc<Semaphore>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (release, held) = (Arc::clone(&release), Arc::clone(&held));
        async move {
            let target = request.uri().path_and_query().unwrap().as_str().to_owned();
            if request.uri().path() == "/holds" {
                held.add_permits(1);
                release.acquire().await.unwrap().forget();
            }
            let came = request.into_body().collect().await;
            let body = came.map(|body| body.to_bytes()).unwrap_or_default();
            let said = format!("{target} {}", String::from_utf8_lossy(&body));
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(said)))
        }
    });
    let _ = server::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(FEW.streams)
        .serve_connection(TokioIo::new(near), service)
        .await;
}

async fn text(answer: Answer) -> String {
    assert_eq!(answer.status(), StatusCode::OK);
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

#[tokio::test]
async fn a_kind_that_is_full_delays_no_other() {
    let both = Both::new();
    let held = both.hold(Test::One, 4).await;
    assert_eq!(*both.opened.lock().unwrap(), [Test::One, Test::One]);
    let waits = both.ask(Test::One, "/waits");
    let mut refused = both.ask(Test::One, "/too-many");
    // The runtime has one thread: this one is asked last and waits for nobody.
    assert!(matches!((&mut refused).await.unwrap(), Err(UplinkError::Crowded)));
    for path in ["/a", "/b", "/c"] {
        let answer = both.ask(Test::Other, path).await.unwrap().unwrap();
        assert_eq!(text(answer).await, format!("{path}?x=1 "));
    }
    assert!(!waits.is_finished() && held.iter().all(|held| !held.is_finished()));
    assert_eq!(*both.opened.lock().unwrap(), [Test::One, Test::One, Test::Other]);
    both.release.add_permits(4);
    // Each has its room until its answer is read.
    for held in held {
        assert_eq!(text(held.await.unwrap().unwrap()).await, "/holds?x=1 ");
    }
    assert_eq!(text(waits.await.unwrap().unwrap()).await, "/waits?x=1 ");
}

/// Whoever leaves gives its room back, before its answer and in the middle of it.
#[tokio::test]
async fn whoever_leaves_makes_room() {
    let both = Both::new();
    for _ in 0..3 {
        for held in both.hold(Test::One, 4).await {
            held.abort();
        }
    }
    let unread = both.ask(Test::One, "/unread").await.unwrap().unwrap();
    drop(unread);
    let held = both.hold(Test::One, 4).await;
    both.release.add_permits(4);
    for held in held {
        text(held.await.unwrap().unwrap()).await;
    }
}

#[tokio::test]
async fn any_body_goes_up() {
    let both = Both::new();
    let target = Request::post("/?y=2");
    let request = target.body(Full::<Bytes>::from("whole")).unwrap();
    let answer = both.uplinks.send(Test::One, "/p", request).await.unwrap();
    assert_eq!(text(answer).await, "/p?y=2 whole");

    let (mut pieces, body) = Channel::<Bytes, io::Error>::new(1);
    let sent = tokio::spawn({
        let uplinks = Arc::clone(&both.uplinks);
        async move { uplinks.send(Test::One, "/p", Request::post("/").body(body).unwrap()).await }
    });
    for piece in ["in ", "pieces"] {
        pieces.send_data(piece.into()).await.unwrap();
    }
    drop(pieces);
    assert_eq!(text(sent.await.unwrap().unwrap()).await, "/p in pieces");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_told_from_a_connection_that_does() {
    let both = Both::new();
    let (pieces, body) = Channel::<Bytes, io::Error>::new(1);
    let sent = tokio::spawn({
        let uplinks = Arc::clone(&both.uplinks);
        async move { uplinks.send(Test::One, "/p", Request::post("/").body(body).unwrap()).await }
    });
    pieces.abort(io::Error::other("it broke"));
    assert!(matches!(sent.await.unwrap(), Err(UplinkError::BrokenBody)));

    let broken = Uplinks::of([(Test::One, FEW)]);
    let (near, far) = UnixStream::pair().unwrap();
    let connection = broken.open(Test::One, far.into_std().unwrap()).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("/").body(Empty::<Bytes>::new()).unwrap();
    let sent = broken.send(Test::One, "/p", request);
    drop(near);
    assert!(matches!(sent.await, Err(UplinkError::Broken(_))));
}
