//! What a function's schemas make of requests and of answers.

mod document;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::guests;
use crate::host::{Door, Host, Tenant};
use crate::http::{Answer, Connection, Request};
use crate::processes::eventually;

/// What a body with a schema may have.
const HELD_MAX: usize = 16 << 20;

fn violations(answer: &Answer) -> Vec<(String, String)> {
    let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    errors
        .iter()
        .map(|error| {
            assert!(!text(&error["message"]).is_empty(), "{error}");
            (text(&error["in"]), text(&error["pointer"]))
        })
        .collect()
}

/// Refused, for these and no other reasons: (in, pointer).
#[track_caller]
fn violates(answer: Answer, expected: &[(&str, &str)]) {
    let answer = answer.expect_problem(400, "schema_violation");
    let found = violations(&answer);
    let found: Vec<_> = found.iter().map(|(place, at)| (&**place, &**at)).collect();
    assert_eq!(found, expected, "{}", answer.text());
}

/// In pieces of their own length, which nobody knows before.
fn chunked(request: Request, pieces: &[&[u8]]) -> Request {
    let mut body = Vec::new();
    for piece in pieces {
        body.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        body.extend_from_slice(piece);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    request.header("transfer-encoding", "chunked").body(body)
}

/// For the guest `answers_with`.
fn asked(door: &Door, path: &str, answer: &Value) -> Request {
    door.request("POST", path).header("x-answer", &answer.to_string())
}

#[track_caller]
fn lines(tenant: &Tenant, query: &str) -> Vec<String> {
    let page = tenant.ask(&format!("/logs?limit=1000&{query}"));
    let lines = page["lines"].as_array().unwrap();
    lines.iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

fn order() -> Value {
    json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        },
        "additionalProperties": false,
        "$defs": {
            "line": {
                "type": "object",
                "required": ["count"],
                "properties": {
                    "count": {"type": "integer", "minimum": 1},
                    "a/b": {"type": "string", "pattern": "^[a-z]+$"},
                    "below": {"$ref": "#/$defs/line"},
                },
            },
        },
    })
}

#[test]
fn a_body_that_breaks_its_schema_is_refused_with_pointers_and_the_function_is_not_started() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let options = json!({ "schema": { "body": order() } });
    tenant.deploy_with("order", guests::answers_with(), &options);
    for door in tenant.doors() {
        for (body, expected) in [
            ("[]", &[""][..]),
            ("{}", &[""]),
            (r#"{"name":""}"#, &["/name"]),
            (r#"{"name":"a","lines":{}}"#, &["/lines"]),
            (r#"{"name":"a","lines":[{"count":1},{"count":0}]}"#, &["/lines/1/count"]),
            (r#"{"name":"a","lines":[{"count":1,"a/b":"A"}]}"#, &["/lines/0/a~1b"]),
            (
                r#"{"name":"a","lines":[{"count":1,"below":{"count":2,"below":{}}}]}"#,
                &["/lines/0/below/below"],
            ),
            (r#"{"name":"a","more":1}"#, &[""]),
            (
                r#"{"name":1,"lines":[{"count":"x"},{},{"count":1.5}]}"#,
                &["/lines/0/count", "/lines/1", "/lines/2/count", "/name"],
            ),
        ] {
            let answer = door.post("/order", body);
            assert_eq!(answer.header("x-hearth-version"), Some("/order@1"), "{}", door.name);
            let expected: Vec<_> = expected.iter().map(|at| ("body", *at)).collect();
            violates(answer, &expected);
        }
        let missing = door.post("/order", "{}");
        assert_eq!(
            missing.json()["errors"],
            json!([{"in": "body", "pointer": "", "message": "\"name\" is a required property"}])
        );
        missing.expect_detail("\"name\" is a required property");
        let fine = r#"{"name":"a","lines":[{"count":1,"below":{"count":2.0}}]}"#;
        let request = door.request("POST", "/order").header("x-request-id", "fine").body(fine);
        assert_eq!(door.send(&request).expect(200).text(), fine, "it is passed on as it came");
    }
    // The function's own first words, and the calls' records, are of those that were fine.
    eventually("the last one's words", || {
        (lines(&tenant, "request_id=fine").len() == 3).then_some(())
    });
    assert_eq!(lines(&tenant, ""), ["called"; 3]);
    let calls = eventually("the records", || {
        let calls = tenant.ask("/calls?limit=1000")["calls"].as_array().unwrap().clone();
        (calls.len() == 33).then_some(calls)
    });
    for call in calls {
        let expected = match call["request_id"] == "fine" {
            true => (json!("answered"), json!(200)),
            false => (json!("refused"), json!(400)),
        };
        assert_eq!((call["outcome"].clone(), call["status"].clone()), expected, "{call}");
    }
}

#[test]
fn a_body_that_is_no_json_is_refused_whatever_it_calls_itself() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let options = json!({ "schema": { "body": {"type": "object"} } });
    tenant.deploy_with("order", guests::answers_with(), &options);
    for door in tenant.doors() {
        for (body, said) in [
            (&b"{"[..], "this is not valid JSON: "),
            (b"{} {}", "this is not valid JSON: "),
            (b"{'a':1}", "this is not valid JSON: "),
            (b"{\"a\":\"\xff\"}", "this is not valid JSON: "),
            (b" ", "this is not valid JSON: "),
            (b"", "there is no body"),
        ] {
            let request = door.request("POST", "/order").header("content-type", "application/json");
            let answer = door.send(&request.body(body));
            let message = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
            assert!(message.starts_with(said), "{}: {message}", door.name);
            violates(answer, &[("body", "")]);
        }
        let request = door.request("POST", "/order").header("content-type", "text/plain");
        door.send(&request.body(" {\"a\": 1}\n")).expect(200);
    }
}

#[test]
fn a_body_has_one_reading_whoever_reads_it() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let body = json!({"properties": {"role": {"const": "guest"}, "count": {"maximum": 10}}});
    let query = json!({"properties": {"limit": {"type": "number", "maximum": 10}}});
    let response = json!({"200": {"properties": {"count": {"maximum": 10}}}});
    let schema = json!({"body": body, "querystring": query, "response": response});
    tenant.deploy_with("order", guests::answers_with(), &json!({ "schema": schema }));
    for door in tenant.doors() {
        for (body, said) in [
            (r#"{"role":"admin","role":"guest"}"#, "the key \"role\" stands twice"),
            (r#"{"r\u006fle":"admin","role":"guest"}"#, "the key \"role\" stands twice"),
            (r#"{"count":11,"count":1}"#, "the key \"count\" stands twice"),
            (r#"{"deep":[{"a":{"b":1,"b":1}}]}"#, "the key \"b\" stands twice"),
            (r#"{"$serde_json::private::RawValue":"{}"}"#, "a key may not begin with"),
            (r#"{"count":10.00000000000000000001}"#, "maximum"),
            (r#"{"count":1e999999999}"#, "this is not valid JSON: number out of range"),
            (r#"{"count":12345678901234567890123}"#, "maximum"),
            (r#"{"other":12345678901234567890123}"#, "more digits than all readers keep"),
        ] {
            let answer = door.post("/order", body).expect_problem(400, "schema_violation");
            answer.expect_detail(said);
        }
        let target = "/order?limit=10.00000000000000000001";
        violates(door.post(target, "{}"), &[("querystring", "/limit")]);
        for fine in [
            r#"{"role":"guest","count":10}"#,
            r#"{"count":9.99999999999999999999,"other":0.10000000000000001}"#,
            r#"{"count":1e-999999999,"id":18446744073709551615}"#,
        ] {
            assert_eq!(door.post("/order?limit=10.0", fine).expect(200).text(), fine);
        }
        for answer in [r#"{"count":10.00000000000000000001}"#, r#"{"count":11,"count":1}"#] {
            let wanted = json!({ "status": 200, "body": answer });
            let request = asked(&door, "/order", &wanted).body("{}");
            door.send(&request).expect_problem(500, "response_invalid");
        }
        // What is packed is not judged as it stands, when the function would unpack it.
        let packed = door.request("POST", "/order").header("content-encoding", "gzip").body("{}");
        door.send(&packed).expect_problem(415, "unsupported_media_type");
        let plain = door.request("POST", "/order").header("content-encoding", "identity");
        door.send(&plain.body("{}")).expect(200);
    }
}

#[test]
fn a_method_that_has_no_body_as_a_rule_needs_none() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let methods = ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT", "PATCH"];
    let body = json!({ "type": "object" });
    let options = json!({ "methods": methods, "schema": { "body": body } });
    tenant.deploy_with("any", guests::answers_with(), &options);
    let or_none = json!({ "schema": { "body": {"type": ["object", "null"]} } });
    tenant.deploy_with("or-none", guests::answers_with(), &or_none);
    for door in tenant.doors() {
        for method in methods {
            let with = |body: &str| door.send(&door.request(method, "/any").body(body));
            let needs = matches!(method, "POST" | "PUT" | "PATCH");
            assert_eq!(with("").status, if needs { 400 } else { 200 }, "{method} {}", door.name);
            assert_eq!(with("{}").status, 200, "{method} {}", door.name);
            assert_eq!(with("[]").status, 400, "{method} {}", door.name);
        }
        door.post("/or-none", "").expect(200);
        door.post("/or-none", "null").expect(200);
        violates(door.post("/or-none", "0"), &[("body", "")]);
    }
}

#[test]
fn a_body_is_held_whole_up_to_sixteen_mebibytes() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let refused = json!({ "max_body": HELD_MAX + 1, "schema": { "body": true } }).to_string();
    let files = [("long.wasm", guests::answers_with())];
    let answer = tenant.upload(&files, Some(&refused)).expect_problem(400, "bad_request");
    answer.expect_detail("max_body");
    let options = json!({ "max_body": HELD_MAX, "schema": { "body": {"type": "string"} } });
    tenant.deploy_with("long", guests::answers_with(), &options);
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2)).into_bytes();
    let answer = json!({ "body": "read" });
    for door in tenant.doors() {
        let ask = || asked(&door, "/long", &answer);
        // Around what is held for nothing, and a good deal more.
        for length in [10, 65_535, 65_536, 65_537, 300_000, 2 << 20] {
            let body = text(length);
            assert_eq!(door.send(&ask().body(&body)).expect(200).text(), "read");
            let pieces: Vec<_> = body.chunks(50_000).collect();
            assert_eq!(door.send(&chunked(ask(), &pieces)).expect(200).text(), "read");
            let wrong = [b"[".as_slice(), &body, b"]"].concat();
            violates(door.send(&ask().body(&wrong)), &[("body", "")]);
            let pieces: Vec<_> = wrong.chunks(50_000).collect();
            violates(door.send(&chunked(ask(), &pieces)), &[("body", "")]);
        }
        let most = text(HELD_MAX);
        assert_eq!(door.send(&ask().body(&most)).expect(200).text(), "read", "{}", door.name);
        let pieces: Vec<_> = most.chunks(1 << 20).collect();
        assert_eq!(door.send(&chunked(ask(), &pieces)).expect(200).text(), "read");
        // One more, announced: what was not read is of no use to anybody.
        let mut connection = Connection::open(door.to).unwrap();
        let announced = ask().header("content-length", &(HELD_MAX + 1).to_string());
        connection.send(&announced.bytes(&door.to.to_string())).unwrap();
        connection.answer("POST").expect_problem(413, "too_large").expect_detail("16777216");
        // And in pieces, whose end nobody announces.
        let mut connection = Connection::open(door.to).unwrap();
        let head = ask().header("transfer-encoding", "chunked");
        let more = [format!("{:x}\r\n", HELD_MAX + 1).into_bytes(), text(HELD_MAX + 1)].concat();
        connection.send(&head.bytes(&door.to.to_string())).unwrap();
        // It may answer, and close, before all of it is sent.
        let _ = connection.send(&more);
        connection.answer("POST").expect_problem(413, "too_large");
    }
    let door = tenant.door();
    let last = asked(&door, "/long", &answer).header("x-request-id", "last").body(r#""""#);
    door.send(&last).expect(200);
    eventually("the last one's words", || lines(&tenant, "request_id=last").pop());
    assert_eq!(lines(&tenant, "").len(), 3 * 14 + 1, "a violation starts nothing");
}

#[test]
fn long_bodies_that_come_at_once_take_turns() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let options = json!({ "schema": { "body": {"type": "string"} } });
    tenant.deploy_with("long", guests::answers_with(), &options);
    let body = format!("\"{}\"", "x".repeat(6 << 20)).into_bytes();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..6)
            .map(|at| {
                let (tenant, body) = (&tenant, &body);
                scope.spawn(move || {
                    let door = tenant.door();
                    let request = asked(&door, "/long", &json!({}));
                    let pieces: Vec<_> = body.chunks(1 << 20).collect();
                    let request =
                        if at % 2 == 0 { chunked(request, &pieces) } else { request.body(body) };
                    door.send(&request).status
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200; 6]);
}

#[test]
fn text_in_a_query_becomes_what_its_schema_asks_for() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let query = json!({
        "type": "object",
        "required": ["limit"],
        "properties": {
            "limit": {"type": "integer", "minimum": 1, "maximum": 100},
            "ratio": {"type": "number"},
            "all": {"type": "boolean"},
            "name": {"type": "string"},
            "tag": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
            "id": {"type": "array", "items": {"$ref": "#/$defs/id"}},
        },
        "additionalProperties": false,
        "$defs": {"id": {"type": "integer"}},
    });
    let options = json!({ "methods": ["GET", "POST"], "schema": { "querystring": query } });
    tenant.deploy_with("find", guests::echo(), &options);
    for door in tenant.doors() {
        for fine in [
            "limit=5",
            "limit=5&ratio=0.5&all=true&name=1",
            "all=false&limit=100&ratio=-1e3",
            "limit=5&tag=a&tag=b&id=1&id=2",
            "limit=5&tag=a&id=7",
            "l%69mit=5&name=a+b%20%C3%A4",
            "&limit=5&&name=",
        ] {
            let seen = door.get(&format!("/find?{fine}")).expect(200).json();
            assert_eq!(seen["target"], format!("/find?{fine}"), "{}", door.name);
        }
        for (query, expected) in [
            ("", &[""][..]),
            ("?", &[""]),
            ("?limit=0", &["/limit"]),
            ("?limit=101", &["/limit"]),
            ("?limit=five", &["/limit"]),
            ("?limit=1.5", &["/limit"]),
            ("?limit=1&limit=2", &["/limit"]),
            ("?limit=1&all=yes", &["/all"]),
            ("?limit=1&ratio=", &["/ratio"]),
            ("?limit=1&id=1&id=b", &["/id/1"]),
            ("?limit=1&tag=a&tag=b&tag=c", &["/tag"]),
            ("?limit=1&other=1", &[""]),
            ("?limit=x&all=2", &["/all", "/limit"]),
        ] {
            let expected: Vec<_> = expected.iter().map(|at| ("querystring", *at)).collect();
            violates(door.get(&format!("/find{query}")), &expected);
        }
    }
}

#[test]
fn names_of_headers_have_no_case_and_all_of_a_head_is_told_at_once() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let headers = json!({
        "required": ["X-Retries"],
        "properties": {
            "X-Retries": {"type": "integer"},
            "x-exact": {"const": "Yes"},
            "X-LIST": {"type": "array", "items": {"type": "boolean"}},
        },
    });
    let query = json!({ "required": ["q"] });
    let options = json!({ "schema": { "headers": headers, "querystring": query } });
    tenant.deploy_with("find", guests::echo(), &options);
    for door in tenant.doors() {
        let with = |target: &str, sent: &[(&str, &str)]| {
            let request = door.request("POST", target);
            door.send(&sent.iter().fold(request, |it, (name, value)| it.header(name, value)))
        };
        let fine =
            [("X-RETRIES", "3"), ("x-Exact", "Yes"), ("x-list", "true"), ("X-List", "false")];
        let seen = with("/find?q", &fine).expect(200).json();
        assert_eq!(seen["headers"]["x-retries"], json!(["3"]), "{}: {seen}", door.name);
        assert_eq!(seen["headers"]["x-list"], json!(["true", "false"]), "{}: {seen}", door.name);
        for (sent, expected) in [
            (&[][..], &[""][..]),
            (&[("x-retries", "many")], &["/x-retries"]),
            (&[("x-retries", "1"), ("x-exact", "yes")], &["/x-exact"]),
            (&[("x-retries", "1"), ("x-list", "true"), ("x-list", "0")], &["/x-list/1"]),
        ] {
            let expected: Vec<_> = expected.iter().map(|at| ("headers", *at)).collect();
            violates(with("/find?q", sent), &expected);
        }
        violates(
            with("/find", &[("x-retries", "many")]),
            &[("querystring", ""), ("headers", "/x-retries")],
        );
    }
}

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
    for (number, door) in tenant.doors().into_iter().enumerate() {
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
            let answer = door.send(&asked(&door, "/said", &wanted)).expect(status);
            assert_eq!(answer.text(), body, "{}", door.name);
            let length = body.len().to_string();
            assert_eq!(answer.header("content-length"), Some(&*length), "{}", door.name);
            assert_eq!(answer.header("transfer-encoding"), None, "{}", door.name);
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
            let request = asked(&door, "/said", &wanted).header("x-request-id", &id);
            let answer = door.send(&request).expect_problem(500, "response_invalid");
            assert_eq!(answer.header("x-hearth-version"), Some("/said@1"), "{}", door.name);
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
    for door in tenant.doors() {
        // Quotes at both ends of what is said so many times: "\"a\"" is none, but "\"" twice is.
        let pieces = |path: &str, body: &str, times: usize| {
            door.send(&asked(&door, path, &json!({ "body": body, "times": times })))
        };
        let answer = pieces("/said", "\"", 2).expect(200);
        assert_eq!((answer.text().as_str(), answer.header("content-length")), ("\"\"", Some("2")));
        assert_eq!(answer.header("transfer-encoding"), None, "{}", door.name);
        pieces("/said", "\"", 3).expect_problem(500, "response_invalid");
        let long = format!("\"{}\"", "x".repeat(2 << 20));
        let answer = door.post("/said", &long).expect(200);
        assert!(answer.text() == long, "{}: {} bytes", door.name, answer.body.len());
        assert_eq!(answer.header("content-length"), Some(&*long.len().to_string()));
        door.post("/streams?pieces=3", "").expect_problem(500, "response_invalid");
        // A failure in the middle is the function's own, and the answer is not cut but replaced.
        let wanted = json!({ "body": "\"half", "traps": true });
        let request = asked(&door, "/said", &wanted);
        door.send(&request).expect_problem(500, "function_trapped");
        let freely = asked(&door, "/free", &wanted).try_send(door.to);
        assert!(freely.is_err(), "without a schema it is cut: {freely:?}");
    }
    // Of spaces, which JSON allows around a value, as long as an answer may be and one more.
    let long = |spaces: usize| {
        let wanted = json!({ "body": " ".repeat(4096), "times": spaces / 4096 });
        let request = asked(&tenant.door(), "/said", &wanted).header("x-request-id", "long");
        tenant.door().send(&request).expect_problem(500, "response_invalid")
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
    for door in tenant.doors() {
        for (method, wanted, status) in [
            ("HEAD", json!({ "status": 200, "body": "no JSON" }), 200),
            ("HEAD", json!({ "status": 404 }), 404),
            ("POST", json!({ "status": 204 }), 204),
            ("GET", json!({ "status": 304 }), 304),
        ] {
            let request = door.request(method, "/said").header("x-answer", &wanted.to_string());
            let answer = door.send(&request);
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{method} {}", door.name);
        }
        let request = door.request("GET", "/said").header("x-answer", r#"{"body":"no JSON"}"#);
        door.send(&request).expect_problem(500, "response_invalid");
    }
}

#[test]
fn schemas_that_cannot_be_used_are_refused_by_name_and_nothing_changes() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("order", guests::version_one());
    let draft7 = "http://json-schema.org/draft-07/schema#";
    for (schema, said) in [
        (json!({"body": {"type": "strng"}}), "`schema.body` cannot be used: at /type: "),
        (json!({"body": {"properties": {"a": {"minimum": "1"}}}}), "at /properties/a/minimum: "),
        (json!({"querystring": {"$ref": "https://example.com/s"}}), "`schema.querystring` cannot"),
        (json!({"body": {"$ref": "other.json"}}), "`schema.body` cannot be used: "),
        (json!({"body": {"$ref": "#/$defs/nix"}}), "`schema.body` cannot be used: "),
        (json!({"headers": {"properties": {"a": {"pattern": "(?=a)b"}}}}), "/properties/a/pattern"),
        (json!({"response": {"2xx": {"pattern": "(a)\\1"}}}), "`schema.response.2xx` cannot be"),
        (json!({"body": {"$schema": draft7}}), "`schema.body` cannot be used: its `$schema`"),
        (
            json!({"body": {"pattern": "x{1000}{1000}"}}),
            "`schema.body` cannot be used: at /pattern",
        ),
        (json!({"body": []}), "`schema` must be an object"),
        (json!({"body": "object"}), "`schema` must be an object"),
        (json!({"bdy": {}}), "`schema` must be an object"),
        (json!({"response": {"600": {}}}), "`schema` must be an object"),
        (json!({"response": {}, "body": 1}), "`schema` must be an object"),
        (json!([]), "`schema` must be an object"),
    ] {
        let options = json!({ "schema": schema }).to_string();
        let files = [("order.wasm", guests::version_two())];
        for door in tenant.doors() {
            let request = door.request("POST", "/$upload").bearer(&tenant.token);
            let request = crate::host::upload(request, &files, Some(&options));
            door.send(&request).expect_problem(400, "bad_request").expect_detail(said);
        }
        let request = tenant.api("POST", "/functions");
        let request = crate::host::upload(request, &files, Some(&options));
        host.send(&request).expect_problem(400, "bad_request").expect_detail(said);
        assert_eq!(tenant.post("/order", "").expect(200).text(), "version one");
    }
    assert_eq!(tenant.ask("/functions/order/versions")["versions"].as_array().unwrap().len(), 1);
    assert_eq!(tenant.ask("/generations")["generations"].as_array().unwrap().len(), 2);
}

#[test]
fn a_pattern_takes_time_in_proportion_to_the_text() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let body = json!({ "type": "string", "pattern": "^(a+)+$" });
    tenant.deploy_with("order", guests::answers_with(), &json!({ "schema": { "body": body } }));
    let text = "a".repeat(100_000);
    let begun = Instant::now();
    tenant.post("/order", &format!("\"{text}\"")).expect(200);
    violates(tenant.post("/order", &format!("\"{text}!\"")), &[("body", "")]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// What is tried at each depth is tried twice at the next: 2^60 times at the last.
#[test]
fn a_check_without_end_is_ended_and_keeps_nobody_waiting() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    // A check without end takes memory without end, too, and it is to be the time that ends it.
    let limits = json!({ "limits": { "total_memory_mb": 16 << 10 } });
    host.send(&host.admin("PATCH", "/tenants/demo/limits").json(&limits)).expect(200);
    let again = json!({ "properties": {"in": {"$ref": "#"}} });
    let schema = json!({ "body": {"type": "object", "anyOf": [again, again], "not": false} });
    let schema = json!({ "schema": schema });
    tenant.deploy_with("deep", guests::answers_with(), &schema);
    let body = format!("{}1{}", r#"{"in":"#.repeat(60), "}".repeat(60));
    let mut waiting = tenant.open();
    let request = tenant.door().request("POST", "/deep").body(body.as_bytes());
    waiting.send(&request.bytes("demo")).unwrap();
    for _ in 0..20 {
        tenant.post("/hello", "").expect(200);
    }
    waiting.answer("POST").expect_problem(504, "timeout").expect_detail("schema");
    eventually("the next worker", || (tenant.post("/hello", "").status == 200).then_some(()));
    // What doubles within the schema itself is seen before it is kept.
    let doubling: serde_json::Map<_, _> = (0..40)
        .map(|at| {
            let next = json!({ "$ref": format!("#/$defs/d{}", at + 1) });
            (format!("d{at}"), json!({ "allOf": [next, next] }))
        })
        .chain([("d40".to_owned(), json!({ "type": "integer" }))])
        .collect();
    let schema = json!({ "schema": {"body": {"$ref": "#/$defs/d0", "$defs": doubling}} });
    let files = [("deep.wasm", guests::answers_with())];
    let refused = tenant.upload(&files, Some(&schema.to_string()));
    refused.expect_problem(400, "bad_request").expect_detail("100000 parts");
}
