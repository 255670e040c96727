//! The keyed digests that vouch for compiled artifacts, and the key. Native code is run, so an
//! artifact whose digest is not here, or is another, is compiled again.

use hearth_wire::ModuleDigest;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::columns::{bytes, column, millis};
use super::database::change;
use super::error::{Result, StoreError};
use super::handle::{Asker, Store};
use super::ids::TenantId;

impl Store {
    /// Made when the store was; keys the artifacts' digests.
    pub async fn host_key(&self) -> Result<[u8; 32]> {
        self.read(Asker::Host, |db| {
            Ok(db.query_row("SELECT value FROM host WHERE key = 'key'", [], |row| {
                column(row, "value", bytes)
            })?)
        })
        .await
    }

    /// `TenantId(0)` for a bundled function.
    pub async fn artifact_mac(
        &self,
        tenant: TenantId,
        sha256: ModuleDigest,
        engine: &str,
    ) -> Result<Option<[u8; 32]>> {
        let engine = engine.to_owned();
        self.read(Asker::Tenant(tenant), move |db| {
            let mut statement = db.prepare_cached(
                "SELECT mac FROM artifacts WHERE tenant = ? AND sha256 = ? AND engine = ?",
            )?;
            let mac = statement
                .query_row((tenant.0, sha256.to_string(), engine), |row| column(row, "mac", bytes));
            Ok(mac.optional()?)
        })
        .await
    }

    /// In place of the one before.
    pub async fn put_artifact(
        &self,
        tenant: TenantId,
        sha256: ModuleDigest,
        engine: &str,
        mac: [u8; 32],
    ) -> Result<()> {
        let engine = engine.to_owned();
        self.write(Asker::Tenant(tenant), move |db| {
            db.execute(
                "INSERT OR REPLACE INTO artifacts (tenant, sha256, engine, mac, created_at)
                 VALUES (?, ?, ?, ?, ?)",
                (tenant.0, sha256.to_string(), engine, mac, millis(Timestamp::now())),
            )?;
            Ok(())
        })
        .await
    }
}

pub(super) fn ensure_host_key(db: &mut Connection) -> Result<()> {
    if db.prepare("SELECT 1 FROM host WHERE key = 'key'")?.exists([])? {
        return Ok(());
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(StoreError::Random)?;
    change(db, |db| {
        db.execute("INSERT INTO host (key, value) VALUES ('key', ?)", [key])?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::scratch::{scratch, tenant};

    #[tokio::test]
    async fn a_digest_is_of_one_tenant_and_one_engine() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await.id;
        let module = ModuleDigest::new([1; 32]);
        store.put_artifact(acme, module, "48-a", [7; 32]).await.unwrap();
        store.put_artifact(acme, module, "48-a", [8; 32]).await.unwrap();
        store.put_artifact(TenantId(0), module, "48-a", [9; 32]).await.unwrap();
        for (tenant, engine, mac) in [
            (acme, "48-a", Some([8; 32])),
            (acme, "48-b", None),
            (TenantId(0), "48-a", Some([9; 32])),
            (TenantId(99), "48-a", None),
        ] {
            assert_eq!(store.artifact_mac(tenant, module, engine).await.unwrap(), mac);
        }
    }

    #[tokio::test]
    async fn digests_of_modules_that_nothing_names_are_forgotten_in_time() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await.id;
        let module = ModuleDigest::new([1; 32]);
        for tenant in [acme, TenantId(0)] {
            store.put_artifact(tenant, module, "48-a", [7; 32]).await.unwrap();
        }
        store.purge(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH, vec![]).await.unwrap();
        assert!(store.artifact_mac(acme, module, "48-a").await.unwrap().is_some());
        let later = Timestamp::now() + jiff::SignedDuration::from_secs(1);
        store.purge(later, Timestamp::UNIX_EPOCH, vec![]).await.unwrap();
        assert_eq!(store.artifact_mac(acme, module, "48-a").await.unwrap(), None);
        assert!(store.artifact_mac(TenantId(0), module, "48-a").await.unwrap().is_some());
    }
}
