//! Functions that answer at their tenant's root, or see a root of their own: at all three
//! addresses, beside other functions and the platform's own routes, and for applications that know
//! nothing of where they are mounted.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::guests;
use crate::host::{Host, Tenant, upload};
use crate::http::Connection;

const METHODS: [&str; 3] = ["GET", "OPTIONS", "POST"];

fn root() -> Value {
    json!({ "path": "root", "methods": METHODS })
}

fn stripped(path: &str) -> Value {
    json!({ "path": path, "strip_prefix": true, "methods": METHODS })
}

/// What `echo` saw, and what it was told of its prefix.
fn seen(tenant: &Tenant, path: &str) -> Vec<(String, Option<String>)> {
    let addresses = tenant.addresses().into_iter();
    let seen = addresses.map(|address| {
        let seen = address.get(path).expect(200).json();
        let prefix = seen["headers"]["x-forwarded-prefix"][0].as_str().map(str::to_owned);
        (seen["target"].as_str().unwrap().to_owned(), prefix)
    });
    seen.collect()
}

#[test]
fn a_root_takes_what_nobody_else_takes_at_every_address() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("site", guests::echo(), &root());
    tenant.deploy("one", guests::version_one());
    tenant.deploy_with("files", guests::version_two(), &json!({ "path": "prefix" }));
    let by_path = Some("/t/demo".to_owned());
    for path in [
        "/",
        "/?a=b",
        "/a//b/?c",
        "//",
        "/site",
        "/site/x",
        "/one/more",
        "/One",
        "/j%C3%BCrgen/a%2Fb",
    ] {
        let as_sent = |prefix: &Option<String>| (path.to_owned(), prefix.clone());
        let expected = [as_sent(&None), as_sent(&None), as_sent(&by_path)];
        assert_eq!(seen(&tenant, path), expected, "{path}");
    }
    for address in tenant.addresses() {
        let answer = address.get("/").expect(200);
        assert_eq!(answer.header("x-hearth-version"), Some("/site@1"), "{}", address.name);
        assert_eq!(address.post("/one/", "").expect(200).text(), "version one");
        assert_eq!(address.post("/files/a/b", "").expect(200).text(), "version two");
        // Another method of another function is not the root's either.
        let refused = address.get("/one").expect_problem(405, "method_not_allowed");
        assert_eq!(refused.header("allow"), Some("POST"), "{}", address.name);
        let refused =
            address.send(&address.request("DELETE", "/")).expect_problem(405, "method_not_allowed");
        assert_eq!(refused.header("allow"), Some("GET, OPTIONS, POST"), "{}", address.name);
        for path in ["/..", "/a/../one", "/a/%2e%2E/one", "/..%2fone", "/a%5Cb", "/a%00"] {
            let mut connection = Connection::open(address.to).unwrap();
            connection.call(&address.request("GET", path)).expect_problem(400, "invalid_path");
        }
    }
}

#[test]
fn by_path_a_tenants_address_needs_no_slash_at_its_end() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let [_, _, by_path] = tenant.addresses();
    by_path.get("").expect_problem(404, "not_found");
    tenant.deploy_with("site", guests::echo(), &root());
    assert_eq!(by_path.get("").expect(200).json()["target"], "/");
}

#[test]
fn a_root_takes_nothing_of_the_platforms() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("site", guests::echo(), &root());
    for address in tenant.addresses() {
        assert_eq!(address.get("/$health").expect(200).json()["status"], "ok", "{}", address.name);
        assert_eq!(address.get("/$health/").expect(200).json()["status"], "ok", "{}", address.name);
        assert!(address.get("/$functions").expect(200).json()["functions"].is_array());
        let document = address.get("/$openapi.json").expect(200).json();
        for path in ["/", "/{rest}", "/site", "/site/{rest}"] {
            assert!(document["paths"][path]["get"].is_object(), "{path}: {document}");
        }
        address.post("/$health", "").expect_problem(405, "method_not_allowed");
        for path in ["/$usage", "/$nothing", "/a/$nothing", "/$"] {
            address.get(path).expect_problem(404, "not_found");
        }
        // Whoever sends these has a token with him, which is for no guest to see.
        for path in
            ["/%24upload", "/%24health", "/a/%24upload", "/a/$upload//", "/$x/y", "//$upload"]
        {
            let form = upload(address.request("POST", path), &[("x.wasm", guests::echo())], None);
            let refused = address.send(&form.bearer(&tenant.token));
            refused.expect_problem(400, "invalid_path");
        }
        address.get("/$upload").expect_problem(405, "method_not_allowed");
        let form =
            upload(address.request("POST", "/dir/$upload"), &[("x.wasm", guests::echo())], None);
        address.send(&form.bearer(&tenant.token)).expect(200);
    }
    tenant.post("/dir/x", "").expect(200);
}

#[test]
fn a_tenant_has_one_root() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("site", guests::version_one(), &root());
    let options = root().to_string();
    let both = "/other and /site both have the option";
    let refuses = |answer: crate::http::Answer| {
        let text = answer.expect_problem(409, "conflict").text();
        assert!(text.contains("/other") && text.contains("/site"), "{text}");
        assert_eq!(tenant.get("/").expect(200).text(), "version one");
    };
    refuses(tenant.upload(&[("other.wasm", guests::version_two())], Some(&options)));
    tenant.post("/other", "").expect(200);
    let functions = tenant.ask("/functions").to_string();
    assert!(!functions.contains("\"/other\""), "nothing of it is kept: {functions}");

    // Set by its owner, and by a rollback.
    tenant.deploy("other", guests::version_two());
    let set = |path: &str, options: Value| {
        let request = tenant.api("PATCH", &format!("/functions/{path}"));
        host.send(&request.json(&json!({ "options": options })))
    };
    refuses(set("other", json!({ "path": "root" })));
    set("site", json!({ "path": "exact" })).expect(200);
    tenant.get("/").expect_problem(404, "not_found");
    set("other", json!({ "path": "root", "methods": ["GET"] })).expect(200);
    assert_eq!(tenant.get("/").expect(200).text(), "version two");
    let refused = set("site", json!({ "path": null })).expect_problem(409, "conflict");
    refused.expect_detail(both);
    let said = host.command(&tenant.token, &["functions"]).done();
    assert!(said.contains("/other (root)"), "{said}");

    // Removed, it makes room for the next one, and does not come back beside it.
    host.send(&tenant.api("DELETE", "/functions/other")).expect(200);
    set("site", json!({ "path": null })).expect(200);
    assert_eq!(tenant.get("/").expect(200).text(), "version one");
    let back = tenant.api("POST", "/functions/other/rollback").json(&json!({}));
    host.send(&back).expect_problem(409, "conflict").expect_detail(both);
    // In one upload it can move.
    let moved = json!({ "site.wasm": {"path": "exact"}, "next.wasm": root() }).to_string();
    let files: [(&str, &[u8]); 2] =
        [("site.wasm", guests::version_one()), ("next.wasm", guests::version_two())];
    tenant.upload(&files, Some(&moved)).expect(200);
    assert_eq!(tenant.get("/").expect(200).text(), "version two");
    let two = json!({ "site.wasm": root(), "next.wasm": root() }).to_string();
    tenant.upload(&files, Some(&two)).expect_problem(409, "conflict");
}

#[test]
fn a_guest_with_strip_prefix_sees_a_root_of_its_own() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let form = json!({ "echo.wasm": stripped("prefix"), "only.wasm": stripped("exact") });
    let files: [(&str, &[u8]); 2] = [("echo.wasm", guests::echo()), ("only.wasm", guests::echo())];
    let request =
        upload(tenant.api("POST", "/functions?dir=apps"), &files, Some(&form.to_string()));
    host.send(&request).expect(200);
    let told = |own: &str| {
        let (plain, by_path) = (own.to_owned(), format!("/t/demo{own}"));
        [Some(plain.clone()), Some(plain), Some(by_path)]
    };
    for (path, target) in [
        ("/apps/echo", "/"),
        ("/apps/echo/", "/"),
        ("/apps/echo?a=/apps/echo", "/?a=/apps/echo"),
        ("/apps/echo/a%2Fb/c/?d", "/a%2Fb/c/?d"),
        ("/apps/echo//a", "//a"),
        ("/apps/echo/apps/echo", "/apps/echo"),
    ] {
        let expected: Vec<_> =
            told("/apps/echo").into_iter().map(|prefix| (target.to_owned(), prefix)).collect();
        assert_eq!(seen(&tenant, path), expected, "{path}");
    }
    let expected: Vec<_> =
        told("/apps/only").into_iter().map(|prefix| ("/".to_owned(), prefix)).collect();
    assert_eq!(seen(&tenant, "/apps/only"), expected);
    for address in tenant.addresses() {
        address.get("/apps/only/x").expect_problem(404, "not_found");
        address.get("/apps/echo/../only").expect_problem(400, "invalid_path");
        address.get("/apps/echo/%2e%2e/only").expect_problem(400, "invalid_path");
        // What a stranger says of it is not what the guest is told.
        let forged = address.request("GET", "/apps/echo").header("x-forwarded-prefix", "/forged");
        let prefix =
            address.send(&forged).expect(200).json()["headers"]["x-forwarded-prefix"].clone();
        assert!(prefix.as_array().unwrap().len() == 1, "{prefix}");
        assert!(!prefix[0].as_str().unwrap().contains("forged"), "{prefix}");
    }
    // The owner's own call goes to the function, and so to its root.
    let invoked = host.command(&tenant.token, &["invoke", "apps/echo", "-d", "1"]).json();
    assert_eq!(invoked["target"], "/", "{invoked}");
    assert_eq!(invoked["headers"]["x-forwarded-prefix"], json!(["/apps/echo"]), "{invoked}");
}

#[test]
fn a_root_is_asked_by_browsers_as_any_function_is() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let mut options = root();
    options["cors"] = json!(["https://app.example"]);
    tenant.deploy_with("site", guests::echo(), &options);
    tenant.deploy("one", guests::version_one());
    for address in tenant.addresses() {
        let preflight = |path: &str| {
            address
                .request("OPTIONS", path)
                .header("origin", "https://app.example")
                .header("access-control-request-method", "GET")
        };
        let allowed = address.send(&preflight("/any/where")).expect(204);
        let origin = allowed.header("access-control-allow-origin");
        assert_eq!(origin, Some("https://app.example"), "{}", address.name);
        address.send(&preflight("/one")).expect_problem(405, "method_not_allowed");
        let plain = address.send(&address.request("OPTIONS", "/any/where")).expect(200).json();
        assert_eq!(plain["method"], "Method::Options", "{plain}");
    }
}

/// An application answers its own `/` and what is below it, and is told where it is.
fn answers(tenant: &Tenant, at: &str, name: &str, prefixed: bool) {
    for address in tenant.addresses() {
        let get = |path: &str| address.get(&format!("{at}{path}"));
        assert_eq!(get("/").expect(200).text(), format!("{name} at its root"), "{}", address.name);
        let greeted = get("/users/Ada?x=1").expect(200).text();
        assert_eq!(greeted, format!("{name} greets Ada"), "{}", address.name);
        let taken = address.post(&format!("{at}/users/Ada"), "a word").expect(200).text();
        assert_eq!(taken, format!("{name} takes a word from Ada"), "{}", address.name);
        let unknown = get("/unknown").expect(404);
        assert!(unknown.header("x-hearth-version").is_some(), "its own 404: {unknown:?}");
        let own = if prefixed { at } else { "" };
        let told = match address.name {
            "its path" => format!("/t/demo{own}"),
            _ if own.is_empty() => "none".to_owned(),
            _ => own.to_owned(),
        };
        assert_eq!(get("/prefix").expect(200).text(), told, "{}", address.name);
    }
}

fn an_application_answers_its_own_root(name: &str, module: &[u8]) {
    let host = Host::start();
    let tenant = host.tenant("demo");
    // A large one is compiled for long, on a busy machine for minutes; after that it is kept.
    let files = [("app.wasm", module)];
    let request =
        upload(tenant.address().request("POST", "/$upload"), &files, Some(&root().to_string()));
    let mut connection = tenant.open();
    connection.wait_for(Duration::from_secs(600)).unwrap();
    connection.call(&request.bearer(&tenant.token)).expect(200);
    answers(&tenant, "", name, false);
    // As the root it sees its own path as well, and knows nothing of it.
    assert!(tenant.get("/app").expect(404).header("x-hearth-version").is_some());
    tenant.deploy_with("app", module, &stripped("prefix"));
    answers(&tenant, "/app", name, true);
    assert_eq!(tenant.get("/app").expect(200).text(), format!("{name} at its root"));
    tenant.get("/").expect_problem(404, "not_found");
    tenant.deploy_with("app", module, &stripped("root"));
    answers(&tenant, "", name, false);
    answers(&tenant, "/app", name, true);
}

#[test]
fn an_application_of_axum_answers_its_own_root() {
    an_application_answers_its_own_root("axum", guests::axum_app());
}

#[test]
fn an_application_of_spin_answers_its_own_root() {
    an_application_answers_its_own_root("spin", guests::spin_app());
}

#[test]
fn an_application_of_hono_answers_its_own_root() {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/javascript/hono_app.wasm");
    let module = fs::read(&module).unwrap_or_else(|error| {
        panic!("{}: {error}; `cargo xtask test` makes it", module.display())
    });
    an_application_answers_its_own_root("hono", &module);
}
