//! Says on standard output that it was called, and answers as the header `x-answer` says:
//! `{"status":404,"headers":[["content-type","text/plain"]],"body":"…","times":3,"traps":true}`.
//! Each time is a piece of its own, and after the last it may panic. Without the header it sends
//! its body back.

#![expect(clippy::print_stdout, reason = "a function's standard output is its log")]

use std::io::Write;

use serde_json::Value;
use wasip2::http::types::OutgoingBody;

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    println!("called");
    let Some(wanted) = request.headers().get("x-answer").pop() else {
        let (body, _) = testing::read(&request);
        return testing::respond(out, 200, &[("content-type", "application/json")], &body);
    };
    let wanted: Value = serde_json::from_slice(&wanted).unwrap();
    let pairs = wanted["headers"].as_array().into_iter().flatten();
    let headers: Vec<(&str, &str)> =
        pairs.map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect();
    let status = wanted["status"].as_u64().unwrap_or(200) as u16;
    let body = testing::begin(out, status, &headers);
    let mut sink = body.write().unwrap();
    for _ in 0..wanted["times"].as_u64().unwrap_or(1) {
        sink.write_all(wanted["body"].as_str().unwrap_or("").as_bytes()).unwrap();
        sink.flush().unwrap();
    }
    assert_ne!(wanted["traps"], true, "it was asked to");
    drop(sink);
    OutgoingBody::finish(body, None).unwrap();
}
