//! `fermyon:spin/key-value@2.0.0`, Spin's older text.

use wasmtime::component::Resource;

use super::{Open, Stands, View, all_keys};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../sdk/wit/fermyon-spin/key-value.wit",
        inline: "
            package hearth:spin-two;
            world imports { import fermyon:spin/key-value@2.0.0; }
        ",
        world: "hearth:spin-two/imports",
        imports: { default: async | trappable },
        with: { "fermyon:spin/key-value.store": crate::keyvalue::Open },
        require_store_data_send: true,
    });
}

pub(crate) use bindings::fermyon::spin::key_value;
use key_value::Error;

impl key_value::Host for View<'_> {}

impl key_value::HostStore for View<'_> {
    async fn open(&mut self, name: String) -> wasmtime::Result<Result<Resource<Open>, Error>> {
        match self.stores.open(name).await {
            Ok(store) => Ok(self.hold(store)?.ok_or(Error::StoreTableFull)),
            Err(error) => Ok(Err(error.into())),
        }
    }

    async fn get(
        &mut self,
        handle: Resource<Open>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let store = self.store(&handle)?;
        Ok(self.stores.get(store, key).await.map_err(Error::from))
    }

    async fn set(
        &mut self,
        handle: Resource<Open>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let store = self.store(&handle)?;
        Ok(self.stores.set(store, vec![(key, value)]).await.map_err(Error::from))
    }

    async fn delete(
        &mut self,
        handle: Resource<Open>,
        key: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        let store = self.store(&handle)?;
        Ok(self.stores.delete(store, vec![key]).await.map_err(Error::from))
    }

    async fn exists(
        &mut self,
        handle: Resource<Open>,
        key: String,
    ) -> wasmtime::Result<Result<bool, Error>> {
        let store = self.store(&handle)?;
        let stands = self.stores.stands(store, key).await;
        Ok(stands.map(|stands| stands != Stands::Missing).map_err(Error::from))
    }

    async fn get_keys(
        &mut self,
        handle: Resource<Open>,
    ) -> wasmtime::Result<Result<Vec<String>, Error>> {
        let store = self.store(&handle)?;
        Ok(all_keys(&**self.stores, store).await.map_err(Error::from))
    }

    async fn drop(&mut self, handle: Resource<Open>) -> wasmtime::Result<()> {
        self.close(handle)
    }
}
