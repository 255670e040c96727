//! SQL: `fermyon:spin/sqlite`, `spin:sqlite` and `hearth:platform/sql`, each a text over the same
//! databases of the tenant's, which somebody else keeps. A file for each text translates it.
//!
//! Which databases a function may use, what a statement may do and what it is bounded by is that one's
//! to say; here are the handles that a guest holds, and what stands there where everything is denied.

pub(crate) mod platform;
pub(crate) mod spin2;
pub(crate) mod spin3;

use std::pin::Pin;
use std::sync::Arc;

use wasmtime::component::{HasData, Resource, ResourceTable};

use crate::Guest;
use crate::memory::MemoryLimit;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

/// What a statement brought. Each row has a value for every column.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

impl Rows {
    /// What the rows take of memory.
    fn bytes(&self) -> usize {
        let value = |value: &Value| {
            size_of::<Value>()
                + match value {
                    Value::Text(text) => text.len(),
                    Value::Blob(bytes) => bytes.len(),
                    Value::Null | Value::Integer(_) | Value::Real(_) => 0,
                }
        };
        let row = |row: &Vec<Value>| size_of::<Vec<Value>>() + row.iter().map(value).sum::<usize>();
        self.rows.iter().map(row).sum()
    }
}

/// One statement of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub sql: String,
    pub parameters: Vec<Value>,
    /// How many rows it must change, if that matters.
    pub rows: Option<u64>,
}

/// What one statement of a batch did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Done {
    pub rows: Rows,
    pub changes: u64,
    pub last_insert_rowid: i64,
}

/// Why a database was not opened, or a statement not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// By this name there can be none.
    #[error("there is no such database")]
    NoSuchDatabase,
    #[error("the function may not use this database")]
    AccessDenied,
    #[error("the room for the tenant's state is used up")]
    Full,
    #[error("{0}")]
    Failed(String),
}

/// Why nothing of a batch was done. A statement's place counts from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// By this name there can be none.
    #[error("there is no such database")]
    NoSuchDatabase,
    #[error("the function may not use this database")]
    AccessDenied,
    #[error("the room for the tenant's state is used up")]
    Full,
    #[error("statement {place} of the batch: {reason}")]
    Refused { place: u32, reason: String },
    #[error("statement {place} of the batch changed {changed} rows and had to change {expected}")]
    Rows { place: u32, expected: u64, changed: u64 },
    #[error("{0}")]
    Failed(String),
}

pub type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Who keeps the databases that a function may use.
pub trait Databases: Send + Sync {
    /// A connection of its own to the database of that name.
    fn open(&self, name: String) -> Answer<Result<Arc<dyn Connection>, SqlError>>;
    fn batch(&self, name: String, batch: Vec<Statement>) -> Answer<Result<Vec<Done>, BatchError>>;
}

/// What SQLite keeps for a connection, a transaction above all, is kept for this one, until its last
/// handle is gone. Statements that are asked for at once run one after another.
pub trait Connection: Send + Sync {
    /// Stops where the answer is not waited for.
    fn execute(&self, sql: String, parameters: Vec<Value>) -> Answer<Result<Rows, SqlError>>;
    fn last_insert_rowid(&self) -> i64;
    /// By the last statement that could change rows.
    fn changes(&self) -> u64;
}

/// A guest's handle, for whichever text.
pub struct Open {
    connection: Arc<dyn Connection>,
}

/// Has no database.
pub(crate) struct Denied;

impl Databases for Denied {
    fn open(&self, _: String) -> Answer<Result<Arc<dyn Connection>, SqlError>> {
        Box::pin(std::future::ready(Err(SqlError::AccessDenied)))
    }

    fn batch(&self, _: String, _: Vec<Statement>) -> Answer<Result<Vec<Done>, BatchError>> {
        Box::pin(std::future::ready(Err(BatchError::AccessDenied)))
    }
}

/// What the bindings are linked with.
pub(crate) struct Sql;

impl HasData for Sql {
    type Data<'a> = View<'a>;
}

pub(crate) struct View<'a> {
    table: &'a mut ResourceTable,
    databases: &'a dyn Databases,
    memory: &'a mut MemoryLimit,
}

pub(crate) fn view(guest: &mut Guest) -> View<'_> {
    View { table: &mut guest.table, databases: &*guest.sql, memory: &mut guest.memory }
}

impl View<'_> {
    fn hold(&mut self, connection: Arc<dyn Connection>) -> wasmtime::Result<Resource<Open>> {
        Ok(self.table.push(Open { connection })?)
    }

    fn connection(&self, handle: &Resource<Open>) -> wasmtime::Result<Arc<dyn Connection>> {
        Ok(Arc::clone(&self.table.get(handle)?.connection))
    }

    fn close(&mut self, handle: Resource<Open>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

/// A value is the same in every text.
macro_rules! values {
    ($($text:path),+) => {$(
        const _: () = {
            use $text as text;

            impl From<text::Value> for Value {
                fn from(value: text::Value) -> Self {
                    match value {
                        text::Value::Null => Self::Null,
                        text::Value::Integer(number) => Self::Integer(number),
                        text::Value::Real(number) => Self::Real(number),
                        text::Value::Text(text) => Self::Text(text),
                        text::Value::Blob(bytes) => Self::Blob(bytes),
                    }
                }
            }

            impl From<Value> for text::Value {
                fn from(value: Value) -> Self {
                    match value {
                        Value::Null => Self::Null,
                        Value::Integer(number) => Self::Integer(number),
                        Value::Real(number) => Self::Real(number),
                        Value::Text(text) => Self::Text(text),
                        Value::Blob(bytes) => Self::Blob(bytes),
                    }
                }
            }
        };
    )+};
}

/// So are a result and an error in both of Spin's.
macro_rules! results {
    ($($text:path),+) => {$(
        const _: () = {
            use $text as text;

            impl From<Rows> for text::QueryResult {
                fn from(Rows { columns, rows }: Rows) -> Self {
                    let row = |row: Vec<Value>| text::RowResult {
                        values: row.into_iter().map(Into::into).collect(),
                    };
                    Self { columns, rows: rows.into_iter().map(row).collect() }
                }
            }

            impl From<SqlError> for text::Error {
                fn from(error: SqlError) -> Self {
                    match error {
                        SqlError::NoSuchDatabase => Self::NoSuchDatabase,
                        SqlError::AccessDenied => Self::AccessDenied,
                        SqlError::Full => Self::DatabaseFull,
                        SqlError::Failed(said) => Self::Io(said),
                    }
                }
            }
        };
    )+};
}

values!(spin2::sqlite, spin3::sqlite, platform::sql);
results!(spin2::sqlite, spin3::sqlite);
