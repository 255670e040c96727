//! What a request and its answer say of their connection: whether it is kept, and where an answer
//! ends. Tells the gate, and has the answer say it.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderValue};
use http::{Method, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;

use crate::Shared;
use crate::body::{Answer, Answering};
use crate::framing;
use crate::gate::Exchange;

/// What of a request its answer depends on.
pub struct Asked {
    version: Version,
    method: Method,
    exchange: Exchange,
}

impl Asked {
    /// Begins an exchange.
    pub fn by(request: &Request<Incoming>, shared: &Shared) -> Self {
        let (version, method) = (request.version(), request.method().clone());
        let has_body = !request.body().is_end_stream();
        let expects = request.headers().contains_key(EXPECT);
        let closes = asks_to_close(version, request.headers());
        let exchange = shared.lock().requested(has_body, expects, closes);
        Self { version, method, exchange }
    }

    pub fn exchange(&self) -> Exchange {
        self.exchange
    }

    /// The answer as it goes out. `ends` where the connection does.
    pub fn framed(self, mut answer: Answer, ends: bool, shared: Shared) -> Response<Answering> {
        let Self { version, method, exchange } = self;
        framing::frame(&method, &mut answer);
        let mut gate = shared.lock();
        let endless = is_endless(version, &answer);
        let is_last = ends || gate.is_last() || endless || says_close(&answer);
        gate.answering(exchange, is_last, endless);
        drop(gate);
        if is_last {
            say_last(version, &mut answer);
        }
        answer.map(|body| Answering { body, exchange, shared })
    }
}

/// Whether a request is its connection's last by its own word, or an answer.
pub fn asks_to_close(version: Version, headers: &HeaderMap) -> bool {
    let says = |word: &str| {
        let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    says("close") || (version < Version::HTTP_11 && !says("keep-alive"))
}

/// Whether an answer is its connection's last by its own word.
fn says_close(answer: &Answer) -> bool {
    asks_to_close(Version::HTTP_11, answer.headers())
}

/// Whether only the connection's end tells where an answer ends.
fn is_endless(version: Version, answer: &Answer) -> bool {
    version < Version::HTTP_11
        && answer.body().size_hint().exact().is_none()
        && !answer.headers().contains_key(CONTENT_LENGTH)
}

/// Has an answer say that the connection ends with it. To a client of HTTP/1.0 hyper would say
/// beside it that it is kept, unless the answer is of that version.
fn say_last(version: Version, answer: &mut Answer) {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if version < Version::HTTP_11 {
        *answer.version_mut() = version;
    }
}
