//! A connection beside the writer's and the readers', for what SQLite keeps for a connection: a
//! transaction of several statements above all. Whoever has it has a thread for it, takes turns with
//! everybody else who writes, and is bounded by the same room.

use rusqlite::Connection;

use super::connection::{self, Role};
use super::fault::Fault;
use super::place::{DatabaseFile, Place, Share};
use super::room;
use super::turn::{Turn, Turns};

/// Pages of a WAL, as SQLite counts them, from which on a commit empties it: nobody else does after
/// these.
const WAL_PAGES: i64 = 1_000;

/// A handle. Opens nothing by itself.
#[derive(Clone)]
pub struct Beside {
    pub(super) place: Place,
    pub(super) share: Share,
    pub(super) file: DatabaseFile,
}

impl Beside {
    /// Blocks. Makes the file if it is not there.
    pub fn connect(&self) -> Result<Connection, Fault> {
        let _turn = self.turn()?;
        let wal_bytes = room::wal_is_long(self.share.bytes);
        let db = connection::open(&self.place, self.file, Role::Writer, wal_bytes)?;
        let found = room::measure(&self.place, self.file, 0).map_err(|_| Fault::Disk)?;
        let page_bytes: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let room = room::room(self.share.bytes, found, page_bytes.cast_unsigned().max(512));
        db.pragma_update(None, "max_page_count", room.max_page_count())?;
        db.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
        Ok(db)
    }

    /// Blocks until nobody else writes. Until it is dropped, nobody else does.
    pub fn turn(&self) -> Result<Turn, Fault> {
        let turns = Turns::open(&self.place).map_err(|_| Fault::Disk)?;
        turns.take().map_err(|_| Fault::Disk)
    }
}
