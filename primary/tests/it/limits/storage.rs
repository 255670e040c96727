//! How many functions and versions a tenant has, and how much of the disk.

use serde_json::json;

use super::uploads::{noise, padded};
use super::{set, used};
use crate::guests;
use crate::host::{Host, Tenant};

fn generation(tenant: &Tenant) -> u64 {
    tenant.ask("/generations")["generations"][0]["generation"].as_u64().unwrap()
}

#[test]
fn a_function_too_many_is_refused_and_changes_nothing() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let before = used(&tenant, "functions");
    set(&host, &tenant, &json!({ "functions": before + 2 }));
    let module = guests::version_one();
    // Two at once are one change: all of it, or nothing.
    tenant.deploy("one", module);
    let two = [("two.wasm", module), ("three.wasm", module)];
    let serves = generation(&tenant);
    let limit = (before + 2).to_string();
    for door in tenant.doors() {
        let request = crate::host::upload(door.request("POST", "/$upload"), &two, None);
        let refused = door.send(&request.bearer(&tenant.token));
        refused.expect_problem(409, "conflict").expect_detail(&limit);
        door.post("/two", "").expect_problem(404, "not_found");
    }
    assert_eq!((generation(&tenant), used(&tenant, "functions")), (serves, before + 1));
    tenant.deploy("two", module);
    let three = tenant.upload(&[("three.wasm", module)], None);
    three.expect_problem(409, "conflict").expect_detail(&limit);
    assert_eq!(used(&tenant, "functions"), before + 2);

    // What is there already can be another version, and what is gone makes room.
    tenant.deploy("two", guests::version_two());
    host.send(&tenant.api("DELETE", "/functions/one")).expect(200);
    tenant.deploy("three", module);
    let back = tenant.api("POST", "/functions/one/rollback").json(&json!({ "version": 1 }));
    host.send(&back).expect_problem(409, "conflict").expect_detail(&limit);
    for (path, says) in [("/two", "version two"), ("/three", "version one")] {
        assert_eq!(tenant.post(path, "").expect(200).text(), says);
    }
}

fn versions(tenant: &Tenant, path: &str) -> Vec<u64> {
    let page = tenant.ask(&format!("/functions{path}/versions"));
    let versions = page["versions"].as_array().unwrap().iter();
    versions.map(|version| version["version"].as_u64().unwrap()).collect()
}

#[test]
fn so_many_versions_are_kept_and_the_oldest_goes_first() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    set(&host, &tenant, &json!({ "versions": 2 }));
    tenant.deploy("one", guests::version_one());
    tenant.deploy("one", guests::version_two());
    assert_eq!(versions(&tenant, "/one"), [2, 1]);
    tenant.rollback("/one", 1);
    tenant.rollback("/one", 2);
    tenant.deploy("one", guests::repeats_one());
    assert_eq!(versions(&tenant, "/one"), [3, 2]);
    let gone = tenant.api("POST", "/functions/one/rollback").json(&json!({ "version": 1 }));
    host.send(&gone).expect_problem(404, "not_found").expect_detail("1");
    assert_eq!(tenant.post("/one", "x").expect(200).text(), "one: x");
    tenant.rollback("/one", 2);
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version two");
}

#[test]
fn what_serves_is_kept_however_old_it_is() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    tenant.deploy("one", guests::version_two());
    tenant.deploy("one", guests::repeats_one());
    tenant.rollback("/one", 1);
    set(&host, &tenant, &json!({ "versions": 1 }));
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
    tenant.deploy("one", guests::repeats_two());
    assert_eq!(tenant.post("/one", "x").expect(200).text(), "two: x");
    assert_eq!(versions(&tenant, "/one"), [4]);
}

#[test]
fn a_full_disk_refuses_what_does_not_fit_and_serves_what_is_there() {
    const LARGE: usize = 4 << 20;
    let host = Host::start();
    let tenant = host.tenant("demo");
    let large = |seed| padded(guests::version_one(), LARGE, noise(seed));
    tenant.deploy("one", &large(1));
    let first = used(&tenant, "disk_bytes");
    tenant.deploy("two", &large(2));
    let second = used(&tenant, "disk_bytes");
    let each = second - first;
    assert!(each >= LARGE as u64, "{first} {second}");

    // With room for one more it is taken, and with room for half of one it is not.
    set(&host, &tenant, &json!({ "disk_bytes": second + each + each / 2 }));
    tenant.deploy("three", &large(3));
    set(&host, &tenant, &json!({ "disk_bytes": used(&tenant, "disk_bytes") + each / 2 }));
    let serves = generation(&tenant);
    let another = large(4);
    for door in tenant.doors() {
        let files = [("three.wasm", another.as_slice())];
        let request = crate::host::upload(door.request("POST", "/$upload"), &files, None);
        let refused = door.send(&request.bearer(&tenant.token));
        refused.expect_problem(507, "storage_full").expect_detail("disk_bytes");
        let still = door.post("/three", "").expect(200);
        assert_eq!(still.header("x-hearth-version"), Some("/three@1"), "{}", door.name);
    }
    assert_eq!(generation(&tenant), serves);
    // What was refused takes no room: something smaller still fits.
    tenant.deploy("three", guests::version_two());
    assert_eq!(tenant.post("/three", "").expect(200).text(), "version two");
}
