//! Key-value stores as bindings and built-in routes ask for them: the bounds of keys and values, and
//! which thread does what. What is done is in [`super::entries`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use hearth_wire::KeptName;
use rusqlite::Connection;

use super::entries::{self, After, Current, Found, Keys, Page, Store, Version};
use super::fault::Fault;
use super::moment::{ms, now_ms, time};
use super::place::DatabaseFile;
use super::service::{Manner, Service};
use super::writer::Sync;

pub const KEY_MAX_BYTES: usize = 1 << 10;
pub const VALUE_MAX_BYTES: usize = 1 << 20;
/// Keys, or entries, that one call may name.
pub const BATCH_MAX: usize = 10_000;
/// What a batch may hold, either way.
pub const BATCH_MAX_BYTES: usize = 16 << 20;
/// Keys that one list may have, and their bytes together.
pub const PAGE_MAX: usize = 10_000;
pub const PAGE_MAX_BYTES: usize = 1 << 20;

/// A value that is longer is read by a reader: the thread of the calls has others to serve.
const INLINE_MAX_BYTES: usize = 64 << 10;
/// Of an entry besides its key and value.
const ENTRY_BYTES: usize = 64;

/// An entry with its time. `None` where it stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    pub expires: Option<SystemTime>,
}

/// How an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    Missing,
    Stays,
    Until(SystemTime),
}

/// A handle. What is dropped before its turn is not done.
#[derive(Clone)]
pub struct KeyValue {
    service: Arc<Service>,
    /// Those that were opened. One that was removed by another worker is noticed when something is
    /// written into it.
    known: Arc<Mutex<HashMap<KeptName, Store>>>,
}

impl KeyValue {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Self { service, known: Arc::default() }
    }

    fn known(&self, name: &KeptName) -> Option<Store> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    fn knows(&self, name: KeptName, store: Store) -> Store {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name, store);
        store
    }

    /// The store of this name, made if it is not there.
    pub async fn open(&self, name: KeptName) -> Result<Store, Fault> {
        if let Some(store) = self.known(&name) {
            return Ok(store);
        }
        if let Some(store) = self.find(name.clone()).await? {
            return Ok(store);
        }
        let (asked, most) = (name.clone(), self.service.share.stores);
        let made = self.write(Sync::Full, ENTRY_BYTES, move |db| entries::make(db, &asked, most));
        Ok(self.knows(name, made.await?))
    }

    /// The same without making it.
    pub async fn find(&self, name: KeptName) -> Result<Option<Store>, Fault> {
        if let Some(store) = self.known(&name) {
            return Ok(Some(store));
        }
        let asked = name.clone();
        let found = self.read(move |db| entries::find(db, &asked)).await?;
        Ok(found.map(|store| self.knows(name, store)))
    }

    /// Removes a store with all that is in it. Says whether there was one.
    pub async fn remove(&self, name: KeptName) -> Result<bool, Fault> {
        let asked = name.clone();
        let manner = Manner { alone: true, sync: Sync::Full, bytes: 0 };
        let remove = move |db: &Connection| entries::remove(db, &asked);
        let removed = self.service.write(DatabaseFile::Stores, manner, remove).await;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        removed
    }

    /// Names in order, those behind `after`.
    pub async fn stores(
        &self,
        after: Option<KeptName>,
        limit: usize,
    ) -> Result<Vec<KeptName>, Fault> {
        self.read(move |db| entries::stores(db, after.as_ref(), limit)).await
    }

    /// Reads at once where it can: most values are short, and in memory.
    pub async fn get(&self, store: Store, key: String) -> Result<Option<Vec<u8>>, Fault> {
        check_key(&key)?;
        let inline = self
            .service
            .inline(|db| entries::get(db, store, &key, now_ms(), INLINE_MAX_BYTES))
            .transpose()?;
        match inline {
            Some(Found::Nothing) => return Ok(None),
            Some(Found::Value(value)) => return Ok(Some(value)),
            Some(Found::Longer) | None => {}
        }
        self.read(move |db| read_whole(db, store, &key)).await
    }

    pub async fn stands(&self, store: Store, key: String) -> Result<Stands, Fault> {
        check_key(&key)?;
        let inline = self.service.inline(|db| entries::expires(db, store, &key, now_ms()));
        let expires = match inline.transpose()? {
            Some(expires) => expires,
            None => self.read(move |db| entries::expires(db, store, &key, now_ms())).await?,
        };
        Ok(match expires {
            None => Stands::Missing,
            Some(None) => Stands::Stays,
            Some(Some(at)) => Stands::Until(time(at)),
        })
    }

    /// The value of each key that there is, in their order. All of one moment.
    pub async fn get_many(
        &self,
        store: Store,
        keys: Vec<String>,
    ) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        check_keys(&keys)?;
        let read = move |db: &Connection| {
            let mut left = BATCH_MAX_BYTES;
            let values = keys.iter().map(|key| {
                let value = read_whole(db, store, key)?;
                let bytes = value.as_ref().map_or(0, Vec::len);
                left = left.checked_sub(bytes).ok_or(TOO_LARGE_BATCH)?;
                Ok(value)
            });
            values.collect()
        };
        self.read(read).await
    }

    /// All of these or none; of two with the same key, the later one.
    pub async fn set(&self, store: Store, entries: Vec<Entry>, sync: Sync) -> Result<(), Fault> {
        if entries.len() > BATCH_MAX {
            return Err(TOO_MANY);
        }
        let mut bytes = 0;
        for Entry { key, value, .. } in &entries {
            check_key(key)?;
            check_value(value)?;
            bytes += key.len() + value.len() + ENTRY_BYTES;
        }
        if bytes > BATCH_MAX_BYTES.max(VALUE_MAX_BYTES + KEY_MAX_BYTES + ENTRY_BYTES) {
            return Err(TOO_LARGE_BATCH);
        }
        let set = move |db: &Connection| {
            entries.iter().try_for_each(|Entry { key, value, expires }| {
                entries::set(db, store, key, value, expires.map(ms))
            })
        };
        self.write(sync, bytes, set).await
    }

    /// All of these. Says how many there were.
    pub async fn delete(&self, store: Store, keys: Vec<String>, sync: Sync) -> Result<u64, Fault> {
        check_keys(&keys)?;
        // It has its place where nothing else has.
        let delete = move |db: &Connection| {
            let now = now_ms();
            keys.iter().try_fold(0, |gone, key| {
                Ok(gone + u64::from(entries::delete(db, store, key, now)?))
            })
        };
        self.write(sync, 0, delete).await
    }

    /// Keys that begin with `prefix`, as many as a page may have, and at most `limit`.
    pub async fn keys(
        &self,
        store: Store,
        prefix: String,
        after: After,
        limit: usize,
    ) -> Result<Keys, Fault> {
        check_key(&prefix)?;
        let page = Page { keys: limit.clamp(1, PAGE_MAX), bytes: PAGE_MAX_BYTES };
        self.read(move |db| entries::keys(db, store, &prefix, &after, page, now_ms())).await
    }

    pub async fn increment(
        &self,
        store: Store,
        key: String,
        delta: i64,
        sync: Sync,
    ) -> Result<i64, Fault> {
        check_key(&key)?;
        let bytes = key.len() + ENTRY_BYTES;
        let add = move |db: &Connection| entries::increment(db, store, &key, delta, now_ms());
        self.write(sync, bytes, add).await
    }

    pub async fn current(&self, store: Store, key: String) -> Result<Current, Fault> {
        check_key(&key)?;
        self.read(move |db| entries::current(db, store, &key, now_ms())).await
    }

    /// Sets an entry where it is as it was, by its version; else says how it is now.
    pub async fn swap(
        &self,
        store: Store,
        key: String,
        was: Version,
        value: Vec<u8>,
        sync: Sync,
    ) -> Result<Result<(), Current>, Fault> {
        check_key(&key)?;
        check_value(&value)?;
        let bytes = key.len() + value.len() + ENTRY_BYTES;
        let swap = move |db: &Connection| entries::swap(db, store, &key, was, &value, now_ms());
        self.write(sync, bytes, swap).await
    }

    /// Gives an entry another time. Says whether there is one.
    pub async fn expire(
        &self,
        store: Store,
        key: String,
        expires: Option<SystemTime>,
        sync: Sync,
    ) -> Result<bool, Fault> {
        check_key(&key)?;
        let expires = expires.map(ms);
        let expire = move |db: &Connection| entries::expire(db, store, &key, expires, now_ms());
        self.write(sync, ENTRY_BYTES, expire).await
    }

    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.service.read(DatabaseFile::Stores, job).await
    }

    async fn write<T: Send + 'static>(
        &self,
        sync: Sync,
        bytes: usize,
        job: impl FnMut(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let manner = Manner { alone: false, sync, bytes: bytes as u64 };
        let written = self.service.write(DatabaseFile::Stores, manner, job).await;
        if let Err(Fault::NoStore) = written {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        written
    }
}

fn read_whole(db: &Connection, store: Store, key: &str) -> Result<Option<Vec<u8>>, Fault> {
    match entries::get(db, store, key, now_ms(), usize::MAX)? {
        Found::Value(value) => Ok(Some(value)),
        Found::Nothing | Found::Longer => Ok(None),
    }
}

const TOO_MANY: Fault = Fault::TooManyAtOnce { most: BATCH_MAX };
const TOO_LARGE_BATCH: Fault = Fault::TooLarge { what: "batch", most: BATCH_MAX_BYTES };

fn check_key(key: &str) -> Result<(), Fault> {
    match key.len() <= KEY_MAX_BYTES {
        true => Ok(()),
        false => Err(Fault::TooLarge { what: "key", most: KEY_MAX_BYTES }),
    }
}

fn check_keys(keys: &[String]) -> Result<(), Fault> {
    if keys.len() > BATCH_MAX {
        return Err(TOO_MANY);
    }
    keys.iter().try_for_each(|key| check_key(key))
}

fn check_value(value: &[u8]) -> Result<(), Fault> {
    match value.len() <= VALUE_MAX_BYTES {
        true => Ok(()),
        false => Err(Fault::TooLarge { what: "value", most: VALUE_MAX_BYTES }),
    }
}
