//! Hearth functions in Rust.

mod error;
mod options;
mod query;
mod request;
mod response;
mod serve;

#[doc(hidden)]
#[expect(unsafe_code, unused_qualifications, reason = "generated from `wit/function.wit`")]
pub mod bindings;

pub use hearth_sdk_macros::function;
pub use wstd;

pub use error::Error;
pub use request::{Headers, Query, Request};
pub use response::{BodyWriter, Response};

/// What the attribute expands to. No part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use wasip2::exports::http::incoming_handler::Guest as Handler;
    pub use wasip2::http::proxy::export as export_handler;
    pub use wasip2::http::types::{IncomingRequest, ResponseOutparam};

    pub use crate::bindings::export_options;
    pub use crate::bindings::exports::hearth::function::options::Guest as Options;
    pub use crate::options::{Declared, Schemas};
    pub use crate::serve::serve;

    use crate::Error;
    use crate::options::{DescribedArgument, DescribedReturn};
    use crate::request::Argument;

    pub fn argument<T: Argument<Kind>, Kind>(request: &IncomingRequest) -> Result<T, Error> {
        T::take(request)
    }

    pub const fn bodies<T: Argument<Kind>, Kind>() -> usize {
        T::BODY as usize
    }

    pub const fn queries<T: Argument<Kind>, Kind>() -> usize {
        T::QUERY as usize
    }

    pub fn describe_argument<T: DescribedArgument<Kind>, Kind>(schemas: &mut Schemas) {
        T::describe(schemas);
    }

    pub fn describe_returned<R: DescribedReturn<Shape>, Shape>(schemas: &mut Schemas) {
        R::describe(schemas);
    }
}
