//! Rows of functions and their versions, a tenant's own. Of what comes with the build there are rows
//! only where the tenant's owner changed it: options that were set, or that it was removed. What changes them comes with a generation of their tenant
//! (`generations.rs`).
//!
//! Modules and artifacts on disk are `generations.rs`'s, which sweeps what no row here names.

use std::collections::HashSet;

use hearth_wire::{
    FunctionPath, HandlerKind, LimitsPatch, ModuleDigest, OptionsPatch, Over, TenantName, Version,
};
use jiff::Timestamp;
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;

use super::audit;
use super::columns::{column, instant, json, millis, optional, parsed, signed, unsigned};
use super::error::{Result, StoreError};
use super::handle::{Asker, Store};
use super::ids::TenantId;
use super::past;

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
    pub created_at: Timestamp,
    pub created_by: String,
}

impl VersionRow {
    /// All layers, the one set last on top.
    pub fn options(&self) -> OptionsPatch {
        OptionsPatch::of_layers(&self.declared, &self.uploaded, &self.set)
    }

    /// Of a row of [`VERSIONS`].
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
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
            created_at: column(row, "created_at", instant)?,
            created_by: row.get("created_by")?,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRow {
    /// As it was written last.
    pub path: FunctionPath,
    /// `None` where no version of its own serves. What is bundled at this path does then, if there
    /// is something, and that was not removed.
    pub active: Option<Version>,
    /// What was set for it, whichever version is active.
    pub set: OptionsPatch,
    /// Its versions were, and are kept for a while.
    pub removed_at: Option<Timestamp>,
    /// What is bundled here was.
    pub hidden_at: Option<Timestamp>,
}

/// What a tenant has of its own: what serves, and what it changed of what is bundled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnFunctions {
    /// The active version of each function, by path.
    pub live: Vec<VersionRow>,
    pub over: Over,
}

impl FunctionRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            path: column(row, "path", parsed)?,
            active: row.get("active")?,
            set: column(row, "options", json)?,
            removed_at: column(row, "removed_at", |at| optional(at, instant))?,
            hidden_at: column(row, "hidden_at", |at| optional(at, instant))?,
        })
    }
}

impl OwnFunctions {
    /// In the place of whatever served at its path.
    pub fn activate(&mut self, row: VersionRow) {
        self.live.retain(|function| function.path.folded() != row.path.folded());
        self.forget(&row.path);
        self.live.push(row);
    }

    /// Lets what is bundled at that path serve again, with what was set for it.
    pub fn bring_back(&mut self, path: &FunctionPath, set: OptionsPatch) {
        self.live.retain(|function| function.path.folded() != path.folded());
        self.forget(path);
        if set != OptionsPatch::default() {
            self.over.set.insert(path.clone(), set);
        }
    }

    /// Of a function that serves, its own or bundled.
    pub fn set(&mut self, path: &FunctionPath, options: OptionsPatch) {
        match self.live.iter_mut().find(|function| function.path == *path) {
            Some(function) => function.set = options,
            None => self.bring_back(path, options),
        }
    }

    fn forget(&mut self, path: &FunctionPath) {
        let folded = path.folded();
        self.over.set.retain(|it, _| it.folded() != folded);
        self.over.removed.retain(|it| it.folded() != folded);
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
    /// No version of its own is active any more, and what is bundled serves again. Its versions are
    /// kept.
    Bundled {
        path: FunctionPath,
    },
    /// What is bundled at this path serves no more, whichever build comes.
    Hide {
        path: FunctionPath,
    },
    /// In the place of what was set for the function before, be it its own or bundled.
    Set {
        path: FunctionPath,
        options: OptionsPatch,
    },
    /// As it was in an earlier generation: of which version, if one of its own served, and with what
    /// was set for it.
    Return {
        path: FunctionPath,
        version: Option<Version>,
        /// What is bundled at this path serves no more.
        hidden: bool,
        options: OptionsPatch,
        /// Its versions are kept for a while only.
        removed: bool,
    },
    /// In the place of what was set for the tenant before.
    Limits(LimitsPatch),
}

const LIVE: &str = "SELECT path, functions.options, versions.* FROM functions \
    JOIN versions ON function = id AND version = active WHERE tenant = ? ORDER BY path";
pub(super) const ACTIVE: &str = "SELECT path, functions.options, versions.* FROM functions \
    JOIN versions ON function = id AND version = active WHERE tenant = ? AND folded = ?";
const CHANGED: &str = "SELECT path, active, options, removed_at, hidden_at FROM functions \
    WHERE tenant = ? AND active IS NULL";
const ALL: &str = "SELECT path, active, options, removed_at, hidden_at FROM functions \
    WHERE tenant = ? ORDER BY path";
const FUNCTION: &str = "SELECT path, active, options, removed_at, hidden_at FROM functions \
    WHERE tenant = ? AND folded = ?";
const VERSIONS: &str = "SELECT path, functions.options, versions.* FROM functions \
    JOIN versions ON function = id WHERE tenant = ? AND folded = ? ORDER BY version DESC";

impl Store {
    pub async fn own_functions(&self, tenant: TenantId) -> Result<OwnFunctions> {
        self.read(Asker::Tenant(tenant), move |db| {
            let mut own = OwnFunctions::default();
            let mut statement = db.prepare_cached(LIVE)?;
            for row in statement.query_map([tenant.0], VersionRow::of)? {
                own.live.push(row?);
            }
            let mut statement = db.prepare_cached(CHANGED)?;
            for row in statement.query_map([tenant.0], FunctionRow::of)? {
                let FunctionRow { path, set, hidden_at, .. } = row?;
                if hidden_at.is_some() {
                    own.over.removed.insert(path);
                } else if set != OptionsPatch::default() {
                    own.over.set.insert(path, set);
                }
            }
            Ok(own)
        })
        .await
    }

    /// Of all functions that are the tenant's own or were changed by its owner, removed ones included.
    pub async fn functions(&self, tenant: TenantId) -> Result<Vec<FunctionRow>> {
        self.read(Asker::Tenant(tenant), move |db| {
            let mut statement = db.prepare_cached(ALL)?;
            let rows = statement.query_map([tenant.0], FunctionRow::of)?;
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
        self.read(Asker::Tenant(tenant), move |db| function(db, tenant, &folded)).await
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

    /// Bytes that the modules take which a tenant uploaded, each once.
    pub async fn module_bytes(&self, tenant: TenantId) -> Result<u64> {
        self.read(Asker::Tenant(tenant), move |db| {
            let mut statement = db.prepare_cached(
                "SELECT ifnull(sum(stored), 0) AS bytes FROM (
                     SELECT DISTINCT sha256, stored FROM versions JOIN functions ON id = function
                     WHERE tenant = ?
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
                     WHERE tenant = ?",
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

    /// Whose artifacts any version names.
    pub async fn live_artifacts(&self) -> Result<HashSet<(TenantName, ModuleDigest)>> {
        self.read(Asker::Host, |db| {
            let mut statement = db.prepare_cached(
                "SELECT DISTINCT name, sha256 FROM versions
                     JOIN functions ON functions.id = function JOIN tenants ON tenants.id = tenant",
            )?;
            let named = statement.query_map([], |row| {
                Ok((column(row, "name", parsed)?, column(row, "sha256", parsed)?))
            })?;
            Ok(named.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Forgets functions that were removed before then, and older digests of artifacts whose
    /// module no version names; and what is told of changes before `audited`. What was changed of a
    /// bundled function, whose paths are given in lower case, stays. Tells how many functions there
    /// were.
    pub async fn purge(
        &self,
        before: Timestamp,
        audited: Timestamp,
        bundled: Vec<String>,
    ) -> Result<u64> {
        self.write(Asker::Host, move |db| {
            audit::forget(db, audited)?;
            past::forget_versions(db, millis(before))?;
            let purged: i64 = db.query_row(
                "SELECT count(*) FROM functions WHERE removed_at < ?",
                [millis(before)],
                |row| row.get(0),
            )?;
            db.execute(
                "DELETE FROM versions WHERE function IN (SELECT id FROM functions WHERE removed_at < ?)",
                [millis(before)],
            )?;
            db.execute(
                "UPDATE functions SET removed_at = NULL WHERE removed_at < ? AND (hidden_at IS NOT NULL
                     OR options <> '{}' AND folded IN (SELECT value FROM json_each(?)))",
                (millis(before), text(&bundled)),
            )?;
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

/// The id of the function whose versions were changed.
pub(super) fn apply(
    db: &Connection,
    tenant: TenantId,
    change: Change,
    now: i64,
) -> Result<Option<i64>> {
    match change {
        Change::Add(version) => add(db, tenant, version).map(Some),
        Change::Switch { path, version } => {
            let (id, _) = find(db, tenant, &path)?.ok_or(StoreError::Missing("function"))?;
            must_be_kept(db, id, version)?;
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
        Change::Bundled { path } => {
            db.execute(
                "UPDATE functions SET active = NULL, removed_at = NULL, hidden_at = NULL
                 WHERE tenant = ? AND folded = ?",
                (tenant.0, path.folded()),
            )?;
            forget_unchanged(db, tenant, &path)?;
            Ok(None)
        }
        Change::Hide { path } => {
            let id = ensure(db, tenant, &path)?;
            db.execute("UPDATE functions SET hidden_at = ? WHERE id = ?", (now, id))?;
            Ok(None)
        }
        Change::Set { path, options } => {
            let id = ensure(db, tenant, &path)?;
            db.execute("UPDATE functions SET options = ? WHERE id = ?", (text(&options), id))?;
            forget_unchanged(db, tenant, &path)?;
            Ok(None)
        }
        Change::Return { path, version, hidden, options, removed } => {
            let id = ensure(db, tenant, &path)?;
            if let Some(version) = version {
                must_be_kept(db, id, version)?;
            }
            db.execute(
                "UPDATE functions SET path = ?2, active = ?3, options = ?4,
                     hidden_at = iif(?5, ifnull(hidden_at, ?7), NULL),
                     removed_at = iif(?6 AND EXISTS (SELECT 1 FROM versions WHERE function = ?1),
                         ifnull(removed_at, ?7), NULL)
                 WHERE id = ?1",
                (id, path.as_str(), version, text(&options), hidden, removed, now),
            )?;
            forget_unchanged(db, tenant, &path)?;
            Ok(version.map(|_| id))
        }
        Change::Limits(limits) => {
            db.execute("UPDATE tenants SET limits = ? WHERE id = ?", (text(&limits), tenant.0))?;
            Ok(None)
        }
    }
}

fn must_be_kept(db: &Connection, function: i64, version: Version) -> Result<()> {
    let kept = db
        .prepare_cached("SELECT 1 FROM versions WHERE function = ? AND version = ?")?
        .exists((function, version))?;
    if kept { Ok(()) } else { Err(StoreError::Missing("version")) }
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
             uploaded, created_at, created_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
            millis(created_at),
            created_by,
        ),
    )?;
    Ok(id)
}

/// The id of the function's row, which a bundled one has from its first change on.
fn ensure(db: &Connection, tenant: TenantId, path: &FunctionPath) -> Result<i64> {
    if let Some((id, _)) = find(db, tenant, path)? {
        return Ok(id);
    }
    db.execute(
        "INSERT INTO functions (tenant, path, folded, latest) VALUES (?, ?, ?, 0)",
        (tenant.0, path.as_str(), path.folded()),
    )?;
    Ok(db.last_insert_rowid())
}

/// Of a bundled function that is as the build has it again, there is no row.
fn forget_unchanged(db: &Connection, tenant: TenantId, path: &FunctionPath) -> Result<()> {
    db.execute(
        "DELETE FROM functions WHERE tenant = ? AND folded = ? AND removed_at IS NULL
             AND hidden_at IS NULL AND options = '{}'
             AND NOT EXISTS (SELECT 1 FROM versions WHERE function = id)",
        (tenant.0, path.folded()),
    )?;
    Ok(())
}

pub(super) fn function(
    db: &Connection,
    tenant: TenantId,
    folded: &str,
) -> Result<Option<FunctionRow>> {
    let mut statement = db.prepare_cached(FUNCTION)?;
    Ok(statement.query_row((tenant.0, folded), FunctionRow::of).optional()?)
}

/// The function's id and its highest version.
fn find(db: &Connection, tenant: TenantId, path: &FunctionPath) -> Result<Option<(i64, Version)>> {
    Ok(db
        .prepare_cached("SELECT id, latest FROM functions WHERE tenant = ? AND folded = ?")?
        .query_row((tenant.0, path.folded()), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

/// Keeps the active version and the newest others.
pub(super) fn prune(db: &Connection, function: i64, most: u64) -> Result<()> {
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
pub(super) mod tests;
