//! A store that came from outside, in a backup, made anew of what its rows say.
//!
//! Nobody knows who made that file. Its tables may have triggers, its numbers may be beyond all that
//! is counted here, and it may say of this machine what it likes. So nothing of the file itself is put
//! to use: each row is parsed by the types that people's input is, and written into tables of this
//! build's own. What is this machine's stays out: users, and what vouches for artifacts. Ports are
//! taken as wishes, and [`Store::settle_ports`](super::Store::settle_ports) has the last word.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::RangeInclusive;
use std::path::Path;

use hearth_wire::limits::{
    FUNCTIONS_MAX, MODULE_MAX_BYTES, SETTING_VALUE_MAX_BYTES, SETTINGS_MAX, SETTINGS_MAX_BYTES,
    TOKENS_MAX,
};
use hearth_wire::{
    FunctionPath, GenerationNumber, Limits, LimitsPatch, ModuleDigest, OptionsPatch, Scope,
    TenantName, Version, json,
};
use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, Params, Row, Transaction};

use super::audit::{self, Action, AuditRow, Event, HOST_ROWS_MAX, Sides, TENANT_ROWS_MAX};
use super::columns::{bytes, column, instant, millis, optional, parsed, signed, unsigned};
use super::database::{DatabaseError, check, lay_out, migrate, version};
use super::error::{Result, StoreError};
use super::functions::{kind, kind_text, text};
use super::ids::TenantId;
use super::migrations::SCHEMA;
use super::settings::{self, Kept, SettingRow};
use super::tenants::RESTORED;
use super::tokens::is_token_name;
use crate::actor::Author;
use crate::sealing::OVERHEAD_BYTES;

/// Longer than any text that was ever written.
const TEXT_MAX_BYTES: i32 = 16 << 20;
/// Ids and counters that nobody reaches by counting, and from which one can count on.
const NUMBER_MAX: u64 = 1 << 40;
const VERSION_MAX: u64 = 1 << 30;
/// Even where it could not be packed smaller than it is.
const STORED_MAX_BYTES: u64 = MODULE_MAX_BYTES + (1 << 20);
const LABEL_MAX_BYTES: usize = 256;

#[derive(Debug, thiserror::Error)]
#[error("this is not {0}")]
struct Not(&'static str);

/// Makes a store of what the other one says, in a file that is not there yet. Nothing of it is durable
/// then, and where this fails it is not to be used. Tells which modules that one named of what came
/// with its build, which this one's build has in their place.
pub fn rebuild(from: &Path, to: &Path) -> Result<HashSet<ModuleDigest>> {
    let (from, bundled) = open(from)?;
    make(&from, to, |rebuilding| rebuilding.all())?;
    Ok(bundled)
}

/// Makes a store of what this host's own says of one tenant, in a file that is not there yet, and of
/// nothing else.
pub(super) fn rebuild_one(own: &Connection, to: &Path, tenant: &TenantName) -> Result<()> {
    make(own, to, |rebuilding| rebuilding.one(tenant))
}

fn make(
    from: &Connection,
    to: &Path,
    rebuild: impl FnOnce(&Rebuilding<'_>) -> Result<()>,
) -> Result<()> {
    let mut own = Connection::open(to)?;
    own.pragma_update(None, "journal_mode", "memory")?;
    own.pragma_update(None, "synchronous", "off")?;
    own.pragma_update(None, "foreign_keys", true)?;
    own.pragma_update(None, "trusted_schema", false)?;
    let transaction = own.transaction()?;
    lay_out(&transaction, &SCHEMA)?;
    rebuild(&Rebuilding { from, to: &transaction })?;
    transaction.commit()?;
    own.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// Notes in a store that was made so, and that nobody has open, what it was restored from.
pub fn note_restore(store: &Path, made_at: Timestamp, tenants: usize) -> Result<()> {
    let mut db = Connection::open(store)?;
    db.pragma_update(None, "journal_mode", "memory")?;
    db.pragma_update(None, "synchronous", "off")?;
    let transaction = db.transaction()?;
    let mut sides = Sides::none();
    sides.add_after("backup_made_at", made_at.to_string().into());
    sides.add_after("tenants", tenants.into());
    let event = Event { action: Action::HostRestore, tenant: None, object: None, sides };
    audit::note(&transaction, &Author::command_line(), event)?;
    transaction.commit()?;
    db.close().map_err(|(_, error)| error.into())
}

/// A stranger's file, of which only tables are read, brought up to this build's schema; and what it
/// named before of modules that came with its build.
fn open(file: &Path) -> Result<(Connection, HashSet<ModuleDigest>)> {
    let strange = |error: rusqlite::Error| DatabaseError::Damaged(error.to_string());
    let mut db = Connection::open(file).map_err(strange)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_limit(Limit::SQLITE_LIMIT_LENGTH, TEXT_MAX_BYTES)?;
    db.pragma_update(None, "trusted_schema", false).map_err(strange)?;
    version(&db, &SCHEMA)?;
    let other = "SELECT name FROM sqlite_schema
         WHERE type NOT IN ('table', 'index') OR sql LIKE 'CREATE VIRTUAL%' LIMIT 1";
    let others = db.prepare(other).and_then(|mut found| found.exists([])).map_err(strange)?;
    if others {
        return Err(DatabaseError::Damaged("it has more than tables of Hearth's".to_owned()).into());
    }
    check(&db)?;
    let bundled = bundled(&db).map_err(|error| damaged("versions", error))?;
    migrate(&mut db, &SCHEMA).map_err(|error| match error {
        DatabaseError::Sqlite(error) => strange(error),
        error => error,
    })?;
    Ok((db, bundled))
}

/// Until the schema 6, what came with a build were versions of each tenant.
fn bundled(db: &Connection) -> rusqlite::Result<HashSet<ModuleDigest>> {
    let schema: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if !(1..6).contains(&schema) {
        return Ok(HashSet::new());
    }
    let mut named = db.prepare("SELECT DISTINCT sha256 FROM versions WHERE bundled")?;
    named.query_map([], |row| column(row, "sha256", parsed))?.collect()
}

struct Rebuilding<'a> {
    from: &'a Connection,
    to: &'a Transaction<'a>,
}

impl Rebuilding<'_> {
    fn all(&self) -> Result<()> {
        let ids = self.rows("tenants", "SELECT id FROM tenants ORDER BY id", [], |row| {
            column(row, "id", |id| within(id, 1..=NUMBER_MAX))
        })?;
        for id in ids {
            self.tenant(signed(id))?;
        }
        self.tokens(None)?;
        self.audit(None)?;
        self.lasting_ids()?;
        self.freed()?;
        self.to.execute("INSERT INTO host (key, value) VALUES (?, x'')", [RESTORED])?;
        Ok(())
    }

    fn one(&self, name: &TenantName) -> Result<()> {
        let sql = "SELECT id FROM tenants WHERE name = ?";
        let ids = self.rows("tenants", sql, [name.as_str()], |row| {
            column(row, "id", |id| within(id, 1..=NUMBER_MAX))
        })?;
        let id = ids.first().ok_or(StoreError::Missing("tenant"))?;
        self.tenant(signed(*id))?;
        self.to.execute("INSERT INTO host (key, value) VALUES (?, x'')", [RESTORED])?;
        Ok(())
    }

    fn tenant(&self, old: i64) -> Result<()> {
        let sql = "SELECT name, port, generation, created_at, limits FROM tenants WHERE id = ?";
        let rows = self.rows("tenants", sql, [old], TenantRow::of)?;
        let [TenantRow { name, port, generation, created_at, limits }] = &rows[..] else {
            return Err(damaged("tenants", "an id stands twice"));
        };
        self.insert(
            "tenants",
            "INSERT INTO tenants (name, port, generation, created_at, limits) VALUES (?, ?, ?, ?, ?)",
            (name.as_str(), port, signed(generation.0), millis(*created_at), text(limits)),
        )?;
        let new = TenantId(self.to.last_insert_rowid());
        self.generations(old, new, *generation)?;
        self.tokens(Some((old, new)))?;
        self.audit(Some((old, new)))?;
        self.settings(old, new)?;
        self.functions(old, new)?;
        self.past(old, new, *generation)
    }

    fn generations(&self, old: i64, new: TenantId, current: GenerationNumber) -> Result<()> {
        let sql =
            "SELECT generation, cause, by, created_at, known FROM generations WHERE tenant = ?";
        let rows = self.rows("generations", sql, [old], |row| {
            let number = column(row, "generation", |it| within(it, 1..=current.0))?;
            let (cause, by) = (column(row, "cause", label)?, column(row, "by", label)?);
            let known: bool = row.get("known")?;
            Ok((number, cause, by, column(row, "created_at", instant)?, known))
        })?;
        for (number, cause, by, created_at, known) in rows {
            self.insert(
                "generations",
                "INSERT INTO generations (tenant, generation, cause, by, created_at, known)
                 VALUES (?, ?, ?, ?, ?, ?)",
                (new.0, signed(number), cause, by, millis(created_at), known),
            )?;
        }
        Ok(())
    }

    /// What its earlier generations served.
    fn past(&self, old: i64, new: TenantId, current: GenerationNumber) -> Result<()> {
        let since = |row: &Row<'_>| column(row, "since", |it| within(it, 1..=current.0));
        let path = |row: &Row<'_>| column::<FunctionPath>(row, "path", parsed);
        let sql = "SELECT since, path, version, hidden, gone FROM past_functions WHERE tenant = ?";
        let rows = self.rows("past_functions", sql, [old], |row| {
            let version =
                column(row, "version", |it| optional(it, |it| within(it, 1..=VERSION_MAX)))?;
            let version = version.map(|version| version as Version);
            let (hidden, gone): (bool, bool) = (row.get("hidden")?, row.get("gone")?);
            Ok((since(row)?, path(row)?, version, hidden, gone))
        })?;
        for (since, path, version, hidden, gone) in rows {
            self.insert(
                "past_functions",
                "INSERT INTO past_functions (tenant, folded, since, path, version, hidden, gone)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
                (new.0, path.folded(), signed(since), path.as_str(), version, hidden, gone),
            )?;
        }
        let sql = "SELECT since, path, options FROM past_options WHERE tenant = ?";
        let rows = self.rows("past_options", sql, [old], |row| {
            Ok((since(row)?, path(row)?, column(row, "options", options)?))
        })?;
        for (since, path, options) in rows {
            self.insert(
                "past_options",
                "INSERT INTO past_options (tenant, folded, since, path, options)
                 VALUES (?, ?, ?, ?, ?)",
                (new.0, path.folded(), signed(since), path.as_str(), text(&options)),
            )?;
        }
        Ok(())
    }

    /// What rests, so that nobody else is given it too soon. What a tenant has does not.
    fn freed(&self) -> Result<()> {
        // What is to be freed in some other century would rest until then.
        let now = Timestamp::now();
        let sql = "SELECT port, name, freed_at FROM freed_ports
             WHERE port NOT IN (SELECT port FROM tenants)";
        let rows = self.rows("freed_ports", sql, [], |row| {
            let (port, name) = (column(row, "port", port)?, column(row, "name", tenant_name)?);
            Ok((port, name, column(row, "freed_at", instant)?.min(now)))
        })?;
        for (port, name, at) in rows {
            let sql = "INSERT INTO freed_ports (port, name, freed_at) VALUES (?, ?, ?)";
            self.insert("freed_ports", sql, (port, name.as_str(), millis(at)))?;
        }
        let sql = "SELECT name, freed_at FROM freed_names
             WHERE name NOT IN (SELECT name FROM tenants)";
        let rows = self.rows("freed_names", sql, [], |row| {
            Ok((column(row, "name", tenant_name)?, column(row, "freed_at", instant)?.min(now)))
        })?;
        for (name, at) in rows {
            let sql = "INSERT INTO freed_names (name, freed_at) VALUES (?, ?)";
            self.insert("freed_names", sql, (name.as_str(), millis(at)))?;
        }
        Ok(())
    }

    /// Of a tenant, or else the host's own.
    fn tokens(&self, tenant: Option<(i64, TenantId)>) -> Result<()> {
        let sql =
            "SELECT id, name, scope, digest, adopted, marked, created_at, expires_at FROM tokens
             WHERE tenant IS ? ORDER BY id";
        let rows = self.rows("tokens", sql, [tenant.map(|(old, _)| old)], TokenRow::of)?;
        // One more for the host: that of its configuration.
        if rows.len() > TOKENS_MAX + 1 {
            return Err(damaged("tokens", "there are more than anybody may have"));
        }
        for TokenRow { id, name, scope, digest, adopted, marked, created_at, expires_at } in rows {
            if (scope == Scope::Admin) != tenant.is_none() {
                return Err(damaged("tokens", "a scope is not one of its owner's"));
            }
            self.insert(
                "tokens",
                "INSERT INTO tokens (id, tenant, name, scope, digest, adopted, marked, created_at, expires_at)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    signed(id),
                    tenant.map(|(_, new)| new.0),
                    name,
                    scope.as_str(),
                    digest,
                    adopted,
                    marked,
                    millis(created_at),
                    expires_at.map(millis),
                ),
            )?;
        }
        Ok(())
    }

    /// What was changed of a tenant, or else of the host and of tenants that are no more.
    fn audit(&self, tenant: Option<(i64, TenantId)>) -> Result<()> {
        let most = if tenant.is_some() { TENANT_ROWS_MAX } else { HOST_ROWS_MAX };
        // What is to be done in some other century would be kept until then.
        let now = Timestamp::now();
        let sql = "SELECT * FROM audit WHERE tenant IS ? ORDER BY id DESC LIMIT ?";
        let of = (tenant.map(|(old, _)| old), signed(most));
        // One at a time: all of them together may be large.
        let strange = |error| damaged("audit", error);
        let mut statement = self.from.prepare(sql).map_err(strange)?;
        for row in statement.query_map(of, audit_row).map_err(strange)? {
            let AuditRow { id, at, actor, tenant: name, action, object, before, after, request_id } =
                row.map_err(strange)?;
            let (kind, token) = audit::kind(&actor);
            self.insert(
                "audit",
                "INSERT INTO audit (id, at, kind, actor, name, tenant, tenant_name, action, object,
                     before, after, request_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    signed(id),
                    millis(at.min(now)),
                    kind,
                    token,
                    actor.name(),
                    tenant.map(|(_, new)| new.0),
                    name.as_ref().map(TenantName::as_str),
                    action.as_str(),
                    object,
                    before.as_ref().map(text),
                    after.as_ref().map(text),
                    request_id.as_ref().map(hearth_wire::RequestId::as_str),
                ),
            )?;
        }
        Ok(())
    }

    /// A token's id is who made a change: none is given again that somebody had there.
    fn lasting_ids(&self) -> Result<()> {
        let sql = "SELECT max(ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'tokens'), 0),
             ifnull((SELECT max(actor) FROM audit), 0)) AS seq";
        let last = self
            .rows("tokens", sql, [], |row| column(row, "seq", |it| within(it, 0..=NUMBER_MAX)))?;
        let last = signed(last.into_iter().max().unwrap_or(0));
        let known = "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'tokens'";
        if self.to.execute(known, [last])? == 0 {
            self.to
                .execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('tokens', ?)", [last])?;
        }
        Ok(())
    }

    /// Secrets as they are sealed: nobody needs their key for it.
    fn settings(&self, old: i64, new: TenantId) -> Result<()> {
        let sql = "SELECT name, value, sealed, sealed_by, set_at FROM settings WHERE tenant = ?";
        let rows = self.rows("settings", sql, [old], SettingRow::of)?;
        let bytes = |row: &SettingRow| row.name.as_str().len() + row.kept.length();
        let is_sealed = |row: &SettingRow| match &row.kept {
            Kept::Config(_) => true,
            Kept::Secret(sealed) => sealed.bytes.len() >= OVERHEAD_BYTES,
        };
        if rows.len() > SETTINGS_MAX
            || rows.iter().map(bytes).sum::<usize>() > SETTINGS_MAX_BYTES
            || rows.iter().any(|row| row.kept.length() > SETTING_VALUE_MAX_BYTES)
            || !rows.iter().all(is_sealed)
        {
            return Err(damaged("settings", "a tenant has more than any may have"));
        }
        // What is to be set in some other century is set now.
        let now = Timestamp::now();
        for SettingRow { name, kept, set_at } in rows {
            match settings::insert(self.to, new, &name, &kept, millis(set_at.min(now))) {
                Err(StoreError::Exists) => return Err(damaged("settings", "a name stands twice")),
                inserted => inserted?,
            }
        }
        Ok(())
    }

    fn functions(&self, old: i64, new: TenantId) -> Result<()> {
        let sql =
            "SELECT id, path, folded, latest, active, removed_at, hidden_at, options FROM functions
             WHERE tenant = ? ORDER BY id";
        let rows = self.rows("functions", sql, [old], FunctionRow::of)?;
        if rows.iter().filter(|row| row.active.is_some()).count() > FUNCTIONS_MAX {
            return Err(damaged("functions", "a tenant has more than any may have"));
        }
        for row in rows {
            let old = signed(row.id);
            let FunctionRow { id: _, path, folded, latest, active, removed_at, hidden_at, options } =
                row;
            if folded != path.folded() || active.is_some() && removed_at.is_some() {
                return Err(damaged("functions", format_args!("{path} contradicts itself")));
            }
            self.insert(
                "functions",
                "INSERT INTO functions (tenant, path, folded, latest, active, removed_at, hidden_at, options)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    new.0,
                    path.as_str(),
                    folded,
                    latest,
                    active,
                    removed_at.map(millis),
                    hidden_at.map(millis),
                    text(&options),
                ),
            )?;
            let versions = self.versions(old, self.to.last_insert_rowid(), latest)?;
            if active.is_some_and(|active| !versions.contains(&active)) {
                return Err(damaged(
                    "versions",
                    format_args!("the active one of {path} is missing"),
                ));
            }
        }
        Ok(())
    }

    fn versions(&self, old: i64, new: i64, latest: Version) -> Result<BTreeSet<Version>> {
        let sql = "SELECT version, sha256, size, stored, kind, imports, declared, uploaded,
             created_at, created_by FROM versions WHERE function = ?";
        let mut numbers = BTreeSet::new();
        for row in self.rows("versions", sql, [old], |row| VersionRow::of(row, latest))? {
            numbers.insert(row.version);
            self.insert(
                "versions",
                "INSERT INTO versions (function, version, sha256, size, stored, kind, imports, declared,
                     uploaded, created_at, created_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    new,
                    row.version,
                    row.sha256.to_string(),
                    signed(row.size),
                    signed(row.stored),
                    kind_text(row.kind),
                    text(&row.imports),
                    text(&row.declared),
                    text(&row.uploaded),
                    millis(row.created_at),
                    row.created_by,
                ),
            )?;
        }
        Ok(numbers)
    }

    fn rows<T>(
        &self,
        table: &'static str,
        sql: &str,
        of: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let rows = || -> rusqlite::Result<Vec<T>> {
            self.from.prepare(sql)?.query_map(of, read)?.collect()
        };
        rows().map_err(|error| damaged(table, error))
    }

    /// What the tables of this build do not take is wrong as well.
    fn insert(&self, table: &'static str, sql: &str, row: impl Params) -> Result<()> {
        match self.to.prepare_cached(sql).and_then(|mut insert| insert.execute(row)) {
            Ok(_) => Ok(()),
            Err(error @ rusqlite::Error::SqliteFailure(..)) => match DatabaseError::from(error) {
                DatabaseError::Sqlite(error) => Err(damaged(table, error)),
                disk => Err(disk.into()),
            },
            Err(error) => Err(error.into()),
        }
    }
}

fn damaged(table: &str, why: impl std::fmt::Display) -> StoreError {
    DatabaseError::Damaged(format!("what it says in its table `{table}` cannot be: {why}")).into()
}

struct TenantRow {
    name: TenantName,
    port: u16,
    generation: GenerationNumber,
    created_at: Timestamp,
    limits: LimitsPatch,
}

impl TenantRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: column(row, "name", tenant_name)?,
            port: column(row, "port", port)?,
            generation: column(row, "generation", |it| {
                within(it, 0..=NUMBER_MAX).map(GenerationNumber)
            })?,
            created_at: column(row, "created_at", instant)?,
            limits: column(row, "limits", limits)?,
        })
    }
}

struct TokenRow {
    id: u64,
    name: String,
    scope: Scope,
    digest: [u8; 32],
    adopted: bool,
    marked: bool,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}

impl TokenRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: column(row, "id", |it| within(it, 1..=NUMBER_MAX))?,
            name: column(row, "name", token_name)?,
            scope: column(row, "scope", parsed)?,
            digest: column(row, "digest", bytes)?,
            adopted: row.get("adopted")?,
            marked: row.get("marked")?,
            created_at: column(row, "created_at", instant)?,
            expires_at: column(row, "expires_at", |it| optional(it, instant))?,
        })
    }
}

/// Bounded, as it is where it is written.
fn audit_row(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    column(row, "id", |id| within(id, 1..=NUMBER_MAX))?;
    column(row, "actor", |id| optional(id, |id| within(id, 1..=NUMBER_MAX)))?;
    column(row, "name", label)?;
    column(row, "object", |object| optional(object, label))?;
    for side in ["before", "after"] {
        column(row, side, |side| optional(side, told))?;
    }
    AuditRow::of(row)
}

struct FunctionRow {
    id: u64,
    path: FunctionPath,
    folded: String,
    latest: Version,
    active: Option<Version>,
    removed_at: Option<Timestamp>,
    hidden_at: Option<Timestamp>,
    options: OptionsPatch,
}

impl FunctionRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let latest = column(row, "latest", |it| within(it, 0..=VERSION_MAX))?;
        let active = column(row, "active", |it| optional(it, |it| within(it, 1..=latest)))?;
        Ok(Self {
            id: column(row, "id", |it| within(it, 1..=NUMBER_MAX))?,
            path: column(row, "path", parsed)?,
            folded: row.get("folded")?,
            latest: latest as Version,
            active: active.map(|active| active as Version),
            removed_at: column(row, "removed_at", |it| optional(it, instant))?,
            hidden_at: column(row, "hidden_at", |it| optional(it, instant))?,
            options: column(row, "options", options)?,
        })
    }
}

struct VersionRow {
    version: Version,
    sha256: ModuleDigest,
    size: u64,
    stored: u64,
    kind: hearth_wire::HandlerKind,
    imports: Vec<String>,
    declared: OptionsPatch,
    uploaded: OptionsPatch,
    created_at: Timestamp,
    created_by: String,
}

impl VersionRow {
    fn of(row: &Row<'_>, latest: Version) -> rusqlite::Result<Self> {
        Ok(Self {
            version: column(row, "version", |it| within(it, 1..=u64::from(latest)))? as Version,
            sha256: column(row, "sha256", parsed)?,
            size: column(row, "size", |it| within(it, 0..=MODULE_MAX_BYTES))?,
            stored: column(row, "stored", |it| within(it, 0..=STORED_MAX_BYTES))?,
            kind: column(row, "kind", kind)?,
            imports: column(row, "imports", imports)?,
            declared: column(row, "declared", options)?,
            uploaded: column(row, "uploaded", options)?,
            created_at: column(row, "created_at", instant)?,
            created_by: column(row, "created_by", label)?,
        })
    }
}

fn within(value: ValueRef<'_>, range: RangeInclusive<u64>) -> FromSqlResult<u64> {
    let number = unsigned(value)?;
    match range.contains(&number) {
        true => Ok(number),
        false => Err(FromSqlError::OutOfRange(signed(number))),
    }
}

/// Who did something, or what it was.
fn label(value: ValueRef<'_>) -> FromSqlResult<String> {
    let text = value.as_str()?;
    match text.len() <= LABEL_MAX_BYTES && !text.chars().any(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err(FromSqlError::other(Not("a short text of one line"))),
    }
}

/// A side of a change.
fn told(value: ValueRef<'_>) -> FromSqlResult<()> {
    let text = value.as_str()?;
    let object: serde_json::Map<String, serde_json::Value> =
        json::from_slice(text.as_bytes()).map_err(FromSqlError::other)?;
    match text.len() <= audit::TEXT_MAX_BYTES && !object.is_empty() {
        true => Ok(()),
        false => Err(FromSqlError::other(Not("a side of a change"))),
    }
}

fn tenant_name(value: ValueRef<'_>) -> FromSqlResult<TenantName> {
    parsed(value)
}

fn port(value: ValueRef<'_>) -> FromSqlResult<u16> {
    Ok(within(value, 1..=u64::from(u16::MAX))? as u16)
}

fn token_name(value: ValueRef<'_>) -> FromSqlResult<String> {
    let name = value.as_str()?;
    match is_token_name(name) {
        true => Ok(name.to_owned()),
        false => Err(FromSqlError::other(Not("the name of a token"))),
    }
}

fn options(value: ValueRef<'_>) -> FromSqlResult<OptionsPatch> {
    OptionsPatch::parse(value.as_str()?).map_err(FromSqlError::other)
}

fn imports(value: ValueRef<'_>) -> FromSqlResult<Vec<String>> {
    json::from_slice(value.as_str()?.as_bytes()).map_err(FromSqlError::other)
}

/// Within today's bounds, which may be narrower than when these were set.
fn limits(value: ValueRef<'_>) -> FromSqlResult<LimitsPatch> {
    let set: BTreeMap<String, u64> =
        json::from_slice(value.as_str()?.as_bytes()).map_err(FromSqlError::other)?;
    let bounded = |(name, value): (String, u64)| {
        let known = Limits::TABLE.iter().find(|limit| limit.name == name);
        let value = known.map_or(value, |limit| value.clamp(limit.min, limit.max));
        (name, Some(value))
    };
    let mut limits = LimitsPatch::default();
    limits.change(set.into_iter().map(bounded)).map_err(FromSqlError::other)?;
    Ok(limits)
}

#[cfg(test)]
mod tests;
