//! What Hearth remembers: tenants, tokens, functions with their versions, generations, settings, who
//! changed what, and the digests that vouch for artifacts. One [`database`], and a file for each noun.
//!
//! An `Ok` of anything that writes means that it is on the disk. The files that rows name are not
//! written here: `generations.rs` does that, before it comes here. Nothing here decides who may do
//! what.

mod artifacts;
mod audit;
mod columns;
pub mod database;
mod error;
mod functions;
mod generations;
mod handle;
mod ids;
mod import;
mod known;
mod migrations;
mod past;
mod rebuild;
#[cfg(test)]
pub mod scratch;
mod settings;
mod snapshot;
mod tenants;
mod tokens;

pub use audit::{Action, AuditPage, AuditQuery, AuditRow, Event, Sides, Whose};
pub use error::StoreError;
pub use functions::{Change, FunctionRow, OwnFunctions, VersionRow};
pub use generations::{Cause, GenerationPage, GenerationRow, NewGeneration};
pub use handle::Store;
pub use ids::TenantId;
pub use past::{ChangedFunction, Past, PastFunction};
pub use rebuild::{note_restore, rebuild};
pub use settings::{Kept, NewSettings, Sealed, SettingRow, Taking};
pub use snapshot::{Contents, FILE, inspect, sealed, sealed_by_at_rest};
pub use tenants::{Freed, Tenant};
pub use tokens::{Removed, TokenRow, is_token_name};

use std::path::Path;

use database::Database;
use error::Result;
use known::{Admins, Gone};

/// What came in a backup, before [`rebuild()`] has made a store of it.
pub const ARCHIVED: &str = "archived.db";

impl Store {
    /// Opens the store in the data directory, made and brought up to date where need be.
    pub fn open(data_dir: &Path) -> Result<Self> {
        let file = data_dir.join(FILE);
        let (database, admins) = Database::open(&file, &migrations::SCHEMA, |db| {
            artifacts::ensure_host_key(db)?;
            Admins::of(db)
        })?;
        Ok(Self { database, admins, gone: Gone::default() })
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::database::{BUSY, DatabaseError};
    use super::scratch::{scratch, tenant};
    use super::*;

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_opening_again() {
        let (directory, store) = scratch();
        let made = tenant(&store, "acme", 4_001).await;
        let key = store.host_key().await.unwrap();
        store.close().await;
        let closed = store.tenants().await;
        assert!(matches!(closed, Err(StoreError::Database(DatabaseError::Closed))), "{closed:?}");
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
}
