//! The threads that read what is not read at once: lists, long values, and a guest's queries. Each job
//! sees one moment of its file, whatever is written meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::connection::{self, Role};
use super::fault::Fault;
use super::place::{DatabaseFile, Place, Share};

pub const THREADS: usize = 2;
/// Jobs that wait; whoever comes then waits outside.
pub const QUEUE: usize = 64;
/// Files that one thread has open at once. The one that was read longest ago is closed.
const FILES: usize = 4;

/// What is asked of a reader. Answers by itself.
pub trait Work: Send {
    fn is_wanted(&self) -> bool;
    fn run(self: Box<Self>, db: Result<&Connection, Fault>);
}

pub struct Request {
    pub file: DatabaseFile,
    pub work: Box<dyn Work>,
}

pub struct Reader {
    pub place: Place,
    pub share: Share,
    /// Of all readers.
    pub queue: Arc<Mutex<mpsc::Receiver<Request>>>,
}

impl Reader {
    /// Until every sender is gone.
    pub fn run(self) {
        // The one that was read last comes last.
        let mut files: Vec<(DatabaseFile, Connection)> = Vec::new();
        loop {
            let request = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.blocking_recv()
            };
            let Some(Request { file, work }) = request else { return };
            if !work.is_wanted() {
                continue;
            }
            match self.open(&mut files, file) {
                Ok(db) => {
                    // It is everybody's thread. Whoever waits is told that there is no answer.
                    let ran = catch_unwind(AssertUnwindSafe(|| work.run(Ok(db))));
                    let ended = db.is_autocommit() || db.execute_batch("ROLLBACK").is_ok();
                    if ran.is_err() || !ended {
                        files.retain(|(open, _)| *open != file);
                    }
                }
                Err(fault) => work.run(Err(fault)),
            }
        }
    }

    /// In a transaction that reads.
    fn open<'a>(
        &self,
        files: &'a mut Vec<(DatabaseFile, Connection)>,
        file: DatabaseFile,
    ) -> Result<&'a Connection, Fault> {
        match files.iter().position(|(open, _)| *open == file) {
            Some(at) => files[at..].rotate_left(1),
            None => {
                if files.len() == FILES {
                    files.remove(0);
                }
                files.push((file, connection::open(&self.place, self.share, file, Role::Reader)?));
            }
        }
        let (_, db) = files.last().expect("it was put there");
        db.execute_batch("BEGIN").map_err(|error| Fault::of(file, error))?;
        Ok(db)
    }
}
