//! Rows of functions, their versions and their tenants' generations. A generation is committed
//! with all that it changes or not at all; that commit is the instant at which it is current.
//!
//! Modules and artifacts on disk are `release.rs`'s, which sweeps what no row here names.

use std::collections::{BTreeSet, HashSet};

use hearth_wire::{
    FunctionPath, Generation, HandlerKind, LimitsPatch, ModuleDigest, OptionsPatch, TenantName,
    Version,
};
use jiff::Timestamp;
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, Transaction};
use serde::Serialize;
use serde_json::{Map, Value};

use super::audit::{self, Action, Event, Sides};
use super::columns::{column, instant, json, millis, optional, parsed, signed, unsigned};
use super::error::{Result, StoreError};
use super::handle::{Asker, Store};
use super::ids::TenantId;
use crate::actor::Author;

/// Rows of a tenant's past generations.
const GENERATIONS_KEPT: u64 = 500;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRow {
    pub path: FunctionPath,
    pub version: Version,
    pub sha256: ModuleDigest,
    /// Bytes of the module, unpacked.
    pub size: u64,
    /// Bytes that it takes on disk.
    pub stored: u64,
    pub kind: HandlerKind,
    pub imports: Vec<String>,
    /// What the module says of itself.
    pub declared: OptionsPatch,
    /// What came with the upload.
    pub uploaded: OptionsPatch,
    /// What was set for the function since, whichever version is active.
    pub set: OptionsPatch,
    pub bundled: bool,
    pub created_at: Timestamp,
    pub created_by: String,
}

impl VersionRow {
    /// All layers, the one set last on top.
    pub fn options(&self) -> OptionsPatch {
        self.set.clone().over(self.uploaded.clone().over(self.declared.clone()))
    }

    /// Of a row of [`VERSIONS`].
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            path: column(row, "path", parsed)?,
            version: row.get("version")?,
            sha256: column(row, "sha256", parsed)?,
            size: column(row, "size", unsigned)?,
            stored: column(row, "stored", unsigned)?,
            kind: column(row, "kind", kind)?,
            imports: column(row, "imports", json)?,
            declared: column(row, "declared", json)?,
            uploaded: column(row, "uploaded", json)?,
            set: column(row, "options", json)?,
            bundled: row.get("bundled")?,
            created_at: column(row, "created_at", instant)?,
            created_by: row.get("created_by")?,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRow {
    /// As it was written last.
    pub path: FunctionPath,
    /// `None`: removed, and its history kept for a while.
    pub active: Option<Version>,
    /// What was set for it, whichever version is active.
    pub set: OptionsPatch,
    pub removed_at: Option<Timestamp>,
}

impl FunctionRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            path: column(row, "path", parsed)?,
            active: row.get("active")?,
            set: column(row, "options", json)?,
            removed_at: column(row, "removed_at", |at| optional(at, instant))?,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationRow {
    pub generation: Generation,
    pub cause: String,
    pub by: String,
    pub created_at: Timestamp,
}

impl GenerationRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            generation: column(row, "generation", unsigned)?,
            cause: row.get("cause")?,
            by: row.get("by")?,
            created_at: column(row, "created_at", instant)?,
        })
    }
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a handful at a time, and most are the large one")]
pub enum Change {
    /// Keeps the version and makes it the active one. Its number is above all before it. What
    /// was set for the function stays as it is.
    Add(VersionRow),
    /// Makes a version that is kept the active one, also of a function that was removed.
    Switch {
        path: FunctionPath,
        version: Version,
    },
    Remove {
        path: FunctionPath,
    },
    /// In the place of what was set for the function before.
    Set {
        path: FunctionPath,
        options: OptionsPatch,
    },
    /// In the place of what was set for the tenant before.
    Limits(LimitsPatch),
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
    pub generation: Generation,
    pub cause: Cause,
    pub by: Author,
    pub changes: Vec<Change>,
}

const LIVE: &str = "SELECT path, functions.options, versions.* FROM functions \
    JOIN versions ON function = id AND version = active WHERE tenant = ? ORDER BY path";
const ACTIVE: &str = "SELECT path, functions.options, versions.* FROM functions \
    JOIN versions ON function = id AND version = active WHERE tenant = ? AND folded = ?";
const VERSIONS: &str = "SELECT path, functions.options, versions.* FROM functions \
    JOIN versions ON function = id WHERE tenant = ? AND folded = ? ORDER BY version DESC";

impl Store {
    /// The active version of each function, by path.
    pub async fn live_functions(&self, tenant: TenantId) -> Result<Vec<VersionRow>> {
        self.read(Asker::Tenant(tenant), move |db| {
            let mut statement = db.prepare_cached(LIVE)?;
            let rows = statement.query_map([tenant.0], VersionRow::of)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Paths that differ only in case are one.
    pub async fn function(
        &self,
        tenant: TenantId,
        path: &FunctionPath,
    ) -> Result<Option<FunctionRow>> {
        let folded = path.folded();
        self.read(Asker::Tenant(tenant), move |db| {
            let mut statement = db.prepare_cached(
                "SELECT path, active, options, removed_at FROM functions
                 WHERE tenant = ? AND folded = ?",
            )?;
            Ok(statement.query_row((tenant.0, folded), FunctionRow::of).optional()?)
        })
        .await
    }

    /// Newest first.
    pub async fn versions(&self, tenant: TenantId, path: &FunctionPath) -> Result<Vec<VersionRow>> {
        let folded = path.folded();
        self.read(Asker::Tenant(tenant), move |db| {
            let mut statement = db.prepare_cached(VERSIONS)?;
            let rows = statement.query_map((tenant.0, folded), VersionRow::of)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// The highest number that a version of this function ever had; 0 if there was none.
    pub async fn latest_version(&self, tenant: TenantId, path: &FunctionPath) -> Result<Version> {
        let folded = path.folded();
        self.read(Asker::Tenant(tenant), move |db| {
            let mut statement =
                db.prepare_cached("SELECT latest FROM functions WHERE tenant = ? AND folded = ?")?;
            let latest = statement.query_row((tenant.0, folded), |row| row.get(0)).optional()?;
            Ok(latest.unwrap_or(0))
        })
        .await
    }

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

    /// Bytes that the modules take which a tenant uploaded, each once.
    pub async fn module_bytes(&self, tenant: TenantId) -> Result<u64> {
        self.read(Asker::Tenant(tenant), move |db| {
            let mut statement = db.prepare_cached(
                "SELECT ifnull(sum(stored), 0) AS bytes FROM (
                     SELECT DISTINCT sha256, stored FROM versions JOIN functions ON id = function
                     WHERE tenant = ? AND NOT bundled
                 )",
            )?;
            Ok(statement.query_row([tenant.0], |row| column(row, "bytes", unsigned))?)
        })
        .await
    }

    /// Those of these modules that no version names.
    pub async fn unnamed(&self, modules: HashSet<ModuleDigest>) -> Result<HashSet<ModuleDigest>> {
        self.read(Asker::Host, move |db| {
            let mut statement =
                db.prepare_cached("SELECT EXISTS (SELECT 1 FROM versions WHERE sha256 = ?)")?;
            let mut unnamed = HashSet::new();
            for sha256 in modules {
                if !statement.query_row([sha256.to_string()], |row| row.get::<_, bool>(0))? {
                    unnamed.insert(sha256);
                }
            }
            Ok(unnamed)
        })
        .await
    }

    /// The modules that a tenant's own versions name.
    pub async fn modules_of(&self, tenant: TenantId) -> Result<HashSet<ModuleDigest>> {
        self.read(Asker::Tenant(tenant), move |db| {
            let mut statement = db.prepare_cached(
                "SELECT DISTINCT sha256 FROM versions JOIN functions ON id = function
                     WHERE tenant = ? AND NOT bundled",
            )?;
            let digests = statement.query_map([tenant.0], |row| column(row, "sha256", parsed))?;
            Ok(digests.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Every module that any version names.
    pub async fn live_modules(&self) -> Result<HashSet<ModuleDigest>> {
        self.read(Asker::Host, |db| {
            let mut statement = db.prepare_cached("SELECT DISTINCT sha256 FROM versions")?;
            let digests = statement.query_map([], |row| column(row, "sha256", parsed))?;
            Ok(digests.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// The module that follows this one, of those that any version names.
    pub async fn module_after(&self, last: Option<ModuleDigest>) -> Result<Option<ModuleDigest>> {
        let last = last.map_or(String::new(), |last| last.to_string());
        self.read(Asker::Host, |db| {
            let mut statement =
                db.prepare_cached("SELECT min(sha256) AS next FROM versions WHERE sha256 > ?")?;
            let next = |row: &Row<'_>| column(row, "next", |next| optional(next, parsed));
            Ok(statement.query_row([last], next)?)
        })
        .await
    }

    /// Whose artifacts any version names; nobody's are those of bundled functions.
    pub async fn live_artifacts(&self) -> Result<HashSet<(Option<TenantName>, ModuleDigest)>> {
        self.read(Asker::Host, |db| {
            let mut statement = db.prepare_cached(
                "SELECT DISTINCT iif(bundled, NULL, name) AS owner, sha256 FROM versions
                     JOIN functions ON functions.id = function JOIN tenants ON tenants.id = tenant",
            )?;
            let named = statement.query_map([], |row| {
                let owner = column(row, "owner", |owner| optional(owner, parsed))?;
                Ok((owner, column(row, "sha256", parsed)?))
            })?;
            Ok(named.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Forgets functions that were removed before then, and older digests of artifacts whose
    /// module no version names; and what is told of changes before `audited`. Tells how many
    /// functions there were.
    pub async fn purge(&self, before: Timestamp, audited: Timestamp) -> Result<u64> {
        self.write(Asker::Host, move |db| {
            audit::forget(db, audited)?;
            let purged =
                db.execute("DELETE FROM functions WHERE removed_at < ?", [millis(before)])?;
            db.execute(
                "DELETE FROM artifacts WHERE tenant <> 0 AND created_at < ? AND NOT EXISTS (
                     SELECT 1 FROM versions JOIN functions ON id = function
                     WHERE versions.sha256 = artifacts.sha256 AND functions.tenant = artifacts.tenant
                 )",
                [millis(before)],
            )?;
            Ok(purged as u64)
        })
        .await
    }
}

/// Tells what is then to be noted, in the same transaction.
pub(super) fn commit(transaction: &Transaction<'_>, new: NewGeneration) -> Result<Event> {
    let NewGeneration { tenant, generation, cause, by, changes } = new;
    let now = millis(Timestamp::now());
    let current: Generation = transaction
        .prepare_cached("SELECT generation FROM tenants WHERE id = ?")?
        .query_row([tenant.0], |row| column(row, "generation", unsigned))
        .optional()?
        .ok_or(StoreError::Missing("tenant"))?;
    if generation <= current {
        return Err(StoreError::Stale { generation, current });
    }
    let touched = Touched::by(&changes);
    let before = touched.told(transaction, tenant)?;
    transaction.execute(
        "INSERT INTO generations (tenant, generation, cause, by, created_at) VALUES (?, ?, ?, ?, ?)",
        (tenant.0, signed(generation), cause.as_str(), by.actor.name(), now),
    )?;
    transaction.execute(
        "UPDATE tenants SET generation = ? WHERE id = ?",
        (signed(generation), tenant.0),
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
    let sides = Sides::between(before, touched.told(transaction, tenant)?);
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
                | Change::Remove { path } => drop(touched.functions.insert(path.clone())),
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

    fn told(&self, db: &Connection, tenant: TenantId) -> Result<Map<String, Value>> {
        let generation: i64 = db
            .prepare_cached("SELECT generation FROM tenants WHERE id = ?")?
            .query_row([tenant.0], |row| row.get(0))?;
        let mut told = Map::from_iter([("generation".to_owned(), generation.into())]);
        if self.limits {
            told.insert("limits".to_owned(), value(&limits_of(db, tenant)?));
        }
        let mut functions = Map::new();
        for path in &self.functions {
            let active = db
                .prepare_cached(ACTIVE)?
                .query_row((tenant.0, path.folded()), VersionRow::of)
                .optional()?;
            functions.insert(path.to_string(), active.map_or(Value::Null, |it| self.function(&it)));
        }
        if !functions.is_empty() {
            told.insert("functions".to_owned(), functions.into());
        }
        Ok(told)
    }

    /// Who may call it follows from all of its layers.
    fn function(&self, active: &VersionRow) -> Value {
        let auth = active.options().resolve().auth;
        let mut told = Map::from_iter([
            ("version".to_owned(), active.version.into()),
            ("auth".to_owned(), auth.to_string().into()),
        ]);
        if self.options {
            told.insert("options".to_owned(), value(&active.set));
        }
        told.into()
    }
}

fn value(plain: &impl Serialize) -> Value {
    serde_json::to_value(plain).expect("it is plain data")
}

/// The id of the function whose versions were changed.
fn apply(db: &Connection, tenant: TenantId, change: Change, now: i64) -> Result<Option<i64>> {
    match change {
        Change::Add(version) => add(db, tenant, version).map(Some),
        Change::Switch { path, version } => {
            let (id, _) = find(db, tenant, &path)?.ok_or(StoreError::Missing("function"))?;
            let kept = db
                .prepare_cached("SELECT 1 FROM versions WHERE function = ? AND version = ?")?
                .exists((id, version))?;
            if !kept {
                return Err(StoreError::Missing("version"));
            }
            db.execute(
                "UPDATE functions SET active = ?, removed_at = NULL WHERE id = ?",
                (version, id),
            )?;
            Ok(Some(id))
        }
        Change::Remove { path } => {
            let (id, _) = find(db, tenant, &path)?.ok_or(StoreError::Missing("function"))?;
            db.execute(
                "UPDATE functions SET active = NULL, removed_at = ? WHERE id = ?",
                (now, id),
            )?;
            Ok(Some(id))
        }
        Change::Set { path, options } => {
            let (id, _) = find(db, tenant, &path)?.ok_or(StoreError::Missing("function"))?;
            db.execute("UPDATE functions SET options = ? WHERE id = ?", (text(&options), id))?;
            Ok(None)
        }
        Change::Limits(limits) => {
            db.execute("UPDATE tenants SET limits = ? WHERE id = ?", (text(&limits), tenant.0))?;
            Ok(None)
        }
    }
}

pub(super) fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("it is plain data")
}

fn add(db: &Connection, tenant: TenantId, row: VersionRow) -> Result<i64> {
    let VersionRow {
        path,
        version,
        sha256,
        size,
        stored,
        kind,
        imports,
        declared,
        uploaded,
        set: _,
        bundled,
        created_at,
        created_by,
    } = row;
    let id = match find(db, tenant, &path)? {
        Some((_, latest)) if version <= latest => return Err(StoreError::Exists),
        Some((id, _)) => {
            db.execute(
                "UPDATE functions SET path = ?, latest = ?, active = ?, removed_at = NULL WHERE id = ?",
                (path.as_str(), version, version, id),
            )?;
            id
        }
        None => {
            db.execute(
                "INSERT INTO functions (tenant, path, folded, latest, active) VALUES (?, ?, ?, ?, ?)",
                (tenant.0, path.as_str(), path.folded(), version, version),
            )?;
            db.last_insert_rowid()
        }
    };
    db.execute(
        "INSERT INTO versions (function, version, sha256, size, stored, kind, imports, declared,
             uploaded, bundled, created_at, created_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            id,
            version,
            sha256.to_string(),
            signed(size),
            signed(stored),
            kind_text(kind),
            text(&imports),
            text(&declared),
            text(&uploaded),
            bundled,
            millis(created_at),
            created_by,
        ),
    )?;
    Ok(id)
}

/// The function's id and its highest version.
fn find(db: &Connection, tenant: TenantId, path: &FunctionPath) -> Result<Option<(i64, Version)>> {
    Ok(db
        .prepare_cached("SELECT id, latest FROM functions WHERE tenant = ? AND folded = ?")?
        .query_row((tenant.0, path.folded()), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

/// Keeps the active version and the newest others.
fn prune(db: &Connection, function: i64, most: u64) -> Result<()> {
    db.execute(
        "DELETE FROM versions WHERE function = ?1 AND version NOT IN (
             SELECT version FROM versions JOIN functions ON id = function WHERE function = ?1
             ORDER BY version IS active DESC, version DESC LIMIT ?2
         )",
        (function, signed(most)),
    )?;
    Ok(())
}

pub(super) fn kind_text(kind: HandlerKind) -> &'static str {
    match kind {
        HandlerKind::IncomingHandler => "incoming-handler",
        HandlerKind::Handler => "handler",
    }
}

pub(super) fn kind(value: ValueRef<'_>) -> FromSqlResult<HandlerKind> {
    match value.as_str()? {
        "incoming-handler" => Ok(HandlerKind::IncomingHandler),
        "handler" => Ok(HandlerKind::Handler),
        _ => Err(FromSqlError::InvalidType),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::store::scratch::{author, scratch, tenant};

    pub(in crate::store) fn row(path: &str, version: Version) -> VersionRow {
        VersionRow {
            path: path.parse().unwrap(),
            version,
            sha256: ModuleDigest::new([version as u8; 32]),
            size: 1_000,
            stored: 300,
            kind: HandlerKind::IncomingHandler,
            imports: vec!["wasi:io/poll@0.2.6".into()],
            declared: OptionsPatch::parse(r#"{"methods":["GET"],"auth":"invoke"}"#).unwrap(),
            uploaded: OptionsPatch::parse(r#"{"auth":"public"}"#).unwrap(),
            set: OptionsPatch::default(),
            bundled: false,
            created_at: Timestamp::from_millisecond(1_700_000_000_123).unwrap(),
            created_by: "ci".into(),
        }
    }

    fn generation(tenant: TenantId, generation: Generation, changes: Vec<Change>) -> NewGeneration {
        NewGeneration { tenant, generation, cause: Cause::Upload, by: author("ci"), changes }
    }

    #[tokio::test]
    async fn a_commit_is_read_back_as_it_was_written() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        let (b, a) = (row("/jobs/b", 1), row("/a", 1));
        let changes = vec![Change::Add(b.clone()), Change::Add(a.clone())];
        store.commit_generation(generation(acme.id, 1, changes)).await.unwrap();

        assert_eq!(store.live_functions(acme.id).await.unwrap(), [a, b.clone()]);
        assert_eq!(store.tenant(&acme.name).await.unwrap().unwrap().generation, 1);
        let generations = store.generations(acme.id).await.unwrap();
        let told: Vec<_> = generations.iter().map(|g| (g.generation, &*g.cause, &*g.by)).collect();
        assert_eq!(told, [(1, "upload", "ci")]);
        assert_eq!(store.latest_version(acme.id, &b.path).await.unwrap(), 1);
        assert_eq!(store.latest_version(acme.id, &"/nix".parse().unwrap()).await.unwrap(), 0);
        assert_eq!(store.live_modules().await.unwrap(), HashSet::from([b.sha256]));
        assert_eq!(store.module_after(None).await.unwrap(), Some(b.sha256));
        assert_eq!(store.module_after(Some(b.sha256)).await.unwrap(), None);
        let artifacts = HashSet::from([(Some(acme.name), b.sha256)]);
        assert_eq!(store.live_artifacts().await.unwrap(), artifacts);
    }

    #[tokio::test]
    async fn paths_that_differ_in_case_are_one_function() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        let beta = tenant(&store, "beta", 4_002).await;
        for tenant in [acme.id, beta.id] {
            let changes = vec![Change::Add(row("/hello", 1))];
            store.commit_generation(generation(tenant, 1, changes)).await.unwrap();
        }
        let again = vec![Change::Add(row("/HELLO", 1))];
        let again = store.commit_generation(generation(acme.id, 2, again)).await;
        assert!(matches!(again, Err(StoreError::Exists)), "{again:?}");
        let next = vec![Change::Add(row("/Hello", 2))];
        store.commit_generation(generation(acme.id, 2, next)).await.unwrap();

        let found = store.function(acme.id, &"/hELLO".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!((found.path.as_str(), found.active), ("/Hello", Some(2)));
        let live = store.live_functions(acme.id).await.unwrap();
        assert_eq!(live.len(), 1);
        let versions = store.versions(acme.id, &"/hello".parse().unwrap()).await.unwrap();
        assert_eq!(versions.iter().map(|v| v.version).collect::<Vec<_>>(), [2, 1]);
    }

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
        assert_eq!(store.live_functions(acme.id).await.unwrap(), [row("/a", 1)]);
        assert_eq!(store.latest_version(acme.id, &"/b".parse().unwrap()).await.unwrap(), 0);
        assert_eq!(store.generations(acme.id).await.unwrap().len(), 1);
        assert_eq!(store.tenant(&acme.name).await.unwrap().unwrap().generation, 1);
    }

    #[tokio::test]
    async fn a_generation_that_is_not_newer_comes_too_late() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        store.commit_generation(generation(acme.id, 3, vec![])).await.unwrap();
        for late in [2, 3] {
            let refused = store.commit_generation(generation(acme.id, late, vec![])).await;
            assert!(
                matches!(refused, Err(StoreError::Stale { generation, current: 3 }) if generation == late),
                "{refused:?}"
            );
        }
        let nobody = store.commit_generation(generation(TenantId(99), 1, vec![])).await;
        assert!(matches!(nobody, Err(StoreError::Missing("tenant"))), "{nobody:?}");
    }

    #[tokio::test]
    async fn a_removed_function_can_come_back_until_it_is_purged() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        let path: FunctionPath = "/a".parse().unwrap();
        let add = |version| Change::Add(row("/a", version));
        let remove = Change::Remove { path: path.clone() };
        let back = Change::Switch { path: path.clone(), version: 1 };
        for (number, change) in (1..).zip([add(1), add(2), remove.clone()]) {
            store.commit_generation(generation(acme.id, number, vec![change])).await.unwrap();
        }
        assert_eq!(store.live_functions(acme.id).await.unwrap(), []);
        let removed = store.function(acme.id, &path).await.unwrap().unwrap();
        assert_eq!(removed.active, None);
        assert!(removed.removed_at.is_some());

        store.commit_generation(generation(acme.id, 4, vec![back])).await.unwrap();
        assert_eq!(store.live_functions(acme.id).await.unwrap(), [row("/a", 1)]);
        assert_eq!(store.latest_version(acme.id, &path).await.unwrap(), 2);

        store.commit_generation(generation(acme.id, 5, vec![remove])).await.unwrap();
        assert_eq!(store.purge(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH).await.unwrap(), 0);
        let later = Timestamp::now() + jiff::SignedDuration::from_secs(1);
        assert_eq!(store.purge(later, Timestamp::UNIX_EPOCH).await.unwrap(), 1);
        assert_eq!(store.function(acme.id, &path).await.unwrap(), None);
        assert_eq!(store.live_modules().await.unwrap(), HashSet::new());
    }

    #[tokio::test]
    async fn old_versions_go_but_never_the_active_one() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        let path: FunctionPath = "/a".parse().unwrap();
        let kept = 5;
        let mut limits = LimitsPatch::default();
        limits.change([("versions".to_owned(), Some(kept.into()))]).unwrap();
        let limits = vec![Change::Limits(limits)];
        store.commit_generation(generation(acme.id, 1, limits)).await.unwrap();
        for version in 1..=kept {
            let changes = vec![Change::Add(row("/a", version))];
            let number = u64::from(version) + 1;
            store.commit_generation(generation(acme.id, number, changes)).await.unwrap();
        }
        // Added and switched back at once, so that the oldest is active while there are too many.
        let changes = vec![
            Change::Add(row("/a", kept + 1)),
            Change::Add(row("/a", kept + 2)),
            Change::Switch { path: path.clone(), version: 1 },
        ];
        store.commit_generation(generation(acme.id, 100, changes)).await.unwrap();
        let versions = store.versions(acme.id, &path).await.unwrap();
        let numbers: Vec<_> = versions.iter().map(|v| v.version).collect();
        let expected: Vec<_> = (4..=kept + 2).rev().chain([1]).collect();
        assert_eq!(numbers, expected);
        assert_eq!(numbers.len(), kept as usize);
        assert_eq!(store.live_functions(acme.id).await.unwrap(), [row("/a", 1)]);
    }

    #[tokio::test]
    async fn what_was_set_stays_through_uploads_and_rollbacks() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        let path: FunctionPath = "/a".parse().unwrap();
        let set = OptionsPatch::parse(r#"{"auth":"owner"}"#).unwrap();
        for (number, change) in (1..).zip([
            Change::Add(row("/a", 1)),
            Change::Set { path: path.clone(), options: set.clone() },
            Change::Add(row("/a", 2)),
            Change::Remove { path: path.clone() },
            Change::Switch { path: path.clone(), version: 1 },
        ]) {
            store.commit_generation(generation(acme.id, number, vec![change])).await.unwrap();
        }
        let live = store.live_functions(acme.id).await.unwrap();
        assert_eq!(live, [VersionRow { set, ..row("/a", 1) }]);
        let options = live[0].options().resolve();
        assert_eq!(
            (options.methods, options.auth.to_string()),
            (vec!["GET".into()], "owner".into())
        );
        let nix = Change::Set { path: "/nix".parse().unwrap(), options: OptionsPatch::default() };
        let missing = store.commit_generation(generation(acme.id, 9, vec![nix])).await;
        assert!(matches!(missing, Err(StoreError::Missing("function"))), "{missing:?}");
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
    async fn a_tenant_goes_with_its_functions() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        let changes = vec![Change::Add(row("/a", 1))];
        store.commit_generation(generation(acme.id, 1, changes)).await.unwrap();
        store.delete_tenant(acme.id).await.unwrap();
        assert_eq!(store.live_modules().await.unwrap(), HashSet::new());
        assert_eq!(store.generations(acme.id).await.unwrap(), []);
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
        assert_eq!(generations[0].generation, GENERATIONS_KEPT + 2);
    }
}
