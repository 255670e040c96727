//! What a function's schemas make of requests, and which schemas there can be.
use boon::{Compiler, Schemas};

mod answers;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::guests;
use crate::host::{Address, Host, Tenant};
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
fn asked(address: &Address, path: &str, answer: &Value) -> Request {
    address.request("POST", path).header("x-answer", &answer.to_string())
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
    for address in tenant.addresses() {
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
            let answer = address.post("/order", body);
            assert_eq!(answer.header("x-hearth-version"), Some("/order@1"), "{}", address.name);
            let expected: Vec<_> = expected.iter().map(|at| ("body", *at)).collect();
            violates(answer, &expected);
        }
        let missing = address.post("/order", "{}");
        assert_eq!(
            missing.json()["errors"],
            json!([{"in": "body", "pointer": "", "message": "\"name\" is a required property"}])
        );
        missing.expect_detail("\"name\" is a required property");
        let fine = r#"{"name":"a","lines":[{"count":1,"below":{"count":2.0}}]}"#;
        let request = address.request("POST", "/order").header("x-request-id", "fine").body(fine);
        assert_eq!(address.send(&request).expect(200).text(), fine, "it is passed on as it came");
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
    for address in tenant.addresses() {
        for (body, said) in [
            (&b"{"[..], "this is not valid JSON: "),
            (b"{} {}", "this is not valid JSON: "),
            (b"{'a':1}", "this is not valid JSON: "),
            (b"{\"a\":\"\xff\"}", "this is not valid JSON: "),
            (b" ", "this is not valid JSON: "),
            (b"", "there is no body"),
        ] {
            let request =
                address.request("POST", "/order").header("content-type", "application/json");
            let answer = address.send(&request.body(body));
            let message = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
            assert!(message.starts_with(said), "{}: {message}", address.name);
            violates(answer, &[("body", "")]);
        }
        let request = address.request("POST", "/order").header("content-type", "text/plain");
        address.send(&request.body(" {\"a\": 1}\n")).expect(200);
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
    for address in tenant.addresses() {
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
            let answer = address.post("/order", body).expect_problem(400, "schema_violation");
            answer.expect_detail(said);
        }
        let target = "/order?limit=10.00000000000000000001";
        violates(address.post(target, "{}"), &[("querystring", "/limit")]);
        for fine in [
            r#"{"role":"guest","count":10}"#,
            r#"{"count":9.99999999999999999999,"other":0.10000000000000001}"#,
            r#"{"count":1e-999999999,"id":18446744073709551615}"#,
        ] {
            assert_eq!(address.post("/order?limit=10.0", fine).expect(200).text(), fine);
        }
        for answer in [r#"{"count":10.00000000000000000001}"#, r#"{"count":11,"count":1}"#] {
            let wanted = json!({ "status": 200, "body": answer });
            let request = asked(&address, "/order", &wanted).body("{}");
            address.send(&request).expect_problem(500, "response_invalid");
        }
        // What is packed is not judged as it stands, when the function would unpack it.
        let packed =
            address.request("POST", "/order").header("content-encoding", "gzip").body("{}");
        address.send(&packed).expect_problem(415, "unsupported_media_type");
        let plain = address.request("POST", "/order").header("content-encoding", "identity");
        address.send(&plain.body("{}")).expect(200);
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
    for address in tenant.addresses() {
        for method in methods {
            let with = |body: &str| address.send(&address.request(method, "/any").body(body));
            let needs = matches!(method, "POST" | "PUT" | "PATCH");
            assert_eq!(with("").status, if needs { 400 } else { 200 }, "{method} {}", address.name);
            assert_eq!(with("{}").status, 200, "{method} {}", address.name);
            assert_eq!(with("[]").status, 400, "{method} {}", address.name);
        }
        address.post("/or-none", "").expect(200);
        address.post("/or-none", "null").expect(200);
        violates(address.post("/or-none", "0"), &[("body", "")]);
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
    for address in tenant.addresses() {
        let ask = || asked(&address, "/long", &answer);
        // Around what is held for nothing, and a good deal more.
        for length in [10, 65_535, 65_536, 65_537, 300_000, 2 << 20] {
            let body = text(length);
            assert_eq!(address.send(&ask().body(&body)).expect(200).text(), "read");
            let pieces: Vec<_> = body.chunks(50_000).collect();
            assert_eq!(address.send(&chunked(ask(), &pieces)).expect(200).text(), "read");
            let wrong = [b"[".as_slice(), &body, b"]"].concat();
            violates(address.send(&ask().body(&wrong)), &[("body", "")]);
            let pieces: Vec<_> = wrong.chunks(50_000).collect();
            violates(address.send(&chunked(ask(), &pieces)), &[("body", "")]);
        }
        let most = text(HELD_MAX);
        assert_eq!(address.send(&ask().body(&most)).expect(200).text(), "read", "{}", address.name);
        let pieces: Vec<_> = most.chunks(1 << 20).collect();
        assert_eq!(address.send(&chunked(ask(), &pieces)).expect(200).text(), "read");
        // One more, announced: what was not read is of no use to anybody.
        let mut connection = Connection::open(address.to).unwrap();
        let announced = ask().header("content-length", &(HELD_MAX + 1).to_string());
        connection.send(&announced.bytes(&address.to.to_string())).unwrap();
        connection.answer("POST").expect_problem(413, "too_large").expect_detail("16777216");
        // And in pieces, whose end nobody announces.
        let mut connection = Connection::open(address.to).unwrap();
        let head = ask().header("transfer-encoding", "chunked");
        let more = [format!("{:x}\r\n", HELD_MAX + 1).into_bytes(), text(HELD_MAX + 1)].concat();
        connection.send(&head.bytes(&address.to.to_string())).unwrap();
        // It may answer, and close, before all of it is sent.
        let _ = connection.send(&more);
        connection.answer("POST").expect_problem(413, "too_large");
    }
    let address = tenant.address();
    let last = asked(&address, "/long", &answer).header("x-request-id", "last").body(r#""""#);
    address.send(&last).expect(200);
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
                    let address = tenant.address();
                    let request = asked(&address, "/long", &json!({}));
                    let pieces: Vec<_> = body.chunks(1 << 20).collect();
                    let request =
                        if at % 2 == 0 { chunked(request, &pieces) } else { request.body(body) };
                    address.send(&request).status
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
    for address in tenant.addresses() {
        for fine in [
            "limit=5",
            "limit=5&ratio=0.5&all=true&name=1",
            "all=false&limit=100&ratio=-1e3",
            "limit=5&tag=a&tag=b&id=1&id=2",
            "limit=5&tag=a&id=7",
            "l%69mit=5&name=a+b%20%C3%A4",
            "&limit=5&&name=",
        ] {
            let seen = address.get(&format!("/find?{fine}")).expect(200).json();
            assert_eq!(seen["target"], format!("/find?{fine}"), "{}", address.name);
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
            violates(address.get(&format!("/find{query}")), &expected);
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
    for address in tenant.addresses() {
        let with = |target: &str, sent: &[(&str, &str)]| {
            let request = address.request("POST", target);
            address.send(&sent.iter().fold(request, |it, (name, value)| it.header(name, value)))
        };
        let fine =
            [("X-RETRIES", "3"), ("x-Exact", "Yes"), ("x-list", "true"), ("X-List", "false")];
        let seen = with("/find?q", &fine).expect(200).json();
        assert_eq!(seen["headers"]["x-retries"], json!(["3"]), "{}: {seen}", address.name);
        assert_eq!(seen["headers"]["x-list"], json!(["true", "false"]), "{}: {seen}", address.name);
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
        for address in tenant.addresses() {
            let request = address.request("POST", "/$upload").bearer(&tenant.token);
            let request = crate::host::upload(request, &files, Some(&options));
            address.send(&request).expect_problem(400, "bad_request").expect_detail(said);
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
    let request = tenant.address().request("POST", "/deep").body(body.as_bytes());
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

#[test]
fn a_tenants_document_is_openapi_3_1_with_its_schemas() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let schema = json!({
        "body": order(),
        "querystring": {
            "properties": {"page": {"type": "integer"}, "tag": {"$ref": "#/$defs/tag"}},
            "required": ["page"],
            "$defs": {"tag": {"type": "string"}},
        },
        "headers": {"properties": {"X-Trace": {"type": "string"}}},
        "response": {
            "200": {"$ref": "#/$defs/out", "$defs": {"out": {"type": "object"}}},
            "4xx": true,
            "default": {"type": "object"},
        },
    });
    let options = json!({ "methods": ["GET", "POST"], "path": "prefix", "schema": schema });
    tenant.deploy_with("order", guests::answers_with(), &options);
    let address = tenant.address();
    let itself = json!({"type": "array", "items": {"$ref": "#"}});
    let nested = json!({"schema": {"body": itself, "response": {"4xx": true}}});
    let nested = crate::host::upload(
        address.request("POST", "/jobs/$upload").bearer(&tenant.token),
        &[("order.wasm", guests::answers_with())],
        Some(&nested.to_string()),
    );
    address.send(&nested).expect(200);
    for address in tenant.addresses() {
        let document = address.get("/$openapi.json").expect(200).json();
        is_openapi(&document);
        let post = &document["paths"]["/order"]["post"];
        assert_eq!(
            led(&document, &post["requestBody"]["content"]["application/json"]["schema"])["required"],
            json!(["name"])
        );
        let parameters: Vec<_> = post["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| (it["name"].clone(), it["in"].clone(), it["required"] == true))
            .collect();
        assert_eq!(
            parameters,
            [
                (json!("page"), json!("query"), true),
                (json!("tag"), json!("query"), false),
                (json!("X-Trace"), json!("header"), false),
            ]
        );
        let responses: Vec<_> = post["responses"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(responses, ["200", "400", "4XX", "default"]);
        assert!(document["paths"]["/order"]["get"]["requestBody"].is_null());
        let nested = &document["paths"]["/jobs/order"]["post"]["requestBody"];
        assert_eq!(
            led(&document, &nested["content"]["application/json"]["schema"]),
            &json!({"type": "array", "items": {"$ref": "#/components/schemas/jobs.order.body"}})
        );

        let listed = address.get("/$functions").expect(200).json();
        let functions = listed["functions"].as_array().unwrap();
        let of = |path: &str| functions.iter().find(|function| function["path"] == path).unwrap();
        assert_eq!(of("/order")["options"]["schema"], schema, "{}", address.name);
        assert_eq!(
            of("/jobs/order")["options"]["schema"],
            json!({"body": itself, "response": {"4xx": true}})
        );
    }
}

/// The schema itself, where this is a reference to it.
#[track_caller]
fn led<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(to) => document.pointer(to.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    }
}

#[track_caller]
fn is_openapi(document: &Value) {
    let schema: Value = serde_json::from_str(include_str!("openapi-3.1.schema.json")).unwrap();
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("openapi.json", schema).unwrap();
    let index = compiler.compile("openapi.json", &mut schemas).unwrap();
    if let Err(error) = schemas.validate(document, index) {
        panic!("{error:#}");
    }
    let mut left = vec![document];
    while let Some(value) = left.pop() {
        if let Some(to) = value["$ref"].as_str() {
            let pointer = to.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{to} leads nowhere");
        }
        match value {
            Value::Object(object) => left.extend(object.values()),
            Value::Array(array) => left.extend(array),
            _ => {}
        }
    }
}
