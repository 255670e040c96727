//! `fermyon:spin/sqlite@2.0.0`, Spin's older text.

use wasmtime::component::Resource;

use super::{Open, View};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../sdk/wit/fermyon-spin/sqlite.wit",
        inline: "
            package hearth:spin-two;
            world imports { import fermyon:spin/sqlite@2.0.0; }
        ",
        world: "hearth:spin-two/imports",
        imports: { default: async | trappable },
        with: { "fermyon:spin/sqlite.connection": crate::sql::Open },
        require_store_data_send: true,
    });
}

pub(crate) use bindings::fermyon::spin::sqlite;
use sqlite::{Error, QueryResult, Value};

impl sqlite::Host for View<'_> {}

impl sqlite::HostConnection for View<'_> {
    async fn open(&mut self, name: String) -> wasmtime::Result<Result<Resource<Open>, Error>> {
        let opening = self.databases.open(name);
        match opening.await {
            Ok(connection) => Ok(Ok(self.hold(connection)?)),
            Err(error) => Ok(Err(error.into())),
        }
    }

    async fn execute(
        &mut self,
        handle: Resource<Open>,
        sql: String,
        parameters: Vec<Value>,
    ) -> wasmtime::Result<Result<QueryResult, Error>> {
        let parameters = parameters.into_iter().map(Into::into).collect();
        let running = self.connection(&handle)?.execute(sql, parameters);
        Ok(running.await.map(Into::into).map_err(Into::into))
    }

    async fn drop(&mut self, handle: Resource<Open>) -> wasmtime::Result<()> {
        self.close(handle)
    }
}
