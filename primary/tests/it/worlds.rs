//! What an upload says of a function's imports: interfaces of other hosts, which are accepted and not
//! offered, and what it imports that the one before did not.

use hearth_e2e::component;
use serde_json::{Value, json};

use crate::guests;
use crate::host::{Host, Tenant};
use crate::http::{Answer, Part, form};
use crate::processes::eventually;

const DEMO: &str = "spin:demo/demo@3.0.0";

/// An upload with `same_imports`, at an address of the tenant's or by the API.
fn same_imports(
    (host, tenant): (&Host, &Tenant),
    said: &str,
    module: &[u8],
    by_api: bool,
) -> Answer {
    let (content_type, body) = form(&[
        Part { name: "same_imports", file: None, bytes: said.as_bytes() },
        Part { name: "file", file: Some("one.wasm"), bytes: module },
    ]);
    if by_api {
        let request = tenant.api("POST", "/functions").header("content-type", &content_type);
        return host.send(&request.body(body));
    }
    let request = tenant.address().request("POST", "/$upload").bearer(&tenant.token);
    tenant.address().send(&request.header("content-type", &content_type).body(body))
}

#[test]
fn what_other_hosts_have_is_told_at_the_upload_and_by_each_call_that_needs_it() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let plain = component::needing(DEMO);
    for (name, interface, module) in [
        ("plain", DEMO, plain.clone()),
        ("concurrent", DEMO, component::concurrent(&plain)),
        ("later", "fermyon:spin/later@2.0.0", component::needing_later("fermyon:spin/later@2.0.0")),
    ] {
        let up = tenant.deploy_with(name, &module, &json!({ "reuse": 10 }));
        let function = &up["functions"][0];
        assert_eq!(function["unavailable"], json!([interface]), "{up}");
        assert!(function["imports"].as_array().unwrap().contains(&interface.into()), "{up}");
        let path = format!("/{name}");
        let detail =
            format!("the function needs `{interface}`, an interface that Hearth does not offer");
        for address in tenant.addresses() {
            let refused = address.post(&path, "").expect_problem(500, "function_trapped");
            refused.expect_detail(&detail);
        }
        let line = format!("it called `get` of `{interface}`, an interface that Hearth");
        eventually("its line", || {
            let page = tenant.ask("/logs");
            let lines = page["lines"].as_array().unwrap();
            lines.iter().any(|it| it["text"].as_str().unwrap().contains(&line)).then_some(())
        });
        // After the worker is another, and after the host is.
        host.command(&tenant.token, &["worker", "restart", "--tenant", "demo"]).done();
        tenant.post(&path, "").expect_problem(500, "function_trapped").expect_detail(&detail);
    }
    let up = tenant.deploy("clean", guests::version_one());
    assert_eq!(up["functions"][0]["unavailable"], json!([]), "{up}");
    // What is nobody's is refused by name as before, and nothing is said of the rest.
    let both = component::importing(&format!(
        r#"(import "{DEMO}" (instance (export "f" (func))))
        (import "acme:db/sql@1.0.0" (instance (export "f" (func))))"#
    ));
    let refused = tenant.upload(&[("both.wasm", &both)], None);
    let problem = refused.expect_problem(400, "invalid_module").json();
    assert_eq!(problem["imports"], json!(["acme:db/sql@1.0.0"]), "{problem}");
}

fn changed(up: &Value) -> (&Value, &Value) {
    let function = &up["functions"][0];
    (&function["imports_added"], &function["imports_removed"])
}

#[test]
fn an_upload_tells_what_it_imports_anew_and_can_be_kept_from_it() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let at = (&host, &tenant);
    let exit = |version: &str| {
        component::importing(&format!(
            r#"(import "wasi:cli/exit@{version}" (instance
                (export "exit" (func (param "status" (result))))))"#
        ))
    };
    let (nothing, own) = (json!([]), json!(["wasi:http/types@0.2.0"]));
    // Of a new function all is new.
    let fresh = component::importing("");
    let refused = same_imports(at, "true", &fresh, false).expect_problem(409, "conflict");
    assert_eq!(refused.json()["imports"], own);
    tenant.post("/one", "").expect_problem(404, "not_found");
    let up = tenant.deploy("one", &fresh);
    assert_eq!(changed(&up), (&own, &nothing), "{up}");

    let generation = up["generation"].clone();
    for by_api in [false, true] {
        let refused = same_imports(at, "true", &exit("0.2.3"), by_api);
        let refused = refused.expect_problem(409, "conflict");
        let refused = refused.expect_detail("/one would import `wasi:cli/exit@0.2.3`");
        assert_eq!(refused.json()["imports"], json!(["wasi:cli/exit@0.2.3"]));
    }
    assert_eq!(tenant.ask("/functions/one/versions")["active"], 1);
    assert_eq!(tenant.ask("/worker")["generation"], generation);

    let up = same_imports(at, "false", &exit("0.2.3"), true).expect(200).json();
    assert_eq!(changed(&up), (&json!(["wasi:cli/exit@0.2.3"]), &nothing), "{up}");
    // A later release that is compatible is the same, and fewer are fewer.
    let up = same_imports(at, "true", &exit("0.2.6"), false).expect(200).json();
    assert_eq!(changed(&up), (&nothing, &nothing), "{up}");
    let up = same_imports(at, "true", &fresh, true).expect(200).json();
    assert_eq!(changed(&up), (&nothing, &json!(["wasi:cli/exit@0.2.6"])), "{up}");
    let again = tenant.deploy("one", &fresh);
    assert_eq!(changed(&again), (&nothing, &nothing), "{again}");

    for said in ["", "yes", "true ", "truetruetruetruetrue"] {
        let refused = same_imports(at, said, &fresh, false).expect_problem(400, "bad_request");
        refused.expect_detail("`same_imports` must be `true` or `false`");
    }
    // What comes with Hearth is what was there before, too.
    let up = tenant.deploy("hello", &fresh);
    assert_ne!(changed(&up).1, &nothing, "{up}");
}

#[test]
fn by_the_command_line() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let write = |name: &str, module: &[u8]| {
        let file = host.scratch().join(name);
        std::fs::write(&file, module).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let file = write("one.wasm", &component::importing(""));
    host.command(&tenant.token, &["upload", &file]).done();
    let file = write("one.wasm", &component::needing(DEMO));
    let said = host.command(&tenant.token, &["upload", &file, "--same-imports"]).failed(1);
    assert!(said.contains(&format!("/one would import `{DEMO}`")), "{said}");
    let said = host.command(&tenant.token, &["upload", &file]).done();
    assert!(said.contains(&format!("A call fails if it needs {DEMO}")), "{said}");
    host.command(&tenant.token, &["upload", &file, "--same-imports"]).done();
}
