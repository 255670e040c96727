//! A function on WASI 0.3 that answers with what Spin's asynchronous variables have for the name in
//! `?name=`.

use wasip3::http::types::{ErrorCode, Request, Response};
use wasip3::http_compat::{self, http_from_wasi_request, http_into_wasi_response};

mod bindings {
    wit_bindgen::generate!({
        path: "../../sdk/wit/spin-variables/3.0.0",
        inline: "
            package testing:settings;
            world reads {
                import spin:variables/variables@3.0.0;
            }
        ",
        world: "testing:settings/reads",
        generate_all,
    });
}

use bindings::spin::variables::variables;

wasip3::http::service::export!(Guest);

struct Guest;

impl wasip3::exports::http::handler::Guest for Guest {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let request: http_compat::Request = http_from_wasi_request(request)?;
        let query = request.uri().query().unwrap_or_default();
        let name = query.strip_prefix("name=").unwrap_or_default().to_owned();
        let said = match variables::get(name).await {
            Ok(value) => value,
            Err(error) => format!("{error:?}"),
        };
        http_into_wasi_response(http_compat::Response::new(said))
    }
}

fn main() {}
