//! The function that every tenant has.

#![expect(clippy::print_stdout, reason = "a function's standard output is its log")]

use hearth_sdk::function;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
struct Input {
    name: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    greeting: String,
}

/// Greets by name, and the world where no name is given.
#[function]
fn hello(input: Option<Input>) -> Output {
    let name = input.and_then(|input| input.name).unwrap_or_else(|| "world".to_owned());
    println!("greeting {name}");
    Output { greeting: format!("Hello, {name}!") }
}
