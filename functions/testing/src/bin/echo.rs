//! Answers with all that it can see of the request.

use std::collections::BTreeMap;

use serde_json::json;
use testing::{Headers, Out, Request, read, respond_json, target};

testing::guest!(handle);

fn handle(request: Request, out: Out) {
    let (body, trailers) = read(&request);
    respond_json(
        out,
        &json!({
            "method": format!("{:?}", request.method()),
            "target": target(&request),
            "authority": request.authority(),
            "headers": texts(request.headers().entries()),
            "body": String::from_utf8_lossy(&body),
            "bytes": body.len(),
            "trailers": texts(trailers),
        }),
    );
}

fn texts(headers: Headers) -> BTreeMap<String, Vec<String>> {
    let mut texts = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in headers {
        texts.entry(name).or_default().push(String::from_utf8_lossy(&value).into_owned());
    }
    texts
}
