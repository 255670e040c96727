//! Hearth functions in Rust: typed JSON in, typed JSON out.
//!
//! ```
//! use hearth_sdk::Error;
//! use serde::{Deserialize, Serialize};
//!
//! hearth_sdk::function!(divide);
//!
//! #[derive(Deserialize)]
//! struct Input {
//!     dividend: i64,
//!     divisor: i64,
//! }
//!
//! #[derive(Serialize)]
//! struct Output {
//!     quotient: i64,
//! }
//!
//! fn divide(input: Input) -> Result<Output, Error> {
//!     println!("dividing {} by {}", input.dividend, input.divisor);
//!     let quotient = input
//!         .dividend
//!         .checked_div(input.divisor)
//!         .ok_or_else(|| Error::new(422, "the divisor must not be 0"))?;
//!     Ok(Output { quotient })
//! }
//! ```
//!
//! Built for `wasm32-wasip2` as a `cdylib`, this is a component that exports
//! `wasi:http/incoming-handler`, so it runs on any host of that interface.
//!
//! - The request's body is the input. An empty body reads as `null`: take an [`Option`] (or `()`)
//!   where a call without a body is fine. Any other body that is not the JSON of the input is
//!   answered with 400 and says where it went wrong.
//! - The output is answered with 200 as `application/json`. A function that cannot fail may return
//!   its output bare, without a [`Result`].
//! - An [`Error`] is answered with its status as `application/problem+json`. Every other error,
//!   by way of `?`, is a 500 without details; what it said is written to standard error instead.
//! - Standard output and standard error are the log lines of the call.
//!
//! How often a function may be called, by whom, and with how much memory is the host's to decide.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::StreamError;

/// Makes a function of this type the component's handler:
/// `fn(Input) -> Result<Output, hearth_sdk::Error>` or `fn(Input) -> Output`.
///
/// Once in a crate; [the crate's head](crate) has an example.
#[macro_export]
macro_rules! function {
    ($function:path) => {
        const _: () = {
            enum Component {}

            impl $crate::__private::Guest for Component {
                fn handle(
                    request: $crate::__private::IncomingRequest,
                    response: $crate::__private::ResponseOutparam,
                ) {
                    $crate::__private::handle(request, response, $function)
                }
            }

            #[cfg(target_family = "wasm")]
            $crate::__private::export!(Component);
            // A native build has nobody to call it, and only checks types.
            #[cfg(not(target_family = "wasm"))]
            const _: fn($crate::__private::IncomingRequest, $crate::__private::ResponseOutparam) =
                <Component as $crate::__private::Guest>::handle;
        };
    };
}

/// Why a call is refused: a status, and a sentence for the caller.
///
/// Any [`std::error::Error`] becomes one of status 500 that keeps its own words from the caller.
pub struct Error {
    status: u16,
    message: String,
    /// For the log alone.
    cause: Option<String>,
}

impl Error {
    /// A status of 400 to 599; any other is a mistake of the function, and answered as 500.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), cause: None }
    }

    fn to_problem(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Problem<'a> {
            r#type: &'static str,
            status: u16,
            detail: &'a str,
        }
        let problem = Problem { r#type: "about:blank", status: self.status, detail: &self.message };
        serde_json::to_vec(&problem).expect("a problem is plain data")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.message)?;
        self.cause.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

// `Error` is therefore no `std::error::Error` itself: the two would overlap.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            cause = format!("{cause}: {error}");
            source = error.source();
        }
        Self { status: 500, message: "the function failed".to_owned(), cause: Some(cause) }
    }
}

/// What a function may return. The parameter keeps a bare output and a [`Result`] apart, which
/// serde could write both.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "a function returns `Output` or `Result<Output, hearth_sdk::Error>`, and `{Self}` is neither",
    note = "the output must implement `serde::Serialize`"
)]
pub trait Returned<Shape> {
    fn into_json(self) -> Result<Vec<u8>, Error>;
}

#[doc(hidden)]
pub enum Bare {}
#[doc(hidden)]
pub enum Fallible {}

impl<T: Serialize> Returned<Bare> for T {
    fn into_json(self) -> Result<Vec<u8>, Error> {
        Ok(serde_json::to_vec(&self)?)
    }
}

impl<T: Serialize, E: Into<Error>> Returned<Fallible> for Result<T, E> {
    fn into_json(self) -> Result<Vec<u8>, Error> {
        Ok(serde_json::to_vec(&self.map_err(Into::into)?)?)
    }
}

/// What the macro expands to. No part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use wasip2::exports::http::incoming_handler::Guest;
    pub use wasip2::http::proxy::export;
    pub use wasip2::http::types::{IncomingRequest, ResponseOutparam};

    pub use crate::handle;
}

#[doc(hidden)]
pub fn handle<Input, Output, Shape>(
    request: IncomingRequest,
    response: ResponseOutparam,
    function: impl FnOnce(Input) -> Output,
) where
    Input: DeserializeOwned,
    Output: Returned<Shape>,
{
    let result = body(&request)
        .and_then(|bytes| parse(&bytes))
        .and_then(|input| function(input).into_json());
    match result {
        Ok(json) => answer(response, 200, "application/json", &json),
        Err(mut error) => {
            if !(400..=599).contains(&error.status) {
                eprintln!("{} is not the status of an error", error.status);
                error.status = 500;
            }
            if let Some(cause) = &error.cause {
                eprintln!("{cause}");
            }
            answer(response, error.status, "application/problem+json", &error.to_problem());
        }
    }
}

fn parse<Input: DeserializeOwned>(body: &[u8]) -> Result<Input, Error> {
    let empty = body.is_empty();
    serde_json::from_slice(if empty { b"null" } else { body }).map_err(|error| {
        if empty {
            Error::new(400, "the body is empty, and this function needs JSON")
        } else {
            Error::new(400, format!("the body is not the JSON that this function takes: {error}"))
        }
    })
}

/// The whole body. The host bounds it.
fn body(request: &IncomingRequest) -> Result<Vec<u8>, Error> {
    const CHUNK_BYTES: u64 = 64 << 10;
    let cut_short = || Error::new(400, "the body ended before it was complete");
    let body = request.consume().map_err(|()| cut_short())?;
    let stream = body.stream().map_err(|()| cut_short())?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(CHUNK_BYTES) {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(_)) => return Err(cut_short()),
        }
    }
}

/// A caller who went away meanwhile is no failure of the function, so no step here can fail.
fn answer(outparam: ResponseOutparam, status: u16, content_type: &str, content: &[u8]) {
    let headers = Fields::from_list(&[
        ("content-type".to_owned(), content_type.as_bytes().to_vec()),
        ("content-length".to_owned(), content.len().to_string().into_bytes()),
    ])
    .expect("two headers that every host takes");
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("a status between 200 and 599");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(outparam, Ok(response));
    let written = {
        let mut stream = body.write().expect("the stream is taken once");
        std::io::Write::write_all(&mut stream, content).is_ok()
    };
    if written {
        let _ = OutgoingBody::finish(body, None);
    }
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
    fn both_shapes_of_a_return_are_taken() {
        fn json<Shape>(returned: impl Returned<Shape>) -> String {
            returned.into_json().map_or_else(
                |error| String::from_utf8(error.to_problem()).unwrap(),
                |json| String::from_utf8(json).unwrap(),
            )
        }
        assert_eq!(json(vec![1, 2]), "[1,2]");
        assert_eq!(json(Ok::<_, Error>(vec![1, 2])), "[1,2]");
        assert_eq!(
            json(Err::<(), _>(Error::new(422, "no \"zero\""))),
            r#"{"type":"about:blank","status":422,"detail":"no \"zero\""}"#
        );
    }

    #[test]
    fn the_words_of_other_errors_stay_inside() {
        let error = Error::from(std::io::Error::other("password"));
        assert_eq!(error.cause.as_deref(), Some("password"));
        assert!(!String::from_utf8(error.to_problem()).unwrap().contains("password"));
    }
}
