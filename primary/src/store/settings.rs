//! Rows of what tenants tell their functions: configuration as it is, secrets as they were sealed.
//! Which key seals them and who may look at what is not for here to say; values are in no audit.

use std::collections::BTreeMap;
use std::error::Error;

use hearth_wire::{SettingKind, SettingName, TenantName, limits};
use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction};
use serde_json::{Value, json};

use super::audit::{self, Action, Event, Sides};
use super::columns::{bytes, column, instant, millis, parsed, signed, unsigned};
use super::database::{self, DatabaseError};
use super::error::{Result, StoreError};
use super::handle::{Asker, Store};
use super::ids::TenantId;
use crate::actor::Author;
use crate::sealing::{KeyId, OVERHEAD_BYTES};

/// Rows that are sealed anew in one step.
const STEP: u32 = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingRow {
    pub name: SettingName,
    pub kept: Kept,
    pub set_at: Timestamp,
}

/// As it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    Config(String),
    Secret(Sealed),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub by: KeyId,
    pub bytes: Vec<u8>,
}

impl Kept {
    pub fn kind(&self) -> SettingKind {
        match self {
            Self::Config(_) => SettingKind::Config,
            Self::Secret(_) => SettingKind::Secret,
        }
    }

    /// Bytes of the value, as it is in the clear.
    pub fn length(&self) -> usize {
        match self {
            Self::Config(value) => value.len(),
            Self::Secret(sealed) => sealed.bytes.len().saturating_sub(OVERHEAD_BYTES),
        }
    }
}

impl SettingRow {
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let kept = match row.get("value")? {
            Some(value) => Kept::Config(value),
            None => Kept::Secret(Sealed {
                by: KeyId::new(column(row, "sealed_by", bytes)?),
                bytes: row.get("sealed")?,
            }),
        };
        let name = column(row, "name", parsed)?;
        Ok(Self { name, kept, set_at: column(row, "set_at", instant)? })
    }
}

/// What becomes of the secrets of tenants that come.
pub enum Taking {
    /// Each is sealed anew for this host, or refused.
    Sealed(Take),
    Without,
}

pub type Take =
    Box<dyn Fn(&TenantName, &SettingName, &Sealed) -> Result<Sealed, StoreError> + Send>;

/// One change of a tenant's settings of one kind.
#[derive(Debug, Clone)]
pub struct NewSettings {
    pub tenant: TenantId,
    pub kind: SettingKind,
    pub set: Vec<(SettingName, Kept)>,
    pub removed: Vec<SettingName>,
}

impl Store {
    /// By their names.
    pub async fn settings(&self, tenant: TenantId) -> Result<Vec<SettingRow>> {
        self.read(Asker::Tenant(tenant), move |db| settings(db, tenant)).await
    }

    /// All of it is kept, or none.
    pub async fn change_settings(&self, new: NewSettings, by: Author) -> Result<()> {
        self.write(Asker::Tenant(new.tenant), move |db| change(db, new, &by)).await
    }

    /// The tenants that have any.
    pub async fn tenants_with_settings(&self) -> Result<Vec<TenantId>> {
        self.read(Asker::Host, |db| {
            let mut found = db.prepare_cached("SELECT DISTINCT tenant FROM settings")?;
            let tenants = found.query_map([], |row| row.get(0).map(TenantId))?;
            Ok(tenants.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// The keys that sealed anything.
    pub async fn sealed_by(&self) -> Result<Vec<KeyId>> {
        self.read(Asker::Host, |db| Ok(keys(db)?)).await
    }

    /// Of each tenant, how many secrets another key sealed than this one.
    pub async fn sealed_otherwise(&self, key: Option<KeyId>) -> Result<BTreeMap<TenantName, u64>> {
        self.read(Asker::Host, move |db| Ok(sealed_otherwise(db, key)?)).await
    }

    /// Seals every secret anew, all of them or none: `reseal` is given each with its tenant's name and
    /// its own. One of which it makes nothing is forgotten. Tells how many there are, and whose were
    /// forgotten.
    pub async fn reseal<E>(
        &self,
        by: Author,
        mut reseal: impl FnMut(&TenantName, &SettingName, &Sealed) -> Result<Option<Sealed>, E>
        + Send
        + 'static,
    ) -> Result<(u64, Vec<TenantName>), E>
    where
        E: From<StoreError> + From<DatabaseError> + Error + Send + 'static,
    {
        let work =
            move |db: &mut Connection| database::change(db, |db| all_anew(db, &by, &mut reseal));
        self.database.write(Asker::Host, work).await
    }
}

fn settings(db: &Connection, tenant: TenantId) -> Result<Vec<SettingRow>> {
    let mut found = db.prepare_cached("SELECT * FROM settings WHERE tenant = ? ORDER BY name")?;
    let rows = found.query_map([tenant.0], SettingRow::of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn change(db: &Transaction<'_>, new: NewSettings, by: &Author) -> Result<()> {
    let NewSettings { tenant, kind, set, removed } = new;
    let is_secret = kind == SettingKind::Secret;
    let now = millis(Timestamp::now());
    let mut told = BTreeMap::from([("set", Vec::new()), ("removed", Vec::new())]);
    for name in &removed {
        let sql = "DELETE FROM settings WHERE tenant = ? AND name = ? AND (value IS NULL) = ?";
        if db.prepare_cached(sql)?.execute((tenant.0, name.as_str(), is_secret))? == 0 {
            return Err(StoreError::Missing("setting"));
        }
        told.entry("removed").or_default().push(name.to_string());
    }
    for (name, kept) in set {
        insert(db, tenant, &name, &kept, now)?;
        told.entry("set").or_default().push(name.to_string());
    }
    // Whoever came here has seen to it; what is beyond it could not be told to a worker.
    bound(db, tenant)?;
    let action = match kind {
        SettingKind::Config => Action::TenantConfig,
        SettingKind::Secret => Action::TenantSecrets,
    };
    let names: Vec<&String> = told.values().flatten().collect();
    let object = match names[..] {
        [name] => Some(name.clone()),
        _ => None,
    };
    let mut sides = Sides::none();
    for (what, names) in told.into_iter().filter(|(_, names)| !names.is_empty()) {
        sides.add_after(what, json!(names));
    }
    audit::note(db, by, Event { action, tenant: Some(tenant), object, sides })
}

/// In the place of one of that name and kind. One of the other kind stays, and this is refused.
pub(super) fn insert(
    db: &Connection,
    tenant: TenantId,
    name: &SettingName,
    kept: &Kept,
    set_at: i64,
) -> Result<()> {
    let (value, sealed) = match kept {
        Kept::Config(value) => (Some(value), None),
        Kept::Secret(sealed) => (None, Some(sealed)),
    };
    let changed = db
        .prepare_cached(
            "INSERT INTO settings (tenant, name, value, sealed, sealed_by, set_at)
             VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (tenant, name) DO UPDATE SET value = excluded.value,
                 sealed = excluded.sealed, sealed_by = excluded.sealed_by, set_at = excluded.set_at
             WHERE (value IS NULL) = (excluded.value IS NULL)",
        )?
        .execute((
            tenant.0,
            name.as_str(),
            value,
            sealed.map(|sealed| &sealed.bytes),
            sealed.map(|sealed| sealed.by.as_bytes()),
            set_at,
        ))?;
    if changed == 0 { Err(StoreError::Exists) } else { Ok(()) }
}

fn bound(db: &Connection, tenant: TenantId) -> Result<()> {
    let sql = "SELECT count(*) AS count, ifnull(sum(length(name)
             + ifnull(octet_length(value), octet_length(sealed) - ?2)), 0) AS bytes
         FROM settings WHERE tenant = ?1";
    let of = (tenant.0, signed(OVERHEAD_BYTES as u64));
    let (count, bytes) = db.prepare_cached(sql)?.query_row(of, |row| {
        Ok((column(row, "count", unsigned)?, column(row, "bytes", unsigned)?))
    })?;
    let most = limits::SETTINGS_MAX;
    match count <= most as u64 && bytes <= limits::SETTINGS_MAX_BYTES as u64 {
        true => Ok(()),
        false => Err(StoreError::TooMany { what: "settings", max: most }),
    }
}

pub(super) fn keys(db: &Connection) -> rusqlite::Result<Vec<KeyId>> {
    let sql = "SELECT DISTINCT sealed_by FROM settings WHERE sealed_by IS NOT NULL";
    let mut found = db.prepare_cached(sql)?;
    let keys = found.query_map([], |row| column(row, "sealed_by", bytes).map(KeyId::new))?;
    keys.collect()
}

pub(super) fn sealed_otherwise(
    db: &Connection,
    key: Option<KeyId>,
) -> rusqlite::Result<BTreeMap<TenantName, u64>> {
    let mut found = db.prepare_cached(
        "SELECT tenants.name, count(*) AS secrets FROM settings
         JOIN tenants ON tenants.id = settings.tenant
         WHERE sealed_by IS NOT NULL AND sealed_by IS NOT ? GROUP BY tenants.id",
    )?;
    let tenants = found.query_map([key.map(|key| *key.as_bytes())], |row| {
        Ok((column(row, "name", parsed)?, row.get::<_, i64>("secrets")?.unsigned_abs()))
    })?;
    tenants.collect()
}

/// Those that a tenant has in the store that is attached.
pub(super) fn import(
    db: &Transaction<'_>,
    (name, old): (&TenantName, i64),
    new: TenantId,
    secrets: &Taking,
) -> Result<()> {
    let mut found = db.prepare("SELECT * FROM other.settings WHERE tenant = ? ORDER BY name")?;
    for row in found.query_map([old], SettingRow::of)? {
        let SettingRow { name: of, kept, set_at } = row?;
        let kept = match (kept, secrets) {
            (Kept::Config(value), _) => Kept::Config(value),
            (Kept::Secret(sealed), Taking::Sealed(take)) => Kept::Secret(take(name, &of, &sealed)?),
            (Kept::Secret(_), Taking::Without) => continue,
        };
        insert(db, new, &of, &kept, millis(set_at))?;
    }
    bound(db, new)
}

type Forgotten = BTreeMap<i64, (TenantName, Vec<String>)>;

fn all_anew<E: From<StoreError>>(
    db: &Transaction<'_>,
    by: &Author,
    reseal: &mut impl FnMut(&TenantName, &SettingName, &Sealed) -> Result<Option<Sealed>, E>,
) -> Result<(u64, Vec<TenantName>), E> {
    let (mut last, mut sealed, mut forgotten) = (0_i64, 0_u64, Forgotten::new());
    loop {
        let some = step(db, last).map_err(StoreError::from)?;
        let Some((id, ..)) = some.last() else { break };
        last = *id;
        for (id, tenant, of, row) in some {
            let Kept::Secret(old) = &row.kept else { continue };
            let anew = reseal(&of, &row.name, old)?;
            replace(db, id, anew.as_ref())?;
            if anew.is_some() {
                sealed += 1;
            } else {
                let (_, names) = forgotten.entry(tenant).or_insert((of, Vec::new()));
                names.push(row.name.to_string());
            }
        }
    }
    let mut whose = Vec::new();
    for (tenant, (name, names)) in forgotten {
        let mut sides = Sides::none();
        sides.add_after("forgotten", json!(names));
        let (action, tenant) = (Action::TenantSecrets, Some(TenantId(tenant)));
        audit::note(db, by, Event { action, tenant, object: None, sides })?;
        whose.push(name);
    }
    let mut sides = Sides::none();
    sides.add_after("secrets", Value::from(sealed));
    audit::note(db, by, Event { action: Action::HostRekey, tenant: None, object: None, sides })?;
    Ok((sealed, whose))
}

fn replace(db: &Connection, id: i64, sealed: Option<&Sealed>) -> Result<()> {
    match sealed {
        Some(Sealed { by, bytes }) => {
            let sql = "UPDATE settings SET sealed = ?, sealed_by = ? WHERE id = ?";
            db.prepare_cached(sql)?.execute((bytes, by.as_bytes(), id))?;
        }
        None => drop(db.prepare_cached("DELETE FROM settings WHERE id = ?")?.execute([id])?),
    }
    Ok(())
}

/// The next of them, each with its id, its tenant's and that one's name.
fn step(db: &Connection, after: i64) -> rusqlite::Result<Vec<(i64, i64, TenantName, SettingRow)>> {
    let mut found = db.prepare_cached(
        "SELECT settings.*, tenants.name AS tenant_name FROM settings
         JOIN tenants ON tenants.id = settings.tenant
         WHERE sealed IS NOT NULL AND settings.id > ? ORDER BY settings.id LIMIT ?",
    )?;
    let rows = found.query_map((after, STEP), |row| {
        let tenant_name = column(row, "tenant_name", parsed)?;
        Ok((row.get("id")?, row.get("tenant")?, tenant_name, SettingRow::of(row)?))
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests;
