//! What tenants tell their functions, between the store and a worker: owns the key that seals secrets,
//! opens them for a worker that is about to start, and decides what a change of them comes to.
//!
//! ```text
//! a change ─► plan (pure) ─► next: all that the new worker is told ─► it is ready ─► commit: sealed, kept
//! a start  ─► of: what is kept, opened
//! rekey    ─► FILE.new ─► every secret sealed anew, one transaction ─► FILE.new becomes FILE
//! ```
//!
//! Whoever reads or writes what is sealed holds the key meanwhile, so that nobody sees a key and
//! secrets that do not belong together. How workers are swapped is for [`crate::upload`] to say.

mod error;
mod plan;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use hearth_wire::{Setting, SettingKind, SettingName, SettingValue, TenantName};
use tokio::sync;
use tracing::{error, info, warn};

pub use error::{SettingsError, Unusable};
pub use plan::{Plan, plan};

use crate::actor::Author;
use crate::keyfile::{KeyFile, KeyFileError};
use crate::patience::{blocking, to_its_end};
use crate::sealing::{Key, KeyId, OpenError};
use crate::store::database::DatabaseError;
use crate::store::{
    Kept, NewSettings, Sealed, SettingRow, Store, StoreError, Taking, Tenant, TenantId,
};

#[derive(Clone)]
pub struct Settings {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    file: KeyFile,
    key: sync::RwLock<Keyring>,
    /// Every tenant that has any, and some that have none any more: a worker of all others is started
    /// without asking the store.
    known: RwLock<HashSet<TenantId>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Keyring {
    /// Nothing is sealed, and there is none yet.
    Unmade,
    Had(Key),
    Unusable(Unusable),
}

impl Keyring {
    fn key(&self) -> Option<&Key> {
        match self {
            Self::Had(key) => Some(key),
            Self::Unmade | Self::Unusable(_) => None,
        }
    }
}

/// What becomes of the file that was to be the key when a host ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum New {
    IsTheKey,
    IsNone,
    /// Nobody can say.
    Stays,
}

/// What came of sealing everything anew.
#[derive(Debug, PartialEq, Eq)]
pub struct Rekeyed {
    pub secrets: u64,
    /// Whose secrets are forgotten since they could not be opened.
    pub forgotten: Vec<TenantName>,
}

impl Settings {
    /// Finds the key. Without it, and with another one, the host serves whom it can.
    pub async fn open(store: Store, file: KeyFile) -> Result<Self, SettingsError> {
        let sealed_by = store.sealed_by().await?;
        let (read, new) = (file.read(), file.read_new());
        // What cannot be read is not what anything was sealed with.
        let (keyring, new) = choose(read, new.unwrap_or_default(), &sealed_by);
        let placed = match new {
            New::IsTheKey => file.put_in_place(),
            New::IsNone => file.drop_new(),
            New::Stays => Ok(()),
        };
        if let Err(error) = placed {
            let file = file.path().display();
            error!(%file, error = &error as &dyn std::error::Error, "the file beside the key of secrets could not be moved or removed");
        }
        let known = store.tenants_with_settings().await?.into_iter().collect();
        let without = store.sealed_otherwise(keyring.key().map(Key::id)).await?;
        report(&file, &keyring, &without);
        let (key, known) = (sync::RwLock::new(keyring), RwLock::new(known));
        Ok(Self { inner: Arc::new(Inner { store, file, key, known }) })
    }

    /// This tenant may have some from now on.
    pub fn knows(&self, tenant: TenantId) {
        self.inner.known.write().unwrap_or_else(PoisonError::into_inner).insert(tenant);
    }

    fn is_known(&self, tenant: TenantId) -> bool {
        self.inner.known.read().unwrap_or_else(PoisonError::into_inner).contains(&tenant)
    }

    /// Which key secrets are sealed with, where there is one that can be used.
    pub async fn key_id(&self) -> Option<KeyId> {
        self.inner.key.read().await.key().map(Key::id)
    }

    /// All that a worker of the tenant is to be told, in the clear.
    pub async fn of(&self, tenant: &Tenant) -> Result<Vec<Setting>, SettingsError> {
        if !self.is_known(tenant.id) {
            return Ok(Vec::new());
        }
        let keyring = self.inner.key.read().await;
        let rows = self.inner.store.settings(tenant.id).await?;
        open_all(&keyring, &tenant.name, rows)
    }

    /// The same once this is done.
    pub async fn next(&self, tenant: &Tenant, plan: &Plan) -> Result<Vec<Setting>, SettingsError> {
        let keyring = self.inner.key.read().await;
        let mut rows = self.inner.store.settings(tenant.id).await?;
        rows.retain(|row| !plan.touches(&row.name));
        let mut settings = open_all(&keyring, &tenant.name, rows)?;
        settings.extend(plan.set.iter().map(|(name, value)| Setting {
            name: name.clone(),
            value: value.clone(),
            kind: plan.kind,
        }));
        Ok(settings)
    }

    /// Sees to it that there is a key: made with the first secret.
    pub async fn ready_to_seal(&self) -> Result<(), SettingsError> {
        match &*self.inner.key.read().await {
            Keyring::Had(_) => return Ok(()),
            Keyring::Unusable(why) => return Err(why.clone().into()),
            Keyring::Unmade => {}
        }
        let mut keyring = self.inner.key.write().await;
        if *keyring == Keyring::Unmade {
            let key = Key::random().map_err(StoreError::Random)?;
            let (file, new) = (self.inner.file.clone(), key.clone());
            let written = blocking(move || {
                file.write_new(&new)?;
                file.put_in_place()
            });
            written.await.map_err(SettingsError::KeyNotWritten)?;
            info!(file = %self.inner.file.path().display(), "made the key that seals secrets; no backup has it");
            *keyring = Keyring::Had(key);
        }
        Ok(())
    }

    /// Keeps what was planned, sealed where it is secret.
    pub async fn commit(
        &self,
        tenant: &Tenant,
        plan: Plan,
        by: Author,
    ) -> Result<(), SettingsError> {
        let Plan { kind, set, removed } = plan;
        // Before it is there: nobody may take a tenant for one that has none.
        self.knows(tenant.id);
        let keyring = self.inner.key.read().await;
        let keep = |(name, value): (SettingName, SettingValue)| match kind {
            SettingKind::Config => Ok((name, Kept::Config(value.as_str().to_owned()))),
            SettingKind::Secret => {
                let key = keyring.key().ok_or(Unusable::Missing)?;
                let bytes = key.seal(&tenant.name, &name, &value).map_err(StoreError::Random)?;
                Ok((name, Kept::Secret(Sealed { by: key.id(), bytes })))
            }
        };
        let set = set.into_iter().map(keep).collect::<Result<_, SettingsError>>()?;
        let new = NewSettings { tenant: tenant.id, kind, set, removed };
        Ok(self.inner.store.change_settings(new, by).await?)
    }

    /// Makes a new key, and seals every secret with it. What cannot be opened keeps this from being
    /// done, or is forgotten. Done to its end, whoever waits for it.
    pub async fn rekey(&self, by: Author, forget: bool) -> Result<Rekeyed, SettingsError> {
        let settings = self.clone();
        to_its_end(async move { settings.seal_anew(by, forget).await }).await
    }

    async fn seal_anew(&self, by: Author, forget: bool) -> Result<Rekeyed, SettingsError> {
        let Inner { store, file, key, .. } = &*self.inner;
        let mut keyring = key.write().await;
        // What a change left that failed on its way to the disk, the next start needs.
        if store.is_read_only() {
            return Err(DatabaseError::ReadOnly.into());
        }
        let old = keyring.key().cloned();
        let lost = store.sealed_otherwise(old.as_ref().map(Key::id)).await?;
        if !forget && !lost.is_empty() {
            return Err(SettingsError::Lost(lost.into_keys().collect()));
        }
        let new = Key::random().map_err(StoreError::Random)?;
        let (written, now, next) = (file.clone(), old.clone(), new.clone());
        let written = blocking(move || beside(&written, now.as_ref(), &next)).await;
        written.map_err(SettingsError::KeyNotWritten)?;
        let next = new.clone();
        let anew = move |tenant: &TenantName, name: &SettingName, sealed: &Sealed| match open(
            old.as_ref(),
            tenant,
            name,
            sealed,
        ) {
            Ok(value) => {
                let bytes = next.seal(tenant, name, &value).map_err(StoreError::Random)?;
                Ok(Some(Sealed { by: next.id(), bytes }))
            }
            Err(_) if forget => Ok(None),
            Err(_) => Err(SettingsError::Lost(vec![tenant.clone()])),
        };
        let (secrets, forgotten) = match store.reseal(by.clone(), anew).await {
            Ok(done) => done,
            Err(error) => {
                // A change that failed on its way to the disk may be there: the next start knows.
                if !store.is_read_only() {
                    let file = file.clone();
                    let _ = blocking(move || file.drop_new()).await;
                }
                return Err(error);
            }
        };
        let placed = file.clone();
        if let Err(error) = blocking(move || placed.put_in_place()).await {
            let file = file.path().display();
            error!(%file, error = &error as &dyn std::error::Error, "the new key of secrets could not take the old one's place; it is beside it, and the next start puts it there");
        }
        *keyring = Keyring::Had(new);
        info!(%by, secrets, forgotten = forgotten.len(), "all secrets are sealed with a new key");
        Ok(Rekeyed { secrets, forgotten })
    }

    /// How secrets out of a backup are taken: sealed with this host's key, where that or the given one
    /// opens them.
    pub async fn taking(&self, given: Option<Key>) -> Result<Taking, SettingsError> {
        self.ready_to_seal().await?;
        let own = self.inner.key.read().await.key().cloned().ok_or(Unusable::Missing)?;
        let take = move |tenant: &TenantName, name: &SettingName, sealed: &Sealed| {
            let keys = [Some(&own), given.as_ref()].into_iter().flatten();
            let mut values = keys.map(|key| key.open(tenant, name, sealed.by, &sealed.bytes));
            let Some(value) = values.find_map(Result::ok) else {
                return Err(StoreError::Sealed(tenant.clone()));
            };
            let bytes = own.seal(tenant, name, &value).map_err(StoreError::Random)?;
            Ok(Sealed { by: own.id(), bytes })
        };
        Ok(Taking::Sealed(Box::new(take)))
    }
}

/// Puts the next key beside the one that is. That one is in its file first, whatever became of it
/// since: until everything is sealed anew there is no other.
fn beside(file: &KeyFile, now: Option<&Key>, next: &Key) -> io::Result<()> {
    if let Some(now) = now
        && !file.read().is_ok_and(|found| found.as_ref() == Some(now))
    {
        file.write_new(now)?;
        file.put_in_place()?;
    }
    file.write_new(next).inspect_err(|_| {
        // Nothing is sealed with it.
        let _ = file.drop_new();
    })
}

/// The key that opens what is sealed, of the two that may be there.
fn choose(
    read: Result<Option<Key>, KeyFileError>,
    new: Option<Key>,
    sealed_by: &[KeyId],
) -> (Keyring, New) {
    let opens = |key: &Key| sealed_by.contains(&key.id());
    let keyring = match read {
        Ok(Some(key)) if sealed_by.is_empty() || opens(&key) => Keyring::Had(key),
        Ok(None) if sealed_by.is_empty() => Keyring::Unmade,
        Ok(Some(_)) => Keyring::Unusable(Unusable::Other),
        Ok(None) => Keyring::Unusable(Unusable::Missing),
        Err(error) => Keyring::Unusable(Unusable::File(Arc::new(error))),
    };
    match (keyring, new) {
        (Keyring::Unusable(_), Some(new)) if opens(&new) => (Keyring::Had(new), New::IsTheKey),
        (keyring @ Keyring::Unusable(_), _) => (keyring, New::Stays),
        (keyring, _) => (keyring, New::IsNone),
    }
}

/// Tells the operator how it stands.
fn report(file: &KeyFile, keyring: &Keyring, without: &BTreeMap<TenantName, u64>) {
    let path = file.path().display();
    if let Keyring::Unusable(why) = keyring {
        error!(file = %path, error = why as &dyn std::error::Error, "the key that seals secrets cannot be used: put the right one back and start again, or forget what it sealed (hearth secret rekey --forget)");
    } else if file.is_open_to_others() {
        warn!(file = %path, "others than its owner can read the key that seals secrets: chmod 600");
    }
    if !without.is_empty() {
        const NAMED: usize = 20;
        let names: Vec<&str> = without.keys().take(NAMED).map(TenantName::as_str).collect();
        let (count, secrets) = (without.len(), without.values().sum::<u64>());
        error!(
            tenants = count,
            secrets,
            first = names.join(", "),
            "tenants are not served: their secrets cannot be opened"
        );
    }
}

fn open(
    key: Option<&Key>,
    tenant: &TenantName,
    name: &SettingName,
    sealed: &Sealed,
) -> Result<SettingValue, OpenError> {
    let key = key.ok_or(OpenError::OtherKey)?;
    key.open(tenant, name, sealed.by, &sealed.bytes)
}

fn open_all(
    keyring: &Keyring,
    tenant: &TenantName,
    rows: Vec<SettingRow>,
) -> Result<Vec<Setting>, SettingsError> {
    let (mut settings, mut closed) = (Vec::new(), Vec::new());
    for SettingRow { name, kept, set_at: _ } in rows {
        let kind = kept.kind();
        let value = match kept {
            Kept::Config(value) => Ok(value.into()),
            Kept::Secret(sealed) => open(keyring.key(), tenant, &name, &sealed),
        };
        match value {
            Ok(value) => settings.push(Setting { name, value, kind }),
            Err(why) => closed.push((name, why)),
        }
    }
    match closed.is_empty() {
        true => Ok(settings),
        false => Err(SettingsError::Closed(closed)),
    }
}

#[cfg(test)]
mod tests;
