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

/// No two differ in case alone, and none is meant by the name of another.
#[test]
fn a_function_is_meant_however_its_name_is_written() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("greet", guests::echo(), &json!({ "methods": ["POST", "PUT"] }));
    tenant.deploy_with("home", guests::echo(), &json!({ "path": "root" }));
    tenant.deploy_with("below", guests::echo(), &json!({ "path": "prefix" }));
    let hearth = |arguments: &[&str]| host.command(&tenant.token, arguments);
    for wrong in [
        &["options", "nothing"][..],
        &["options", "nothing", "--set", "{}"],
        &["versions", "nothing"],
        &["rollback", "nothing", "1"],
        &["logs", "nothing"],
        &["calls", "nothing"],
        &["rm", "nothing", "--yes"],
        &["invoke", "nothing"],
        &["invoke", "Below/x"],
    ] {
        let said = hearth(wrong).failed(1);
        let named = format!("there is no function at /{}", wrong[1]);
        assert!(said.contains(&named), "{wrong:?}: {said}");
    }
    for (right, target) in [
        ("greet", "/greet"),
        ("GREET", "/greet"),
        ("below", "/below"),
        ("below/x", "/below/x"),
        ("Home", "/home"),
        ("home/x", "/home/x"),
    ] {
        assert_eq!(hearth(&["invoke", right]).json()["target"], target);
    }
    for (function, below, target) in [
        ("below", "/Items/3%20?page=2&to=%2F", "/below/Items/3%20?page=2&to=%2F"),
        ("BELOW", "/", "/below/"),
        ("greet", "?a=b", "/greet?a=b"),
        ("home", "", "/home"),
    ] {
        let said = hearth(&["invoke", function, "--below", below]).json();
        assert_eq!(said["target"], target, "{function} {below}");
    }
    for wrong in ["x", "/a b", "/\u{fc}", "#x", "/a#x"] {
        let said = hearth(&["invoke", "below", "--below", wrong]).failed(1);
        assert!(said.contains("`below` is not what can follow"), "{wrong}: {said}");
    }
    let lines = ["X-Mine: one", "x-mine:two", "content-type: text/plain"];
    let said = hearth(&["invoke", "greet", "-H", lines[0], "-H", lines[1], "-H", lines[2]]).json();
    assert_eq!(said["headers"]["x-mine"], json!(["one", "two"]), "{said}");
    assert_eq!(said["headers"]["content-type"], json!(["text/plain"]), "{said}");
    for right in [&["options", "GREET"][..], &["versions", "Greet"], &["calls", "GREET"]] {
        hearth(right).done();
    }
    let given = hearth(&["invoke", "greet", "-X", "put"]).json();
    assert_eq!(given["method"], "Method::Put", "{given}");
    hearth(&["invoke", "greet", "-X", "a b"]).failed(1);
    let file = host.scratch().join("Greet.wasm");
    std::fs::write(&file, guests::echo()).unwrap();
    let said = hearth(&["upload", file.to_str().unwrap()]).failed(1);
    assert!(said.contains("differs from /greet only in case"), "{said}");
    let options = host.scratch().join("options.json");
    std::fs::write(&options, r#"{"auth":"invoke"}"#).unwrap();
    let set = format!("@{}", options.display());
    let shown = hearth(&["options", "greet", "--set", &set]).done();
    assert!(shown.contains(r#""auth": "invoke""#), "{shown}");
}

/// Nothing secret goes to an address before it is known to have the API.
#[test]
fn a_login_says_what_is_wrong_with_an_address() {
    use std::process::Stdio;
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("home", guests::echo(), &json!({ "path": "root" }));
    let token = host.scratch().join("token");
    std::fs::write(&token, &tenant.token).unwrap();
    let home = tempfile::tempdir().unwrap();
    let login = |address: &str| {
        let said = crate::host::hearth(home.path())
            .args(["login", address, "--token-file", token.to_str().unwrap()])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (
            said.status.code(),
            String::from_utf8(said.stdout).unwrap() + &String::from_utf8(said.stderr).unwrap(),
        )
    };
    let (front, port) = (host.front, tenant.addresses()[0].authority());
    for (address, status, part) in [
        (format!("https://{front}"), 1, "it speaks http there"),
        (format!("http://{port}"), 1, "the API is at the host's front door"),
        (format!("http://{front}/t/demo"), 1, "the API is at the host's front door"),
        ("hearth.lan:3400".to_owned(), 1, "`hearth.lan:3400` is not a valid address"),
        (format!("http://{front}/api/v1"), 0, "knows you as owner"),
        (front.to_string(), 0, "knows you as owner"),
    ] {
        let (ended, said) = login(&address);
        assert_eq!(ended, Some(status), "{address}: {said}");
        assert!(said.contains(part) && !said.contains("--url"), "{address}: {said}");
    }
    let page = tenant.ask("/calls");
    assert!(!page.to_string().contains(&tenant.token), "{page}");
}

#[test]
fn what_is_wrong_is_said_before_a_host_is_asked() {
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| crate::host::run(home.path(), arguments);
    let said = run(&["restore", home.path().to_str().unwrap()]).failed(1);
    assert!(said.to_lowercase().contains("is a directory") && !said.contains("reached"), "{said}");
    let help = run(&["token", "add", "--help"]).done();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("report calls functions"), "{help}");
    assert!(!run(&["up", "--help"]).done().contains("--token-file"));

    let host = Host::start();
    let tenant = host.tenant("demo");
    let hearth = |arguments: &[&str]| host.command(&tenant.token, arguments);
    for command in ["logs", "calls"] {
        let said = hearth(&[command, "-n", "0"]).failed(2);
        assert!(said.contains("from 1 to 1000"), "{said}");
    }
    for name in ["one", "two"] {
        tenant.deploy(name, guests::version_one());
    }
    let said = host.command(ADMIN_TOKEN, &["limits", "functions=1", "--tenant", "demo"]).error();
    assert!(said.contains("functions is 1 now, and there are"), "{said}");
    let said = hearth(&["token", "rm", "1000"]).failed(1);
    assert!(said.contains("there is no token 1000"), "{said}");
    let made = hearth(&["--json", "token", "add", "named", "--scope", "invoke"]).json();
    let said = hearth(&["token", "rm", &made["id"].to_string()]).failed(2);
    assert!(said.contains("named (invoke)"), "{said}");
}
