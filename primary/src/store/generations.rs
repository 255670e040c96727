//! Rows of tenants' generations. A generation is committed with all that it changes or not at all;
//! that commit is the instant at which it is current.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use hearth_wire::{
    Bundle, FunctionPath, FunctionVersion, GenerationNumber, LimitsPatch, OptionsPatch,
};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};
use serde::Serialize;
use serde_json::{Map, Value};

use super::audit::{self, Action, Event, Sides};
use super::columns::{column, generation_number, instant, json, millis, signed};
use super::error::{Result, StoreError};
use super::functions::{ACTIVE, Change, FunctionRow, VersionRow, apply, function, prune};
use super::handle::{Asker, Store};
use super::ids::TenantId;
use crate::actor::Author;

/// Rows of a tenant's past generations.
const GENERATIONS_KEPT: u64 = 500;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationRow {
    pub generation: GenerationNumber,
    pub cause: String,
    pub by: String,
    pub created_at: Timestamp,
}

impl GenerationRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            generation: column(row, "generation", generation_number)?,
            cause: row.get("cause")?,
            by: row.get("by")?,
            created_at: column(row, "created_at", instant)?,
        })
    }
}

/// What a generation is made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Created,
    /// As [`Cause::Created`], for a tenant that came half made in a backup.
    Restored,
    Upload,
    Rollback,
    Remove,
    Options,
    Limits,
}

impl Cause {
    fn as_str(self) -> &'static str {
        match self {
            Self::Created | Self::Restored => "created",
            Self::Upload => "upload",
            Self::Rollback => "rollback",
            Self::Remove => "remove",
            Self::Options => "options",
            Self::Limits => "limits",
        }
    }

    fn action(self) -> Action {
        match self {
            Self::Created => Action::TenantCreate,
            Self::Restored => Action::TenantRestore,
            Self::Upload => Action::FunctionUpload,
            Self::Rollback => Action::FunctionRollback,
            Self::Remove => Action::FunctionRemove,
            Self::Options => Action::FunctionOptions,
            Self::Limits => Action::TenantLimits,
        }
    }
}

#[derive(Clone, Debug)]
pub struct NewGeneration {
    pub tenant: TenantId,
    /// Above the tenant's current one. Numbers may be skipped: one that failed is not used again.
    pub generation: GenerationNumber,
    pub cause: Cause,
    pub by: Author,
    /// What the tenant's own is laid over: what its changes are told by.
    pub bundle: Arc<Bundle>,
    pub changes: Vec<Change>,
}

impl Store {
    /// Makes a generation the current one, in one transaction with all that it changes.
    pub async fn commit_generation(&self, new: NewGeneration) -> Result<()> {
        self.write(Asker::Tenant(new.tenant), move |db| {
            let by = new.by.clone();
            let event = commit(db, new)?;
            audit::note(db, &by, event)
        })
        .await
    }

    /// Newest first; the newest is the current one.
    pub async fn generations(&self, tenant: TenantId) -> Result<Vec<GenerationRow>> {
        self.read(Asker::Tenant(tenant), move |db| {
            let mut statement = db.prepare_cached(
                "SELECT * FROM generations WHERE tenant = ? ORDER BY generation DESC",
            )?;
            let rows = statement.query_map([tenant.0], GenerationRow::of)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }
}

/// Tells what is then to be noted, in the same transaction.
pub(super) fn commit(transaction: &Transaction<'_>, new: NewGeneration) -> Result<Event> {
    let NewGeneration { tenant, generation, cause, by, bundle, changes } = new;
    let now = millis(Timestamp::now());
    let current: GenerationNumber = transaction
        .prepare_cached("SELECT generation FROM tenants WHERE id = ?")?
        .query_row([tenant.0], |row| column(row, "generation", generation_number))
        .optional()?
        .ok_or(StoreError::Missing("tenant"))?;
    if generation <= current {
        return Err(StoreError::Stale { generation, current });
    }
    let touched = Touched::by(&changes);
    let before = touched.told(transaction, tenant, &bundle)?;
    transaction.execute(
        "INSERT INTO generations (tenant, generation, cause, by, created_at) VALUES (?, ?, ?, ?, ?)",
        (tenant.0, signed(generation.0), cause.as_str(), by.actor.name(), now),
    )?;
    transaction.execute(
        "UPDATE tenants SET generation = ? WHERE id = ?",
        (signed(generation.0), tenant.0),
    )?;
    transaction.execute(
        "DELETE FROM generations WHERE tenant = ?1 AND generation NOT IN (
             SELECT generation FROM generations WHERE tenant = ?1 ORDER BY generation DESC LIMIT ?2
         )",
        (tenant.0, signed(GENERATIONS_KEPT)),
    )?;
    let mut changed = HashSet::new();
    for change in changes {
        changed.extend(apply(transaction, tenant, change, now)?);
    }
    let limits = limits_of(transaction, tenant)?;
    for function in changed {
        prune(transaction, function, limits.resolve().versions)?;
    }
    let sides = Sides::between(before, touched.told(transaction, tenant, &bundle)?);
    let object = match cause {
        Cause::Upload | Cause::Rollback | Cause::Remove | Cause::Options => touched.only_function(),
        // The tenant itself, whatever functions it is given.
        Cause::Created | Cause::Restored | Cause::Limits => None,
    };
    let object = object.map(ToString::to_string);
    Ok(Event { action: cause.action(), tenant: Some(tenant), object, sides })
}

fn limits_of(db: &Connection, tenant: TenantId) -> Result<LimitsPatch> {
    Ok(db
        .prepare_cached("SELECT limits FROM tenants WHERE id = ?")?
        .query_row([tenant.0], |row| column(row, "limits", json))?)
}

/// What some changes are about, so that it can be told how that was before and is after them.
#[derive(Default)]
struct Touched {
    functions: BTreeSet<FunctionPath>,
    /// Whether what was set for a function is.
    options: bool,
    limits: bool,
}

impl Touched {
    fn by(changes: &[Change]) -> Self {
        let mut touched = Self::default();
        for change in changes {
            match change {
                Change::Add(VersionRow { path, .. })
                | Change::Switch { path, .. }
                | Change::Remove { path }
                | Change::Bundled { path }
                | Change::Hide { path } => drop(touched.functions.insert(path.clone())),
                Change::Set { path, .. } => {
                    touched.functions.insert(path.clone());
                    touched.options = true;
                }
                Change::Limits(_) => touched.limits = true,
            }
        }
        touched
    }

    fn only_function(&self) -> Option<&FunctionPath> {
        self.functions.first().filter(|_| self.functions.len() == 1)
    }

    fn told(
        &self,
        db: &Connection,
        tenant: TenantId,
        bundle: &Bundle,
    ) -> Result<Map<String, Value>> {
        let generation: i64 = db
            .prepare_cached("SELECT generation FROM tenants WHERE id = ?")?
            .query_row([tenant.0], |row| row.get(0))?;
        let mut told = Map::from_iter([("generation".to_owned(), generation.into())]);
        if self.limits {
            told.insert("limits".to_owned(), value(&limits_of(db, tenant)?));
        }
        let mut functions = Map::new();
        for path in &self.functions {
            let folded = path.folded();
            let active = db
                .prepare_cached(ACTIVE)?
                .query_row((tenant.0, &folded), VersionRow::of)
                .optional()?;
            let told = match active {
                Some(own) => self.function(own.version.into(), own.options(), &own.set),
                None => match (function(db, tenant, &folded)?, bundle.find(path)) {
                    (Some(FunctionRow { hidden_at: Some(_), .. }), _) | (_, None) => Value::Null,
                    (changed, Some(mount)) => {
                        let set = changed.map(|row| row.set).unwrap_or_default();
                        let version = FunctionVersion::Bundled(bundle.build.clone());
                        let all = OptionsPatch::of_layers(&mount.declared, &mount.options, &set);
                        self.function(version, all, &set)
                    }
                },
            };
            functions.insert(path.to_string(), told);
        }
        if !functions.is_empty() {
            told.insert("functions".to_owned(), functions.into());
        }
        Ok(told)
    }

    /// Who may call it follows from all of its layers.
    fn function(&self, version: FunctionVersion, all: OptionsPatch, set: &OptionsPatch) -> Value {
        let auth = all.resolve().auth;
        let mut told = Map::from_iter([
            ("version".to_owned(), value(&version)),
            ("auth".to_owned(), auth.to_string().into()),
        ]);
        if self.options {
            told.insert("options".to_owned(), value(set));
        }
        told.into()
    }
}

fn value(plain: &impl Serialize) -> Value {
    serde_json::to_value(plain).expect("it is plain data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::functions::tests::{generation, row};
    use crate::store::scratch::{scratch, tenant};

    #[tokio::test]
    async fn a_commit_that_fails_leaves_nothing() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        let first = vec![Change::Add(row("/a", 1))];
        store.commit_generation(generation(acme.id, 1, first)).await.unwrap();

        let missing =
            |what: &Result<()>, name| matches!(what, Err(StoreError::Missing(n)) if *n == name);
        let path: FunctionPath = "/a".parse().unwrap();
        for (last, name) in [
            (Change::Switch { path: path.clone(), version: 7 }, "version"),
            (Change::Switch { path: "/nix".parse().unwrap(), version: 1 }, "function"),
            (Change::Remove { path: "/nix".parse().unwrap() }, "function"),
        ] {
            let changes =
                vec![Change::Add(row("/b", 1)), Change::Remove { path: path.clone() }, last];
            let refused = store.commit_generation(generation(acme.id, 2, changes)).await;
            assert!(missing(&refused, name), "{refused:?}");
        }
        assert_eq!(store.own_functions(acme.id).await.unwrap().live, [row("/a", 1)]);
        assert_eq!(store.latest_version(acme.id, &"/b".parse().unwrap()).await.unwrap(), 0);
        assert_eq!(store.generations(acme.id).await.unwrap().len(), 1);
        assert_eq!(
            store.tenant(&acme.name).await.unwrap().unwrap().generation,
            GenerationNumber(1)
        );
    }

    #[tokio::test]
    async fn a_generation_that_is_not_newer_comes_too_late() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        store.commit_generation(generation(acme.id, 3, vec![])).await.unwrap();
        for late in [2, 3] {
            let refused = store.commit_generation(generation(acme.id, late, vec![])).await;
            assert!(
                matches!(refused, Err(StoreError::Stale { generation: GenerationNumber(number), current: GenerationNumber(3) }) if number == late),
                "{refused:?}"
            );
        }
        let nobody = store.commit_generation(generation(TenantId(99), 1, vec![])).await;
        assert!(matches!(nobody, Err(StoreError::Missing("tenant"))), "{nobody:?}");
    }

    #[tokio::test]
    async fn limits_are_kept_with_the_tenant() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        let mut limits = LimitsPatch::default();
        limits.change([("functions".to_owned(), Some(3))]).unwrap();
        let change = vec![Change::Limits(limits.clone())];
        store.commit_generation(generation(acme.id, 1, change)).await.unwrap();
        let acme = store.tenant(&acme.name).await.unwrap().unwrap();
        assert_eq!((acme.limits().functions, acme.limits), (3, limits));
    }

    #[tokio::test]
    async fn past_generations_are_bounded() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        for number in 1..=GENERATIONS_KEPT + 2 {
            store.commit_generation(generation(acme.id, number, vec![])).await.unwrap();
        }
        let generations = store.generations(acme.id).await.unwrap();
        assert_eq!(generations.len() as u64, GENERATIONS_KEPT);
        assert_eq!(generations[0].generation.0, GENERATIONS_KEPT + 2);
    }
}
