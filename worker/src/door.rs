//! The door: HTTP/2 to the primary over a socket that it hands us when we first ask, for what
//! streams. Today that is `$upload`.
//!
//! Owns the connection and nothing of what is said over it. Asking for the socket and bringing
//! it is [`crate::control`]'s.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hearth_connection::end_hop;
use http::header::{EXPECT, HOST};
use http::{Request, Uri};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};

use crate::connection::Received;
use crate::limits::Counted;
use crate::serve::Answer;

/// From asking for the door to having it.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// After that, for what came while this process stood still itself.
const LAST_LOOK: Duration = Duration::from_millis(500);
/// Requests that wait for the door to open.
const WAITING_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error("the door did not open in time")]
    Late,
    #[error("too many wait for the door")]
    Crowded,
    #[error("the door is broken")]
    Broken(#[from] hyper::Error),
    #[error("the request's body broke off")]
    BrokenBody,
    #[error("no request can be made of this one")]
    Request(#[from] http::Error),
}

type Sender = http2::SendRequest<UnsyncBoxBody<Bytes, hyper::Error>>;

enum State {
    Closed,
    Wanted(Vec<oneshot::Sender<Sender>>),
    Open(Sender),
}

pub struct Door {
    state: Mutex<State>,
    wanted: Notify,
}

impl Door {
    pub fn new() -> Self {
        Self { state: Mutex::new(State::Closed), wanted: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves whenever somebody wants the door and it is not open.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// The primary's end of it has come. The answer is the connection, to be polled to its end.
    pub async fn open(
        &self,
        socket: std::os::unix::net::UnixStream,
    ) -> Result<impl Future<Output = ()> + Send + 'static, DoorError> {
        let broken = |_: io::Error| DoorError::Late;
        let stream = UnixStream::from_std(socket).map_err(broken)?;
        let (sender, connection) =
            http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await?;
        let before = std::mem::replace(&mut *self.state(), State::Open(sender.clone()));
        if let State::Wanted(waiting) = before {
            for waiting in waiting {
                // Gone where its caller is.
                let _ = waiting.send(sender.clone());
            }
        }
        Ok(async move {
            // What ended it is told to each request that was under way.
            let _ = connection.await;
        })
    }

    async fn sender(&self) -> Result<Sender, DoorError> {
        let opened = {
            let mut state = self.state();
            if let State::Open(sender) = &*state {
                if !sender.is_closed() {
                    return Ok(sender.clone());
                }
                *state = State::Closed;
            }
            let (waiting, opened) = oneshot::channel();
            if let State::Wanted(all) = &mut *state {
                all.retain(|waiting| !waiting.is_closed());
                if all.len() == WAITING_MAX {
                    return Err(DoorError::Crowded);
                }
            }
            match &mut *state {
                // Asked for already, by one that waits still.
                State::Wanted(all) if !all.is_empty() => all.push(waiting),
                State::Wanted(_) | State::Closed | State::Open(_) => {
                    *state = State::Wanted(vec![waiting]);
                    self.wanted.notify_one();
                }
            }
            opened
        };
        let mut opened = opened;
        for patience in [OPEN_DEADLINE, LAST_LOOK] {
            if let Ok(opened) = tokio::time::timeout(patience, &mut opened).await {
                return opened.map_err(|_| DoorError::Late);
            }
        }
        Err(DoorError::Late)
    }

    /// Hands a request to the primary as it is, body unread, and its answer back.
    pub async fn request(
        &self,
        path: &str,
        request: Request<Received>,
        counted: Counted,
    ) -> Result<Answer, DoorError> {
        let mut sender = self.sender().await?;
        let (mut head, body) = request.into_parts();
        let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        head.uri = Uri::builder()
            .scheme("http")
            .authority("hearth")
            .path_and_query(format!("{path}{query}"))
            .build()?;
        head.version = http::Version::HTTP_2;
        end_hop(&mut head.headers);
        head.headers.remove(HOST);
        // Answered by our own side of the connection, once the primary reads the body.
        head.headers.remove(EXPECT);
        sender.ready().await?;
        let broke_off = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&broke_off);
        let body = body.map_err(move |error| {
            told.store(true, Ordering::Relaxed);
            error
        });
        let answer = sender.send_request(Request::from_parts(head, body.boxed_unsync())).await;
        let answer = answer.map_err(|error| match broke_off.load(Ordering::Relaxed) {
            true => DoorError::BrokenBody,
            false => error.into(),
        })?;
        let (mut head, body) = answer.into_parts();
        end_hop(&mut head.headers);
        head.version = http::Version::HTTP_11;
        // Its last byte is the end of the call.
        let body = body.map_err(move |error| {
            let _ = &counted;
            error.into()
        });
        Ok(Answer::from_parts(head, body.boxed_unsync()))
    }
}
