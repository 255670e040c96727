//! Rows of tenants. Their ports, listeners and directories are others'.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use hearth_wire::{GenerationNumber, Limits, LimitsPatch, TenantName};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};
use serde_json::{Map, Value};

use super::audit::{self, Action, Event, Sides};
use super::columns::{column, generation_number, instant, json, millis, parsed};
use super::error::{Result, StoreError};
use super::handle::{Asker, Store};
use super::ids::TenantId;
use crate::actor::Author;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    pub id: TenantId,
    pub name: TenantName,
    pub port: u16,
    /// The one that is current; 0 before the first was committed.
    pub generation: GenerationNumber,
    /// What of its limits was set.
    pub limits: LimitsPatch,
    /// Whom its workers run as, where the host runs as root.
    pub uid: Option<u32>,
    pub created_at: Timestamp,
}

impl Tenant {
    pub fn limits(&self) -> Limits {
        self.limits.resolve()
    }

    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: TenantId(row.get("id")?),
            name: column(row, "name", parsed)?,
            port: row.get("port")?,
            generation: column(row, "generation", generation_number)?,
            limits: column(row, "limits", json)?,
            uid: row.get("user")?,
            created_at: column(row, "created_at", instant)?,
        })
    }
}

/// What a removed tenant has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freed {
    /// Whose it was.
    pub name: TenantName,
    pub at: Timestamp,
}

/// In the table `host` of a store that was restored, until its ports are settled.
pub(super) const RESTORED: &str = "restored";
const WITHOUT_UID: &str = "SELECT id FROM tenants WHERE user IS NULL ORDER BY id";

impl Store {
    /// All of them, by name.
    pub async fn tenants(&self) -> Result<Vec<Tenant>> {
        self.read(Asker::Host, |db| {
            let mut statement = db.prepare_cached("SELECT * FROM tenants ORDER BY name")?;
            let tenants = statement.query_map([], Tenant::of)?.collect::<rusqlite::Result<_>>()?;
            Ok(tenants)
        })
        .await
    }

    pub async fn ports(&self) -> Result<HashSet<u16>> {
        self.read(Asker::Host, |db| {
            let mut statement = db.prepare_cached("SELECT port FROM tenants")?;
            let ports = statement.query_map([], |row| row.get(0))?;
            Ok(ports.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Those that somebody had, and nobody since.
    pub async fn freed_ports(&self) -> Result<HashMap<u16, Freed>> {
        self.read(Asker::Host, |db| {
            let mut statement = db.prepare_cached("SELECT * FROM freed_ports")?;
            let freed = statement.query_map([], |row| {
                let name = column(row, "name", parsed)?;
                Ok((row.get("port")?, Freed { name, at: column(row, "freed_at", instant)? }))
            })?;
            Ok(freed.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// When the last tenant of this name was removed, if that is still of any interest.
    pub async fn name_freed_at(&self, name: &TenantName) -> Result<Option<Timestamp>> {
        let name = name.clone();
        self.read(Asker::Host, move |db| {
            let mut statement =
                db.prepare_cached("SELECT freed_at FROM freed_names WHERE name = ?")?;
            let freed = |row: &Row<'_>| column(row, "freed_at", instant);
            Ok(statement.query_row([name.as_str()], freed).optional()?)
        })
        .await
    }

    pub async fn tenant(&self, name: &TenantName) -> Result<Option<Tenant>> {
        let name = name.clone();
        self.read(Asker::Name(name.clone()), move |db| {
            let mut statement = db.prepare_cached("SELECT * FROM tenants WHERE name = ?")?;
            Ok(statement.query_row([name.as_str()], Tenant::of).optional()?)
        })
        .await
    }

    pub async fn tenant_by_id(&self, id: TenantId) -> Result<Option<Tenant>> {
        self.read(Asker::Tenant(id), move |db| Ok(by_id(db, id)?)).await
    }

    /// `Exists` on a taken name, `PortTaken` on a taken port.
    pub async fn create_tenant(&self, name: TenantName, port: u16) -> Result<Tenant> {
        self.write(Asker::Host, move |db| {
            let taken =
                |sql: &str, value: &dyn rusqlite::ToSql| db.prepare_cached(sql)?.exists([value]);
            if taken("SELECT 1 FROM tenants WHERE name = ?", &name.as_str())? {
                return Err(StoreError::Exists);
            }
            if taken("SELECT 1 FROM tenants WHERE port = ?", &port)? {
                return Err(StoreError::PortTaken(port));
            }
            db.execute(
                "INSERT INTO tenants (name, port, created_at) VALUES (?, ?, ?)",
                (name.as_str(), port, millis(Timestamp::now())),
            )?;
            let id = TenantId(db.last_insert_rowid());
            take(db, &name, port)?;
            by_id(db, id)?.ok_or(StoreError::Missing("tenant"))
        })
        .await
    }

    /// In a store that was restored, gives tenants whose ports are not of these the lowest that
    /// nobody has, and tells which, from where, to where: what a backup says of ports is no more than a wish. Once only, so
    /// that a range that is narrowed later takes nobody's port away. `Missing` where there are too few.
    pub async fn settle_ports(
        &self,
        range: RangeInclusive<u16>,
    ) -> Result<Vec<(TenantName, u16, u16)>> {
        self.write(Asker::Host, move |db| {
            if db.execute("DELETE FROM host WHERE key = ?", [RESTORED])? == 0 {
                return Ok(Vec::new());
            }
            let mut statement = db.prepare("SELECT id, name, port FROM tenants ORDER BY id")?;
            let rows = statement.query_map([], |row| {
                Ok((row.get("id")?, column(row, "name", parsed)?, row.get("port")?))
            })?;
            let tenants: Vec<(i64, TenantName, u16)> = rows.collect::<rusqlite::Result<_>>()?;
            let (stay, go): (Vec<_>, Vec<_>) =
                tenants.into_iter().partition(|(_, _, port)| range.contains(port));
            let taken: HashSet<u16> = stay.into_iter().map(|(_, _, port)| port).collect();
            // First those that nobody has had, then the one that is free longest.
            let mut free: Vec<u16> = range.filter(|port| !taken.contains(port)).collect();
            let mut freed = db.prepare("SELECT port, freed_at FROM freed_ports")?;
            let freed = freed.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let freed: HashMap<u16, i64> = freed.collect::<rusqlite::Result<_>>()?;
            free.sort_by_key(|port| freed.get(port));
            let mut free = free.into_iter();
            let mut settled = Vec::new();
            for (id, name, old) in go {
                let port = free.next().ok_or(StoreError::Missing("port"))?;
                db.execute("UPDATE tenants SET port = ? WHERE id = ?", (port, id))?;
                take(db, &name, port)?;
                let (action, tenant) = (Action::TenantPort, Some(TenantId(id)));
                let sides = Sides::between(port_alone(old), port_alone(port));
                let event = Event { action, tenant, object: None, sides };
                audit::note(db, &Author::host(), event)?;
                settled.push((name, old, port));
            }
            Ok(settled)
        })
        .await
    }

    /// Whether a tenant has no user of its own.
    pub async fn lacks_uids(&self) -> Result<bool> {
        self.read(Asker::Host, |db| Ok(db.prepare_cached(WITHOUT_UID)?.exists([])?)).await
    }

    /// Gives each tenant that has none a user of its own, the lowest that nobody has and that has
    /// left nothing. One that has one keeps it, whatever the range is now. Tells how many have none
    /// all the same, since all are given; the oldest come first.
    pub async fn give_uids(&self, range: RangeInclusive<u32>, left: HashSet<u32>) -> Result<usize> {
        self.write(Asker::Host, move |db| {
            let numbers = |sql: &str| -> rusqlite::Result<Vec<i64>> {
                db.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
            };
            let taken = numbers("SELECT user FROM tenants WHERE user IS NOT NULL")?;
            let taken: HashSet<i64> = taken.into_iter().collect();
            let mut free = range
                .filter(|uid| !left.contains(uid))
                .map(i64::from)
                .filter(|uid| !taken.contains(uid));
            let mut without = 0;
            for id in numbers(WITHOUT_UID)? {
                match free.next() {
                    Some(uid) => {
                        db.execute("UPDATE tenants SET user = ? WHERE id = ?", (uid, id))?;
                    }
                    None => without += 1,
                }
            }
            Ok(without)
        })
        .await
    }

    /// With its tokens, functions, versions, generations and artifacts' digests, as if it had never
    /// been: nobody was told of it, and nothing of it is.
    pub async fn delete_tenant(&self, id: TenantId) -> Result<()> {
        self.write(Asker::Host, move |db| {
            audit::forget_tenant(db, id)?;
            delete(db, id)
        })
        .await
    }

    /// The same of one that others have known: when its name and its port were freed is kept, and
    /// what was changed of it, up to this. Names that were freed before `forgotten` are of no interest
    /// any more.
    pub async fn retire_tenant(
        &self,
        id: TenantId,
        forgotten: Timestamp,
        by: Author,
    ) -> Result<()> {
        let tokens = self
            .write(Asker::Host, move |db| {
                note_end(db, id, &by)?;
                let now = millis(Timestamp::now());
                db.execute("DELETE FROM freed_names WHERE freed_at < ?", [millis(forgotten)])?;
                db.execute(
                    "INSERT OR REPLACE INTO freed_ports (port, name, freed_at)
                 SELECT port, name, ? FROM tenants WHERE id = ?",
                    (now, id.0),
                )?;
                db.execute(
                    "INSERT OR REPLACE INTO freed_names (name, freed_at)
                 SELECT name, ? FROM tenants WHERE id = ?",
                    (now, id.0),
                )?;
                let tokens: Vec<i64> = db
                    .prepare_cached("SELECT id FROM tokens WHERE tenant = ?")?
                    .query_map([id.0], |row| row.get(0))?
                    .collect::<rusqlite::Result<_>>()?;
                delete(db, id)?;
                // Its rows are nobody's now.
                audit::keep_the_newest(db, None)?;
                Ok(tokens)
            })
            .await?;
        self.gone.tell(&tokens);
        Ok(())
    }
}

fn note_end(db: &Transaction<'_>, id: TenantId, by: &Author) -> Result<()> {
    let tenant = by_id(db, id)?.ok_or(StoreError::Missing("tenant"))?;
    let mut before = port_alone(tenant.port);
    before.insert("generation".to_owned(), tenant.generation.0.into());
    for (what, sql) in [
        ("functions", "SELECT count(*) FROM functions WHERE tenant = ? AND active IS NOT NULL"),
        ("tokens", "SELECT count(*) FROM tokens WHERE tenant = ?"),
    ] {
        let count: i64 = db.prepare_cached(sql)?.query_row([id.0], |row| row.get(0))?;
        before.insert(what.to_owned(), count.into());
    }
    let sides = Sides::only_before(before);
    let event = Event { action: Action::TenantDelete, tenant: Some(id), object: None, sides };
    audit::note(db, by, event)
}

fn port_alone(port: u16) -> Map<String, Value> {
    Map::from_iter([("port".to_owned(), port.into())])
}

fn delete(db: &Connection, id: TenantId) -> Result<()> {
    db.execute("DELETE FROM artifacts WHERE tenant = ?", [id.0])?;
    match db.execute("DELETE FROM tenants WHERE id = ?", [id.0])? {
        0 => Err(StoreError::Missing("tenant")),
        _ => Ok(()),
    }
}

/// They are somebody's again.
pub(super) fn take(db: &Connection, name: &TenantName, port: u16) -> Result<()> {
    db.execute("DELETE FROM freed_ports WHERE port = ?", [port])?;
    db.execute("DELETE FROM freed_names WHERE name = ?", [name.as_str()])?;
    Ok(())
}

pub(super) fn by_id(db: &Connection, id: TenantId) -> rusqlite::Result<Option<Tenant>> {
    db.prepare_cached("SELECT * FROM tenants WHERE id = ?")?
        .query_row([id.0], Tenant::of)
        .optional()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::scratch::{author, scratch, tenant};

    #[tokio::test]
    async fn names_and_ports_are_each_given_once() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        let again = store.create_tenant(acme.name.clone(), 4_002).await;
        assert!(matches!(again, Err(StoreError::Exists)), "{again:?}");
        let beta = store.create_tenant("beta".parse().unwrap(), 4_001).await;
        assert!(matches!(beta, Err(StoreError::PortTaken(4_001))), "{beta:?}");
        assert_eq!(store.tenants().await.unwrap(), std::slice::from_ref(&acme));
        assert_eq!(store.tenant(&acme.name).await.unwrap(), Some(acme.clone()));
        assert_eq!(store.tenant_by_id(acme.id).await.unwrap(), Some(acme));
    }

    #[tokio::test]
    async fn what_a_retired_tenant_leaves_is_known_until_somebody_has_it() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        let long_ago = Timestamp::UNIX_EPOCH;
        let before = Timestamp::now();
        store.retire_tenant(acme.id, long_ago, author("ops")).await.unwrap();
        let freed = store.freed_ports().await.unwrap();
        let Freed { name, at } = &freed[&4_001];
        assert!(*name == acme.name && at.as_millisecond() >= before.as_millisecond(), "{freed:?}");
        assert_eq!(store.name_freed_at(&acme.name).await.unwrap(), Some(*at));
        // Of one that nobody has known nothing is kept.
        let half = tenant(&store, "half", 4_002).await;
        store.delete_tenant(half.id).await.unwrap();
        assert_eq!(store.freed_ports().await.unwrap().len(), 1);
        assert_eq!(store.name_freed_at(&half.name).await.unwrap(), None);

        let heir = tenant(&store, "heir", 4_001).await;
        assert!(store.freed_ports().await.unwrap().is_empty());
        assert!(store.name_freed_at(&acme.name).await.unwrap().is_some());
        store
            .retire_tenant(
                heir.id,
                Timestamp::now() + std::time::Duration::from_secs(9),
                author("ops"),
            )
            .await
            .unwrap();
        assert_eq!(store.name_freed_at(&acme.name).await.unwrap(), None);
        tenant(&store, "heir", 4_003).await;
        assert_eq!(store.name_freed_at(&heir.name).await.unwrap(), None);
        assert!(store.freed_ports().await.unwrap().contains_key(&4_001));
    }

    #[tokio::test]
    async fn each_tenant_has_a_user_of_its_own_and_keeps_it() {
        let (_directory, store) = scratch();
        let mut tenants = Vec::new();
        for (name, port) in [("a", 4_001), ("b", 4_002), ("c", 4_003)] {
            tenants.push(tenant(&store, name, port).await);
        }
        let uids = async || {
            let tenants = store.tenants().await.unwrap();
            tenants.iter().map(|tenant| tenant.uid).collect::<Vec<_>>()
        };
        assert_eq!(uids().await, [None; 3]);
        let none = HashSet::new;
        assert!(store.lacks_uids().await.unwrap());
        assert_eq!(store.give_uids(2_000..=2_002, none()).await.unwrap(), 0);
        assert!(!store.lacks_uids().await.unwrap());
        assert_eq!(uids().await, [Some(2_000), Some(2_001), Some(2_002)]);
        store.delete_tenant(tenants[1].id).await.unwrap();
        tenant(&store, "d", 4_002).await;
        // Files of the one before are still there.
        let left = HashSet::from([2_001]);
        assert_eq!(store.give_uids(2_000..=2_002, left).await.unwrap(), 1);
        assert_eq!(uids().await, [Some(2_000), Some(2_002), None]);
        tenant(&store, "e", 4_005).await;
        assert_eq!(store.give_uids(2_000..=2_002, none()).await.unwrap(), 1);
        assert_eq!(uids().await, [Some(2_000), Some(2_002), Some(2_001), None]);
        assert_eq!(store.give_uids(3_000..=3_001, none()).await.unwrap(), 0);
        assert_eq!(uids().await, [Some(2_000), Some(2_002), Some(2_001), Some(3_000)]);
    }

    #[tokio::test]
    async fn a_removed_tenant_leaves_nothing_and_its_id_is_not_given_again() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await;
        let (_, _) = store
            .create_token(Some(acme.id), "t".into(), hearth_wire::Scope::Owner, None, author("ops"))
            .await
            .unwrap();
        store.delete_tenant(acme.id).await.unwrap();
        assert_eq!(store.tenant(&acme.name).await.unwrap(), None);
        assert_eq!(store.tokens(Some(acme.id)).await.unwrap(), []);
        let twice = store.delete_tenant(acme.id).await;
        assert!(matches!(twice, Err(StoreError::Missing("tenant"))), "{twice:?}");
        let heir = tenant(&store, "acme", 4_001).await;
        assert_ne!(heir.id, acme.id);
        assert_eq!(heir.generation, GenerationNumber::NONE);
    }
}
