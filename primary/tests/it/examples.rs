//! The SDK's examples, as an author would upload them: each does what its head says, and answers
//! what does not fit as the SDK promises.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use crate::host::{Host, Tenant};
use crate::http::{Answer, Request};
use crate::processes::eventually;

macro_rules! examples {
    ($($name:ident)*) => {
        const ALL: &[&str] = &[$(stringify!($name)),*];

        $(fn $name() -> &'static [u8] {
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../target/wasm32-wasip2/release/examples/",
                stringify!($name),
                ".wasm"
            ))
        })*
    };
}

examples! {
    async_wait
    auth
    config
    cors
    errors
    hello
    kv
    log
    query
    raw
    reuse
    silent
    sql
    stream
    webhook
}

#[test]
fn every_example_is_called_here() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk/examples");
    let mut there: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    there.sort();
    assert_eq!(ALL, there);
}

/// The function's own refusal, as the SDK writes it.
#[track_caller]
fn refused(answer: Answer, status: u16, part: &str) {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let answer = answer.expect(status);
    assert!(answer.text().contains(part), "{part:?} is not in {}", answer.text());
}

/// Waits until the tenant's log has this line.
#[track_caller]
fn logged(tenant: &Tenant, part: &str) {
    eventually("a log line", || tenant.ask("/logs").to_string().contains(part).then_some(()));
}

#[test]
fn hello_is_typed_json_on_both_sides() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("hi", hello());
    let document = tenant.get("/$openapi.json").expect(200).json();
    let call = &document["paths"]["/hi"]["post"];
    assert!(call.to_string().contains("Greets by name."), "{document}");
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["hi.body"]["required"], json!(["name"]), "{document}");
    assert_eq!(schemas["hi.response.200"]["required"], json!(["greeting"]), "{document}");
    for address in tenant.addresses() {
        let answer = address.post("/hi", r#"{"name":"Ada","more":1}"#).expect(200);
        assert_eq!(answer.text(), r#"{"greeting":"Hello, Ada!"}"#, "{}", address.name);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("content-length"), Some("26"));
        for (body, part) in
            [(r#"{"nam":"Ada"}"#, "name"), (r#"{"name":7}"#, "/name"), ("{", "JSON"), ("", "body")]
        {
            let answer = address.post("/hi", body).expect_problem(400, "schema_violation");
            answer.expect_detail(part);
        }
        assert_eq!(address.get("/hi").status, 405);
    }
    // More than one piece on its way in, and more than the host takes at once on its way out.
    let name = "a".repeat(3 << 20);
    let answer = tenant.post("/hi", &json!({ "name": name }).to_string()).expect(200);
    assert_eq!(answer.json()["greeting"], format!("Hello, {name}!"));
}

#[test]
fn config_reads_what_its_tenant_was_told() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("compares", config());
    // Nobody has set the secret yet: that is not the caller's to know.
    refused(tenant.post("/compares", r#""open sesame""#), 500, "the function failed");
    logged(&tenant, "neither configuration nor a secret has the name PASSWORD");
    let set = |kind: &str, name: &str, value: &str| {
        let changes = json!({ kind: { name: value } });
        let request = tenant.api("PATCH", &format!("/{kind}")).json(&changes);
        host.send(&request).expect(200);
    };
    set("secrets", "PASSWORD", "open sesame");
    let said = tenant.post("/compares", r#""open sesame""#).expect(200).json();
    assert_eq!(said, json!({ "region": "nowhere", "welcome": true }));
    set("config", "region", "eu");
    let said = tenant.post("/compares", r#""open barley""#).expect(200).json();
    assert_eq!(said, json!({ "region": "eu", "welcome": false }));
}

#[test]
fn the_bundled_hello_needs_no_body() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    for (body, greeting) in [
        ("", "Hello, world!"),
        ("null", "Hello, world!"),
        ("{}", "Hello, world!"),
        (r#"{"name":"Ada"}"#, "Hello, Ada!"),
    ] {
        let answer = tenant.post("/hello", body).expect(200);
        assert_eq!(answer.json(), json!({ "greeting": greeting }), "{body}");
    }
    logged(&tenant, "greeting Ada");
}

#[test]
fn query_reads_its_parameters() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("words", query());
    for (path, words) in [
        ("/words?q=fl", json!(["flame", "flare", "flint"])),
        ("/words?q=fl&limit=2&order=down", json!(["flint", "flare"])),
        ("/words?q=%65m", json!(["ember"])),
        ("/words?q=", json!(["ash", "ember", "flame", "flare", "flint"])),
    ] {
        assert_eq!(tenant.get(path).expect(200).json(), json!({ "words": words }), "{path}");
    }
    for (path, part) in [
        ("/words", "q"),
        ("/words?q=a&limit=300", "/limit"),
        ("/words?q=a&limit=two", "/limit"),
        ("/words?q=a&order=left", "/order"),
    ] {
        let answer = tenant.get(path).expect_problem(400, "schema_violation");
        answer.expect_detail(part);
    }
    // The schema has nothing against it, and the function's type does.
    refused(tenant.get("/words?q=a&limit=1.0"), 400, "`limit`");
    assert_eq!(tenant.post("/words?q=a", "").status, 405);
}

#[test]
fn errors_say_to_each_what_is_for_them() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("divide", errors());
    let post = |body: serde_json::Value| tenant.post("/divide", &body.to_string());
    let answer = post(json!({ "dividend": 7, "divisor": 2 })).expect(200);
    assert_eq!(answer.json(), "3.50");
    let answer = post(json!({ "dividend": 7, "divisor": 0 })).expect(422);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(
        answer.json(),
        json!({ "type": "about:blank", "status": 422, "detail": "the divisor must not be 0" })
    );
    post(json!({ "dividend": 7 })).expect_problem(400, "schema_violation").expect_detail("divisor");
    let answer = post(json!({ "dividend": 7, "divisor": 2, "digits": "lots" })).expect(500);
    assert_eq!(answer.json()["detail"], "the function failed");
    logged(&tenant, "invalid digit found in string");
}

#[test]
fn raw_sees_the_request_and_streams_it_back() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("back", raw());
    let body = "0123456789".repeat(100_000);
    for address in tenant.addresses() {
        let request =
            address.request("PUT", "/back/a%20b?c=d").header("content-type", "text/plain");
        let answer = address.send(&request.body(&body)).expect(201);
        assert!(answer.body == body.as_bytes(), "{} bytes came back", answer.body.len());
        assert_eq!(answer.header("content-type"), Some("text/plain"), "{}", address.name);
        assert_eq!(answer.header("x-path"), Some("/back/a%20b"), "{}", address.name);
        assert_eq!(answer.header("x-query"), Some("c=d"), "{}", address.name);
        let answer = address.post("/back", "").expect(200);
        assert_eq!((answer.text(), answer.header("x-query")), (String::new(), Some("")));
    }
    // A piece comes back while the next is not sent yet.
    let mut connection = tenant.open();
    connection
        .send(b"POST /back HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        .unwrap();
    assert_eq!(connection.head().unwrap().status, 200);
    assert_eq!(connection.chunk().unwrap().unwrap(), b"one");
    connection.send(b"3\r\ntwo\r\n0\r\n\r\n").unwrap();
    assert_eq!(connection.chunk().unwrap().unwrap(), b"two");
    assert_eq!(connection.chunk().unwrap(), None);
}

#[test]
fn auth_knows_its_caller() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("who", auth());
    tenant.post("/who", "").expect_problem(401, "unauthenticated");
    let report = Request::new("GET", "/who").bearer(&tenant.token("report"));
    tenant.address().send(&report).expect_problem(403, "forbidden");
    let invoke = Request::new("GET", "/who").bearer(&tenant.token("invoke"));
    let answer = tenant.address().send(&invoke).expect(200);
    assert_eq!(answer.json(), json!({ "caller": "invoke" }));
}

#[test]
fn cors_answers_a_page_of_its_origin() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("shop", cors());
    let ask = |method: &str, origin: &str| {
        let request = Request::new(method, "/shop").header("origin", origin);
        tenant.address().send(&request.header("access-control-request-method", "GET"))
    };
    for (origin, allowed) in
        [("https://app.example", Some("https://app.example")), ("https://other.example", None)]
    {
        let answer = ask("GET", origin).expect(200);
        assert_eq!(answer.json(), json!({ "open": true }));
        assert_eq!(answer.header("access-control-allow-origin"), allowed, "{origin}");
        let preflight = ask("OPTIONS", origin);
        assert_eq!(preflight.header("access-control-allow-origin"), allowed, "{preflight:?}");
        assert_eq!(preflight.header("access-control-allow-methods").is_some(), allowed.is_some());
    }
}

#[test]
fn reuse_serves_and_checks_its_input() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("prime", reuse());
    for (number, prime) in [(0, false), (2, true), (999_983, true), (1_000_000, false)] {
        let answer = tenant.post("/prime", &json!({ "number": number }).to_string()).expect(200);
        assert_eq!(answer.json()["prime"], prime, "{number}");
        // How many there were before is the host's affair.
        assert!((1..=4).contains(&answer.json()["served"].as_u64().unwrap()), "{answer:?}");
    }
    for number in [-1, 1_000_001] {
        let answer = tenant.post("/prime", &json!({ "number": number }).to_string());
        answer.expect_problem(400, "schema_violation").expect_detail("/number");
    }
}

#[test]
fn silent_has_nothing_to_say() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("silent", silent());
    for address in tenant.addresses() {
        let answer = address.post("/silent", r#"{"level":"warn"}"#).expect(204);
        assert_eq!(answer.text(), "", "{}", address.name);
        assert_eq!(answer.header("content-type"), None, "{}", address.name);
        address.post("/silent", "{}").expect_problem(400, "schema_violation");
    }
    logged(&tenant, "noted: warn");
    let options = &tenant.ask("/functions/silent")["options"];
    assert_eq!(options["schema"]["response"], json!(null), "{options}");
    assert_eq!(options["schema"]["body"]["required"], json!(["level"]), "{options}");
}

#[test]
fn stream_sends_each_event_when_it_happens() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("ticks", stream());
    let mut connection = tenant.open();
    connection.send(b"GET /ticks?count=3&every_ms=20 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let head = connection.head().unwrap();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    for tick in 1..=3 {
        let event = connection.chunk().unwrap().unwrap();
        assert_eq!(String::from_utf8(event).unwrap(), format!("event: tick\ndata: {tick}\n\n"));
    }
    assert_eq!(connection.chunk().unwrap(), None);
    tenant.get("/ticks?count=101").expect_problem(400, "schema_violation").expect_detail("/count");
}

#[test]
fn async_wait_waits_and_gives_up() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("wait", async_wait());
    let begun = std::time::Instant::now();
    let answer = tenant.post("/wait", r#"{"ms":30}"#).expect(200);
    assert_eq!(answer.json(), json!({ "waited_ms": 30 }));
    assert!(begun.elapsed().as_millis() >= 30);
    refused(tenant.post("/wait", r#"{"ms":60000}"#), 504, "that takes too long");
}

#[test]
fn webhook_believes_what_is_signed() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("hook", webhook());
    let address = tenant.address();
    let signed = |body: &str, signature: &str| {
        let request = address.request("POST", "/hook").header("x-signature-256", signature);
        address.send(&request.header("x-request-id", "delivery-7").body(body))
    };
    let signature = |body: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"known to everybody").unwrap();
        mac.update(body.as_bytes());
        let bytes = mac.finalize().into_bytes();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256={hex}")
    };
    let body = r#"{"kind":"order"}"#;
    let answer = signed(body, &signature(body)).expect(204);
    assert_eq!((answer.body.len(), answer.header("content-length")), (0, None));
    logged(&tenant, "took order in delivery-7");
    for wrong in ["", "sha256=", "sha256=0", "sha256=zz", &signature("another body")] {
        refused(signed(body, wrong), 401, "the signature is not that of the body");
    }
    refused(tenant.post("/hook", body), 401, "the signature is not that of the body");
    refused(signed("{}", &signature("{}")), 400, "kind");
    tenant.post("/hook", &"a".repeat(65_537)).expect_problem(413, "too_large");
}

#[test]
fn kv_counts_and_remembers() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("visit", kv());
    let visit = |visitor: &str, page: &str| {
        let body = json!({ "visitor": visitor, "page": page });
        tenant.post("/visit", &body.to_string()).expect(200).json()
    };
    assert_eq!(visit("Ada", "/"), json!({ "visits": 1, "before": null }));
    assert_eq!(visit("Ada", "/shop"), json!({ "visits": 2, "before": "/" }));
    assert_eq!(visit("Grace", "/"), json!({ "visits": 1, "before": null }));
    // What the SDK stores, the commands show.
    let hearth = |arguments: &[&str]| host.command(&tenant.token, arguments);
    let listed = hearth(&["kv", "list", "visits"]).done();
    assert_eq!(listed, "count/Ada\ncount/Grace\nsession/Ada\nsession/Grace\n");
    let session = hearth(&["kv", "get", "visits", "session/Ada", "--json"]).json();
    assert_eq!(session["value"], r#"{"page":"/shop"}"#);
    assert!(session["expires_at"].is_string(), "{session}");
    hearth(&["kv", "rm", "visits", "session/Ada"]).done();
    assert_eq!(visit("Ada", "/"), json!({ "visits": 3, "before": null }));
}

#[test]
fn sql_keeps_a_list() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("list", sql());
    let change = |body: serde_json::Value| tenant.post("/list", &body.to_string());
    let items = json!({ "items": [{ "id": 1, "text": "milk" }] });
    assert_eq!(change(json!({ "add": "milk" })).expect(200).json(), items);
    // Both or neither.
    refused(change(json!({ "add": "tea", "done": 7 })), 404, "there is no such item");
    assert_eq!(change(json!({})).expect(200).json(), items);
    assert_eq!(change(json!({ "done": 1 })).expect(200).json(), json!({ "items": [] }));
    // What the commands store, the SDK reads.
    let insert = "insert into items (text) values (?)";
    host.command(&tenant.token, &["sql", "default", insert, "-p", "bread"]).done();
    let text = &change(json!({})).expect(200).json()["items"][0]["text"];
    assert_eq!(text, "bread");
}

#[test]
fn log_says_how_much_a_line_matters() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("order", log());
    tenant.post("/order", r#"{"order":7,"stock":2}"#).expect(204);
    refused(tenant.post("/order", r#"{"order":8,"stock":0}"#), 409, "it is sold out");
    logged(&tenant, "nothing is left");
    let lines = tenant.ask("/logs");
    let lines: Vec<_> = lines["lines"].as_array().unwrap().iter().collect();
    let said = |line: &&serde_json::Value| (line["level"].clone(), line["text"].clone());
    assert_eq!(
        lines.iter().map(said).collect::<Vec<_>>(),
        [
            (json!("debug"), json!("the order is 7 and the stock 2")),
            (json!("warn"), json!("stock: 2 are left")),
            (json!("info"), json!("took the order 7")),
            (json!("debug"), json!("the order is 8 and the stock 0")),
            (json!("error"), json!("stock: nothing is left for the order 8")),
        ]
    );
    assert!(lines.iter().all(|line| line["stream"] == "stderr"), "{lines:?}");
    let shown = host.command(&tenant.token, &["logs"]).done();
    assert!(shown.contains(" warn stock: 2 are left\n"), "{shown}");
}

/// What a module of the SDK is not used for is not asked of a host.
#[test]
fn a_function_imports_what_it_uses() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let imports = |name: &str, module: &[u8]| {
        let uploaded = tenant.deploy(name, module);
        uploaded["functions"][0]["imports"].to_string()
    };
    let all = ["wasi:keyvalue/", "hearth:platform/", "fermyon:spin/", "wasi:logging/"];
    for (name, module, used) in [
        ("hello", hello(), &[][..]),
        ("kv", kv(), &["wasi:keyvalue/", "hearth:platform/"]),
        ("sql", sql(), &["hearth:platform/", "fermyon:spin/"]),
        ("log", log(), &["wasi:logging/"]),
    ] {
        let imported = imports(name, module);
        for package in all {
            assert_eq!(imported.contains(package), used.contains(&package), "{name}: {imported}");
        }
    }
}
