//! The threads of a tenant's state, from its first use on, and what leads to them.
//!
//! ```text
//!  inline(): on the caller's own thread, and at once, of the stores alone
//!  read():   a queue ──► two readers         write(): a queue ──► one writer
//! ```
//!
//! Queues are bounded: who comes to a full one waits. What is dropped while it waits is not done.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::beside::Beside;
use super::commit::Job;
use super::connection::{self, Role};
use super::failures::Failures;
use super::fault::Fault;
use super::place::{DatabaseFile, Place, Share};
use super::readers::{self, Reader};
use super::room;
use super::writer::{self, Counts, Sync, Writer};

pub struct Service {
    place: Option<Place>,
    pub share: Share,
    counts: Arc<Counts>,
    failures: Failures,
    threads: Mutex<Option<Threads>>,
    /// Of the stores, for what is read at once. `None` until they are open.
    inline: Arc<Mutex<Option<Connection>>>,
    /// Files that were there for certain at some time.
    made: Mutex<HashSet<DatabaseFile>>,
}

/// Of a file that was longer than the share when the worker began.
const LONGER_BYTES: u64 = 8 << 20;

#[derive(Clone)]
struct Threads {
    writes: mpsc::Sender<writer::Request>,
    reads: mpsc::Sender<readers::Request>,
}

/// How a write is made.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    pub alone: bool,
    pub sync: Sync,
    /// What it will write, as far as it is known.
    pub bytes: u64,
}

impl Service {
    pub fn new(place: Option<Place>, share: Share) -> Self {
        Self {
            place,
            share,
            counts: Arc::default(),
            failures: Failures::default(),
            threads: Mutex::default(),
            inline: Arc::default(),
            made: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub fn groups(&self) -> u64 {
        self.counts.groups.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Starts the threads, for a process that may start none later. They open nothing by themselves.
    pub fn start(&self) -> io::Result<()> {
        match &self.place {
            Some(place) => self.started(place).map(drop),
            None => Ok(()),
        }
    }

    pub fn file_bytes(&self) -> io::Result<Option<u64>> {
        let Some(place) = &self.place else { return Ok(None) };
        let longest = room::longest(place, self.share.numbered())?;
        // A file that is longer than it may be is copied into from its WAL, and one page more may be.
        Ok(Some(self.share.bytes.max(longest.saturating_add(LONGER_BYTES))))
    }

    fn threads(&self) -> Result<Threads, Fault> {
        let place = self.place.as_ref().ok_or(Fault::NoState)?;
        self.started(place).map_err(|_| Fault::Closed)
    }

    fn started(&self, place: &Place) -> io::Result<Threads> {
        let mut threads = lock(&self.threads);
        match &*threads {
            Some(started) => Ok(started.clone()),
            None => Ok(threads.insert(self.spawn(place)?).clone()),
        }
    }

    fn spawn(&self, place: &Place) -> io::Result<Threads> {
        let (writes, queue) = mpsc::channel(writer::PENDING);
        let writer = Writer {
            place: place.clone(),
            share: self.share,
            counts: Arc::clone(&self.counts),
            failures: self.failures.clone(),
            opened: Box::new(opener(place.clone(), self.share, Arc::clone(&self.inline))),
        };
        let (reads, reading) = mpsc::channel(readers::QUEUE);
        let reading = Arc::new(Mutex::new(reading));
        let thread = |name: &str| thread::Builder::new().name(name.to_owned());
        thread("state-writer").spawn(move || writer.run(queue))?;
        for _ in 0..readers::THREADS {
            let reader =
                Reader { place: place.clone(), share: self.share, queue: Arc::clone(&reading) };
            thread("state-reader").spawn(move || reader.run())?;
        }
        Ok(Threads { writes, reads })
    }

    /// What a connection of somebody's own is opened with.
    pub fn beside(&self, file: DatabaseFile) -> Result<Beside, Fault> {
        let place = self.place.clone().ok_or(Fault::NoState)?;
        Ok(Beside { place, share: self.share, file, failures: self.failures.clone() })
    }

    /// Answered after the sync.
    pub async fn write<T: Send + 'static>(
        &self,
        file: DatabaseFile,
        manner: Manner,
        job: impl FnMut(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let threads = self.threads()?;
        let (reply, answer) = oneshot::channel();
        let work = Box::new(Write { file, job, said: None, reply });
        let Manner { alone, sync, bytes } = manner;
        let request = writer::Request { file, alone, sync, bytes, since: Instant::now(), work };
        threads.writes.send(request).await.map_err(|_| Fault::Closed)?;
        let written = answer.await.map_err(|_| Fault::Closed)?;
        if written.is_ok() {
            lock(&self.made).insert(file);
        }
        written
    }

    /// Sees whatever was answered before it began.
    pub async fn read<T: Send + 'static>(
        &self,
        file: DatabaseFile,
        job: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let threads = self.threads()?;
        if !lock(&self.made).contains(&file) {
            // Readers make no file. Where there is one, nothing is written to it, and that nothing can
            // be is no reason not to read it.
            let manner = Manner { alone: false, sync: Sync::Relaxed, bytes: 0 };
            match self.write(file, manner, |_| Ok(())).await {
                Ok(()) | Err(Fault::Full | Fault::ReadOnly | Fault::Disk | Fault::Busy) => {}
                Err(fault) => return Err(fault),
            }
        }
        let (reply, answer) = oneshot::channel();
        let request = readers::Request { file, work: Box::new(Read { file, job, reply }) };
        threads.reads.send(request).await.map_err(|_| Fault::Closed)?;
        answer.await.map_err(|_| Fault::Broken)?
    }

    /// Reads of the stores on this thread, where that needs no waiting. `None` where it would.
    pub fn inline<T>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Option<Result<T, Fault>> {
        let inline = lock(&self.inline);
        match job(inline.as_ref()?).map_err(|fault| named(DatabaseFile::Stores, fault)) {
            Err(Fault::Busy) => None,
            done => Some(done),
        }
    }
}

/// Opens the connection that is read from at once, when the writer has made sure that there is a file.
fn opener(
    place: Place,
    share: Share,
    inline: Arc<Mutex<Option<Connection>>>,
) -> impl Fn(DatabaseFile) + Send + 'static {
    move |file| {
        if file == DatabaseFile::Stores {
            // Without it a reader is asked.
            *lock(&inline) = connection::open(&place, share, file, Role::Hasty).ok();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn named(file: DatabaseFile, fault: Fault) -> Fault {
    match fault {
        Fault::Damaged(_) => Fault::Damaged(file.noun()),
        fault => fault,
    }
}

struct Write<T, F> {
    file: DatabaseFile,
    job: F,
    said: Option<T>,
    reply: oneshot::Sender<Result<T, Fault>>,
}

impl<T, F: FnMut(&Connection) -> Result<T, Fault>> Job for Write<T, F> {
    fn run(&mut self, db: &Connection) -> Result<(), Fault> {
        self.said = None;
        self.said = Some((self.job)(db).map_err(|fault| named(self.file, fault))?);
        Ok(())
    }
}

impl<T: Send, F: FnMut(&Connection) -> Result<T, Fault> + Send> writer::Work for Write<T, F> {
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn answer(self: Box<Self>, ended: Result<(), Fault>) {
        let Self { said, reply, .. } = *self;
        // Whoever asked may be gone; it is done all the same.
        let _ = reply.send(ended.and_then(|()| said.ok_or(Fault::Broken)));
    }
}

struct Read<T, F> {
    file: DatabaseFile,
    job: F,
    reply: oneshot::Sender<Result<T, Fault>>,
}

impl<T: Send, F: FnOnce(&Connection) -> Result<T, Fault> + Send> readers::Work for Read<T, F> {
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run(self: Box<Self>, db: Result<&Connection, Fault>) {
        let Self { file, job, reply } = *self;
        let read = db.and_then(job).map_err(|fault| named(file, fault));
        let _ = reply.send(read);
    }
}
