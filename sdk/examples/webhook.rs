//! A webhook: the sender signs the bytes of the body with a secret that both know, so the body
//! is read as bytes and believed only then.

#![expect(clippy::print_stdout, reason = "a function's standard output is its log")]

use hearth_sdk::{Error, Request, Response, function};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

/// An example's secret is none. One that is must not be in the module.
const SECRET: &[u8] = b"known to everybody";

#[derive(Deserialize)]
struct Event {
    kind: String,
}

/// Takes events that are signed with `x-signature-256: sha256=<hex>`.
#[function(max_body = 65536)]
fn webhook(mut request: Request) -> Result<Response, Error> {
    let body = request.bytes()?;
    let signature = request.headers().get("x-signature-256");
    let signature = signature.and_then(|value| unhex(value.strip_prefix("sha256=")?));
    let mut expected = Hmac::<Sha256>::new_from_slice(SECRET)?;
    expected.update(&body);
    // In constant time, so that a wrong signature does not tell how much of it was right.
    let signed = signature.is_some_and(|signature| expected.verify_slice(&signature).is_ok());
    if !signed {
        return Err(Error::new(401, "the signature is not that of the body"));
    }
    let event: Event = serde_json::from_slice(&body)
        .map_err(|error| Error::new(400, format!("the event is not understood: {error}")))?;
    println!("took {} in {}", event.kind, request.id().unwrap_or("a call without a name"));
    Ok(Response::new(204))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let [high, low] = pair else { return None };
            let digit = |byte: u8| char::from(byte).to_digit(16);
            u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
        })
        .collect()
}
