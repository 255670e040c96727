//! What Hearth remembers: tenants, tokens, functions with their versions, generations, who changed
//! what, and the digests that vouch for artifacts. One SQLite file, one thread that owns its
//! connection, and cheap handles that send it closures over a bounded queue, in which each asker
//! has its turn.
//!
//! An `Ok` of anything that writes means that it is on the disk (WAL, `synchronous=FULL`). Where
//! the disk fails a change, nobody can say whether it is there; from then on nothing is changed
//! until Hearth starts again. The files that rows name are not written here: `release.rs` does
//! that, before it comes here. Nothing here decides who may do what.

mod artifacts;
mod audit;
mod functions;
mod import;
mod migrations;
mod rebuild;
mod snapshot;
mod tenants;
mod tokens;

pub use audit::{Action, AuditPage, AuditQuery, AuditRow, Event, Sides, Whose};
pub use functions::{Cause, Change, FunctionRow, GenerationRow, NewGeneration, VersionRow};
pub use rebuild::{note_restore, rebuild};
pub use snapshot::{Contents, inspect};
pub use tenants::{Freed, Tenant, TenantId};
use tokens::{Admins, Gone};
pub use tokens::{Removed, TokenRow, is_token_name};

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hearth_wire::{Generation, TenantName, TokenDigest};
use jiff::Timestamp;
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, ffi};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::fail::{self, Point};
use crate::fair::Fair;

/// Closures that the store's thread has or will have next, of all askers and of one; whoever comes
/// after that waits for a turn. More would not make it quicker, and be in others' way.
const TURNS: usize = 4;
const TURNS_OF_ONE: usize = 2;
/// One more, which closes.
const QUEUE: usize = TURNS + 1;
/// Another process that holds the file (a backup) is waited for this long.
const BUSY: Duration = Duration::from_secs(5);
pub const FILE: &str = "hearth.db";
/// What came in a backup, before [`rebuild()`] has made a store of it.
pub const ARCHIVED: &str = "archived.db";

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("there is already one of that name")]
    Exists,
    #[error("port {0} belongs to another tenant")]
    PortTaken(u16),
    #[error("there are {max} {what} already, which is the limit")]
    TooMany { what: &'static str, max: usize },
    #[error("there is no such {0}")]
    Missing(&'static str),
    /// Another change was committed between reading and committing.
    #[error("generation {generation} comes too late: the tenant is at {current} already")]
    Stale { generation: Generation, current: Generation },
    #[error(
        "the store has schema {found}, which a newer version of Hearth wrote; this one knows schemas up to {known}"
    )]
    TooNew { found: i64, known: i64 },
    #[error("the store's thread could not be started")]
    Thread(#[source] io::Error),
    #[error("random bytes could not be read")]
    Random(#[source] getrandom::Error),
    #[error("the store's disk is full")]
    Full(#[source] rusqlite::Error),
    #[error("the store's disk failed")]
    Disk(#[source] rusqlite::Error),
    /// What is on the disk may be other than what was told since.
    #[error("the store takes no changes since its disk failed: mend that, and start Hearth again")]
    ReadOnly,
    #[error(
        "hearth.db is damaged ({0}): put a copy from a backup in its place, or give --data an empty directory to start anew; nothing was changed"
    )]
    Damaged(String),
    #[error(
        "hearth.db was not made by Hearth; give --data an empty directory, or one that is not there yet"
    )]
    Foreign,
    #[error("the store failed")]
    Sqlite(#[source] rusqlite::Error),
    #[error("the store is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
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

type Result<T, E = StoreError> = std::result::Result<T, E>;

/// On whose behalf it is asked: each has a turn for each of another's.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Asker {
    Host,
    Tenant(TenantId),
    /// Whose id is not known yet.
    Name(TenantName),
    /// Of which nobody knows yet whose it is.
    Token(TokenDigest),
}

impl Asker {
    /// Without a tenant it is about the host.
    fn of(tenant: Option<TenantId>) -> Self {
        tenant.map_or(Self::Host, Self::Tenant)
    }
}

enum Request {
    Run(Box<dyn FnOnce(&mut Connection) + Send>),
    /// Answered when the file is closed.
    Close(oneshot::Sender<()>),
}

#[derive(Clone)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    turns: Fair<Asker>,
    /// Set once, when a change failed on its way to the disk.
    read_only: Arc<AtomicBool>,
    /// As the last change of them left them.
    admins: Admins,
    gone: Gone,
    file: Arc<Path>,
}

impl Store {
    /// Opens the store in the data directory, made and brought up to date where need be.
    pub fn open(data_dir: &Path) -> Result<Store> {
        let file: Arc<Path> = data_dir.join(FILE).into();
        let connection = connect(&file)?;
        let admins = Admins::of(&connection)?;
        let (requests, queue) = mpsc::channel(QUEUE);
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || own(connection, queue))
            .map_err(StoreError::Thread)?;
        let turns = Fair::new(TURNS, TURNS_OF_ONE);
        let (read_only, gone) = (Arc::default(), Gone::default());
        Ok(Store { requests, turns, read_only, admins, gone, file })
    }

    /// Finishes what was asked before and closes the file. Later requests are told `Closed`.
    pub async fn close(&self) {
        let (closed, done) = oneshot::channel();
        if self.requests.send(Request::Close(closed)).await.is_ok() {
            // An error means that another close came first, and that is as good.
            let _ = done.await;
        }
    }

    /// Whether it takes no changes any more. A change that failed may be on the disk all the
    /// same, so what it names must not be removed.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    async fn read<T: Send + 'static>(
        &self,
        asker: Asker,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(asker, move |db| work(db)).await
    }

    /// Makes a change: all of it is on the disk, or none of it counts.
    async fn write<T: Send + 'static>(
        &self,
        asker: Asker,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run_change(asker, move |db| change(db, work)).await
    }

    /// Runs what comes to such a change, where the store still takes any.
    async fn run_change<T: Send + 'static>(
        &self,
        asker: Asker,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let read_only = self.read_only.clone();
        self.run(asker, move |db| {
            if read_only.load(Ordering::Acquire) {
                return Err(StoreError::ReadOnly);
            }
            let changed = work(db);
            if let Err(StoreError::Disk(_)) = changed {
                read_only.store(true, Ordering::Release);
                metrics::gauge!("hearth_store_read_only").set(1);
                error!("the store takes no changes any more: its disk failed");
            }
            changed
        })
        .await
    }

    /// Runs `work` on the store's thread, when it is the asker's turn.
    async fn run<T: Send + 'static>(
        &self,
        asker: Asker,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.turns.turn(asker).await;
        let (reply, answer) = oneshot::channel();
        let run = move |connection: &mut Connection| {
            let done = work(connection);
            drop(turn);
            // Whoever asked may be gone; the work is done all the same.
            let _ = reply.send(done);
        };
        let request = Request::Run(Box::new(run));
        self.requests.send(request).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

fn connect(file: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY)?;
    migrations::refuse_foreign(&connection)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_prepared_statement_cache_capacity(64);
    check(&connection)?;
    migrations::apply(&mut connection)?;
    artifacts::ensure_host_key(&mut connection)?;
    Ok(connection)
}

/// Says what is wrong before anything is built on it.
fn check(db: &Connection) -> Result<()> {
    let found: String = db.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
    if found != "ok" {
        // Its last line says what; those before it, where.
        let what = found.lines().last().unwrap_or_default();
        return Err(StoreError::Damaged(what.to_owned()));
    }
    match db.prepare("PRAGMA foreign_key_check")?.exists([])? {
        true => Err(StoreError::Damaged("a row refers to one that is not there".to_owned())),
        false => Ok(()),
    }
}

fn change<T>(db: &mut Connection, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&transaction)?;
    fail::step(Point::StoreCommit).map_err(refused_by_disk)?;
    transaction.commit()?;
    fail::moment(Point::StoreCommitted);
    Ok(done)
}

/// A commit that failed, as SQLite tells of it.
fn refused_by_disk(error: io::Error) -> StoreError {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ffi::SQLITE_FULL,
        _ => ffi::SQLITE_IOERR_FSYNC,
    };
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(error.to_string())).into()
}

fn own(mut connection: Connection, mut queue: mpsc::Receiver<Request>) {
    while let Some(request) = queue.blocking_recv() {
        match request {
            Request::Run(work) => {
                // It is everybody's thread. A transaction that was open is rolled back, and who
                // asked is told that there is no answer.
                if catch_unwind(AssertUnwindSafe(|| work(&mut connection))).is_err() {
                    error!("a request to the store failed; the others go on");
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

/// Instants are kept as milliseconds since the epoch.
fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

fn instant(value: ValueRef<'_>) -> FromSqlResult<Timestamp> {
    Timestamp::from_millisecond(value.as_i64()?).map_err(FromSqlError::other)
}

fn optional<T>(
    value: ValueRef<'_>,
    read: impl FnOnce(ValueRef<'_>) -> FromSqlResult<T>,
) -> FromSqlResult<Option<T>> {
    match value {
        ValueRef::Null => Ok(None),
        value => read(value).map(Some),
    }
}

/// SQLite's integers are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("sizes and counts stay far below 2^63")
}

fn unsigned(value: ValueRef<'_>) -> FromSqlResult<u64> {
    u64::try_from(value.as_i64()?).map_err(FromSqlError::other)
}

fn bytes<const N: usize>(value: ValueRef<'_>) -> FromSqlResult<[u8; N]> {
    value.as_blob()?.try_into().map_err(FromSqlError::other)
}

/// What is kept as text and was parsed before it was written.
fn parsed<T>(value: ValueRef<'_>) -> FromSqlResult<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    value.as_str()?.parse().map_err(FromSqlError::other)
}

fn json<T: serde::de::DeserializeOwned>(value: ValueRef<'_>) -> FromSqlResult<T> {
    serde_json::from_str(value.as_str()?).map_err(FromSqlError::other)
}

/// A column as the type that it was parsed into, with the column named where it does not fit.
fn column<T>(
    row: &rusqlite::Row<'_>,
    name: &str,
    read: impl FnOnce(ValueRef<'_>) -> FromSqlResult<T>,
) -> rusqlite::Result<T> {
    let index = row.as_ref().column_index(name)?;
    let value = row.get_ref(index)?;
    let kind = value.data_type();
    read(value)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, kind, Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::{Actor, Author};

    /// A store in a directory of its own, and that directory.
    pub(super) fn scratch() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        (directory, store)
    }

    pub(super) fn author(name: &str) -> Author {
        let actor = Actor::Token { id: 1, name: name.to_owned() };
        Author { actor, request_id: None }
    }

    pub(super) async fn tenant(store: &Store, name: &str, port: u16) -> Tenant {
        store.create_tenant(name.parse().unwrap(), port).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_opening_again() {
        let (directory, store) = scratch();
        let made = tenant(&store, "acme", 4_001).await;
        let key = store.host_key().await.unwrap();
        store.close().await;
        assert!(matches!(store.tenants().await, Err(StoreError::Closed)));
        store.close().await;

        let again = Store::open(directory.path()).unwrap();
        assert_eq!(again.tenants().await.unwrap(), [made]);
        assert_eq!(again.host_key().await.unwrap(), key);
    }

    #[test]
    fn a_newer_schema_is_named() {
        let (directory, store) = scratch();
        drop(store);
        let file = Connection::open(directory.path().join(FILE)).unwrap();
        file.busy_timeout(BUSY).unwrap();
        file.pragma_update(None, "user_version", 99).unwrap();
        drop(file);
        let refused = Store::open(directory.path()).err().unwrap().to_string();
        assert!(refused.contains("schema 99, which a newer version of Hearth wrote"), "{refused}");
    }

    #[test]
    fn the_file_is_as_durable_as_promised() {
        let directory = tempfile::tempdir().unwrap();
        let connection = connect(&directory.path().join(FILE)).unwrap();
        let pragma = |name: &str| {
            connection
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
                .unwrap()
        };
        assert_eq!(pragma("journal_mode"), "wal".to_owned().into());
        assert_eq!(pragma("synchronous"), 2.into());
        assert_eq!(pragma("foreign_keys"), 1.into());
        assert_eq!(pragma("user_version"), 5.into());
    }
}
