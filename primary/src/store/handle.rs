//! How the store is reached: its database, and what is known of its tokens at any time. The nouns
//! read and write through this, each in its own file.

use rusqlite::{Connection, Transaction};

use hearth_wire::{TenantName, TokenDigest};

use super::database::{Database, change};
use super::error::Result;
use super::ids::TenantId;
use super::known::{Admins, Gone};

/// On whose behalf it is asked: each has a turn for each of another's.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Asker {
    Host,
    Tenant(TenantId),
    /// Whose id is not known yet.
    Name(TenantName),
    /// Of which nobody knows yet whose it is.
    Token(TokenDigest),
}

impl Asker {
    /// Without a tenant it is about the host.
    pub fn of(tenant: Option<TenantId>) -> Self {
        tenant.map_or(Self::Host, Self::Tenant)
    }
}

#[derive(Clone)]
pub struct Store {
    pub(super) database: Database<Asker>,
    /// As the last change of them left them.
    pub(super) admins: Admins,
    pub(super) gone: Gone,
}

impl Store {
    /// Finishes what was asked before and closes the file. Later requests are told `Closed`.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Whether it takes no changes any more. A change that failed may be on the disk all the
    /// same, so what it names must not be removed.
    pub fn is_read_only(&self) -> bool {
        self.database.is_read_only()
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        asker: Asker,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.database.read(asker, work).await
    }

    /// Makes a change: all of it is on the disk, or none of it counts.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        asker: Asker,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run_change(asker, move |db| change(db, work)).await
    }

    /// Runs what comes to such a change, where the store still takes any.
    pub(super) async fn run_change<T: Send + 'static>(
        &self,
        asker: Asker,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.database.write(asker, work).await
    }
}
