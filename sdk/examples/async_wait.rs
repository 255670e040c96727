//! A function that waits, and for how long at most it does.

use hearth_sdk::wstd::future::FutureExt;
use hearth_sdk::wstd::task::sleep;
use hearth_sdk::wstd::time::Duration;
use hearth_sdk::{Error, function};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
struct Input {
    ms: u64,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    waited_ms: u64,
}

/// Waits as long as it is told, and gives up after a fifth of a second.
#[function(timeout_ms = 5000)]
async fn async_wait(input: Input) -> Result<Output, Error> {
    let patience = Duration::from_millis(200);
    match sleep(Duration::from_millis(input.ms)).timeout(patience).await {
        Ok(_) => Ok(Output { waited_ms: input.ms }),
        Err(_) => Err(Error::new(504, "that takes too long")),
    }
}
