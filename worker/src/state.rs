//! A tenant's state: its key-value stores and its databases, in files of SQLite's.
//!
//! ```text
//!  bindings, built-in routes ──► KeyValue ──┐
//!                       SQL  ──► State ─────┴─► service: threads, from the first use on
//!                                                 writer: groups, one sync each; turns; room
//!                                                 readers
//! ```
//!
//! An `Ok` of what writes means that it is on the disk, unless a relaxed store was asked for less.
//! What a function may do is said by its options, in [`crate::host`]; how its interfaces say it, by
//! the bindings in `hearth_host`.

mod beside;
mod catalogue;
mod commit;
mod connection;
mod entries;
mod failures;
mod fault;
mod keyvalue;
mod moment;
mod place;
mod readers;
mod room;
mod service;
pub mod sql;
#[cfg(test)]
mod tests;
mod turn;
mod writer;

use std::io;
use std::sync::Arc;

use hearth_wire::KeptName;
use rusqlite::Connection;

use service::{Manner, Service};

pub use beside::Beside;
pub use entries::{After, Current, Store, Version};
pub use fault::Fault;
pub use keyvalue::{Entry, KeyValue, Stands, VALUE_MAX_BYTES};
pub use place::{DatabaseFile, Place, Share};
pub use writer::Sync;

/// A handle. Nothing is opened and no thread started before the first use, which is never in a wake
/// and never in a spare child.
#[derive(Clone)]
pub struct State {
    service: Arc<Service>,
    keyvalue: KeyValue,
}

impl State {
    /// `None` where this machine's walls allow no state.
    pub fn new(place: Option<Place>, share: Share) -> Self {
        let service = Arc::new(Service::new(place, share));
        Self { keyvalue: KeyValue::new(Arc::clone(&service)), service }
    }

    /// What no file of the state may be longer than: the tenant's share, or more where a file is longer
    /// already. `None` where there is no state. Looks at the files' lengths and opens none.
    pub fn file_bytes(&self) -> io::Result<Option<u64>> {
        self.service.file_bytes()
    }

    /// Starts the threads, where none may be started later.
    pub fn start(&self) -> io::Result<()> {
        self.service.start()
    }

    pub fn keyvalue(&self) -> KeyValue {
        self.keyvalue.clone()
    }

    /// The database of this name: made if it is not there, as a row of the catalogue. Its file is made
    /// at its first use.
    pub async fn database(&self, name: &KeptName) -> Result<DatabaseFile, Fault> {
        if let Some(found) = self.find_database(name).await? {
            return Ok(found);
        }
        let (name, most) = (name.clone(), self.service.share.databases);
        let manner = Manner { alone: false, sync: Sync::Full, bytes: 0 };
        let make = move |db: &Connection| catalogue::make(db, &name, most);
        self.service.write(DatabaseFile::Catalogue, manner, make).await
    }

    /// The same without making it.
    pub async fn find_database(&self, name: &KeptName) -> Result<Option<DatabaseFile>, Fault> {
        let name = name.clone();
        self.read(DatabaseFile::Catalogue, move |db| catalogue::find(db, &name)).await
    }

    /// Names in order, those behind `after`.
    pub async fn databases(
        &self,
        after: Option<KeptName>,
        limit: usize,
    ) -> Result<Vec<KeptName>, Fault> {
        let list = move |db: &Connection| catalogue::databases(db, after.as_ref(), limit);
        self.read(DatabaseFile::Catalogue, list).await
    }

    /// For a connection of a guest's own, on a thread of its own.
    pub fn beside(&self, database: DatabaseFile) -> Result<Beside, Fault> {
        self.service.beside(database)
    }

    /// Runs a job on the writer's thread in a transaction that is there already, as one savepoint of a
    /// group, or `alone`. Answered after the sync. A job that fails leaves nothing. It may be run
    /// more than once, since what runs beside it may end the transaction of them all: only what its
    /// last run made and said counts. It begins and ends no transaction itself, and leaves the
    /// connection as it found it.
    pub async fn write<T: Send + 'static>(
        &self,
        database: DatabaseFile,
        alone: bool,
        job: impl FnMut(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let manner = Manner { alone, sync: Sync::Full, bytes: 0 };
        self.service.write(database, manner, job).await
    }

    /// Runs a job on a reader's thread, in a read transaction. It sees whatever was answered before.
    pub async fn read<T: Send + 'static>(
        &self,
        database: DatabaseFile,
        job: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.service.read(database, job).await
    }
}
