//! Hearth functions in Rust: typed JSON in, typed JSON out.
//!
//! ```
//! use hearth_sdk::{Error, function};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Input { name: String }
//!
//! #[derive(Serialize, JsonSchema)]
//! struct Output { greeting: String }
//!
//! /// Greets by name.
//! #[function(timeout_ms = 500)]
//! async fn hello(input: Input) -> Result<Output, Error> {
//!     Ok(Output { greeting: format!("Hello, {}!", input.name) })
//! }
//! ```
//!
//! Built for `wasm32-wasip2` as a `cdylib`, this is a component that exports
//! `wasi:http/incoming-handler`, so it runs on any host of that interface, and
//! `hearth:function/options`, by which Hearth learns its options and its schemas when it is
//! uploaded. There is one function in a crate. It stays an ordinary function, which a test can
//! call.
//!
//! `serde` and `schemars` are dependencies of their own, as their derive macros want it.
//!
//! # What it takes
//!
//! No argument, or some of these in any order, of which one reads the body:
//!
//! | argument | what it is |
//! |---|---|
//! | a type that implements [`Deserialize`] | the JSON of the body |
//! | [`Query<T>`](Query) | the parameters of the query string, as the fields of `T` |
//! | [`Headers`] | the headers of the request |
//! | [`Request`] | the whole request: method, path, headers, and the body as bytes |
//!
//! An empty body reads as `null`: take an [`Option`] where a call without a body is fine. What
//! does not fit the types is answered with 400, says where it went wrong, and does not reach the
//! function.
//!
//! # What it returns
//!
//! - **An output**, any type that implements [`Serialize`](serde::Serialize): its JSON, with
//!   status 200. The unit `()` says nothing: status 204, without a body.
//! - **A [`Response`]**, where status, headers or body are to be something else; its body may be
//!   streamed.
//! - **A [`Result`]** of one of them. An [`Error`] is answered with its status as
//!   `application/problem+json`. Every other error, by way of `?`, is a 500 without details; what
//!   it said is written to standard error instead.
//!
//! Standard output and standard error are the log lines of the call.
//!
//! # Options
//!
//! What the attribute does not name is left to the host, and what is said at an upload counts
//! more. A wrong value does not compile.
//!
//! | option | |
//! |---|---|
//! | `methods = ["GET", "PUT"]` | of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS; without it POST |
//! | `path = "prefix"` | everything below the function's path is its own, too; else `"exact"` |
//! | `path = "root"` | that, and whatever no other function of the tenant takes, `/` included |
//! | `strip_prefix = true` | what follows the function's own path is the path that it sees; that path is in `x-forwarded-prefix` |
//! | `auth = "invoke"` | the scope that a caller's token needs: `"invoke"`, `"report"`, `"deploy"`, `"owner"`; or `"internal"`: triggers, functions of the same tenant and its owner's `hearth invoke` alone; else `"public"` |
//! | `timeout_ms = 500` | milliseconds a call may take, 1 to 300000 |
//! | `memory_mb = 16` | MiB that an instance may have, 1 to 256 |
//! | `max_body = 65536` | bytes that a body may have, 1 to 104857600; with a schema at most 16777216 |
//! | `reuse = 100` | calls that an instance may serve, 1 to 10000; without it each has a fresh one |
//! | `cors = ["https://app.example"]` | the origins whose pages may call, or `"*"` for any |
//! | `stores = ["carts"]` | the key-value stores that the function may use; without it any, `[]` for none |
//! | `relaxed_stores = ["cache"]` | stores in which its writes are answered before they are on the disk |
//! | `databases = ["shop"]` | the SQL databases that the function may use; without it any, `[]` for none |
//! | `description = "…"` | for people; without it, what the function's `///` lines say |
//! | `schema = false` | derives no schemas; `"request"`: none of the answer |
//!
//! The schemas are those of the JSON body, of the query string and of the output, and are part
//! of the tenant's OpenAPI document. The host checks each call against them before the function
//! runs, and each answer before it is sent. The types that a function takes and returns
//! implement [`JsonSchema`](schemars::JsonSchema) for this, and those under `schema = false`
//! need not.
//!
//! # Waiting
//!
//! An `async` function runs on [`wstd`], whose timers and HTTP client are there within it. A
//! plain one has no runtime, and starts a little quicker.
//!
//! # Configuration and secrets
//!
//! [`config::get`] has what the function's tenant was told with `hearth config` and `hearth secret`.
//! # Keeping and saying
//!
//! [`kv`] has the tenant's key-value stores, [`sql`] its databases, and [`log`] lines of the log with
//! their level. A function imports what it uses of them, and nothing of the others.
//!
//! [`Deserialize`]: serde::Deserialize

#![expect(clippy::print_stderr, reason = "a function's standard error is its log")]

pub mod config;
mod error;
mod kind;
pub mod kv;
pub mod log;
mod options;
mod query;
mod request;
mod response;
mod serve;
pub mod sql;

#[doc(hidden)]
#[expect(
    unsafe_code,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    reason = "generated from `wit/function.wit`"
)]
pub mod bindings;
#[expect(
    unsafe_code,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    reason = "generated from `wit/wasi-config/rc.1`"
)]
mod settings;

/// Makes a function the component's handler, and declares its options.
///
/// [The crate's head](crate) says what it may take and return, and which options there are.
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
    pub use crate::options::{Declared, Schemas, Value};
    pub use crate::response::Tried;
    pub use crate::serve::serve;

    use crate::Error;
    use crate::options::{DescribedArgument, DescribedReturn};
    use crate::request::Argument;

    pub fn argument<T: Argument<Kind>, Kind>(request: &IncomingRequest) -> Result<T, Error> {
        T::take(request)
    }

    pub const fn takes_body<T: Argument<Kind>, Kind>() -> bool {
        T::BODY
    }

    pub const fn takes_query<T: Argument<Kind>, Kind>() -> bool {
        T::QUERY
    }

    pub const fn at_most_one(each: &[bool]) -> bool {
        let (mut index, mut found) = (0, false);
        while index < each.len() {
            if each[index] && found {
                return false;
            }
            found |= each[index];
            index += 1;
        }
        true
    }

    pub fn describe_argument<T: DescribedArgument<Kind>, Kind>(schemas: &mut Schemas) {
        T::describe(schemas);
    }

    pub fn describe_returned<R: DescribedReturn<Kind>, Kind>(schemas: &mut Schemas) {
        R::describe(schemas);
    }
}
