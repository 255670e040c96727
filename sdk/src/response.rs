//! What a function returns, and how it is sent.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use serde::Serialize;
use wasip2::http::types::{Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::{OutputStream, StreamError};
use wstd::runtime::AsyncPollable;

use crate::Error;
use crate::kind::{Json, Raw};

/// An answer that is not, or not only, JSON with status 200.
///
/// ```
/// use hearth_sdk::Response;
///
/// Response::new(201).header("location", "/things/7");
/// Response::new(200).header("content-type", "text/plain; charset=utf-8").body("It works.\n");
/// ```
///
/// The host refuses a few headers, such as `connection`; a response that has one is answered as
/// a failure of the function.
pub struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Body,
}

enum Body {
    Whole(Vec<u8>),
    Stream {
        write: Write,
        /// The runtime, for a plain function: only who streams has it in the module.
        block_on: fn(Writing<'_>) -> Result<(), Error>,
    },
}

type Write = Box<dyn for<'a> FnOnce(&'a mut BodyWriter) -> Writing<'a>>;
type Writing<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

impl Response {
    /// With no headers and no body. A status of 200 to 599; any other is a mistake of the
    /// function, and answered as 500.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Whole(Vec::new()) }
    }

    pub fn json(status: u16, content: &impl Serialize) -> Result<Self, Error> {
        let json = serde_json::to_vec(content)?;
        Ok(Self::new(status).header("content-type", "application/json").body(json))
    }

    /// Adds a header; one of the same name stays. `content-length` is told by itself of a body
    /// that is whole.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, content: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Whole(content.into());
        self
    }

    /// A body that is written while it is sent. The head goes out before; an error after that
    /// can only cut the answer short, and is logged.
    ///
    /// ```
    /// # use hearth_sdk::Response;
    /// Response::new(200).header("content-type", "text/plain").stream(async |body| {
    ///     for line in ["one\n", "two\n"] {
    ///         body.write(line).await?;
    ///     }
    ///     Ok(())
    /// });
    /// ```
    pub fn stream<W>(mut self, write: W) -> Self
    where
        W: AsyncFnOnce(&mut BodyWriter) -> Result<(), Error> + 'static,
    {
        self.body = Body::Stream {
            write: Box::new(move |body| Box::pin(async move { write(body).await })),
            block_on: |writing| wstd::runtime::block_on(writing),
        };
        self
    }

    pub fn status(&self) -> u16 {
        self.status
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = match &self.body {
            Body::Whole(content) => Some(content.len()),
            Body::Stream { .. } => None,
        };
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("length", &length)
            .finish()
    }
}

/// Takes the pieces of a body that is streamed.
pub struct BodyWriter(OutputStream);

impl BodyWriter {
    /// Sends a piece. Waits while the caller reads more slowly than the function writes, and
    /// fails once the caller is gone.
    pub async fn write(&mut self, piece: impl AsRef<[u8]>) -> Result<(), Error> {
        let mut left = piece.as_ref();
        while !left.is_empty() {
            match room(&self.0)? {
                0 => AsyncPollable::new(self.0.subscribe()).wait_for().await,
                room => left = put(&self.0, left, room)?,
            }
        }
        self.0.flush().map_err(gone)
    }
}

fn room(stream: &OutputStream) -> Result<usize, Error> {
    // What does not fit into a `usize` is more than there can be left to write.
    stream.check_write().map(|room| room.try_into().unwrap_or(usize::MAX)).map_err(gone)
}

/// Writes as much as there is room for, and returns the rest.
fn put<'a>(stream: &OutputStream, content: &'a [u8], room: usize) -> Result<&'a [u8], Error> {
    let (now, later) = content.split_at(room.min(content.len()));
    stream.write(now).map_err(gone)?;
    Ok(later)
}

fn gone(_: StreamError) -> Error {
    Error::failed("the caller went away before the answer was complete".to_owned())
}

/// A function's [`Result`].
#[diagnostic::on_unimplemented(
    message = "the error of `{Self}` is nothing that a function can answer",
    label = "neither `hearth_sdk::Error` nor a `std::error::Error`"
)]
pub trait Tried {
    type Output;

    fn tried(self) -> Result<Self::Output, Error>;
}

impl<T, E: Into<Error>> Tried for Result<T, E> {
    type Output = T;

    fn tried(self) -> Result<T, Error> {
        self.map_err(Into::into)
    }
}

/// What a function may return, or have in its [`Result`]. The parameter keeps a response and
/// JSON apart, since a response could be JSON as well as far as the compiler knows.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is nothing that a function can return",
    label = "not an output, a `Response`, or a `Result` of one of them",
    note = "an output is a type that implements `serde::Serialize`"
)]
pub trait Returned<Kind> {
    /// `WAITS` says that there is a runtime.
    fn send<const WAITS: bool>(self, out: ResponseOutparam) -> impl Future<Output = ()>;
}

impl<T: Serialize> Returned<Json> for T {
    async fn send<const WAITS: bool>(self, out: ResponseOutparam) {
        match serde_json::to_vec(&self) {
            Ok(json) if is_nothing::<T>() && json == b"null" => {
                send_whole(begin(out, 204, Fields::new()), &[]);
            }
            Ok(json) => send_text(out, 200, "application/json", &json),
            Err(error) => refuse(out, error.into()),
        }
    }
}

impl Returned<Raw> for Response {
    async fn send<const WAITS: bool>(self, out: ResponseOutparam) {
        send_response::<WAITS>(out, self).await;
    }
}

/// Whether a type has no more than one value to say: the unit, or one like it. An `Option` that
/// is empty says `null`.
pub(crate) const fn is_nothing<T>() -> bool {
    size_of::<T>() == 0
}

pub(crate) fn refuse(out: ResponseOutparam, error: Error) {
    let (status, problem) = error.into_problem();
    send_text(out, status, "application/problem+json", &problem);
}

fn send_text(out: ResponseOutparam, status: u16, content_type: &str, content: &[u8]) {
    let headers = Fields::from_list(&[
        ("content-type".to_owned(), content_type.as_bytes().to_vec()),
        ("content-length".to_owned(), content.len().to_string().into_bytes()),
    ])
    .expect("two headers that every host takes");
    send_whole(begin(out, status, headers), content);
}

async fn send_response<const WAITS: bool>(out: ResponseOutparam, mut response: Response) {
    if !(200..=599).contains(&response.status) {
        let cause = format!("{} is not the status of an answer", response.status);
        return refuse(out, Error::failed(cause));
    }
    if let Body::Whole(content) = &response.body {
        let has_none = matches!(response.status, 204 | 304);
        let told = response.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-length"));
        if !has_none && !told {
            response.headers.push(("content-length".to_owned(), content.len().to_string().into()));
        }
    }
    let headers = match Fields::from_list(&response.headers) {
        Ok(headers) => headers,
        Err(error) => {
            let cause = format!("a header of the answer is refused: {error}");
            return refuse(out, Error::failed(cause));
        }
    };
    let body = begin(out, response.status, headers);
    match response.body {
        Body::Whole(content) => send_whole(body, &content),
        Body::Stream { write, block_on } => {
            let mut writer = BodyWriter(body.write().expect("the stream is taken once"));
            let writing = write(&mut writer);
            let written = if WAITS { writing.await } else { block_on(writing) };
            // The stream is a part of the body, and must go first.
            drop(writer);
            match written {
                Ok(()) => finish(body),
                Err(error) => eprintln!("{error:?}"),
            }
        }
    }
}

/// Sends the head.
fn begin(out: ResponseOutparam, status: u16, headers: Fields) -> OutgoingBody {
    let response = OutgoingResponse::new(headers);
    if status != 200 {
        response.set_status_code(status).expect("a status between 200 and 599");
    }
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    body
}

/// A caller who went away meanwhile is no failure of the function, so no step here can fail.
fn send_whole(body: OutgoingBody, content: &[u8]) {
    if !content.is_empty() {
        let stream = body.write().expect("the stream is taken once");
        let mut left = content;
        while !left.is_empty() {
            left = match room(&stream) {
                Ok(0) => {
                    stream.subscribe().block();
                    left
                }
                Ok(room) => match put(&stream, left, room) {
                    Ok(rest) => rest,
                    Err(_) => return,
                },
                Err(_) => return,
            };
        }
    }
    finish(body);
}

fn finish(body: OutgoingBody) {
    let _ = OutgoingBody::finish(body, None);
}
