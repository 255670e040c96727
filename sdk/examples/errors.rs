//! The three ways in which a call fails: the caller's words do not fit the types (400, and the
//! function is not called), the function refuses (its own status and sentence), or something
//! within it fails (500, and only the log says what).

use std::num::ParseIntError;

use hearth_sdk::{Error, function};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
struct Input {
    dividend: i64,
    divisor: i64,
    /// How many digits behind the point, in words of its own.
    digits: Option<String>,
}

/// Divides.
#[function]
fn errors(input: Input) -> Result<String, Error> {
    if input.divisor == 0 {
        return Err(Error::new(422, "the divisor must not be 0"));
    }
    let digits = digits(input.digits.as_deref().unwrap_or("2"))?;
    let quotient = input.dividend as f64 / input.divisor as f64;
    Ok(format!("{quotient:.digits$}"))
}

/// Its error is not for the caller: `?` makes it a 500, and writes it to the log.
fn digits(text: &str) -> Result<usize, ParseIntError> {
    text.parse::<u8>().map(usize::from)
}
