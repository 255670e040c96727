//! What a function's schemas make of its answers.

use serde_json::json;

use super::{HELD_MAX, asked, lines};
use crate::guests;
use crate::host::Host;
use crate::processes::eventually;

#[test]
fn an_answer_is_judged_by_the_schema_for_its_status() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let response = json!({
        "200": {"type": "object", "properties": {"items": {"items": {"type": "integer"}}}},
        "2xx": {"type": "array"},
        "404": {"type": "object", "required": ["sorry"]},
        "default": {"type": "string"},
    });
    let options = json!({ "schema": { "response": response } });
    tenant.deploy_with("said", guests::answers_with(), &options);
    for (number, address) in tenant.addresses().into_iter().enumerate() {
        for (status, body) in [
            (200, r#" {"items": [1, 2.0, 3e2]} "#),
            (201, "[]"),
            (404, r#"{"sorry":true}"#),
            (403, "\"no\""),
            (500, "\"my own failure \u{e4}\""),
        ] {
            let wanted = json!({
                "status": status,
                "headers": [["content-type", "application/json"], ["x-mine", "1"], ["x-mine", "2"]],
                "body": body,
            });
            let answer = address.send(&asked(&address, "/said", &wanted)).expect(status);
            assert_eq!(answer.text(), body, "{}", address.name);
            let length = body.len().to_string();
            assert_eq!(answer.header("content-length"), Some(&*length), "{}", address.name);
            assert_eq!(answer.header("transfer-encoding"), None, "{}", address.name);
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("x-hearth-version"), Some("/said@1"));
            let mine: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "x-mine").collect();
            assert_eq!(mine.len(), 2, "{:?}", answer.headers);
        }
        for (status, body, schema, pointer) in [
            (200, r#"{"items":[1,"secret"]}"#, "200", "/items/1"),
            (201, r#"{"secret":1}"#, "2xx", ""),
            (404, r#"{"secret":1}"#, "404", ""),
            (418, r#"["secret"]"#, "default", ""),
            (200, "secret", "200", ""),
            (200, "", "200", ""),
        ] {
            let id = format!("broken-{number}-{status}-{}", body.len());
            let headers = json!([["x-secret", "secret"], ["content-type", "text/secret"]]);
            let wanted = json!({ "status": status, "headers": headers, "body": body });
            let request = asked(&address, "/said", &wanted).header("x-request-id", &id);
            let answer = address.send(&request).expect_problem(500, "response_invalid");
            assert_eq!(answer.header("x-hearth-version"), Some("/said@1"), "{}", address.name);
            assert!(!format!("{answer:?}{}", answer.text()).contains("secret"), "{answer:?}");
            assert!(answer.json()["errors"].is_null(), "{}", answer.text());
            let line = eventually("a line of the host's", || {
                lines(&tenant, &format!("stream=host&request_id={id}")).pop()
            });
            let says = format!("the answer breaks `schema.response.{schema}` at {pointer:?}: ");
            assert!(line.starts_with(&says), "{line}");
            assert!(!line.contains("secret"), "nor are its values logged: {line}");
            let call = eventually("its record", || {
                let calls = tenant.ask("/calls")["calls"].as_array().unwrap().clone();
                calls.into_iter().find(|call| call["request_id"] == id)
            });
            let went = (&call["outcome"], &call["status"]);
            assert_eq!(went, (&json!("response_invalid"), &json!(500)), "{call}");
        }
    }
}

#[test]
fn an_answer_in_pieces_is_judged_whole() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let options = json!({ "schema": { "response": { "200": {"type": "string"} } } });
    tenant.deploy_with("said", guests::answers_with(), &options);
    let streams = json!({ "schema": { "response": { "default": false } } });
    tenant.deploy_with("streams", guests::streams(), &streams);
    tenant.deploy("free", guests::answers_with());
    for address in tenant.addresses() {
        // Quotes at both ends of what is said so many times: "\"a\"" is none, but "\"" twice is.
        let pieces = |path: &str, body: &str, times: usize| {
            address.send(&asked(&address, path, &json!({ "body": body, "times": times })))
        };
        let answer = pieces("/said", "\"", 2).expect(200);
        assert_eq!((answer.text().as_str(), answer.header("content-length")), ("\"\"", Some("2")));
        assert_eq!(answer.header("transfer-encoding"), None, "{}", address.name);
        pieces("/said", "\"", 3).expect_problem(500, "response_invalid");
        let long = format!("\"{}\"", "x".repeat(2 << 20));
        let answer = address.post("/said", &long).expect(200);
        assert!(answer.text() == long, "{}: {} bytes", address.name, answer.body.len());
        assert_eq!(answer.header("content-length"), Some(&*long.len().to_string()));
        address.post("/streams?pieces=3", "").expect_problem(500, "response_invalid");
        // A failure in the middle is the function's own, and the answer is not cut but replaced.
        let wanted = json!({ "body": "\"half", "traps": true });
        let request = asked(&address, "/said", &wanted);
        address.send(&request).expect_problem(500, "function_trapped");
        let freely = asked(&address, "/free", &wanted).try_send(address.to);
        assert!(freely.is_err(), "without a schema it is cut: {freely:?}");
    }
    // Of spaces, which JSON allows around a value, as long as an answer may be and one more.
    let long = |spaces: usize| {
        let wanted = json!({ "body": " ".repeat(4096), "times": spaces / 4096 });
        let request = asked(&tenant.address(), "/said", &wanted).header("x-request-id", "long");
        tenant.address().send(&request).expect_problem(500, "response_invalid")
    };
    long(HELD_MAX);
    long(HELD_MAX + 4096);
    let said = eventually("what the host says of both", || {
        let said = lines(&tenant, "stream=host&request_id=long");
        (said.len() == 2).then_some(said)
    });
    assert!(said[0].contains("this is not valid JSON"), "{said:?}");
    assert!(said[1].contains("longer than the 16 MiB"), "{said:?}");
}

#[test]
fn an_answer_without_a_body_is_not_judged() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let response = json!({ "default": {"type": "object"} });
    let options = json!({ "methods": ["HEAD", "GET", "POST"], "schema": { "response": response } });
    tenant.deploy_with("said", guests::answers_with(), &options);
    for address in tenant.addresses() {
        for (method, wanted, status) in [
            ("HEAD", json!({ "status": 200, "body": "no JSON" }), 200),
            ("HEAD", json!({ "status": 404 }), 404),
            ("POST", json!({ "status": 204 }), 204),
            ("GET", json!({ "status": 304 }), 304),
        ] {
            let request = address.request(method, "/said").header("x-answer", &wanted.to_string());
            let answer = address.send(&request);
            assert_eq!(
                (answer.status, answer.body.len()),
                (status, 0),
                "{method} {}",
                address.name
            );
        }
        let request = address.request("GET", "/said").header("x-answer", r#"{"body":"no JSON"}"#);
        address.send(&request).expect_problem(500, "response_invalid");
    }
}
