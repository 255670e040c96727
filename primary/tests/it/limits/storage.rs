//! How many functions and versions a tenant has, and how much of the disk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::uploads::{noise, padded};
use super::{set, used};
use crate::guests;
use crate::host::{Host, Tenant, upload};
use crate::processes::{Beside, eventually};

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
    for address in tenant.addresses() {
        let request = upload(address.request("POST", "/$upload"), &two, None);
        let refused = address.send(&request.bearer(&tenant.token));
        refused.expect_problem(409, "conflict").expect_detail(&limit);
        address.post("/two", "").expect_problem(404, "not_found");
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

    // With room for one more, and for how it was sent while it is packed, it is taken; and with
    // room for half of one it is not.
    set(&host, &tenant, &json!({ "disk_bytes": second + each + LARGE as u64 + each / 2 }));
    tenant.deploy("three", &large(3));
    set(&host, &tenant, &json!({ "disk_bytes": used(&tenant, "disk_bytes") + each / 2 }));
    let serves = generation(&tenant);
    let another = large(4);
    for address in tenant.addresses() {
        let files = [("three.wasm", another.as_slice())];
        let request = upload(address.request("POST", "/$upload"), &files, None);
        let refused = address.send(&request.bearer(&tenant.token));
        refused.expect_problem(507, "storage_full").expect_detail("disk_bytes");
        let still = address.post("/three", "").expect(200);
        assert_eq!(still.header("x-hearth-version"), Some("/three@1"), "{}", address.name);
    }
    assert_eq!(generation(&tenant), serves);
    // What was refused takes no room: something smaller still fits.
    tenant.deploy("three", guests::version_two());
    assert_eq!(tenant.post("/three", "").expect(200).text(), "version two");
}

/// Bytes on the disk of files that a process writes and that have no name.
fn unnamed_bytes(pid: i32) -> u64 {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let files = fds.filter_map(|fd| {
        let is_temporary = fs::read_link(fd.path()).ok()?.to_str()?.contains("/data/tmp/");
        let file = fs::metadata(fd.path()).ok()?;
        is_temporary.then(|| (file.ino(), file.blocks() * 512))
    });
    files.collect::<BTreeMap<_, _>>().into_values().sum()
}

#[test]
fn what_unpacks_into_more_than_there_is_room_for_is_stopped_on_its_way() {
    const UNPACKED: usize = 60 << 20;
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let limit = used(&tenant, "disk_bytes") + (4 << 20);
    set(&host, &tenant, &json!({ "disk_bytes": limit }));
    // As dense as a file may be, so that it is not refused for that.
    let mut chance = noise(3);
    let mut at = 0_u32;
    let filling = || {
        at += 1;
        if at.is_multiple_of(128) { chance() } else { 0 }
    };
    let module = padded(guests::version_one(), UNPACKED, filling);
    let packed = zstd::encode_all(module.as_slice(), 3).unwrap();
    assert!(packed.len() < 3 << 20 && packed.len() * 100 > UNPACKED, "{}", packed.len());
    let pid = host.pid();
    let seen = Beside::run(move |seen| {
        seen.insert(unnamed_bytes(pid) >> 20);
    });
    // Several in one upload, and several uploads.
    let files = [("two.wasm.zst", packed.as_slice()), ("three.wasm.zst", packed.as_slice())];
    let uploaders: Vec<_> = (0..4)
        .map(|at| {
            let request = upload(tenant.api("POST", "/functions"), &files[at % 2..], None);
            let to = host.front;
            std::thread::spawn(move || request.try_send(to).unwrap())
        })
        .collect();
    for uploader in uploaders {
        let refused = uploader.join().unwrap();
        refused.expect_problem(507, "storage_full").expect_detail("disk_bytes");
    }
    let most = seen.stop().last().copied().unwrap_or_default();
    assert!(most <= 6, "{most} MiB were on their way where 4 MiB were left");
    tenant.deploy("two", guests::version_two());
    assert_eq!(tenant.post("/two", "").expect(200).text(), "version two");
}

#[test]
fn many_uploads_at_once_exceed_no_quota() {
    const LARGE: usize = 1 << 20;
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let limit = used(&tenant, "disk_bytes") + 5 * LARGE as u64;
    set(&host, &tenant, &json!({ "disk_bytes": limit }));
    let uploaders: Vec<_> = (0..16_u64)
        .map(|at| {
            let module = padded(guests::version_one(), LARGE, noise(at + 1));
            let name = format!("f{at}.wasm");
            let request = upload(tenant.api("POST", "/functions"), &[(&name, &module)], None);
            let to = host.front;
            std::thread::spawn(move || request.try_send(to).unwrap().status)
        })
        .collect();
    let statuses: Vec<u16> = uploaders.into_iter().map(|it| it.join().unwrap()).collect();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429 | 507)), "{statuses:?}");
    assert!(statuses.contains(&507), "{statuses:?}");
    let has = used(&tenant, "disk_bytes");
    assert!(has <= limit, "{has} of {limit}: {statuses:?}");
    // What was refused has left nothing, so that there is room for what there was room for.
    if !statuses.contains(&200) {
        tenant.deploy("alone", &padded(guests::version_one(), LARGE, noise(99)));
    }
}

#[test]
fn what_is_replaced_makes_room_for_what_replaces_it() {
    const LARGE: usize = 1 << 20;
    let host = Host::start();
    let tenant = host.tenant("demo");
    let module = |seed| padded(guests::version_one(), LARGE, noise(seed));
    set(&host, &tenant, &json!({ "versions": 1 }));
    let before = used(&tenant, "disk_bytes");
    tenant.deploy("one", &module(1));
    let each = used(&tenant, "disk_bytes") - before;
    let modules = || fs::read_dir(host.data().join("modules")).unwrap().count();
    let kept = modules();
    set(&host, &tenant, &json!({ "disk_bytes": before + 2 * each + 2 * LARGE as u64 }));
    for turn in 2..32 {
        tenant.deploy("one", &module(turn));
    }
    // Nor does what nobody counts stay: modules that nothing names any more.
    eventually("the modules that were replaced to go", || (modules() == kept).then_some(()));
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
}
