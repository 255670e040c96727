//! A function that pages of another origin may call. The host answers the browser's preflight
//! and adds the headers; the function knows nothing of it.

use hearth_sdk::function;
use schemars::JsonSchema;
use serde::Serialize;

#[derive(Serialize, JsonSchema)]
struct Output {
    open: bool,
}

/// Says whether the shop is open, to the shop's own page.
#[function(methods = ["GET", "POST"], cors = ["https://app.example"])]
fn cors() -> Output {
    Output { open: true }
}
