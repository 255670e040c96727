//! SQL on the tenant's databases, which are SQLite's.
//!
//! ```no_run
//! use hearth_sdk::{Error, sql};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! struct User { id: i64, name: String, email: Option<String> }
//!
//! fn users(name: &str) -> Result<Vec<User>, Error> {
//!     let database = sql::Database::open("default")?;
//!     database.execute("insert into visits (name) values (?)", &sql::params![name])?;
//!     let rows = database.query("select * from users where name = ?", &sql::params![name])?;
//!     Ok(rows.read()?)
//! }
//! ```
//!
//! A database is there once it is opened; the option `databases` of a function names those that it
//! may open. [`Database::execute`] and [`Database::batch`] are durable when they return, and a batch
//! counts as a whole or not at all. Between `begin` and `commit` by [`Database::query`] there are 5
//! seconds, and with the call it is rolled back.
//!
//! This is `fermyon:spin/sqlite@2.0.0` for queries, and `hearth:platform/sql` for the rest.

mod row;
mod value;

#[expect(
    unsafe_code,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    reason = "generated from `wit/imports`"
)]
mod bindings;

use std::fmt;

use self::bindings::fermyon::spin::sqlite;
use self::bindings::hearth::platform::sql as platform;
pub use self::row::{ReadError, Row, Rows};
pub use self::value::Value;
#[doc(inline)]
pub use crate::__sql_params as params;

/// Values for the `?` of a statement, in their order: whatever [`Value`] is made from.
///
/// ```
/// use hearth_sdk::sql::{Value, params};
///
/// let name = String::from("Ada");
/// let values = params![7, name, None::<f64>, [0_u8, 255].as_slice()];
/// assert_eq!(values[1], Value::Text("Ada".to_owned()));
/// assert_eq!(values[2], Value::Null);
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __sql_params {
    ($($value:expr),* $(,)?) => {
        [$($crate::sql::Value::from($value)),*]
    };
}

/// Why a database did not do it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Error {
    NoSuchDatabase,
    /// The function's option `databases` does not name it.
    AccessDenied,
    /// The room for the tenant's state is used up. Reading goes on.
    Full,
    /// A statement could not be run: which of a batch, the first being 0, and why.
    Refused {
        place: u32,
        reason: String,
    },
    /// A statement of a batch changed another number of rows than it had to.
    Rows {
        place: u32,
        expected: u64,
        changed: u64,
    },
    /// A bound was reached, or the host failed: it says which.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchDatabase => f.write_str("there is no such database"),
            Self::AccessDenied => f.write_str("the function may not open this database"),
            Self::Full => f.write_str("the room for the tenant's state is used up"),
            Self::Refused { place, reason } => write!(f, "statement {place}: {reason}"),
            Self::Rows { place, expected, changed } => {
                write!(f, "statement {place} changed {changed} rows and had to change {expected}")
            }
            Self::Other(said) => f.write_str(said),
        }
    }
}

impl std::error::Error for Error {}

impl From<sqlite::Error> for Error {
    fn from(error: sqlite::Error) -> Self {
        match error {
            sqlite::Error::NoSuchDatabase => Self::NoSuchDatabase,
            sqlite::Error::AccessDenied => Self::AccessDenied,
            sqlite::Error::DatabaseFull => Self::Full,
            sqlite::Error::InvalidConnection => Self::Other("the connection is closed".to_owned()),
            sqlite::Error::Io(said) => Self::Other(said),
        }
    }
}

impl From<platform::Error> for Error {
    fn from(error: platform::Error) -> Self {
        match error {
            platform::Error::NoSuchDatabase => Self::NoSuchDatabase,
            platform::Error::AccessDenied => Self::AccessDenied,
            platform::Error::DatabaseFull => Self::Full,
            platform::Error::Refused(platform::Refusal { place, reason }) => {
                Self::Refused { place, reason }
            }
            platform::Error::Rows(platform::Mismatch { place, expected, changed }) => {
                Self::Rows { place, expected, changed }
            }
            platform::Error::Other(said) => Self::Other(said),
        }
    }
}

/// One statement of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    sql: String,
    parameters: Vec<Value>,
    rows: Option<u64>,
}

impl Statement {
    pub fn new(sql: impl Into<String>, parameters: &[Value]) -> Self {
        Self { sql: sql.into(), parameters: parameters.to_vec(), rows: None }
    }

    /// How many rows it must insert, change or delete: else the whole batch is refused.
    pub fn changing(mut self, rows: u64) -> Self {
        self.rows = Some(rows);
        self
    }
}

/// What one statement did.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The rows that it inserted, changed or deleted.
    pub changes: u64,
    /// Of the last row that was inserted by then, or 0.
    pub last_insert_rowid: i64,
    /// What `RETURNING` or a query brought.
    pub rows: Rows,
}

/// A database that is open.
pub struct Database {
    name: String,
    connection: sqlite::Connection,
}

impl Database {
    /// The database of this name, which is made if it is not there: 1 to 64 characters of
    /// `[A-Za-z0-9_.-]`. `default` is as good as any other.
    pub fn open(name: &str) -> Result<Self, Error> {
        Ok(Self { name: name.to_owned(), connection: sqlite::Connection::open(name)? })
    }

    /// Runs a statement for its rows.
    pub fn query(&self, sql: &str, parameters: &[Value]) -> Result<Rows, Error> {
        let parameters: Vec<_> = parameters.iter().cloned().map(Into::into).collect();
        let sqlite::QueryResult { columns, rows } = self.connection.execute(sql, &parameters)?;
        let values = |row: sqlite::RowResult| row.values.into_iter().map(Into::into).collect();
        Ok(Rows::new(columns, rows.into_iter().map(values).collect()))
    }

    /// Runs a statement for what it changes, in a transaction of its own.
    pub fn execute(&self, sql: &str, parameters: &[Value]) -> Result<Outcome, Error> {
        let mut done = self.batch(&[Statement::new(sql, parameters)])?;
        done.pop().ok_or_else(|| Error::Other("the host did not say what was done".to_owned()))
    }

    /// Runs up to 1,000 statements in order as one transaction. Where one is refused nothing of it
    /// was done.
    pub fn batch(&self, statements: &[Statement]) -> Result<Vec<Outcome>, Error> {
        let statement = |statement: &Statement| platform::Statement {
            sql: statement.sql.clone(),
            parameters: statement.parameters.iter().cloned().map(Into::into).collect(),
            rows: statement.rows,
        };
        let statements: Vec<_> = statements.iter().map(statement).collect();
        let done = platform::batch(&self.name, &statements)?;
        Ok(done.into_iter().map(Outcome::from).collect())
    }
}

impl From<platform::Outcome> for Outcome {
    fn from(outcome: platform::Outcome) -> Self {
        let platform::Outcome { changes, last_insert_rowid, columns, rows } = outcome;
        let values = |row: Vec<platform::Value>| row.into_iter().map(Into::into).collect();
        let rows = Rows::new(columns, rows.into_iter().map(values).collect());
        Self { changes, last_insert_rowid, rows }
    }
}
