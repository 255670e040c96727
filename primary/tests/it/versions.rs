//! Versions, rolling back, removing and uploading the same again, by API and by command line.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::durability::checker;
use crate::guests;
use crate::host::{Host, Tenant};

fn three_versions() -> (Host, Tenant) {
    let host = Host::start();
    let tenant = host.tenant("demo");
    for module in [guests::version_one(), guests::version_two(), guests::echo()] {
        tenant.deploy("one", module);
    }
    (host, tenant)
}

fn numbers(versions: &Value) -> Vec<u64> {
    versions["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["version"].as_u64().unwrap())
        .collect()
}

#[test]
fn by_api() {
    let (host, tenant) = three_versions();
    let versions = tenant.ask("/functions/one/versions");
    assert_eq!((&versions["path"], &versions["active"]), (&json!("/one"), &json!(3)));
    assert_eq!(numbers(&versions), [3, 2, 1]);
    let active: Vec<_> =
        versions["versions"].as_array().unwrap().iter().map(|v| v["active"] == true).collect();
    assert_eq!(active, [true, false, false]);

    let rollback = |body: Option<Value>| {
        let request = tenant.api("POST", "/functions/one/rollback");
        host.send(&match body {
            Some(body) => request.json(&body),
            None => request,
        })
    };
    let back = rollback(None).expect(200).json();
    assert_eq!((&back["path"], &back["version"]), (&json!("/one"), &json!(2)), "{back}");
    let answer = tenant.post("/one", "").expect(200);
    assert_eq!(
        (answer.text().as_str(), answer.header("x-hearth-version")),
        ("version two", Some("/one@2"))
    );
    assert_eq!(rollback(None).expect(200).json()["version"], 1);
    rollback(None).expect_problem(409, "conflict");
    assert_eq!(rollback(Some(json!({ "version": 3 }))).expect(200).json()["version"], 3);
    rollback(Some(json!({ "version": 99 }))).expect_problem(404, "not_found").expect_detail("99");
    assert!(tenant.post("/one", "").expect(200).text().contains("\"method\""));
    assert_eq!(
        numbers(&tenant.ask("/functions/one/versions")),
        [3, 2, 1],
        "rolling back adds none"
    );

    let gone = host.send(&tenant.api("DELETE", "/functions/one")).expect(200).json();
    assert_eq!((&gone["path"], &gone["version"]), (&json!("/one"), &Value::Null), "{gone}");
    tenant.post("/one", "").expect_problem(404, "not_found");
    host.send(&tenant.api("DELETE", "/functions/one")).expect_problem(404, "not_found");
    assert_eq!(tenant.ask("/functions/one/versions")["active"], Value::Null);
    assert_eq!(rollback(Some(json!({ "version": 1 }))).expect(200).json()["version"], 1);
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");

    let causes = tenant.ask("/generations");
    let causes: Vec<_> = causes["generations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| g["cause"].as_str().unwrap())
        .collect();
    assert_eq!(
        causes,
        [
            "rollback", "remove", "rollback", "rollback", "rollback", "upload", "upload", "upload",
            "created"
        ]
    );
}

#[test]
fn the_same_bytes_again_are_a_version_of_their_own() {
    let (_host, tenant) = three_versions();
    let again = tenant.deploy("one", guests::version_one());
    assert_eq!(again["functions"][0]["version"], 4);
    assert_eq!(tenant.post("/one", "").expect(200).header("x-hearth-version"), Some("/one@4"));
    let versions = tenant.ask("/functions/one/versions");
    assert_eq!(numbers(&versions), [4, 3, 2, 1]);
    assert_eq!(versions["versions"][0]["sha256"], versions["versions"][3]["sha256"]);
}

#[test]
fn what_is_active_already_stays_as_it_is() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let again = tenant.deploy("one", guests::version_one());
    assert_eq!(again["functions"][0]["version"], 1, "{again}");
    assert_eq!(again["functions"][0]["unchanged"], true, "{again}");
    // With other options it is something else, though.
    let other = tenant.deploy_with("one", guests::version_one(), &json!({ "methods": ["GET"] }));
    assert_eq!(other["functions"][0]["version"], 2, "{other}");
    tenant.get("/one").expect(200);
    assert_eq!(numbers(&tenant.ask("/functions/one/versions")), [2, 1]);
}

#[test]
fn a_function_that_was_removed_goes_on_counting() {
    let (host, tenant) = three_versions();
    host.send(&tenant.api("DELETE", "/functions/one")).expect(200);
    assert_eq!(tenant.deploy("one", guests::version_one())["functions"][0]["version"], 4);
}

#[test]
fn twenty_versions_are_kept_and_the_active_one_always() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    for round in 0..22 {
        let two = [guests::version_one(), guests::version_two()];
        tenant.deploy("one", two[round % 2]);
    }
    let kept = numbers(&tenant.ask("/functions/one/versions"));
    assert_eq!(kept, (3..=22).rev().collect::<Vec<_>>());
}

#[test]
fn names_that_differ_only_in_case_are_one_path() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("Report", guests::version_one());
    let other = tenant.upload(&[("report.wasm", guests::version_two())], None);
    other.expect_problem(409, "conflict").expect_detail("/Report");
    assert_eq!(tenant.ask("/functions/REPORT")["path"], "/Report");
    assert_eq!(tenant.post("/Report", "").expect(200).text(), "version one");
    host.send(&tenant.api("DELETE", "/functions/rePort")).expect(200);
    tenant.post("/Report", "").expect_problem(404, "not_found");
}

#[test]
fn functions_in_directories_are_addressed_as_one_segment_by_api() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let address = tenant.address();
    let files = [("nightly.wasm", guests::version_one())];
    let request = crate::host::upload(address.request("POST", "/jobs/$upload"), &files, None);
    let up = address.send(&request.bearer(&tenant.token)).expect(200).json();
    assert_eq!(up["functions"][0]["path"], "/jobs/nightly");
    tenant.post("/jobs/nightly", "").expect(200);
    assert_eq!(tenant.ask("/functions/jobs%2Fnightly")["version"], 1);
    let files = [("nightly.wasm", guests::version_two())];
    let request = crate::host::upload(tenant.api("POST", "/functions?dir=jobs"), &files, None);
    host.send(&request).expect(200);
    assert_eq!(numbers(&tenant.ask("/functions/jobs%2Fnightly/versions")), [2, 1]);
    host.send(&tenant.api("DELETE", "/functions/jobs%2Fnightly")).expect(200);
    tenant.post("/jobs/nightly", "").expect_problem(404, "not_found");
}

#[test]
fn by_command_line() {
    let (host, tenant) = three_versions();
    let hearth = |arguments: &[&str]| host.command(&tenant.token, arguments);
    let versions = hearth(&["--json", "versions", "one"]).json();
    assert_eq!(numbers(&versions), [3, 2, 1]);
    let said = hearth(&["versions", "/one"]).done();
    assert!(said.contains('3') && said.contains("active"), "{said}");

    hearth(&["rollback", "one"]).done();
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version two");
    hearth(&["rollback", "one", "1"]).done();
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
    let said = hearth(&["rollback", "one", "99"]).failed(1);
    assert!(said.contains("99"), "{said}");

    let said = hearth(&["rm", "one"]).failed(2);
    assert!(said.contains("--yes"), "{said}");
    tenant.post("/one", "").expect(200);
    hearth(&["rm", "one", "--yes"]).done();
    tenant.post("/one", "").expect_problem(404, "not_found");
    let said = hearth(&["rm", "one", "-y"]).failed(1);
    assert!(said.contains("one"), "{said}");
    hearth(&["versions", "one"]).done();

    let file = host.scratch().join("one.wasm");
    std::fs::write(&file, guests::version_one()).unwrap();
    let up = hearth(&["--json", "upload", file.to_str().unwrap()]).json();
    assert_eq!(up["functions"][0]["version"], 4, "{up}");
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
    let listed = hearth(&["--json", "functions"]).json();
    assert!(listed.to_string().contains("/one"), "{listed}");
}

const BUNDLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bundled/hello.wasm.zst");

/// What comes with Hearth, as it is packed.
fn bundled(tenant: &Tenant) -> Vec<u8> {
    let hello = tenant.ask("/functions/hello");
    assert_eq!(hello["bundled"], true, "{hello}");
    let packed = std::fs::read(BUNDLED).unwrap();
    let found = Sha256::digest(zstd::decode_all(&packed[..]).unwrap());
    assert_eq!(hello["sha256"], checker::hex(&found), "{hello}");
    packed
}

#[test]
fn a_module_that_comes_with_hearth_can_be_the_tenants_own_as_well() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    let module = bundled(&tenant);
    tenant.upload(&[("again.wasm.zst", &module), ("more.wasm.zst", &module)], None).expect(200);
    let both_answer = |tenant: &Tenant| {
        for path in ["/hello", "/again", "/more"] {
            tenant.post(path, r#"{"name":"Ada"}"#).expect(200);
        }
    };
    both_answer(&tenant);
    // Beside it, away from it, and back.
    tenant.deploy("again", guests::version_one());
    assert_eq!(tenant.post("/again", "").expect(200).text(), "version one");
    tenant.rollback("/again", 1);
    both_answer(&tenant);
    let to_bundled = || {
        let rollback = tenant.api("POST", "/functions/hello/rollback");
        host.send(&rollback.json(&json!({ "version": "bundled" }))).expect(200);
    };
    tenant.deploy("hello", guests::version_two());
    assert_eq!(tenant.post("/hello", "").expect(200).text(), "version two");
    to_bundled();
    both_answer(&tenant);
    host.send(&tenant.api("DELETE", "/functions/hello")).expect(200);
    tenant.post("/more", "{}").expect(200);
    to_bundled();
    tenant.upload(&[("hello.wasm.zst", &module)], None).expect(200);
    both_answer(&tenant);
    // And where it is made again, of the store alone.
    host.kill_and_wait();
    std::fs::remove_dir_all(host.data().join("artifacts")).unwrap();
    std::fs::remove_dir_all(host.data().join("tenants/demo/releases")).unwrap();
    host.start_again();
    both_answer(&tenant);
}
