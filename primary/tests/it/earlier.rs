//! Back to an earlier generation: all functions and what was set for them, together or not at all,
//! by API and by command line, across restarts and backups.

use serde_json::{Value, json};

use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, Tenant, run};
use crate::http::{Answer, Request};

fn generation(tenant: &Tenant) -> u64 {
    tenant.ask("/worker")["generation"].as_u64().unwrap()
}

fn back(host: &Host, tenant: &Tenant, generation: u64) -> Answer {
    let request = tenant.api("POST", "/rollback").json(&json!({ "generation": generation }));
    host.send(&request)
}

fn set(host: &Host, tenant: &Tenant, function: &str, options: &Value) {
    let request = tenant.api("PATCH", &format!("/functions/{function}"));
    host.send(&request.json(&json!({ "options": options }))).expect(200);
}

fn remove(host: &Host, tenant: &Tenant, function: &str) {
    let request = tenant.api("DELETE", &format!("/functions/{function}"));
    host.send(&request).expect(200);
}

/// What is served: by path, its version and what was set for it.
fn served(tenant: &Tenant) -> Value {
    let functions = tenant.ask("/functions");
    let functions = functions["functions"].as_array().unwrap().iter();
    let one = |it: &Value| {
        let path = it["path"].as_str().unwrap().to_owned();
        (path, json!([it["version"], it["layers"]["set"]]))
    };
    functions.map(one).collect::<serde_json::Map<_, _>>().into()
}

/// Generations of all kinds, each with what it served.
fn history(host: &Host, tenant: &Tenant) -> Vec<(u64, Value)> {
    let mut all = vec![(generation(tenant), served(tenant))];
    let changes: [&dyn Fn(); 8] = [
        &|| drop(tenant.deploy("one", guests::version_one())),
        &|| {
            let files = [("one.wasm", guests::version_two()), ("two.wasm", guests::version_one())];
            tenant.upload(&files, None).expect(200);
        },
        &|| set(host, tenant, "one", &json!({ "auth": "owner" })),
        &|| set(host, tenant, "hello", &json!({ "methods": ["GET"] })),
        &|| remove(host, tenant, "two"),
        &|| drop(tenant.deploy("hello", guests::version_two())),
        &|| remove(host, tenant, "hello"),
        // What comes with Hearth, which the one before has uncovered.
        &|| remove(host, tenant, "hello"),
    ];
    for change in changes {
        change();
        all.push((generation(tenant), served(tenant)));
    }
    all
}

#[test]
fn each_generation_comes_back_as_it_was_from_any_other() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    let all = history(&host, &tenant);
    assert!(all.last().unwrap().1.get("/hello").is_none(), "{all:?}");
    let mut current = all.last().unwrap().0;
    for (number, then) in all.iter().chain(all.iter().rev().step_by(2)) {
        let before = served(&tenant);
        let answer = back(&host, &tenant, *number).expect(200).json();
        assert_eq!(served(&tenant), *then, "{answer}");
        assert_eq!(answer["rolled_back_to"], *number, "{answer}");
        let is_changed = before != *then;
        assert_eq!(answer["functions"].as_array().unwrap().is_empty(), !is_changed, "{answer}");
        assert_eq!(answer["generation"], current + u64::from(is_changed), "{answer}");
        current = generation(&tenant);
    }
    // What is served is called: as it says, whoever asks.
    back(&host, &tenant, all[3].0).expect(200);
    tenant.post("/one", "").expect_problem(401, "unauthenticated");
    assert_eq!(tenant.post("/two", "").expect(200).text(), "version one");
    back(&host, &tenant, all[2].0).expect(200);
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version two");

    host.kill_and_start_again();
    let tenant = tenant.on(&host);
    assert_eq!(served(&tenant), all[2].1);
    back(&host, &tenant, all[1].0).expect(200);
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
    tenant.post("/two", "").expect_problem(404, "not_found");
    let audit = Request::new("GET", "/api/v1/audit?limit=1").bearer(&tenant.token);
    let entry = host.send(&audit).expect(200).json()["entries"][0].clone();
    assert_eq!(entry["action"], "function.rollback", "{entry}");
    assert_eq!(entry["after"]["rolled_back_to"], all[1].0, "{entry}");
}

#[test]
fn limits_stay_and_what_is_not_there_any_more_is_named_and_changes_nothing() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let limits = host.admin("PATCH", "/tenants/demo/limits");
    host.send(&limits.json(&json!({ "limits": { "versions": 2 } }))).expect(200);
    let modules = [guests::version_one(), guests::version_two(), guests::echo()];
    let numbers: Vec<_> =
        modules.map(|module| tenant.deploy("one", module)["generation"].as_u64().unwrap()).into();
    let now = (generation(&tenant), served(&tenant));
    let gone = back(&host, &tenant, numbers[0]).expect_problem(409, "conflict");
    gone.expect_detail("/one had version 1 then, which is no longer kept");
    for never in [0, 99, u64::MAX] {
        back(&host, &tenant, never).expect_problem(404, "not_found");
    }
    for wrong in [json!({}), json!({ "generation": "1" }), json!({ "generation": 1, "x": 1 })] {
        let request = tenant.api("POST", "/rollback").json(&wrong);
        host.send(&request).expect_problem(400, "bad_request");
    }
    assert_eq!((generation(&tenant), served(&tenant)), now);
    let whole = |page: &Value| {
        let all = page["generations"].as_array().unwrap().iter();
        let whole = all.filter(|it| it["whole"] == true);
        whole.map(|it| it["generation"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let page = tenant.ask("/generations");
    let listed = whole(&page);
    assert!(listed.contains(&numbers[1]) && !listed.contains(&numbers[0]), "{page}");
    back(&host, &tenant, numbers[1]).expect(200);
    let limits = tenant.ask("/limits");
    let versions = limits["limits"].as_array().unwrap().iter().find(|it| it["name"] == "versions");
    assert_eq!(versions.unwrap()["value"], 2, "{limits}");
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version two");

    // It changes options and takes functions away: an owner's business.
    let deployer = Tenant::known(&host, "demo", tenant.port, &tenant.token("deploy"));
    back(&host, &deployer, numbers[2]).expect_problem(403, "forbidden");
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version two");
}

#[test]
fn they_are_listed_in_pages_and_by_the_command_line() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let all = history(&host, &tenant);
    let newest = all.last().unwrap().0;
    let mut before = String::new();
    let mut seen = Vec::new();
    loop {
        let page = tenant.ask(&format!("/generations?limit=4{before}"));
        for it in page["generations"].as_array().unwrap() {
            let number = it["generation"].as_u64().unwrap();
            assert_eq!(it["current"] == true, number == newest, "{it}");
            assert_eq!(it["whole"], true, "{it}");
            seen.push(number);
        }
        match page["next"].as_u64() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert!(seen.is_sorted_by(|a, b| a > b) && seen.len() == all.len(), "{seen:?}");
    let request = tenant.api("GET", "/generations?limit=0");
    host.send(&request).expect_problem(400, "bad_request");

    let said = host.command(&tenant.token, &["generations", "-n", "3"]).done();
    assert!(said.contains("current") && said.contains("Older ones: hearth generations"), "{said}");
    let to = all[2].0.to_string();
    let said = host.command(&tenant.token, &["rollback", "--generation", &to]).done();
    assert!(said.contains("/two is at version 1."), "{said}");
    assert!(said.contains("/hello is the one that comes with Hearth."), "{said}");
    assert!(said.contains(&format!("serves what generation {to} served")), "{said}");
    assert_eq!(served(&tenant), all[2].1);
    let said = host.command(&tenant.token, &["rollback", "--generation", &to]).done();
    assert!(said.contains("serves already"), "{said}");
    let said = host.command(&tenant.token, &["rollback", "--generation", "999"]).failed(1);
    assert!(said.contains("no generation 999"), "{said}");
}

#[test]
fn a_backup_has_them_as_well() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    let all = history(&host, &tenant);
    let file = host.scratch().join("backup");
    let file = file.to_str().unwrap();
    host.command(ADMIN_TOKEN, &["backup", file]).done();

    // Into a directory of its own.
    let place = tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap();
    let data = place.path().join("data");
    let restore = ["restore", file, "--data", data.to_str().unwrap()];
    let said = run(place.path(), &[&restore[..], &["--url", "http://h"]].concat()).failed(2);
    assert!(said.contains("leave --url out") && !data.exists(), "{said}");
    run(place.path(), &restore).done();
    // Into a host that serves, in the place of the tenant that was removed there.
    host.send(&host.admin("DELETE", "/tenants/demo")).expect(204);
    host.command(ADMIN_TOKEN, &["restore", file]).done();
    back(&host, &tenant, all[2].0).expect(200);
    assert_eq!(served(&tenant), all[2].1);
    host.kill_and_wait();

    let host = Host::on(place, &host);
    let tenant = tenant.on(&host);
    assert_eq!(served(&tenant), all.last().unwrap().1);
    back(&host, &tenant, all[2].0).expect(200);
    assert_eq!(served(&tenant), all[2].1);
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version two");
}
