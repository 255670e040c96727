//! Setting limits, seeing them, and what they refuse before it can be used.

use hearth_wire::Limits;
use serde_json::{Map, Value, json};

use super::{find, set, used};
use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, Tenant};
use crate::http::Request;
use crate::processes::eventually;

fn change(host: &Host, tenant: &Tenant, limits: &Value) -> Request {
    let path = format!("/tenants/{}/limits", tenant.name);
    host.admin("PATCH", &path).json(&json!({ "limits": limits }))
}

/// Every limit, set to what is chosen for it.
fn all(choose: impl Fn(&hearth_wire::Limit) -> Value) -> Value {
    let limits = Limits::TABLE.iter().map(|limit| (limit.name.to_owned(), choose(limit)));
    Value::Object(limits.collect::<Map<_, _>>())
}

#[test]
fn every_limit_is_shown_with_its_bounds_and_set_within_them() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let shows = |list: &Value, set: bool, choose: fn(&hearth_wire::Limit) -> u64| {
        let limits = list["limits"].as_array().unwrap();
        assert_eq!(limits.len(), Limits::TABLE.len());
        for (shown, limit) in limits.iter().zip(Limits::TABLE) {
            let mut shown = shown.clone();
            let used = shown.as_object_mut().unwrap().remove("used").unwrap();
            assert!(used.is_null() || used.is_u64(), "{shown}");
            let expected = json!({
                "name": limit.name, "unit": limit.unit, "about": limit.about,
                "default": limit.default, "min": limit.min, "max": limit.max,
                "value": choose(limit), "set": set,
            });
            assert_eq!(shown, expected);
        }
    };
    shows(&tenant.ask("/limits"), false, |limit| limit.default);
    shows(&set(&host, &tenant, &all(|limit| json!(limit.max))), true, |limit| limit.max);
    shows(&set(&host, &tenant, &all(|limit| json!(limit.min))), true, |limit| limit.min);
    shows(&tenant.ask("/limits"), true, |limit| limit.min);
    shows(&set(&host, &tenant, &all(|_| Value::Null)), false, |limit| limit.default);
    tenant.post("/hello", "{}").expect(200);
}

#[test]
fn a_limit_that_is_none_and_a_value_beyond_its_bounds_change_nothing() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    set(&host, &tenant, &json!({ "functions": 50 }));
    let before = tenant.ask("/limits");
    let generations = tenant.ask("/generations");
    let refuses = |limits: Value, sentence: &str| {
        let refused = host.send(&change(&host, &tenant, &limits));
        refused.expect_problem(400, "bad_request").expect_detail(sentence);
    };
    for limit in Limits::TABLE {
        let name = limit.name;
        refuses(json!({ name: limit.max + 1 }), name);
        if limit.min > 0 {
            refuses(json!({ name: limit.min - 1 }), name);
        }
        // A good one beside a bad one is not taken either.
        refuses(json!({ "functions": 20, "versions": 5, name: limit.max + 1 }), name);
    }
    for wrong in [json!(-1), json!(1.5), json!("5"), json!(true), json!([1]), json!({})] {
        refuses(json!({ "functions": wrong }), "");
    }
    refuses(json!({ "memory": 1 }), "memory");
    refuses(json!({ "": 1 }), "timeout_ms");
    for wrong in [json!({}), json!({ "limits": 1 }), json!([]), json!({ "functions": 1 })] {
        let request = host.admin("PATCH", "/tenants/demo/limits").json(&wrong);
        host.send(&request).expect_problem(400, "bad_request");
    }
    let after = tenant.ask("/limits");
    for limit in Limits::TABLE {
        let shown =
            |list| (find(list, limit.name)["value"].clone(), find(list, limit.name)["set"].clone());
        assert_eq!(shown(&after), shown(&before), "{}", limit.name);
    }
    assert_eq!(tenant.ask("/generations"), generations);
}

#[test]
fn limits_are_the_operators_to_set_and_the_tenants_to_see() {
    let host = Host::start();
    let (tenant, other) = (host.tenant("demo"), host.tenant("other"));
    let path = "/api/v1/tenants/demo/limits";
    let body = json!({ "limits": { "functions": 50 } });
    let patch = |token: &str| host.send(&Request::new("PATCH", path).bearer(token).json(&body));
    for token in [&tenant.token, &tenant.token("deploy"), &tenant.token("invoke"), &other.token] {
        patch(token).expect_problem(403, "forbidden");
    }
    patch("nonsense").expect_problem(401, "unauthenticated");
    host.send(&Request::new("PATCH", path).json(&body)).expect_problem(401, "unauthenticated");
    assert_eq!(find(&tenant.ask("/limits"), "functions")["set"], false);

    let get = |token: &str| host.send(&Request::new("GET", path).bearer(token));
    get(&tenant.token("deploy")).expect(200);
    get(&tenant.token("invoke")).expect_problem(403, "forbidden");
    get(&other.token).expect_problem(403, "forbidden");
    host.send(&change(&host, &host.tenant("third"), &json!({}))).expect(200);
    let nobody = host.admin("PATCH", "/tenants/nobody/limits").json(&body);
    host.send(&nobody).expect_problem(404, "not_found");
}

#[test]
fn what_a_tenant_has_of_its_limits_is_counted() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let all = |names: [&str; 3]| names.map(|name| used(&tenant, name));
    assert_eq!(all(["calls_running", "calls_waiting", "connections"]), [0, 0, 0]);
    let functions = used(&tenant, "functions");
    let disk = used(&tenant, "disk_bytes");
    tenant.deploy("counts", guests::counts());
    assert_eq!(used(&tenant, "functions"), functions + 1);
    let more = used(&tenant, "disk_bytes") - disk;
    assert!(more > guests::counts().len() as u64 / 10, "{more}");
    for name in ["timeout_ms", "memory_mb", "max_body", "rate_per_second", "upload_bytes"] {
        assert!(find(&tenant.ask("/limits"), name)["used"].is_null(), "{name}");
    }

    let mut caller = tenant.open();
    let head = tenant.address().request("POST", "/counts").header("transfer-encoding", "chunked");
    caller.send(&head.bytes("demo")).unwrap();
    let _silent = tenant.open();
    eventually("a call that runs, on one of two connections", || {
        let now = all(["calls_running", "calls_waiting", "connections"]);
        (now == [1, 0, 2]).then_some(())
    });
    caller.send(b"1\r\nx\r\n0\r\n\r\n").unwrap();
    caller.answer("POST").expect(200);
    drop(caller);
    eventually("the connection that says nothing", || {
        let now = all(["calls_running", "calls_waiting", "connections"]);
        (now == [0, 0, 1]).then_some(())
    });
    host.send(&tenant.api("DELETE", "/functions/counts")).expect(200);
    assert_eq!(used(&tenant, "functions"), functions);
}

#[test]
fn the_command_line_shows_and_sets_limits() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let admin = |arguments: &[&str]| {
        host.command(ADMIN_TOKEN, &[&["--tenant", "demo"], arguments].concat())
    };
    let shown = host.command(&tenant.token, &["limits"]).done();
    for limit in Limits::TABLE {
        let line = shown.lines().find(|line| line.contains(limit.name));
        let line = line.unwrap_or_else(|| panic!("no {} in {shown}", limit.name));
        assert!(line.contains(&limit.default.to_string()), "{line}");
        assert!(line.contains(limit.unit) && line.contains(limit.about), "{line}");
    }
    let set = admin(&["--json", "limits", "functions=20", "rate_per_second=100"]).json();
    assert_eq!(find(&set, "functions")["value"], 20, "{set}");
    assert_eq!(find(&set, "rate_per_second")["value"], 100, "{set}");
    assert_eq!(find(&tenant.ask("/limits"), "functions")["set"], true);
    let set = admin(&["--json", "limits", "functions=default"]).json();
    let functions = find(&set, "functions");
    assert_eq!((&functions["value"], &functions["set"]), (&json!(100), &json!(false)), "{set}");
    assert_eq!(find(&set, "rate_per_second")["value"], 100, "{set}");

    let refused = admin(&["limits", "functions=101"]).failed(2);
    assert!(refused.contains("functions"), "{refused}");
    let refused = host.command(&tenant.token, &["limits", "functions=20"]).failed(1);
    assert!(refused.contains("admin"), "{refused}");
    for wrong in ["nix=1", "functions", "functions=many", "functions=-1"] {
        let refused = admin(&["limits", wrong]).failed(2);
        assert!(refused.contains(wrong.split('=').next().unwrap()), "{refused}");
    }
}

#[test]
fn an_option_above_its_tenants_limit_is_refused_by_name() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let limits = json!({ "timeout_ms": 500, "memory_mb": 16, "max_body": 1_000 });
    set(&host, &tenant, &limits);
    for (name, most) in limits.as_object().unwrap() {
        let most = most.as_u64().unwrap();
        let (inside, past) = (json!({ name: most }), json!({ name: most + 1 }));
        let files = [("one.wasm", guests::version_one())];
        tenant.upload(&files, Some(&inside.to_string())).expect(200);
        let serves = tenant.ask("/generations");
        let refused = tenant.upload(&files, Some(&past.to_string()));
        refused.expect_problem(400, "bad_request").expect_detail(name);
        let patch = |options: &Value| {
            let request = tenant.api("PATCH", "/functions/one");
            host.send(&request.json(&json!({ "options": options })))
        };
        patch(&past).expect_problem(400, "bad_request").expect_detail(name);
        assert_eq!(tenant.ask("/generations"), serves, "{name}");
        patch(&inside).expect(200);
        patch(&json!({ name: null })).expect(200);
    }
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
}

#[test]
fn limits_outlive_the_host() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("counts", guests::counts(), &json!({ "max_body": 2_000 }));
    set(&host, &tenant, &json!({ "max_body": 1_000 }));
    host.kill_and_start_again();
    assert_eq!(find(&tenant.ask("/limits"), "max_body")["value"], 1_000);
    assert_eq!(tenant.post("/counts", &"x".repeat(1_000)).expect(200).text(), "1000");
    tenant.post("/counts", &"x".repeat(1_001)).expect_problem(413, "too_large");
}
