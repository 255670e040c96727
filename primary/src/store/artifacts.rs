//! The keyed digests that vouch for compiled artifacts, and the key. Native code is run, so an
//! artifact whose digest is not here, or is another, is compiled again.

use hearth_wire::{Fingerprint, ModuleDigest};
use jiff::Timestamp;
use rusqlite::Connection;

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

    /// Which of these engines made the artifact, and its digest. A module is compiled for one engine
    /// of a build. `TenantId(0)` for a bundled function.
    pub async fn artifact(
        &self,
        tenant: TenantId,
        sha256: ModuleDigest,
        engines: Vec<Fingerprint>,
    ) -> Result<Option<(Fingerprint, [u8; 32])>> {
        self.read(Asker::Tenant(tenant), move |db| {
            let mut statement = db.prepare_cached(
                "SELECT engine, mac FROM artifacts WHERE tenant = ? AND sha256 = ?
                 ORDER BY created_at DESC",
            )?;
            let mut rows = statement.query((tenant.0, sha256.to_string()))?;
            while let Some(row) = rows.next()? {
                // What an earlier build's engine was called may be anything.
                let engine: Option<Fingerprint> = row.get::<_, String>("engine")?.parse().ok();
                if let Some(engine) = engine.filter(|engine| engines.contains(engine)) {
                    return Ok(Some((engine, column(row, "mac", bytes)?)));
                }
            }
            Ok(None)
        })
        .await
    }

    /// In place of the one before.
    pub async fn put_artifact(
        &self,
        tenant: TenantId,
        sha256: ModuleDigest,
        engine: Fingerprint,
        mac: [u8; 32],
    ) -> Result<()> {
        self.write(Asker::Tenant(tenant), move |db| {
            db.execute(
                "INSERT OR REPLACE INTO artifacts (tenant, sha256, engine, mac, created_at)
                 VALUES (?, ?, ?, ?, ?)",
                (tenant.0, sha256.to_string(), engine.to_string(), mac, millis(Timestamp::now())),
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
        let [one, other, stranger] = [1, 2, 3].map(|it| Fingerprint::new([it; 8]));
        store.put_artifact(acme, module, one, [7; 32]).await.unwrap();
        store.put_artifact(acme, module, one, [8; 32]).await.unwrap();
        store.put_artifact(TenantId(0), module, other, [9; 32]).await.unwrap();
        for (tenant, engines, found) in [
            (acme, vec![one], Some((one, [8; 32]))),
            (acme, vec![other, one], Some((one, [8; 32]))),
            (acme, vec![other], None),
            (acme, vec![], None),
            (TenantId(0), vec![one, other], Some((other, [9; 32]))),
            (TenantId(0), vec![one, stranger], None),
            (TenantId(99), vec![one, other], None),
        ] {
            assert_eq!(store.artifact(tenant, module, engines).await.unwrap(), found);
        }
    }

    #[tokio::test]
    async fn digests_of_modules_that_nothing_names_are_forgotten_in_time() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await.id;
        let (module, engine) = (ModuleDigest::new([1; 32]), Fingerprint::new([1; 8]));
        for tenant in [acme, TenantId(0)] {
            store.put_artifact(tenant, module, engine, [7; 32]).await.unwrap();
        }
        let found = async |tenant| store.artifact(tenant, module, vec![engine]).await.unwrap();
        store.purge(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH, vec![]).await.unwrap();
        assert!(found(acme).await.is_some());
        let later = Timestamp::now() + jiff::SignedDuration::from_secs(1);
        store.purge(later, Timestamp::UNIX_EPOCH, vec![]).await.unwrap();
        assert_eq!(found(acme).await, None);
        assert!(found(TenantId(0)).await.is_some());
    }
}
