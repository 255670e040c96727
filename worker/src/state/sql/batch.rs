//! Many statements within one transaction of somebody else's, who takes all of it back where this
//! fails.

use hearth_host::sql::{BatchError, Done, Statement};
use rusqlite::Connection;

use super::guard::Counts;
use super::statement::{Asked, Bounds, On, RESULT_MAX_BYTES, Ran, Terms, run};
use crate::state::Fault;

pub const STATEMENTS_MAX: usize = 1_000;

/// One that is ready to be run, more than once if need be.
pub struct Batch {
    statements: Vec<(Asked, Option<u64>)>,
}

/// Why it is not done, and what its transaction is told of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub error: BatchError,
    pub fault: Fault,
}

impl Batch {
    pub fn new(statements: Vec<Statement>) -> Result<Self, BatchError> {
        if statements.len() > STATEMENTS_MAX {
            let given = statements.len();
            return Err(BatchError::Failed(format!(
                "a batch has at most {STATEMENTS_MAX} statements, and this one has {given}"
            )));
        }
        let asked = |Statement { sql, parameters, rows }| (Asked { sql, parameters }, rows);
        Ok(Self { statements: statements.into_iter().map(asked).collect() })
    }

    /// All of them in order. Their results are bounded together.
    pub fn run(&self, connection: &Connection, mut terms: Terms) -> Result<Vec<Done>, Refused> {
        terms.on = On::Writer;
        terms.counts = Counts::default();
        let mut left = RESULT_MAX_BYTES;
        let mut all = Vec::with_capacity(self.statements.len());
        for (place, (asked, rows)) in (0..).zip(&self.statements) {
            terms.bounds = Bounds { bytes: left, ..Bounds::default() };
            let outcome = match run(connection, asked, &terms) {
                Ok(Ran::Done(outcome)) => outcome,
                Ok(Ran::WantsItsOwn | Ran::WantsToWrite) => {
                    return Err(Refused::at(place, not_in_a_batch()));
                }
                Err(fault) => return Err(Refused::at(place, fault)),
            };
            if let Some(expected) = *rows
                && outcome.changes != expected
            {
                let error = BatchError::Rows { place, expected, changed: outcome.changes };
                let fault = super::statement::said(&error.to_string());
                return Err(Refused { error, fault });
            }
            left = left.saturating_sub(bytes_of(&outcome.rows));
            terms.counts = outcome.counts;
            all.push(Done {
                rows: outcome.rows,
                changes: outcome.changes,
                last_insert_rowid: outcome.counts.last_insert_rowid,
            });
        }
        Ok(all)
    }
}

fn not_in_a_batch() -> Fault {
    super::statement::refused(
        "a batch is a transaction itself: in it there are no BEGIN, COMMIT, savepoint or temporary \
         table",
    )
}

fn bytes_of(rows: &hearth_host::sql::Rows) -> usize {
    use hearth_host::sql::Value;
    let value = |value: &Value| match value {
        Value::Text(text) => 16 + text.len(),
        Value::Blob(bytes) => 16 + bytes.len(),
        Value::Null | Value::Integer(_) | Value::Real(_) => 16,
    };
    rows.rows.iter().map(|row| 32 + row.iter().map(value).sum::<usize>()).sum()
}

impl Refused {
    fn at(place: u32, fault: Fault) -> Self {
        let error = match &fault {
            Fault::Full => BatchError::Full,
            Fault::Sql { .. } | Fault::TooLarge { .. } => {
                BatchError::Refused { place, reason: fault.to_string() }
            }
            _ => BatchError::Failed(fault.to_string()),
        };
        Self { error, fault }
    }
}
