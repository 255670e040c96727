//! `wasi:keyvalue@0.2.0-draft`, the draft before: it has no compare-and-swap, and the cursor of its
//! lists is a number, which here is that of the last entry. Its counters are the same eight bytes,
//! read without a sign.

use wasmtime::component::Resource;

use super::{After, Keys, Open, Stands, StoreError, View, too_many_handles};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../sdk/wit/wasi-keyvalue-draft",
        world: "wasi:keyvalue/imports",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": crate::keyvalue::Open },
        require_store_data_send: true,
    });
}

pub(crate) use bindings::wasi::keyvalue::{atomics, batch, store};
use store::{Error, KeyResponse};

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSuchStore => Self::NoSuchStore,
            StoreError::AccessDenied => Self::AccessDenied,
            StoreError::Failed(said) => Self::Other(said),
        }
    }
}

impl store::Host for View<'_> {
    async fn open(&mut self, name: String) -> wasmtime::Result<Result<Resource<Open>, Error>> {
        match self.stores.open(name).await {
            Ok(store) => Ok(self.hold(store)?.ok_or_else(|| Error::Other(too_many_handles()))),
            Err(error) => Ok(Err(error.into())),
        }
    }
}

impl store::HostBucket for View<'_> {
    async fn get(
        &mut self,
        bucket: Resource<Open>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let store = self.store(&bucket)?;
        Ok(self.stores.get(store, key).await.map_err(Error::from))
    }

    async fn set(
        &mut self,
        bucket: Resource<Open>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let store = self.store(&bucket)?;
        Ok(self.stores.set(store, vec![(key, value)]).await.map_err(Error::from))
    }

    async fn delete(
        &mut self,
        bucket: Resource<Open>,
        key: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        let store = self.store(&bucket)?;
        Ok(self.stores.delete(store, vec![key]).await.map_err(Error::from))
    }

    async fn exists(
        &mut self,
        bucket: Resource<Open>,
        key: String,
    ) -> wasmtime::Result<Result<bool, Error>> {
        let store = self.store(&bucket)?;
        let stands = self.stores.stands(store, key).await;
        Ok(stands.map(|stands| stands != Stands::Missing).map_err(Error::from))
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Open>,
        cursor: Option<u64>,
    ) -> wasmtime::Result<Result<KeyResponse, Error>> {
        let store = self.store(&bucket)?;
        let page = self.stores.keys(store, After::Number(cursor.unwrap_or(0))).await;
        Ok(page.map_err(Error::from).map(|Keys { keys, has_more }| {
            let cursor = keys.last().filter(|_| has_more).map(|(_, number)| *number);
            KeyResponse { keys: keys.into_iter().map(|(key, _)| key).collect(), cursor }
        }))
    }

    async fn drop(&mut self, bucket: Resource<Open>) -> wasmtime::Result<()> {
        self.close(bucket)
    }
}

impl atomics::Host for View<'_> {
    async fn increment(
        &mut self,
        bucket: Resource<Open>,
        key: String,
        delta: u64,
    ) -> wasmtime::Result<Result<u64, Error>> {
        let store = self.store(&bucket)?;
        let Ok(delta) = i64::try_from(delta) else {
            return Ok(Err(Error::Other(format!("a counter is raised by at most {}", i64::MAX))));
        };
        let number = self.stores.increment(store, key, delta).await;
        Ok(number.map(i64::cast_unsigned).map_err(Error::from))
    }
}

impl batch::Host for View<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Open>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<Option<(String, Vec<u8>)>>, Error>> {
        let store = self.store(&bucket)?;
        let values = self.stores.get_many(store, keys.clone()).await;
        Ok(values.map_err(Error::from).map(|values| {
            let pairs = keys.into_iter().zip(values);
            pairs.map(|(key, value)| value.map(|value| (key, value))).collect()
        }))
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Open>,
        entries: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let store = self.store(&bucket)?;
        Ok(self.stores.set(store, entries).await.map_err(Error::from))
    }

    async fn delete_many(
        &mut self,
        bucket: Resource<Open>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let store = self.store(&bucket)?;
        Ok(self.stores.delete(store, keys).await.map_err(Error::from))
    }
}
