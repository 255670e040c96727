//! SQL on a tenant's databases: statements of guests, batches, scripts and exports, each on the
//! connection where it belongs and within its bounds.
//!
//! ```text
//!            ┌─ only reads ──────────► a reader's connection
//! statement ─┼─ changes something ───► the writer's, as one of a group, or alone if it is a slow one
//!            └─ BEGIN, temp table … ─► one of the guest's own (own.rs), until the guest lets it go
//! ```
//!
//! Which it is SQLite says when it reads the statement; the text's first word (text.rs) only says
//! where that is tried first. What a statement may do is in authorizer.rs, how the connections ask it
//! and stop what runs for too long in guard.rs. Files, threads, groups and syncs are [`State`]'s.

mod authorizer;
mod batch;
pub mod guard;
mod overtime;
mod own;
mod schema;
mod script;
mod session;
mod slow;
mod statement;
#[cfg(test)]
mod tests;
mod text;
mod threads;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hearth_host::sql::{BatchError, Done, Statement};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use batch::{Batch, Refused};
use guard::{Counts, Gone, within};
use own::{Gate, Own};
use session::Waiting;
use slow::Slow;
use statement::{On, Terms, is_late, run, said};
use threads::Threads;

use super::{DatabaseFile, Fault, State};

pub use overtime::{GRACE, over};
pub use script::{Imported, SCRIPT_MAX_BYTES};
pub use session::Session;
pub use statement::{Asked, Beyond, Bounds, Outcome, Ran};

/// Of one statement, or a batch, that nobody else waits for.
pub const STATEMENT_MAX: Duration = Duration::from_secs(5);
/// Of one that others wait for, since it is in a group with theirs. It is stopped then, and run again
/// alone, as it is from then on at once.
const TOGETHER_MAX: Duration = Duration::from_secs(1);
/// Of a script, which others wait for.
const SCRIPT_MAX: Duration = Duration::from_secs(20);
/// Connections that are guests' own, of which each has a thread.
const OWN_MAX: usize = 8;
/// How long somebody waits for one.
const OWN_WAIT: Duration = Duration::from_secs(5);
/// Pieces of an export that nobody has taken yet.
const PIECES: usize = 4;
/// How long one waits to be taken.
const PIECE_WAIT: Duration = Duration::from_secs(10);
/// So that a reader is left.
const EXPORTS_MAX: usize = 1;

/// A handle.
#[derive(Clone)]
pub struct Sql {
    state: State,
    shared: Arc<Shared>,
}

struct Shared {
    gates: Mutex<HashMap<DatabaseFile, Gate>>,
    slow: Mutex<Slow>,
    own: Arc<Semaphore>,
    threads: Threads,
    exports: Semaphore,
}

impl Sql {
    pub fn new(state: State) -> Self {
        let shared = Shared {
            gates: Mutex::default(),
            slow: Mutex::default(),
            own: Arc::new(Semaphore::new(OWN_MAX)),
            threads: Threads::default(),
            exports: Semaphore::new(EXPORTS_MAX),
        };
        Self { state, shared: Arc::new(shared) }
    }

    /// Starts the threads of guests' own connections, where none may be started later.
    pub fn start(&self) -> io::Result<()> {
        self.shared.threads.keep(OWN_MAX)
    }

    /// A connection of a guest's, with all that SQLite keeps for one: it ends when its last clone is
    /// dropped, and a transaction that is open is rolled back then. Opens nothing by itself.
    pub fn session(&self, database: DatabaseFile) -> Session {
        Session::new(self.clone(), database)
    }

    /// One statement, on a connection of its own: what it begins ends with it.
    ///
    /// At most [`STATEMENT_MAX`] long. Where the result is larger than `bounds` it is cut and says so,
    /// or refused, as `bounds` have it.
    pub async fn query(
        &self,
        database: DatabaseFile,
        asked: Asked,
        bounds: Bounds,
    ) -> Result<Outcome, Fault> {
        self.session(database).run(asked, bounds).await
    }

    /// Up to 1,000 statements as one transaction, in order. Answered when all of it is on the disk;
    /// refused whole, with the place and why, where one of them fails or changes another number of
    /// rows than it had to. At most [`STATEMENT_MAX`] long; the results are bounded together.
    pub async fn batch(
        &self,
        database: DatabaseFile,
        statements: Vec<Statement>,
    ) -> Result<Vec<Done>, BatchError> {
        let key = statements.iter().map(|statement| &*statement.sql).collect::<String>();
        let batch = Arc::new(Batch::new(statements)?);
        let waiting = Waiting(Gone::default());
        let refused = Arc::new(Mutex::new(None));
        let job = |time: Duration| {
            let (batch, gone, refused) =
                (Arc::clone(&batch), waiting.0.clone(), Arc::clone(&refused));
            move |db: &rusqlite::Connection| {
                let (done, error) = match batch.run(db, terms(On::Writer, time, &gone)) {
                    Ok(done) => (Ok(done), None),
                    Err(Refused { error, fault }) => (Err(fault), Some(error)),
                };
                *refused.lock().unwrap_or_else(PoisonError::into_inner) = error;
                done
            }
        };
        match self.change(database, &key, job).await {
            Ok(done) => Ok(done),
            Err(fault) => match refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
                // What the batch said of itself, unless something else was the matter as well.
                Some(error) => Err(error),
                None if fault == Fault::Full => Err(BatchError::Full),
                None => Err(BatchError::Failed(fault.to_string())),
            },
        }
    }

    /// A script of many statements, such as an export, as one transaction: all of it, or nothing and
    /// the line where it failed. Others' changes wait for it, 20 s at the most.
    pub async fn import(&self, database: DatabaseFile, script: String) -> Result<Imported, Fault> {
        if script.len() > SCRIPT_MAX_BYTES {
            return Err(said(&format!(
                "a script has at most {} MiB: split it",
                SCRIPT_MAX_BYTES >> 20
            )));
        }
        let waiting = Waiting(Gone::default());
        let gone = waiting.0.clone();
        let job = move |db: &rusqlite::Connection| {
            script::import(db, &script, &terms(On::Writer, SCRIPT_MAX, &gone))
        };
        let _open = self.gate(database).read_owned().await;
        self.state.write(database, true, job).await
    }

    /// A database as a text of SQL that [`import`](Self::import) reads, as it is at one moment, piece
    /// by piece. One at a time. An error is the last that comes: also where a piece was not taken for
    /// 10 s, since a reader waits for that.
    pub fn export(&self, database: DatabaseFile) -> mpsc::Receiver<Result<String, Fault>> {
        let (pieces, taken) = mpsc::channel(PIECES);
        let (sql, runtime) = (self.clone(), Handle::current());
        tokio::spawn(async move {
            let place = sql.shared.exports.acquire().await;
            let failed = pieces.clone();
            let job = move |db: &rusqlite::Connection| {
                let mut take =
                    |piece| runtime.block_on(pieces.send_timeout(Ok(piece), PIECE_WAIT)).is_ok();
                match script::export(db, &mut take)? {
                    true => Ok(()),
                    false => Err(said("the export was not taken in time")),
                }
            };
            if let Err(fault) = sql.state.read(database, job).await {
                let _ = failed.send(Err(fault)).await;
            }
            drop(place);
        });
        taken
    }

    /// Who may change a database.
    fn gate(&self, database: DatabaseFile) -> Gate {
        let mut gates = self.shared.gates.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(database).or_default())
    }

    /// A connection of a guest's own.
    async fn own(&self, database: DatabaseFile) -> Result<Own, Fault> {
        let place = Arc::clone(&self.shared.own).acquire_owned();
        let place = tokio::time::timeout(OWN_WAIT, place).await;
        let Ok(Ok(place)) = place else {
            return Err(said(&format!(
                "{OWN_MAX} transactions are open already, which is all that may be"
            )));
        };
        let beside = self.state.beside(database)?;
        Own::start(&self.shared.threads, beside, self.gate(database), place)
    }

    async fn read(
        &self,
        database: DatabaseFile,
        asked: &Arc<Asked>,
        counts: Counts,
        bounds: Bounds,
        gone: &Gone,
    ) -> Result<Ran, Fault> {
        let (asked, gone) = (Arc::clone(asked), gone.clone());
        let job = move |db: &rusqlite::Connection| {
            let terms = Terms { counts, bounds, ..terms(On::Reader, STATEMENT_MAX, &gone) };
            run(db, &asked, &terms)
        };
        self.state.read(database, job).await
    }

    async fn write(
        &self,
        database: DatabaseFile,
        asked: &Arc<Asked>,
        counts: Counts,
        bounds: Bounds,
        gone: &Gone,
    ) -> Result<Ran, Fault> {
        let job = |time: Duration| {
            let (asked, gone) = (Arc::clone(asked), gone.clone());
            move |db: &rusqlite::Connection| {
                let terms = Terms { counts, bounds, ..terms(On::Writer, time, &gone) };
                run(db, &asked, &terms)
            }
        };
        self.change(database, &asked.sql, job).await
    }

    /// In a group with what others change, or alone where `text` is known to be slow.
    async fn change<T: Send + 'static, J>(
        &self,
        database: DatabaseFile,
        text: &str,
        job: impl Fn(Duration) -> J,
    ) -> Result<T, Fault>
    where
        J: FnMut(&rusqlite::Connection) -> Result<T, Fault> + Send + 'static,
    {
        let slow = || self.shared.slow.lock().unwrap_or_else(PoisonError::into_inner);
        let _open = self.gate(database).read_owned().await;
        if !slow().knows(text) {
            match self.state.write(database, false, job(TOGETHER_MAX)).await {
                Err(fault) if is_late(&fault) => slow().learn(text),
                answer => return answer,
            }
        }
        self.state.write(database, true, job(STATEMENT_MAX)).await
    }
}

fn terms(on: On, time: Duration, gone: &Gone) -> Terms {
    Terms {
        on,
        counts: Counts::default(),
        bounds: Bounds::default(),
        until: within(time),
        gone: gone.clone(),
    }
}
