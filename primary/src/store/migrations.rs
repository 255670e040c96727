//! Brings a store's schema up to date. `PRAGMA user_version` counts the files of `migrations/`
//! that were applied; each is applied whole, in one transaction, and never changed afterwards.

use rusqlite::{Connection, Transaction};

use super::{Result, StoreError, change};

const STEPS: [&str; 5] = [
    include_str!("migrations/0001_start.sql"),
    include_str!("migrations/0002_options_and_limits.sql"),
    include_str!("migrations/0003_users.sql"),
    include_str!("migrations/0004_resting.sql"),
    include_str!("migrations/0005_audit.sql"),
];

pub(super) fn apply(connection: &mut Connection) -> Result<()> {
    let found = check(connection)?;
    for (step, sql) in (1..).zip(STEPS).filter(|(step, _)| *step > found) {
        change(connection, |db| {
            db.execute_batch(sql)?;
            Ok(db.pragma_update(None, "user_version", step)?)
        })?;
    }
    Ok(())
}

/// Refuses a file with tables of somebody else's, before anything is written to it: ours have come
/// with a number.
pub(super) fn refuse_foreign(connection: &Connection) -> Result<()> {
    let has_tables = || connection.prepare("SELECT 1 FROM sqlite_master")?.exists([]);
    match check(connection)? {
        0 if has_tables()? => Err(StoreError::Foreign),
        _ => Ok(()),
    }
}

/// All of them at once, in a file that is empty and that nobody else knows of yet.
pub(super) fn lay_out(db: &Transaction<'_>) -> Result<()> {
    for sql in STEPS {
        db.execute_batch(sql)?;
    }
    Ok(db.pragma_update(None, "user_version", STEPS.len() as i64)?)
}

/// Which schema a store has, if this version of Hearth knows it.
pub(super) fn check(connection: &Connection) -> Result<i64> {
    let known = STEPS.len() as i64;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known { Err(StoreError::TooNew { found, known }) } else { Ok(found) }
}
