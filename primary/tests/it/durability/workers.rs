//! What a worker writes for its tenant where the disk is full, where it fails a sync, and where the
//! power fails between any two of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OptionalExtension};
use serde_json::json;

use super::damage::SmallDisk;
use super::disk::Disk;
use crate::guests;
use crate::host::{Host, Tenant};
use crate::processes::{Beside, eventually, is_alive};
use crate::syncs::{Said, Sync, Watch};
use crate::traffic::{Choices, is_long};

const WRITERS: usize = 8;
/// Rounds of all writers that the power test waits for.
const ROUNDS: u64 = 12;
/// So small that WALs are emptied again and again.
const SHARE_BYTES: u64 = 24 << 20;
/// Moments that are looked at, of all.
const LOOKED_AT: usize = 60;

fn tenant(host: &Host) -> Tenant {
    let tenant = host.tenant("demo");
    tenant.deploy("kv", guests::stores_draft2());
    tenant.deploy("sql", guests::sql_spin_three());
    tenant
}

#[track_caller]
fn kv(tenant: &Tenant, command: &str) -> String {
    tenant.post(&format!("/kv?default,{command}"), "").expect(200).text().to_owned()
}

/// What a statement brought, or why not.
#[track_caller]
fn sql(tenant: &Tenant, statements: &[&str]) -> String {
    tenant.post("/sql", &statements.join("\n")).expect(200).text().to_owned()
}

/// The disk itself, while the tenant's share has room.
#[test]
fn a_full_disk_refuses_writes_and_reads_go_on() {
    let mut host = Host::with(&["--disk-reserve", "0"]);
    let tenant = tenant(&host);
    assert_eq!(kv(&tenant, "set,first,1"), "set");
    host.terminate();
    host.ended();
    let Some(disk) = SmallDisk::instead_of(&host.data()) else { return };
    host.start_again();
    assert_eq!(kv(&tenant, "set,second,2"), "set");
    let (mut refused, mut taken) = (0, 0);
    for room in (0..64).map(|step: u64| step * (8 << 10)) {
        disk.fill(room);
        let said = kv(&tenant, &format!("set,k{room},*40000"));
        match &*said {
            "set" => taken += 1,
            error => {
                assert!(error.contains("no room is left"), "{room}: {error}");
                refused += 1;
            }
        }
        assert_eq!(kv(&tenant, "get,first"), "1", "{room}");
        assert_eq!(kv(&tenant, "get,second"), "2", "{room}");
        disk.empty();
    }
    assert!(refused > 3 && taken > 3, "{refused} refused, {taken} taken");
    // Room that is made is room again, and everything that was answered is there.
    assert_eq!(kv(&tenant, "set,third,3"), "set");
    host.kill_and_start_again();
    for (key, value) in [("first", "1"), ("second", "2"), ("third", "3")] {
        assert_eq!(kv(&tenant, &format!("get,{key}")), value);
    }
    println!("{refused} writes refused for want of room, {taken} taken; reads went on");
}

/// After it nobody knows what the disk has, and asking again may be answered with a lie.
#[test]
fn a_failed_sync_is_final_until_there_is_another_worker() {
    let host = Host::start();
    let tenant = tenant(&host);
    assert_eq!(kv(&tenant, "set,first,1"), "set");
    sql(&tenant, &["CREATE TABLE t (a)"]);
    for (database, write) in [
        ("kv.db", &(|| kv(&tenant, "set,lost,1")) as &dyn Fn() -> String),
        ("1.db", &|| sql(&tenant, &["INSERT INTO t VALUES (1)"])),
        ("1.db", &|| sql(&tenant, &["BEGIN", "INSERT INTO t VALUES (2)", "COMMIT"])),
    ] {
        let worker = host.workers(&tenant)[0];
        let wal = format!("state/{database}-wal");
        let watch = Watch::begin(worker, move |sync| match sync {
            Sync::Done(path) if path.ends_with(&wal) => Said::Failed,
            _ => Said::AsItIs,
        });
        let said = write();
        assert!(said.contains("disk failed"), "{database}: {said}");
        drop(watch);
        // The disk would do it now.
        for _ in 0..2 {
            let said = write();
            assert!(said.contains("nothing can be written any more"), "{database}: {said}");
        }
        // By whatever connection; and what is in another file is another matter.
        if database == "1.db" {
            for again in [
                &["INSERT INTO t VALUES (3)"][..],
                &["BEGIN IMMEDIATE", "INSERT INTO t VALUES (4)", "COMMIT"],
            ] {
                let said = sql(&tenant, again);
                assert!(said.contains("nothing can be written any more"), "{again:?}: {said}");
            }
            let counted = sql(&tenant, &["SELECT count(*) FROM t"]);
            assert!(counted.contains(r#""rows":[[0]]"#), "{counted}");
            assert_eq!(kv(&tenant, "set,other,1"), "set");
        } else {
            assert_eq!(kv(&tenant, "get,first"), "1");
            let said = sql(&tenant, &["CREATE TABLE other (a)"]);
            assert!(!said.contains("disk"), "{said}");
        }
        assert!(is_alive(worker));
        let log = host.log();
        let told = format!("the disk failed a sync of state/{database}");
        assert!(log.contains(&told), "{log}");
        host.send(&tenant.api("POST", "/worker/restart")).expect(200);
        let said = match database {
            "1.db" => sql(&tenant, &["INSERT INTO t VALUES (5)", "DELETE FROM t"]),
            _ => kv(&tenant, "set,again,1"),
        };
        assert!(!said.contains("disk") && !said.contains("written"), "{said}");
        assert!(!is_alive(worker));
    }
}

/// A disk as it was at some moment, with what had been answered by then to each writer, and what had
/// been asked.
struct Moment {
    disk: Disk,
    answered: Vec<u64>,
    sent: Vec<u64>,
    torn: bool,
}

#[test]
fn row_41_what_a_worker_answered_outlives_the_power() {
    let host = Host::start();
    let tenant = tenant(&host);
    let limits = json!({"limits": {"disk_bytes": SHARE_BYTES}});
    host.send(&host.admin("PATCH", "/tenants/demo/limits").json(&limits)).expect(200);
    // There is a worker, which has made no file yet.
    tenant.deploy("one", guests::version_one());
    tenant.post("/one", "").expect(200);
    let state = host.data().join("tenants/demo/state");
    let counters =
        || -> Arc<Vec<AtomicU64>> { Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect()) };
    let (answered, sent) = (counters(), counters());
    let moments: Arc<Mutex<Vec<Moment>>> = Arc::default();
    let watch = {
        let (answered, sent, moments) = (answered.clone(), sent.clone(), moments.clone());
        let state = state.clone();
        let mut choices = Choices::new();
        let mut durable = Disk::of(&state).unwrap();
        let now = |counters: &[AtomicU64]| counters.iter().map(|it| it.load(SeqCst)).collect();
        Watch::begin(host.workers(&tenant)[0], move |sync| {
            let answered = now(&answered);
            let (disk, torn) = match sync {
                Sync::Begins => (durable.torn(&Disk::of(&state).unwrap(), &mut choices), true),
                Sync::Done(path) => {
                    durable.sync(&path).unwrap();
                    (durable.clone(), false)
                }
            };
            moments.lock().unwrap().push(Moment { disk, answered, sent: now(&sent), torn });
            Said::AsItIs
        })
    };
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (tenant, answered, sent) = (tenant.clone(), answered.clone(), sent.clone());
            Beside::run(move |done| {
                let number = sent[writer].fetch_add(1, SeqCst) + 1;
                assert_eq!(kv(&tenant, &format!("set-many,w{writer}={number}")), "set");
                answered[writer].store(number, SeqCst);
                // So that WALs are emptied as well.
                assert_eq!(kv(&tenant, &format!("set,filler{writer},*20000")), "set");
                done.insert(number);
            })
        })
        .collect();
    let rounds = if is_long() { ROUNDS * 10 } else { ROUNDS };
    eventually("so many rounds", || {
        answered.iter().all(|it| it.load(SeqCst) >= rounds).then_some(())
    });
    writers.into_iter().for_each(|writer| drop(writer.stop()));
    drop(watch);
    let moments = std::mem::take(&mut *moments.lock().unwrap());
    let (mut torn, every) = (0, moments.len().div_ceil(LOOKED_AT));
    for (at, moment) in moments.iter().enumerate().step_by(every) {
        torn += usize::from(moment.torn);
        let found = read(&moment.disk);
        for writer in 0..WRITERS {
            let (from, to) = (moment.answered[writer], moment.sent[writer]);
            let value = found.get(&format!("w{writer}")).copied().unwrap_or(0);
            assert!(
                (from..=to).contains(&value),
                "moment {at}, torn: {}: writer {writer} has {value}, not {from} to {to}",
                moment.torn
            );
        }
    }
    println!("{} moments, {torn} of those looked at torn: nothing answered is lost", moments.len());
    assert!(moments.len() > 20 && torn > 5, "{} moments, {torn} torn", moments.len());
}

/// Entries, by their keys, of a sound database or of none.
fn read(disk: &Disk) -> BTreeMap<String, u64> {
    let scratch = tempfile::tempdir().unwrap();
    let state = scratch.path().join("state");
    disk.write(&state).unwrap();
    let file = state.join("kv.db");
    if !file.exists() {
        return BTreeMap::new();
    }
    let db = Connection::open(file).unwrap();
    let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let is_there = "SELECT 1 FROM sqlite_schema WHERE name = 'entries'";
    if db.query_row(is_there, [], |_| Ok(())).optional().unwrap().is_none() {
        return BTreeMap::new();
    }
    let mut statement = db.prepare("SELECT CAST(key AS TEXT), CAST(value AS TEXT) FROM entries WHERE CAST(key AS TEXT) LIKE 'w%'").unwrap();
    let entries = statement.query_map([], |row| {
        let value: String = row.get(1)?;
        Ok((row.get(0)?, value.parse().unwrap()))
    });
    entries.unwrap().map(Result::unwrap).collect()
}
