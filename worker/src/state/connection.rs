//! How every file of a tenant's state is opened: what is on, what is off and what is bounded, the
//! same for the stores and for a tenant's own databases.

use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, DEFAULT_NAME, FileControl, OpenFlags};

use super::fault::Fault;
use super::place::{DatabaseFile, Place, Share};
use super::room;
use super::sql::guard;

/// Writers have their turns. What is left to wait for is a worker's recovery after a crash, a WAL that
/// is being emptied, and a transaction of somebody's own, for which the writer comes again.
pub const BUSY: Duration = Duration::from_secs(2);
pub const WRITERS_BUSY: Duration = Duration::from_millis(50);
/// All that SQLite has in this process.
const HEAP_MAX_BYTES: i64 = 64 << 20;
/// The cache of pages of one connection, KiB.
const WRITERS_CACHE_KIB: i64 = 2_048;
const READERS_CACHE_KIB: i64 = 512;
const STATEMENTS: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Makes the file if it is not there. In its turn alone.
    Writer,
    Reader,
    /// A reader that waits for nothing.
    Hasty,
}

pub fn open(
    place: &Place,
    share: Share,
    file: DatabaseFile,
    role: Role,
) -> Result<Connection, Fault> {
    place.begin().map_err(|_| Fault::Broken)?;
    connect(place, share, file, role).map_err(|error| Fault::of(file, error))
}

fn connect(
    place: &Place,
    share: Share,
    file: DatabaseFile,
    role: Role,
) -> rusqlite::Result<Connection> {
    // No flag for addresses (`file:…`): ours never look like one, and no other file is attached.
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if role == Role::Writer {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let mut db = Connection::open_with_flags(place.path(&file.name()), flags)?;
    db.busy_timeout(match role {
        Role::Writer => WRITERS_BUSY,
        Role::Reader => BUSY,
        Role::Hasty => Duration::ZERO,
    })?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.pragma_update(None, "hard_heap_limit", HEAP_MAX_BYTES)?;
    db.pragma_update(None, "temp_store", "memory")?;
    db.pragma_update(None, "cell_size_check", true)?;
    db.pragma_update(None, "mmap_size", 0)?;
    match role {
        Role::Writer => {
            db.pragma_update(None, "cache_size", -WRITERS_CACHE_KIB)?;
            let pages: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0))?;
            if pages == 0 {
                // Before there is a page, so that what is deleted can be given back. It takes the lock.
                db.pragma_update(None, "auto_vacuum", "incremental")?;
            }
            db.pragma_update(None, "journal_mode", "wal")?;
            db.pragma_update(None, "synchronous", "full")?;
            db.pragma_update(None, "wal_autocheckpoint", 0)?;
            // What a WAL is cut to once it is emptied.
            let wal_bytes = i64::try_from(room::wal_is_long(share.bytes)).unwrap_or(-1);
            db.pragma_update(None, "journal_size_limit", wal_bytes)?;
        }
        Role::Reader | Role::Hasty => {
            db.pragma_update(None, "cache_size", -READERS_CACHE_KIB)?;
            db.pragma_update(None, "query_only", true)?;
            db.pragma_update(None, "wal_autocheckpoint", 0)?;
        }
    }
    if let DatabaseFile::Numbered(_) = file {
        let place = place.clone();
        guard::set_up(&mut db, move || is_beyond(&place, share, file))?;
    }
    // Else the last one that closes the file removes its WAL, and the next writer makes it again,
    // with a sync of the directory.
    let mut keep = 1;
    db.file_control(DEFAULT_NAME, FileControl::PersistWal(&mut keep))?;
    Ok(db)
}

/// Whether a statement has written as much as there is room for.
fn is_beyond(place: &Place, share: Share, file: DatabaseFile) -> bool {
    let found = room::measure(place, file, share.numbered());
    found.is_ok_and(|found| room::is_beyond(share.bytes, found))
}
