//! One group of writes as one transaction: a savepoint each, and one sync for all of them.
//!
//! ```text
//!  BEGIN ── savepoint, job ── savepoint, job ── … ── COMMIT ── sync ── all are answered
//!              │ fails: rolled back alone
//!              │ ends the transaction: it is out, and the others run again
//!                                        COMMIT finds no room: each by itself
//! ```
//!
//! Answers nobody: what becomes of each is what this returns.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;

use super::fault::Fault;

/// One write. It may run more than once.
pub trait Job {
    /// Within a transaction that is there. What an earlier run made is rolled back.
    fn run(&mut self, db: &Connection) -> Result<(), Fault>;
}

/// How one try ended.
enum Tried {
    /// Committed and synced, with what each job came to.
    Done(Vec<Result<(), Fault>>),
    /// The job of this number ended the transaction, and nothing is there of any.
    Ended(usize, Fault),
    /// Nothing is there of any, and it may have been any of them.
    Uncommitted(Fault),
    /// It did not begin.
    Unbegun(Fault),
}

/// What each job came to, in their order. A fault that is final for the database is that of every job
/// which was not committed before. An error where none was begun.
pub fn commit(db: &Connection, jobs: &mut [&mut dyn Job]) -> Result<Vec<Result<(), Fault>>, Fault> {
    let mut verdicts: Vec<Option<Result<(), Fault>>> = jobs.iter().map(|_| None).collect();
    let mut together = jobs.len();
    loop {
        let open = (0..jobs.len()).filter(|at| verdicts[*at].is_none());
        let batch: Vec<usize> = open.take(together).collect();
        if batch.is_empty() {
            break;
        }
        match attempt(db, jobs, &batch) {
            Tried::Done(ended) => {
                for (at, verdict) in batch.into_iter().zip(ended) {
                    verdicts[at] = Some(verdict);
                }
            }
            Tried::Ended(at, fault) if fault != Fault::ReadOnly => verdicts[at] = Some(Err(fault)),
            Tried::Uncommitted(fault) if fault != Fault::ReadOnly => match &batch[..] {
                [at] => verdicts[*at] = Some(Err(fault)),
                _ => together = 1,
            },
            Tried::Unbegun(fault) if verdicts.iter().all(Option::is_none) => return Err(fault),
            Tried::Ended(_, fault) | Tried::Uncommitted(fault) | Tried::Unbegun(fault) => {
                for verdict in verdicts.iter_mut().filter(|verdict| verdict.is_none()) {
                    *verdict = Some(Err(fault.clone()));
                }
            }
        }
    }
    Ok(verdicts.into_iter().map(|verdict| verdict.expect("each has ended")).collect())
}

fn attempt(db: &Connection, jobs: &mut [&mut dyn Job], batch: &[usize]) -> Tried {
    if let Err(error) = execute(db, "BEGIN IMMEDIATE") {
        return Tried::Unbegun(error);
    }
    let mut ended = Vec::with_capacity(batch.len());
    for &at in batch {
        let mut verdict = execute(db, "SAVEPOINT job");
        if verdict.is_ok() {
            // It is everybody's thread.
            let run = catch_unwind(AssertUnwindSafe(|| jobs[at].run(db)));
            verdict = run.unwrap_or(Err(Fault::Broken));
        }
        if db.is_autocommit() {
            let fault = verdict.err().unwrap_or(Fault::Broken);
            return Tried::Ended(at, fault);
        }
        let kept = match verdict {
            Ok(()) => execute(db, "RELEASE job"),
            Err(_) => execute(db, "ROLLBACK TO job").and_then(|()| execute(db, "RELEASE job")),
        };
        if let Err(fault) = kept {
            roll_back(db);
            return Tried::Ended(at, fault);
        }
        ended.push(verdict);
    }
    match execute(db, "COMMIT") {
        Ok(()) => Tried::Done(ended),
        Err(fault) => {
            roll_back(db);
            Tried::Uncommitted(fault)
        }
    }
}

fn roll_back(db: &Connection) {
    if !db.is_autocommit() {
        // What cannot be rolled back is not committed either, and the next one does not begin.
        let _ = execute(db, "ROLLBACK");
    }
}

fn execute(db: &Connection, sql: &str) -> Result<(), Fault> {
    db.prepare_cached(sql)?.execute([])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use rusqlite::ffi;

    use super::*;

    type Run<'a> = dyn FnMut(&Connection) -> Result<(), Fault> + 'a;

    struct Does<'a>(Box<Run<'a>>);

    impl Job for Does<'_> {
        fn run(&mut self, db: &Connection) -> Result<(), Fault> {
            (self.0)(db)
        }
    }

    fn does<'a>(job: impl FnMut(&Connection) -> Result<(), Fault> + 'a) -> Does<'a> {
        Does(Box::new(job))
    }

    fn sql(text: &str) -> Does<'_> {
        does(move |db| Ok(db.execute_batch(text)?))
    }

    fn database() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE t (a UNIQUE)").unwrap();
        db
    }

    fn commit(db: &Connection, mut jobs: Vec<Does<'_>>) -> Vec<Result<(), Fault>> {
        let mut jobs: Vec<_> = jobs.iter_mut().map(|job| job as &mut dyn Job).collect();
        super::commit(db, &mut jobs).unwrap()
    }

    fn all(db: &Connection) -> Vec<i64> {
        let mut statement = db.prepare("SELECT a FROM t ORDER BY a").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn one_that_fails_takes_nothing_of_the_others() {
        let db = database();
        let ended = commit(
            &db,
            vec![
                sql("INSERT INTO t VALUES (1)"),
                sql("INSERT INTO t VALUES (2); INSERT INTO t VALUES (1)"),
                sql("INSERT INTO t VALUES (3)"),
            ],
        );
        assert_eq!(ended.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(all(&db), [1, 3]);
    }

    #[test]
    fn where_one_ends_the_transaction_the_others_run_again() {
        let (db, runs) = (database(), Cell::new(0));
        let ends = "INSERT INTO t VALUES (2); INSERT OR ROLLBACK INTO t VALUES (2)";
        let counted = does(|db| {
            runs.set(runs.get() + 1);
            Ok(db.execute_batch("INSERT INTO t VALUES (1)")?)
        });
        let jobs = vec![counted, sql(ends), sql("INSERT INTO t VALUES (3)"), sql(ends)];
        let ended = commit(&db, jobs);
        assert_eq!(ended.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, false]);
        assert_eq!((all(&db), runs.get()), (vec![1, 3], 3));
    }

    #[test]
    fn one_that_panics_is_its_own_end_only() {
        let db = database();
        let panics = does(|db| {
            db.execute_batch("INSERT INTO t VALUES (1)")?;
            panic!("as a defect does")
        });
        let ended = commit(&db, vec![panics, sql("INSERT INTO t VALUES (2)")]);
        assert_eq!(ended, [Err(Fault::Broken), Ok(())]);
        assert_eq!(all(&db), [2]);
    }

    #[test]
    fn one_that_ends_the_transaction_by_itself_is_out() {
        let db = database();
        let ended = commit(&db, vec![sql("INSERT INTO t VALUES (1)"), sql("ROLLBACK")]);
        assert_eq!(ended, [Ok(()), Err(Fault::Broken)]);
        assert_eq!(all(&db), [1]);
    }

    #[test]
    fn a_full_database_refuses_what_does_not_fit_and_takes_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let db = Connection::open(directory.path().join("t.db")).unwrap();
        db.execute_batch("CREATE TABLE t (a UNIQUE, b); PRAGMA max_page_count = 20").unwrap();
        let ended = commit(
            &db,
            vec![
                sql("INSERT INTO t VALUES (1, zeroblob(1000))"),
                sql("INSERT INTO t VALUES (2, zeroblob(1000000))"),
                sql("INSERT INTO t VALUES (3, zeroblob(1000))"),
            ],
        );
        assert_eq!(ended, [Ok(()), Err(Fault::Full), Ok(())]);
        assert_eq!(all(&db), [1, 3]);
        assert_eq!(commit(&db, vec![sql("DELETE FROM t WHERE a = 1")]), [Ok(())]);
    }

    #[test]
    fn after_a_failed_sync_nobody_is_told_that_it_went_well() {
        let db = database();
        // As a commit's own would be, by way of what ends the transaction.
        let fails = does(|db| {
            db.execute_batch("ROLLBACK").unwrap();
            Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None))?
        });
        let jobs = vec![sql("INSERT INTO t VALUES (1)"), fails, sql("INSERT INTO t VALUES (3)")];
        assert_eq!(commit(&db, jobs), vec![Err(Fault::ReadOnly); 3]);
        assert!(all(&db).is_empty());
    }
}
