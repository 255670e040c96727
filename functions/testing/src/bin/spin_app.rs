//! A component of Spin's, with Spin's own router, as its documentation has it.

#![expect(unsafe_code, reason = "the SDK's macro writes the export into this file")]

use spin_sdk::http::{Params, Request, Response, Router};
use spin_sdk::http_component;

#[http_component]
fn handle(request: Request) -> Response {
    let mut router = Router::new();
    router.get("/", |_: Request, _: Params| says("spin at its root".to_owned()));
    router.get("/users/:name", |_: Request, params: Params| {
        says(format!("spin greets {}", params.get("name").unwrap_or_default()))
    });
    router.post("/users/:name", |request: Request, params: Params| {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        says(format!("spin takes {body} from {}", params.get("name").unwrap_or_default()))
    });
    router.get("/prefix", |request: Request, _: Params| {
        let prefix = request.header("x-forwarded-prefix").and_then(|prefix| prefix.as_str());
        says(prefix.unwrap_or("none").to_owned())
    });
    router.handle(request)
}

fn says(text: String) -> Response {
    Response::new(200, text)
}

fn main() {}
