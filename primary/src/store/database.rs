//! A database of the host's: one SQLite file, one thread that owns its connection, and cheap handles
//! that send it closures over a bounded queue, in which each asker has its turn.
//!
//! An `Ok` of anything that writes means that it is on the disk (WAL, `synchronous=FULL`). Where
//! the disk fails a change, nobody can say whether it is there; from then on nothing is changed
//! until Hearth starts again.
//!
//! What is in it is its owner's: the tables come as a [`Schema`], who asks is a type of its owner's,
//! and rows are read and written in the closures. Where several hosts share what is kept, theirs takes
//! the place of this one.

use std::error::Error;
use std::hash::Hash;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hearth_wire::Code;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, ffi};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::fail::{self, Point};
use crate::fair::Fair;
use crate::fault::{Disk, Fault, Verdict};

/// Closures that the thread has or will have next, of all askers and of one; whoever comes
/// after that waits for a turn. More would not make it quicker, and be in others' way.
const TURNS: usize = 4;
const TURNS_OF_ONE: usize = 2;
/// One more, which closes.
const QUEUE: usize = TURNS + 1;
/// Another process that holds the file (a backup) is waited for this long.
pub const BUSY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error(
        "the database has schema {found}, which a newer version of Hearth wrote; this one knows schemas up to {known}"
    )]
    TooNew { found: i64, known: i64 },
    #[error("the database's thread could not be started")]
    Thread(#[source] io::Error),
    #[error("{}", Disk::Full)]
    Full(#[source] rusqlite::Error),
    #[error("{}", Disk::Failed)]
    Disk(#[source] rusqlite::Error),
    /// What is on the disk may be other than what was told since.
    #[error("no changes are taken since the host's disk failed: mend that, and start Hearth again")]
    ReadOnly,
    #[error("{0}")]
    Damaged(String),
    #[error(
        "{0} was not made by Hearth; give --data an empty directory, or one that is not there yet"
    )]
    Foreign(String),
    #[error("the database failed")]
    Sqlite(#[source] rusqlite::Error),
    #[error("the database is closed")]
    Closed,
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(error),
            Some(ErrorCode::SystemIoFailure | ErrorCode::ReadOnly) => Self::Disk(error),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Sqlite(error),
        }
    }
}

impl Fault for DatabaseError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Full(_) => Disk::Full.into(),
            Self::Disk(_) => Disk::Failed.into(),
            Self::ReadOnly => Verdict::host(Code::StorageFull, self),
            Self::Closed => Verdict::stopping(),
            Self::TooNew { .. }
            | Self::Thread(_)
            | Self::Damaged(_)
            | Self::Foreign(_)
            | Self::Sqlite(_) => Verdict::host(Code::Internal, "the host's store failed"),
        }
    }
}

impl DatabaseError {
    /// With what can be done about it, where a host finds it while it starts.
    fn at_start(self, file: &Path) -> Self {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        match self {
            Self::Damaged(what) => Self::Damaged(format!(
                "{name} is damaged ({what}): put a copy from a backup in its place, or give \
                 --data an empty directory to start anew; nothing was changed"
            )),
            other => other,
        }
    }
}

/// The tables of one database, and how it is called.
pub struct Schema {
    /// Of its thread.
    pub name: &'static str,
    /// The figure that says whether it takes no changes any more.
    pub read_only: &'static str,
    /// Each is applied whole, in one transaction, and never changed afterwards. `PRAGMA user_version`
    /// counts those that were.
    pub steps: &'static [&'static str],
}

enum Request {
    Run(Box<dyn FnOnce(&mut Connection) + Send>),
    /// Answered when the file is closed.
    Close(oneshot::Sender<()>),
}

/// A handle. `A` is on whose behalf something is asked: each has a turn for each of another's.
#[derive(Clone)]
pub struct Database<A: Clone + Eq + Hash> {
    requests: mpsc::Sender<Request>,
    turns: Fair<A>,
    schema: &'static Schema,
    /// Set once, when a change failed on its way to the disk.
    read_only: Arc<AtomicBool>,
    file: Arc<Path>,
}

impl<A: Clone + Eq + Hash + Send + 'static> Database<A> {
    /// Opens the file, made and brought up to date where need be. `begin` is what its owner does
    /// with it before anybody else.
    pub fn open<T, E: From<DatabaseError>>(
        file: &Path,
        schema: &'static Schema,
        begin: impl FnOnce(&mut Connection) -> Result<T, E>,
    ) -> Result<(Self, T), E> {
        let mut connection =
            connect(file, schema).map_err(|error| E::from(error.at_start(file)))?;
        let begun = begin(&mut connection)?;
        let (requests, queue) = mpsc::channel(QUEUE);
        thread::Builder::new()
            .name(schema.name.to_owned())
            .spawn(move || own(connection, queue))
            .map_err(DatabaseError::Thread)?;
        let turns = Fair::new(TURNS, TURNS_OF_ONE);
        let (read_only, file) = (Arc::default(), file.into());
        Ok((Self { requests, turns, schema, read_only, file }, begun))
    }

    /// Finishes what was asked before and closes the file. Later requests are told `Closed`.
    pub async fn close(&self) {
        let (closed, done) = oneshot::channel();
        if self.requests.send(Request::Close(closed)).await.is_ok() {
            // An error means that another close came first, and that is as good.
            let _ = done.await;
        }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether it takes no changes any more. A change that failed may be on the disk all the
    /// same, so what it names must not be removed.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    pub async fn read<T, E>(
        &self,
        asker: A,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
    {
        self.run(asker, move |db| work(db)).await
    }

    /// Runs what comes to one [`change`], where changes are still taken.
    pub async fn write<T, E>(
        &self,
        asker: A,
        work: impl FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Error + Send + 'static,
    {
        let (read_only, schema) = (self.read_only.clone(), self.schema);
        self.run(asker, move |db| {
            if read_only.load(Ordering::Acquire) {
                return Err(DatabaseError::ReadOnly.into());
            }
            work(db).inspect_err(|error| {
                if Disk::behind(error) == Some(Disk::Failed) {
                    read_only.store(true, Ordering::Release);
                    metrics::gauge!(schema.read_only).set(1);
                    let name = schema.name;
                    error!(name, "a database takes no changes any more: its disk failed");
                }
            })
        })
        .await
    }

    /// Runs `work` on the thread, when it is the asker's turn.
    async fn run<T, E>(
        &self,
        asker: A,
        work: impl FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
    {
        let turn = self.turns.turn(asker).await;
        let (reply, answer) = oneshot::channel();
        let run = move |connection: &mut Connection| {
            let done = work(connection);
            drop(turn);
            // Whoever asked may be gone; the work is done all the same.
            let _ = reply.send(done);
        };
        let request = Request::Run(Box::new(run));
        self.requests.send(request).await.map_err(|_| DatabaseError::Closed)?;
        answer.await.map_err(|_| DatabaseError::Closed)?
    }
}

fn own(mut connection: Connection, mut queue: mpsc::Receiver<Request>) {
    while let Some(request) = queue.blocking_recv() {
        match request {
            Request::Run(work) => {
                // It is everybody's thread. A transaction that was open is rolled back, and who
                // asked is told that there is no answer.
                if catch_unwind(AssertUnwindSafe(|| work(&mut connection))).is_err() {
                    error!("a request to a database failed; the others go on");
                }
            }
            Request::Close(closed) => {
                queue.close();
                drop(connection);
                let _ = closed.send(());
                return;
            }
        }
    }
}

fn connect(file: &Path, schema: &Schema) -> Result<Connection, DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY)?;
    if is_foreign(&connection, schema)? {
        let name = file.file_name().unwrap_or_default();
        return Err(DatabaseError::Foreign(name.to_string_lossy().into_owned()));
    }
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_prepared_statement_cache_capacity(64);
    check(&connection)?;
    migrate(&mut connection, schema)?;
    Ok(connection)
}

/// A connection beside the owner's, or to a file that has no owner, which changes nothing.
pub fn read_only(file: &Path) -> Result<Connection, DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// Says what is wrong before anything is built on it.
pub fn check(db: &Connection) -> Result<(), DatabaseError> {
    let found: String = db.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
    if found != "ok" {
        // Its last line says what; those before it, where.
        let what = found.lines().last().unwrap_or_default();
        return Err(DatabaseError::Damaged(what.to_owned()));
    }
    match db.prepare("PRAGMA foreign_key_check")?.exists([])? {
        true => Err(DatabaseError::Damaged("a row refers to one that is not there".to_owned())),
        false => Ok(()),
    }
}

/// Whether a file has tables of somebody else's, before anything is written to it: ours have come
/// with a number.
fn is_foreign(db: &Connection, schema: &Schema) -> Result<bool, DatabaseError> {
    let is_numbered = version(db, schema)? > 0;
    Ok(!is_numbered && db.prepare("SELECT 1 FROM sqlite_master")?.exists([])?)
}

/// Which schema a file has, if this version of Hearth knows it.
pub fn version(db: &Connection, schema: &Schema) -> Result<i64, DatabaseError> {
    let known = schema.steps.len() as i64;
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known { Err(DatabaseError::TooNew { found, known }) } else { Ok(found) }
}

/// Brings a file up to date.
pub fn migrate(db: &mut Connection, schema: &Schema) -> Result<(), DatabaseError> {
    let found = version(db, schema)?;
    for (step, sql) in (1..).zip(schema.steps).filter(|(step, _)| *step > found) {
        change(db, |db| {
            db.execute_batch(sql)?;
            Ok::<_, DatabaseError>(db.pragma_update(None, "user_version", step)?)
        })?;
    }
    Ok(())
}

/// All steps at once, in a file that is empty and that nobody else knows of yet.
pub fn lay_out(db: &Transaction<'_>, schema: &Schema) -> Result<(), DatabaseError> {
    for sql in schema.steps {
        db.execute_batch(sql)?;
    }
    Ok(db.pragma_update(None, "user_version", schema.steps.len() as i64)?)
}

/// Makes a change: all of it is on the disk, or none of it counts.
pub fn change<T, E: From<DatabaseError>>(
    db: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let begun = db.transaction_with_behavior(TransactionBehavior::Immediate);
    let transaction = begun.map_err(DatabaseError::from)?;
    let done = work(&transaction)?;
    fail::step(Point::StoreCommit).map_err(refused_by_disk)?;
    transaction.commit().map_err(DatabaseError::from)?;
    fail::moment(Point::StoreCommitted);
    Ok(done)
}

/// A commit that failed, as SQLite tells of it.
fn refused_by_disk(error: io::Error) -> DatabaseError {
    let code = match Disk::of(&error) {
        Some(Disk::Full) => ffi::SQLITE_FULL,
        Some(Disk::Failed) | None => ffi::SQLITE_IOERR_FSYNC,
    };
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(error.to_string())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As another part of the host has one, of other tables.
    static TIMERS: Schema = Schema {
        name: "timers",
        read_only: "hearth_timers_read_only",
        steps: &["CREATE TABLE timers (id INTEGER PRIMARY KEY, due INTEGER NOT NULL) STRICT"],
    };
    static MORE: Schema = Schema {
        name: "timers",
        read_only: "hearth_timers_read_only",
        steps: &[
            "CREATE TABLE timers (id INTEGER PRIMARY KEY, due INTEGER NOT NULL) STRICT",
            "ALTER TABLE timers ADD COLUMN payload TEXT",
        ],
    };

    type Timers = Database<&'static str>;

    fn nothing(_: &mut Connection) -> Result<(), DatabaseError> {
        Ok(())
    }

    fn open(file: &Path, schema: &'static Schema) -> Result<Timers, DatabaseError> {
        Timers::open(file, schema, nothing).map(|(timers, ())| timers)
    }

    async fn set(timers: &Timers, due: i64) -> Result<i64, DatabaseError> {
        timers
            .write("acme", move |db| {
                change(db, |db| {
                    db.execute("INSERT INTO timers (due) VALUES (?)", [due])?;
                    Ok(db.last_insert_rowid())
                })
            })
            .await
    }

    async fn all(timers: &Timers) -> Result<Vec<i64>, DatabaseError> {
        timers
            .read("acme", |db| {
                let mut statement = db.prepare("SELECT due FROM timers ORDER BY id")?;
                let due = statement.query_map([], |row| row.get(0))?;
                Ok(due.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }

    #[tokio::test]
    async fn a_database_of_other_tables_keeps_what_it_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("timers.db");
        let timers = open(&file, &TIMERS).unwrap();
        set(&timers, 7).await.unwrap();
        // A change that is refused leaves nothing.
        let refused: Result<(), _> = timers
            .write("acme", |db| {
                change(db, |db| {
                    db.execute("INSERT INTO timers (due) VALUES (8)", [])?;
                    Err(DatabaseError::Closed)
                })
            })
            .await;
        assert!(refused.is_err());
        timers.close().await;
        assert!(matches!(all(&timers).await, Err(DatabaseError::Closed)));
        assert!(matches!(set(&timers, 9).await, Err(DatabaseError::Closed)));

        // A newer build brings it up to date, and an older one leaves it alone.
        let more = open(&file, &MORE).unwrap();
        set(&more, 9).await.unwrap();
        assert_eq!(all(&more).await.unwrap(), [7, 9]);
        more.close().await;
        let older = open(&file, &TIMERS).err().unwrap();
        assert!(matches!(older, DatabaseError::TooNew { found: 2, known: 1 }), "{older:?}");
    }

    #[tokio::test]
    async fn a_disk_that_failed_takes_no_more_changes_and_one_that_is_full_does() {
        let directory = tempfile::tempdir().unwrap();
        let timers = open(&directory.path().join("timers.db"), &TIMERS).unwrap();
        let fail = async |code: i32| {
            let failed: Result<(), DatabaseError> = timers
                .write("acme", move |_| {
                    Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None).into())
                })
                .await;
            failed.unwrap_err()
        };
        assert!(matches!(fail(ffi::SQLITE_FULL).await, DatabaseError::Full(_)));
        assert!(!timers.is_read_only());
        set(&timers, 1).await.unwrap();
        assert!(matches!(fail(ffi::SQLITE_IOERR).await, DatabaseError::Disk(_)));
        assert!(timers.is_read_only());
        assert!(matches!(set(&timers, 2).await, Err(DatabaseError::ReadOnly)));
        assert_eq!(all(&timers).await.unwrap(), [1]);
    }

    #[tokio::test]
    async fn work_that_panics_is_its_own_end_only() {
        let directory = tempfile::tempdir().unwrap();
        let timers = open(&directory.path().join("timers.db"), &TIMERS).unwrap();
        let broken: Result<(), DatabaseError> =
            timers.read("acme", |_| panic!("as a defect does")).await;
        assert!(matches!(broken, Err(DatabaseError::Closed)), "{broken:?}");
        set(&timers, 1).await.unwrap();
    }

    #[test]
    fn somebody_elses_file_and_a_damaged_one_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("timers.db");
        Connection::open(&file).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
        let said = open(&file, &TIMERS).err().unwrap().to_string();
        assert!(said.starts_with("timers.db was not made by Hearth"), "{said}");
        std::fs::write(&file, vec![7; 10_000]).unwrap();
        let said = open(&file, &TIMERS).err().unwrap().to_string();
        assert!(said.starts_with("timers.db is damaged ("), "{said}");
    }

    #[test]
    fn the_file_is_as_durable_as_promised() {
        let directory = tempfile::tempdir().unwrap();
        let connection = connect(&directory.path().join("timers.db"), &MORE).unwrap();
        let pragma = |name: &str| {
            connection
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
                .unwrap()
        };
        assert_eq!(pragma("journal_mode"), "wal".to_owned().into());
        assert_eq!(pragma("synchronous"), 2.into());
        assert_eq!(pragma("foreign_keys"), 1.into());
        assert_eq!(pragma("user_version"), 2.into());
    }
}
