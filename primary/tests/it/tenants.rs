//! Tenants are apart: in their addresses, their processes, their functions and their tokens.

use serde_json::json;

use crate::guests;
use crate::host::{Host, upload};
use crate::processes::{eventually, is_listening};

#[test]
fn two_tenants_are_two_ports_and_two_processes() {
    let host = Host::start();
    let (red, blue) = (host.tenant("red"), host.tenant("blue"));
    assert_ne!(red.port, blue.port);
    assert_eq!((host.workers(&red), host.workers(&blue)), (vec![], vec![]), "nobody has called");

    red.deploy("only-red", guests::version_one());
    blue.deploy("only-blue", guests::version_two());
    assert_eq!(red.post("/only-red", "").expect(200).text(), "version one");
    assert_eq!(blue.post("/only-blue", "").expect(200).text(), "version two");

    let (reds, blues) = (host.workers(&red), host.workers(&blue));
    assert_eq!((reds.len(), blues.len()), (1, 1), "{reds:?} {blues:?}");
    assert_ne!(reds, blues);
    assert_eq!(red.ask("/worker")["pid"], reds[0]);
    assert_eq!(blue.ask("/worker")["pid"], blues[0]);

    for (tenant, path) in [(&red, "/only-blue"), (&blue, "/only-red")] {
        for address in tenant.addresses() {
            address.post(path, "").expect_problem(404, "not_found").expect_detail(path);
        }
    }
}

#[test]
fn a_worker_holds_what_is_its_own_and_nothing_else() {
    let host = Host::start();
    let (red, blue) = (host.tenant("red"), host.tenant("blue"));
    red.deploy("one", guests::version_one());
    blue.deploy("one", guests::version_two());
    let worker = host.workers(&red)[0];
    assert_eq!(host.workers(&blue).len(), 1);
    assert!(!host.workers(&blue).contains(&worker), "each has its own tenant's socket only");
    let own = ["releases", "state"].map(|it| host.data().join("tenants/red").join(it));
    for descriptor in std::fs::read_dir(format!("/proc/{worker}/fd")).unwrap() {
        let Ok(to) = std::fs::read_link(descriptor.unwrap().path()) else { continue };
        // What is bundled is everybody's.
        let bundled = to.to_string_lossy().contains("/_bundled/");
        let is_own = own.iter().any(|own| to.starts_with(own));
        let foreign = to.starts_with(host.data()) && !is_own && !bundled;
        assert!(!foreign, "{} is none of its business", to.display());
    }
    let environment = std::fs::read(format!("/proc/{worker}/environ")).unwrap();
    // One setting for the C library, and nothing of the host's environment.
    let given = "GLIBC_TUNABLES=glibc.malloc.arena_max=1\0";
    assert_eq!(String::from_utf8_lossy(&environment), given);
}

#[test]
fn a_token_of_one_is_worth_nothing_at_the_other() {
    let host = Host::start();
    let (red, blue) = (host.tenant("red"), host.tenant("blue"));
    blue.deploy_with("private", guests::version_one(), &json!({ "auth": "invoke" }));

    let module = [("hello.wasm", guests::version_two())];
    for address in blue.addresses() {
        let request = upload(address.request("POST", "/$upload"), &module, None);
        address.send(&request.clone().bearer(&red.token)).expect_problem(403, "forbidden");
        address.send(&request).expect_problem(401, "unauthenticated");
        let call = address.request("POST", "/private");
        let refused = address.send(&call.clone().bearer(&red.token));
        assert!(matches!(refused.status, 401 | 403), "{refused:?}");
        address.send(&call).expect_problem(401, "unauthenticated");
        address.send(&call.bearer(&blue.token)).expect(200);
    }
    for (method, path, body) in [
        ("GET", "/tenants/blue", json!(null)),
        ("DELETE", "/tenants/blue", json!(null)),
        ("GET", "/tenants/blue/functions", json!(null)),
        ("GET", "/tenants/blue/logs", json!(null)),
        ("GET", "/tenants/blue/tokens", json!(null)),
        ("POST", "/tenants/blue/worker/stop", json!(null)),
        ("POST", "/tenants/blue/functions/private/rollback", json!({ "version": 1 })),
        ("POST", "/tenants/blue/tokens", json!({ "name": "mine", "scope": "owner" })),
        ("GET", "/tenants", json!(null)),
        ("POST", "/tenants", json!({ "name": "another" })),
        ("GET", "/tokens", json!(null)),
        // What is not there is not told to whom it is no business of.
        ("GET", "/tenants/nobody", json!(null)),
    ] {
        let request = crate::http::Request::new(method, &format!("/api/v1{path}"));
        host.send(&request.clone().bearer(&red.token).json(&body)).expect_problem(403, "forbidden");
        let refused = host.send(&request.json(&body)).expect_problem(401, "unauthenticated");
        assert!(refused.header("www-authenticate").is_some_and(|it| it.starts_with("Bearer")));
    }
    assert_eq!(host.send(&host.admin("GET", "/tenants")).json()["tenants"][0]["name"], "blue");
}

#[test]
fn a_token_does_what_its_scope_says_until_it_is_deleted() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("private", guests::version_one(), &json!({ "auth": "invoke" }));
    let (deploy, invoke) = (tenant.token("deploy"), tenant.token("invoke"));
    let address = tenant.address();
    let send = |request: crate::http::Request, token: &str| address.send(&request.bearer(token));

    let call = address.request("POST", "/private");
    send(call.clone(), &invoke).expect(200);
    send(call.clone(), &tenant.token).expect(200);
    send(call.clone(), &deploy).expect_problem(403, "forbidden");
    send(call.clone(), crate::host::ADMIN_TOKEN).expect_problem(401, "unauthenticated");
    for (kind, value) in [("Token", invoke.clone()), ("Basic", basic(&invoke))] {
        address.send(&call.clone().header("authorization", &format!("{kind} {value}"))).expect(200);
    }

    let module = [("more.wasm", guests::version_two())];
    let request = upload(address.request("POST", "/$upload"), &module, None);
    send(request.clone(), &invoke).expect_problem(403, "forbidden");
    send(request, &deploy).expect(200);

    for (path, token, status) in [
        ("/functions", &deploy, 200),
        ("/functions", &invoke, 403),
        ("/logs", &deploy, 200),
        ("/logs", &invoke, 403),
        ("/calls", &deploy, 200),
        ("/tokens", &deploy, 403),
        ("/worker", &deploy, 403),
        ("/tokens", &tenant.token, 200),
    ] {
        let target = format!("/api/v1/tenants/demo{path}");
        let answer = host.send(&crate::http::Request::new("GET", &target).bearer(token));
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }

    let tokens = tenant.ask("/tokens");
    let listed = tokens["tokens"].as_array().unwrap();
    assert!(!tokens.to_string().contains(&invoke), "a token is shown once");
    let id = listed.iter().find(|token| token["name"] == "invoke").unwrap()["id"].clone();
    host.send(&tenant.api("DELETE", &format!("/tokens/{id}"))).expect(204);
    // Confirmed by the running worker before the API answered.
    send(call, &invoke).expect_problem(401, "unauthenticated");
}

#[test]
fn a_token_ends_when_it_was_said_to() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("private", guests::version_one(), &json!({ "auth": "invoke" }));
    let make = |expires_at: &str| {
        let body = json!({ "name": "brief", "scope": "invoke", "expires_at": expires_at });
        host.send(&tenant.api("POST", "/tokens").json(&body))
    };
    let call = tenant.address().request("POST", "/private");
    let later = make("2999-01-01T00:00:00Z").expect(201).json();
    tenant.address().send(&call.clone().bearer(later["token"].as_str().unwrap())).expect(200);
    let past = make("2001-01-01T00:00:00Z");
    if past.status == 201 {
        let token = past.json()["token"].as_str().unwrap().to_owned();
        tenant.address().send(&call.bearer(&token)).expect_problem(401, "unauthenticated");
    } else {
        past.expect_problem(400, "bad_request");
    }
}

#[test]
fn a_new_tenant_has_the_bundled_functions_and_replaces_them_at_will() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let functions = tenant.ask("/functions");
    let hello = &functions["functions"][0];
    assert_eq!((&hello["path"], &hello["bundled"]), (&json!("/hello"), &json!(true)));
    let greeting = tenant.post("/hello", r#"{"name":"Ada"}"#).expect(200);
    assert!(greeting.text().contains("Ada"), "{}", greeting.text());

    tenant.deploy("hello", guests::version_one());
    assert_eq!(tenant.post("/hello", "").expect(200).text(), "version one");
    assert_eq!(tenant.ask("/functions")["functions"][0]["bundled"], false);
    let other = host.tenant("other");
    assert!(other.post("/hello", r#"{"name":"Ada"}"#).expect(200).text().contains("Ada"));
}

#[test]
fn tenants_come_and_go() {
    let host = Host::start();
    let create =
        |name: &str| host.send(&host.admin("POST", "/tenants").json(&json!({ "name": name })));
    for name in ["", "-a", "Upper", "a_b", "a/b", "..", &"a".repeat(64)] {
        create(name).expect_problem(400, "bad_request");
    }
    let made = create("demo").expect(201).json();
    create("demo").expect_problem(409, "conflict");
    let port = u16::try_from(made["port"].as_u64().unwrap()).unwrap();
    assert!(is_listening(port), "before anybody has called");
    assert!(made["url"].as_str().unwrap().contains(&port.to_string()), "{made}");
    assert!(made["token"].as_str().unwrap().starts_with("hearth_"), "{made}");

    let shown = host.send(&host.admin("GET", "/tenants/demo")).expect(200).json();
    assert_eq!(shown["worker"]["state"], "asleep", "{shown}");
    assert_eq!(shown["worker"]["pid"], json!(null), "{shown}");

    crate::http::Request::new("POST", "/hello")
        .json(&json!({ "name": "Ada" }))
        .send(([127, 0, 0, 1], port).into())
        .expect(200);
    host.send(&host.admin("DELETE", "/tenants/demo")).expect(204);
    host.send(&host.admin("GET", "/tenants/demo")).expect_problem(404, "not_found");
    assert!(!is_listening(port));
    eventually("the end of everything that the tenant had on disk", || {
        (!host.data().join("tenants/demo").exists()).then_some(())
    });
    let again = create("demo").expect(201).json();
    assert_ne!(again["token"], made["token"]);
}

/// The password of Basic, which is what many clients can send and nothing else.
fn basic(token: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(format!("any:{token}"))
}
