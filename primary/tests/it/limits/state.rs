//! How much of the disk a tenant's state takes, measured by the host: who takes more is ended, and
//! hears why; and of a tenant that is removed nothing is left.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::chown;
use std::path::Path;

use serde_json::json;

use super::set;
use crate::guests;
use crate::host::{Host, Tenant};
use crate::processes::{eventually, is_alive};

const MIB: i64 = 1 << 20;

/// Takes so much of the disk, in a file that is its tenant's, without writing it.
fn take(state: &Path, name: &str, bytes: i64) {
    let path = state.join(name);
    let file = File::options().write(true).create(true).truncate(false).open(&path).unwrap();
    let mode = nix::fcntl::FallocateFlags::empty();
    nix::fcntl::fallocate(&file, mode, 0, bytes).unwrap();
    assert!(file.as_raw_fd() > 2);
    let user = std::os::unix::fs::MetadataExt::uid(&fs::metadata(state).unwrap());
    chown(&path, Some(user), Some(user)).unwrap();
}

fn state(host: &Host, tenant: &Tenant) -> std::path::PathBuf {
    host.data().join("tenants").join(&tenant.name).join("state")
}

fn looks(host: &Host) -> u64 {
    host.figure("hearth_state_looks_total")
}

/// Until everybody who runs was looked at once more from its beginning to its end.
fn looked_at(host: &Host, tenants: u64) {
    let before = looks(host);
    eventually("a look at all of them", || (looks(host) > before + tenants).then_some(()));
}

#[test]
fn row_31_who_takes_more_of_the_disk_than_it_may_is_ended_and_told_why() {
    let host = Host::start();
    let [demo, beside] = ["demo", "beside"].map(|name| {
        let tenant = host.tenant(name);
        set(&host, &tenant, &json!({ "disk_bytes": 64 << 20 }));
        tenant.deploy("one", guests::version_one());
        tenant
    });
    let (worker, other) = (host.workers(&demo)[0], host.workers(&beside)[0]);
    // Within what it may have, and a little over it, as what is written meanwhile can be.
    take(&state(&host, &demo), "kv.db", 30 * MIB);
    looked_at(&host, 2);
    assert!(is_alive(worker));
    take(&state(&host, &demo), "1.db", 80 * MIB);
    eventually("its end", || (!is_alive(worker)).then_some(()));
    let reason =
        eventually("the reason", || demo.ask("/worker")["reason"].as_str().map(str::to_owned));
    assert!(reason.contains("`disk_bytes`") && reason.contains("remove data"), "{reason}");
    assert_eq!(host.figure(r#"hearth_state_over_quota_total{tenant="demo"}"#), 1);
    assert_eq!(host.workers(&beside), [other]);

    // Room that is made is room again.
    fs::remove_file(state(&host, &demo).join("1.db")).unwrap();
    eventually("a worker that serves", || (demo.post("/one", "").status == 200).then_some(()));
    let worker = host.workers(&demo)[0];
    looked_at(&host, 2);
    assert!(is_alive(worker));

    host.send(&host.admin("DELETE", "/tenants/demo")).expect(204);
    assert!(!host.data().join("tenants/demo").exists());
}

/// What is there may stay, and be read.
#[test]
fn row_31_nobody_is_ended_for_a_limit_that_was_lowered() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    take(&state(&host, &tenant), "kv.db", 90 * MIB);
    looked_at(&host, 1);
    set(&host, &tenant, &json!({ "disk_bytes": 32 << 20 }));
    tenant.post("/one", "").expect(200);
    let worker = host.workers(&tenant)[0];
    looked_at(&host, 1);
    assert!(is_alive(worker));
    assert_eq!(host.workers(&tenant), [worker]);
    assert_eq!(host.figure(r#"hearth_state_over_quota_total{tenant="demo"}"#), 0);
}
