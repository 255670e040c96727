//! What a function takes: the body as JSON, the query string, the headers, or the whole request.
//!
//! Each argument is read from the request by itself. What a query string means to a type is in
//! `query.rs`.

use serde::de::DeserializeOwned;
use wasip2::http::types::{Fields, IncomingBody, IncomingRequest, Method};
use wasip2::io::streams::{InputStream, StreamError};

use crate::kind::{Json, Raw};
use crate::{Error, query};

/// What may be an argument of a function. The parameter keeps JSON and the others apart, since
/// a type of ours could be JSON as well as far as the compiler knows.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is nothing that a function can take",
    label = "not JSON, `Query<…>`, `Headers` or `Request`",
    note = "the JSON of the body is a type that implements `serde::Deserialize`"
)]
pub trait Argument<Kind>: Sized {
    /// Whether it takes the body, which is there once.
    const BODY: bool = false;
    /// Whether it says what the query string may be, which is said once.
    const QUERY: bool = false;

    fn take(request: &IncomingRequest) -> Result<Self, Error>;
}

impl<T: DeserializeOwned> Argument<Json> for T {
    const BODY: bool = true;

    fn take(request: &IncomingRequest) -> Result<Self, Error> {
        parse(&Body::of(request)?.rest()?)
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    let empty = body.is_empty();
    serde_json::from_slice(if empty { b"null" } else { body }).map_err(|error| {
        if empty {
            Error::new(400, "the body is empty, and this function needs JSON")
        } else {
            Error::new(400, format!("the body is not the JSON that this function takes: {error}"))
        }
    })
}

/// The parameters of the query string, as the fields of `T`.
///
/// A field's name is its parameter's. Numbers, booleans (`true`, `false`) and enums without data
/// are read from the text; an [`Option`] is a parameter that may be missing; a [`Vec`] takes a
/// parameter that comes several times (with `#[serde(default)]`, also one that does not come).
/// What does not fit is answered with 400 and names the parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> Argument<Raw> for Query<T> {
    const QUERY: bool = true;

    fn take(request: &IncomingRequest) -> Result<Self, Error> {
        let target = request.path_with_query().unwrap_or_default();
        let query = target.split_once('?').map_or("", |(_, query)| query);
        query::parse(query).map(Self).map_err(|error| Error::new(400, error))
    }
}

/// The headers of the request.
#[derive(Debug, Clone, Default)]
pub struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    fn of(request: &IncomingRequest) -> Self {
        Self(Fields::entries(&request.headers()))
    }

    /// The first value of a header, by a name in any case; `None` also if it is not text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Each value of a header that may come several times, as far as it is text.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// All of them, names in lower case, as they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        Self(headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl Argument<Raw> for Headers {
    fn take(request: &IncomingRequest) -> Result<Self, Error> {
        Ok(Self::of(request))
    }
}

/// The request as it came, its body not yet read.
///
/// Reading waits for what the caller sends, also in an `async` function.
#[derive(Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Headers,
    body: Body,
}

impl Request {
    /// In upper case.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// As the caller wrote it, with percent signs, from the tenant's root on.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// What follows the question mark, as the caller wrote it.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// `x-request-id`, which stands in the answer and in each log line of the call.
    pub fn id(&self) -> Option<&str> {
        self.headers.get("x-request-id")
    }

    /// The rest of the body, at most as many bytes as the function's option `max_body` says.
    pub fn bytes(&mut self) -> Result<Vec<u8>, Error> {
        self.body.rest()
    }

    /// The next piece of the body, at most 64 KiB; `None` at its end.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, Error> {
        self.body.piece()
    }
}

impl Argument<Raw> for Request {
    const BODY: bool = true;

    fn take(request: &IncomingRequest) -> Result<Self, Error> {
        Ok(Self {
            method: name(request.method()),
            target: request.path_with_query().unwrap_or_default(),
            headers: Headers::of(request),
            body: Body::of(request)?,
        })
    }
}

fn name(method: Method) -> String {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => return name,
    }
    .to_owned()
}

/// The body on its way in. The host bounds it.
#[derive(Debug)]
struct Body {
    // The stream is a part of the body, and must go first.
    stream: InputStream,
    _body: IncomingBody,
}

impl Body {
    const PIECE_BYTES: u64 = 64 << 10;

    fn of(request: &IncomingRequest) -> Result<Self, Error> {
        let body = request.consume().map_err(|()| cut_short())?;
        let stream = body.stream().map_err(|()| cut_short())?;
        Ok(Self { stream, _body: body })
    }

    fn piece(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.stream.blocking_read(Self::PIECE_BYTES) {
            Ok(piece) => Ok(Some(piece)),
            Err(StreamError::Closed) => Ok(None),
            Err(StreamError::LastOperationFailed(_)) => Err(cut_short()),
        }
    }

    fn rest(&mut self) -> Result<Vec<u8>, Error> {
        // Most bodies are one piece, which is then the body itself.
        let Some(mut bytes) = self.piece()? else { return Ok(Vec::new()) };
        while let Some(piece) = self.piece()? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

fn cut_short() -> Error {
    Error::new(400, "the body ended before it was complete")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Input {
        name: String,
    }

    #[test]
    fn a_body_that_does_not_fit_says_where() {
        let refused = |body: &str| format!("{:?}", parse::<Input>(body.as_bytes()).unwrap_err());
        assert_eq!(refused(""), "400 the body is empty, and this function needs JSON");
        assert_eq!(
            refused("{\"name\":\n1}"),
            "400 the body is not the JSON that this function takes: \
             invalid type: integer `1`, expected a string at line 2 column 1"
        );
        assert_eq!(
            refused("{}"),
            "400 the body is not the JSON that this function takes: \
             missing field `name` at line 1 column 2"
        );
    }

    #[test]
    fn an_empty_body_is_null() {
        assert_eq!(parse::<Option<Input>>(b"").unwrap(), None);
        parse::<()>(b"").unwrap();
    }

    #[test]
    fn headers_are_found_in_any_case_and_as_often_as_they_came() {
        let headers: Headers =
            [("x-one", &b"1"[..]), ("x-two", b"a"), ("x-two", b"b"), ("x-raw", b"\xff")]
                .into_iter()
                .collect();
        assert_eq!(headers.get("X-One"), Some("1"));
        assert_eq!(headers.all("x-two").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((headers.get("x-raw"), headers.get("x-none")), (None, None));
        assert_eq!(headers.iter().count(), 4);
    }
}
