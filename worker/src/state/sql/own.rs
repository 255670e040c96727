//! A connection that is one guest's alone, for what SQLite keeps for a connection: a transaction, a
//! temporary table, a setting. It has a thread, which ends with it.
//!
//! ```text
//!            ┌────────── a statement ends it ───────────┐
//!            ▼                                          │
//!  None ── BEGIN ──► Open, reading ── first change ──► Open, with the lock
//!            ▲          └───────────── 5 s ─────────────┤
//!            └── ROLLBACK, COMMIT ──────────────── Expired
//! ```
//!
//! Where it changes something, everybody else who wants to in this process waits at the gate, and in
//! another one at SQLite's own lock of the file, which it was given in its turn. Reading goes on.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, oneshot};

use super::STATEMENT_MAX;
use super::guard::{Counts, Gone, within};
use super::statement::{Asked, Bounds, On, Outcome, Ran, Terms, busy, run, said};
use super::text::Start;
use super::threads::Threads;
use crate::state::{Beside, Fault};

/// Of a transaction, from its beginning.
pub const TRANSACTION_MAX: Duration = Duration::from_secs(5);
/// For a lock that a transaction of another worker holds.
const LOCK_WAIT: Duration = Duration::from_secs(6);

/// Who may change a database: one transaction alone, or all that are one statement each.
pub type Gate = Arc<RwLock<()>>;
type Lock = OwnedRwLockWriteGuard<()>;

/// A handle. The connection is closed, and what it had begun is taken back, once it is dropped.
pub struct Own {
    requests: SyncSender<Request>,
    gate: Gate,
}

struct Request {
    asked: Arc<Asked>,
    terms: Terms,
    /// What changing takes, where it was asked for.
    lock: Option<Lock>,
    answer: oneshot::Sender<Result<Ran, Fault>>,
}

impl Own {
    /// Opens nothing before the first statement.
    pub fn start(
        threads: &Threads,
        beside: Beside,
        gate: Gate,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, Fault> {
        let (requests, wanted) = mpsc::sync_channel(1);
        let work = move || {
            serve(&wanted, &beside);
            drop(place);
        };
        threads.run(Box::new(work)).map_err(|_| Fault::Busy)?;
        Ok(Self { requests, gate })
    }

    /// Stopped where its answer is not waited for.
    pub async fn run(
        &self,
        asked: Arc<Asked>,
        counts: Counts,
        bounds: Bounds,
        gone: Gone,
    ) -> Result<Outcome, Fault> {
        // Its time begins when it does.
        let terms = Terms { on: On::OwnReading, counts, bounds, until: Instant::now(), gone };
        let ran = match self.ask(&asked, &terms, None).await? {
            Ran::WantsToWrite => {
                let lock = Arc::clone(&self.gate).write_owned().await;
                self.ask(&asked, &terms, Some(lock)).await?
            }
            ran => ran,
        };
        match ran {
            Ran::Done(outcome) => Ok(outcome),
            Ran::WantsToWrite | Ran::WantsItsOwn => Err(Fault::Busy),
        }
    }

    async fn ask(
        &self,
        asked: &Arc<Asked>,
        terms: &Terms,
        lock: Option<Lock>,
    ) -> Result<Ran, Fault> {
        let (answer, answered) = oneshot::channel();
        let (asked, terms) = (Arc::clone(asked), terms.clone());
        match self.requests.try_send(Request { asked, terms, lock, answer }) {
            Ok(()) => answered.await.unwrap_or(Err(Fault::Closed)),
            // One that nobody waits for is still coming to its end, and another one is behind it.
            Err(TrySendError::Full(_)) => Err(Fault::Busy),
            Err(TrySendError::Disconnected(_)) => Err(Fault::Closed),
        }
    }
}

fn serve(wanted: &mpsc::Receiver<Request>, beside: &Beside) {
    let mut held: Option<Held> = None;
    loop {
        let ends_at = held.as_ref().and_then(|held| held.transaction.ends_at());
        let request = match ends_at {
            Some(at) => wanted.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => wanted.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match request {
            Ok(Request { asked, terms, lock, answer }) => {
                let ran = match &mut held {
                    Some(held) => Ok(held),
                    none => Held::open(beside).map(|opened| none.insert(opened)),
                };
                let ran = ran.and_then(|held| held.run(&asked, terms, lock));
                let _ = answer.send(ran.inspect_err(|fault| beside.note(fault)));
                if let Some(Held { connection, transaction: Transaction::None, .. }) = &held {
                    beside.empty_wal(connection);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(held) = &mut held {
                    held.expire();
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The connection, which is closed before others are let in.
struct Held {
    connection: Connection,
    beside: Beside,
    transaction: Transaction,
}

enum Transaction {
    None,
    Open {
        ends_at: Instant,
        /// Once it changes something.
        lock: Option<Lock>,
    },
    /// It was rolled back for its time, and whoever had begun it has not taken note of that.
    Expired,
}

impl Transaction {
    fn ends_at(&self) -> Option<Instant> {
        match self {
            Self::Open { ends_at, .. } => Some(*ends_at),
            Self::None | Self::Expired => None,
        }
    }

    fn may_change(&self) -> bool {
        matches!(self, Self::Open { lock: Some(_), .. })
    }
}

impl Held {
    fn open(beside: &Beside) -> Result<Self, Fault> {
        let connection = beside.connect(LOCK_WAIT)?;
        Ok(Self { connection, beside: beside.clone(), transaction: Transaction::None })
    }

    fn run(&mut self, asked: &Asked, mut terms: Terms, lock: Option<Lock>) -> Result<Ran, Fault> {
        if let Transaction::Expired = self.transaction {
            return self.after_its_time(asked, &terms);
        }
        let changes = lock.is_some() || self.transaction.may_change();
        if changes && !rolls_back(&asked.sql) {
            self.beside.may_write()?;
        }
        terms.until = within(STATEMENT_MAX);
        if let Some(ends_at) = self.transaction.ends_at() {
            terms.until = terms.until.min(ends_at);
        }
        let ran = match lock {
            Some(lock) => self.change(asked, terms, lock),
            None => {
                if self.transaction.may_change() {
                    terms.on = On::Own;
                }
                run(&self.connection, asked, &terms)
            }
        };
        self.settle(None);
        if self.transaction.ends_at().is_some_and(|at| at <= Instant::now()) {
            self.expire();
        }
        ran
    }

    /// A statement that changes something, in its turn.
    fn change(&mut self, asked: &Asked, mut terms: Terms, lock: Lock) -> Result<Ran, Fault> {
        let turn = self.beside.turn()?;
        if terms.gone.is_set() {
            return Err(Fault::Interrupted);
        }
        terms.on = On::Own;
        if self.connection.is_autocommit() {
            terms.until = within(STATEMENT_MAX);
            let ran = run(&self.connection, asked, &terms);
            self.settle(Some(lock));
            return ran;
        }
        // What it has read may be older than what there is, which only SQLite can say. This changes
        // nothing, and takes the lock.
        self.connection.execute_batch("PRAGMA incremental_vacuum(1)").map_err(|error| {
            match Fault::from(error) {
                Fault::Busy => busy(),
                fault => fault,
            }
        })?;
        drop(turn);
        self.settle(Some(lock));
        run(&self.connection, asked, &terms)
    }

    /// Takes note of what became of the transaction. A lock is kept as long as there is one.
    fn settle(&mut self, taken: Option<Lock>) {
        if self.connection.is_autocommit() {
            self.transaction = Transaction::None;
            return;
        }
        match &mut self.transaction {
            Transaction::Open { lock, .. } => {
                if taken.is_some() {
                    *lock = taken;
                }
            }
            transaction => {
                *transaction = Transaction::Open { ends_at: within(TRANSACTION_MAX), lock: taken };
            }
        }
    }

    fn expire(&mut self) {
        if !self.connection.is_autocommit() {
            // It fails where nothing is open any more.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.transaction = Transaction::Expired;
    }

    /// Nothing is done that belonged to a transaction which is gone, until its end is asked for.
    fn after_its_time(&mut self, asked: &Asked, terms: &Terms) -> Result<Ran, Fault> {
        if Start::of(&asked.sql) == Start::Ends {
            self.transaction = Transaction::None;
            if rolls_back(&asked.sql) {
                let outcome = Outcome { counts: terms.counts, ..Outcome::default() };
                return Ok(Ran::Done(outcome));
            }
        }
        Err(said(&format!(
            "the transaction was rolled back: it was open for more than {} s",
            TRANSACTION_MAX.as_secs()
        )))
    }
}

fn rolls_back(sql: &str) -> bool {
    sql.trim_start().get(..8).is_some_and(|it| it.eq_ignore_ascii_case("ROLLBACK"))
}
