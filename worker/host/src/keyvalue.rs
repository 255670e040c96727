//! Key-value stores: `wasi:keyvalue` in both of its drafts, `fermyon:spin/key-value`,
//! `spin:key-value` and `hearth:platform/keyvalue`, each a text over the same stores of the tenant's,
//! which somebody else keeps. A file for each text translates it.
//!
//! Which stores a function may use, and how long keys and values are, is that one's to say; here are
//! the handles that a guest holds, and what stands there where everything is denied.

pub(crate) mod draft;
pub(crate) mod draft2;
pub(crate) mod platform;
pub(crate) mod spin2;
pub(crate) mod spin3;

use std::pin::Pin;
use std::sync::Arc;

use wasmtime::component::{HasData, Resource, ResourceTable};

use crate::Guest;
use crate::memory::MemoryLimit;

/// Handles that an instance may have open at once, of whichever text.
const HANDLES_MAX: usize = 256;

/// A store that was opened, as its keeper knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store {
    pub number: i64,
    /// Whether its writes are answered before they are on the disk.
    pub is_relaxed: bool,
}

/// An entry as a compare-and-swap sees it. `None` where it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    pub version: Option<i64>,
    pub value: Option<Vec<u8>>,
}

/// Where a list of keys goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    Start,
    /// In the order of keys.
    Key(String),
    /// In the order of the numbers that entries have.
    Number(u64),
}

/// Some keys, with the number of each one's entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    pub keys: Vec<(String, u64)>,
    pub has_more: bool,
}

/// How an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    Missing,
    Stays,
    /// For so many milliseconds.
    For(u64),
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// By this name there can be none.
    #[error("there is no such store")]
    NoSuchStore,
    #[error("the function may not use this store")]
    AccessDenied,
    #[error("{0}")]
    Failed(String),
}

/// It is the same in both of Spin's texts.
macro_rules! errors {
    ($($text:path),+) => {$(
        const _: () = {
            use $text as text;

            impl From<StoreError> for text::Error {
                fn from(error: StoreError) -> Self {
                    match error {
                        StoreError::NoSuchStore => Self::NoSuchStore,
                        StoreError::AccessDenied => Self::AccessDenied,
                        StoreError::Failed(said) => Self::Other(said),
                    }
                }
            }
        };
    )+};
}

errors!(spin2::key_value, spin3::key_value);

pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// Who keeps the stores that a function may use. What is dropped before it is answered need not be
/// done.
pub trait Stores: Send + Sync {
    /// Made where it is not there.
    fn open(&self, name: String) -> Answer<Store>;
    fn get(&self, store: Store, key: String) -> Answer<Option<Vec<u8>>>;
    /// In their order.
    fn get_many(&self, store: Store, keys: Vec<String>) -> Answer<Vec<Option<Vec<u8>>>>;
    fn stands(&self, store: Store, key: String) -> Answer<Stands>;
    /// All of these or none. They stay.
    fn set(&self, store: Store, entries: Vec<(String, Vec<u8>)>) -> Answer<()>;
    fn set_for(&self, store: Store, key: String, value: Vec<u8>, milliseconds: u64) -> Answer<()>;
    /// Says whether there is such an entry.
    fn expire(&self, store: Store, key: String, milliseconds: Option<u64>) -> Answer<bool>;
    fn delete(&self, store: Store, keys: Vec<String>) -> Answer<()>;
    fn keys(&self, store: Store, after: After) -> Answer<Keys>;
    fn increment(&self, store: Store, key: String, delta: i64) -> Answer<i64>;
    fn current(&self, store: Store, key: String) -> Answer<Current>;
    /// Sets the value if the entry has this version; else says how it is.
    fn swap(
        &self,
        store: Store,
        key: String,
        version: Option<i64>,
        value: Vec<u8>,
    ) -> Answer<Result<(), Current>>;
}

/// Opens no store.
pub(crate) struct Denied;

fn denied<T: Send + 'static>() -> Answer<T> {
    Box::pin(std::future::ready(Err(StoreError::AccessDenied)))
}

impl Stores for Denied {
    fn open(&self, _: String) -> Answer<Store> {
        denied()
    }

    fn get(&self, _: Store, _: String) -> Answer<Option<Vec<u8>>> {
        denied()
    }

    fn get_many(&self, _: Store, _: Vec<String>) -> Answer<Vec<Option<Vec<u8>>>> {
        denied()
    }

    fn stands(&self, _: Store, _: String) -> Answer<Stands> {
        denied()
    }

    fn set(&self, _: Store, _: Vec<(String, Vec<u8>)>) -> Answer<()> {
        denied()
    }

    fn set_for(&self, _: Store, _: String, _: Vec<u8>, _: u64) -> Answer<()> {
        denied()
    }

    fn expire(&self, _: Store, _: String, _: Option<u64>) -> Answer<bool> {
        denied()
    }

    fn delete(&self, _: Store, _: Vec<String>) -> Answer<()> {
        denied()
    }

    fn keys(&self, _: Store, _: After) -> Answer<Keys> {
        denied()
    }

    fn increment(&self, _: Store, _: String, _: i64) -> Answer<i64> {
        denied()
    }

    fn current(&self, _: Store, _: String) -> Answer<Current> {
        denied()
    }

    fn swap(&self, _: Store, _: String, _: Option<i64>, _: Vec<u8>) -> Answer<Result<(), Current>> {
        denied()
    }
}

/// A guest's handle, for whichever text. There is nothing of a call in it, so that it may stay in an
/// instance that serves another one.
pub struct Open(Store);

/// A compare-and-swap that was begun.
pub struct Cas {
    store: Store,
    key: String,
    version: Option<i64>,
}

/// What the bindings are linked with.
pub(crate) struct KeyValue;

impl HasData for KeyValue {
    type Data<'a> = View<'a>;
}

pub(crate) struct View<'a> {
    table: &'a mut ResourceTable,
    stores: &'a Arc<dyn Stores>,
    open: &'a mut usize,
    memory: &'a mut MemoryLimit,
}

/// What an instance has for it.
pub(crate) struct Keeper {
    stores: Arc<dyn Stores>,
    /// Handles.
    open: usize,
}

impl Keeper {
    pub(crate) fn new(stores: Arc<dyn Stores>) -> Self {
        Self { stores, open: 0 }
    }
}

pub(crate) fn view(guest: &mut Guest) -> View<'_> {
    let Keeper { stores, open } = &mut guest.keyvalue;
    View { table: &mut guest.table, stores, open, memory: &mut guest.memory }
}

/// What ends in an instance's table: a handle for a store. `None` where there are too many.
type Held = Option<Resource<Open>>;

impl View<'_> {
    fn hold(&mut self, store: Store) -> wasmtime::Result<Held> {
        if *self.open >= HANDLES_MAX {
            return Ok(None);
        }
        let held = self.table.push(Open(store))?;
        *self.open += 1;
        Ok(Some(held))
    }

    fn store(&self, handle: &Resource<Open>) -> wasmtime::Result<Store> {
        Ok(self.table.get(handle)?.0)
    }

    fn close(&mut self, handle: Resource<Open>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        *self.open -= 1;
        Ok(())
    }
}

fn too_many_handles() -> String {
    format!("{HANDLES_MAX} stores are open already: close some of them")
}

/// All keys of a store at once, for texts that have no pages.
async fn all_keys(stores: &dyn Stores, store: Store) -> Result<Vec<String>, StoreError> {
    let (mut all, mut bytes, mut after) = (Vec::new(), 0, After::Start);
    loop {
        let Keys { keys, has_more } = stores.keys(store, after).await?;
        bytes += keys.iter().map(|(key, _)| key.len() + KEY_BYTES).sum::<usize>();
        if bytes > ALL_KEYS_MAX_BYTES {
            return Err(StoreError::Failed(
                "the store has more keys than fit into one list: use `wasi:keyvalue`, whose lists \
                 have pages"
                    .to_owned(),
            ));
        }
        all.extend(keys.into_iter().map(|(key, _)| key));
        match all.last() {
            Some(last) if has_more => after = After::Key(last.clone()),
            _ => return Ok(all),
        }
    }
}

/// What a list without pages may take, and of that what a key takes besides its own bytes.
const ALL_KEYS_MAX_BYTES: usize = 4 << 20;
const KEY_BYTES: usize = 8;
/// What a list in pages may take of keys that are not read yet: at most ten thousand, of 1 MiB.
const PAGE_BYTES: usize = (1 << 20) + 10_000 * size_of::<String>();

#[cfg(test)]
mod tests;
