//! JSON in, JSON out: the least there is to a function.

use hearth_sdk::{Error, function};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
struct Input {
    name: String,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    greeting: String,
}

/// Greets by name.
#[function(timeout_ms = 500)]
async fn hello(input: Input) -> Result<Output, Error> {
    Ok(Output { greeting: format!("Hello, {}!", input.name) })
}
