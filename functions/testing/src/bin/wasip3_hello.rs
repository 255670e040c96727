//! A function on WASI 0.3: an asynchronous export of `wasi:http/handler`.

use wasip3::http::types::{ErrorCode, Request, Response};
use wasip3::http_compat::{self, http_from_wasi_request, http_into_wasi_response};

wasip3::http::service::export!(Guest);

struct Guest;

impl wasip3::exports::http::handler::Guest for Guest {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let request: http_compat::Request = http_from_wasi_request(request)?;
        wasip3::clocks::monotonic_clock::wait_for(1_000_000).await;
        let body = format!("hello {} from wasip3", request.uri());
        http_into_wasi_response(http_compat::Response::new(body))
    }
}

fn main() {}
