//! An instance's memory, to the page.

use serde_json::json;

use super::set;
use crate::guests;
use crate::host::{Host, Tenant};

/// In pages of 64 KiB.
const PAGES_A_MIB: u64 = 16;

#[test]
fn memory_is_bounded() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("eats", guests::eats_memory(), &json!({ "memory_mb": 16 }));
    tenant.deploy_with("more", guests::eats_memory(), &json!({ "memory_mb": 128 }));
    let worker = host.workers(&tenant);
    for address in tenant.addresses() {
        assert_eq!(address.post("/eats?mb=8", "").expect(200).text(), "8");
        address.post("/eats", "").expect_problem(500, "memory_limit").expect_detail("16");
        assert_eq!(address.post("/more?mb=100", "").expect(200).text(), "100");
    }
    assert_eq!(host.workers(&tenant), worker);
}

/// The last page that it may have is given, and the next is not.
#[track_caller]
fn has_exactly(tenant: &Tenant, path: &str, mib: u64) {
    let last = mib * PAGES_A_MIB;
    for address in tenant.addresses() {
        let ask = |pages: u64| address.post(&format!("{path}?pages={pages}"), "");
        assert_eq!(ask(last).expect(200).text(), last.to_string(), "{}", address.name);
        ask(last + 1).expect_problem(500, "memory_limit").expect_detail(&format!("{mib} MiB"));
    }
}

#[test]
fn the_last_page_of_the_memory_is_given_and_the_next_is_not() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let small = json!({ "usual.wasm": {}, "small.wasm": { "memory_mb": 16 }, "most.wasm": { "memory_mb": 256 } });
    let module = guests::fills_memory();
    let files = [("usual.wasm", module), ("small.wasm", module), ("most.wasm", module)];
    tenant.upload(&files, Some(&small.to_string())).expect(200);
    has_exactly(&tenant, "/usual", 64);
    has_exactly(&tenant, "/small", 16);
    has_exactly(&tenant, "/most", 256);
    let more = tenant.upload(&[("more.wasm", module)], Some(r#"{"memory_mb":257}"#));
    more.expect_problem(400, "bad_request").expect_detail("memory_mb");
    tenant.post("/more", "").expect_problem(404, "not_found");
}

#[test]
fn a_function_has_no_more_memory_than_its_tenant() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("fills", guests::fills_memory());
    set(&host, &tenant, &json!({ "memory_mb": 8 }));
    has_exactly(&tenant, "/fills", 8);
    set(&host, &tenant, &json!({ "memory_mb": null }));
    has_exactly(&tenant, "/fills", 64);
}
