//! `hearth:platform/sql`: many statements that count together or not at all.

use super::{BatchError, Done, View};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../sdk/wit/platform/sql.wit",
        inline: "
            package hearth:batches;
            world imports { import hearth:platform/sql@0.1.0; }
        ",
        world: "hearth:batches/imports",
        imports: { default: async | trappable },
        require_store_data_send: true,
    });
}

pub(crate) use bindings::hearth::platform::sql;
use sql::{Error, Mismatch, Outcome, Refusal, Statement};

impl sql::Host for View<'_> {
    async fn batch(
        &mut self,
        name: String,
        batch: Vec<Statement>,
    ) -> wasmtime::Result<Result<Vec<Outcome>, Error>> {
        let batch = batch.into_iter().map(Into::into).collect();
        let running = self.databases.batch(name, batch);
        let done = running.await.map_err(Into::into);
        Ok(done.map(|done| done.into_iter().map(Into::into).collect()))
    }
}

impl From<Statement> for super::Statement {
    fn from(Statement { sql, parameters, rows }: Statement) -> Self {
        Self { sql, parameters: parameters.into_iter().map(Into::into).collect(), rows }
    }
}

impl From<Done> for Outcome {
    fn from(Done { rows, changes, last_insert_rowid }: Done) -> Self {
        let row = |row: Vec<super::Value>| row.into_iter().map(Into::into).collect();
        let (columns, rows) = (rows.columns, rows.rows.into_iter().map(row).collect());
        Self { changes, last_insert_rowid, columns, rows }
    }
}

impl From<BatchError> for Error {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::NoSuchDatabase => Self::NoSuchDatabase,
            BatchError::AccessDenied => Self::AccessDenied,
            BatchError::Full => Self::DatabaseFull,
            BatchError::Refused { place, reason } => Self::Refused(Refusal { place, reason }),
            BatchError::Rows { place, expected, changed } => {
                Self::Rows(Mismatch { place, expected, changed })
            }
            BatchError::Failed(said) => Self::Other(said),
        }
    }
}
