use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2 as client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;

const FEW: Bounds = Bounds { connections: 2, streams: 4, window_bytes: 64 << 10, waiting: 1 };
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked of the host here: at `/holds` it answers when there is a permit for that and has
/// read nothing until then; elsewhere it answers with the length of what came.
#[derive(Clone)]
struct Asked {
    release: Arc<Semaphore>,
    held: Arc<Semaphore>,
    times: Arc<AtomicUsize>,
    stop: CancellationToken,
}

type Ended = JoinHandle<hyper::Result<()>>;
type Client = client::SendRequest<Full<Bytes>>;

impl Asked {
    fn new() -> Self {
        Self {
            release: Arc::new(Semaphore::new(0)),
            held: Arc::new(Semaphore::new(0)),
            times: Arc::default(),
            stop: CancellationToken::new(),
        }
    }

    fn serve(&self) -> (UnixStream, Ended) {
        let (near, far) = UnixStream::pair().unwrap();
        let asked = self.clone();
        let answer = move |request: Request<Body>| {
            let asked = asked.clone();
            async move {
                asked.times.fetch_add(1, Ordering::Relaxed);
                if request.uri().path() == "/holds" {
                    asked.held.add_permits(1);
                    asked.release.acquire().await.unwrap().forget();
                }
                let came = request.into_body().collect().await;
                let bytes = came.map(|body| body.to_bytes().len()).unwrap_or_default();
                Response::new(Body::from(bytes.to_string()))
            }
        };
        (far, tokio::spawn(serve(near, FEW, self.stop.clone(), answer)))
    }

    async fn client(&self) -> (Client, Ended) {
        let (far, ended) = self.serve();
        let (sender, connection) =
            client::handshake(TokioExecutor::new(), TokioIo::new(far)).await.unwrap();
        tokio::spawn(connection);
        (sender, ended)
    }

    async fn hold(&self, client: &Client, bytes: usize) -> JoinHandle<String> {
        let held = tokio::spawn(post(client.clone(), "/holds", bytes));
        self.held.acquire().await.unwrap().forget();
        held
    }
}

async fn post(mut client: Client, path: &'static str, bytes: usize) -> String {
    client.ready().await.unwrap();
    let uri = format!("http://hearth{path}");
    let request = Request::post(uri).body(Full::from(vec![b'x'; bytes])).unwrap();
    let answer = client.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

/// What a client says that keeps to nothing: a preface, and frames.
struct Hostile(Vec<u8>);

impl Hostile {
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const SETTINGS: u8 = 4;
    const END_HEADERS: u8 = 4;

    fn new() -> Self {
        let mut said = Self(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec());
        said.frame(Self::SETTINGS, 0, 0, &[]);
        said
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        self.0.extend_from_slice(&length[1..]);
        self.0.extend_from_slice(&[kind, flags]);
        self.0.extend_from_slice(&stream.to_be_bytes());
        self.0.extend_from_slice(payload);
    }

    /// `POST /holds`, and its body never comes.
    fn request(&mut self, stream: u32) {
        let head = b"\x83\x86\x04\x06/holds\x01\x06hearth";
        self.frame(Self::HEADERS, Self::END_HEADERS, stream, head);
    }

    /// Says all of it and reads whatever comes, until the host ends the connection.
    async fn speak(self, far: UnixStream) {
        let (mut reads, mut writes) = far.into_split();
        let writing = tokio::spawn(async move {
            // It may have ended before all is said.
            let _ = writes.write_all(&self.0).await;
            writes
        });
        let mut came = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, reads.read_to_end(&mut came)).await.unwrap();
        drop(writing.await);
    }
}

#[tokio::test]
async fn a_connection_that_is_full_delays_no_other() {
    let asked = Asked::new();
    let (one, _) = asked.client().await;
    let (other, _) = asked.client().await;
    let mut held = Vec::new();
    for _ in 0..FEW.streams {
        held.push(asked.hold(&one, 1).await);
    }
    let waits = tokio::spawn(post(one.clone(), "/waits", 2));
    for bytes in [3, 1 << 20] {
        assert_eq!(post(other.clone(), "/other", bytes).await, bytes.to_string());
    }
    assert!(!waits.is_finished());
    asked.release.add_permits(held.len());
    assert_eq!(waits.await.unwrap(), "2");
    for held in held {
        assert_eq!(held.await.unwrap(), "1");
    }
}

/// Neither do bodies that nobody reads, on the same connection.
#[tokio::test]
async fn what_is_not_read_takes_its_own_window_alone() {
    let asked = Asked::new();
    let (client, _) = asked.client().await;
    let mut held = Vec::new();
    for _ in 0..FEW.streams - 1 {
        held.push(asked.hold(&client, 4 << 20).await);
    }
    let read = post(client.clone(), "/read", 4 << 20);
    assert_eq!(tokio::time::timeout(PATIENCE, read).await.unwrap(), (4 << 20).to_string());
    asked.release.add_permits(held.len());
    for held in held {
        assert_eq!(held.await.unwrap(), (4 << 20).to_string());
    }
}

/// However many streams it opens, no more than it may have are anybody's work, and one that goes
/// on loses its connection.
#[tokio::test]
async fn whoever_opens_too_many_streams_loses_its_connection() {
    let asked = Asked::new();
    let (far, ended) = asked.serve();
    let mut hostile = Hostile::new();
    for stream in 0..1_000 {
        hostile.request(2 * stream + 1);
    }
    hostile.speak(far).await;
    let _ = tokio::time::timeout(PATIENCE, ended).await.unwrap();
    assert!(asked.times.load(Ordering::Relaxed) <= FEW.streams as usize);
}

#[tokio::test]
async fn whoever_resets_what_it_opens_without_end_loses_its_connection() {
    let asked = Asked::new();
    let (far, ended) = asked.serve();
    let mut hostile = Hostile::new();
    for stream in 0..1_000 {
        hostile.request(2 * stream + 1);
        hostile.frame(Hostile::RESET, 0, 2 * stream + 1, &8_u32.to_be_bytes());
    }
    hostile.speak(far).await;
    assert!(tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().is_err());
    assert!(asked.times.load(Ordering::Relaxed) < 1_000);
}

#[tokio::test]
async fn what_is_under_way_is_finished_when_it_is_told_to_stop() {
    let asked = Asked::new();
    let (client, ended) = asked.client().await;
    let held = asked.hold(&client, 5).await;
    asked.stop.cancel();
    tokio::task::yield_now().await;
    assert!(!ended.is_finished());
    asked.release.add_permits(1);
    assert_eq!(held.await.unwrap(), "5");
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
}
