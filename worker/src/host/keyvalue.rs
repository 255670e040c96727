//! The key-value stores that one function may use, as its interfaces ask for them: those that its
//! option `stores` allows, of its tenant's.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hearth_host::keyvalue::{After, Answer, Current, Keys, Stands, Store, StoreError, Stores};
use hearth_wire::KeptName;

use crate::generation::Generation;
use crate::state::{self, Entry, Fault, KeyValue, State, Sync};

/// The longest time that an entry may be given: ten years.
const EXPIRY_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

pub struct Granted {
    state: State,
    generation: Arc<Generation>,
    /// By its number there.
    function: usize,
}

impl Granted {
    pub fn new(state: State, generation: Arc<Generation>, function: usize) -> Self {
        Self { state, generation, function }
    }

    /// What is asked of the stores, and answered when it is done.
    fn ask<T, F>(&self, ask: impl FnOnce(KeyValue) -> F) -> Answer<T>
    where
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let asked = ask(self.state.keyvalue());
        Box::pin(async move { asked.await.map_err(refusal) })
    }
}

impl Stores for Granted {
    fn open(&self, name: String) -> Answer<Store> {
        let options = &self.generation.manifest.functions[self.function].options;
        let Ok(name) = name.parse::<KeptName>() else {
            return refused(StoreError::NoSuchStore);
        };
        if !options.stores.allows(&name) {
            return refused(StoreError::AccessDenied);
        }
        let is_relaxed = options.relaxed_stores.allows(&name);
        self.ask(|stores| async move {
            Ok(Store { number: stores.open(name).await?.number(), is_relaxed })
        })
    }

    fn get(&self, store: Store, key: String) -> Answer<Option<Vec<u8>>> {
        self.ask(|stores| async move { stores.get(of(store), key).await })
    }

    fn get_many(&self, store: Store, keys: Vec<String>) -> Answer<Vec<Option<Vec<u8>>>> {
        self.ask(|stores| async move { stores.get_many(of(store), keys).await })
    }

    fn stands(&self, store: Store, key: String) -> Answer<Stands> {
        self.ask(|stores| async move {
            Ok(match stores.stands(of(store), key).await? {
                state::Stands::Missing => Stands::Missing,
                state::Stands::Stays => Stands::Stays,
                state::Stands::Until(time) => {
                    let left = time.duration_since(SystemTime::now()).unwrap_or_default();
                    Stands::For(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
                }
            })
        })
    }

    fn set(&self, store: Store, entries: Vec<(String, Vec<u8>)>) -> Answer<()> {
        let entries = entries.into_iter().map(|(key, value)| Entry { key, value, expires: None });
        let entries = entries.collect();
        self.ask(|stores| async move { stores.set(of(store), entries, sync(store)).await })
    }

    fn set_for(&self, store: Store, key: String, value: Vec<u8>, milliseconds: u64) -> Answer<()> {
        let expires = match expiry(milliseconds) {
            Ok(expires) => Some(expires),
            Err(error) => return refused(error),
        };
        let entries = vec![Entry { key, value, expires }];
        self.ask(|stores| async move { stores.set(of(store), entries, sync(store)).await })
    }

    fn expire(&self, store: Store, key: String, milliseconds: Option<u64>) -> Answer<bool> {
        let expires = match milliseconds.map(expiry).transpose() {
            Ok(expires) => expires,
            Err(error) => return refused(error),
        };
        self.ask(|stores| async move { stores.expire(of(store), key, expires, sync(store)).await })
    }

    fn delete(&self, store: Store, keys: Vec<String>) -> Answer<()> {
        self.ask(
            |stores| async move { stores.delete(of(store), keys, sync(store)).await.map(drop) },
        )
    }

    fn keys(&self, store: Store, after: After) -> Answer<Keys> {
        let after = match after {
            After::Start => state::After::Start,
            After::Key(key) => state::After::Key(key),
            After::Number(number) => state::After::Number(number),
        };
        self.ask(|stores| async move {
            let page = stores.keys(of(store), String::new(), after, usize::MAX).await?;
            Ok(Keys { keys: page.keys, has_more: page.has_more })
        })
    }

    fn increment(&self, store: Store, key: String, delta: i64) -> Answer<i64> {
        self.ask(|stores| async move { stores.increment(of(store), key, delta, sync(store)).await })
    }

    fn current(&self, store: Store, key: String) -> Answer<Current> {
        self.ask(|stores| async move { Ok(current(stores.current(of(store), key).await?)) })
    }

    fn swap(
        &self,
        store: Store,
        key: String,
        version: Option<i64>,
        value: Vec<u8>,
    ) -> Answer<Result<(), Current>> {
        let was = state::Version::numbered(version);
        self.ask(|stores| async move {
            let swapped = stores.swap(of(store), key, was, value, sync(store)).await?;
            Ok(swapped.map_err(current))
        })
    }
}

fn of(store: Store) -> state::Store {
    state::Store::numbered(store.number)
}

fn sync(store: Store) -> Sync {
    if store.is_relaxed { Sync::Relaxed } else { Sync::Full }
}

fn current(current: state::Current) -> Current {
    Current { version: current.version.number(), value: current.value }
}

fn expiry(milliseconds: u64) -> Result<SystemTime, StoreError> {
    let after = Duration::from_millis(milliseconds);
    match after <= EXPIRY_MAX {
        true => Ok(SystemTime::now() + after),
        false => Err(StoreError::Failed("an entry expires within ten years".to_owned())),
    }
}

fn refused<T: Send + 'static>(error: StoreError) -> Answer<T> {
    Box::pin(std::future::ready(Err(error)))
}

fn refusal(fault: Fault) -> StoreError {
    match fault {
        Fault::Name(_) | Fault::NoStore => StoreError::NoSuchStore,
        fault => StoreError::Failed(fault.to_string()),
    }
}
