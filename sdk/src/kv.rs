//! Key-value stores: what a function keeps between its calls, by key.
//!
//! ```no_run
//! use hearth_sdk::{Error, kv};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, Serialize)]
//! struct Profile { name: String }
//!
//! fn rename(id: &str, name: &str) -> Result<(), Error> {
//!     let store = kv::Store::open("default")?;
//!     let profile: Option<Profile> = store.get_json(id)?;
//!     if profile.is_none_or(|profile| profile.name != name) {
//!         store.set_json(id, &Profile { name: name.to_owned() })?;
//!     }
//!     store.increment("renames", 1)?;
//!     Ok(())
//! }
//! ```
//!
//! A store is there once it is opened, for all functions of the tenant; the option `stores` of a
//! function names those that it may open. What is written is durable when the call returns. A key
//! has up to 1 KiB and a value up to 1 MiB. When several calls change one entry at once, use
//! [`Store::increment`] or [`Store::update`], which lose none.
//!
//! This is `wasi:keyvalue@0.2.0-draft2`, and for entries that expire `hearth:platform/keyvalue`.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::bindings::hearth::platform::keyvalue;
use self::bindings::wasi::keyvalue::{atomics, batch, store};

#[expect(
    unsafe_code,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    reason = "generated from `wit/imports`"
)]
mod bindings;

/// Why a store did not do it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    NoSuchStore,
    /// The function's option `stores` does not name it.
    AccessDenied,
    /// A value is not the JSON that was wanted, or cannot be written as JSON.
    Json(serde_json::Error),
    /// A bound was reached, or the host failed: it says which.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchStore => f.write_str("there is no such store"),
            Self::AccessDenied => f.write_str("the function may not open this store"),
            Self::Json(_) => f.write_str("the value is not the JSON that was wanted"),
            Self::Other(said) => f.write_str(said),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Json(error) => Some(error),
            Self::NoSuchStore | Self::AccessDenied | Self::Other(_) => None,
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NoSuchStore => Self::NoSuchStore,
            store::Error::AccessDenied => Self::AccessDenied,
            store::Error::Other(said) => Self::Other(said),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// Until when an entry is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// There is no such entry.
    Missing,
    /// It does not expire.
    Never,
    /// It is gone after so long.
    In(Duration),
}

/// A store that is open.
pub struct Store {
    bucket: store::Bucket,
}

impl Store {
    /// The store of this name, which is made if it is not there: 1 to 64 characters of
    /// `[A-Za-z0-9_.-]`. `default` is as good as any other.
    pub fn open(name: &str) -> Result<Self, Error> {
        Ok(Self { bucket: store::open(name)? })
    }

    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.bucket.get(key)?)
    }

    /// The same of a value that is JSON.
    pub fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        match self.get(key)? {
            Some(value) => Ok(Some(serde_json::from_slice(&value)?)),
            None => Ok(None),
        }
    }

    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        Ok(self.bucket.set(key, value.as_ref())?)
    }

    pub fn set_json(&self, key: &str, value: &impl Serialize) -> Result<(), Error> {
        self.set(key, serde_json::to_vec(value)?)
    }

    /// Sets an entry that is gone after so long, up to ten years.
    pub fn set_expiring(
        &self,
        key: &str,
        value: impl AsRef<[u8]>,
        after: Duration,
    ) -> Result<(), Error> {
        Ok(keyvalue::set_expiring(&self.bucket, key, value.as_ref(), milliseconds(after))?)
    }

    /// Has an entry expire so long from now, or never. Says whether there is such an entry.
    pub fn expire(&self, key: &str, after: Option<Duration>) -> Result<bool, Error> {
        Ok(keyvalue::expire(&self.bucket, key, after.map(milliseconds))?)
    }

    pub fn expires_in(&self, key: &str) -> Result<Expiry, Error> {
        Ok(match keyvalue::expires_in(&self.bucket, key)? {
            keyvalue::Expiry::Missing => Expiry::Missing,
            keyvalue::Expiry::Stays => Expiry::Never,
            keyvalue::Expiry::Expires(after) => Expiry::In(Duration::from_millis(after)),
        })
    }

    /// Nothing where there is no such entry.
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        Ok(self.bucket.delete(key)?)
    }

    pub fn exists(&self, key: &str) -> Result<bool, Error> {
        Ok(self.bucket.exists(key)?)
    }

    /// All keys, of which a page is asked for at once.
    pub fn keys(&self) -> Keys<'_> {
        Keys { store: self, page: VecDeque::new(), next: Next::First }
    }

    /// Adds to a counter, which is 0 where it is not there, and says what it is then. A counter is
    /// 8 bytes, little-endian.
    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        Ok(atomics::increment(&self.bucket, key, delta)?)
    }

    /// Changes an entry as it is at that moment. `change` is asked again where another call has
    /// changed it meanwhile, and what it returned last is returned.
    pub fn update(
        &self,
        key: &str,
        mut change: impl FnMut(Option<Vec<u8>>) -> Result<Vec<u8>, Error>,
    ) -> Result<Vec<u8>, Error> {
        let mut cas = atomics::Cas::new(&self.bucket, key)?;
        loop {
            let value = change(cas.current()?)?;
            match atomics::swap(cas, &value) {
                Ok(()) => return Ok(value),
                Err(atomics::CasError::CasFailed(newer)) => cas = newer,
                Err(atomics::CasError::StoreError(error)) => return Err(error.into()),
            }
        }
    }

    /// The same of a value that is JSON.
    pub fn update_json<T: DeserializeOwned + Serialize>(
        &self,
        key: &str,
        mut change: impl FnMut(Option<T>) -> T,
    ) -> Result<T, Error> {
        let value = self.update(key, |value| {
            let value = value.map(|value| serde_json::from_slice(&value)).transpose()?;
            Ok(serde_json::to_vec(&change(value))?)
        })?;
        Ok(serde_json::from_slice(&value)?)
    }

    /// The values of many keys, in their order.
    pub fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let keys: Vec<_> = keys.iter().map(|&key| key.to_owned()).collect();
        let found = batch::get_many(&self.bucket, &keys)?;
        Ok(found.into_iter().map(|(_, value)| value).collect())
    }

    pub fn set_many<V: AsRef<[u8]>>(&self, entries: &[(&str, V)]) -> Result<(), Error> {
        let entry = |(key, value): &(&str, V)| ((*key).to_owned(), value.as_ref().to_vec());
        Ok(batch::set_many(&self.bucket, &entries.iter().map(entry).collect::<Vec<_>>())?)
    }

    pub fn delete_many(&self, keys: &[&str]) -> Result<(), Error> {
        let keys: Vec<_> = keys.iter().map(|&key| key.to_owned()).collect();
        Ok(batch::delete_many(&self.bucket, &keys)?)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The keys of a store.
pub struct Keys<'a> {
    store: &'a Store,
    page: VecDeque<String>,
    next: Next,
}

/// Which page comes next.
enum Next {
    First,
    After(String),
    None,
}

impl Iterator for Keys<'_> {
    type Item = Result<String, Error>;

    fn next(&mut self) -> Option<Result<String, Error>> {
        loop {
            if let Some(key) = self.page.pop_front() {
                return Some(Ok(key));
            }
            let after = match std::mem::replace(&mut self.next, Next::None) {
                Next::First => None,
                Next::After(cursor) => Some(cursor),
                Next::None => return None,
            };
            match self.store.bucket.list_keys(after.as_deref()) {
                Ok(store::KeyResponse { keys, cursor }) => {
                    self.page = keys.into();
                    self.next = cursor.map_or(Next::None, Next::After);
                }
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}
