//! A store that came from outside, in a backup, made anew of what its rows say.
//!
//! Nobody knows who made that file. Its tables may have triggers, its numbers may be beyond all that
//! is counted here, and it may say of this machine what it likes. So nothing of the file itself is put
//! to use: each row is parsed by the types that people's input is, and written into tables of this
//! build's own. What is this machine's stays out: users, and what vouches for artifacts. Ports are
//! taken as wishes, and [`Store::settle_ports`](super::Store::settle_ports) has the last word.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

use hearth_wire::limits::{FUNCTIONS_MAX, MODULE_MAX_BYTES, TOKENS_MAX};
use hearth_wire::{
    FunctionPath, Generation, Limits, LimitsPatch, ModuleDigest, OptionsPatch, Scope, TenantName,
    Version, json,
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
use super::tenants::RESTORED;
use super::tokens::is_token_name;
use crate::actor::Author;

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
/// then, and where this fails it is not to be used.
pub fn rebuild(from: &Path, to: &Path) -> Result<()> {
    let from = open(from)?;
    let mut own = Connection::open(to)?;
    own.pragma_update(None, "journal_mode", "memory")?;
    own.pragma_update(None, "synchronous", "off")?;
    own.pragma_update(None, "foreign_keys", true)?;
    own.pragma_update(None, "trusted_schema", false)?;
    let transaction = own.transaction()?;
    lay_out(&transaction, &SCHEMA)?;
    Rebuilding { from: &from, to: &transaction }.all()?;
    transaction.commit()?;
    own.close().map_err(|(_, error)| error.into())
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

/// A stranger's file, of which only tables are read, brought up to this build's schema.
fn open(file: &Path) -> Result<Connection> {
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
    migrate(&mut db, &SCHEMA).map_err(|error| match error {
        DatabaseError::Sqlite(error) => strange(error),
        error => error,
    })?;
    Ok(db)
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

    fn tenant(&self, old: i64) -> Result<()> {
        let sql = "SELECT name, port, generation, created_at, limits FROM tenants WHERE id = ?";
        let rows = self.rows("tenants", sql, [old], TenantRow::of)?;
        let [TenantRow { name, port, generation, created_at, limits }] = &rows[..] else {
            return Err(damaged("tenants", "an id stands twice"));
        };
        self.insert(
            "tenants",
            "INSERT INTO tenants (name, port, generation, created_at, limits) VALUES (?, ?, ?, ?, ?)",
            (name.as_str(), port, signed(*generation), millis(*created_at), text(limits)),
        )?;
        let new = TenantId(self.to.last_insert_rowid());
        self.generations(old, new, *generation)?;
        self.tokens(Some((old, new)))?;
        self.audit(Some((old, new)))?;
        self.functions(old, new)
    }

    fn generations(&self, old: i64, new: TenantId, current: Generation) -> Result<()> {
        let sql = "SELECT generation, cause, by, created_at FROM generations WHERE tenant = ?";
        let rows = self.rows("generations", sql, [old], |row| {
            let number = column(row, "generation", |it| within(it, 1..=current))?;
            let (cause, by) = (column(row, "cause", label)?, column(row, "by", label)?);
            Ok((number, cause, by, column(row, "created_at", instant)?))
        })?;
        for (number, cause, by, created_at) in rows {
            self.insert(
                "generations",
                "INSERT INTO generations (tenant, generation, cause, by, created_at) VALUES (?, ?, ?, ?, ?)",
                (new.0, signed(number), cause, by, millis(created_at)),
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

    fn functions(&self, old: i64, new: TenantId) -> Result<()> {
        let sql = "SELECT id, path, folded, latest, active, removed_at, options FROM functions
             WHERE tenant = ? ORDER BY id";
        let rows = self.rows("functions", sql, [old], FunctionRow::of)?;
        if rows.iter().filter(|row| row.active.is_some()).count() > FUNCTIONS_MAX {
            return Err(damaged("functions", "a tenant has more than any may have"));
        }
        for row in rows {
            let old = signed(row.id);
            let FunctionRow { id: _, path, folded, latest, active, removed_at, options } = row;
            if folded != path.folded() || active.is_some() == removed_at.is_some() {
                return Err(damaged("functions", format_args!("{path} contradicts itself")));
            }
            self.insert(
                "functions",
                "INSERT INTO functions (tenant, path, folded, latest, active, removed_at, options)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    new.0,
                    path.as_str(),
                    folded,
                    latest,
                    active,
                    removed_at.map(millis),
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
        let sql =
            "SELECT version, sha256, size, stored, kind, imports, declared, uploaded, bundled,
             created_at, created_by FROM versions WHERE function = ?";
        let mut numbers = BTreeSet::new();
        for row in self.rows("versions", sql, [old], |row| VersionRow::of(row, latest))? {
            numbers.insert(row.version);
            self.insert(
                "versions",
                "INSERT INTO versions (function, version, sha256, size, stored, kind, imports, declared,
                     uploaded, bundled, created_at, created_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                    row.bundled,
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
    generation: Generation,
    created_at: Timestamp,
    limits: LimitsPatch,
}

impl TenantRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: column(row, "name", tenant_name)?,
            port: column(row, "port", port)?,
            generation: column(row, "generation", |it| within(it, 0..=NUMBER_MAX))?,
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
    bundled: bool,
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
            bundled: row.get("bundled")?,
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
mod tests {
    use super::*;
    use crate::store::scratch::{author, scratch, tenant};
    use crate::store::{
        AuditQuery, Cause, Change, FILE, NewGeneration, Store, Whose, functions::tests::row,
    };

    /// A copy of a store with something of everything, and a directory to rebuild it in.
    async fn copied() -> (tempfile::TempDir, tempfile::TempDir) {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        tenant(&store, "beta", 4_002).await;
        store
            .create_token(Some(acme.id), "ci".into(), Scope::Deploy, None, author("ops"))
            .await
            .unwrap();
        store
            .create_token(None, "ops".into(), Scope::Admin, Some(Timestamp::now()), author("ops"))
            .await
            .unwrap();
        let changes = vec![Change::Add(row("/a", 1)), Change::Add(row("/b/c", 7))];
        let new = NewGeneration {
            tenant: acme.id,
            generation: 3,
            cause: Cause::Upload,
            by: author("ci"),
            changes,
        };
        store.commit_generation(new).await.unwrap();
        let gone = tenant(&store, "gone", 4_003).await;
        store.retire_tenant(gone.id, Timestamp::UNIX_EPOCH, author("ops")).await.unwrap();
        let there = tempfile::tempdir().unwrap();
        store.snapshot(there.path()).await.unwrap();
        (there, tempfile::tempdir().unwrap())
    }

    #[tokio::test]
    async fn what_a_store_says_is_said_again() {
        let (there, again) = copied().await;
        rebuild(&there.path().join(FILE), &again.path().join(FILE)).unwrap();
        let (old, new) = (Store::open(there.path()).unwrap(), Store::open(again.path()).unwrap());
        let names = |found: &Path| std::fs::read_dir(found).unwrap().count();
        let tenants = new.tenants().await.unwrap();
        let gone = "gone".parse().unwrap();
        assert!(old.name_freed_at(&gone).await.unwrap().is_some());
        assert_eq!(
            old.name_freed_at(&gone).await.unwrap(),
            new.name_freed_at(&gone).await.unwrap()
        );
        assert_eq!(old.freed_ports().await.unwrap(), new.freed_ports().await.unwrap());
        for (one, other) in old.tenants().await.unwrap().into_iter().zip(&tenants) {
            assert_eq!(one, *other);
            assert_eq!(
                old.tokens(Some(one.id)).await.unwrap(),
                new.tokens(Some(one.id)).await.unwrap()
            );
            let live = (
                old.live_functions(one.id).await.unwrap(),
                new.live_functions(one.id).await.unwrap(),
            );
            assert_eq!(live.0, live.1);
            let made =
                (old.generations(one.id).await.unwrap(), new.generations(one.id).await.unwrap());
            assert_eq!(made.0, made.1);
        }
        assert_eq!(tenants.len(), 2);
        let all =
            || AuditQuery { whose: Whose::Everybodys, action: None, before: None, limit: 100 };
        let audits = (old.audit(all()).await.unwrap(), new.audit(all()).await.unwrap());
        assert_eq!(audits.0, audits.1);
        assert_eq!(audits.0.rows.len(), 4, "{audits:?}");
        for tenant in &tenants {
            let own = || AuditQuery { whose: Whose::Tenant(tenant.id), ..all() };
            assert_eq!(old.audit(own()).await.unwrap(), new.audit(own()).await.unwrap());
        }
        assert_eq!(old.tokens(None).await.unwrap(), new.tokens(None).await.unwrap());
        assert_ne!(old.host_key().await.unwrap(), new.host_key().await.unwrap());
        new.close().await;
        assert_eq!(names(again.path()), 1, "no journal is left beside it");
    }

    #[tokio::test]
    async fn the_id_of_a_token_that_is_gone_is_given_to_no_other() {
        let (there, again) = copied().await;
        let old = Store::open(there.path()).unwrap();
        let last = old.tokens(None).await.unwrap()[0].id;
        old.delete_token(None, last, author("ops")).await.unwrap();
        old.close().await;
        rebuild(&there.path().join(FILE), &again.path().join(FILE)).unwrap();
        let new = Store::open(again.path()).unwrap();
        assert_eq!(new.tokens(None).await.unwrap(), []);
        let made = new.create_token(None, "next".into(), Scope::Admin, None, author("ops")).await;
        assert!(made.unwrap().0.id > last);
    }

    #[tokio::test]
    async fn what_it_says_of_this_machine_is_not_taken() {
        let (there, again) = copied().await;
        let file = there.path().join(FILE);
        let db = Connection::open(&file).unwrap();
        db.execute_batch(
            "UPDATE tenants SET user = id; UPDATE tenants SET port = 22 WHERE name = 'acme';
             INSERT INTO host (key, value) VALUES ('key', x'00');
             INSERT INTO artifacts VALUES (1, printf('%064d', 0), 'e', zeroblob(32), 0);",
        )
        .unwrap();
        drop(db);
        rebuild(&file, &again.path().join(FILE)).unwrap();
        let store = Store::open(again.path()).unwrap();
        let tenants = store.tenants().await.unwrap();
        assert!(tenants.iter().all(|tenant| tenant.user.is_none()));
        let digest = ModuleDigest::new([0; 32]);
        assert_eq!(store.artifact_mac(tenants[0].id, digest, "e").await.unwrap(), None);
        // The port that this host does not give goes, and the other one stays.
        let settled = store.settle_ports(4_000..=4_010).await.unwrap();
        assert_eq!(settled, [("acme".parse().unwrap(), 22, 4_000)]);
        let ports: Vec<_> = store.tenants().await.unwrap().iter().map(|it| it.port).collect();
        assert_eq!(ports, [4_000, 4_002]);
        // It is settled once: what the operator narrows later takes nobody's port away.
        assert_eq!(store.settle_ports(5_000..=5_000).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_host_with_too_few_ports_says_so_and_changes_nothing() {
        let (there, again) = copied().await;
        rebuild(&there.path().join(FILE), &again.path().join(FILE)).unwrap();
        let store = Store::open(again.path()).unwrap();
        let few = store.settle_ports(5_000..=5_000).await;
        assert!(matches!(few, Err(StoreError::Missing("port"))), "{few:?}");
        assert_eq!(store.ports().await.unwrap(), [4_001, 4_002].into());
        assert_eq!(store.settle_ports(5_000..=5_001).await.unwrap().len(), 2);
    }

    /// Each change of a sound store that no host ever made of one.
    #[tokio::test]
    async fn what_no_host_writes_is_refused() {
        let (there, _) = copied().await;
        let whole = std::fs::read(there.path().join(FILE)).unwrap();
        for (table, change) in [
            ("tenants", "UPDATE tenants SET created_at = 9223372036854775807"),
            ("tenants", "UPDATE tenants SET created_at = -9223372036854775808"),
            ("tenants", "UPDATE tenants SET port = 70000 WHERE name = 'acme'"),
            ("tenants", "UPDATE tenants SET port = 0 WHERE name = 'acme'"),
            ("tenants", "UPDATE tenants SET name = 'Acme' WHERE name = 'acme'"),
            ("tenants", "UPDATE tenants SET name = '../acme' WHERE name = 'acme'"),
            ("tenants", "UPDATE tenants SET id = 0 WHERE name = 'beta'"),
            ("tenants", "UPDATE tenants SET id = -5 WHERE name = 'beta'"),
            ("tenants", "UPDATE tenants SET id = 9223372036854775807 WHERE name = 'beta'"),
            ("tenants", "UPDATE tenants SET generation = 9223372036854775807"),
            ("tenants", "UPDATE tenants SET generation = -1"),
            ("tenants", "UPDATE tenants SET limits = '{\"memory\":1}'"),
            ("tenants", "UPDATE tenants SET limits = '{\"memory_mb\":1,\"memory_mb\":2}'"),
            ("tenants", "UPDATE tenants SET limits = '[]'"),
            ("generations", "UPDATE generations SET created_at = 9223372036854775807"),
            ("generations", "UPDATE generations SET generation = 4"),
            ("generations", "UPDATE generations SET cause = char(27) || '[2J'"),
            ("tokens", "UPDATE tokens SET expires_at = 9223372036854775807"),
            ("tokens", "UPDATE tokens SET name = 'a' || char(10) || 'b'"),
            ("audit", "UPDATE audit SET actor = 0 WHERE action = 'token.create'"),
            ("audit", "UPDATE audit SET actor = NULL"),
            ("audit", "UPDATE audit SET kind = 'ghost', actor = NULL"),
            ("audit", "UPDATE audit SET name = char(27) || '[2J'"),
            ("audit", "UPDATE audit SET action = 'tenant.praise'"),
            ("audit", "UPDATE audit SET object = char(10)"),
            ("audit", "UPDATE audit SET before = '[]'"),
            ("audit", "UPDATE audit SET after = '{\"a\":1,\"a\":2}'"),
            ("audit", "UPDATE audit SET after = '{\"a\":\"' || printf('%09000d', 0) || '\"}'"),
            ("audit", "UPDATE audit SET request_id = 'a b'"),
            ("audit", "UPDATE audit SET tenant_name = '..' WHERE tenant IS NULL"),
            ("audit", "UPDATE audit SET id = 9223372036854775807 WHERE id = 1"),
            (
                "tokens",
                "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'tokens'",
            ),
            ("freed_ports", "INSERT INTO freed_ports VALUES (4009, 'Gone', 0)"),
            ("freed_names", "UPDATE freed_names SET freed_at = 9223372036854775807"),
            ("tokens", "UPDATE tokens SET name = ''"),
            ("tokens", "UPDATE tokens SET id = 9223372036854775807 WHERE name = 'ops'"),
            ("tokens", "UPDATE tokens SET scope = 'everything' WHERE name = 'ci'"),
            ("functions", "UPDATE functions SET folded = '/z' WHERE path = '/a'"),
            (
                "functions",
                "UPDATE functions SET path = '/../a', folded = '/../a' WHERE path = '/a'",
            ),
            ("functions", "UPDATE functions SET latest = 4294967295"),
            ("functions", "UPDATE functions SET options = '{\"timeout_ms\":0}'"),
            ("functions", "UPDATE functions SET options = '{\"methods\":[\"TRACE\"]}'"),
            (
                "functions",
                "UPDATE functions SET options = '{\"auth\":\"owner\",\"auth\":\"public\"}'",
            ),
            ("functions", "UPDATE functions SET active = NULL, removed_at = 9223372036854775807"),
            ("versions", "UPDATE versions SET created_at = 9223372036854775807"),
            ("versions", "UPDATE versions SET size = 9223372036854775807"),
            ("versions", "UPDATE versions SET stored = -1"),
            ("versions", "UPDATE versions SET kind = 'x'"),
            ("versions", "UPDATE versions SET sha256 = replace(printf('%064d', 0), '0', 'G')"),
            ("versions", "UPDATE versions SET declared = '{\"nix\":1}'"),
            ("versions", "UPDATE versions SET imports = '{}'"),
            ("more than tables", "CREATE VIEW mine AS SELECT 1"),
            (
                "more than tables",
                "CREATE TRIGGER mine AFTER INSERT ON tokens BEGIN DELETE FROM tokens; END",
            ),
        ] {
            let (from, to) = (there.path().join("changed"), there.path().join("to"));
            std::fs::write(&from, &whole).unwrap();
            let db = Connection::open(&from).unwrap();
            // As somebody does who edits the file.
            db.execute_batch("PRAGMA foreign_keys = off; PRAGMA ignore_check_constraints = on;")
                .unwrap();
            db.execute_batch(change).unwrap();
            drop(db);
            let refused = rebuild(&from, &to).unwrap_err();
            let StoreError::Database(DatabaseError::Damaged(said)) = &refused else {
                panic!("{change}: {refused:?}")
            };
            // What breaks the tables' own checks is seen before a row is read.
            let by_checks = said.contains("CHECK constraint") || said.contains("that is not there");
            assert!(said.contains(table) || by_checks, "{change}: {said}");
            let _ = std::fs::remove_file(&to);
        }
        std::fs::write(there.path().join("changed"), &whole).unwrap();
        rebuild(&there.path().join("changed"), &there.path().join("to")).unwrap();
    }
}
