//! The same on WASI 0.3: answers with how many calls its instance has served, and keeps what
//! `?what=` says of each: 0 nothing, 1 fields, 2 the request, 3 its body.

use std::mem::forget;
use std::sync::atomic::{AtomicU32, Ordering};

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::http_compat::{self, http_into_wasi_response};
use wasip3::wit_future;

wasip3::http::service::export!(Guest);

struct Guest;

static CALLS: AtomicU32 = AtomicU32::new(0);

impl wasip3::exports::http::handler::Guest for Guest {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        match request.get_path_with_query().unwrap_or_default().rsplit('=').next() {
            Some("1") => forget(Fields::new()),
            Some("2") => forget(request),
            Some("3") => {
                let (read, result) = wit_future::new(|| Ok(()));
                forget((Request::consume_body(request, result), read));
            }
            _ => {}
        }
        http_into_wasi_response(http_compat::Response::new(calls.to_string()))
    }
}

fn main() {}
