//! `wasi:keyvalue@0.2.0-draft2`, which is two texts: they differ in what `get-many` returns, and have
//! one name. Spin's is linked where it fits, and else the one of the standard's repository.

use wasmtime::component::Resource;

use super::{After, Cas, Current, Keys, Open, StoreError, View, too_many_handles};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../sdk/wit/wasi-keyvalue-draft2",
        world: "wasi:keyvalue/imports",
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store.bucket": crate::keyvalue::Open,
            "wasi:keyvalue/atomics.cas": crate::keyvalue::Cas,
        },
        require_store_data_send: true,
    });
}

/// The other text.
pub(crate) mod standard {
    use wasmtime::component::Resource;

    use super::{Error, Open, View};

    mod bindings {
        wasmtime::component::bindgen!({
            path: "../../sdk/wit/wasi-keyvalue-draft2-standard",
            world: "wasi:keyvalue/imports",
            imports: { default: async | trappable },
            with: {
                "wasi:keyvalue/store": crate::keyvalue::draft2::store,
                "wasi:keyvalue/atomics": crate::keyvalue::draft2::atomics,
            },
            require_store_data_send: true,
        });
    }

    pub(crate) use bindings::wasi::keyvalue::batch;

    impl batch::Host for View<'_> {
        async fn get_many(
            &mut self,
            bucket: Resource<Open>,
            keys: Vec<String>,
        ) -> wasmtime::Result<Result<Vec<Option<(String, Vec<u8>)>>, Error>> {
            let pairs = super::get_many(self, bucket, keys).await?;
            let pairs = pairs.map(|pairs| {
                pairs.into_iter().map(|(key, value)| value.map(|value| (key, value))).collect()
            });
            Ok(pairs)
        }

        async fn set_many(
            &mut self,
            bucket: Resource<Open>,
            entries: Vec<(String, Vec<u8>)>,
        ) -> wasmtime::Result<Result<(), Error>> {
            super::set_many(self, bucket, entries).await
        }

        async fn delete_many(
            &mut self,
            bucket: Resource<Open>,
            keys: Vec<String>,
        ) -> wasmtime::Result<Result<(), Error>> {
            super::delete_many(self, bucket, keys).await
        }
    }
}

use atomics::CasError;
pub use bindings::wasi::keyvalue::{atomics, batch, store};
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
        set_many(self, bucket, vec![(key, value)]).await
    }

    async fn delete(
        &mut self,
        bucket: Resource<Open>,
        key: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        delete_many(self, bucket, vec![key]).await
    }

    async fn exists(
        &mut self,
        bucket: Resource<Open>,
        key: String,
    ) -> wasmtime::Result<Result<bool, Error>> {
        let store = self.store(&bucket)?;
        let stands = self.stores.stands(store, key).await;
        Ok(stands.map(|stands| stands != super::Stands::Missing).map_err(Error::from))
    }

    /// The cursor is the last key.
    async fn list_keys(
        &mut self,
        bucket: Resource<Open>,
        cursor: Option<String>,
    ) -> wasmtime::Result<Result<KeyResponse, Error>> {
        let store = self.store(&bucket)?;
        let after = cursor.map_or(After::Start, After::Key);
        let page = self.stores.keys(store, after).await;
        Ok(page.map_err(Error::from).map(|Keys { keys, has_more }| {
            let keys: Vec<_> = keys.into_iter().map(|(key, _)| key).collect();
            let cursor = keys.last().filter(|_| has_more).cloned();
            KeyResponse { keys, cursor }
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
        delta: i64,
    ) -> wasmtime::Result<Result<i64, Error>> {
        let store = self.store(&bucket)?;
        Ok(self.stores.increment(store, key, delta).await.map_err(Error::from))
    }

    async fn swap(
        &mut self,
        cas: Resource<Cas>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), CasError>> {
        let Cas { store, key, version } = self.table.delete(cas)?;
        match self.stores.swap(store, key.clone(), version, value).await {
            Ok(Ok(())) => Ok(Ok(())),
            Ok(Err(Current { version, .. })) => {
                let cas = self.table.push(Cas { store, key, version })?;
                Ok(Err(CasError::CasFailed(cas)))
            }
            Err(error) => Ok(Err(CasError::StoreError(error.into()))),
        }
    }
}

impl atomics::HostCas for View<'_> {
    async fn new(
        &mut self,
        bucket: Resource<Open>,
        key: String,
    ) -> wasmtime::Result<Result<Resource<Cas>, Error>> {
        let store = self.store(&bucket)?;
        match self.stores.current(store, key.clone()).await {
            Ok(Current { version, .. }) => Ok(Ok(self.table.push(Cas { store, key, version })?)),
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// From here on it is this value that a swap takes the place of.
    async fn current(
        &mut self,
        cas: Resource<Cas>,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let Cas { store, key, .. } = self.table.get(&cas)?;
        match self.stores.current(*store, key.clone()).await {
            Ok(Current { version, value }) => {
                self.table.get_mut(&cas)?.version = version;
                Ok(Ok(value))
            }
            Err(error) => Ok(Err(error.into())),
        }
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl batch::Host for View<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Open>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<(String, Option<Vec<u8>>)>, Error>> {
        get_many(self, bucket, keys).await
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Open>,
        entries: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), Error>> {
        set_many(self, bucket, entries).await
    }

    async fn delete_many(
        &mut self,
        bucket: Resource<Open>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<(), Error>> {
        delete_many(self, bucket, keys).await
    }
}

async fn get_many(
    view: &mut View<'_>,
    bucket: Resource<Open>,
    keys: Vec<String>,
) -> wasmtime::Result<Result<Vec<(String, Option<Vec<u8>>)>, Error>> {
    let store = view.store(&bucket)?;
    let values = view.stores.get_many(store, keys.clone()).await;
    Ok(values.map(|values| keys.into_iter().zip(values).collect()).map_err(Error::from))
}

async fn set_many(
    view: &mut View<'_>,
    bucket: Resource<Open>,
    entries: Vec<(String, Vec<u8>)>,
) -> wasmtime::Result<Result<(), Error>> {
    let store = view.store(&bucket)?;
    Ok(view.stores.set(store, entries).await.map_err(Error::from))
}

async fn delete_many(
    view: &mut View<'_>,
    bucket: Resource<Open>,
    keys: Vec<String>,
) -> wasmtime::Result<Result<(), Error>> {
    let store = view.store(&bucket)?;
    Ok(view.stores.delete(store, keys).await.map_err(Error::from))
}
