//! Configuration and a secret, read by name: who may not do without one says so itself.

use hearth_sdk::{Error, config, function};
use serde::Serialize;

#[derive(Serialize, schemars::JsonSchema)]
struct Output {
    region: String,
    /// Whether the caller's word is the secret: the secret itself is nobody's to see.
    welcome: bool,
}

/// Compares a word with the secret `PASSWORD`.
#[function(methods = ["POST"])]
fn compares(word: String) -> Result<Output, Error> {
    let password = config::require("PASSWORD")?;
    let region = config::get("region")?.unwrap_or_else(|| "nowhere".to_owned());
    Ok(Output { region, welcome: word == password })
}
