//! Requests whose bodies are left unread, in whatever way, and what becomes of the next one. Only
//! what an answer says ends a connection, and what it says does.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::sync::watch;

use crate::gate::{Drain, Presence, Side};
use crate::{Answer, Order, Received, Waiting, serve};

/// No exchange takes longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Fits into no buffer on the way, and what is left of it not into what is forgotten.
const MUCH: usize = 1 << 20;
const LITTLE: usize = 100 << 10;

/// What a function does with its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Drops,
    /// Takes one piece.
    Begins,
    /// Answers and then drops it, before its answer's end or behind it.
    AnswersFirst,
    DropsLate,
    Reads,
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    Announced,
    Chunked,
}

#[derive(Debug, Clone)]
struct Ask {
    manner: Manner,
    framing: Framing,
    bytes: usize,
    /// Turns of everybody else's between head and body, and between pieces.
    pauses: usize,
    old: bool,
}

impl Ask {
    fn head(&self) -> String {
        let manner = self.manner;
        let (version, keeps) =
            if self.old { ("1.0", "connection: keep-alive\r\n") } else { ("1.1", "") };
        let framing = match self.framing {
            Framing::Announced => format!("content-length: {}", self.bytes),
            Framing::Chunked => "transfer-encoding: chunked".to_owned(),
        };
        format!("POST /{manner:?} HTTP/{version}\r\nhost: h\r\n{keeps}{framing}\r\n\r\n")
    }

    fn pieces(&self) -> Vec<Vec<u8>> {
        let all = vec![b'x'; self.bytes];
        let pieces = all.chunks(20_000);
        match self.framing {
            Framing::Announced => pieces.map(<[u8]>::to_vec).collect(),
            Framing::Chunked => {
                let framed = |piece: &[u8]| {
                    [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
                };
                pieces.map(framed).chain([b"0\r\n\r\n".to_vec()]).collect()
            }
        }
    }
}

async fn turns(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

async fn answer(request: Request<Received>) -> Answer {
    let whole = || Full::new(Bytes::from_static(b"answered")).map_err(|never| match never {});
    let (head, mut body) = request.into_parts();
    match head.uri.path() {
        "/Drops" => drop(body),
        "/Begins" => drop(body.frame().await),
        "/DropsLate" => {
            tokio::spawn(async move {
                turns(20).await;
                drop(body);
            });
        }
        "/AnswersFirst" => {
            let (mut sender, channel) = Channel::<Bytes>::new(1);
            tokio::spawn(async move {
                let _ = sender.send_data(Bytes::from_static(b"answ")).await;
                turns(20).await;
                drop(body);
                let _ = sender.send(Frame::data(Bytes::from_static(b"ered"))).await;
            });
            return Response::new(channel.map_err(|never| match never {}).boxed_unsync());
        }
        "/Reads" => assert!(body.collect().await.is_ok()),
        path => panic!("{path}"),
    }
    Response::new(whole().boxed_unsync())
}

/// A server's connection, and its client's end.
struct Served {
    client: DuplexStream,
    drain: watch::Sender<Drain>,
    left: tokio::task::JoinHandle<Option<Waiting<DuplexStream>>>,
}

impl Served {
    fn open(side: Side) -> Self {
        let (client, server) = duplex(16 << 10);
        let (drain, told) = watch::channel(Drain::No);
        let left = tokio::spawn(serve(
            Waiting::new(server),
            side,
            Order::InRound,
            told,
            |_| (),
            |_| (),
            answer,
        ));
        Self { client, drain, left }
    }

    /// The answer's head and body; sends meanwhile.
    async fn asks(&mut self, ask: &Ask) -> (String, String) {
        let (mut reads, mut writes) = split(&mut self.client);
        let sent = async {
            // Fails where the connection ends, as it may have said.
            let _ = writes.write_all(ask.head().as_bytes()).await;
            for piece in ask.pieces() {
                turns(ask.pauses).await;
                let _ = writes.write_all(&piece).await;
            }
        };
        let heard = async {
            let mut came = Vec::new();
            loop {
                let text = String::from_utf8_lossy(&came);
                if let Some((head, body)) = text.split_once("\r\n\r\n")
                    && body.contains("ered")
                    && (!head.contains("chunked") || body.ends_with("0\r\n\r\n"))
                {
                    return (head.to_ascii_lowercase(), body.to_owned());
                }
                let read = reads.read_buf(&mut came).await.unwrap();
                assert_ne!(read, 0, "no answer to {ask:?}: {:?}", String::from_utf8_lossy(&came));
            }
        };
        tokio::time::timeout(PATIENCE, async { tokio::join!(sent, heard) }).await.unwrap().1
    }

    async fn is_closed(&mut self) {
        let mut rest = Vec::new();
        let read = self.client.read_to_end(&mut rest);
        tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }
}

/// All of them on one connection, or on as many as it takes where an answer says so.
async fn every_end_is_said(side: Side, asks: &[Ask]) {
    let mut served = Served::open(side);
    for ask in asks {
        let (head, body) = served.asks(ask).await;
        assert!(head.starts_with("http/1.") && head.contains(" 200 "), "{head}");
        let closes = head.contains("connection: close");
        assert!(!closes || !head.contains("keep-alive"), "{ask:?}: {head}");
        // Only so the end of such an answer can be told.
        let endless = ask.old && ask.manner == Manner::AnswersFirst;
        match (ask.manner, ask.framing) {
            _ if endless => assert!(closes, "{ask:?}: {head}"),
            (Manner::Drops, Framing::Announced) if ask.bytes == MUCH => {
                assert!(closes, "{ask:?}: {head}");
            }
            (Manner::Begins, Framing::Announced) if ask.bytes == MUCH => {}
            _ => assert!(!closes, "{ask:?}: {head} {body}"),
        }
        if closes {
            served.is_closed().await;
            served = Served::open(side);
        }
    }
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let manner = prop::sample::select(vec![
        Manner::Drops,
        Manner::Begins,
        Manner::AnswersFirst,
        Manner::DropsLate,
        Manner::Reads,
    ]);
    let framing = prop::sample::select(vec![Framing::Announced, Framing::Chunked]);
    let bytes = prop::sample::select(vec![0, 1, 100, 20_000, LITTLE, MUCH]);
    let ask = (manner, framing, bytes, 0..12_usize, prop::bool::weighted(0.2)).prop_map(
        |(manner, framing, bytes, pauses, old)| {
            // What HTTP/1.0 does not know.
            let framing = if old { Framing::Announced } else { framing };
            Ask { manner, framing, bytes, pauses, old }
        },
    );
    prop::collection::vec(ask, 1..8)
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_left_unread_takes_no_other_request_with_it(asks in asks(), from_outside: bool) {
        let side = if from_outside { Side::Outside } else { Side::Primary };
        run(every_end_is_said(side, &asks));
    }
}

/// In a drain it is read to its end as well, and the connection goes on elsewhere, with the next
/// request where that comes in one piece with it: before the answer is out, or behind it.
#[tokio::test]
async fn what_is_left_unread_does_not_end_a_connection_that_is_passed_on() {
    const NEXT: &[u8] = b"POST /Reads HTTP/1.1\r\nhost: h\r\n\r\n";
    for manner in [Manner::Drops, Manner::Begins, Manner::AnswersFirst, Manner::DropsLate] {
        for framing in [Framing::Announced, Framing::Chunked] {
            for (bytes, next, is_answered) in [
                (LITTLE, &b""[..], false),
                (2_000, b"", false),
                (2_000, NEXT, false),
                (2_000, NEXT, true),
            ] {
                let ask = Ask { manner, framing, bytes, pauses: 3, old: false };
                let mut served = Served::open(Side::Outside);
                let body = ask.pieces().concat();
                let (half, rest) = body.split_at(body.len() / 2);
                served.client.write_all(ask.head().as_bytes()).await.unwrap();
                served.client.write_all(half).await.unwrap();
                turns(50).await;
                if is_answered {
                    let mut came = Vec::new();
                    while !String::from_utf8_lossy(&came).contains("ered") {
                        let read = served.client.read_buf(&mut came);
                        let read = tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
                        assert_ne!(read, 0, "{ask:?}");
                    }
                }
                served.drain.send_replace(Drain::HandOver);
                turns(50).await;
                served.client.write_all(&[rest, next].concat()).await.unwrap();
                let left = tokio::time::timeout(PATIENCE, served.left).await;
                let left = left.unwrap_or_else(|_| panic!("{ask:?}: it stays")).unwrap();
                let left = left.unwrap_or_else(|| panic!("{ask:?}: it ended"));
                let unread = String::from_utf8_lossy(&left.unread).into_owned();
                assert_eq!(unread.as_bytes(), next, "{ask:?} {is_answered}");
            }
        }
    }
}

/// Until the answer is out its sender waits for it, and not it for its sender.
#[tokio::test]
async fn who_stalls_in_a_body_that_nobody_wants_is_answered() {
    let ask = Ask {
        manner: Manner::Drops,
        framing: Framing::Announced,
        bytes: 10,
        pauses: 0,
        old: false,
    };
    let mut served = Served::open(Side::Outside);
    served.client.write_all(ask.head().as_bytes()).await.unwrap();
    let mut answer = vec![0; 1 << 10];
    let read = tokio::time::timeout(PATIENCE, served.client.read(&mut answer)).await.unwrap();
    let head = String::from_utf8_lossy(&answer[..read.unwrap()]).into_owned();
    assert!(head.contains(" 200 ") && !head.contains("close"), "{head}");
    assert!(!served.left.is_finished());
}

/// Empty lines between two requests are nobody's: no head is begun with them, and none of them goes
/// along.
#[tokio::test]
async fn empty_lines_are_nobodys() {
    let presences = Arc::new(Mutex::new(Vec::new()));
    let (mut client, server) = duplex(16 << 10);
    let (drain, told) = watch::channel(Drain::No);
    let present = {
        let presences = presences.clone();
        move |presence| presences.lock().unwrap().push(presence)
    };
    let served = tokio::spawn(async move {
        serve(Waiting::new(server), Side::Outside, Order::InRound, told, present, |_| (), answer)
            .await
    });
    let mut answer = vec![0; 1 << 10];
    for _ in 0..2 {
        for blank in ["\r\n", "\n", "\r", "\n\r\n"] {
            client.write_all(blank.as_bytes()).await.unwrap();
            turns(10).await;
        }
        client.write_all(b"POST /Drops HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let read = client.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 "));
    }
    client.write_all(b"\r\n\r\n").await.unwrap();
    turns(10).await;
    let asked = presences.lock().unwrap().clone();
    assert!(!asked.contains(&Presence::Asking), "{asked:?}");
    client.write_all(b"G").await.unwrap();
    turns(10).await;
    assert_eq!(presences.lock().unwrap().last(), Some(&Presence::Asking));
    drop(drain);
    drop(client);
    assert!(served.await.unwrap().is_none());

    let mut served = Served::open(Side::Outside);
    served.client.write_all(b"POST /Drops HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    assert!(served.client.read(&mut answer).await.unwrap() > 0);
    served.client.write_all(b"\r\n\r\n").await.unwrap();
    turns(10).await;
    served.drain.send_replace(Drain::HandOver);
    let left = tokio::time::timeout(PATIENCE, served.left).await.unwrap().unwrap().unwrap();
    assert!(left.unread.is_empty(), "{:?}", left.unread);
}
