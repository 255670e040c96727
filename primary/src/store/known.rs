//! What is known of tokens without asking the store's thread: which are the host's own, and that some
//! went just now.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use hearth_wire::TokenDigest;
use rusqlite::Connection;
use tokio::sync::broadcast;

use super::error::Result;

/// The host's own tokens, expired ones too, as all may ask for them without waiting: a request at a
/// tenant's address that carries one is refused. Only the store changes them.
#[derive(Clone, Default)]
pub struct Admins(Arc<RwLock<HashMap<TokenDigest, Marked>>>);

/// Whether its text has the form of this platform's tokens.
pub type Marked = bool;

impl Admins {
    pub fn of(db: &Connection) -> Result<Self> {
        let admins = Self::default();
        admins.read(db)?;
        Ok(admins)
    }

    pub fn read(&self, db: &Connection) -> Result<()> {
        let mut statement =
            db.prepare_cached("SELECT digest, marked FROM tokens WHERE tenant IS NULL")?;
        let rows =
            statement.query_map([], |row| Ok((TokenDigest::new(row.get(0)?), row.get(1)?)))?;
        let admins = rows.collect::<rusqlite::Result<_>>()?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = admins;
        Ok(())
    }

    pub fn get(&self) -> RwLockReadGuard<'_, HashMap<TokenDigest, Marked>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes in which tokens went that somebody may not have heard of yet; who is further behind looks
/// for itself.
pub const GONE: usize = 64;

/// Tells whoever goes by a token that it went. Only the store says so, after the change.
#[derive(Clone)]
pub struct Gone(broadcast::Sender<Arc<[i64]>>);

impl Default for Gone {
    fn default() -> Self {
        Self(broadcast::Sender::new(GONE))
    }
}

impl Gone {
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<[i64]>> {
        self.0.subscribe()
    }

    pub fn tell(&self, ids: &[i64]) {
        if !ids.is_empty() {
            // Nobody has to be there to hear it.
            let _ = self.0.send(ids.into());
        }
    }
}
