//! A function for those who have a token of the tenant. The host checks it before the function
//! is called, takes it away, and says instead whose it was.

use hearth_sdk::{Error, Headers, function};
use schemars::JsonSchema;
use serde::Serialize;

#[derive(Serialize, JsonSchema)]
struct Output {
    caller: String,
}

/// Says who calls.
#[function(methods = ["GET", "POST"], auth = "invoke")]
fn auth(headers: Headers) -> Result<Output, Error> {
    let caller = headers.get("x-hearth-caller");
    let caller = caller.ok_or_else(|| Error::new(401, "nobody has checked who you are"))?;
    Ok(Output { caller: caller.to_owned() })
}
