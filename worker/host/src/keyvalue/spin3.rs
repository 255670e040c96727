//! `spin:key-value@3.0.0`, Spin's text of today, which is asynchronous. Keys come as a stream, asked
//! for a page at a time as it is read, and behind it how that ended. A page counts as memory of the
//! guest's as long as there is a list that could have one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec;

use tokio::sync::oneshot;
use wasmtime::StoreContextMut;
use wasmtime::component::{
    Accessor, Destination, FutureReader, Resource, StreamProducer, StreamReader, StreamResult,
    VecBuffer,
};

use super::{After, Answer, KeyValue, Keys, Open, PAGE_BYTES, Stands, Store, Stores, View};
use crate::memory::Kept;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../sdk/wit/spin-key-value/key-value.wit",
        inline: "
            package hearth:spin-three;
            world imports { import spin:key-value/key-value@3.0.0; }
        ",
        world: "hearth:spin-three/imports",
        imports: { default: async | trappable },
        with: { "spin:key-value/key-value.store": crate::keyvalue::Open },
        require_store_data_send: true,
    });
}

pub(crate) use bindings::spin::key_value::key_value;
use key_value::Error;

impl key_value::Host for View<'_> {}

impl key_value::HostStore for View<'_> {
    async fn drop(&mut self, handle: Resource<Open>) -> wasmtime::Result<()> {
        self.close(handle)
    }
}

/// What a guest asks of a store that it has open.
fn ask<T: Send, A>(
    accessor: &Accessor<T, KeyValue>,
    handle: &Resource<Open>,
    ask: impl FnOnce(&dyn Stores, Store) -> A,
) -> wasmtime::Result<A> {
    accessor.with(|mut access| {
        let view = access.get();
        let store = view.store(handle)?;
        Ok(ask(&**view.stores, store))
    })
}

impl<T: Send> key_value::HostStoreWithStore<T> for KeyValue {
    async fn open(
        accessor: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Resource<Open>, Error>> {
        let opening = accessor.with(|mut access| access.get().stores.open(name));
        match opening.await {
            Ok(store) => {
                let held = accessor.with(|mut access| access.get().hold(store))?;
                Ok(held.ok_or(Error::StoreTableFull))
            }
            Err(error) => Ok(Err(error.into())),
        }
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        handle: Resource<Open>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let answer = ask(accessor, &handle, |stores, store| stores.get(store, key))?;
        Ok(answer.await.map_err(Error::from))
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        handle: Resource<Open>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let answer = ask(accessor, &handle, |stores, store| stores.set(store, vec![(key, value)]))?;
        Ok(answer.await.map_err(Error::from))
    }

    async fn delete(
        accessor: &Accessor<T, Self>,
        handle: Resource<Open>,
        key: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        let answer = ask(accessor, &handle, |stores, store| stores.delete(store, vec![key]))?;
        Ok(answer.await.map_err(Error::from))
    }

    async fn exists(
        accessor: &Accessor<T, Self>,
        handle: Resource<Open>,
        key: String,
    ) -> wasmtime::Result<Result<bool, Error>> {
        let answer = ask(accessor, &handle, |stores, store| stores.stands(store, key))?;
        Ok(answer.await.map(|stands| stands != Stands::Missing).map_err(Error::from))
    }

    async fn get_keys(
        accessor: &Accessor<T, Self>,
        handle: Resource<Open>,
    ) -> wasmtime::Result<(StreamReader<String>, FutureReader<Result<(), Error>>)> {
        accessor.with(|mut access| {
            let view = access.get();
            let (store, stores) = (view.store(&handle)?, Arc::clone(view.stores));
            let kept = view.memory.keep(PAGE_BYTES)?;
            let (ended, end) = oneshot::channel();
            let pages = Pages {
                stores,
                store,
                next: Next::Ask(After::Start),
                page: Vec::new().into_iter(),
                ended: Some(ended),
                _kept: kept,
            };
            let keys = StreamReader::new(&mut access, pages)?;
            // One who reads no further hears that it was well until then.
            let end = async { wasmtime::error::Ok(end.await.unwrap_or(Ok(()))) };
            Ok((keys, FutureReader::new(&mut access, end)?))
        })
    }
}

/// The keys of a store, as they are read.
struct Pages {
    stores: Arc<dyn Stores>,
    store: Store,
    next: Next,
    /// What nobody has read yet.
    page: vec::IntoIter<String>,
    /// Told once.
    ended: Option<oneshot::Sender<Result<(), Error>>>,
    _kept: Kept,
}

enum Next {
    Ask(After),
    Wait(Answer<Keys>),
    Nothing,
}

impl Pages {
    fn end(&mut self, how: Result<(), Error>) -> StreamResult {
        self.next = Next::Nothing;
        if let Some(ended) = self.ended.take() {
            // Whoever does not wait for it does not hear it.
            let _ = ended.send(how);
        }
        StreamResult::Dropped
    }
}

impl<D> StreamProducer<D> for Pages {
    type Item = String;
    type Buffer = VecBuffer<String>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, String, VecBuffer<String>>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let pages = &mut *self;
        let wanted = destination.remaining(store).unwrap_or(usize::MAX);
        if wanted == 0 {
            // Whether there is more is seen by whoever reads it.
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        if pages.page.as_slice().is_empty() {
            if let Next::Ask(after) = &pages.next {
                pages.next = Next::Wait(pages.stores.keys(pages.store, after.clone()));
            }
            let Next::Wait(answer) = &mut pages.next else {
                return Poll::Ready(Ok(StreamResult::Dropped));
            };
            let page = match answer.as_mut().poll(cx) {
                Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
                page => ready!(page),
            };
            let Keys { keys, has_more } = match page {
                Ok(page) => page,
                Err(error) => return Poll::Ready(Ok(pages.end(Err(error.into())))),
            };
            pages.next = match keys.last() {
                Some((last, _)) if has_more => Next::Ask(After::Key(last.clone())),
                _ => Next::Nothing,
            };
            let keys: Vec<_> = keys.into_iter().map(|(key, _)| key).collect();
            pages.page = keys.into_iter();
        }
        let given: Vec<_> = pages.page.by_ref().take(wanted).collect();
        destination.set_buffer(given.into());
        let is_all = pages.page.as_slice().is_empty() && matches!(pages.next, Next::Nothing);
        Poll::Ready(Ok(if is_all { pages.end(Ok(())) } else { StreamResult::Completed }))
    }
}
