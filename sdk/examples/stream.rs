//! Server-sent events: an answer that is written while it is read.

use hearth_sdk::wstd::task::sleep;
use hearth_sdk::wstd::time::Duration;
use hearth_sdk::{Query, Response, function};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
struct Ticks {
    #[schemars(range(max = 100))]
    count: u8,
    /// Milliseconds between two.
    every_ms: Option<u8>,
}

/// Ticks, `?count=3&every_ms=50`.
#[function(methods = ["GET"])]
fn stream(Query(ticks): Query<Ticks>) -> Response {
    Response::new(200)
        .header("content-type", "text/event-stream")
        .header("cache-control", "no-store")
        .stream(async move |body| {
            for tick in 1..=ticks.count {
                body.write(format!("event: tick\ndata: {tick}\n\n")).await?;
                sleep(Duration::from_millis(ticks.every_ms.unwrap_or(10).into())).await;
            }
            Ok(())
        })
}
