//! Components that know nothing of Hearth, made with the SDKs of Spin, over all that a function
//! keeps and is told; and every text of that in each of the two engines.
//!
//! What each text does is in `keyvalue`, `sql` and `config`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hearth_e2e::component;
use serde_json::{Value, json};

use crate::config::change;
use crate::guests;
use crate::host::{Host, Said, Tenant, upload};
use crate::http::Answer;

/// What is made for the tests and too large, or too late, to be in their program.
fn made(path: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(path);
    fs::read(&file)
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask test` makes it", file.display()))
}

/// A large one is compiled for long, on a busy machine for minutes; after that it is kept.
fn deploy(tenant: &Tenant, module: &[u8]) -> Value {
    let methods = ["DELETE", "GET", "HEAD", "POST", "PUT"];
    let options = json!({ "path": "prefix", "strip_prefix": true, "methods": methods }).to_string();
    let request = tenant.address().request("POST", "/$upload");
    let request = upload(request, &[("app.wasm", module)], Some(&options));
    let mut connection = tenant.open();
    connection.wait_for(Duration::from_secs(600)).unwrap();
    connection.call(&request.bearer(&tenant.token)).expect(200).json()
}

fn ask(tenant: &Tenant, method: &str, path: &str, body: &str) -> Answer {
    let address = tenant.address();
    address.send(&address.request(method, &format!("/app{path}")).body(body))
}

#[track_caller]
fn says(tenant: &Tenant, path: &str) -> String {
    ask(tenant, "GET", path, "").expect(200).text()
}

#[track_caller]
fn refuses(answer: Answer, part: &str) {
    let answer = answer.expect(400);
    assert!(answer.text().contains(part), "{part:?} is not in {}", answer.text());
}

/// The application of `functions/testing/spin` and `functions/testing/python`. What it keeps it
/// finds again, in a call after that, and so does whoever asks the host for it.
fn an_application_keeps_what_it_is_given(module: &[u8]) -> Value {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    let up = deploy(&tenant, module);

    for (key, value) in [("/fruit/apple", "red"), ("/fruit/pear", "grün"), ("/gone", "")] {
        ask(&tenant, "PUT", key, value).expect(204);
        assert_eq!(says(&tenant, key), value);
    }
    ask(&tenant, "HEAD", "/gone", "").expect(200);
    ask(&tenant, "DELETE", "/gone", "").expect(204);
    for method in ["GET", "HEAD"] {
        ask(&tenant, method, "/gone", "").expect(404);
    }
    assert_eq!(says(&tenant, "/"), "/fruit/apple\n/fruit/pear\n");
    let long = format!("/{}", "k".repeat(1_024));
    refuses(ask(&tenant, "PUT", &long, "x"), "the key has more than 1024 bytes");

    for (number, text) in [(1, "milk"), (2, "honey"), (3, "half & half")] {
        let added = ask(&tenant, "POST", "/notes", text).expect(200).text();
        assert_eq!(added, format!("{number} {number} 1"));
    }
    refuses(ask(&tenant, "POST", "/notes", "milk"), "UNIQUE constraint failed: notes.text");
    assert_eq!(says(&tenant, "/notes?2"), "2 honey\n3 half & half\n");

    change(&host, &tenant, "config", &json!({ "region": "eu" })).expect(200);
    change(&host, &tenant, "secrets", &json!({ "api_key": "hunter2-hunter2" })).expect(200);
    assert_eq!(says(&tenant, "/settings/region"), "eu");
    assert_eq!(says(&tenant, "/settings/api_key"), "hunter2-hunter2");
    refuses(ask(&tenant, "GET", "/settings/none", ""), "ndefined");
    refuses(ask(&tenant, "GET", "/settings/a!b", ""), "nvalid");

    let redis = "spin:redis/redis@3.0.0";
    let failed = ask(&tenant, "GET", "/elsewhere", "").expect_problem(500, "function_trapped");
    failed.expect_detail(redis);

    shows(&host, &tenant);
    host.kill_and_start_again();
    let tenant = tenant.on(&host);
    assert_eq!(says(&tenant, "/notes?3"), "3 half & half\n");
    assert_eq!(says(&tenant, "/fruit/pear"), "grün");
    assert_eq!(says(&tenant, "/settings/api_key"), "hunter2-hunter2");

    let unavailable = up["functions"][0]["unavailable"].clone();
    assert!(unavailable.as_array().unwrap().contains(&json!(redis)), "{up}");
    unavailable
}

/// What the application keeps is there for `hearth kv` and `hearth sql`, which can change it.
fn shows(host: &Host, tenant: &Tenant) {
    let hearth = |arguments: &[&str]| -> Said { host.command(&tenant.token, arguments) };
    assert_eq!(hearth(&["kv", "list"]).done(), "STORE\ndefault\n");
    assert_eq!(hearth(&["kv", "list", "default"]).done(), "/fruit/apple\n/fruit/pear\n");
    assert_eq!(hearth(&["kv", "get", "default", "/fruit/pear"]).done(), "grün");
    assert_eq!(hearth(&["sql"]).done(), "DATABASE\ndefault\n");
    let statement = "SELECT id, text FROM notes WHERE id < ?";
    let table = hearth(&["sql", "default", statement, "-p", "3"]).done();
    assert_eq!(table, "id  text\n1   milk\n2   honey\n");

    hearth(&["kv", "set", "default", "/fruit/apple", "green"]).done();
    assert_eq!(says(tenant, "/fruit/apple"), "green");
    hearth(&["sql", "default", "UPDATE notes SET text = 'tea' WHERE id = 1"]).done();
    assert_eq!(says(tenant, "/notes"), "1 tea\n2 honey\n3 half & half\n");
}

#[test]
fn an_application_of_spins_sdk_for_rust_keeps_what_it_is_given() {
    let module = made("wasm32-wasip2/release/testing_spin.wasm");
    let unavailable = an_application_keeps_what_it_is_given(&module);
    assert_eq!(unavailable, json!(["spin:redis/redis@3.0.0"]));
}

/// Its component imports 96 interfaces, whether it calls them or not.
#[test]
fn an_application_of_spins_sdk_for_python_keeps_what_it_is_given() {
    let unavailable = an_application_keeps_what_it_is_given(&made("python/spin_app.wasm"));
    let names: Vec<&str> =
        unavailable.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let served = ["key-value", "sqlite", "variables", "types@", "rdbms-types"];
    for name in &names {
        let is_elsewhere = name.starts_with("spin:") || name.starts_with("fermyon:spin/");
        assert!(is_elsewhere || name.ends_with("@0.3.0-rc-2026-03-15"), "{name}");
        assert!(!is_elsewhere || !served.iter().any(|part| name.contains(part)), "{name}");
    }
    for name in ["fermyon:spin/llm@2.0.0", "spin:mqtt/mqtt@3.0.0", "spin:postgres/postgres@4.2.0"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
}

/// In which one a component runs says nothing of what it keeps.
#[test]
fn every_text_is_served_in_both_engines() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    change(&host, &tenant, "config", &json!({ "region": "eu" })).expect(200);
    let engines = |module: &[u8]| [module.to_vec(), component::concurrent(module)];
    for (text, module) in [
        ("draft", guests::stores_draft()),
        ("draft2", guests::stores_draft2()),
        ("standard", guests::stores_standard()),
        ("spin2", guests::stores_spin2()),
        ("spin3", guests::stores_spin3()),
    ] {
        for (at, module) in engines(module).iter().enumerate() {
            tenant.deploy("text", module);
            let call = format!("/text?{text},set,k,v{at};{text},get,k;{text},keys");
            assert_eq!(
                tenant.post(&call, "").expect(200).text(),
                format!("set\nv{at}\nk"),
                "{text}"
            );
        }
    }
    for (text, module) in [("two", guests::sql_spin_two()), ("three", guests::sql_spin_three())] {
        for module in engines(module) {
            tenant.deploy("text", &module);
            let lines = "CREATE TABLE IF NOT EXISTS t (a)\nINSERT INTO t VALUES (1) RETURNING a";
            let call = format!("/text?database={text}");
            let rows = tenant.post(&call, lines).expect(200).json();
            assert_eq!(rows[1]["rows"], json!([[1]]), "{text}: {rows}");
        }
        let count = ["sql", text, "SELECT count(*) AS n FROM t"];
        assert_eq!(host.command(&tenant.token, &count).done(), "n\n2\n");
    }
    for module in engines(guests::sql_batches()) {
        tenant.deploy("text", &module);
        let done = tenant.post("/text?database=two", "1|INSERT INTO t VALUES (2)").expect(200);
        assert_eq!(done.json()[0]["changes"], 1, "{done:?}");
    }
    for module in engines(guests::reads_settings()) {
        tenant.deploy("text", &module);
        let found = tenant.post("/text?name=region", "").expect(200).json();
        for text in ["runtime", "draft", "draft-2024-09-27", "rc.1", "variables-2"] {
            assert_eq!(found[text], "eu", "{text}: {found}");
        }
    }
}
