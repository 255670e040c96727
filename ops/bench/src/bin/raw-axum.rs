//! What Hearth is compared with where nothing stands between a caller and the code: the tests'
//! function `answers` as a handler of axum, on one thread.
//!
//! Says on its first line of output where it listens, and serves until it is ended.

#![expect(clippy::print_stdout, reason = "it says where it listens to the measurement")]

use std::net::{Ipv4Addr, SocketAddr};

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;

const PATH: &str = "/answers";

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        println!("{}", listener.local_addr()?);
        axum::serve(listener, Router::new().route(PATH, post(answer))).await?;
        Ok(())
    })
}

/// Answers as the body says: `{"status":418,"headers":[["set-cookie","a=1"]],"body":"…"}`.
async fn answer(Json(wanted): Json<Value>) -> Result<Response, StatusCode> {
    build(&wanted).ok_or(StatusCode::BAD_REQUEST)
}

fn build(wanted: &Value) -> Option<Response> {
    let status = wanted["status"].as_u64().and_then(|status| u16::try_from(status).ok())?;
    let mut answer = Response::builder().status(status);
    for header in wanted["headers"].as_array()? {
        answer = answer.header(header[0].as_str()?, header[1].as_str()?);
    }
    answer.body(Body::from(wanted["body"].as_str().unwrap_or("").to_owned())).ok()
}
