//! What each text makes of the same stores. These are in memory: what keeps them is the worker's.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Mutex;
use std::task::{Context, Poll};

use hearth_engine::{EngineKind, Purpose};
use wasmtime::StoreContextMut;
use wasmtime::component::{Source, StreamConsumer, StreamResult};

use super::draft2::atomics::{CasError, Host as _, HostCas as _};
use super::draft2::store;
use super::draft2::store::{Host as _, HostBucket as _};
use super::*;
use crate::{Backends, Surroundings};

/// Keys that one list of these has.
const PAGE: usize = 3;

/// One store, `default`; an entry's version is how often anything was written.
#[derive(Default)]
struct Kept {
    entries: Mutex<BTreeMap<String, (i64, Vec<u8>)>>,
    writes: Mutex<i64>,
}

const DEFAULT: Store = Store { number: 7, is_relaxed: false };

fn answer<T: Send + 'static>(said: Result<T, StoreError>) -> Answer<T> {
    Box::pin(ready(said))
}

impl Kept {
    fn write(&self, key: String, value: Vec<u8>) {
        let mut writes = self.writes.lock().unwrap();
        *writes += 1;
        self.entries.lock().unwrap().insert(key, (*writes, value));
    }

    fn read(&self, key: &str) -> Option<(i64, Vec<u8>)> {
        self.entries.lock().unwrap().get(key).cloned()
    }

    fn look(&self, key: &str) -> Current {
        let (version, value) = self.read(key).unzip();
        Current { version, value }
    }
}

impl Stores for Kept {
    fn open(&self, name: String) -> Answer<Store> {
        answer(match &*name {
            "default" => Ok(DEFAULT),
            "a/b" => Err(StoreError::NoSuchStore),
            _ => Err(StoreError::AccessDenied),
        })
    }

    fn get(&self, store: Store, key: String) -> Answer<Option<Vec<u8>>> {
        assert_eq!(store, DEFAULT);
        answer(Ok(self.look(&key).value))
    }

    fn get_many(&self, _: Store, keys: Vec<String>) -> Answer<Vec<Option<Vec<u8>>>> {
        answer(Ok(keys.iter().map(|key| self.look(key).value).collect()))
    }

    fn stands(&self, _: Store, key: String) -> Answer<Stands> {
        answer(Ok(self.read(&key).map_or(Stands::Missing, |_| Stands::Stays)))
    }

    fn set(&self, _: Store, entries: Vec<(String, Vec<u8>)>) -> Answer<()> {
        entries.into_iter().for_each(|(key, value)| self.write(key, value));
        answer(Ok(()))
    }

    fn set_for(&self, _: Store, _: String, _: Vec<u8>, milliseconds: u64) -> Answer<()> {
        answer(Err(StoreError::Failed(format!("for {milliseconds}"))))
    }

    fn expire(&self, _: Store, key: String, _: Option<u64>) -> Answer<bool> {
        answer(Ok(self.read(&key).is_some()))
    }

    fn delete(&self, _: Store, keys: Vec<String>) -> Answer<()> {
        keys.iter().for_each(|key| drop(self.entries.lock().unwrap().remove(key)));
        answer(Ok(()))
    }

    fn keys(&self, _: Store, after: After) -> Answer<Keys> {
        let entries = self.entries.lock().unwrap();
        let mut keys: Vec<_> = entries
            .iter()
            .map(|(key, (number, _))| (key.clone(), number.cast_unsigned()))
            .collect();
        match after {
            After::Start => {}
            After::Key(after) => keys.retain(|(key, _)| *key > after),
            After::Number(after) => {
                keys.sort_by_key(|(_, number)| *number);
                keys.retain(|(_, number)| *number > after);
            }
        }
        let has_more = keys.len() > PAGE;
        keys.truncate(PAGE);
        answer(Ok(Keys { keys, has_more }))
    }

    fn increment(&self, _: Store, key: String, delta: i64) -> Answer<i64> {
        let was = self.look(&key).value.map_or(0, |it| i64::from_le_bytes(it.try_into().unwrap()));
        self.write(key, (was + delta).to_le_bytes().to_vec());
        answer(Ok(was + delta))
    }

    fn current(&self, _: Store, key: String) -> Answer<Current> {
        answer(Ok(self.look(&key)))
    }

    fn swap(
        &self,
        _: Store,
        key: String,
        version: Option<i64>,
        value: Vec<u8>,
    ) -> Answer<Result<(), Current>> {
        let now = self.look(&key);
        if now.version != version {
            return answer(Ok(Err(now)));
        }
        self.write(key, value);
        answer(Ok(Ok(())))
    }
}

fn guest() -> Guest {
    let backends = Backends { keyvalue: Arc::new(Kept::default()), ..Backends::denied() };
    Guest::new(Surroundings::denied(), backends, 4 << 20)
}

#[tokio::test]
async fn the_draft_of_today_over_a_store() {
    let mut guest = guest();
    let mut view = view(&mut guest);
    let bucket = view.open("default".to_owned()).await.unwrap().unwrap();
    let same = || Resource::<Open>::new_borrow(bucket.rep());
    for key in ["c", "a", "d", "b"] {
        view.set(same(), key.to_owned(), key.into()).await.unwrap().unwrap();
    }
    assert_eq!(view.get(same(), "a".to_owned()).await.unwrap().unwrap().unwrap(), b"a");
    assert!(view.exists(same(), "a".to_owned()).await.unwrap().unwrap());
    let page = view.list_keys(same(), None).await.unwrap().unwrap();
    assert_eq!((page.keys.len(), page.cursor.as_deref()), (3, Some("c")));
    let page = view.list_keys(same(), page.cursor).await.unwrap().unwrap();
    assert_eq!((page.keys, page.cursor), (vec!["d".to_owned()], None));
    view.delete(same(), "a".to_owned()).await.unwrap().unwrap();
    assert!(!view.exists(same(), "a".to_owned()).await.unwrap().unwrap());
    assert_eq!(view.increment(same(), "n".to_owned(), -2).await.unwrap().unwrap(), -2);
    store::HostBucket::drop(&mut view, bucket).await.unwrap();
    assert!(view.table.is_empty());
}

#[tokio::test]
async fn a_swap_that_failed_can_be_tried_again() {
    let mut guest = guest();
    let mut view = view(&mut guest);
    let bucket = view.open("default".to_owned()).await.unwrap().unwrap();
    let same = || Resource::<Open>::new_borrow(bucket.rep());
    let cas = HostCasExt::begin(&mut view, same(), "a").await;
    view.set(same(), "a".to_owned(), b"1".to_vec()).await.unwrap().unwrap();
    let again = match view.swap(cas, b"2".to_vec()).await.unwrap() {
        Err(CasError::CasFailed(again)) => again,
        other => panic!("{other:?}"),
    };
    view.swap(again, b"2".to_vec()).await.unwrap().unwrap();

    // What `current` showed is what a swap takes the place of.
    let cas = HostCasExt::begin(&mut view, same(), "a").await;
    view.set(same(), "a".to_owned(), b"3".to_vec()).await.unwrap().unwrap();
    let shown = view.current(Resource::new_borrow(cas.rep())).await.unwrap().unwrap();
    assert_eq!(shown.as_deref(), Some(&b"3"[..]));
    view.swap(cas, b"4".to_vec()).await.unwrap().unwrap();
    assert_eq!(view.get(same(), "a".to_owned()).await.unwrap().unwrap().unwrap(), b"4");
}

/// The texts have functions of one name.
trait HostCasExt {
    async fn begin(&mut self, bucket: Resource<Open>, key: &str) -> Resource<Cas>;
}

impl HostCasExt for View<'_> {
    async fn begin(&mut self, bucket: Resource<Open>, key: &str) -> Resource<Cas> {
        draft2::atomics::HostCas::new(self, bucket, key.to_owned()).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn the_two_texts_of_one_draft() {
    let mut guest = guest();
    let mut view = view(&mut guest);
    let bucket = view.open("default".to_owned()).await.unwrap().unwrap();
    let same = || Resource::<Open>::new_borrow(bucket.rep());
    let entries = vec![("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())];
    draft2::batch::Host::set_many(&mut view, same(), entries).await.unwrap().unwrap();
    let keys = || ["b", "x", "a"].map(str::to_owned).to_vec();
    let pairs = draft2::batch::Host::get_many(&mut view, same(), keys()).await.unwrap().unwrap();
    let pair = |key: &str, value: &[u8]| (key.to_owned(), value.to_vec());
    assert_eq!(
        pairs,
        [
            ("b".to_owned(), Some(b"2".to_vec())),
            ("x".to_owned(), None),
            ("a".to_owned(), Some(b"1".to_vec()))
        ]
    );
    let expected = [Some(pair("b", b"2")), None, Some(pair("a", b"1"))];
    let pairs = draft2::standard::batch::Host::get_many(&mut view, same(), keys()).await;
    assert_eq!(pairs.unwrap().unwrap(), expected);
    let pairs = draft::batch::Host::get_many(&mut view, same(), keys()).await;
    assert_eq!(pairs.unwrap().unwrap(), expected);
}

#[tokio::test]
async fn the_draft_before_counts_and_pages_by_numbers() {
    let mut guest = guest();
    let mut view = view(&mut guest);
    let bucket = draft::store::Host::open(&mut view, "default".to_owned()).await.unwrap().unwrap();
    let same = || Resource::<Open>::new_borrow(bucket.rep());
    for key in ["d", "c", "b", "a"] {
        let set = draft::store::HostBucket::set(&mut view, same(), key.to_owned(), vec![]);
        set.await.unwrap().unwrap();
    }
    let page = draft::store::HostBucket::list_keys(&mut view, same(), None).await;
    let page = page.unwrap().unwrap();
    assert_eq!((page.keys.join(""), page.cursor), ("dcb".to_owned(), Some(3)));
    let page = draft::store::HostBucket::list_keys(&mut view, same(), page.cursor).await;
    let page = page.unwrap().unwrap();
    assert_eq!((page.keys.join(""), page.cursor), ("a".to_owned(), None));
    let counted = draft::atomics::Host::increment(&mut view, same(), "n".to_owned(), 3).await;
    assert_eq!(counted.unwrap().unwrap(), 3);
    let counted = draft::atomics::Host::increment(&mut view, same(), "n".to_owned(), u64::MAX);
    assert!(counted.await.unwrap().is_err());
}

#[tokio::test]
async fn a_store_that_is_not_had_and_handles_without_end() {
    use draft2::store::Error;
    use spin2::key_value::{Error as SpinError, HostStore as _};
    let mut guest = guest();
    let mut view = view(&mut guest);
    let denied = store::Host::open(&mut view, "other".to_owned()).await.unwrap();
    assert!(matches!(denied, Err(Error::AccessDenied)), "{denied:?}");
    let none = store::Host::open(&mut view, "a/b".to_owned()).await.unwrap();
    assert!(matches!(none, Err(Error::NoSuchStore)), "{none:?}");
    let mut handles = Vec::new();
    let refused = loop {
        match spin2::key_value::HostStore::open(&mut view, "default".to_owned()).await.unwrap() {
            Ok(handle) => handles.push(handle),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, SpinError::StoreTableFull), "{refused:?}");
    assert_eq!(handles.len(), HANDLES_MAX);
    let refused = store::Host::open(&mut view, "default".to_owned()).await.unwrap();
    assert!(matches!(refused, Err(Error::Other(_))), "{refused:?}");
    spin2::key_value::HostStore::drop(&mut view, handles.pop().unwrap()).await.unwrap();
    assert!(store::Host::open(&mut view, "default".to_owned()).await.unwrap().is_ok());
    let all = view.get_keys(handles.pop().unwrap()).await.unwrap().unwrap();
    assert_eq!(all, [""; 0]);
}

#[tokio::test]
async fn all_keys_come_where_there_are_no_pages() {
    let kept = Kept::default();
    for n in 0..10 {
        kept.write(n.to_string(), Vec::new());
    }
    assert_eq!(all_keys(&kept, DEFAULT).await.unwrap().len(), 10);
    kept.entries.lock().unwrap().clear();
    let long = "k".repeat(1 << 20);
    for n in 0..5 {
        kept.write(format!("{n}{long}"), Vec::new());
    }
    assert!(matches!(all_keys(&kept, DEFAULT).await, Err(StoreError::Failed(_))));
}

/// Puts what it reads of a stream there.
struct Reads(Arc<Mutex<Vec<String>>>);

impl<D> StreamConsumer<D> for Reads {
    type Item = String;

    fn poll_consume(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        mut source: Source<'_, String>,
        _: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut read = Vec::with_capacity(2);
        source.read(store, &mut read)?;
        self.0.lock().unwrap().extend(read);
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// Asynchronous functions are called within a store that runs them.
#[tokio::test]
async fn spins_text_of_today_streams_its_keys() {
    use spin3::key_value::HostStoreWithStore as Text;
    let engine = hearth_engine::engine(EngineKind::Concurrent, Purpose::Run).unwrap();
    let mut store = crate::store(&engine, guest());
    store.set_epoch_deadline(1);
    let ran = store.run_concurrent(async |accessor| {
        let accessor = accessor.with_getter::<KeyValue>(view);
        let open = |name: &str| <KeyValue as Text<Guest>>::open(&accessor, name.to_owned());
        assert!(open("other").await?.is_err());
        let handle = open("default").await?.unwrap();
        let same = || Resource::<Open>::new_borrow(handle.rep());
        for key in ["a", "b", "c", "d", "e"] {
            let value = key.as_bytes().to_vec();
            <KeyValue as Text<Guest>>::set(&accessor, same(), key.to_owned(), value)
                .await?
                .unwrap();
        }
        let get = <KeyValue as Text<Guest>>::get(&accessor, same(), "c".to_owned());
        assert_eq!(get.await?.unwrap().unwrap(), b"c");
        let delete = <KeyValue as Text<Guest>>::delete(&accessor, same(), "c".to_owned());
        delete.await?.unwrap();
        let exists = <KeyValue as Text<Guest>>::exists(&accessor, same(), "c".to_owned());
        assert!(!exists.await?.unwrap());
        let (keys, _end) = <KeyValue as Text<Guest>>::get_keys(&accessor, same()).await?;
        let read = Arc::new(Mutex::new(Vec::new()));
        accessor.with(|mut access| {
            keys.pipe(&mut access, Reads(Arc::clone(&read)))?;
            wasmtime::error::Ok(())
        })?;
        while read.lock().unwrap().len() < 4 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*read.lock().unwrap(), ["a", "b", "d", "e"]);
        accessor.with(|mut access| access.get().close(handle))?;
        wasmtime::error::Ok(())
    });
    ran.await.unwrap().unwrap();
}
