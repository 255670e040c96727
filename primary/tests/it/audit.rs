//! Who changed what: one row for each change, none for what was refused, and each tenant's rows for
//! its owner alone. That rows and changes are in step wherever the host dies is in `durability`.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::builds::{earlier, of_an_earlier_build};
use crate::durability::stage::sha256;
use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, Tenant, run, upload};
use crate::http::{Answer, Request};

#[track_caller]
fn asked(host: &Host, token: &str, query: &str) -> Answer {
    host.send(&Request::new("GET", &format!("/api/v1/audit{query}")).bearer(token))
}

#[track_caller]
fn entries(host: &Host, token: &str, query: &str) -> Vec<Value> {
    asked(host, token, query).expect(200).json()["entries"].as_array().unwrap().clone()
}

/// All that the host's admin sees.
#[track_caller]
fn all(host: &Host) -> Vec<Value> {
    entries(host, ADMIN_TOKEN, "?limit=1000")
}

fn actions(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect()
}

/// A way to change something: the operation's name, how it is asked for by whom, and what is told.
struct Way {
    operation: &'static str,
    request: Request,
    token: String,
    action: &'static str,
    tenant: Option<&'static str>,
    object: Option<String>,
}

/// Each way that the API has, one after the other, each of which needs those before it.
fn next_way(host: &Host, demo: &Tenant, done: &BTreeSet<&str>) -> Option<Way> {
    let owner = |operation, method, path: &str, action| Way {
        operation,
        request: Request::new(method, &format!("/api/v1/tenants/demo{path}")),
        token: demo.token.clone(),
        action,
        tenant: Some("demo"),
        object: None,
    };
    let admin = |operation, method, path: &str, action, tenant| Way {
        operation,
        request: Request::new(method, &format!("/api/v1{path}")),
        token: ADMIN_TOKEN.to_owned(),
        action,
        tenant,
        object: None,
    };
    let file = |name| [(name, guests::version_two())];
    let ci = |of: &str, token: &str| {
        let listed = host.send(&Request::new("GET", of).bearer(token)).expect(200).json();
        let id = |token: &Value| (token["name"] == "ci").then(|| token["id"].to_string());
        listed["tokens"].as_array().unwrap().iter().find_map(id)
    };
    let function = |way: Way| Way { object: Some("/one".to_owned()), ..way };
    let setting = |way: Way, object: &str| Way { object: Some(object.to_owned()), ..way };
    let kept = |way: Way| Way { object: Some("default".to_owned()), ..way };
    let steps: [&dyn Fn() -> Way; 23] = [
        &|| {
            let way = owner("upload", "POST", "/functions", "function.upload");
            function(Way { request: upload(way.request, &file("one.wasm"), None), ..way })
        },
        &|| {
            let way = owner("set_options", "PATCH", "/functions/one", "function.options");
            let options = json!({ "options": { "timeout_ms": 1_234 } });
            function(Way { request: way.request.json(&options), ..way })
        },
        &|| function(owner("rollback", "POST", "/functions/one/rollback", "function.rollback")),
        &|| {
            let page = demo.ask("/generations");
            let one_before = page["generations"][1]["generation"].clone();
            let way = owner("return_to_generation", "POST", "/rollback", "function.rollback");
            let request = way.request.json(&json!({ "generation": one_before }));
            Way { request, ..way }
        },
        &|| function(owner("remove_function", "DELETE", "/functions/one", "function.remove")),
        &|| {
            let way = owner("create_token", "POST", "/tokens", "token.create");
            let new = json!({ "name": "ci", "scope": "deploy" });
            Way { request: way.request.json(&new), ..way }
        },
        &|| {
            let id = ci("/api/v1/tenants/demo/tokens", &demo.token).unwrap_or("0".to_owned());
            let way = owner("delete_token", "DELETE", &format!("/tokens/{id}"), "token.delete");
            Way { object: Some(id), ..way }
        },
        &|| {
            let way = owner("set_config", "PATCH", "/config", "tenant.config");
            let config = json!({ "config": { "region": "eu" } });
            setting(Way { request: way.request.json(&config), ..way }, "region")
        },
        &|| {
            let way = owner("set_secrets", "PATCH", "/secrets", "tenant.secrets");
            let secrets = json!({ "secrets": { "KEY": "hunter2-hunter2" } });
            setting(Way { request: way.request.json(&secrets), ..way }, "KEY")
        },
        &|| admin("rekey_secrets", "POST", "/secrets/rekey", "host.rekey", None),
        &|| {
            let way = owner("set_key", "PUT", "/kv/default/a", "kv.set");
            kept(Way { request: way.request.body("secret"), ..way })
        },
        &|| kept(owner("remove_key", "DELETE", "/kv/default/a", "kv.remove")),
        &|| kept(owner("remove_store", "DELETE", "/kv/default", "kv.remove_store")),
        &|| {
            let way = owner("execute_sql", "POST", "/sql/default", "sql.execute");
            let asked = json!({ "statement": "create table if not exists a (b)" });
            kept(Way { request: way.request.json(&asked), ..way })
        },
        &|| {
            let way = owner("import_sql", "POST", "/sql/default/import", "sql.import");
            kept(Way { request: way.request.body("insert into a values (1);"), ..way })
        },
        &|| owner("start_worker", "POST", "/worker/start", "worker.start"),
        &|| owner("restart_worker", "POST", "/worker/restart", "worker.restart"),
        &|| owner("stop_worker", "POST", "/worker/stop", "worker.stop"),
        &|| {
            let path = "/tenants/demo/limits";
            let way = admin("set_limits", "PATCH", path, "tenant.limits", Some("demo"));
            let limits = json!({ "limits": { "functions": 7 } });
            Way { request: way.request.json(&limits), ..way }
        },
        &|| {
            let way = admin("create_admin_token", "POST", "/tokens", "token.create", None);
            let new = json!({ "name": "ci", "scope": "admin" });
            Way { request: way.request.json(&new), ..way }
        },
        &|| {
            let id = ci("/api/v1/tokens", ADMIN_TOKEN).unwrap_or("0".to_owned());
            let path = format!("/tokens/{id}");
            let way = admin("delete_admin_token", "DELETE", &path, "token.delete", None);
            Way { object: Some(id), ..way }
        },
        &|| {
            let way = admin("create_tenant", "POST", "/tenants", "tenant.create", Some("new"));
            Way { request: way.request.json(&json!({ "name": "new" })), ..way }
        },
        &|| admin("delete_tenant", "DELETE", "/tenants/new", "tenant.delete", Some("new")),
    ];
    steps.iter().map(|step| step()).find(|way| !done.contains(way.operation))
}

/// The operations of the API that change something, as its document has them.
fn changing(host: &Host) -> BTreeSet<String> {
    let document = host.send(&Request::new("GET", "/api/openapi.json")).expect(200).json();
    let mut changing = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for (method, operation) in item.as_object().unwrap() {
            if method != "get"
                && let Some(name) = operation["operationId"].as_str()
            {
                changing.insert(name.to_owned());
            }
        }
    }
    changing
}

#[test]
fn every_change_by_api_leaves_one_row_and_a_refused_one_none() {
    let host = Host::start();
    let demo = host.tenant("demo");
    demo.deploy("one", guests::version_one());
    let other = host.tenant("other");
    let mut secrets = vec![ADMIN_TOKEN.to_owned(), demo.token.clone(), other.token.clone()];
    secrets.push("hunter2-hunter2".to_owned());
    let mut done = BTreeSet::new();
    while let Some(way) = next_way(&host, &demo, &done) {
        let Way { operation, request, token, action, tenant, object } = way;
        let before = all(&host);
        // Nobody, somebody who may not, and another's owner.
        let invoke = demo.token("invoke");
        for (refused, code) in [
            (request.clone(), "unauthenticated"),
            (request.clone().bearer("hearth_nobody-has-this"), "unauthenticated"),
            (request.clone().bearer(&invoke), "forbidden"),
            (request.clone().bearer(&other.token), "forbidden"),
        ] {
            let status = if code == "forbidden" { 403 } else { 401 };
            host.send(&refused).expect_problem(status, code);
        }
        let made = all(&host);
        assert_eq!(actions(&made[before.len()..]), ["token.create"], "{operation}: the one to try");

        let id = format!("{operation}-1");
        let request = request.bearer(&token).header("x-request-id", &id);
        let answer = host.send(&request);
        assert!(answer.status < 300, "{operation}: {} {}", answer.status, answer.text());
        if answer.text().contains("token") {
            let token = answer.json()["token"].as_str().map(str::to_owned);
            secrets.extend(token);
        }
        let after = all(&host);
        assert_eq!(after.len(), made.len() + 1, "{operation}: {:?}", &after[made.len()..]);
        assert_eq!(after[..made.len()], made, "{operation}");
        let row = after.last().unwrap();
        assert_eq!(row["action"], action, "{operation}");
        assert_eq!(row["request_id"], id, "{operation}");
        assert_eq!(row["tenant"], json!(tenant), "{operation}");
        assert_eq!(row["actor"]["kind"], "token", "{row}");
        let name = if token == ADMIN_TOKEN { "configured" } else { "owner" };
        assert_eq!(row["actor"]["name"], name, "{row}");
        match object {
            Some(object) => assert_eq!(row["object"], object, "{operation}"),
            None if action == "token.create" => {
                assert_eq!(row["object"], answer.json()["id"].to_string(), "{operation}");
            }
            None => assert_eq!(row["object"], Value::Null, "{operation}"),
        }
        // What cannot be done a second time is not done, and what changes nothing is no change.
        let again = host.send(&request);
        let now = all(&host);
        match operation {
            "create_token" | "create_admin_token" | "rollback" | "set_secrets"
            | "rekey_secrets" | "start_worker" | "restart_worker" | "stop_worker" | "set_key"
            | "remove_key" | "execute_sql" | "import_sql" => {}
            "upload" | "set_options" | "return_to_generation" | "set_limits" | "set_config" => {
                assert!(again.status < 300, "{operation}: {}", again.text());
                assert_eq!(now.len(), after.len(), "{operation}");
            }
            _ => {
                assert!(again.status >= 400, "{operation}: {}", again.text());
                assert_eq!(now.len(), after.len(), "{operation}");
            }
        }
        done.insert(operation);
    }
    let mut expected = changing(&host);
    // What calls a function changes nothing; a restore has a test of its own.
    for apart in ["invoke", "restore"] {
        assert!(expected.remove(apart), "{apart}");
    }
    assert_eq!(done, expected.iter().map(String::as_str).collect());

    let told = Value::from(all(&host)).to_string();
    for secret in secrets {
        assert!(!told.contains(&secret), "{secret}");
        assert!(!told.contains(&sha256(secret.as_bytes())), "the digest of {secret}");
    }
}

#[test]
fn an_upload_is_told_of_whatever_address_it_came_to() {
    let host = Host::start();
    let demo = host.tenant("demo");
    let deploy = demo.token("deploy");
    for (number, address) in (1..).zip(demo.addresses()) {
        let before = all(&host);
        let file = [("one.wasm", [guests::version_one(), guests::version_two()][number % 2])];
        let id = format!("upload-{number}");
        let request = address.request("POST", "/$upload").header("x-request-id", &id);
        let broken = [("one.wasm", guests::core_module())];
        for (refused, code) in [
            (upload(request.clone(), &file, None), "unauthenticated"),
            (upload(request.clone(), &file, None).bearer(&demo.token("invoke")), "forbidden"),
            (upload(request.clone(), &broken, None).bearer(&deploy), "invalid_module"),
            (upload(request.clone(), &file, Some("{")).bearer(&deploy), "bad_request"),
        ] {
            let answer = address.send(&refused);
            assert_eq!(answer.json()["code"], code, "{}: {}", address.name, answer.text());
        }
        let sent = upload(request, &file, None).bearer(&deploy);
        let generation = address.send(&sent).expect(200).json()["generation"].clone();
        // The same once more is no change.
        assert_eq!(address.send(&sent).expect(200).json()["functions"][0]["unchanged"], true);
        let after = all(&host);
        let new = &after[before.len()..];
        assert_eq!(actions(new), ["token.create", "function.upload"], "{}", address.name);
        let row = &new[1];
        assert_eq!((&row["request_id"], &row["object"]), (&json!(id), &json!("/one")), "{row}");
        assert_eq!(row["actor"]["name"], "deploy", "{row}");
        assert_eq!(row["after"]["generation"], generation, "{row}");
        assert_eq!(row["after"]["functions"]["/one"]["version"], number, "{row}");
    }
    // Several files at once are one change.
    let files = [("two.wasm", guests::version_one()), ("three.wasm", guests::version_two())];
    demo.upload(&files, None).expect(200);
    let row = all(&host).pop().unwrap();
    assert_eq!((&row["action"], &row["object"]), (&json!("function.upload"), &Value::Null));
    assert_eq!(
        row["after"]["functions"],
        json!({
            "/two": { "version": 1, "auth": "public" },
            "/three": { "version": 1, "auth": "public" },
        })
    );
}

#[test]
fn row_31_an_owner_sees_what_was_changed_of_its_tenant_and_nothing_else() {
    let host = Host::start();
    let (demo, other) = (host.tenant("demo"), host.tenant("other"));
    demo.deploy("one", guests::version_one());
    other.deploy("two", guests::version_one());
    let limits = json!({ "limits": { "functions": 9 } });
    host.send(&host.admin("PATCH", "/tenants/demo/limits").json(&limits)).expect(200);

    let own = entries(&host, &demo.token, "");
    assert_eq!(actions(&own), ["tenant.create", "function.upload", "tenant.limits"]);
    assert!(own.iter().all(|entry| entry["tenant"] == "demo"), "{own:?}");
    assert_eq!(entries(&host, &demo.token, "?tenant=demo"), own);
    assert_eq!(entries(&host, ADMIN_TOKEN, "?tenant=demo"), own);
    // Neither whether there is such a tenant nor what it did.
    let refused = ["?tenant=other", "?tenant=nobody"].map(|query| {
        let refused = asked(&host, &demo.token, query).expect_problem(403, "forbidden");
        refused.json()["detail"].clone()
    });
    assert_eq!(refused[0], refused[1]);
    for scope in ["deploy", "invoke", "report"] {
        asked(&host, &demo.token(scope), "").expect_problem(403, "forbidden");
    }
    host.send(&Request::new("GET", "/api/v1/audit")).expect_problem(401, "unauthenticated");
    let seen = entries(&host, &other.token, "?limit=1000");
    assert_eq!(actions(&seen), ["tenant.create", "function.upload"]);

    // Who has its name next sees nothing of it; the admin sees all there ever was.
    host.send(&host.admin("DELETE", "/tenants/demo")).expect(204);
    let heir = host.tenant("demo");
    assert_eq!(actions(&entries(&host, &heir.token, "")), ["tenant.create"]);
    let past = entries(&host, ADMIN_TOKEN, "?tenant=demo");
    assert_eq!(past[..own.len()], own);
    let ends = past.iter().filter(|entry| entry["action"] == "tenant.delete").count();
    assert_eq!((ends, actions(&past).last()), (1, Some(&"tenant.create")));
    let everybodys = all(&host);
    assert!(past.iter().all(|entry| everybodys.contains(entry)));
}

#[test]
fn changes_come_in_pages_and_by_kind() {
    let host = Host::start();
    let demo = host.tenant("demo");
    for name in ["a", "b", "c"] {
        demo.deploy(name, guests::version_one());
    }
    let mut pages: Vec<Value> = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = asked(&host, &demo.token, &query).expect(200).json();
        let older = page["entries"].as_array().unwrap().clone();
        assert!(older.len() <= 2, "{page}");
        pages.splice(0..0, older);
        match &page["next"] {
            Value::Null => break,
            next => query = format!("?limit=2&before={next}"),
        }
    }
    assert_eq!(pages, entries(&host, &demo.token, ""));
    assert_eq!(pages.len(), 4);
    let uploads = entries(&host, &demo.token, "?action=function.upload");
    assert_eq!(uploads, pages[1..]);
    assert_eq!(entries(&host, ADMIN_TOKEN, "?action=function.upload&tenant=demo"), uploads);
    for query in ["?limit=0", "?limit=1001", "?action=sing", "?before=x", "?tenants=demo"] {
        asked(&host, ADMIN_TOKEN, query).expect_problem(400, "bad_request");
    }
}

#[test]
fn who_it_was_is_told_when_the_token_is_gone_and_its_name_is_anothers() {
    let host = Host::start();
    let demo = host.tenant("demo");
    let ci = || {
        let new = json!({ "name": "ci", "scope": "deploy" });
        let made = host.send(&demo.api("POST", "/tokens").json(&new)).expect(201).json();
        (made["id"].clone(), made["token"].as_str().unwrap().to_owned())
    };
    let deploys = |token: &str, module| {
        let file = [("one.wasm", module)];
        let request = upload(demo.address().request("POST", "/$upload"), &file, None);
        demo.address().send(&request.bearer(token)).expect(200);
    };
    let (first, second) = (ci(), ci());
    deploys(&first.1, guests::version_one());
    deploys(&second.1, guests::version_two());
    let delete = |id: &Value| {
        host.send(&demo.api("DELETE", &format!("/tokens/{id}"))).expect(204);
    };
    delete(&first.0);
    delete(&second.0);
    let third = ci();
    deploys(&third.1, guests::version_one());
    let uploads = entries(&host, &demo.token, "?action=function.upload");
    let actors: Vec<_> = uploads.iter().map(|entry| entry["actor"].clone()).collect();
    let expected =
        [first.0, second.0, third.0].map(|id| json!({ "kind": "token", "id": id, "name": "ci" }));
    assert_eq!(actors, expected);
}

#[test]
fn what_the_host_does_of_itself_is_told_as_its_own() {
    let mut host = Host::start();
    let first = all(&host);
    assert_eq!(actions(&first), ["tenant.create", "token.adopt"]);
    for entry in &first {
        assert_eq!(entry["actor"], json!({ "kind": "host", "id": null, "name": "hearth" }));
        assert_eq!(entry["request_id"], Value::Null);
    }
    assert_eq!(first[0]["tenant"], "home");
    // A start that changes nothing tells nothing.
    host.kill_and_start_again();
    assert_eq!(all(&host), first);
}

#[test]
fn a_worker_that_cannot_be_started_is_not_told_of_as_started() {
    let mut host = Host::start();
    let demo = host.tenant("demo");
    host.kill_and_wait();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, demo.port)).unwrap();
    host.start_again();
    let before = all(&host);
    for verb in ["start", "restart"] {
        let refused = host.send(&demo.api("POST", &format!("/worker/{verb}")));
        assert!(refused.status >= 500 || verb == "restart", "{verb}: {}", refused.text());
        let told = all(&host).len() - before.len();
        assert_eq!(told, usize::from(refused.status < 300), "{verb}: {}", refused.text());
    }
    let before = all(&host);
    drop(taken);
    host.send(&demo.api("POST", "/worker/start")).expect(200);
    assert_eq!(actions(&all(&host)[before.len()..]), ["worker.start"]);
    demo.post("/hello", "{}").expect(200);
}

#[test]
fn a_restore_is_told_of_and_brings_its_history_where_it_brings_all() {
    let mut host = Host::start();
    let demo = host.tenant("demo");
    demo.deploy("one", guests::version_one());
    let gone = host.tenant("gone");
    host.send(&host.admin("DELETE", "/tenants/gone")).expect(204);
    let history = all(&host);
    let file = host.scratch().join("hearth.tar.zst");
    let file = file.to_str().unwrap();
    host.command(ADMIN_TOKEN, &["backup", file]).done();
    assert_eq!(all(&host), history, "a backup changes nothing");

    // Into the host that serves: what is there stays as it is, and is not told of.
    let there = host.command(ADMIN_TOKEN, &["restore", file, "--tenant", "demo"]).failed(1);
    assert!(there.contains("demo"), "{there}");
    host.command(&demo.token, &["restore", file]).failed(1);
    host.command(ADMIN_TOKEN, &["restore", file]).done();
    assert_eq!(all(&host), history);
    host.send(&host.admin("DELETE", "/tenants/demo")).expect(204);
    let before = all(&host);
    host.command(ADMIN_TOKEN, &["restore", file, "--tenant", "demo"]).done();
    let after = all(&host);
    assert_eq!(actions(&after[before.len()..]), ["tenant.restore"]);
    let row = after.last().unwrap();
    assert_eq!((&row["tenant"], &row["actor"]["kind"]), (&json!("demo"), &json!("token")));
    assert_eq!(row["after"]["generation"], 2, "{row}");
    // Its tokens have other ids here, so that what they did there is not told here.
    assert_eq!(actions(&entries(&host, &demo.token, "")), ["tenant.restore"]);

    // Onto an empty directory: with all that was told then, and that it was restored.
    host.kill_and_wait();
    let place = tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap();
    let data = place.path().join("data");
    run(place.path(), &["restore", file, "--data", data.to_str().unwrap()]).done();
    let again = Host::on(place, &host);
    let told = all(&again);
    assert_eq!(told[..history.len()], history);
    assert_eq!(actions(&told[history.len()..]), ["host.restore"]);
    let row = told.last().unwrap();
    assert_eq!(row["actor"]["kind"], "command_line", "{row}");
    assert_eq!(row["after"]["tenants"], 2, "{row}");
    let own = entries(&again, &demo.token, "");
    assert_eq!(actions(&own), ["tenant.create", "function.upload"]);
    asked(&again, &gone.token, "").expect_problem(401, "unauthenticated");
    // The next token is nobody's that was told of before.
    let known = history.iter().filter_map(|entry| entry["after"]["owner_token"].as_i64()).max();
    demo.on(&again).token("invoke");
    let made = all(&again).pop().unwrap();
    let id: i64 = made["object"].as_str().unwrap().parse().unwrap();
    assert!(Some(id) > known, "{made}");
}

#[test]
fn a_data_directory_from_before_is_taken_on() {
    let directory = of_an_earlier_build();
    let store = Connection::open(directory.path().join("data/hearth.db")).unwrap();
    // Before anything was told.
    store.execute_batch("DROP TABLE audit; PRAGMA user_version = 4;").unwrap();
    store.close().unwrap();
    let mut like = Host::start();
    like.kill_and_wait();
    let host = Host::on(directory, &like);
    // This host has another admin's token.
    assert_eq!(actions(&all(&host)), ["token.adopt"]);
    let crowded = earlier(&host, "crowded");
    assert_eq!(crowded.post("/one", "").expect(200).text(), "version one");
    crowded.deploy("one", guests::version_two());
    let told = entries(&host, &crowded.token, "");
    assert_eq!(actions(&told), ["token.create", "function.upload"]);
    assert_eq!(told[1]["before"]["functions"]["/one"]["version"], 1);
}

#[test]
fn the_command_line_shows_it() {
    let host = Host::start();
    let demo = host.tenant("demo");
    demo.deploy("one", guests::version_one());
    let said = host.command(&demo.token, &["audit"]).done();
    let line = said.lines().find(|line| line.contains("function.upload")).unwrap();
    for part in ["demo", "/one", "owner (token", "functions /one version - → 1"] {
        assert!(line.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("home"), "{said}");
    let said = host.command(ADMIN_TOKEN, &["audit", "--action", "token.adopt"]).done();
    assert!(said.contains("the host") && !said.contains("/one"), "{said}");
    let said = host.command(ADMIN_TOKEN, &["audit", "-n", "1"]).done();
    let before = said.lines().last().unwrap().strip_prefix("Older ones: hearth audit --before ");
    let older = ["audit", "-n", "1", "--before", before.unwrap()];
    assert!(host.command(ADMIN_TOKEN, &older).done().contains("tenant.create"));
    let json = host.command(ADMIN_TOKEN, &["audit", "--json", "--tenant", "demo"]).json();
    assert_eq!(json["entries"][1]["object"], "/one", "{json}");
    let refused = host.command(ADMIN_TOKEN, &["audit", "--action", "sing"]).failed(1);
    assert!(refused.contains("unknown action `sing`; known actions: "), "{refused}");
    let none = host.command(&demo.token, &["audit", "--action", "tenant.port"]).done();
    assert!(none.contains("no change"), "{none}");
}
