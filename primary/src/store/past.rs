//! Rows of what a tenant served in its earlier generations, so that one of them can come back. They
//! tell what changed and since when: a generation costs what it changes, not what it serves.
//!
//! Written with the generation that makes the change (`generations.rs`), which also says for how
//! long they are kept. What bundled functions were is the build's; here is what their owner changed
//! of them.

use std::collections::BTreeMap;

use hearth_wire::{FunctionPath, GenerationNumber, OptionsPatch, Version};
use rusqlite::{Connection, OptionalExtension, Row};

use super::columns::{column, json, parsed, signed, unsigned};
use super::error::Result;
use super::handle::{Asker, Store};
use super::ids::TenantId;

/// Of the options of earlier generations that are kept of one tenant, besides those that are set
/// now.
const OPTIONS_MAX_BYTES: u64 = 4 << 20;

/// A function of a tenant's own, or what its owner changed of a bundled one, in an earlier
/// generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastFunction {
    pub path: FunctionPath,
    /// `None` where no version of its own served.
    pub version: Option<Version>,
    /// What is bundled at this path was removed.
    pub hidden: bool,
    /// What was set for it.
    pub set: OptionsPatch,
    /// It was forgotten since, and its versions with it.
    pub gone: bool,
}

impl PastFunction {
    /// One that nobody had uploaded or changed.
    pub fn untouched(path: FunctionPath) -> Self {
        Self { path, version: None, hidden: false, set: OptionsPatch::default(), gone: false }
    }
}

/// What is kept of an earlier generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Past {
    /// Not even that it was.
    Nothing,
    /// That it was, and not what it served.
    Name,
    /// All that its tenant had of its own, by path in lower case.
    Whole(BTreeMap<String, PastFunction>),
}

/// A function that a generation changed, and the version that then served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedFunction {
    pub path: FunctionPath,
    /// `None` where none of its own did.
    pub version: Option<Version>,
}

const FUNCTIONS: &str = "SELECT folded, path, version, hidden, gone FROM past_functions AS past
    WHERE tenant = ?1 AND since = (SELECT max(since) FROM past_functions
        WHERE tenant = ?1 AND folded = past.folded AND since <= ?2)";
const OPTIONS: &str = "SELECT folded, path, options FROM past_options AS past
    WHERE tenant = ?1 AND since = (SELECT max(since) FROM past_options
        WHERE tenant = ?1 AND folded = past.folded AND since <= ?2)";
/// The generations that name a version which is no longer kept: from each until before the other.
const BROKEN: &str = "SELECT since, (SELECT min(since) FROM past_functions
        WHERE tenant = ?1 AND folded = past.folded AND since > past.since) AS until
    FROM past_functions AS past WHERE tenant = ?1 AND version IS NOT NULL AND (gone OR NOT EXISTS (
        SELECT 1 FROM versions JOIN functions ON id = function
        WHERE functions.tenant = ?1 AND functions.folded = past.folded
            AND versions.version = past.version))";
const CHANGED: &str = "SELECT since, path, (SELECT version FROM past_functions
        WHERE tenant = ?1 AND folded = past.folded AND since <= past.since
        ORDER BY since DESC LIMIT 1) AS version
    FROM (SELECT folded, since, path FROM past_functions WHERE tenant = ?1 AND since BETWEEN ?2 AND ?3
        UNION SELECT folded, since, path FROM past_options
        WHERE tenant = ?1 AND since BETWEEN ?2 AND ?3) AS past
    GROUP BY since, folded ORDER BY since, path";

impl Store {
    pub async fn past(&self, tenant: TenantId, generation: GenerationNumber) -> Result<Past> {
        // SQLite's integers end there, and no generation comes so far.
        if i64::try_from(generation.0).is_err() {
            return Ok(Past::Nothing);
        }
        self.read(Asker::Tenant(tenant), move |db| {
            let known = db
                .prepare_cached(
                    "SELECT known FROM generations WHERE tenant = ? AND generation = ?",
                )?
                .query_row((tenant.0, signed(generation.0)), |row| row.get::<_, bool>(0))
                .optional()?;
            match known {
                None => Ok(Past::Nothing),
                Some(false) => Ok(Past::Name),
                Some(true) => whole(db, tenant, generation).map(Past::Whole),
            }
        })
        .await
    }
}

fn whole(
    db: &Connection,
    tenant: TenantId,
    generation: GenerationNumber,
) -> Result<BTreeMap<String, PastFunction>> {
    let of = (tenant.0, signed(generation.0));
    let mut past = BTreeMap::new();
    let mut statement = db.prepare_cached(FUNCTIONS)?;
    let rows = statement.query_map(of, |row| {
        let function = PastFunction {
            path: column(row, "path", parsed)?,
            version: row.get("version")?,
            hidden: row.get("hidden")?,
            set: OptionsPatch::default(),
            gone: row.get("gone")?,
        };
        Ok((row.get::<_, String>("folded")?, function))
    })?;
    for row in rows {
        let (folded, function) = row?;
        past.insert(folded, function);
    }
    let mut statement = db.prepare_cached(OPTIONS)?;
    let rows = statement.query_map(of, |row| {
        let (folded, path) = (row.get::<_, String>("folded")?, column(row, "path", parsed)?);
        Ok((folded, path, column(row, "options", json)?))
    })?;
    for row in rows {
        let (folded, path, set) = row?;
        past.entry(folded).or_insert_with(|| PastFunction::untouched(path)).set = set;
    }
    Ok(past)
}

/// Of generations that are kept as a whole: from each number until before the other those which
/// cannot serve again.
pub(super) fn broken(db: &Connection, tenant: TenantId) -> Result<Vec<(u64, u64)>> {
    let mut statement = db.prepare_cached(BROKEN)?;
    let broken = statement.query_map([tenant.0], |row| {
        let until: Option<i64> = row.get("until")?;
        let until = until.and_then(|until| u64::try_from(until).ok()).unwrap_or(u64::MAX);
        Ok((column(row, "since", unsigned)?, until))
    })?;
    Ok(broken.collect::<rusqlite::Result<_>>()?)
}

/// What each of these generations changed, by path.
pub(super) fn changed(
    db: &Connection,
    tenant: TenantId,
    (first, last): (GenerationNumber, GenerationNumber),
) -> Result<BTreeMap<u64, Vec<ChangedFunction>>> {
    let mut changed: BTreeMap<u64, Vec<ChangedFunction>> = BTreeMap::new();
    let mut statement = db.prepare_cached(CHANGED)?;
    let rows = statement.query_map((tenant.0, signed(first.0), signed(last.0)), |row| {
        let (path, version) = (column(row, "path", parsed)?, row.get("version")?);
        Ok((column(row, "since", unsigned)?, ChangedFunction { path, version }))
    })?;
    for row in rows {
        let (since, function) = row?;
        changed.entry(since).or_default().push(function);
    }
    Ok(changed)
}

/// Keeps what a function has come to be by this generation, where that is other than before.
pub(super) fn keep(
    db: &Connection,
    tenant: TenantId,
    generation: GenerationNumber,
    path: &FunctionPath,
) -> Result<()> {
    let (folded, since) = (path.folded(), signed(generation.0));
    let of = (tenant.0, &folded);
    type State = (Option<Version>, bool);
    let now: Option<(String, State, String)> = db
        .prepare_cached(
            "SELECT path, active, hidden_at IS NOT NULL, options FROM functions
             WHERE tenant = ? AND folded = ?",
        )?
        .query_row(of, |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?), row.get(3)?)))
        .optional()?;
    let (path, state, options) =
        now.unwrap_or_else(|| (path.to_string(), (None, false), "{}".to_owned()));
    let before: Option<State> = db
        .prepare_cached(
            "SELECT version, hidden FROM past_functions WHERE tenant = ? AND folded = ?
             ORDER BY since DESC LIMIT 1",
        )?
        .query_row(of, |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if before.unwrap_or((None, false)) != state {
        let (version, hidden) = state;
        db.prepare_cached(
            "INSERT INTO past_functions (tenant, folded, since, path, version, hidden)
             VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute((tenant.0, &folded, since, &path, version, hidden))?;
    }
    let before: Option<String> = db
        .prepare_cached(
            "SELECT options FROM past_options WHERE tenant = ? AND folded = ?
             ORDER BY since DESC LIMIT 1",
        )?
        .query_row(of, |row| row.get(0))
        .optional()?;
    if before.as_deref().unwrap_or("{}") != options {
        db.prepare_cached(
            "INSERT INTO past_options (tenant, folded, since, path, options)
             VALUES (?, ?, ?, ?, ?)",
        )?
        .execute((tenant.0, &folded, since, &path, options))?;
    }
    Ok(())
}

/// Forgets what only generations before the oldest that is kept as a whole were made of; and of
/// those the oldest ones, where their options take too much room.
pub(super) fn prune(db: &Connection, tenant: TenantId) -> Result<()> {
    forget_before(db, tenant, oldest(db, tenant)?)?;
    while options_bytes(db, tenant)? > OPTIONS_MAX_BYTES {
        let dropped = db
            .prepare_cached(
                "UPDATE generations SET known = 0 WHERE tenant = ?1 AND generation = (
                     SELECT min(generation) FROM generations WHERE tenant = ?1 AND known
                 ) AND generation < (SELECT generation FROM tenants WHERE id = ?1)",
            )?
            .execute([tenant.0])?;
        // What serves is kept, however large that is.
        if dropped == 0 {
            break;
        }
        forget_before(db, tenant, oldest(db, tenant)?)?;
    }
    Ok(())
}

fn oldest(db: &Connection, tenant: TenantId) -> Result<i64> {
    Ok(db
        .prepare_cached(
            "SELECT ifnull(min(generation), 0) FROM generations WHERE tenant = ? AND known",
        )?
        .query_row([tenant.0], |row| row.get(0))?)
}

fn options_bytes(db: &Connection, tenant: TenantId) -> Result<u64> {
    let mut statement = db.prepare_cached(
        "SELECT ifnull(sum(octet_length(options)), 0) AS bytes FROM past_options WHERE tenant = ?",
    )?;
    let bytes = |row: &Row<'_>| column(row, "bytes", unsigned);
    Ok(statement.query_row([tenant.0], bytes)?)
}

fn forget_before(db: &Connection, tenant: TenantId, oldest: i64) -> Result<()> {
    for sql in [
        "DELETE FROM past_functions AS past WHERE tenant = ?1 AND since <= ?2
             AND (version IS NULL AND NOT hidden OR EXISTS (SELECT 1 FROM past_functions
                 WHERE tenant = ?1 AND folded = past.folded AND since > past.since AND since <= ?2))",
        "DELETE FROM past_options AS past WHERE tenant = ?1 AND since <= ?2
             AND (options = '{}' OR EXISTS (SELECT 1 FROM past_options
                 WHERE tenant = ?1 AND folded = past.folded AND since > past.since AND since <= ?2))",
    ] {
        db.prepare_cached(sql)?.execute((tenant.0, oldest))?;
    }
    Ok(())
}

/// Of functions that were removed before then, the versions go and their numbers may come again.
pub(super) fn forget_versions(db: &Connection, before: i64) -> Result<()> {
    db.execute(
        "UPDATE past_functions SET gone = 1 WHERE version IS NOT NULL AND EXISTS (
             SELECT 1 FROM functions WHERE functions.tenant = past_functions.tenant
                 AND functions.folded = past_functions.folded AND removed_at < ?)",
        [before],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
