//! The function that every new tenant has: greets by name.

use hearth_sdk::Error;
use serde::{Deserialize, Serialize};

hearth_sdk::function!(hello);

#[derive(Deserialize)]
struct Input {
    name: Option<String>,
}

#[derive(Serialize)]
struct Output {
    greeting: String,
}

fn hello(input: Option<Input>) -> Result<Output, Error> {
    let name = input.and_then(|input| input.name).unwrap_or_else(|| "world".to_owned());
    println!("greeting {name}");
    Ok(Output { greeting: format!("Hello, {name}!") })
}
