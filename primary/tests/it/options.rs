//! A function's options in their three layers: what its module declares, over that what came
//! with the upload, over that what was set since. What each option means is also said where it
//! belongs: in `calls.rs`, `limits.rs`, `schemas.rs`, `cors.rs`.

use serde_json::{Value, json};

use crate::guests;
use crate::host::{Host, Tenant};
use crate::http::Answer;

/// Sets options as somebody with this token.
fn set_as(host: &Host, token: &str, path: &str, options: &Value) -> Answer {
    let target = format!("/api/v1/tenants/demo/functions{path}");
    let request = crate::http::Request::new("PATCH", &target).bearer(token);
    host.send(&request.json(&json!({ "options": options })))
}

#[track_caller]
fn set(host: &Host, tenant: &Tenant, path: &str, options: &Value) -> Value {
    set_as(host, &tenant.token, path, options).expect(200).json()
}

fn generations(tenant: &Tenant) -> Vec<Value> {
    tenant.ask("/generations")["generations"].as_array().unwrap().clone()
}

#[test]
fn what_is_set_goes_over_what_came_with_the_upload() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let uploaded = json!({
        "description": "uploaded",
        "methods": ["GET", "POST"],
        "timeout_ms": 2000,
        "schema": {
            "body": {"type": "object"},
            "querystring": {"required": ["q"]},
            "response": {"200": {"required": ["a"]}, "4xx": false},
        },
    });
    tenant.deploy_with("it", guests::answers_with(), &uploaded);
    let layers = |set: &Value| json!({"declared": {}, "uploaded": uploaded, "set": set});
    assert_eq!(tenant.ask("/functions/it")["layers"], layers(&json!({})));

    let changes = json!({
        "timeout_ms": 3000,
        "schema": {"body": {"type": "array"}, "response": {"default": true, "200": {"maxItems": 2}}},
    });
    let function = set(&host, &tenant, "/it", &changes);
    assert_eq!(function, tenant.ask("/functions/it"), "it is told what it comes to");
    assert_eq!(function["layers"], layers(&changes));
    assert_eq!(
        function["options"],
        json!({
            "methods": ["GET", "POST"],
            "strip_prefix": false,
            "path": "exact",
            "auth": "public",
            "cors": [],
            "schema": {
                "body": {"type": "array"},
                "querystring": {"required": ["q"]},
                "response": {"200": {"maxItems": 2}, "4xx": false, "default": true},
            },
            "timeout_ms": 3000,
            "memory_mb": 64,
            "max_body": 10 << 20,
            "reuse": 1,
            "stores": ["*"],
            "relaxed_stores": [],
            "databases": ["*"],
            "description": "uploaded",
        })
    );
    for address in tenant.addresses() {
        let problem = address.post("/it?q", "{}").expect_problem(400, "schema_violation").json();
        assert_eq!(problem["errors"][0]["in"], "body", "{}: {problem}", address.name);
        let problem = address.post("/it", "[]").expect_problem(400, "schema_violation").json();
        assert_eq!(problem["errors"][0]["in"], "querystring", "{}: {problem}", address.name);
        assert_eq!(address.post("/it?q", "[1,2]").expect(200).text(), "[1,2]");
        address.post("/it?q", "[1,2,3]").expect_problem(500, "response_invalid");
    }

    // Null takes away what was set, and what was said below comes to light again.
    set(&host, &tenant, "/it", &json!({"schema": {"body": null}}));
    tenant.post("/it?q", "[]").expect_problem(400, "schema_violation");
    tenant.post("/it?q", "{}").expect(200);
    let function = set(&host, &tenant, "/it", &json!({"schema": {"response": {"200": null}}}));
    assert_eq!(
        function["options"]["schema"]["response"],
        json!({"200": {"required": ["a"]}, "4xx": false, "default": true})
    );
    tenant.post("/it?q", "{}").expect_problem(500, "response_invalid");
    let function = set(&host, &tenant, "/it", &json!({"timeout_ms": null, "memory_mb": null}));
    assert_eq!(function["options"]["timeout_ms"], 2000, "{function}");
    let function = set(&host, &tenant, "/it", &json!({"schema": null}));
    assert_eq!(function["layers"], layers(&json!({})));
    let answer = tenant.post("/it?q", r#"{"a":1}"#).expect(200);
    assert_eq!(answer.header("x-hearth-version"), Some("/it@1"));
}

#[test]
fn what_a_module_declares_is_below_both() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let declared = json!({
        "description": "declared",
        "timeout_ms": 1000,
        "schema": {
            "body": {"type": "object"},
            "response": {"200": {"required": ["declared"]}, "4xx": true},
        },
    });
    let uploaded = json!({
        "timeout_ms": 2000,
        "schema": {"querystring": {"required": ["q"]}, "response": {"4xx": false}},
    });
    let changes = json!({"timeout_ms": 3000, "schema": {"body": {"type": "array"}}});
    let is = |set: &Value, uploaded: &Value, timeout_ms: u32, schema: Value| {
        let function = tenant.ask("/functions/it");
        let layers = json!({"declared": declared, "uploaded": uploaded, "set": set});
        assert_eq!(function["layers"], layers);
        assert_eq!(function["options"]["description"], "declared");
        assert_eq!(function["options"]["timeout_ms"], timeout_ms);
        assert_eq!(function["options"]["schema"], schema);
    };
    tenant.deploy("it", guests::declares_schemas());
    is(&json!({}), &json!({}), 1000, declared["schema"].clone());
    for address in tenant.addresses() {
        address.post("/it", "[]").expect_problem(400, "schema_violation");
        address.post("/it", "{}").expect_problem(500, "response_invalid");
        address.post("/it", r#"{"declared":1}"#).expect(200);
    }
    tenant.deploy_with("it", guests::declares_schemas(), &uploaded);
    let mut schema = declared["schema"].clone();
    schema["querystring"] = json!({"required": ["q"]});
    schema["response"]["4xx"] = json!(false);
    is(&json!({}), &uploaded, 2000, schema.clone());
    set(&host, &tenant, "/it", &changes);
    schema["body"] = json!({"type": "array"});
    is(&changes, &uploaded, 3000, schema);
    tenant.rollback("/it", 1);
    set(&host, &tenant, "/it", &json!({"timeout_ms": null, "schema": {"body": null}}));
    is(&json!({}), &json!({}), 1000, declared["schema"].clone());
}

#[test]
fn what_is_set_stays_through_uploads_rollbacks_and_removal() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    set(&host, &tenant, "/one", &json!({"methods": ["GET"]}));
    let serves = |text: &str, version: &str| {
        for address in tenant.addresses() {
            let answer = address.get("/one").expect(200);
            assert_eq!(answer.text(), text, "{}", address.name);
            assert_eq!(answer.header("x-hearth-version"), Some(version), "{}", address.name);
            address.post("/one", "").expect_problem(405, "method_not_allowed");
        }
        let layers = &tenant.ask("/functions/one")["layers"];
        assert_eq!(layers["set"], json!({"methods": ["GET"]}), "{layers}");
    };
    serves("version one", "/one@1");
    let other = json!({"methods": ["PUT"]});
    tenant.deploy_with("one", guests::version_two(), &other);
    serves("version two", "/one@2");
    assert_eq!(tenant.ask("/functions/one")["layers"]["uploaded"], other);
    tenant.rollback("/one", 1);
    serves("version one", "/one@1");
    host.send(&tenant.api("DELETE", "/functions/one")).expect(200);
    tenant.get("/one").expect_problem(404, "not_found");
    set_as(&host, &tenant.token, "/one", &json!({})).expect_problem(404, "not_found");
    tenant.rollback("/one", 2);
    serves("version two", "/one@2");
    // Taken away, each version is as it was uploaded.
    set(&host, &tenant, "/one", &json!({"methods": null}));
    tenant.address().send(&tenant.address().request("PUT", "/one")).expect(200);
    tenant.rollback("/one", 1);
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
}

#[test]
fn setting_options_makes_a_generation_and_no_version() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let uploaded = tenant.deploy("one", guests::version_one())["generation"].clone();
    let before = generations(&tenant).len();
    set(&host, &tenant, "/one", &json!({"description": "mine"}));
    let after = generations(&tenant);
    assert_eq!(after.len(), before + 1);
    assert_eq!(after[0]["cause"], "options", "{after:?}");
    assert_eq!(after[0]["generation"], uploaded.as_u64().unwrap() + 1, "{after:?}");
    assert_eq!(after[0]["current"], true, "{after:?}");
    let health = tenant.get("/$health").expect(200).json();
    assert_eq!(health["generation"], after[0]["generation"], "it serves");
    // What changes nothing makes nothing.
    for same in [json!({"description": "mine"}), json!({}), json!({"auth": null})] {
        let function = set(&host, &tenant, "/one", &same);
        assert_eq!(function["options"]["description"], "mine", "{function}");
        assert_eq!(generations(&tenant).len(), after.len(), "{same}");
    }
    let versions = tenant.ask("/functions/one/versions")["versions"].clone();
    assert_eq!(versions.as_array().unwrap().len(), 1, "{versions}");
    assert_eq!(versions[0]["options"]["description"], "mine", "{versions}");
    // What came with Hearth is no exception, and what is uploaded again stays as it is.
    set(&host, &tenant, "/hello", &json!({"auth": "invoke"}));
    tenant.post("/hello", "{}").expect_problem(401, "unauthenticated");
    let again = tenant.deploy("one", guests::version_one());
    assert_eq!(again["functions"][0]["unchanged"], true, "{again}");
}

#[test]
fn options_are_set_by_owners_and_nobody_else() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let stranger = host.tenant("other");
    tenant.deploy("one", guests::version_one());
    let wanted = json!({"auth": "owner"});
    for scope in ["deploy", "invoke", "report"] {
        let token = tenant.token(scope);
        let refused = set_as(&host, &token, "/one", &wanted).expect_problem(403, "forbidden");
        refused.expect_detail("owner");
    }
    set_as(&host, &stranger.token, "/one", &wanted).expect_problem(403, "forbidden");
    set_as(&host, "hearth_nobody", "/one", &wanted).expect_problem(401, "unauthenticated");
    let target = "/api/v1/tenants/demo/functions/one";
    let body = json!({ "options": wanted });
    let nobody = crate::http::Request::new("PATCH", target).json(&body);
    host.send(&nobody).expect_problem(401, "unauthenticated");
    tenant.post("/one", "").expect(200);
    assert_eq!(generations(&tenant)[0]["cause"], "upload");
    set(&host, &tenant, "/one", &wanted);
    tenant.post("/one", "").expect_problem(401, "unauthenticated");
    host.send(&host.admin("PATCH", "/tenants/demo/functions/one").json(&json!({
        "options": {"auth": null}
    })))
    .expect(200);
    tenant.post("/one", "").expect(200);
}

#[test]
fn an_instance_that_keeps_a_request_serves_no_other() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let reuse = json!({ "reuse": 100 });
    for (name, module) in [("keeps", guests::keeps()), ("later", guests::wasip3_keeps())] {
        tenant.deploy_with(name, module, &reuse);
        let served = |what: u8| {
            let answer = tenant.post(&format!("/{name}?what={what}"), "");
            answer.expect(200).text().to_owned()
        };
        assert_eq!([0, 0, 2, 2, 0].map(served), ["1", "2", "3", "1", "1"], "{name}");
    }
}

#[test]
fn reuse_is_tried_before_it_is_kept() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let reuse = json!({ "reuse": 2 });
    let once = [("once.wasm", guests::answers_once())];
    let refused = tenant.upload(&once, Some(&reuse.to_string()));
    refused.expect_problem(400, "bad_request").expect_detail("`reuse` must be left out");
    tenant.deploy("once", guests::answers_once());
    set_as(&host, &tenant.token, "/once", &reuse).expect_problem(400, "bad_request");
    for _ in 0..3 {
        assert_eq!(tenant.post("/once", "").expect(200).text(), "once");
    }
    // One that does not take what it is tried with is none that cannot be used again.
    tenant.deploy_with("answers", guests::answers(), &reuse);
}

#[test]
fn options_that_are_none_are_refused_by_name_and_nothing_changes() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let schema = json!({"schema": {"body": {"type": "object"}}});
    tenant.deploy_with("one", guests::version_one(), &schema);
    let before = (tenant.ask("/functions/one"), generations(&tenant));
    for (wrong, said) in [
        (json!({"metods": ["GET"]}), "unknown option `metods`; did you mean `methods`?"),
        (json!({"schedule": "* * * * *"}), "`schedule` is not supported"),
        (json!({"methods": []}), "`methods` must be a list of at least one of GET"),
        (json!({"methods": ["TRACE"]}), "`methods` must be"),
        (json!({"path": "below"}), "`path` must be one of exact, prefix, root"),
        (json!({"auth": "admin"}), "`auth` must be one of public"),
        (json!({"cors": ["app.example"]}), "`cors` must be a list of origins"),
        (json!({"timeout_ms": 0}), "`timeout_ms` must be a whole number from 1 to 300000"),
        (json!({"memory_mb": 1 << 20}), "`memory_mb` must be a whole number"),
        (json!({"max_body": "1k"}), "`max_body` must be a whole number"),
        (json!({"max_body": 17 << 20}), "`max_body` is 17825792 bytes, and a body with a schema"),
        (json!({"reuse": 0}), "`reuse` must be a whole number from 1 to 10000"),
        (json!({"description": 1}), "`description` must be a text"),
        (json!({"schema": {"boddy": {}}}), "`schema` must be an object"),
        (json!({"schema": {"body": {"type": "strng"}}}), "`schema.body` cannot be used: at /type"),
        // Even if there is something right beside it.
        (json!({"auth": "owner", "nix": 1}), "unknown option `nix`; known options: methods"),
        (json!({"auth": "owner", "nix": null}), "unknown option `nix`"),
        (json!({"schema": {"boddy": null}}), "`schema` must be an object"),
    ] {
        let refused = set_as(&host, &tenant.token, "/one", &wrong);
        refused.expect_problem(400, "bad_request").expect_detail(said);
    }
    for body in [json!({}), json!({"options": []}), json!({"options": {}, "more": 1}), json!([])] {
        let request = tenant.api("PATCH", "/functions/one").json(&body);
        host.send(&request).expect_problem(400, "bad_request");
    }
    let unknown = set_as(&host, &tenant.token, "/nix", &json!({"auth": "owner"}));
    unknown.expect_problem(404, "not_found").expect_detail("/nix");
    assert_eq!((tenant.ask("/functions/one"), generations(&tenant)), before);
    // An upload names it as well.
    let files = [("one.wasm", guests::version_two())];
    let refused = tenant.upload(&files, Some(r#"{"metods":["GET"]}"#));
    refused
        .expect_problem(400, "bad_request")
        .expect_detail("unknown option `metods`; did you mean `methods`?");
}

#[test]
fn each_option_is_in_force_with_the_next_call_and_gone_with_null() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let echo: Vec<_> = ["methods", "path", "auth", "max_body", "described"].into();
    let names: Vec<_> = echo.iter().map(|name| format!("{name}.wasm")).collect();
    let mut files: Vec<_> = names.iter().map(|name| (&**name, guests::echo())).collect();
    files.push(("slow.wasm", guests::slow()));
    files.push(("eats.wasm", guests::eats_memory()));
    let none =
        serde_json::Map::from_iter(files.iter().map(|(name, _)| (name.to_string(), json!({}))));
    tenant.upload(&files, Some(&Value::Object(none).to_string())).expect(200);
    let token = tenant.token("invoke");

    set(&host, &tenant, "/methods", &json!({"methods": ["PUT"]}));
    set(&host, &tenant, "/path", &json!({"path": "prefix"}));
    set(&host, &tenant, "/auth", &json!({"auth": "invoke"}));
    set(&host, &tenant, "/max_body", &json!({"max_body": 3}));
    set(&host, &tenant, "/described", &json!({"description": "what it is for"}));
    set(&host, &tenant, "/slow", &json!({"timeout_ms": 50}));
    set(&host, &tenant, "/eats", &json!({"memory_mb": 8}));
    for address in tenant.addresses() {
        let refused = address.post("/methods", "").expect_problem(405, "method_not_allowed");
        assert_eq!(refused.header("allow"), Some("PUT"), "{}", address.name);
        address.send(&address.request("PUT", "/methods")).expect(200);
        address.post("/path/below", "").expect(200);
        address.post("/auth", "").expect_problem(401, "unauthenticated");
        address.send(&address.request("POST", "/auth").bearer(&token)).expect(200);
        address.post("/max_body", "123").expect(200);
        address.post("/max_body", "1234").expect_problem(413, "too_large").expect_detail("3 bytes");
        address.post("/slow?ms=20000", "").expect_problem(504, "timeout").expect_detail("50 ms");
        let full = address.post("/eats?mb=16", "").expect_problem(500, "memory_limit");
        full.expect_detail("8 MiB");
        let listed = address.get("/$functions").expect(200).json();
        let functions = listed["functions"].as_array().unwrap();
        let it = functions.iter().find(|function| function["path"] == "/described").unwrap();
        assert_eq!(it["options"]["description"], "what it is for", "{}", address.name);
        let document = address.get("/$openapi.json").expect(200).json();
        let operation = &document["paths"]["/described"]["post"];
        assert_eq!(operation["description"], "what it is for", "{}", address.name);
    }

    for (path, option) in [
        ("/methods", "methods"),
        ("/path", "path"),
        ("/auth", "auth"),
        ("/max_body", "max_body"),
        ("/described", "description"),
        ("/slow", "timeout_ms"),
        ("/eats", "memory_mb"),
    ] {
        let function = set(&host, &tenant, path, &json!({option: null}));
        assert_eq!(function["layers"]["set"], json!({}), "{path}");
    }
    for address in tenant.addresses() {
        address.post("/methods", "").expect(200);
        address.post("/path/below", "").expect_problem(404, "not_found");
        address.post("/auth", "").expect(200);
        address.post("/max_body", "1234").expect(200);
        address.post("/slow?ms=100", "").expect(200);
        address.post("/eats?mb=16", "").expect(200);
    }
}

#[test]
fn options_that_were_set_survive_a_kill() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    tenant.deploy("gone", guests::version_one());
    let schema = json!({"body": {"type": "array", "maxItems": 1}});
    set(&host, &tenant, "/one", &json!({"auth": "invoke", "schema": schema}));
    set(&host, &tenant, "/gone", &json!({"methods": ["GET"]}));
    host.send(&tenant.api("DELETE", "/functions/gone")).expect(200);
    let before = (tenant.ask("/functions/one"), generations(&tenant));
    host.kill_and_start_again();
    assert_eq!((tenant.ask("/functions/one"), generations(&tenant)), before);
    let token = tenant.token("invoke");
    for address in tenant.addresses() {
        address.post("/one", "[]").expect_problem(401, "unauthenticated");
        let with =
            |body: &str| address.send(&address.request("POST", "/one").bearer(&token).body(body));
        assert_eq!(with("[1]").expect(200).text(), "version one");
        with("[1,2]").expect_problem(400, "schema_violation");
    }
    tenant.rollback("/gone", 1);
    tenant.get("/gone").expect(200);
}

#[test]
fn by_command_line() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("one", guests::declares_schemas(), &json!({"timeout_ms": 2000}));
    let hearth = |arguments: &[&str]| host.command(&tenant.token, arguments);
    let shown = hearth(&["--json", "options", "one"]).json();
    assert_eq!(shown, tenant.ask("/functions/one"));
    let said = hearth(&["options", "one"]).done();
    for part in ["In force:", "Declared by the module:", "by the upload:", "set since:", "2000"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let options = r#"{"auth":"invoke","schema":{"body":null,"response":{"200":true}}}"#;
    let after = hearth(&["--json", "options", "/one", "--set", options]).json();
    assert_eq!(
        after["layers"]["set"],
        json!({"auth": "invoke", "schema": {"response": {"200": true}}})
    );
    tenant.post("/one", "{}").expect_problem(401, "unauthenticated");
    hearth(&["options", "one", "--set", r#"{"auth":null}"#]).done();
    tenant.post("/one", "{}").expect(200);
    let refused = hearth(&["options", "one", "--set", r#"{"metods":[]}"#]).failed(1);
    assert!(refused.contains("unknown option `metods`; did you mean `methods`?"), "{refused}");
    let missing = hearth(&["options", "nix"]).failed(1);
    assert!(missing.contains("/nix"), "{missing}");
    for wrong in ["auth=invoke", "[]", ""] {
        let usage = hearth(&["options", "one", "--set", wrong]).failed(2);
        assert!(usage.contains("--set"), "{usage}");
    }
    let deploy = tenant.token("deploy");
    host.command(&deploy, &["options", "one"]).done();
    let refused = host.command(&deploy, &["options", "one", "--set", "{}"]).failed(1);
    assert!(refused.contains("owner"), "{refused}");
}

#[test]
fn options_and_bodies_of_the_api_have_one_reading() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("it", guests::echo(), &json!({ "auth": "owner" }));
    let before = generations(&tenant).len();
    let files = [("it.wasm", guests::echo())];
    for options in [
        r#"{"auth":"owner","auth":"public"}"#,
        r#"{"it.wasm":{"auth":"owner"},"it.wasm":{"auth":"public"}}"#,
        r#"{"it.wasm":{"auth":"owner","auth":"public"}}"#,
        r#"{"schema":{"body":{"required":["a"],"required":[]}}}"#,
        r#"{"$serde_json::private::RawValue":"{\"auth\":\"public\"}"}"#,
        r#"{"timeout_ms":1000.00000000000000000001}"#,
    ] {
        tenant.upload(&files, Some(options)).expect_problem(400, "bad_request");
    }
    let send = |method: &str, path: &str, body: &str| {
        host.send(&host.admin(method, path).header("content-type", "application/json").body(body))
    };
    for (method, path, body) in [
        ("PATCH", "/tenants/demo/functions/it", r#"{"options":{"auth":"owner","auth":"public"}}"#),
        (
            "PATCH",
            "/tenants/demo/functions/it",
            r#"{"options":{"auth":"owner"},"options":{"auth":"public"}}"#,
        ),
        (
            "PATCH",
            "/tenants/demo/functions/it",
            r#"{"options":{"auth":{"$serde_json::private::RawValue":"\"public\""}}}"#,
        ),
        ("PATCH", "/tenants/demo/limits", r#"{"limits":{"functions":20,"functions":50}}"#),
        ("POST", "/tenants/demo/functions/it/rollback", r#"{"version":1,"version":1}"#),
        ("POST", "/tenants", r#"{"name":"one","name":"two"}"#),
        ("POST", "/tenants/demo/tokens", r#"{"name":"a","scope":"invoke","scope":"owner"}"#),
        ("POST", "/tokens", r#"{"name":"a","scope":"admin","name":"b"}"#),
    ] {
        send(method, path, body).expect_problem(400, "bad_request");
    }
    let twice = host.admin("GET", "/tenants/demo/logs?limit=1&limit=2");
    host.send(&twice).expect_problem(400, "bad_request");
    let packed = host.admin("POST", "/tenants").header("content-encoding", "gzip");
    let packed = host.send(&packed.body(r#"{"name":"one"}"#));
    packed.expect_problem(415, "unsupported_media_type").expect_detail("Content-Encoding");
    assert_eq!(generations(&tenant).len(), before);
    tenant.post("/it", "").expect_problem(401, "unauthenticated");
    let set = ["options", "it", "--set", r#"{"auth":"owner","auth":"public"}"#];
    let said = host.command(&tenant.token, &set).failed(2);
    assert!(said.contains("stands twice"), "{said}");
}
