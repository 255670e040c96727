//! What functions keep, in backups: databases as they were at one instant, of one tenant alone where
//! that is asked for, and what is damaged said and no reason for having none.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use tempfile::TempDir;

use super::{backup, directory, give, members, name, restore, state, text};
use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, run};
use crate::processes::Beside;

/// Each transaction adds two rows, so that half of one would be seen.
fn writer(state: &Path, file: &str) -> Connection {
    let file = state.join(file);
    let database = Connection::open(&file).unwrap();
    database.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL").unwrap();
    database.execute_batch("CREATE TABLE pairs (one INTEGER, other BLOB)").unwrap();
    // As its tenant's worker has made them.
    for suffix in ["", "-wal", "-shm"] {
        give(state, Path::new(&format!("{}{suffix}", file.display())));
    }
    database
}

fn pair(database: &mut Connection, number: i64) {
    let group = database.transaction().unwrap();
    for _ in 0..2 {
        group.execute("INSERT INTO pairs VALUES (?, randomblob(800))", [number]).unwrap();
    }
    group.commit().unwrap();
}

/// How many pairs a whole database has.
fn pairs(file: &Path) -> i64 {
    let database = Connection::open(file).unwrap();
    let one = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let halves = "SELECT count(*) FROM (SELECT 1 FROM pairs GROUP BY one HAVING count(*) != 2)";
    assert_eq!(one(halves), 0);
    one("SELECT count(*) / 2 FROM pairs")
}

fn state_files(file: &Path, tenant: &str) -> BTreeMap<String, usize> {
    let prefix = format!("tenants/{tenant}/state/");
    let found = members(file).into_iter().filter_map(|(header, content)| {
        let name = name(&header).strip_prefix(&prefix)?.to_owned();
        (!name.is_empty()).then_some((name, content.len()))
    });
    found.collect()
}

fn written_beside(mut host: Host) {
    let demo = host.tenant("demo");
    demo.deploy("one", guests::version_one());
    let home = state(&host, "demo");
    let mut database = writer(&home, "kv.db");
    fs::write(home.join("turn"), "").unwrap();
    give(&home, &home.join("turn"));
    let mut at = 0;
    pair(&mut database, at);
    let writing = Beside::run(move |written| {
        at += 1;
        pair(&mut database, at);
        written.insert(at);
    });
    let mut files = Vec::new();
    for _ in 0..3 {
        let before = writing.seen().last().copied().unwrap_or(0);
        files.push((backup(&host), before));
    }
    let written = writing.stop().last().copied().unwrap_or(0);
    assert!(written > 10, "{written}");
    let (file, before) = files.pop().unwrap();
    assert_eq!(state_files(&file, "demo").into_keys().collect::<Vec<_>>(), ["kv.db"]);
    let owner = |file: &Path| fs::metadata(file).unwrap().uid();
    let user = owner(&home);
    for name in fs::read_dir(&home).unwrap().flatten() {
        assert_eq!(owner(&name.path()), user, "{name:?}");
    }
    host.kill_and_wait();
    let place = restore(&file);
    let restored = place.path().join("data/tenants/demo/state/kv.db");
    assert!(pairs(&restored) > before, "{before}");
    give_all(&place, owner(&host.data()));
    let host = Host::on(place, &host);
    let demo = demo.on(&host);
    assert_eq!(demo.post("/one", "").expect(200).text(), "version one");
    assert!(pairs(&state(&host, "demo").join("kv.db")) > before);
}

/// Who restored is root, and what it restored is another's where the host runs as that one.
fn give_all(place: &TempDir, user: u32) {
    if user != 0 {
        let mut chown = Command::new("chown");
        assert!(
            chown.arg("-R").arg(user.to_string()).arg(place.path()).status().unwrap().success()
        );
    }
}

#[test]
fn a_backup_under_writes_restores_sound() {
    written_beside(Host::start());
}

#[test]
fn the_same_of_an_ordinary_users_host() {
    written_beside(Host::as_user());
}

#[test]
fn a_damaged_database_is_said_and_everything_else_is_there() {
    let mut host = Host::start();
    for name in ["demo", "other"] {
        host.tenant(name).deploy("one", guests::version_one());
        let home = state(&host, name);
        let mut database = writer(&home, "kv.db");
        pair(&mut database, 1);
        drop(database);
    }
    let home = state(&host, "demo");
    fs::write(home.join("1.db"), vec![b'x'; 10_000]).unwrap();
    give(&home, &home.join("1.db"));
    let file = host.scratch().join("hearth.tar.zst");
    let said = host.command(ADMIN_TOKEN, &["backup", text(&file)]);
    let error = said.error().to_owned();
    assert!(error.contains("the database 1.db of the tenant demo"), "{error}");
    assert!(!error.contains("of the tenant other"), "{error}");
    said.done();
    assert!(host.log().contains("could not be backed up soundly"), "{}", host.log());
    assert_eq!(state_files(&file, "demo").into_keys().collect::<Vec<_>>(), ["kv.db"]);
    host.kill_and_wait();
    let place = restore(&file);
    for name in ["demo", "other"] {
        assert_eq!(pairs(&place.path().join(format!("data/tenants/{name}/state/kv.db"))), 1);
    }
}

#[test]
fn row_26_a_tenants_own_backup_has_that_tenant_alone_and_serves_elsewhere() {
    let host = Host::start();
    let (demo, zebra) = (host.tenant("demo"), host.tenant("zebra"));
    for tenant in [&demo, &zebra] {
        tenant.deploy("one", guests::version_one());
        pair(&mut writer(&state(&host, &tenant.name.to_string()), "kv.db"), 1);
    }
    zebra.deploy("secret", guests::version_two());
    let deploy = demo.token("deploy");
    let file = host.scratch().join("demo.tar.zst");
    let backup = |token: &str, tenant: &str| {
        host.command(token, &["backup", text(&file), "--tenant", tenant])
    };
    backup(&zebra.token, "demo").failed(1);
    backup(&deploy, "demo").failed(1);
    backup(&demo.token, "zebra").failed(1);
    assert!(!file.exists());
    for token in [&demo.token, ADMIN_TOKEN] {
        assert!(backup(token, "demo").done().contains("and checked"));
    }
    let unpacked = zstd::decode_all(fs::File::open(&file).unwrap()).unwrap();
    let has = |text: &str| unpacked.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("demo") && !has("zebra") && !has("/secret"));
    assert_eq!(state_files(&file, "demo").into_keys().collect::<Vec<_>>(), ["kv.db"]);

    // Into another host, which has others.
    let other = Host::start();
    other.tenant("demo-2").post("/hello", "{}").expect(200);
    let said = other.command(ADMIN_TOKEN, &["restore", text(&file), "--tenant", "demo"]).done();
    assert!(said.contains("Restored the tenant demo"), "{said}");
    let shown = other.send(&other.admin("GET", "/tenants/demo")).expect(200).json();
    let mut there = demo.on(&other);
    there.port = shown["port"].as_u64().unwrap().try_into().unwrap();
    assert_eq!(there.post("/one", "").expect(200).text(), "version one");
    assert_eq!(pairs(&state(&other, "demo").join("kv.db")), 1);
    // Its owner's token is the same.
    let asked = other.send(&there.api("GET", "/functions")).expect(200).json();
    assert_eq!(
        asked["functions"].as_array().unwrap().len(),
        demo.ask("/functions")["functions"].as_array().unwrap().len()
    );

    // And onto an empty directory.
    let place = directory();
    let data = place.path().join("data");
    run(place.path(), &["restore", text(&file), "--data", text(&data)]).done();
    assert_eq!(pairs(&data.join("tenants/demo/state/kv.db")), 1);
    assert!(!data.join("tenants/zebra").exists());
}
