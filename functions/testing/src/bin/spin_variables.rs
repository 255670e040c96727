//! A component of Spin's that answers with the variable `name`, as its documentation has it.

#![expect(unsafe_code, reason = "the SDK's macro writes the export into this file")]

use spin_sdk::http::{Request, Response};
use spin_sdk::http_component;
use spin_sdk::variables;

#[http_component]
fn handle(request: Request) -> Response {
    let name = request.query().strip_prefix("name=").unwrap_or_default();
    match variables::get(name) {
        Ok(value) => Response::new(200, value),
        Err(variables::Error::Undefined(name)) => Response::new(404, format!("no {name}")),
        Err(error) => Response::new(400, error.to_string()),
    }
}

fn main() {}
