//! The request as it came and an answer without JSON: what is sent comes back piece by piece,
//! so that a body of any size passes through little memory.

use hearth_sdk::{Request, Response, function};

/// Sends back what it is sent.
#[function(methods = ["POST", "PUT"], path = "prefix", max_body = 104857600)]
fn raw(mut request: Request) -> Response {
    let kind = request.headers().get("content-type").unwrap_or("application/octet-stream");
    Response::new(if request.method() == "PUT" { 201 } else { 200 })
        .header("content-type", kind)
        .header("x-path", request.path())
        .header("x-query", request.query().unwrap_or_default())
        .stream(async move |body| {
            while let Some(piece) = request.piece()? {
                body.write(piece).await?;
            }
            Ok(())
        })
}
