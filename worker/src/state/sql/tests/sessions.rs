//! Guests' connections over the state itself: its threads, its groups and its files.

use std::sync::Arc;
use std::time::Instant;

use hearth_host::sql::{BatchError, Statement};

use super::super::own::TRANSACTION_MAX;
use super::super::{Session, Sql, TOGETHER_MAX};
use super::*;
use crate::state::{DatabaseFile, Place, Share, State};

struct Tenant {
    directory: TempDir,
    sql: Sql,
    database: DatabaseFile,
}

impl Tenant {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (sql, database) = worker(&directory).await;
        Self { directory, sql, database }
    }

    fn session(&self) -> Session {
        self.sql.session(self.database)
    }
}

/// One worker of the tenant's.
async fn worker(directory: &TempDir) -> (Sql, DatabaseFile) {
    within(directory, 64 << 20).await
}

async fn within(directory: &TempDir, bytes: u64) -> (Sql, DatabaseFile) {
    let place = Place::Directory(directory.path().to_owned());
    let share = Share { bytes, stores: 64, databases: 16 };
    let state = State::new(Some(place), share);
    let database = state.database(&"default".parse().unwrap()).await.unwrap();
    (Sql::new(state), database)
}

async fn does(session: &Session, sql: &str) -> Outcome {
    match session.run(asked(sql, &[]), Bounds::default()).await {
        Ok(outcome) => outcome,
        Err(fault) => panic!("{sql}: {fault}"),
    }
}

async fn refused(session: &Session, sql: &str) -> String {
    session.run(asked(sql, &[]), Bounds::default()).await.unwrap_err().to_string()
}

async fn one(session: &Session, sql: &str) -> Value {
    does(session, sql).await.rows.rows.remove(0).remove(0)
}

const COUNT: &str = "SELECT count(*) FROM t";

#[tokio::test]
async fn two_connections_and_a_transaction_of_one() {
    let tenant = Tenant::new().await;
    let (one_guest, other) = (tenant.session(), tenant.session());
    does(&one_guest, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)").await;
    does(&one_guest, "BEGIN").await;
    does(&one_guest, "INSERT INTO t (v) VALUES ('a')").await;
    assert_eq!(one(&one_guest, COUNT).await, Value::Integer(1));
    assert_eq!(one_guest.counts().last_insert_rowid, 1);
    // Reading goes on beside it, of what was there before.
    assert_eq!(one(&other, COUNT).await, Value::Integer(0));
    assert_eq!(one(&other, "SELECT last_insert_rowid()").await, Value::Integer(0));
    // And changing waits, without failing.
    let waiting = other.clone();
    let change = tokio::spawn(async move { does(&waiting, "INSERT INTO t VALUES (9, 'b')").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!change.is_finished());
    does(&one_guest, "COMMIT").await;
    assert_eq!(change.await.unwrap().changes, 1);
    assert_eq!(one(&other, COUNT).await, Value::Integer(2));
    assert_eq!(one(&one_guest, "SELECT last_insert_rowid()").await, Value::Integer(1));
    assert_eq!(one(&other, "SELECT last_insert_rowid()").await, Value::Integer(9));
    // Its connection goes on, and what it changes without a transaction is there at once.
    does(&one_guest, "INSERT INTO t (v) VALUES ('c')").await;
    assert_eq!(one(&other, COUNT).await, Value::Integer(3));
    assert_eq!(refused(&one_guest, "COMMIT").await, "cannot commit - no transaction is active");
    let none = "there is no transaction that could be ended";
    assert_eq!(refused(&tenant.session(), "ROLLBACK").await, none);
}

#[tokio::test]
async fn what_is_dropped_is_rolled_back_and_lets_others_go_on() {
    let tenant = Tenant::new().await;
    let other = tenant.session();
    does(&other, "CREATE TABLE t (a)").await;
    for begin in ["BEGIN IMMEDIATE", "SAVEPOINT a", "BEGIN"] {
        let gone = tenant.session();
        does(&gone, begin).await;
        does(&gone, "INSERT INTO t VALUES (1)").await;
        drop(gone);
        let began = Instant::now();
        does(&other, "DELETE FROM t WHERE 0").await;
        assert!(began.elapsed() < Duration::from_secs(2), "{begin}");
        assert_eq!(one(&other, COUNT).await, Value::Integer(0));
    }
}

#[tokio::test]
async fn it_is_rolled_back_after_its_time_and_says_so_until_it_is_ended() {
    let tenant = Tenant::new().await;
    let (slow, other) = (tenant.session(), tenant.session());
    does(&other, "CREATE TABLE t (a)").await;
    does(&slow, "BEGIN").await;
    does(&slow, "INSERT INTO t VALUES (1)").await;
    let began = Instant::now();
    does(&other, "INSERT INTO t VALUES (2)").await;
    let waited = began.elapsed();
    assert!(waited < TRANSACTION_MAX + Duration::from_secs(2), "{waited:?}");
    let expired = "the transaction was rolled back: it was open for more than 5 s";
    assert_eq!(refused(&slow, "INSERT INTO t VALUES (3)").await, expired);
    assert_eq!(refused(&slow, "SELECT 1").await, expired);
    assert_eq!(refused(&slow, "COMMIT").await, expired);
    does(&slow, "INSERT INTO t VALUES (4)").await;
    assert_eq!(one(&other, "SELECT group_concat(a) FROM t").await, text("2,4"));
}

#[tokio::test]
async fn a_temporary_table_and_a_setting_are_its_own() {
    let tenant = Tenant::new().await;
    let (one_guest, other) = (tenant.session(), tenant.session());
    does(&one_guest, "CREATE TEMP TABLE mine (a)").await;
    does(&one_guest, "INSERT INTO mine VALUES (1), (2)").await;
    assert_eq!(one_guest.counts().changes, 2);
    assert_eq!(one(&one_guest, "SELECT count(*) FROM mine").await, Value::Integer(2));
    assert_eq!(refused(&other, "SELECT * FROM mine").await, "no such table: mine");
    does(&one_guest, "PRAGMA foreign_keys = off").await;
    assert_eq!(one(&one_guest, "PRAGMA foreign_keys").await, Value::Integer(0));
    assert_eq!(one(&other, "PRAGMA foreign_keys").await, Value::Integer(1));
}

#[tokio::test]
async fn what_it_read_may_be_too_old_to_be_changed() {
    let tenant = Tenant::new().await;
    let (one_guest, other) = (tenant.session(), tenant.session());
    does(&one_guest, "CREATE TABLE t (a)").await;
    does(&one_guest, "BEGIN").await;
    assert_eq!(one(&one_guest, COUNT).await, Value::Integer(0));
    does(&other, "INSERT INTO t VALUES (1)").await;
    assert_eq!(one(&one_guest, COUNT).await, Value::Integer(0));
    let said = refused(&one_guest, "INSERT INTO t VALUES (2)").await;
    assert!(said.contains("was changed since the transaction began"), "{said}");
    does(&one_guest, "ROLLBACK").await;
    does(&one_guest, "BEGIN IMMEDIATE").await;
    does(&one_guest, "INSERT INTO t VALUES (2)").await;
    does(&one_guest, "COMMIT").await;
    assert_eq!(one(&other, COUNT).await, Value::Integer(2));
}

#[tokio::test]
async fn workers_that_overlap_wait_for_each_others_transactions() {
    let tenant = Tenant::new().await;
    let (sql, database) = worker(&tenant.directory).await;
    let (old, new) = (tenant.session(), sql.session(database));
    does(&old, "CREATE TABLE t (a)").await;
    does(&old, "BEGIN IMMEDIATE").await;
    does(&old, "INSERT INTO t VALUES (1)").await;
    let waiting = new.clone();
    let change = tokio::spawn(async move { does(&waiting, "INSERT INTO t VALUES (2)").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    does(&old, "COMMIT").await;
    assert_eq!(change.await.unwrap().changes, 1);
    assert_eq!(one(&new, COUNT).await, Value::Integer(2));
}

#[tokio::test]
async fn a_call_that_ends_stops_its_statement() {
    let tenant = Tenant::new().await;
    let session = tenant.session();
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
        SELECT count(*) FROM n";
    for own in [false, true] {
        if own {
            does(&session, "BEGIN").await;
        }
        let began = Instant::now();
        let run = session.run(asked(endless, &[]), Bounds::default());
        let given_up = tokio::time::timeout(Duration::from_millis(100), run).await;
        assert!(given_up.is_err());
        assert_eq!(one(&session, "SELECT 1").await, Value::Integer(1));
        assert!(began.elapsed() < Duration::from_secs(2), "{own}");
    }
}

#[tokio::test]
async fn a_slow_change_goes_alone() {
    let tenant = Tenant::new().await;
    let session = tenant.session();
    does(&session, "CREATE TABLE t (a)").await;
    let slow = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
        INSERT INTO t SELECT i FROM n WHERE i < 0";
    let began = Instant::now();
    assert!(refused(&session, slow).await.contains("longer than it may"));
    let first = began.elapsed();
    assert!(first >= TOGETHER_MAX + STATEMENT_MAX, "{first:?}");
    // It is known from then on.
    let began = Instant::now();
    assert!(refused(&session, slow).await.contains("longer than it may"));
    assert!(began.elapsed() < first);
    assert_eq!(one(&session, COUNT).await, Value::Integer(0));
}

#[tokio::test]
async fn a_batch_counts_whole_and_is_refused_whole() {
    let tenant = Tenant::new().await;
    let session = tenant.session();
    does(&session, "CREATE TABLE t (a UNIQUE)").await;
    let statement = |sql: &str, rows| Statement { sql: sql.to_owned(), parameters: vec![], rows };
    let batch = |second: Statement| {
        tenant
            .sql
            .batch(tenant.database, vec![statement("INSERT INTO t VALUES (1)", Some(1)), second])
    };
    let refused = batch(statement("DELETE FROM t WHERE a > 1", Some(1))).await.unwrap_err();
    assert_eq!(refused, BatchError::Rows { place: 1, expected: 1, changed: 0 });
    let rolled_back = batch(statement("INSERT OR ROLLBACK INTO t VALUES (1)", None)).await;
    assert!(matches!(rolled_back, Err(BatchError::Refused { place: 1, .. })), "{rolled_back:?}");
    assert_eq!(one(&session, COUNT).await, Value::Integer(0));
    let done = batch(statement("INSERT INTO t VALUES (2) RETURNING a", Some(1))).await.unwrap();
    assert_eq!(done[1].rows.rows, [[Value::Integer(2)]]);
    assert_eq!(one(&session, COUNT).await, Value::Integer(2));
}

#[tokio::test]
async fn many_at_once_are_all_there() {
    let tenant = Tenant::new().await;
    does(&tenant.session(), "CREATE TABLE t (a)").await;
    let sql = Arc::new(tenant.sql.clone());
    let changes = (0..64).map(|number| {
        let session = sql.session(tenant.database);
        tokio::spawn(async move {
            does(&session, &format!("INSERT INTO t VALUES ({number})")).await;
            session.counts().last_insert_rowid
        })
    });
    let mut rows = Vec::new();
    for change in changes.collect::<Vec<_>>() {
        rows.push(change.await.unwrap());
    }
    rows.sort_unstable();
    assert_eq!(rows, (1..=64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_database_goes_out_and_comes_in() {
    let tenant = Tenant::new().await;
    let session = tenant.session();
    does(&session, "CREATE TABLE t (a)").await;
    does(&session, "INSERT INTO t VALUES (1), ('two')").await;
    let mut pieces = tenant.sql.export(tenant.database);
    let mut script = String::new();
    while let Some(piece) = pieces.recv().await {
        script.push_str(&piece.unwrap());
    }
    let other = Tenant::new().await;
    let imported = other.sql.import(other.database, script).await.unwrap();
    assert_eq!((imported.statements, imported.changes), (3, 2));
    assert_eq!(one(&other.session(), COUNT).await, Value::Integer(2));
}

#[tokio::test]
async fn the_room_is_bounded_and_reading_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::Directory(directory.path().to_owned());
    let state = State::new(Some(place), Share { bytes: 1 << 20, stores: 1, databases: 1 });
    let database = state.database(&"default".parse().unwrap()).await.unwrap();
    let sql = Sql::new(state);
    for own in [false, true] {
        let session = sql.session(database);
        does(&session, "CREATE TABLE IF NOT EXISTS t (a)").await;
        if own {
            does(&session, "CREATE TEMP TABLE mine (a)").await;
        }
        let insert = asked("INSERT INTO t VALUES (zeroblob(50000))", &[]);
        let full = loop {
            if let Err(fault) = session.run(insert.clone(), Bounds::default()).await {
                break fault;
            }
        };
        assert_eq!(full, Fault::Full);
        let Value::Integer(kept) = one(&session, COUNT).await else { panic!() };
        assert!(kept > 0);
        does(&session, "DELETE FROM t").await;
    }
}

#[tokio::test]
async fn what_people_ask_is_cut_and_leaves_nothing_open() {
    let tenant = Tenant::new().await;
    let session = tenant.session();
    does(&session, "CREATE TABLE t (a)").await;
    does(&session, "INSERT INTO t VALUES (1), (2), (3)").await;
    let bounds = bounded(2, 1 << 20, super::super::Beyond::Cut);
    let ask = |sql: &str| tenant.sql.query(tenant.database, asked(sql, &[]), bounds);
    let found = ask("SELECT a FROM t").await.unwrap();
    assert_eq!((found.rows.rows.len(), found.is_cut), (2, true));
    let changed = ask("UPDATE t SET a = 0 WHERE a > 1").await.unwrap();
    assert_eq!((changed.changes, changed.is_cut), (2, false));
    ask("BEGIN IMMEDIATE").await.unwrap();
    does(&session, "INSERT INTO t VALUES (4)").await;
}

/// What a statement changes is in the log besides the file, until it is emptied.
#[tokio::test]
async fn what_a_statement_writes_is_within_the_share() {
    const SHARE: u64 = 16 << 20;
    let directory = tempfile::tempdir().unwrap();
    let (sql, database) = within(&directory, SHARE).await;
    let taken = || {
        let files = std::fs::read_dir(directory.path()).unwrap().flatten();
        let files = files.filter(|it| !it.file_name().as_encoded_bytes().ends_with(b"-shm"));
        files.map(|it| it.metadata().unwrap().len()).sum::<u64>()
    };
    let numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 13000)";
    let session = sql.session(database);
    does(&session, "CREATE TABLE t (a INTEGER PRIMARY KEY, b)").await;
    does(&session, &format!("{numbers} INSERT INTO t SELECT i, randomblob(800) FROM n")).await;
    let again = format!(
        "{numbers}, m (j) AS (SELECT 1 UNION ALL SELECT j + 1 FROM m LIMIT 20)
         INSERT INTO t SELECT i, randomblob(800) FROM m CROSS JOIN n WHERE true
         ON CONFLICT (a) DO UPDATE SET b = excluded.b"
    );
    for own in [false, true] {
        if own {
            does(&session, "BEGIN IMMEDIATE").await;
        }
        let fault = session.run(asked(&again, &[]), Bounds::default()).await.unwrap_err();
        assert_eq!(fault, Fault::Full, "{own}");
        // What is written between two looks is little.
        assert!(taken() < SHARE + SHARE / 4, "{own}: {}", taken());
        if own {
            let _ = session.run(asked("ROLLBACK", &[]), Bounds::default()).await;
        }
        assert_eq!(one(&session, "SELECT count(*) FROM t").await, Value::Integer(13_000));
        does(&session, "DELETE FROM t WHERE a = 1").await;
        does(&session, "INSERT INTO t VALUES (1, 'there is room')").await;
    }
    let integrity = Connection::open(directory.path().join("1.db")).unwrap();
    let sound: String =
        integrity.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_written_on_any_connection() {
    let tenant = Tenant::new().await;
    let (open, shared, new) = (tenant.session(), tenant.session(), tenant.session());
    does(&shared, "CREATE TABLE t (a)").await;
    does(&open, "BEGIN IMMEDIATE").await;
    does(&open, "INSERT INTO t VALUES (1)").await;
    // As whoever's sync it was takes note of it.
    tenant.sql.state.beside(tenant.database).unwrap().note(&Fault::ReadOnly);
    let over = Fault::ReadOnly.to_string();
    assert_eq!(refused(&open, "INSERT INTO t VALUES (2)").await, over);
    assert_eq!(refused(&open, "COMMIT").await, over);
    does(&open, "ROLLBACK").await;
    assert_eq!(refused(&shared, "INSERT INTO t VALUES (3)").await, over);
    assert_eq!(refused(&new, "BEGIN IMMEDIATE").await, over);
    assert_eq!(one(&new, COUNT).await, Value::Integer(0));
    let other = tenant.sql.state.database(&"other".parse().unwrap()).await.unwrap();
    does(&tenant.sql.session(other), "CREATE TABLE t (a)").await;
}

/// Of what is removed in one file the others have the room.
#[tokio::test]
async fn room_that_is_made_in_one_database_is_another_ones() {
    let directory = tempfile::tempdir().unwrap();
    let (sql, database) = within(&directory, 16 << 20).await;
    let other = sql.state.database(&"other".parse().unwrap()).await.unwrap();
    let (session, beside) = (sql.session(database), sql.session(other));
    does(&session, "CREATE TABLE t (b)").await;
    does(&beside, "CREATE TABLE t (b)").await;
    let insert = "INSERT INTO t VALUES (zeroblob(1000000))";
    let mut taken = 0;
    while session.run(asked(insert, &[]), Bounds::default()).await.is_ok() {
        taken += 1;
    }
    assert!(taken > 8, "{taken}");
    assert_eq!(refused(&beside, insert).await, Fault::Full.to_string());
    does(&session, "DELETE FROM t").await;
    // It was looked for just now.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for _ in 0..taken - 2 {
        does(&beside, insert).await;
    }
}

/// As long as somebody's transaction has the lock.
#[tokio::test]
async fn a_second_transaction_waits_for_the_first_one() {
    let tenant = Tenant::new().await;
    let (first, second) = (tenant.session(), tenant.session());
    does(&first, "CREATE TABLE t (a)").await;
    does(&first, "BEGIN IMMEDIATE").await;
    does(&first, "INSERT INTO t VALUES (1)").await;
    let waiting = tokio::spawn(async move {
        for sql in ["BEGIN IMMEDIATE", "INSERT INTO t VALUES (2)", "COMMIT"] {
            does(&second, sql).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!waiting.is_finished());
    does(&first, "COMMIT").await;
    waiting.await.unwrap();
    assert_eq!(one(&first, COUNT).await, Value::Integer(2));
}
