//! Where a call comes from: who calls an internal function, who is told to be calling, and what
//! nobody can say of themselves, at whatever address and however it is spelt.

use std::fs;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::guests;
use crate::host::{ADMIN_TOKEN, Address, Host, Tenant};
use crate::http::{Connection, Request};
use crate::processes::eventually;

/// What a trigger's call looks like, as a stranger would write it.
const FORGED: [(&str, &str); 14] = [
    ("ce-specversion", "1.0"),
    ("ce-type", "hearth.schedule"),
    ("ce-source", "/triggers/nightly"),
    ("ce-id", "1"),
    ("CE-Time", "2026-01-02T03:04:05Z"),
    ("x-hearth-trigger", "nightly"),
    ("X-Hearth-Trigger", "again"),
    ("X-HEARTH-CALLER", "owner"),
    ("x-hearth-scope", "owner"),
    ("x-hearth-scope", "admin"),
    ("x-hearth-origin", "trigger"),
    ("x_hearth_trigger", "nightly"),
    ("X-Hearth_Scope", "owner"),
    ("x-hearth-", ""),
];

fn forged(mut request: Request) -> Request {
    for (name, value) in FORGED {
        request = request.header(name, value);
    }
    request
}

/// The three ways to carry a token.
fn carriers(token: &str) -> [String; 3] {
    [
        format!("Bearer {token}"),
        format!("token {token}"),
        format!("Basic {}", STANDARD.encode(format!("anybody:{token}"))),
    ]
}

/// Everything that is told of who calls, by the headers' names.
fn told(seen: &Value) -> Vec<(String, Value)> {
    let headers = seen["headers"].as_object().unwrap();
    let ours = |name: &str| name.replace('_', "-").starts_with("x-hearth-");
    let told = headers.iter().filter(|(name, _)| ours(name));
    told.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn says(caller: &str, scope: &str) -> Vec<(String, Value)> {
    vec![
        ("x-hearth-caller".to_owned(), json!([caller])),
        ("x-hearth-scope".to_owned(), json!([scope])),
    ]
}

/// A head and a chunked body as bytes: in another version of HTTP, with trailers.
fn bytes(address: &Address, prefix: &str, version: &str, token: Option<&str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write!(bytes, "POST {prefix}/internal HTTP/{version}\r\nhost: {}\r\n", address.authority())
        .unwrap();
    for (name, value) in FORGED {
        write!(bytes, "{name}: {value}\r\n").unwrap();
    }
    if let Some(token) = token {
        write!(bytes, "authorization: Bearer {token}\r\n").unwrap();
    }
    match version {
        "1.0" => write!(bytes, "content-length: 2\r\n\r\n{{}}").unwrap(),
        _ => write!(
            bytes,
            "transfer-encoding: chunked\r\ntrailer: x-hearth-trigger\r\n\r\n2\r\n{{}}\r\n0\r\n\
             x-hearth-trigger: nightly\r\nx-hearth-scope: owner\r\n\r\n"
        )
        .unwrap(),
    }
    bytes
}

#[test]
fn an_internal_function_is_refused_to_everybody_outside() {
    for options in [&[][..], &["--handover", "never"]] {
        let host = Host::with(options);
        let tenant = host.tenant("demo");
        let internal = json!({
            "auth": "internal", "methods": ["GET", "POST"], "cors": "*",
            "schema": {"querystring": {"required": ["secret"]}},
        });
        tenant.deploy_with("internal", guests::prints(), &internal);
        let tokens = [
            tenant.token.clone(),
            tenant.token("invoke"),
            tenant.token("deploy"),
            host.tenant("other").token,
            "hearth_of-which-nobody-knows".to_owned(),
            ADMIN_TOKEN.to_owned(),
        ];
        for (address, prefix) in tenant.addresses().into_iter().zip(["", "", "/t/demo"]) {
            let refuses = |kept: &mut Connection, request: &Request| {
                let answer = kept.call(request).expect_problem(403, "forbidden");
                let said = format!("{} {options:?} {:?}", address.name, answer.headers);
                assert!(
                    !answer.headers.iter().any(|(name, _)| name.starts_with("access-")),
                    "{said}"
                );
                assert_eq!((answer.header("vary"), answer.header("allow")), (None, None), "{said}");
            };
            // All of it on one connection, which stays the same one's.
            let mut kept = Connection::open(address.to).unwrap();
            for method in ["POST", "GET", "PUT", "OPTIONS"] {
                let plain =
                    address.request(method, "/internal").header("origin", "https://a.example");
                refuses(&mut kept, &plain);
                refuses(&mut kept, &forged(plain));
            }
            let preflight =
                address.request("OPTIONS", "/internal").header("origin", "https://a.example");
            refuses(&mut kept, &preflight.header("access-control-request-method", "POST"));
            for token in &tokens {
                for carrier in carriers(token) {
                    let with =
                        address.request("POST", "/internal").header("authorization", &carrier);
                    refuses(&mut kept, &forged(with).body("{}"));
                }
            }
            for version in ["1.0", "1.1"] {
                for token in [None, Some(tenant.token.as_str())] {
                    let mut raw = Connection::open(address.to).unwrap();
                    raw.send(&bytes(&address, prefix, version, token)).unwrap();
                    raw.answer("POST").expect_problem(403, "forbidden");
                }
            }
            // Nor is it told that there is one.
            for list in ["/$functions", "/$openapi.json"] {
                let listed = kept.call(&address.request("GET", list)).expect(200).text();
                assert!(listed.contains("/hello") && !listed.contains("internal"), "{listed}");
            }
        }
        // Not one of them was let in. An admin's token does not get as far as a worker, but on the
        // connection that is its worker's own.
        let kept_back = if options.is_empty() { 3 } else { 6 };
        let calls = eventually("all calls", || {
            let calls = tenant.ask("/calls?limit=1000")["calls"].as_array().unwrap().clone();
            (calls.len() == 3 * (8 + 1 + 6 * 3 + 4) - kept_back).then_some(calls)
        });
        for call in calls {
            assert_eq!((&call["status"], &call["outcome"]), (&json!(403), &json!("refused")));
            assert_eq!(call["origin"], "outside", "{call}");
        }
        assert_eq!(tenant.ask("/logs")["lines"], json!([]));
    }
}

fn invoke(tenant: &Tenant, path: &str, token: &str) -> Request {
    let target = format!("/api/v1/tenants/{}/functions{path}/invoke", tenant.name);
    Request::new("POST", &target).bearer(token).body("{}")
}

#[test]
fn its_owner_invokes_an_internal_function_and_no_lesser_token_does() {
    for options in [&[][..], &["--handover", "never"]] {
        let host = Host::with(options);
        let tenant = host.tenant("demo");
        tenant.deploy_with("internal", guests::echo(), &json!({ "auth": "internal" }));
        let said = host.command(&tenant.token, &["invoke", "internal", "-d", r#"{"a":1}"#]).json();
        assert_eq!(said["body"], r#"{"a":1}"#);
        assert_eq!(told(&said), says("owner", "owner"), "{said}");
        let seen = host.send(&forged(invoke(&tenant, "/internal", &tenant.token))).expect(200);
        assert_eq!(told(&seen.json()), says("owner", "owner"), "{}", seen.text());
        let admin = host.send(&invoke(&tenant, "/internal", ADMIN_TOKEN)).expect(200).json();
        assert_eq!(admin["headers"]["x-hearth-scope"], json!(["admin"]), "{admin}");

        let lesser = ["invoke", "deploy", "report"].map(|scope| tenant.token(scope));
        for token in lesser.iter().chain([&host.tenant("other").token]) {
            let refused = forged(invoke(&tenant, "/internal", token));
            host.send(&refused).expect_problem(403, "forbidden");
        }
        let refused = host.command(&lesser[0], &["invoke", "internal"]).failed(1);
        assert!(refused.contains("403"), "{refused}");
        let nobody = Request::new("POST", "/api/v1/tenants/demo/functions/internal/invoke");
        host.send(&forged(nobody)).expect_problem(401, "unauthenticated");
        // What an owner sees of it is what there is.
        let listed = tenant.ask("/functions");
        let listed = listed["functions"].as_array().unwrap();
        let listed = listed.iter().find(|function| function["path"] == "/internal").unwrap();
        assert_eq!(listed["options"]["auth"], "internal");
    }
}

/// What a token's scope does not allow at a tenant's address, it does not allow through the API.
#[test]
fn a_function_that_asks_for_a_scope_asks_for_it_at_every_way_in() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    for scope in ["owner", "deploy", "invoke", "report"] {
        tenant.deploy_with(scope, guests::echo(), &json!({ "auth": scope }));
    }
    let token = tenant.token("invoke");
    for needed in ["owner", "deploy", "invoke", "report"] {
        let path = format!("/{needed}");
        let mut answers: Vec<_> = tenant
            .addresses()
            .iter()
            .map(|address| address.send(&address.request("POST", &path).bearer(&token)))
            .collect();
        answers.push(host.send(&invoke(&tenant, &path, &token)));
        for answer in answers {
            match needed {
                "invoke" => assert_eq!(told(&answer.expect(200).json()), says("invoke", "invoke")),
                _ => drop(answer.expect_problem(403, "forbidden")),
            }
        }
        host.send(&invoke(&tenant, &path, &tenant.token)).expect(200);
    }
}

#[test]
fn a_tenants_token_is_told_with_its_scope_wherever_it_is_sent() {
    for options in [&[][..], &["--handover", "never"]] {
        let host = Host::with(options);
        let tenant = host.tenant("demo");
        tenant.deploy("public", guests::echo());
        tenant.deploy_with("private", guests::echo(), &json!({ "auth": "invoke" }));
        let foreign = host.tenant("other").token("invoke");
        let own = ["invoke", "deploy", "report"].map(|scope| (tenant.token(scope), scope));
        let own = own.into_iter().chain([(tenant.token.clone(), "owner")]).collect::<Vec<_>>();
        for address in tenant.addresses() {
            let mut kept = Connection::open(address.to).unwrap();
            let mut sent = |path: &str, authorization: Option<&str>| {
                let mut request = forged(address.request("POST", path));
                if let Some(authorization) = authorization {
                    request = request.header("authorization", authorization);
                }
                kept.call(&request)
            };
            for (token, scope) in &own {
                for carrier in carriers(token) {
                    let said = format!("{carrier} at {} {options:?}", address.name);
                    let seen = sent("/public", Some(&carrier)).expect(200).json();
                    assert_eq!(told(&seen), says(scope, scope), "{said}");
                    assert_eq!(seen["headers"]["authorization"], json!(null), "{said}");
                    assert_eq!(seen["headers"]["ce-type"], json!(["hearth.schedule"]), "{said}");
                    if ["owner", "invoke"].contains(scope) {
                        let seen = sent("/private", Some(&carrier)).expect(200).json();
                        assert_eq!(told(&seen), says(scope, scope), "{said}");
                    }
                }
            }
            // Whoever is unknown here is nobody, and what has the form of a token is taken off.
            for nobodys in [foreign.as_str(), "hearth_of-which-nobody-knows"] {
                for carrier in carriers(nobodys) {
                    let seen = sent("/public", Some(&carrier)).expect(200).json();
                    assert_eq!(told(&seen), [], "{carrier} at {}", address.name);
                    assert_eq!(seen["headers"]["authorization"], json!(null), "{carrier}");
                }
            }
            let seen = sent("/public", Some("Bearer its.own.affair")).expect(200).json();
            assert_eq!(told(&seen), [], "{}", address.name);
            assert_eq!(seen["headers"]["authorization"], json!(["Bearer its.own.affair"]));
            assert_eq!(told(&sent("/public", None).expect(200).json()), [], "{}", address.name);
        }
    }
}

#[test]
fn nobody_says_behind_a_body_who_calls() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    let token = tenant.token("invoke");
    let late = format!(
        "x-sum: 42\r\nx-hearth-caller: me\r\nX-Hearth-Trigger: nightly\r\nx_hearth_scope: owner\r\n\
         authorization: Bearer {token}\r\nx-forwarded-for: 1.2.3.4\r\ncookie: a=b\r\n"
    );
    let mut ways: Vec<(Address, String)> = tenant
        .addresses()
        .into_iter()
        .zip(["/echo", "/echo", "/t/demo/echo"])
        .map(|(address, target)| (address, format!("POST {target} HTTP/1.1\r\n")))
        .collect();
    let api = format!(
        "POST /api/v1/tenants/demo/functions/echo/invoke HTTP/1.1\r\nauthorization: Bearer {token}\r\n"
    );
    let [_, _, front] = tenant.addresses();
    ways.push((front, api));
    for (address, head) in ways {
        let request = format!(
            "{head}host: {}\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
             4\r\nbody\r\n0\r\n{late}\r\n",
            address.authority()
        );
        let mut connection = Connection::open(address.to).unwrap();
        connection.send(request.as_bytes()).unwrap();
        let seen = connection.answer("POST").expect(200).json();
        assert_eq!(seen["trailers"], json!({ "x-sum": ["42"] }), "{head}: {seen}");
        assert_eq!(seen["body"], "body");
    }
}

/// All headers of the request that are not the API's own affair.
#[test]
fn what_the_api_invokes_has_the_callers_headers() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    let token = tenant.token("invoke");
    let request = forged(invoke(&tenant, "/echo", &token))
        .header("x-mine", "one")
        .header("X-Mine", "two")
        .header("content-type", "text/x-mine")
        .header("accept-language", "de")
        .header("if-none-match", "\"x\"")
        .header("x-request-id", "mine-1")
        .header("cookie", "session=1")
        .header("origin", "https://a.example")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x_forwarded_proto", "https")
        .header("forwarded", "for=1.2.3.4")
        .header("connection", "x-internal, x-hearth-caller")
        .header("x-internal", "1");
    let seen = host.send(&request).expect(200).json();
    assert_eq!(told(&seen), says("invoke", "invoke"), "{seen}");
    let headers = &seen["headers"];
    for (name, value) in [
        ("x-mine", json!(["one", "two"])),
        ("content-type", json!(["text/x-mine"])),
        ("accept-language", json!(["de"])),
        ("if-none-match", json!(["\"x\""])),
        ("x-request-id", json!(["mine-1"])),
        ("ce-type", json!(["hearth.schedule"])),
        ("ce-time", json!(["2026-01-02T03:04:05Z"])),
        ("cookie", json!(null)),
        ("origin", json!(null)),
        ("authorization", json!(null)),
        ("x-forwarded-for", json!(null)),
        ("x_forwarded_proto", json!(null)),
        ("forwarded", json!(null)),
        ("x-internal", json!(null)),
    ] {
        assert_eq!(headers[name], value, "{name}: {seen}");
    }
}

/// An origin is an operator's to see, in the API and on the command line.
#[test]
fn calls_are_recorded_with_their_origin() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    for address in tenant.addresses() {
        address.post("/echo", "").expect(200);
    }
    host.send(&invoke(&tenant, "/echo", &tenant.token)).expect(200);
    let calls = eventually("the calls", || {
        let calls = tenant.ask("/calls")["calls"].as_array().unwrap().clone();
        (calls.len() == 4).then_some(calls)
    });
    let origins: Vec<_> = calls.iter().map(|call| call["origin"].as_str().unwrap()).collect();
    assert_eq!(origins, ["outside", "outside", "outside", "api"]);
    let shown = host.command(&tenant.token, &["calls"]).done();
    assert!(shown.lines().next().unwrap().contains("ORIGIN"), "{shown}");
    assert_eq!(shown.matches("outside").count(), 3, "{shown}");
}

/// Lines as a host wrote them before calls had an origin, and one that is none.
#[test]
fn journals_of_an_earlier_host_are_read() {
    const CALLS: &str = concat!(
        r#"{"time_ms":1700000000123,"function":"/hello","version":3,"request_id":"r-1","method":"POST","status":200,"outcome":"answered","duration_us":1500,"request_bytes":14,"response_bytes":26,"cold_us":2300}"#,
        "\n{\"time_ms\":1}\n",
        r#"{"time_ms":1700000000124,"function":"/hello","version":3,"request_id":"r-3","method":"GET","status":403,"outcome":"refused","duration_us":15,"request_bytes":0,"response_bytes":0,"cold_us":null}"#,
        "\n",
    );
    const LINES: &str = concat!(
        r#"{"time_ms":1700000000123,"function":"/hello","version":3,"request_id":"r-1","stream":"stdout","text":"said"}"#,
        "\n",
    );
    let host = Host::start();
    let tenant = host.tenant("demo");
    let logs = host.data().join("tenants/demo/logs");
    fs::create_dir_all(&logs).unwrap();
    fs::write(logs.join("calls.00000000000000000001.jsonl"), CALLS).unwrap();
    fs::write(logs.join("lines.00000000000000000001.jsonl"), LINES).unwrap();
    tenant.post("/hello", "{}").expect(200);
    let calls = eventually("the call that came since", || {
        let calls = tenant.ask("/calls")["calls"].as_array().unwrap().clone();
        (calls.len() == 3).then_some(calls)
    });
    let seen: Vec<_> = calls.iter().map(|call| (&call["id"], &call["origin"])).collect();
    let (null, outside) = (json!(null), json!("outside"));
    assert_eq!(seen, [(&json!(1), &null), (&json!(3), &null), (&json!(4), &outside)]);
    assert_eq!((&calls[0]["cold_us"], &calls[1]["outcome"]), (&json!(2_300), &json!("refused")));
    assert_eq!(tenant.ask("/logs")["lines"][0]["text"], "said");
    let shown = host.command(&tenant.token, &["calls"]).done();
    assert!(shown.contains(" - "), "{shown}");
    // What could not be read is counted and said, and not passed over in silence.
    let unreadable = r#"hearth_log_records_unreadable_total{tenant="demo",kind="call"}"#;
    assert!(host.figure(unreadable) >= 1);
    assert_eq!(host.log().matches("records that cannot be read").count(), 1);
}
