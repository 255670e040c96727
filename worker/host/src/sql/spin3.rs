//! `spin:sqlite@3.1.0`, Spin's text of today, which serves what was made for 3.0.0. Rows of an
//! asynchronous statement are all there before the first one is read, since a result is bounded; what
//! is not read yet counts as memory of the guest's.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use wasmtime::StoreContextMut;
use wasmtime::component::{
    Accessor, Destination, FutureReader, Resource, StreamProducer, StreamReader, StreamResult,
    VecBuffer,
};

use super::{Open, Sql, View};
use crate::memory::Kept;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../sdk/wit/spin-sqlite/sqlite.wit",
        inline: "
            package hearth:spin-three;
            world imports { import spin:sqlite/sqlite@3.1.0; }
        ",
        world: "hearth:spin-three/imports",
        imports: { default: async | trappable },
        with: { "spin:sqlite/sqlite.connection": crate::sql::Open },
        require_store_data_send: true,
    });
}

pub(crate) use bindings::spin::sqlite::sqlite;
use sqlite::{Error, QueryResult, RowResult, Value};

/// Columns, rows, and how it ended.
type Streamed = (Vec<String>, StreamReader<RowResult>, FutureReader<Result<(), Error>>);

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

    async fn last_insert_rowid(&mut self, handle: Resource<Open>) -> wasmtime::Result<i64> {
        Ok(self.connection(&handle)?.last_insert_rowid())
    }

    async fn changes(&mut self, handle: Resource<Open>) -> wasmtime::Result<u64> {
        Ok(self.connection(&handle)?.changes())
    }

    async fn drop(&mut self, handle: Resource<Open>) -> wasmtime::Result<()> {
        self.close(handle)
    }
}

impl<T: Send> sqlite::HostConnectionWithStore<T> for Sql {
    async fn open_async(
        accessor: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Resource<Open>, Error>> {
        let opening = accessor.with(|mut store| store.get().databases.open(name));
        match opening.await {
            Ok(connection) => accessor.with(|mut store| Ok(Ok(store.get().hold(connection)?))),
            Err(error) => Ok(Err(error.into())),
        }
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        handle: Resource<Open>,
        sql: String,
        parameters: Vec<Value>,
    ) -> wasmtime::Result<Result<Streamed, Error>> {
        let parameters = parameters.into_iter().map(Into::into).collect();
        let connection = accessor.with(|mut store| store.get().connection(&handle))?;
        let rows = match connection.execute(sql, parameters).await {
            Ok(rows) => rows,
            Err(error) => return Ok(Err(error.into())),
        };
        accessor.with(|mut store| {
            let kept = store.get().memory.keep(rows.bytes())?;
            let QueryResult { columns, rows } = rows.into();
            let unread = Unread { rows: rows.into_iter(), _kept: kept };
            let stream = StreamReader::new(&mut store, unread)?;
            let end = FutureReader::new(&mut store, async { Ok::<_, wasmtime::Error>(Ok(())) })?;
            Ok(Ok((columns, stream, end)))
        })
    }

    async fn last_insert_rowid_async(
        accessor: &Accessor<T, Self>,
        handle: Resource<Open>,
    ) -> wasmtime::Result<i64> {
        accessor.with(|mut store| Ok(store.get().connection(&handle)?.last_insert_rowid()))
    }

    async fn changes_async(
        accessor: &Accessor<T, Self>,
        handle: Resource<Open>,
    ) -> wasmtime::Result<u64> {
        accessor.with(|mut store| Ok(store.get().connection(&handle)?.changes()))
    }
}

/// The rows of a result, which are given away as they are asked for: what the engine takes over for a
/// guest is counted no more.
struct Unread {
    rows: vec::IntoIter<RowResult>,
    _kept: Kept,
}

impl<D> StreamProducer<D> for Unread {
    type Item = RowResult;
    type Buffer = VecBuffer<RowResult>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, RowResult, VecBuffer<RowResult>>,
        _: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let wanted = destination.remaining(store).unwrap_or(usize::MAX);
        let rows: Vec<_> = self.rows.by_ref().take(wanted).collect();
        destination.set_buffer(rows.into());
        let is_all = self.rows.as_slice().is_empty();
        Poll::Ready(Ok(if is_all { StreamResult::Dropped } else { StreamResult::Completed }))
    }
}
