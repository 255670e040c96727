//! The whole service over real files: what is answered, what is on the disk, and who waits for whom.

mod kills;
mod room;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use super::*;

fn share() -> Share {
    Share { bytes: 1 << 30, stores: 64, databases: 16 }
}

fn state(directory: &Path) -> State {
    with(directory, share())
}

fn with(directory: &Path, share: Share) -> State {
    State::new(Some(Place::Directory(directory.to_owned())), share)
}

fn name(name: &str) -> KeptName {
    name.parse().unwrap()
}

fn entry(key: &str, value: &[u8]) -> Entry {
    Entry { key: key.to_owned(), value: value.to_owned(), expires: None }
}

async fn set(state: &State, store: Store, key: &str, value: &[u8]) -> Result<(), Fault> {
    state.keyvalue().set(store, vec![entry(key, value)], Sync::Full).await
}

async fn get(state: &State, store: Store, key: &str) -> Result<Option<Vec<u8>>, Fault> {
    state.keyvalue().get(store, key.to_owned()).await
}

async fn opened(state: &State) -> Store {
    state.keyvalue().open(name("default")).await.unwrap()
}

/// In the order in which they were asked.
async fn all<T: Send + 'static>(
    asked: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let asked: Vec<_> = asked.into_iter().map(tokio::spawn).collect();
    let mut done = Vec::with_capacity(asked.len());
    for asked in asked {
        done.push(asked.await.unwrap());
    }
    done
}

fn files(directory: &TempDir) -> Vec<String> {
    let found = std::fs::read_dir(directory.path()).unwrap().flatten();
    let mut names: Vec<_> = found.map(|it| it.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn nothing_is_there_before_the_first_use() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path());
    let _handle = state.keyvalue();
    assert_eq!(files(&directory), [""; 0]);
    state.start().unwrap();
    assert_eq!(files(&directory), [""; 0]);
    opened(&state).await;
    assert_eq!(files(&directory), ["kv.db", "kv.db-shm", "kv.db-wal", "turn"]);

    let none = State::new(None, share());
    none.start().unwrap();
    assert_eq!(none.keyvalue().open(name("default")).await, Err(Fault::NoState));
    assert_eq!(none.database(&name("default")).await, Err(Fault::NoState));
}

#[tokio::test]
async fn what_is_answered_is_seen_by_whoever_asks_next() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (state(directory.path()), state(directory.path()));
    let store = opened(&one).await;
    assert_eq!(opened(&two).await, store);
    for round in 0..50_u8 {
        set(&one, store, "a", &[round]).await.unwrap();
        assert_eq!(get(&one, store, "a").await.unwrap(), Some(vec![round]));
        assert_eq!(get(&two, store, "a").await.unwrap(), Some(vec![round]));
        set(&two, store, "b", &[round]).await.unwrap();
        assert_eq!(
            one.keyvalue().get_many(store, vec!["b".to_owned(), "c".to_owned()]).await.unwrap(),
            [Some(vec![round]), None]
        );
    }
    // A long value is read elsewhere, and is the same.
    set(&one, store, "long", &vec![7; 1 << 20]).await.unwrap();
    assert_eq!(get(&two, store, "long").await.unwrap().unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn writes_that_come_together_share_their_syncs() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path());
    let store = opened(&state).await;
    let before = state.service.groups();
    let asked = (0..640).map(|n| {
        let state = state.clone();
        async move { set(&state, store, &format!("key {n}"), b"value").await }
    });
    assert!(all(asked).await.iter().all(Result::is_ok));
    let groups = state.service.groups() - before;
    assert!((10..=80).contains(&groups), "640 writes were {groups} groups");
    // One after the other, each has its own.
    for n in 0..3 {
        set(&state, store, &format!("key {n}"), b"value").await.unwrap();
    }
    assert_eq!(state.service.groups() - before - groups, 3);
}

#[tokio::test]
async fn counters_of_two_workers_at_once_lose_nothing_and_nobody_waits_long() {
    let directory = tempfile::tempdir().unwrap();
    let workers = [state(directory.path()), state(directory.path())];
    let store = opened(&workers[0]).await;
    let one_by_one = |worker: State, times: i64| async move {
        let mut longest = Duration::ZERO;
        for _ in 0..times {
            let began = Instant::now();
            let stores = worker.keyvalue();
            stores.increment(store, "n".to_owned(), 1, Sync::Full).await.unwrap();
            longest = longest.max(began.elapsed());
        }
        longest
    };
    // One writes in large groups, the other a write at a time.
    let mut asked: Vec<_> = (0..64).map(|_| one_by_one(workers[0].clone(), 10)).collect();
    asked.push(one_by_one(workers[1].clone(), 100));
    let longest = all(asked).await.into_iter().max().unwrap();
    assert!(longest < Duration::from_secs(2), "one waited for {longest:?}");
    let n = workers[1].keyvalue().increment(store, "n".to_owned(), 0, Sync::Full).await;
    assert_eq!(n.unwrap(), 740);
}

#[tokio::test]
async fn a_job_that_fails_or_ends_the_transaction_harms_nobody_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path());
    let database = state.database(&name("default")).await.unwrap();
    let make = |db: &Connection| Ok(db.execute_batch("CREATE TABLE t (a UNIQUE)")?);
    state.write(database, false, make).await.unwrap();
    let asked = (0..60).map(|n| {
        let state = state.clone();
        async move {
            let job = move |db: &Connection| {
                db.execute("INSERT INTO t VALUES (?)", [n])?;
                match n % 6 {
                    4 => Err(Fault::Interrupted),
                    5 => Ok(db.execute_batch(&format!("INSERT OR ROLLBACK INTO t VALUES ({n})"))?),
                    _ => Ok(()),
                }
            };
            state.write(database, false, job).await
        }
    });
    for (n, done) in all(asked).await.into_iter().enumerate() {
        assert_eq!(done.is_ok(), n % 6 < 4, "{n}: {done:?}");
    }
    let count = |db: &Connection| Ok(db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?);
    assert_eq!(state.read(database, count).await, Ok(40));
    // Readers change nothing, and see one moment.
    let change = |db: &Connection| Ok(db.execute_batch("INSERT INTO t VALUES (99)")?);
    assert!(state.read(database, change).await.is_err());
    assert_eq!(state.read(database, count).await, Ok(40));
}

#[tokio::test]
async fn one_that_panics_is_answered_and_the_threads_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path());
    let database = state.database(&name("default")).await.unwrap();
    let panics = |_: &Connection| -> Result<(), Fault> { panic!("as a defect does") };
    assert_eq!(state.write(database, false, panics).await, Err(Fault::Broken));
    for _ in 0..4 {
        assert_eq!(state.read(database, panics).await, Err(Fault::Broken));
    }
    assert_eq!(state.write(database, false, |_| Ok(7)).await, Ok(7));
    assert_eq!(state.read(database, |_| Ok(8)).await, Ok(8));
}

#[tokio::test]
async fn after_a_failed_sync_nothing_more_is_written_there_and_reads_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path());
    let store = opened(&state).await;
    set(&state, store, "a", b"1").await.unwrap();
    let database = state.database(&name("default")).await.unwrap();
    let other = state.database(&name("other")).await.unwrap();
    // As SQLite has it where a sync fails: the transaction is gone, and this is why.
    let fails = |db: &Connection| -> Result<(), Fault> {
        db.execute_batch("ROLLBACK")?;
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
        Err(rusqlite::Error::SqliteFailure(code, None))?
    };
    assert_eq!(state.write(database, false, fails).await, Err(Fault::ReadOnly));
    assert_eq!(state.write(database, false, |_| Ok(())).await, Err(Fault::ReadOnly));
    assert_eq!(state.read(database, |_| Ok(())).await, Ok(()));
    // The others are written to as before; and so is that one by the next worker.
    assert_eq!(state.write(other, false, |_| Ok(())).await, Ok(()));
    set(&state, store, "a", b"2").await.unwrap();
    let next = with(directory.path(), share());
    assert_eq!(next.write(database, false, |_| Ok(())).await, Ok(()));
}

#[tokio::test]
async fn what_is_dropped_before_its_turn_is_not_done() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path());
    let store = opened(&state).await;
    let database = state.database(&name("default")).await.unwrap();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let holds = state.clone();
    let holding = tokio::spawn(async move {
        let job = move |_: &Connection| {
            begun.send(()).unwrap();
            let _ = goes.recv();
            Ok(())
        };
        holds.write(database, true, job).await
    });
    tokio::task::yield_now().await;
    has_begun.recv_timeout(Duration::from_secs(10)).unwrap();
    let dropped = tokio::spawn({
        let state = state.clone();
        async move { set(&state, store, "dropped", b"").await }
    });
    tokio::task::yield_now().await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    go.send(()).unwrap();
    holding.await.unwrap().unwrap();
    set(&state, store, "kept", b"").await.unwrap();
    let keys = state.keyvalue().keys(store, String::new(), After::Start, 10).await.unwrap();
    assert_eq!(keys.keys.iter().map(|(key, _)| &**key).collect::<Vec<_>>(), ["kept"]);
}

#[tokio::test]
async fn entries_expire_for_every_way_to_them_and_are_swept() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path());
    let store = opened(&state).await;
    let now = SystemTime::now();
    let (gone, stays) = (now - Duration::from_secs(1), now + Duration::from_secs(3_600));
    let entries = [("gone", gone), ("stays", stays)]
        .map(|(key, expires)| Entry { expires: Some(expires), ..entry(key, b"1") });
    let stores = state.keyvalue();
    stores.set(store, entries.to_vec(), Sync::Full).await.unwrap();
    assert_eq!(get(&state, store, "gone").await.unwrap(), None);
    assert_eq!(stores.stands(store, "gone".to_owned()).await.unwrap(), Stands::Missing);
    assert!(matches!(stores.stands(store, "stays".to_owned()).await.unwrap(), Stands::Until(_)));
    assert_eq!(stores.delete(store, vec!["gone".to_owned()], Sync::Full).await.unwrap(), 0);
    let keys = stores.keys(store, String::new(), After::Start, 10).await.unwrap();
    assert_eq!(keys.keys.len(), 1);
    assert!(!stores.expire(store, "gone".to_owned(), None, Sync::Full).await.unwrap());
    assert!(stores.expire(store, "stays".to_owned(), None, Sync::Full).await.unwrap());
    assert_eq!(stores.stands(store, "stays".to_owned()).await.unwrap(), Stands::Stays);

    // Another worker sweeps what it finds with its first write.
    let later = Entry { expires: Some(gone), ..entry("gone", b"") };
    stores.set(store, vec![later], Sync::Full).await.unwrap();
    let next = with(directory.path(), share());
    set(&next, store, "new", b"").await.unwrap();
    // The writer tidies up behind its reply, and before its next one.
    set(&next, store, "new", b"").await.unwrap();
    let rows = |db: &Connection| {
        Ok(db.query_row("SELECT count(*) FROM entries", [], |row| row.get::<_, i64>(0))?)
    };
    assert_eq!(next.service.read(DatabaseFile::Stores, rows).await.unwrap(), 2);
}

#[tokio::test]
async fn beyond_a_bound_nothing_is_done_and_nothing_cut() {
    let directory = tempfile::tempdir().unwrap();
    let state = with(directory.path(), Share { stores: 2, databases: 1, ..share() });
    let (store, stores) = (opened(&state).await, state.keyvalue());
    let long = "k".repeat(1 << 10);
    set(&state, store, &long, &vec![1; 1 << 20]).await.unwrap();
    assert_eq!(get(&state, store, &long).await.unwrap().unwrap().len(), 1 << 20);
    let too_long = long + "k";
    let key = Fault::TooLarge { what: "key", most: 1 << 10 };
    assert_eq!(set(&state, store, &too_long, b"").await, Err(key.clone()));
    assert_eq!(get(&state, store, &too_long).await, Err(key));
    let value = Fault::TooLarge { what: "value", most: 1 << 20 };
    assert_eq!(set(&state, store, "a", &vec![1; (1 << 20) + 1]).await, Err(value));
    assert_eq!(get(&state, store, "a").await.unwrap(), None);
    let many = vec![String::new(); 10_001];
    let refused = stores.get_many(store, many).await;
    assert_eq!(refused, Err(Fault::TooManyAtOnce { most: 10_000 }));
    // As many as fit come back in one piece, and no more.
    let keys = vec!["k".repeat(1 << 10); 17];
    let refused = stores.get_many(store, keys).await;
    assert_eq!(refused, Err(Fault::TooLarge { what: "batch", most: 16 << 20 }));

    stores.open(name("second")).await.unwrap();
    let refused = stores.open(name("third")).await;
    assert_eq!(refused, Err(Fault::TooMany { what: "stores", most: 2 }));
    assert_eq!(stores.find(name("third")).await, Ok(None));
    state.database(&name("one")).await.unwrap();
    let refused = state.database(&name("two")).await;
    assert_eq!(refused, Err(Fault::TooMany { what: "databases", most: 1 }));
    assert_eq!(stores.stores(None, 9).await.unwrap(), [name("default"), name("second")]);
    assert_eq!(state.databases(None, 9).await.unwrap(), [name("one")]);
}

#[tokio::test]
async fn a_name_is_never_a_path() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path());
    for given in ["..", ".", "kv.db", "1.db", "turn"] {
        let database = state.database(&name(given)).await.unwrap();
        assert_eq!(state.find_database(&name(given)).await, Ok(Some(database)));
        state.write(database, false, |_| Ok(())).await.unwrap();
        state.keyvalue().open(name(given)).await.unwrap();
    }
    let mut bases = files(&directory);
    bases.retain(|it| !it.ends_with("-shm") && !it.ends_with("-wal"));
    let expected = ["1.db", "2.db", "3.db", "4.db", "5.db", "kv.db", "names.db", "turn"];
    assert_eq!(bases, expected);
}

#[tokio::test]
async fn a_relaxed_write_is_read_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let before = state(directory.path());
    let store = opened(&before).await;
    let stores = before.keyvalue();
    stores.set(store, vec![entry("a", b"1")], Sync::Relaxed).await.unwrap();
    assert_eq!(get(&before, store, "a").await.unwrap().unwrap(), b"1");
    set(&before, store, "b", b"2").await.unwrap();
    drop((before, stores));
    let next = state(directory.path());
    assert_eq!(get(&next, store, "a").await.unwrap().unwrap(), b"1");
}

#[tokio::test]
async fn a_swap_is_won_by_one_of_many() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path());
    let store = opened(&state).await;
    let asked = (0..32_u8).map(|n| {
        let stores = state.keyvalue();
        async move {
            let was = stores.current(store, "a".to_owned()).await.unwrap().version;
            stores.swap(store, "a".to_owned(), was, vec![n], Sync::Full).await.unwrap().is_ok()
        }
    });
    let won = all(asked).await.into_iter().filter(|won| *won).count();
    assert!(won >= 1, "none won");
    let stores = state.keyvalue();
    let now = stores.current(store, "a".to_owned()).await.unwrap();
    set(&state, store, "a", b"other").await.unwrap();
    let late = stores.swap(store, "a".to_owned(), now.version, vec![], Sync::Full).await.unwrap();
    assert_eq!(late.unwrap_err().value.as_deref(), Some(&b"other"[..]));
}
