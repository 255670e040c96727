//! Takes something in and has nothing to say of it: what returns nothing answers 204.
//!
//! `curl -d '{"level":"warn"}' http://127.0.0.1:3411/silent`

#![expect(clippy::print_stdout, reason = "a function's standard output is its log")]

use hearth_sdk::{Error, function};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
struct Note {
    level: String,
}

/// Writes a line to the log.
#[function]
fn silent(note: Note) -> Result<(), Error> {
    println!("noted: {}", note.level);
    Ok(())
}
