//! What a tenant's functions keep, by the management API: who may, what is answered, and that it is
//! there while no function is served.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, Tenant};
use crate::http::{Answer, Request};
use crate::processes::{command_line, descendants, eventually, is_alive, kill_at_birth, signal};

#[track_caller]
fn of(tenant: &Tenant, host: &Host, method: &str, path: &str, body: &str) -> Answer {
    host.send(&tenant.api(method, path).body(body))
}

#[track_caller]
fn sql(tenant: &Tenant, host: &Host, statement: &str, parameters: &Value) -> Answer {
    let asked = json!({ "statement": statement, "parameters": parameters });
    host.send(&tenant.api("POST", "/sql/default").json(&asked))
}

#[test]
fn values_are_set_read_listed_and_removed() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let ask = |method: &str, path: &str, body: &str| of(&tenant, &host, method, path, body);
    assert_eq!(ask("GET", "/kv", "").expect(200).json(), json!({ "stores": [], "next": null }));
    ask("GET", "/kv/default", "").expect_problem(404, "not_found");
    for key in ["b", "a%2Fb", "a", "c", "%2E%2E"] {
        ask("PUT", &format!("/kv/default/{key}"), &format!("value of {key}")).expect(204);
    }
    let got = ask("GET", "/kv/default/a%2Fb", "").expect(200);
    assert_eq!(got.text(), "value of a%2Fb");
    assert_eq!(got.header("content-type"), Some("application/octet-stream"));
    assert_eq!(got.header("cache-control"), Some("no-store"));
    assert_eq!(got.header("x-hearth-expires"), None);
    assert_eq!(ask("GET", "/kv/default/%2E%2E", "").expect(200).text(), "value of %2E%2E");
    ask("GET", "/kv/default/nothing", "").expect_problem(404, "not_found");

    let stores = ask("GET", "/kv", "").expect(200).json();
    assert_eq!(stores, json!({ "stores": [{ "name": "default" }], "next": null }));
    let page = ask("GET", "/kv/default?limit=2", "").expect(200).json();
    assert_eq!(page, json!({ "keys": ["..", "a"], "next": "a" }));
    let page = ask("GET", "/kv/default?limit=2&after=a", "").expect(200).json();
    assert_eq!(page, json!({ "keys": ["a/b", "b"], "next": "b" }));
    let page = ask("GET", "/kv/default?after=b", "").expect(200).json();
    assert_eq!(page, json!({ "keys": ["c"], "next": null }));
    let page = ask("GET", "/kv/default?prefix=a", "").expect(200).json();
    assert_eq!(page, json!({ "keys": ["a", "a/b"], "next": null }));

    ask("DELETE", "/kv/default/a", "").expect(204);
    ask("DELETE", "/kv/default/a", "").expect(204);
    ask("GET", "/kv/default/a", "").expect_problem(404, "not_found");
    ask("DELETE", "/kv/default", "").expect(204);
    ask("GET", "/kv/default/b", "").expect_problem(404, "not_found");
    assert_eq!(ask("GET", "/kv", "").expect(200).json()["stores"], json!([]));
}

#[test]
fn an_entry_expires_at_its_instant() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let at = "2999-01-02T03:04:05.678Z";
    let ask = |method: &str, path: &str, body: &str| of(&tenant, &host, method, path, body);
    ask("PUT", &format!("/kv/default/a?expires_at={at}"), "1").expect(204);
    assert_eq!(ask("GET", "/kv/default/a", "").expect(200).header("x-hearth-expires"), Some(at));
    ask("PUT", "/kv/default/a?expires_at=2001-01-01T00:00:00Z", "2").expect(204);
    ask("GET", "/kv/default/a", "").expect_problem(404, "not_found");
    assert_eq!(ask("GET", "/kv/default", "").expect(200).json()["keys"], json!([]));
    ask("PUT", "/kv/default/a?expires_at=soon", "3").expect_problem(400, "bad_request");
}

#[test]
fn bounds_are_told_as_problems() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let ask = |method: &str, path: &str, body: &str| of(&tenant, &host, method, path, body);
    ask("PUT", "/kv/default/a", &"x".repeat(1 << 20)).expect(204);
    ask("PUT", "/kv/default/a", &"x".repeat((1 << 20) + 1)).expect_problem(413, "too_large");
    ask("PUT", &format!("/kv/default/{}", "k".repeat(1025)), "").expect_problem(413, "too_large");
    for path in ["/kv/a%20b", "/kv/default?limit=0", "/kv/default?limit=1001", "/kv?prefix=a"] {
        ask("GET", path, "").expect_problem(400, "bad_request");
    }
    sql(&tenant, &host, "selec 1", &json!([]))
        .expect_problem(400, "bad_request")
        .expect_detail("selec");
    sql(&tenant, &host, "select 1; select 2", &json!([])).expect_problem(400, "bad_request");
    sql(&tenant, &host, "select ?", &json!([])).expect_problem(400, "bad_request");
    sql(&tenant, &host, "select ?", &json!([[1]])).expect_problem(400, "bad_request");
    let refused = ask("GET", "/sql/nothing/export", "");
    refused.expect_problem(404, "not_found").expect_detail("nothing");
}

#[test]
fn statements_answer_rows_and_what_they_changed() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let sql = |statement: &str, parameters: Value| sql(&tenant, &host, statement, &parameters);
    sql("create table a (b integer primary key, c, d)", json!([])).expect(200);
    let inserted = sql(
        "insert into a (c, d) values (?, ?), (null, 1.5)",
        json!(["x\u{1b}", { "base64": "AP8=" }]),
    );
    let inserted = inserted.expect(200).json();
    assert_eq!((&inserted["changes"], &inserted["last_insert_rowid"]), (&json!(2), &json!(2)));
    let rows = sql("select * from a order by b", json!([])).expect(200).json();
    assert_eq!(rows["columns"], json!(["b", "c", "d"]));
    assert_eq!(rows["rows"], json!([[1, "x\u{1b}", { "base64": "AP8=" }], [2, null, 1.5]]));
    assert_eq!((&rows["changes"], &rows["truncated"]), (&json!(0), &json!(false)));
    let many = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n";
    let cut = sql(many, json!([])).expect(200).json();
    assert_eq!(cut["truncated"], true);
    let listed = tenant.ask("/sql");
    assert_eq!(listed, json!({ "databases": [{ "name": "default" }], "next": null }));
}

#[test]
fn an_import_is_carried_out_whole_or_not_at_all() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let ask = |method: &str, path: &str, body: &str| of(&tenant, &host, method, path, body);
    let script =
        "create table a (b);\ninsert into a values (1);\ninsert into a values ('it''s');\n";
    let done = ask("POST", "/sql/main/import", script).expect(200).json();
    assert_eq!(done["statements"], 3);
    let refused = ask("POST", "/sql/main/import", "insert into a values (2);\n\nnonsense;\n");
    refused.expect_problem(400, "bad_request").expect_detail("line 3");
    let text = ask("GET", "/sql/main/export", "").expect(200);
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    let text = text.text();
    assert!(text.contains("'it''s'") && !text.contains("VALUES(2)"), "{text}");
    assert!(text.ends_with("COMMIT;\n"), "{text}");
    // What is written out is read in again.
    ask("POST", "/sql/copy/import", &text).expect(200);
    assert_eq!(ask("GET", "/sql/copy/export", "").expect(200).text(), text);
}

#[test]
fn it_is_the_owners_and_nobody_elses() {
    let host = Host::start();
    let (tenant, other) = (host.tenant("demo"), host.tenant("other"));
    of(&tenant, &host, "PUT", "/kv/default/a", "demo's").expect(204);
    of(&other, &host, "PUT", "/kv/default/a", "other's").expect(204);
    assert_eq!(of(&tenant, &host, "GET", "/kv/default/a", "").expect(200).text(), "demo's");
    let target = "/api/v1/tenants/demo/kv/default/a";
    for scope in ["deploy", "invoke", "report"] {
        let token = tenant.token(scope);
        host.send(&Request::new("GET", target).bearer(&token)).expect_problem(403, "forbidden");
    }
    host.send(&Request::new("GET", target).bearer(&other.token)).expect_problem(403, "forbidden");
    host.send(&Request::new("GET", target)).expect_problem(401, "unauthenticated");
    let admin = host.send(&Request::new("GET", target).bearer(ADMIN_TOKEN)).expect(200);
    assert_eq!(admin.text(), "demo's");
    // At the tenant's own addresses there is nothing of it, whoever asks.
    for address in tenant.addresses() {
        for path in ["/$kv", "/$sql"] {
            let request = address.request("GET", path).bearer(&tenant.token);
            address.send(&request).expect_problem(404, "not_found");
        }
        let unknown = address.get("/$nothing/default/a");
        for path in ["/$kv/default/a", "/$sql/default/export"] {
            let request = address.request("GET", path).bearer(&tenant.token);
            assert_eq!(address.send(&request).status, unknown.status, "{}: {path}", address.name);
        }
    }
}

/// What a worker with all its functions cannot be asked, one without any answers.
#[test]
fn what_a_barred_tenant_keeps_is_read_and_mended() {
    // A worker that was a spare child has its start behind it.
    let host = Host::with(&["--spares", "0"]);
    let tenant = host.tenant("sick");
    tenant.deploy("one", guests::version_one());
    of(&tenant, &host, "PUT", "/kv/default/poison", "x").expect(204);
    let killer = kill_at_birth(host.zygote().unwrap());
    signal(host.workers(&tenant)[0], Signal::SIGKILL);
    eventually("a pause", || {
        let call = tenant.address().request("POST", "/one");
        let refused = call.try_send(tenant.address().to).ok().filter(|it| it.status == 503)?;
        let wait: u64 = refused.header("retry-after")?.parse().ok()?;
        (wait >= 8).then_some(())
    });
    killer.stop();
    let state = tenant.state();
    assert!(matches!(&*state, "backoff" | "barred"), "{state}");
    let worker = tenant.ask("/worker");
    assert_eq!(of(&tenant, &host, "GET", "/kv/default/poison", "").expect(200).text(), "x");
    of(&tenant, &host, "DELETE", "/kv/default/poison", "").expect(204);
    sql(&tenant, &host, "select 1", &json!([])).expect(200);
    // That is nothing to the tenant's callers, and one answers for all of it.
    assert_eq!(tenant.ask("/worker")["state"], worker["state"]);
    let zygote = host.zygote();
    let others = descendants(host.pid()).into_iter().filter(|pid| Some(*pid) != zygote);
    let keepers: Vec<_> =
        others.filter(|pid| command_line(*pid).contains("hearth-worker")).collect();
    assert_eq!(keepers.len(), 1, "{keepers:?}");
    // With the functions, it is theirs again.
    host.send(&tenant.api("POST", "/worker/start")).expect(200);
    tenant.post("/one", "").expect(200);
    of(&tenant, &host, "GET", "/kv/default/poison", "").expect_problem(404, "not_found");
    host.send(&host.admin("DELETE", "/tenants/sick")).expect(204);
    eventually("its end", || (!is_alive(keepers[0])).then_some(()));
}
