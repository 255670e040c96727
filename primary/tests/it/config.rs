//! Configuration, which a tenant's functions read by name: set, removed and listed by its owner, and
//! in force once that is answered. What is particular to secrets is in `secrets`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, Tenant};
use crate::http::{Answer, Request};
use crate::processes::Beside;

#[track_caller]
pub fn change(host: &Host, tenant: &Tenant, kind: &str, changes: &Value) -> Answer {
    let request = tenant.api("PATCH", &format!("/{kind}")).json(&json!({ kind: changes }));
    host.send(&request)
}

/// What a function finds under this name, whichever text it asks by.
#[track_caller]
pub fn read(tenant: &Tenant, name: &str) -> Value {
    let found = tenant.post(&format!("/reads?name={name}"), "").expect(200).json();
    for text in ["runtime", "draft", "draft-2024-09-27"] {
        assert_eq!(found[text], found["rc.1"], "{text}");
    }
    found["rc.1"].clone()
}

pub fn reader(host: &Host, name: &str) -> Tenant {
    let tenant = host.tenant(name);
    tenant.deploy("reads", guests::reads_settings());
    tenant
}

/// Row 44 of the checklist.
#[test]
fn row_44_what_is_set_is_read_from_the_answer_on() {
    let mut host = Host::start();
    let tenant = reader(&host, "demo");
    assert_eq!(read(&tenant, "region"), Value::Null);
    for value in ["eu", "us", "", "pässwört\n\t\u{1}"] {
        let changed = change(&host, &tenant, "config", &json!({ "region": value })).expect(200);
        let said = json!({ "set": ["region"], "removed": [], "unserved": null });
        assert_eq!(changed.json(), said);
        for address in tenant.addresses() {
            let found = address.post("/reads?name=region", "").expect(200).json();
            assert_eq!(found["rc.1"], value, "{}", address.name);
            assert_eq!(found["variables-2"], value, "{}", address.name);
        }
    }
    // What is so already changes nothing, and what is removed is not there.
    let same = change(&host, &tenant, "config", &json!({ "region": "pässwört\n\t\u{1}" }));
    assert_eq!(same.expect(200).json()["set"], json!([]));
    let two = json!({ "region": null, "zone": "1" });
    let changed = change(&host, &tenant, "config", &two).expect(200).json();
    assert_eq!(changed, json!({ "set": ["zone"], "removed": ["region"], "unserved": null }));
    assert_eq!((read(&tenant, "region"), read(&tenant, "zone")), (Value::Null, json!("1")));
    // Nobody loses it.
    host.kill_and_start_again();
    assert_eq!(read(&tenant, "zone"), "1");
    let all = tenant.post("/reads?all=1", "").expect(200).json();
    assert_eq!(all["rc.1"], json!([["zone", "1"]]));
}

#[test]
fn every_interface_that_asks_is_told_the_same() {
    let host = Host::start();
    let tenant = reader(&host, "demo");
    tenant.deploy("spin", guests::spin_variables());
    tenant.deploy("async", guests::wasip3_reads_settings());
    change(&host, &tenant, "config", &json!({ "region": "eu" })).expect(200);
    change(&host, &tenant, "secrets", &json!({ "API_KEY": "hunter2-hunter2" })).expect(200);
    for (name, value) in [("region", "eu"), ("API_KEY", "hunter2-hunter2")] {
        assert_eq!(read(&tenant, name), value);
        for path in ["/spin", "/async"] {
            let answer = tenant.post(&format!("{path}?name={name}"), "").expect(200);
            assert_eq!(answer.text(), value, "{path}");
        }
    }
    tenant.post("/spin?name=none", "").expect(404);
}

#[test]
fn calls_go_on_while_it_changes_and_none_fails() {
    let host = Host::start();
    let tenant = reader(&host, "demo");
    change(&host, &tenant, "config", &json!({ "number": "0" })).expect(200);
    let callers: Vec<Beside<String>> = (0..3)
        .map(|_| {
            let tenant = tenant.clone();
            Beside::run(move |seen| {
                let address = tenant.address();
                match address.request("POST", "/reads?name=number").try_send(address.to) {
                    Ok(answer) => seen.insert(format!("{}", answer.status)),
                    Err(error) => seen.insert(format!("lost: {error}")),
                };
            })
        })
        .collect();
    for round in 1..8 {
        let kind = if round % 2 == 0 { "config" } else { "secrets" };
        let name = if kind == "config" { "number" } else { "SECRET" };
        let value = format!("value {round}");
        change(&host, &tenant, kind, &json!({ name: value })).expect(200);
        assert_eq!(read(&tenant, name), value);
    }
    for caller in callers {
        assert_eq!(caller.stop(), BTreeSet::from(["200".to_owned()]));
    }
}

#[test]
fn a_list_is_in_pages_and_a_name_is_one_or_the_other() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let many: serde_json::Map<String, Value> =
        (0..5).map(|n| (format!("n{n}"), json!(format!("value {n}")))).collect();
    change(&host, &tenant, "config", &many.into()).expect(200);
    change(&host, &tenant, "secrets", &json!({ "KEY": "hunter2-hunter2" })).expect(200);
    let page = tenant.ask("/config?limit=2");
    let names = |page: &Value| -> Vec<String> {
        let config = page["config"].as_array().unwrap().iter();
        config.map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((names(&page), &page["next"]), (vec!["n0".into(), "n1".into()], &json!("n1")));
    assert_eq!(page["config"][0]["value"], "value 0");
    let page = tenant.ask("/config?limit=3&after=n1");
    assert_eq!((names(&page).len(), &page["next"]), (3, &Value::Null));
    let secrets = tenant.ask("/secrets");
    assert_eq!(secrets["secrets"].as_array().unwrap().len(), 1);
    assert_eq!(secrets["secrets"][0]["name"], "KEY");
    assert_eq!(secrets["secrets"][0].get("value"), None);

    for (kind, changes, status, detail) in [
        ("config", json!({ "KEY": "x" }), 409, "KEY is a secret of this tenant already"),
        ("config", json!({ "KEY": null }), 409, "KEY is a secret"),
        ("secrets", json!({ "n0": "x" }), 409, "n0 is configuration of this tenant already"),
        ("secrets", json!({ "n0": null }), 409, "n0 is configuration"),
        ("config", json!({ "a": "1", "none": null }), 404, "there is no configuration none"),
        ("secrets", json!({ "none": null }), 404, "there is no secret none"),
        ("config", json!({ "a b": "1" }), 400, "the name of a setting is 1 to 128 characters"),
        ("secrets", json!({ "": "1" }), 400, "the name of a setting"),
        ("config", json!({ "a": 1 }), 400, "expected a string"),
        ("config", json!({ "a": "x".repeat((16 << 10) + 1) }), 400, "above 16 KiB"),
        ("secrets", json!("S3cr3t"), 400, "expected a map"),
        ("secrets", json!({ "A": ["S3cr3t"] }), 400, "expected a string"),
        ("secrets", json!({ "A": 5_318_008 }), 400, "expected a string"),
    ] {
        let answer = change(&host, &tenant, kind, &changes).expect(status);
        assert!(!["S3cr3t", "5318008"].iter().any(|it| answer.text().contains(it)));
        assert!(answer.json()["detail"].as_str().unwrap().contains(detail), "{}", answer.text());
    }
    assert_eq!(names(&tenant.ask("/config")).len(), 5, "nothing of what was refused is there");
}

#[test]
fn the_most_that_a_tenant_may_have_is_told_whole_and_no_more_is_taken() {
    let host = Host::start();
    let tenant = reader(&host, "demo");
    // Each character of it takes six in JSON.
    let value = "\u{1}".repeat(16 << 10);
    for number in 0..15 {
        let name = format!("n{number:03}");
        change(&host, &tenant, "secrets", &json!({ name: value })).expect(200);
    }
    let refused = change(&host, &tenant, "secrets", &json!({ "more": value }));
    refused.expect_problem(409, "conflict").expect_detail("256 KiB together");
    let all = tenant.post("/reads?all=1", "").expect(200).json();
    let all = all["rc.1"].as_array().unwrap();
    assert_eq!(all.len(), 15);
    assert!(all.iter().all(|pair| pair[1] == json!(value)));
    host.send(&tenant.api("POST", "/worker/stop")).expect(200);
    let all = tenant.post("/reads?all=1", "").expect(200).json();
    assert_eq!(all["rc.1"].as_array().unwrap().len(), 15, "and so it is after a wake");

    let many: serde_json::Map<String, Value> =
        (0..256).map(|n| (format!("m{n}"), json!("x"))).collect();
    let refused = change(&host, &tenant, "config", &many.into());
    refused.expect_problem(409, "conflict").expect_detail("256 names");
}

#[test]
fn only_its_owner_sets_it_and_who_deploys_reads_it() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let other = host.tenant("other");
    change(&host, &tenant, "config", &json!({ "region": "eu" })).expect(200);
    for kind in ["config", "secrets"] {
        let path = format!("/api/v1/tenants/demo/{kind}");
        for (scope, reads) in [("deploy", 200), ("invoke", 403), ("report", 403)] {
            let token = tenant.token(scope);
            let as_them = |method| Request::new(method, &path).bearer(&token);
            host.send(&as_them("GET")).expect(reads);
            let changes = json!({ kind: { "x": "y" } });
            host.send(&as_them("PATCH").json(&changes)).expect_problem(403, "forbidden");
        }
        let foreign = Request::new("GET", &path).bearer(&other.token);
        host.send(&foreign).expect_problem(403, "forbidden");
    }
    let rekey = Request::new("POST", "/api/v1/secrets/rekey").bearer(&tenant.token);
    host.send(&rekey).expect_problem(403, "forbidden");
}

#[test]
fn by_command_line() {
    let host = Host::start();
    let tenant = reader(&host, "demo");
    let config =
        |arguments: &[&str]| host.command(&tenant.token, &[&["config"], arguments].concat());
    assert_eq!(config(&[]).done().trim(), "There is no configuration.");
    let said = config(&["region=eu", "greeting=Good day=really"]).done();
    assert_eq!(said, "Set greeting.\nSet region.\n");
    assert_eq!(read(&tenant, "greeting"), "Good day=really");
    let listed = config(&[]).done();
    assert!(listed.contains("region") && listed.contains("Good day=really"), "{listed}");
    assert_eq!(config(&["region=eu"]).done(), "It is so already.\n");
    assert_eq!(config(&["--rm", "region", "zone=1"]).done(), "Set zone.\nRemoved region.\n");
    let json = config(&["--json"]).json();
    assert_eq!(json["config"].as_array().unwrap().len(), 2);
    assert!(config(&["--rm", "region"]).failed(1).contains("there is no configuration region"));
    assert!(config(&["region"]).failed(2).contains("is not a valid NAME=VALUE"));
    assert!(config(&["a b=1"]).failed(2).contains("the name of a setting"));
    // Whoever has the host's token names the tenant.
    let said = host.command(ADMIN_TOKEN, &["config", "--tenant", "demo", "zone=2"]).done();
    assert_eq!(said, "Set zone.\n");
    assert_eq!(read(&tenant, "zone"), "2");
}

#[test]
fn an_upload_and_a_rollback_leave_it_as_it_is() {
    let host = Host::start();
    let tenant = reader(&host, "demo");
    change(&host, &tenant, "config", &json!({ "region": "old" })).expect(200);
    change(&host, &tenant, "secrets", &json!({ "KEY": "old-secret" })).expect(200);
    tenant.deploy(
        "reads",
        &crate::limits::uploads::padded(
            guests::reads_settings(),
            guests::reads_settings().len() + 64,
            crate::limits::uploads::noise(7),
        ),
    );
    change(&host, &tenant, "config", &json!({ "region": "new" })).expect(200);
    change(&host, &tenant, "secrets", &json!({ "KEY": "new-secret" })).expect(200);
    tenant.rollback("/reads", 1);
    assert_eq!(
        (read(&tenant, "region"), read(&tenant, "KEY")),
        (json!("new"), json!("new-secret"))
    );
}
