//! The command line, as a person or a script uses it.

use serde_json::json;

use crate::guests;
use crate::host::{ADMIN_TOKEN, Host};

#[test]
fn an_operator_adds_shows_and_removes_tenants() {
    let host = Host::start();
    let hearth = |arguments: &[&str]| host.command(ADMIN_TOKEN, arguments);
    let made = hearth(&["--json", "tenant", "add", "demo"]).json();
    assert_eq!(made["name"], "demo");
    assert!(made["token"].as_str().unwrap().starts_with("hearth_"), "{made}");
    let again = hearth(&["tenant", "add", "demo"]).failed(1);
    assert!(again.contains("demo"), "{again}");
    let listed = hearth(&["tenant", "list"]).done();
    assert!(listed.contains("demo") && listed.contains(&made["port"].to_string()), "{listed}");
    let shown = hearth(&["--json", "tenant", "show", "demo"]).json();
    assert_eq!(shown["worker"]["state"], "asleep", "{shown}");
    let workers = hearth(&["worker", "list"]).done();
    assert!(workers.contains("demo") && workers.contains("asleep"), "{workers}");
    // Nobody is there who could be asked.
    let said = hearth(&["tenant", "rm", "demo"]).failed(2);
    assert!(said.contains("--yes"), "{said}");
    hearth(&["tenant", "show", "demo"]).done();
    hearth(&["tenant", "rm", "demo", "--yes"]).done();
    let gone = hearth(&["tenant", "show", "demo"]).failed(1);
    assert!(gone.contains("no such tenant"), "{gone}");
}

#[test]
fn an_owner_uploads_calls_and_hands_out_tokens() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let hearth = |arguments: &[&str]| host.command(&tenant.token, arguments);
    let file = host.scratch().join("echo.wasm");
    std::fs::write(&file, guests::echo()).unwrap();
    let said = hearth(&["upload", file.to_str().unwrap(), "--to", "jobs"]).done();
    assert!(said.contains("/jobs/echo"), "{said}");
    let called = hearth(&["invoke", "jobs/echo", "-d", r#"{"a":1}"#]).json();
    assert_eq!(called["body"], r#"{"a":1}"#, "{called}");
    let missing = hearth(&["invoke", "nothing"]).failed(1);
    assert!(missing.contains("nothing"), "{missing}");
    let functions = hearth(&["--json", "functions"]).json();
    assert!(functions.to_string().contains("/jobs/echo"), "{functions}");

    let made = hearth(&["--json", "token", "add", "ci", "--scope", "deploy"]).json();
    let deploy = made["token"].as_str().unwrap();
    let listed = hearth(&["token", "list"]).done();
    assert!(listed.contains("ci") && !listed.contains(deploy), "{listed}");
    host.command(deploy, &["upload", file.to_str().unwrap()]).done();
    let refused = host.command(deploy, &["token", "list"]).failed(1);
    assert!(refused.contains("token"), "{refused}");
    // Whoever may deploy may not take away.
    let refused = host.command(deploy, &["rm", "jobs/echo", "--yes"]).failed(1);
    assert!(refused.contains("needs the scope owner"), "{refused}");
    tenant.post("/jobs/echo", "").expect(200);
    let said = hearth(&["token", "rm", &made["id"].to_string()]).failed(2);
    assert!(said.contains("--yes"), "{said}");
    host.command(deploy, &["functions"]).done();
    hearth(&["token", "rm", &made["id"].to_string(), "--yes"]).done();
    host.command(deploy, &["functions"]).failed(1);

    let calls = crate::processes::eventually("a call", || {
        let calls = hearth(&["--json", "calls"]).done();
        calls.contains("/jobs/echo").then_some(calls)
    });
    assert!(calls.contains("answered"), "{calls}");
    let stopped = hearth(&["--json", "worker", "stop"]).json();
    assert_ne!(stopped["state"], "ready", "{stopped}");
    hearth(&["worker", "restart"]).done();
    hearth(&["doctor"]).done();
}

#[test]
fn refusals_and_wrong_usage_have_their_own_status() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    for (arguments, status) in [
        (&["upload", "/nowhere/at-all.wasm"][..], 1),
        (&["versions", "nothing"], 1),
        (&["versions", "../nothing"], 2),
        (&["rollback"], 2),
        (&["sing"], 2),
        (&["token", "add", "x", "--scope", "everything"], 2),
        (&["--tenant", "nobody", "functions"], 1),
    ] {
        let said = host.command(&tenant.token, arguments).failed(status);
        assert!(said.len() > 10, "{arguments:?}: {said:?}");
    }
    let said = host.command("wrong", &["functions"]).failed(1);
    assert!(said.contains("token"), "{said}");
    let bad = host.scratch().join("bad.wasm");
    std::fs::write(&bad, guests::core_module()).unwrap();
    let said = host.command(&tenant.token, &["upload", bad.to_str().unwrap()]).failed(1);
    assert!(said.contains("component"), "{said}");
}

#[test]
fn completions_are_printed_for_each_shell() {
    let host = Host::start();
    for shell in ["bash", "zsh", "fish"] {
        let script = host.command("none", &["completions", shell]).done();
        assert!(script.contains("rollback"), "{shell}");
    }
}

#[test]
fn a_new_function_is_written_built_uploaded_and_called() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    host.command(&tenant.token, &["new", "greet"]).done();
    let directory = host.scratch().join("greet");
    // Where this machine has its packages already, nothing is asked of the network.
    let hearth = |arguments: &[&str]| host.command_in(&directory, &tenant.token, arguments);
    hearth(&["build"]).done();
    hearth(&["upload", "greet.wasm"]).done();
    let answer = tenant.post("/greet", &json!({ "name": "Ada" }).to_string()).expect(200);
    assert!(answer.text().contains("Ada"), "{}", answer.text());
    let called = hearth(&["invoke", "greet", "-d", r#"{"name":"Ada"}"#]).done();
    assert!(called.contains("Ada"), "{called}");
}
