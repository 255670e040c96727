//! The audit: who changed what. A row is written in the transaction of the change that it tells, so
//! that there is one exactly where the change is; nothing changes a row, and what goes are the
//! oldest, by age and by number.
//!
//! Each tenant has a number of rows of its own, so that nobody's changes push others' out. What is
//! told of a change is what differs before and after it, bounded, and never a token or a digest.

mod difference;

use std::str::FromStr;

use hearth_wire::{RequestId, TenantName, Unknown};
use jiff::Timestamp;
use rusqlite::types::{FromSqlError, FromSqlResult, ToSql, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params_from_iter};
use serde_json::{Map, Value};

use super::columns::{column, instant, json, millis, optional, parsed, signed, unsigned};
use super::error::{Result, StoreError};
use super::handle::{Asker, Store};
use super::ids::TenantId;
use crate::actor::{Actor, Author};
pub use difference::{Sides, TEXT_MAX_BYTES};

/// Rows that are kept of one tenant.
pub const TENANT_ROWS_MAX: u64 = 2_000;
/// Those of the host's own changes and of tenants that are no more.
pub const HOST_ROWS_MAX: u64 = 20_000;
/// What a page may take, with one row in any case.
const PAGE_BYTES: usize = 256 << 10;
/// Of a row, but for its texts.
const ROW_BYTES: usize = 100;
const TEXTS: [&str; 6] = ["name", "tenant_name", "object", "before", "after", "request_id"];

macro_rules! actions {
    ($($action:ident $word:literal)+) => {
        /// What was done.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Action {
            $($action),+
        }

        impl Action {
            pub const ALL: &[Self] = &[$(Self::$action),+];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$action => $word),+
                }
            }
        }
    };
}

actions! {
    TenantCreate "tenant.create"
    TenantDelete "tenant.delete"
    TenantRestore "tenant.restore"
    TenantLimits "tenant.limits"
    TenantPort "tenant.port"
    TenantConfig "tenant.config"
    TenantSecrets "tenant.secrets"
    FunctionUpload "function.upload"
    FunctionRollback "function.rollback"
    FunctionRemove "function.remove"
    FunctionOptions "function.options"
    TokenCreate "token.create"
    TokenDelete "token.delete"
    TokenAdopt "token.adopt"
    WorkerStart "worker.start"
    WorkerStop "worker.stop"
    WorkerRestart "worker.restart"
    KvSet "kv.set"
    KvRemove "kv.remove"
    KvRemoveStore "kv.remove_store"
    SqlExecute "sql.execute"
    SqlImport "sql.import"
    HostRestore "host.restore"
    HostRekey "host.rekey"
}

impl FromStr for Action {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let known = Self::ALL.iter();
        known
            .clone()
            .copied()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| Unknown::new("action", text, known.map(|action| action.as_str())))
    }
}

/// What there is to tell of a change besides who made it.
#[derive(Debug, Clone)]
pub struct Event {
    pub action: Action,
    /// None: the host.
    pub tenant: Option<TenantId>,
    /// A function's path, a token's id, the name of a setting, a store or a database.
    pub object: Option<String>,
    pub sides: Sides,
}

/// One change, as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    pub id: u64,
    pub at: Timestamp,
    pub actor: Actor,
    /// As it was called; it may be no more.
    pub tenant: Option<TenantName>,
    pub action: Action,
    pub object: Option<String>,
    pub before: Option<Map<String, Value>>,
    pub after: Option<Map<String, Value>>,
    pub request_id: Option<RequestId>,
}

impl AuditRow {
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: column(row, "id", unsigned)?,
            at: column(row, "at", instant)?,
            actor: actor(row)?,
            tenant: column(row, "tenant_name", |name| optional(name, parsed))?,
            action: column(row, "action", parsed)?,
            object: row.get("object")?,
            before: column(row, "before", |side| optional(side, json))?,
            after: column(row, "after", |side| optional(side, json))?,
            request_id: column(row, "request_id", |id| optional(id, request_id))?,
        })
    }
}

const TOKEN: &str = "token";
const HOST: &str = "host";
const COMMAND_LINE: &str = "command_line";

/// By what it was done, and of a token its id.
pub(super) fn kind(actor: &Actor) -> (&'static str, Option<i64>) {
    match actor {
        Actor::Token { id, .. } => (TOKEN, Some(*id)),
        Actor::Host => (HOST, None),
        Actor::CommandLine => (COMMAND_LINE, None),
    }
}

fn actor(row: &Row<'_>) -> rusqlite::Result<Actor> {
    #[derive(Debug, thiserror::Error)]
    #[error("{0:?} is not a kind of actor")]
    struct UnknownKind(String);
    let id: Option<i64> = row.get("actor")?;
    let name: String = row.get("name")?;
    column(row, "kind", |kind| match (kind.as_str()?, id) {
        (TOKEN, Some(id)) => Ok(Actor::Token { id, name }),
        (HOST, None) => Ok(Actor::Host),
        (COMMAND_LINE, None) => Ok(Actor::CommandLine),
        (other, _) => Err(FromSqlError::other(UnknownKind(other.to_owned()))),
    })
}

fn request_id(value: ValueRef<'_>) -> FromSqlResult<RequestId> {
    RequestId::parse(value.as_bytes()?).ok_or(FromSqlError::InvalidType)
}

/// Whose changes are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    Everybodys,
    /// This tenant's, and no earlier one's of that name.
    Tenant(TenantId),
    /// All that there ever were of this name.
    Named(TenantName),
}

#[derive(Debug, Clone)]
pub struct AuditQuery {
    pub whose: Whose,
    pub action: Option<Action>,
    /// Only rows with smaller ids.
    pub before: Option<u64>,
    pub limit: usize,
}

/// Oldest first.
#[derive(Debug, PartialEq)]
pub struct AuditPage {
    pub rows: Vec<AuditRow>,
    /// Whether there are older ones.
    pub more: bool,
}

impl Store {
    /// The newest so many, or fewer where they are large.
    pub async fn audit(&self, query: AuditQuery) -> Result<AuditPage> {
        let asker = match query.whose {
            Whose::Tenant(tenant) => Asker::Tenant(tenant),
            Whose::Everybodys | Whose::Named(_) => Asker::Host,
        };
        self.read(asker, move |db| page(db, query)).await
    }

    /// Notes what has no row of its own in the store.
    pub async fn note(&self, by: Author, event: Event) -> Result<()> {
        self.write(Asker::of(event.tenant), move |db| note(db, &by, event)).await
    }
}

fn page(db: &Connection, query: AuditQuery) -> Result<AuditPage> {
    let AuditQuery { whose, action, before, limit } = query;
    let mut sql = "SELECT * FROM audit WHERE id < ?".to_owned();
    let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(before.map_or(i64::MAX, |id| {
        // No row has a larger one.
        i64::try_from(id).unwrap_or(i64::MAX)
    }))];
    match &whose {
        Whose::Everybodys => {}
        Whose::Tenant(id) => {
            sql += " AND tenant = ?";
            values.push(Box::new(id.0));
        }
        Whose::Named(name) => {
            sql += " AND tenant_name = ?";
            values.push(Box::new(name.to_string()));
        }
    }
    if let Some(action) = action {
        // Of one tenant there are few, and of one action there may be many.
        sql += if whose == Whose::Everybodys { " AND action = ?" } else { " AND +action = ?" };
        values.push(Box::new(action.as_str()));
    }
    sql += " ORDER BY id DESC";
    let mut statement = db.prepare_cached(&sql)?;
    let mut found = statement.query(params_from_iter(values))?;
    let (mut rows, mut bytes, mut more) = (Vec::new(), 0, false);
    while let Some(row) = found.next()? {
        let texts = TEXTS.iter().map(|text| text_length(row, text));
        bytes += ROW_BYTES + texts.sum::<rusqlite::Result<usize>>()?;
        if rows.len() == limit || (bytes > PAGE_BYTES && !rows.is_empty()) {
            more = true;
            break;
        }
        rows.push(AuditRow::of(row)?);
    }
    rows.reverse();
    Ok(AuditPage { rows, more })
}

fn text_length(row: &Row<'_>, name: &str) -> rusqlite::Result<usize> {
    column(row, name, |text| Ok(optional(text, |text| Ok(text.as_bytes()?.len()))?.unwrap_or(0)))
}

/// To be called in the transaction of the change, while its tenant is there.
pub(super) fn note(db: &Transaction<'_>, by: &Author, event: Event) -> Result<()> {
    let Event { action, tenant, object, sides } = event;
    let name: Option<String> = match tenant {
        Some(id) => Some(
            db.prepare_cached("SELECT name FROM tenants WHERE id = ?")?
                .query_row([id.0], |row| row.get(0))
                .optional()?
                .ok_or(StoreError::Missing("tenant"))?,
        ),
        None => None,
    };
    let (kind, id) = kind(&by.actor);
    let (before, after) = sides.texts();
    db.prepare_cached(
        "INSERT INTO audit (at, kind, actor, name, tenant, tenant_name, action, object, before,
             after, request_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute((
        millis(Timestamp::now()),
        kind,
        id,
        by.actor.name(),
        tenant.map(|id| id.0),
        name,
        action.as_str(),
        object,
        before,
        after,
        by.request_id.as_ref().map(RequestId::as_str),
    ))?;
    keep_the_newest(db, tenant)
}

/// Of these, only as many as there may be.
pub(super) fn keep_the_newest(db: &Connection, tenant: Option<TenantId>) -> Result<()> {
    let most = if tenant.is_some() { TENANT_ROWS_MAX } else { HOST_ROWS_MAX };
    db.prepare_cached(
        "DELETE FROM audit WHERE tenant IS ?1 AND id <= (
             SELECT id FROM audit WHERE tenant IS ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2
         )",
    )?
    .execute((tenant.map(|id| id.0), signed(most)))?;
    Ok(())
}

/// Forgets what was done before then.
pub(super) fn forget(db: &Connection, before: Timestamp) -> Result<u64> {
    Ok(db.execute("DELETE FROM audit WHERE at < ?", [millis(before)])? as u64)
}

/// Of a tenant that there never was, as far as anybody was told.
pub(super) fn forget_tenant(db: &Connection, tenant: TenantId) -> Result<()> {
    db.execute("DELETE FROM audit WHERE tenant = ?", [tenant.0])?;
    Ok(())
}

#[cfg(test)]
mod tests;
