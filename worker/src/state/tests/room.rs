//! Full shares, long WALs and damaged files.

use super::*;

fn bytes(directory: &TempDir) -> u64 {
    let found = std::fs::read_dir(directory.path()).unwrap().flatten();
    let found = found.filter(|it| !it.file_name().to_str().unwrap().ends_with("-shm"));
    found.map(|it| it.metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn a_full_share_refuses_writes_serves_reads_and_takes_what_was_made_room_for() {
    const SHARE: u64 = 4 << 20;
    let directory = tempfile::tempdir().unwrap();
    let state = with(directory.path(), Share { bytes: SHARE, ..share() });
    let store = opened(&state).await;
    let value = vec![7; 100_000];
    let mut written = 0;
    let refused = loop {
        match set(&state, store, &format!("key {written:03}"), &value).await {
            Ok(()) => written += 1,
            Err(fault) => break fault,
        }
        assert!(written < 60, "more was taken than there is room for");
    };
    assert_eq!(refused, Fault::Full);
    assert!(written > 20, "only {written} were taken");
    assert!(bytes(&directory) <= SHARE, "{} bytes", bytes(&directory));
    // A database has no room either, be it new or old.
    let database = state.database(&name("default")).await;
    if let Ok(database) = database {
        let fill = |db: &Connection| {
            let sql = "CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(2000000))";
            Ok(db.execute_batch(sql)?)
        };
        assert_eq!(state.write(database, false, fill).await, Err(Fault::Full));
    }

    assert_eq!(get(&state, store, "key 000").await.unwrap().unwrap(), value);
    let keys = (0..10).map(|n| format!("key {n:03}")).collect();
    assert_eq!(state.keyvalue().delete(store, keys, Sync::Full).await.unwrap(), 10);
    for n in 0..8 {
        set(&state, store, &format!("again {n}"), &value).await.unwrap();
    }
    assert!(bytes(&directory) <= SHARE, "{} bytes", bytes(&directory));
}

#[tokio::test]
async fn entries_are_overwritten_for_ever_within_their_room() {
    let directory = tempfile::tempdir().unwrap();
    let state = with(directory.path(), Share { bytes: 16 << 20, ..share() });
    let store = opened(&state).await;
    for n in 0..200_u8 {
        set(&state, store, "a", &vec![n; 200_000]).await.unwrap();
        assert!(bytes(&directory) <= 5 << 20, "{} bytes", bytes(&directory));
    }
}

#[tokio::test]
async fn a_reader_that_stays_makes_writers_wait_for_room_and_not_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let state = with(directory.path(), Share { bytes: 4 << 20, ..share() });
    let store = opened(&state).await;
    set(&state, store, "a", b"before").await.unwrap();
    let mut reader = Connection::open(directory.path().join("kv.db")).unwrap();
    let reading = reader.transaction().unwrap();
    let rows: i64 =
        reading.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
    let mut refused = false;
    for n in 0..100_u8 {
        match set(&state, store, "a", &vec![n; 100_000]).await {
            Ok(()) => {}
            Err(Fault::Full) => {
                refused = true;
                break;
            }
            Err(fault) => panic!("{fault:?}"),
        }
    }
    assert!(refused, "the WAL grew without end");
    assert!(bytes(&directory) <= 4 << 20, "{} bytes", bytes(&directory));
    reading.finish().unwrap();
    set(&state, store, "a", &vec![1; 100_000]).await.unwrap();
}

#[tokio::test]
async fn files_that_were_closed_keep_their_wals() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path());
    let store = opened(&state).await;
    set(&state, store, "a", b"1").await.unwrap();
    drop(state);
    // When the threads have ended, nobody has the file open any more.
    let wait = Instant::now();
    while std::fs::metadata(directory.path().join("kv.db")).unwrap().len() < 5 * 4096 {
        assert!(wait.elapsed() < Duration::from_secs(10), "the file was not closed");
        tokio::task::yield_now().await;
    }
    assert!(files(&directory).contains(&"kv.db-wal".to_owned()));
}

#[tokio::test]
async fn what_is_deleted_is_given_back_to_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path());
    let (store, stores) = (opened(&state).await, state.keyvalue());
    let keys: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    for key in &keys {
        set(&state, store, key, &vec![7; 1 << 20]).await.unwrap();
    }
    let before = bytes(&directory);
    stores.delete(store, keys, Sync::Full).await.unwrap();
    let began = Instant::now();
    while bytes(&directory) > before / 2 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} bytes", bytes(&directory));
        set(&state, store, "a", b"").await.unwrap();
    }
}

/// Writes over the middle of a file, whose header stays.
fn damage(directory: &TempDir, file: &str) {
    use std::os::unix::fs::FileExt;
    let path = directory.path().join(file);
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let bytes = file.metadata().unwrap().len();
    assert!(bytes > 100, "there is nothing to be damaged");
    file.write_all_at(&vec![0x5A; bytes as usize - 100], 100).unwrap();
}

/// A store and two databases with something in them, all of it in the files and nothing in WALs.
async fn filled(directory: &TempDir) {
    let state = state(directory.path());
    let store = opened(&state).await;
    set(&state, store, "a", b"1").await.unwrap();
    for given in ["one", "two"] {
        let database = state.database(&name(given)).await.unwrap();
        let fill =
            |db: &Connection| Ok(db.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)")?);
        state.write(database, false, fill).await.unwrap();
    }
    drop(state);
    for file in ["kv.db", "names.db", "1.db", "2.db"] {
        let db = Connection::open(directory.path().join(file)).unwrap();
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }
}

fn count(db: &Connection) -> Result<i64, Fault> {
    Ok(db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)
}

#[tokio::test]
async fn a_damaged_database_takes_nothing_else_out_of_service() {
    let directory = tempfile::tempdir().unwrap();
    filled(&directory).await;
    damage(&directory, "1.db");
    let state = state(directory.path());
    let one = state.database(&name("one")).await.unwrap();
    let two = state.database(&name("two")).await.unwrap();
    let said = state.read(one, count).await.unwrap_err();
    assert_eq!(said.to_string(), "the database is damaged: restore it from a backup");
    assert_eq!(state.read(two, count).await, Ok(1));
    let store = opened(&state).await;
    assert_eq!(get(&state, store, "a").await.unwrap().unwrap(), b"1");
    set(&state, store, "a", b"2").await.unwrap();
}

#[tokio::test]
async fn damaged_stores_take_no_database_out_of_service() {
    let directory = tempfile::tempdir().unwrap();
    filled(&directory).await;
    damage(&directory, "kv.db");
    let state = state(directory.path());
    let said = state.keyvalue().open(name("default")).await.unwrap_err();
    assert_eq!(
        said.to_string(),
        "the file of the key-value stores is damaged: restore it from a backup"
    );
    let one = state.database(&name("one")).await.unwrap();
    assert_eq!(state.read(one, count).await, Ok(1));
    state.write(one, false, |db| Ok(db.execute_batch("INSERT INTO t VALUES (2)")?)).await.unwrap();
}
