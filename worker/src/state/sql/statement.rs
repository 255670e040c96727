//! One statement of a guest's on one connection: what it brought, or whose fault it was that it did
//! not. Which connection that is, and in which transaction, is decided elsewhere.

use std::time::Instant;

use hearth_host::sql::{Rows, Value};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, ErrorCode, ffi};

use super::authorizer::Holder;
use super::guard::{self, Counts, Gone, Running, Said, Stopped, VALUE_MAX_BYTES};
use super::overtime::Overtime;
use super::schema;
use super::text::Start;
use crate::state::Fault;

/// Of one result, with what it takes to keep it.
pub const RESULT_MAX_BYTES: usize = 4 << 20;
pub const RESULT_MAX_ROWS: usize = 50_000;
/// What a row, and a value in it, take besides their bytes.
const ROW_BYTES: usize = 32;
const VALUE_BYTES: usize = 16;

#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    pub sql: String,
    pub parameters: Vec<Value>,
}

/// Of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub rows: usize,
    pub bytes: usize,
    pub beyond: Beyond,
}

/// What becomes of a result that would be larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    Refused,
    Cut,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { rows: RESULT_MAX_ROWS, bytes: RESULT_MAX_BYTES, beyond: Beyond::Refused }
    }
}

/// On what a statement is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Nothing can be changed there.
    Reader,
    /// Everybody's, in a transaction which is not the guest's.
    Writer,
    /// The guest's, where the lock that changing takes is not held.
    OwnReading,
    /// The guest's.
    Own,
}

#[derive(Debug, Clone)]
pub struct Terms {
    pub on: On,
    pub counts: Counts,
    pub bounds: Bounds,
    pub until: Instant,
    pub gone: Gone,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Ran {
    Done(Outcome),
    /// Nothing was done, since it changes something.
    WantsToWrite,
    /// Nothing was done, since it is about what a connection keeps.
    WantsItsOwn,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    pub rows: Rows,
    /// There were more, which were not to be refused.
    pub is_cut: bool,
    /// By this one.
    pub changes: u64,
    /// Of its connection, from now on.
    pub counts: Counts,
}

/// Runs a statement. Where it fails, what it had changed is undone, and where it was stopped or had no
/// room the whole transaction may be.
pub fn run(connection: &Connection, asked: &Asked, terms: &Terms) -> Result<Ran, Fault> {
    let start = Start::of(&asked.sql);
    match start {
        Start::Nothing => return Err(said("there is no statement")),
        Start::Refused(why) => return Err(refused(why)),
        _ => {}
    }
    hearth_jail::set_last_insert_rowid(connection, terms.counts.last_insert_rowid);
    let holder = match terms.on {
        On::Reader | On::Writer => Holder::Shared,
        On::OwnReading | On::Own => Holder::Guest,
    };
    let Terms { on, counts, bounds, until, ref gone } = *terms;
    let running = Running { holder, counts, until, gone: gone.clone(), changes: false };
    let _overtime = Overtime::watch(until);
    let step = || step(connection, asked, start, on, counts, bounds);
    let (ran, hooks) = guard::during(running, || match (start, on) {
        (Start::Alters, On::Writer | On::Own) => {
            schema::keep_sound(connection, step, |why| Failed::Bound(refused(why)))
        }
        _ => step(),
    });
    match ran {
        Ok(ran) => Ok(ran),
        Err(_) if hooks.wants_its_own && hooks.refused.is_none() => Ok(Ran::WantsItsOwn),
        Err(Failed::Bound(fault)) => Err(fault),
        Err(Failed::Sqlite(error)) => Err(explain(error, hooks)),
    }
}

pub enum Failed {
    Sqlite(Error),
    Bound(Fault),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Sqlite(error)
    }
}

fn step(
    connection: &Connection,
    asked: &Asked,
    start: Start,
    on: On,
    mut counts: Counts,
    bounds: Bounds,
) -> Result<Ran, Failed> {
    // Not from the connection's cache, where the platform's own statements are, which are allowed more.
    let mut statement = connection.prepare(&asked.sql)?;
    let only_reads = statement.readonly();
    if matches!(on, On::Reader | On::OwnReading) && !only_reads {
        return Ok(Ran::WantsToWrite);
    }
    if !only_reads {
        guard::changes();
    }
    bind(&mut statement, &asked.parameters)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let total = connection.total_changes();
    let mut found = Found { bounds, bytes: 0, is_cut: false, rows: Vec::new() };
    found.bytes += columns.iter().map(|name| VALUE_BYTES + name.len()).sum::<usize>();
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        if found.is_cut {
            // What changes something has to come to its end.
            if only_reads { break } else { continue }
        }
        found.take(columns.len(), |at| row.get_ref(at), &columns)?;
    }
    drop(rows);
    counts.last_insert_rowid = connection.last_insert_rowid();
    counts.total_changes += connection.total_changes().saturating_sub(total);
    let changes = if start.counts(only_reads) { connection.changes() } else { 0 };
    if start.counts(only_reads) {
        counts.changes = changes;
    }
    let Found { is_cut, rows, .. } = found;
    Ok(Ran::Done(Outcome { rows: Rows { columns, rows }, is_cut, changes, counts }))
}

fn bind(statement: &mut rusqlite::Statement<'_>, parameters: &[Value]) -> Result<(), Failed> {
    let places = statement.parameter_count();
    if places != parameters.len() {
        let given = parameters.len();
        let why = format!("the statement has {places} parameters, and {given} were given");
        return Err(Failed::Bound(said(&why)));
    }
    for (place, value) in (1..).zip(parameters) {
        match value {
            Value::Null => statement.raw_bind_parameter(place, rusqlite::types::Null),
            Value::Integer(number) => statement.raw_bind_parameter(place, number),
            Value::Real(number) => statement.raw_bind_parameter(place, number),
            Value::Text(text) => statement.raw_bind_parameter(place, text),
            Value::Blob(bytes) => statement.raw_bind_parameter(place, bytes),
        }?;
    }
    Ok(())
}

/// Rows as they come, within their bounds.
struct Found {
    bounds: Bounds,
    bytes: usize,
    is_cut: bool,
    rows: Vec<Vec<Value>>,
}

impl Found {
    fn take<'a>(
        &mut self,
        columns: usize,
        value: impl Fn(usize) -> rusqlite::Result<ValueRef<'a>>,
        names: &[String],
    ) -> Result<(), Failed> {
        let mut bytes = self.bytes + ROW_BYTES + columns * VALUE_BYTES;
        for at in 0..columns {
            bytes += match value(at)? {
                ValueRef::Text(text) => text.len(),
                ValueRef::Blob(bytes) => bytes.len(),
                ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 0,
            };
        }
        let is_beyond = bytes > self.bounds.bytes || self.rows.len() >= self.bounds.rows;
        match self.bounds.beyond {
            Beyond::Cut if is_beyond => {
                self.is_cut = true;
                return Ok(());
            }
            Beyond::Refused if is_beyond => return Err(Failed::Bound(too_large())),
            _ => {}
        }
        let row = (0..columns).map(|at| owned(value(at)?, &names[at]));
        self.rows.push(row.collect::<Result<_, Failed>>()?);
        self.bytes = bytes;
        Ok(())
    }
}

fn owned(value: ValueRef<'_>, column: &str) -> Result<Value, Failed> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => {
                let why = format!(
                    "the column {column:?} has text that is not UTF-8: read it as a blob, with CAST"
                );
                return Err(Failed::Bound(said(&why)));
            }
        },
    })
}

fn too_large() -> Fault {
    said(&format!(
        "the result is larger than {RESULT_MAX_ROWS} rows or {} MiB: ask for less of it, with LIMIT",
        RESULT_MAX_BYTES >> 20
    ))
}

/// What is said to a function whose statement is refused as it is.
pub fn said(why: &str) -> Fault {
    Fault::Sql { code: ffi::SQLITE_ERROR, message: why.to_owned() }
}

/// And where it is not for a function to do.
pub fn refused(why: &str) -> Fault {
    Fault::Sql { code: ffi::SQLITE_AUTH, message: why.to_owned() }
}

/// Says why SQLite did not do it. Of the host nothing is said.
fn explain(error: Error, hooks: Said) -> Fault {
    if let Some(why) = hooks.refused {
        return refused(&why);
    }
    match hooks.stopped {
        Some(Stopped::Late) => return late(),
        Some(Stopped::Gone) => return Fault::Interrupted,
        Some(Stopped::Full) => return Fault::Full,
        None => {}
    }
    match (error.sqlite_error_code(), error) {
        (Some(ErrorCode::TooBig), _) => Fault::Sql {
            code: ffi::SQLITE_TOOBIG,
            message: format!(
                "a string, blob or row would have more than {} MiB, or the statement more than 1",
                VALUE_MAX_BYTES >> 20
            ),
        },
        (Some(ErrorCode::OutOfMemory), _) => Fault::Sql {
            code: ffi::SQLITE_NOMEM,
            message: "the statement needs more memory than there is for it".to_owned(),
        },
        (Some(ErrorCode::DatabaseBusy), _) => busy(),
        (Some(ErrorCode::AuthorizationForStatementDenied), _) => {
            refused("the statement does something that is not available")
        }
        // Without the statement, which whoever asks knows.
        (_, Error::SqlInputError { error, msg, .. }) => {
            Fault::Sql { code: error.extended_code, message: msg }
        }
        (_, Error::MultipleStatement) => {
            said("there is more than one statement: run them one by one, or as a batch")
        }
        (_, error) => Fault::from(error),
    }
}

pub fn late() -> Fault {
    Fault::Sql {
        code: ffi::SQLITE_INTERRUPT,
        message: "the statement was stopped: it ran for longer than it may".to_owned(),
    }
}

pub fn busy() -> Fault {
    Fault::Sql {
        code: ffi::SQLITE_BUSY,
        message: "the database was changed since the transaction began: roll it back and begin \
                  again, with BEGIN IMMEDIATE"
            .to_owned(),
    }
}

/// Whether this is what [`late`] says.
pub fn is_late(fault: &Fault) -> bool {
    matches!(fault, Fault::Sql { code: ffi::SQLITE_INTERRUPT, .. })
}
