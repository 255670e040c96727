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
use super::past::{self, ChangedFunction};
use crate::actor::Author;

/// Rows of a tenant's past generations.
const GENERATIONS_KEPT: u64 = 500;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationRow {
    pub generation: GenerationNumber,
    pub cause: String,
    pub by: String,
    pub created_at: Timestamp,
    /// Whether it can serve again: what it served is known, and all of it is kept.
    pub whole: bool,
    /// By path.
    pub changed: Vec<ChangedFunction>,
}

impl GenerationRow {
    /// Without what it changed, and as if all that it served were kept.
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            generation: column(row, "generation", generation_number)?,
            cause: row.get("cause")?,
            by: row.get("by")?,
            created_at: column(row, "created_at", instant)?,
            whole: row.get("known")?,
            changed: Vec::new(),
        })
    }
}

/// Some of a tenant's generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationPage {
    /// Newest first.
    pub rows: Vec<GenerationRow>,
    /// Whether there are older ones.
    pub more: bool,
}

/// What a generation is made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Created,
    /// As [`Cause::Created`], for a tenant that came half made in a backup.
    Restored,
    Upload,
    Rollback,
    /// To this earlier generation, with all that it served.
    Return(GenerationNumber),
    Remove,
    Options,
    Limits,
}

impl Cause {
    fn as_str(self) -> &'static str {
        match self {
            Self::Created | Self::Restored => "created",
            Self::Upload => "upload",
            Self::Rollback | Self::Return(_) => "rollback",
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
            Self::Rollback | Self::Return(_) => Action::FunctionRollback,
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

    /// At most so many generations, of those before this one or else of all.
    pub async fn generations(
        &self,
        tenant: TenantId,
        before: Option<GenerationNumber>,
        most: usize,
    ) -> Result<GenerationPage> {
        self.read(Asker::Tenant(tenant), move |db| page(db, tenant, before, most)).await
    }
}

fn page(
    db: &Connection,
    tenant: TenantId,
    before: Option<GenerationNumber>,
    most: usize,
) -> Result<GenerationPage> {
    let mut statement = db.prepare_cached(
        "SELECT * FROM generations WHERE tenant = ? AND generation < ?
         ORDER BY generation DESC LIMIT ?",
    )?;
    // SQLite's integers end there, and no generation comes so far.
    let before = before.map_or(i64::MAX, |before| i64::try_from(before.0).unwrap_or(i64::MAX));
    let limit = signed(most as u64 + 1);
    let rows = statement.query_map((tenant.0, before, limit), GenerationRow::of)?;
    let mut rows: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
    let more = rows.len() > most;
    rows.truncate(most);
    let ends =
        rows.last().zip(rows.first()).map(|(first, last)| (first.generation, last.generation));
    if let Some(ends) = ends {
        let mut changed = past::changed(db, tenant, ends)?;
        let broken = past::broken(db, tenant)?;
        for row in &mut rows {
            let number = row.generation.0;
            row.changed = changed.remove(&number).unwrap_or_default();
            row.whole &= !broken.iter().any(|(since, until)| (*since..*until).contains(&number));
        }
    }
    Ok(GenerationPage { rows, more })
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
        "INSERT INTO generations (tenant, generation, cause, by, created_at, known)
         VALUES (?, ?, ?, ?, ?, 1)",
        (tenant.0, signed(generation.0), cause.as_str(), by.actor.name(), now),
    )?;
    transaction.execute(
        "UPDATE tenants SET generation = ? WHERE id = ?",
        (signed(generation.0), tenant.0),
    )?;
    let mut changed = HashSet::new();
    for change in changes {
        changed.extend(apply(transaction, tenant, change, now)?);
    }
    for path in &touched.functions {
        past::keep(transaction, tenant, generation, path)?;
    }
    transaction.execute(
        "DELETE FROM generations WHERE tenant = ?1 AND generation NOT IN (
             SELECT generation FROM generations WHERE tenant = ?1 ORDER BY generation DESC LIMIT ?2
         )",
        (tenant.0, signed(GENERATIONS_KEPT)),
    )?;
    past::prune(transaction, tenant)?;
    let limits = limits_of(transaction, tenant)?;
    for function in changed {
        prune(transaction, function, limits.resolve().versions)?;
    }
    let mut sides = Sides::between(before, touched.told(transaction, tenant, &bundle)?);
    if let Cause::Return(to) = cause {
        sides.add_after("rolled_back_to", to.0.into());
    }
    let object = match cause {
        Cause::Upload | Cause::Rollback | Cause::Remove | Cause::Options => touched.only_function(),
        // Whatever it brings back, it is no function that was named.
        Cause::Return(_) => None,
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
                Change::Set { path, .. } | Change::Return { path, .. } => {
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
        assert_eq!(store.generations(acme.id, None, 9).await.unwrap().rows.len(), 1);
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
        let page = store.generations(acme.id, None, 1_000).await.unwrap();
        assert_eq!((page.rows.len() as u64, page.more), (GENERATIONS_KEPT, false));
        assert_eq!(page.rows[0].generation.0, GENERATIONS_KEPT + 2);
    }

    #[tokio::test]
    async fn past_generations_come_in_pages() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        for number in 1..=5 {
            store.commit_generation(generation(acme.id, number, vec![])).await.unwrap();
        }
        let page = async |before: Option<u64>, most| {
            let page =
                store.generations(acme.id, before.map(GenerationNumber), most).await.unwrap();
            (page.rows.iter().map(|row| row.generation.0).collect::<Vec<_>>(), page.more)
        };
        assert_eq!(page(None, 2).await, (vec![5, 4], true));
        assert_eq!(page(Some(4), 2).await, (vec![3, 2], true));
        assert_eq!(page(Some(2), 2).await, (vec![1], false));
        assert_eq!(page(Some(1), 2).await, (vec![], false));
        assert_eq!(page(Some(u64::MAX), 5).await, (vec![5, 4, 3, 2, 1], false));
    }
}
