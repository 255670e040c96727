//! What hyper does when it is told to stop, which it documents nowhere and on which the gate
//! relies. A new version of it that does otherwise fails here first. And what a service is told of
//! a body whose sender says that no more comes.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Mutex, Notify};

type Reply = Response<BoxBody<Bytes, Infallible>>;

/// Answers at once, when told to, with a body that goes on, or with the body that came.
#[derive(Clone, Default)]
struct Scripted {
    go: Arc<Notify>,
    body: Arc<Mutex<Option<Sender<Bytes, Infallible>>>>,
}

impl Service<Request<Incoming>> for Scripted {
    type Response = Reply;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Self { go, body } = self.clone();
        let full = |bytes: Bytes| Response::new(Full::new(bytes).boxed());
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/wait" => {
                    go.notified().await;
                    full("waited".into())
                }
                "/stream" => {
                    let (sender, channel) = Channel::new(1);
                    *body.lock().await = Some(sender);
                    Response::new(channel.boxed())
                }
                "/read" => full(request.into_body().collect().await.unwrap().to_bytes()),
                _ => full("now".into()),
            })
        })
    }
}

struct Exchange {
    client: DuplexStream,
    connection: http1::Connection<TokioIo<DuplexStream>, Scripted>,
    script: Scripted,
    done: bool,
}

impl Exchange {
    /// The client has sent this and the server has done what it could.
    async fn after(sent: &str) -> Self {
        let (client, server) = duplex(64 << 10);
        let script = Scripted::default();
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(server), script.clone());
        let mut exchange = Self { client, connection, script, done: false };
        exchange.send(sent).await;
        assert!(!exchange.done);
        exchange
    }

    async fn send(&mut self, bytes: &str) {
        self.client.write_all(bytes.as_bytes()).await.unwrap();
        self.turn().await;
    }

    /// Lets everything happen that can.
    async fn turn(&mut self) {
        for _ in 0..8 {
            if !self.done {
                let connection = &mut self.connection;
                let polled = poll_fn(|cx| Poll::Ready(connection.poll_without_shutdown(cx))).await;
                self.done = matches!(polled, Poll::Ready(Ok(())));
                assert!(!matches!(polled, Poll::Ready(Err(_))), "{polled:?}");
            }
            tokio::task::yield_now().await;
        }
    }

    /// Tells it to stop, and whether that was the end.
    async fn stop(&mut self) -> bool {
        Pin::new(&mut self.connection).graceful_shutdown();
        self.turn().await;
        self.done
    }

    /// What has come to the client since it looked last.
    async fn heard(&mut self) -> String {
        self.turn().await;
        let mut bytes = vec![0; 16 << 10];
        let reading = self.client.read(&mut bytes);
        let read = tokio::time::timeout(std::time::Duration::from_millis(20), reading).await;
        // Nothing and no end.
        let read = read.map_or(0, |read| {
            let read = read.unwrap();
            assert_ne!(read, 0, "the server said that nothing more comes");
            read
        });
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    fn left(self) -> String {
        let left = self.connection.into_parts().read_buf;
        String::from_utf8_lossy(&left).into_owned()
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n")
}

fn is_closing(answer: &str) -> bool {
    answer.to_ascii_lowercase().contains("connection: close")
}

#[tokio::test]
async fn told_to_stop_on_a_fresh_connection_it_is_done() {
    let mut fresh = Exchange::after("").await;
    assert!(fresh.stop().await);
    assert_eq!(fresh.heard().await, "");
    assert_eq!(fresh.left(), "");
}

#[tokio::test]
async fn told_to_stop_in_the_first_head_it_waits_for_the_rest() {
    let mut half = Exchange::after("GET /now HTTP/1.1\r\nho").await;
    assert!(!half.stop().await);
    half.send("st: h\r\n\r\n").await;
    assert!(half.done && is_closing(&half.heard().await));
}

#[tokio::test]
async fn what_it_read_of_the_first_head_can_be_taken_from_it() {
    let half = Exchange::after("GET /now HTTP/1.1\r\nho").await;
    assert_eq!(half.left(), "GET /now HTTP/1.1\r\nho");
}

#[tokio::test]
async fn told_to_stop_between_two_requests_it_is_done() {
    for (next, version) in
        [("", "1.1"), ("GET /now HT", "1.1"), ("", "1.0\r\nconnection: keep-alive")]
    {
        let mut idle =
            Exchange::after(&format!("GET /now HTTP/{version}\r\nhost: h\r\n\r\n")).await;
        assert!(!is_closing(&idle.heard().await));
        idle.send(next).await;
        assert!(idle.stop().await);
        assert_eq!(idle.heard().await, "");
        assert_eq!(idle.left(), next);
    }
}

#[tokio::test]
async fn told_to_stop_in_service_it_says_so_in_the_answer() {
    let mut serving = Exchange::after(&get("/wait")).await;
    assert!(!serving.stop().await);
    serving.script.go.notify_one();
    let answer = serving.heard().await;
    assert!(serving.done && is_closing(&answer), "{answer}");
}

#[tokio::test]
async fn told_to_stop_behind_the_head_it_says_nothing() {
    let mut answering = Exchange::after(&get("/stream")).await;
    let head = answering.heard().await;
    assert!(!is_closing(&head), "{head}");
    assert!(!answering.stop().await);
    let mut body = answering.script.body.lock().await.take().unwrap();
    body.send_data("more".into()).await.unwrap();
    drop(body);
    let rest = answering.heard().await;
    assert!(rest.ends_with("4\r\nmore\r\n0\r\n\r\n"), "{rest}");
    assert!(answering.done);
    assert_eq!(answering.left(), "");
}

#[tokio::test]
async fn told_to_stop_with_more_behind_it_leaves_that_unread() {
    let (first, rest) = (get("/wait"), get("/now") + &get("/now"));
    let mut pipelined = Exchange::after(&(first + &rest)).await;
    assert!(!pipelined.stop().await);
    pipelined.script.go.notify_one();
    let answer = pipelined.heard().await;
    assert!(pipelined.done && is_closing(&answer), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    assert_eq!(pipelined.left(), rest);
}

#[tokio::test]
async fn told_to_stop_in_a_body_it_reads_on() {
    for expect in ["", "expect: 100-continue\r\n"] {
        let head = format!("POST /read HTTP/1.1\r\nhost: h\r\n{expect}content-length: 8\r\n\r\n");
        let mut reading = Exchange::after(&head).await;
        if expect.is_empty() {
            reading.send("half").await;
        } else {
            assert_eq!(reading.heard().await, "HTTP/1.1 100 Continue\r\n\r\n");
            reading.send("half").await;
        }
        assert!(!reading.stop().await);
        reading.send("half").await;
        let answer = reading.heard().await;
        assert!(reading.done && is_closing(&answer) && answer.ends_with("halfhalf"), "{answer}");
    }
}

/// What somebody hears who sends this, piece by piece, and then says that no more comes. The
/// service reads at once, later, or in another task.
async fn heard_after(pieces: &[&str], reads: Reads) -> String {
    let (mut client, server) = duplex(64 << 10);
    let (_told, drain) = tokio::sync::watch::channel(crate::Drain::No);
    let answer = |request: Request<crate::Received>| async move {
        let body = request.into_body();
        let read = match reads {
            Reads::AtOnce => body.collect().await,
            Reads::Later => {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                body.collect().await
            }
            Reads::Elsewhere => tokio::spawn(body.collect()).await.unwrap(),
        };
        let told = match read {
            Ok(body) => format!("whole, {} bytes", body.to_bytes().len()),
            Err(_) => "broken off".to_owned(),
        };
        Response::new(Full::new(Bytes::from(told)).map_err(|never| match never {}).boxed_unsync())
    };
    let waiting = crate::Waiting::new(server);
    let served = crate::serve(
        waiting,
        crate::Side::Outside,
        crate::Order::AtOnce,
        drain,
        |_| (),
        |_| (),
        answer,
    );
    let sends = async move {
        for piece in pieces {
            client.write_all(piece.as_bytes()).await.unwrap();
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        heard
    };
    let both = async { tokio::join!(served, sends).1 };
    // Half of what a client that ended has until it is taken for gone.
    let most = std::time::Duration::from_secs(5);
    tokio::time::timeout(most, both).await.expect("an answer at once")
}

#[derive(Debug, Clone, Copy)]
enum Reads {
    AtOnce,
    Later,
    Elsewhere,
}

#[tokio::test]
async fn the_end_of_sending_in_a_body_breaks_it_off_and_behind_it_does_not() {
    let head = |framing: &str| format!("POST / HTTP/1.1\r\nhost: h\r\n{framing}\r\n\r\n");
    let (counted, chunked) = (head("content-length: 8"), head("transfer-encoding: chunked"));
    for reads in [Reads::AtOnce, Reads::Later, Reads::Elsewhere] {
        for (head, body) in [(&counted, "halfhalf"), (&chunked, "8\r\nhalfhalf\r\n0\r\n\r\n")] {
            for sent in 0..=body.len() {
                let (begun, rest) = body[..sent].split_at(sent / 2);
                let together = format!("{head}{begun}{rest}");
                for pieces in [
                    &[&*together][..],
                    &[head.as_str(), begun, rest],
                    &[&*format!("{head}{begun}"), rest],
                ] {
                    let heard = heard_after(pieces, reads).await;
                    let says = if sent == body.len() { "whole, 8 bytes" } else { "broken off" };
                    assert!(heard.ends_with(says), "{reads:?} {pieces:?}: {heard}");
                }
            }
        }
    }
}
