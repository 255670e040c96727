//! An axum application as its own documentation has it: it knows of no path but those below its own
//! root.

use axum::Router;
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::routing::get;

#[wstd_axum::http_server]
fn main() -> Router {
    Router::new()
        .route("/", get(root))
        .route("/users/{name}", get(greets).post(takes))
        .route("/prefix", get(prefix))
}

async fn root() -> &'static str {
    "axum at its root"
}

async fn greets(Path(name): Path<String>) -> String {
    format!("axum greets {name}")
}

async fn takes(Path(name): Path<String>, body: String) -> String {
    format!("axum takes {body} from {name}")
}

async fn prefix(headers: HeaderMap) -> String {
    let prefix = headers.get("x-forwarded-prefix").and_then(|prefix| prefix.to_str().ok());
    prefix.unwrap_or("none").to_owned()
}
