//! A connection beside the writer's and the readers', for what SQLite keeps for a connection: a
//! transaction of several statements above all. Whoever has it has a thread for it, takes turns with
//! everybody else who writes, and is bounded by the same room.

use std::time::Duration;

use rusqlite::Connection;

use super::connection::{self, Role};
use super::failures::Failures;
use super::fault::Fault;
use super::place::{DatabaseFile, Place, Share};
use super::room;
use super::turn::{Turn, Turns};

/// A handle. Opens nothing by itself.
#[derive(Clone)]
pub struct Beside {
    pub(super) place: Place,
    pub(super) share: Share,
    pub(super) file: DatabaseFile,
    pub(super) failures: Failures,
}

impl Beside {
    /// Blocks. Makes the file if it is not there. `wait`: for a lock that somebody else holds.
    pub fn connect(&self, wait: Duration) -> Result<Connection, Fault> {
        let _turn = self.turn()?;
        let db = connection::open(&self.place, self.share, self.file, Role::Writer)?;
        db.busy_timeout(wait)?;
        let found = room::measure(&self.place, self.file, self.share.numbered());
        let found = found.map_err(|_| Fault::Disk)?;
        let page_bytes: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let room = room::room(self.share.bytes, found, page_bytes.cast_unsigned().max(512));
        db.pragma_update(None, "max_page_count", room.max_page_count())?;
        Ok(db)
    }

    /// Blocks until nobody else writes. Until it is dropped, nobody else does.
    pub fn turn(&self) -> Result<Turn, Fault> {
        let turns = Turns::open(&self.place).map_err(|_| Fault::Disk)?;
        turns.take().map_err(|_| Fault::Disk)
    }

    /// Whether the file may still be written to.
    pub fn may_write(&self) -> Result<(), Fault> {
        if self.failures.is_over(self.file) { Err(Fault::ReadOnly) } else { Ok(()) }
    }

    /// What is wrong for good holds for everybody.
    pub fn note(&self, fault: &Fault) {
        self.failures.note(self.file, fault);
    }

    /// Empties a WAL that became long, as far as nobody has to wait. For behind an answer: a commit of
    /// SQLite's that did it would not say that it had failed.
    pub fn empty_wal(&self, db: &Connection) {
        let is_long = self.place.bytes(&self.file.wal());
        if is_long.is_ok_and(|bytes| bytes > room::wal_is_long(self.share.bytes))
            && self.may_write().is_ok()
            && let Err(error) = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        {
            self.note(&Fault::of(self.file, error));
        }
    }
}
