//! `hearth:platform/keyvalue`: entries that expire, in the buckets of `wasi:keyvalue@0.2.0-draft2`.

use wasmtime::component::Resource;

use super::draft2::store::Error;
use super::{Open, Stands, View};

mod bindings {
    wasmtime::component::bindgen!({
        path: ["../../sdk/wit/wasi-keyvalue-draft2", "../../sdk/wit/platform/keyvalue.wit"],
        inline: "
            package hearth:expiring;
            world imports { import hearth:platform/keyvalue@0.1.0; }
        ",
        world: "hearth:expiring/imports",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store": crate::keyvalue::draft2::store },
        require_store_data_send: true,
    });
}

pub(crate) use bindings::hearth::platform::keyvalue;
use keyvalue::Expiry;

impl keyvalue::Host for View<'_> {
    async fn set_expiring(
        &mut self,
        bucket: Resource<Open>,
        key: String,
        value: Vec<u8>,
        milliseconds: u64,
    ) -> wasmtime::Result<Result<(), Error>> {
        let store = self.store(&bucket)?;
        Ok(self.stores.set_for(store, key, value, milliseconds).await.map_err(Error::from))
    }

    async fn expire(
        &mut self,
        bucket: Resource<Open>,
        key: String,
        milliseconds: Option<u64>,
    ) -> wasmtime::Result<Result<bool, Error>> {
        let store = self.store(&bucket)?;
        Ok(self.stores.expire(store, key, milliseconds).await.map_err(Error::from))
    }

    async fn expires_in(
        &mut self,
        bucket: Resource<Open>,
        key: String,
    ) -> wasmtime::Result<Result<Expiry, Error>> {
        let store = self.store(&bucket)?;
        let stands = self.stores.stands(store, key).await;
        Ok(stands.map_err(Error::from).map(|stands| match stands {
            Stands::Missing => Expiry::Missing,
            Stands::Stays => Expiry::Stays,
            Stands::For(milliseconds) => Expiry::Expires(milliseconds),
        }))
    }
}
