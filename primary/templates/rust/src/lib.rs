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
#[function]
fn handle(input: Input) -> Result<Output, Error> {
    if input.name.is_empty() {
        return Err(Error::new(422, "the name must not be empty"));
    }
    // What is printed is a log line of the call: `hearth logs` shows it.
    println!("greeting {}", input.name);
    Ok(Output { greeting: format!("Hello, {}!", input.name) })
}
