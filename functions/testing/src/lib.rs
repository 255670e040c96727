//! What the guests in `bin` share: reading a request, writing a response, and the export.
//!
//! Each guest shows one behaviour of a function and is written on plain `wasi:http`, so that
//! it would run on any other host. What Hearth must make of it is said by the tests in
//! `primary/tests/it`, whose list of guests must name every file here.

pub mod stores;

use std::io::{Read, Write};

use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{Fields, IncomingBody, OutgoingBody, OutgoingResponse};

pub use wasip2::http::types::{IncomingRequest as Request, ResponseOutparam as Out};

/// Exports `$handle` as `wasi:http/incoming-handler`.
#[macro_export]
macro_rules! guest {
    ($handle:path) => {
        struct Guest;
        impl wasip2::exports::http::incoming_handler::Guest for Guest {
            fn handle(request: $crate::Request, out: $crate::Out) {
                $handle(request, out)
            }
        }
        wasip2::http::proxy::export!(Guest);
        fn main() {}
    };
}

/// Exports what `$get` returns as the options that a module declares of itself.
#[macro_export]
macro_rules! declares {
    ($get:path) => {
        #[expect(unsafe_code, reason = "generated bindings")]
        mod declared {
            struct Declared;

            impl $crate::declaring::exports::hearth::function::options::Guest for Declared {
                fn get() -> String {
                    $get()
                }
            }

            $crate::declaring::export!(Declared);
        }
    };
}

pub mod declaring {
    wit_bindgen::generate!({
        inline: "
            package hearth:function;
            interface options { get: func() -> string; }
            world declaring { export options; }
        ",
        pub_export_macro: true,
        default_bindings_module: "testing::declaring",
    });
}

pub type Headers = Vec<(String, Vec<u8>)>;

/// The request's path and query as the guest sees them.
pub fn target(request: &Request) -> String {
    request.path_with_query().unwrap_or_default()
}

/// `name=number` of the query.
pub fn number(request: &Request, name: &str) -> Option<u64> {
    let target = target(request);
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// `name=text` of the query, as it is written there.
pub fn text(request: &Request, name: &str) -> Option<String> {
    let target = target(request);
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| Some(pair.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// The whole body, and the trailers behind it.
pub fn read(request: &Request) -> (Vec<u8>, Headers) {
    let body = request.consume().unwrap();
    let mut bytes = Vec::new();
    body.stream().unwrap().read_to_end(&mut bytes).unwrap();
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    let trailers = trailers.get().unwrap().unwrap().ok().flatten();
    (bytes, trailers.map(|fields| fields.entries()).unwrap_or_default())
}

/// Sends the head, and returns what takes the body.
pub fn begin(out: Out, status: u16, headers: &[(&str, &str)]) -> OutgoingBody {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).unwrap();
    }
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    Out::set(out, Ok(response));
    body
}

pub fn respond(out: Out, status: u16, headers: &[(&str, &str)], bytes: &[u8]) {
    let body = begin(out, status, headers);
    body.write().unwrap().write_all(bytes).unwrap();
    OutgoingBody::finish(body, None).unwrap();
}

pub fn respond_json(out: Out, value: &serde_json::Value) {
    respond(out, 200, &[("content-type", "application/json")], value.to_string().as_bytes());
}

/// Waits on the guest's own clock.
pub fn pause(milliseconds: u64) {
    monotonic_clock::subscribe_duration(milliseconds * 1_000_000).block();
}
