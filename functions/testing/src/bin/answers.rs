//! Answers as its body says: `{"status":418,"headers":[["set-cookie","a=1"]],"body":"…"}`.

use serde_json::Value;

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let (body, _) = testing::read(&request);
    let wanted: Value = serde_json::from_slice(&body).unwrap();
    let headers: Vec<(&str, &str)> = wanted["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
        .collect();
    let status = wanted["status"].as_u64().unwrap() as u16;
    testing::respond(out, status, &headers, wanted["body"].as_str().unwrap_or("").as_bytes());
}
