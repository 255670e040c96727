use hearth_sdk::Error;
use serde::{Deserialize, Serialize};

hearth_sdk::function!(handle);

#[derive(Deserialize)]
struct Input {
    name: String,
}

#[derive(Serialize)]
struct Output {
    greeting: String,
}

fn handle(input: Input) -> Result<Output, Error> {
    if input.name.is_empty() {
        return Err(Error::new(422, "the name must not be empty"));
    }
    // What is printed is a log line of the call: `hearth logs` shows it.
    println!("greeting {}", input.name);
    Ok(Output { greeting: format!("Hello, {}!", input.name) })
}
