//! Tenants of another store, out of a backup, taken over into this one while it serves. That store
//! was made here of what the backup says (`rebuild.rs`), so that its rows are as good as this one's.
//!
//! They come with their tokens, functions, versions, options, limits and generations, in one
//! transaction, and under ids of this store's own. What was there stays as it is. What the backup
//! tells of changes stays out: the tokens that made them have other ids here, and what is told here
//! of changes is this host's own word.

use std::path::PathBuf;

use hearth_wire::{GenerationNumber, TenantName};
use rusqlite::Transaction;

use super::audit::{self, Action, Event, Sides};
use super::database::change;
use super::error::{Result, StoreError};
use super::handle::{Asker, Store};
use super::settings::{self, Taking};
use super::tenants::Tenant;
use crate::actor::Author;

impl Store {
    /// From a store's file that nobody has open, each to the port that is given.
    pub async fn import(
        &self,
        from: PathBuf,
        tenants: Vec<(TenantName, u16)>,
        secrets: Taking,
        by: Author,
    ) -> Result<Vec<Tenant>> {
        self.run_change(Asker::Host, move |db| {
            db.execute("ATTACH DATABASE ? AS other", [from.to_string_lossy()])?;
            let imported = change(db, |db| all(db, &tenants, &secrets, &by));
            db.execute("DETACH DATABASE other", [])?;
            imported
        })
        .await
    }
}

fn all(
    db: &Transaction<'_>,
    tenants: &[(TenantName, u16)],
    secrets: &Taking,
    by: &Author,
) -> Result<Vec<Tenant>> {
    let come = |(name, port): &(TenantName, u16)| {
        let tenant = one(db, name, *port, secrets)?;
        // One without a generation is to be made yet.
        if tenant.generation > GenerationNumber::NONE {
            let mut sides = Sides::none();
            sides.add_after("generation", tenant.generation.0.into());
            sides.add_after("port", tenant.port.into());
            let (action, tenant) = (Action::TenantRestore, Some(tenant.id));
            audit::note(db, by, Event { action, tenant, object: None, sides })?;
        }
        Ok(tenant)
    };
    tenants.iter().map(come).collect()
}

fn one(db: &Transaction<'_>, name: &TenantName, port: u16, secrets: &Taking) -> Result<Tenant> {
    if db.prepare("SELECT 1 FROM main.tenants WHERE name = ?")?.exists([name.as_str()])? {
        return Err(StoreError::Exists);
    }
    if db.prepare("SELECT 1 FROM main.tenants WHERE port = ?")?.exists([port])? {
        return Err(StoreError::PortTaken(port));
    }
    let old: i64 =
        db.query_row("SELECT id FROM other.tenants WHERE name = ?", [name.as_str()], |row| {
            row.get(0)
        })?;
    db.execute(
        "INSERT INTO main.tenants (name, port, generation, created_at, limits)
         SELECT name, ?, generation, created_at, limits FROM other.tenants WHERE id = ?",
        (port, old),
    )?;
    let new = db.last_insert_rowid();
    super::tenants::take(db, name, port)?;
    db.execute(
        "INSERT INTO main.generations (tenant, generation, cause, by, created_at, known)
         SELECT ?, generation, cause, by, created_at, known FROM other.generations WHERE tenant = ?",
        (new, old),
    )?;
    db.execute(
        "INSERT INTO main.past_functions (tenant, folded, since, path, version, hidden, gone)
         SELECT ?, folded, since, path, version, hidden, gone FROM other.past_functions
         WHERE tenant = ?",
        (new, old),
    )?;
    db.execute(
        "INSERT INTO main.past_options (tenant, folded, since, path, options)
         SELECT ?, folded, since, path, options FROM other.past_options WHERE tenant = ?",
        (new, old),
    )?;
    // A token that is here already stays what it is here.
    db.execute(
        "INSERT OR IGNORE INTO main.tokens (tenant, name, scope, digest, adopted, created_at, expires_at)
         SELECT ?, name, scope, digest, adopted, created_at, expires_at FROM other.tokens WHERE tenant = ?",
        (new, old),
    )?;
    settings::import(db, (name, old), super::TenantId(new), secrets)?;
    let functions: Vec<i64> = db
        .prepare("SELECT id FROM other.functions WHERE tenant = ? ORDER BY id")?
        .query_map([old], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for old in functions {
        db.execute(
            "INSERT INTO main.functions (tenant, path, folded, latest, active, removed_at, hidden_at, options)
             SELECT ?, path, folded, latest, active, removed_at, hidden_at, options FROM other.functions WHERE id = ?",
            (new, old),
        )?;
        let function = db.last_insert_rowid();
        db.execute(
            "INSERT INTO main.versions (function, version, sha256, size, stored, kind, imports,
                 declared, uploaded, created_at, created_by)
             SELECT ?, version, sha256, size, stored, kind, imports,
                 declared, uploaded, created_at, created_by
             FROM other.versions WHERE function = ?",
            (function, old),
        )?;
    }
    super::tenants::by_id(db, super::TenantId(new))?.ok_or(StoreError::Missing("tenant"))
}

#[cfg(test)]
mod tests {
    use hearth_wire::Scope;

    use super::*;
    use crate::store::scratch::{author, scratch, tenant};

    #[tokio::test]
    async fn a_tenant_comes_back_under_another_id_with_what_it_had() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        let (token, _) = store
            .create_token(Some(acme.id), "ci".into(), Scope::Deploy, None, author("ops"))
            .await
            .unwrap();
        let there = tempfile::tempdir().unwrap();
        store.snapshot(there.path(), None).await.unwrap();
        let file = there.path().join(crate::store::FILE);
        let wanted = |port| vec![(acme.name.clone(), port)];

        let twice = store.import(file.clone(), wanted(4_002), Taking::Without, author("ops")).await;
        assert!(matches!(twice, Err(StoreError::Exists)), "{twice:?}");
        store.delete_tenant(acme.id).await.unwrap();
        tenant(&store, "beta", 4_001).await;
        let taken = store.import(file.clone(), wanted(4_001), Taking::Without, author("ops")).await;
        assert!(matches!(taken, Err(StoreError::PortTaken(4_001))), "{taken:?}");
        assert_eq!(store.tenants().await.unwrap().len(), 1);

        let made = store
            .import(file.clone(), wanted(4_002), Taking::Without, author("ops"))
            .await
            .unwrap();
        assert_ne!(made[0].id, acme.id);
        assert_eq!((&made[0].name, made[0].port), (&acme.name, 4_002));
        let tokens = store.tokens(Some(made[0].id)).await.unwrap();
        assert_eq!((tokens.len(), &tokens[0].name), (1, &token.name));
        // Its file can be given back, and a second time it is there.
        let twice = store.import(file, wanted(4_003), Taking::Without, author("ops")).await;
        assert!(matches!(twice, Err(StoreError::Exists)), "{twice:?}");
    }
}
