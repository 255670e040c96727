//! A guest's connection: it is nobody's else, though it mostly runs on connections that many share.
//! What it was told last of rows and changes is kept here. Once it needs what SQLite keeps for a
//! connection alone, it gets one.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as Turns;

use super::Sql;
use super::guard::{Counts, Gone};
use super::own::Own;
use super::statement::{Asked, Bounds, Outcome, Ran, said};
use super::text::Start;
use crate::state::{DatabaseFile, Fault};

/// Cloned, it is the same connection.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    sql: Sql,
    database: DatabaseFile,
    counts: Mutex<Counts>,
    /// One statement after another.
    own: Turns<Option<Own>>,
}

/// Sets it when it is dropped: nobody waits any more.
pub struct Waiting(pub Gone);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.set();
    }
}

impl Session {
    pub fn new(sql: Sql, database: DatabaseFile) -> Self {
        let (counts, own) = (Mutex::default(), Turns::new(None));
        Self { inner: Arc::new(Inner { sql, database, counts, own }) }
    }

    pub fn counts(&self) -> Counts {
        *self.inner.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stopped where it is not waited for.
    pub async fn run(&self, asked: Asked, bounds: Bounds) -> Result<Outcome, Fault> {
        let Inner { sql, database, counts, own } = &*self.inner;
        let mut own = own.lock().await;
        let waiting = Waiting(Gone::default());
        let (asked, gone) = (Arc::new(asked), waiting.0.clone());
        let outcome = match &*own {
            Some(own) => own.run(asked, self.counts(), bounds, gone).await?,
            None => {
                let ran = self.run_on_shared(sql, *database, &asked, bounds, &gone).await?;
                match ran {
                    Ran::Done(outcome) => outcome,
                    Ran::WantsToWrite | Ran::WantsItsOwn => {
                        let own = own.insert(sql.own(*database).await?);
                        own.run(asked, self.counts(), bounds, gone).await?
                    }
                }
            }
        };
        *counts.lock().unwrap_or_else(PoisonError::into_inner) = outcome.counts;
        Ok(outcome)
    }

    async fn run_on_shared(
        &self,
        sql: &Sql,
        database: DatabaseFile,
        asked: &Arc<Asked>,
        bounds: Bounds,
        gone: &Gone,
    ) -> Result<Ran, Fault> {
        let counts = self.counts();
        match Start::of(&asked.sql) {
            Start::Begins { .. } | Start::Saves => return Ok(Ran::WantsItsOwn),
            Start::Ends => return Err(said("there is no transaction that could be ended")),
            Start::EndsSaved => return Err(said("there is no such savepoint")),
            Start::Reads | Start::With => {
                match sql.read(database, asked, counts, bounds, gone).await? {
                    Ran::WantsToWrite => {}
                    ran => return Ok(ran),
                }
            }
            _ => {}
        }
        sql.write(database, asked, counts, bounds, gone).await
    }
}
