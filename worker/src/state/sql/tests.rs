//! Statements on real files, set up as the state's own connections are: one that changes, in a
//! savepoint for each statement, and one that only reads.

mod batches;
mod bounds;
mod fuzz;
mod hostile;
mod scripts;
mod sessions;
mod statements;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hearth_host::sql::Value;
use rusqlite::Connection;
use tempfile::TempDir;

use super::guard::{self, Counts, Gone};
use super::statement::{Asked, Bounds, On, Outcome, Ran, Terms, run};
use super::{STATEMENT_MAX, terms};
use crate::state::Fault;

struct Database {
    directory: TempDir,
    writer: Connection,
    reader: Connection,
}

fn open(file: &Path) -> Connection {
    let mut connection = Connection::open(file).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.pragma_update(None, "synchronous", "off").unwrap();
    connection.pragma_update(None, "temp_store", "memory").unwrap();
    guard::set_up(&mut connection, || false).unwrap();
    connection
}

impl Database {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("1.db");
        let writer = open(&file);
        let reader = open(&file);
        reader.pragma_update(None, "query_only", true).unwrap();
        Self { directory, writer, reader }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("1.db")
    }

    /// As the writer's thread does.
    fn within<T>(&self, job: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        self.writer.execute_batch("BEGIN IMMEDIATE; SAVEPOINT a").unwrap();
        let done = job(&self.writer);
        if !self.writer.is_autocommit() {
            let end = if done.is_ok() { "RELEASE a; COMMIT" } else { "ROLLBACK" };
            self.writer.execute_batch(end).unwrap();
        }
        done
    }

    fn run(&self, sql: &str, parameters: &[Value], counts: Counts) -> Result<Ran, Fault> {
        let asked = asked(sql, parameters);
        let terms = Terms { counts, ..soon(On::Reader) };
        match run(&self.reader, &asked, &terms)? {
            Ran::WantsToWrite => {
                self.within(|db| run(db, &asked, &Terms { counts, ..soon(On::Writer) }))
            }
            ran => Ok(ran),
        }
    }

    fn with(&self, sql: &str, parameters: &[Value]) -> Result<Outcome, Fault> {
        match self.run(sql, parameters, Counts::default())? {
            Ran::Done(outcome) => Ok(outcome),
            ran => panic!("{sql}: {ran:?}"),
        }
    }

    fn does(&self, sql: &str) -> Result<Outcome, Fault> {
        self.with(sql, &[])
    }

    /// One value.
    fn one(&self, sql: &str) -> Value {
        let rows = self.does(sql).unwrap().rows.rows;
        assert_eq!([rows.len(), rows[0].len()], [1, 1], "{sql}");
        rows[0][0].clone()
    }

    /// What is said of a statement that is refused.
    fn refused(&self, sql: &str) -> String {
        match self.run(sql, &[], Counts::default()) {
            Err(fault) => fault.to_string(),
            Ok(ran) => panic!("{sql}: {ran:?}"),
        }
    }
}

fn asked(sql: &str, parameters: &[Value]) -> Asked {
    Asked { sql: sql.to_owned(), parameters: parameters.to_vec() }
}

fn soon(on: On) -> Terms {
    terms(on, STATEMENT_MAX, &Gone::default())
}

fn late(on: On, time: Duration) -> Terms {
    terms(on, time, &Gone::default())
}

fn bounded(rows: usize, bytes: usize, beyond: super::Beyond) -> Bounds {
    Bounds { rows, bytes, beyond }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}
