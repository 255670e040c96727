//! What a backup says that no host ever wrote, with every sum right: of this machine it has nothing
//! to say, and what cannot be is refused before anything of it is put to use.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use tar::EntryType;
use tempfile::TempDir;

use super::damage::{Members, consistent, entry, pack, refused};
use super::{backup, directory, members, name, text};
use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, Tenant, run};
use crate::processes::is_listening;

/// The same backup, with its store changed by this.
fn changed(place: &TempDir, members: &Members, sql: &str) -> Vec<u8> {
    let mut members = members.clone();
    let at = members.iter().position(|(header, _)| name(header) == "hearth.db").unwrap();
    let file = place.path().join("changed.db");
    fs::write(&file, &members[at].1).unwrap();
    let db = Connection::open(&file).unwrap();
    db.execute_batch("PRAGMA foreign_keys = off; PRAGMA ignore_check_constraints = on;").unwrap();
    db.execute_batch(sql).unwrap();
    db.close().unwrap();
    let content = fs::read(&file).unwrap();
    members[at].0.set_size(content.len() as u64);
    members[at].1 = content;
    consistent(&mut members);
    pack(&members)
}

/// A host with two tenants, whose backup is taken apart.
fn made() -> (TempDir, Host, Tenant, Members) {
    let host = Host::start();
    let demo = host.tenant("demo");
    host.tenant("other");
    demo.deploy("one", guests::version_one());
    let members = members(&backup(&host));
    (directory(), host, demo, members)
}

/// Who the tenant's worker is to the kernel.
fn uid(host: &Host, tenant: &Tenant) -> u32 {
    tenant.post("/one", "").expect(200);
    let worker = host.workers(tenant)[0];
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
    uid.split('\t').next().unwrap().parse().unwrap()
}

fn port(host: &Host) -> u16 {
    let shown = host.send(&host.admin("GET", "/tenants/demo")).expect(200).json();
    shown["port"].as_u64().unwrap().try_into().unwrap()
}

const TAKES_OVER: &str = "UPDATE tenants SET user = 1, port = 22 WHERE name = 'demo'";

#[test]
fn a_tenant_has_the_uid_and_the_port_that_this_host_gives() {
    let (place, mut host, mut demo, members) = made();
    let (before, other) = (demo.port, if nix::unistd::geteuid().is_root() { 1 } else { 0 });
    let file = place.path().join("claims");
    fs::write(&file, changed(&place, &members, TAKES_OVER)).unwrap();

    // Into the host that serves.
    host.send(&host.admin("DELETE", "/tenants/demo")).expect(204);
    host.command(ADMIN_TOKEN, &["restore", text(&file), "--tenant", "demo"]).done();
    demo.port = port(&host);
    assert!(demo.port >= 20_000, "{}", demo.port);
    assert_ne!(uid(&host, &demo), other);
    host.kill_and_wait();

    // And onto an empty directory.
    let empty = directory();
    let data = empty.path().join("data");
    run(empty.path(), &["restore", text(&file), "--data", text(&data)]).done();
    let mut host = Host::on(empty, &host);
    demo = demo.on(&host);
    demo.port = port(&host);
    assert!(demo.port >= 20_000, "{}", demo.port);
    assert_ne!(uid(&host, &demo), other);
    assert!(!is_listening(22));
    assert!(host.log().contains("before=22"), "{}", host.log());
    // The first of the range that nobody else had, and it is its own from then on.
    let settled = demo.port;
    host.kill_and_start_again();
    assert_eq!(port(&host), settled);
    // One of the host's own is what it was.
    host.kill_and_wait();
    let empty = directory();
    let data = empty.path().join("data");
    fs::write(&file, pack(&members)).unwrap();
    run(empty.path(), &["restore", text(&file), "--data", text(&data)]).done();
    let host = Host::on(empty, &host);
    assert_eq!(port(&host), before);
}

/// Refused as a whole, into an empty directory and into a host that serves, which serves on.
#[track_caller]
fn refused_everywhere(place: &TempDir, host: &Host, bytes: &[u8], said: &str) {
    refused(place, bytes, said);
    let file = place.path().join("claims");
    fs::write(&file, bytes).unwrap();
    let told = host.command(ADMIN_TOKEN, &["restore", text(&file)]).failed(1);
    assert!(told.contains(said), "{said:?} is not in {told:?}");
    host.send(&host.admin("GET", "/tenants/demo")).expect(404);
}

#[test]
fn what_cannot_be_is_refused_and_not_only_seen_when_no_host_starts() {
    let (place, mut host, _, members) = made();
    host.send(&host.admin("DELETE", "/tenants/demo")).expect(204);
    for (table, sql) in [
        ("tenants", "UPDATE tenants SET created_at = 9223372036854775807"),
        ("tenants", "UPDATE tenants SET generation = 9223372036854775807"),
        ("tenants", "UPDATE tenants SET name = 'Demo' WHERE name = 'demo'"),
        ("generations", "UPDATE generations SET created_at = -9223372036854775808"),
        ("tokens", "UPDATE tokens SET expires_at = 9223372036854775807"),
        ("tokens", "UPDATE tokens SET name = char(27) || ']0;' WHERE tenant IS NOT NULL"),
        ("functions", "UPDATE functions SET latest = 4294967295, active = 4294967295"),
        ("functions", r#"UPDATE functions SET options = '{"auth":"owner","auth":"public"}'"#),
        ("versions", "UPDATE versions SET created_at = 9223372036854775807"),
        ("versions", "UPDATE versions SET size = 9223372036854775807"),
    ] {
        let bytes = changed(&place, &members, sql);
        let said = match sql.contains("active") {
            // The row that this names is not there, which is seen first.
            true => "a row refers to one that is not there".to_owned(),
            false => format!("its table `{table}`"),
        };
        refused_everywhere(&place, &host, &bytes, &said);
    }
    let trigger = "CREATE TRIGGER mine AFTER INSERT ON tokens BEGIN DELETE FROM tokens; END";
    let bytes = changed(&place, &members, trigger);
    refused_everywhere(&place, &host, &bytes, "more than tables");
    assert_eq!(fs::read_dir(host.data().join("tmp")).unwrap().count(), 0);
    host.kill_and_start_again();
}

#[test]
fn row_15_of_a_tenants_directory_there_is_only_what_a_backup_keeps() {
    let (place, host, _, members) = made();
    host.send(&host.admin("DELETE", "/tenants/demo")).expect(204);
    for (name, kind) in [
        ("tenants/demo/releases", EntryType::Directory),
        ("tenants/demo/releases/2/manifest.json", EntryType::Regular),
        ("tenants/demo/state.other", EntryType::Directory),
        ("tenants/demo/artifacts/x.cwasm", EntryType::Regular),
        ("tenants/demo/x", EntryType::Regular),
        ("tenants/demo/State", EntryType::Directory),
        ("artifacts/x.cwasm", EntryType::Regular),
    ] {
        let mut members = members.clone();
        members.insert(members.len() - 1, entry(name, kind, b""));
        consistent(&mut members);
        refused_everywhere(&place, &host, &pack(&members), "the backup has an unknown entry");
    }
}

#[test]
fn row_28_the_version_that_made_it_is_one_or_it_is_no_backup() {
    let (place, _host, _, members) = made();
    for hearth in ["\u{1b}]0;mine\u{7}", "", "1.0\n2.0", "1.0 \u{2028}", &"1".repeat(100)] {
        for format in [1, 2] {
            let head = serde_json::json!({
                "format": format, "hearth": hearth, "made_at": "2026-01-01T00:00:00Z",
            });
            let mut members = members.clone();
            members[0] = entry("backup.json", EntryType::Regular, head.to_string().as_bytes());
            refused(&place, &pack(&members), "not a backup of Hearth");
        }
    }
    assert!(!Path::new("/tmp/planted").exists());
}
