//! The one thread that writes. Whatever came while it synced is its next group, so that the more come,
//! the more share a sync; nobody waits for a clock.
//!
//! ```text
//!  queue ──► pending ──► group: one file's, the oldest first ──► turn, room, commit ──► replies
//!                ▲                                                                        │
//!                └──────────── what came meanwhile ◄── a long WAL is emptied, sweep ◄─────┘
//! ```

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::catalogue;
use super::commit::{Job, commit};
use super::connection::{self, Role, WRITERS_BUSY};
use super::entries;
use super::failures::Failures;
use super::fault::Fault;
use super::moment::now_ms;
use super::place::{DatabaseFile, Place, Share};
use super::room::{self, Found, Room};
use super::turn::Turns;

/// Jobs that one sync serves, and what they may write together; a single one may be more.
const GROUP_JOBS: usize = 64;
const GROUP_BYTES: u64 = 4 << 20;
/// Of those that were taken from the queue. As many more wait there, and whoever comes then waits
/// outside.
pub const PENDING: usize = 128;
/// What has expired, and what can be given back to the disk, is looked for no more often than this.
const TIDY: Duration = Duration::from_secs(1);
/// Pages that are given back to the disk at once, and from how many free ones on.
const GIVEN_BACK: i64 = 1_024;
/// How long a write waits for somebody else's transaction, a [`WRITERS_BUSY`] at a time.
const BUSY_MAX: Duration = Duration::from_secs(6);
/// Until readers have left a WAL that is to be emptied.
const READERS_LEAVE: Duration = Duration::from_millis(100);
/// A file that is still to be made takes no less than this.
const NEW_FILE_BYTES: u64 = 128 << 10;

/// Whether a write is answered after its sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sync {
    /// It is synced with what is written next, or when the WAL is emptied.
    Relaxed,
    Full,
}

/// What is asked of the writer.
pub trait Work: Job + Send {
    /// Whether somebody still waits for it.
    fn is_wanted(&self) -> bool;
    /// What its last run said, or why that does not count.
    fn answer(self: Box<Self>, ended: Result<(), Fault>);
}

pub struct Request {
    pub file: DatabaseFile,
    /// In no group.
    pub alone: bool,
    pub sync: Sync,
    /// What it will write, as far as it is known.
    pub bytes: u64,
    pub since: Instant,
    pub work: Box<dyn Work>,
}

/// What happened, for whoever watches: tests.
#[derive(Default)]
pub struct Counts {
    /// Groups that were committed, of whatever size.
    pub groups: AtomicU64,
}

pub struct Writer {
    pub place: Place,
    pub share: Share,
    pub counts: Arc<Counts>,
    pub failures: Failures,
    /// Told once, when the file of the stores has been opened: whoever reads without waiting may
    /// open it as well.
    pub opened: Box<dyn Fn(DatabaseFile) + Send>,
}

/// A file that is open for writing.
struct Open {
    db: Connection,
    sync: Sync,
    pages_max: Option<u64>,
    page_bytes: u64,
    tidied: Option<Instant>,
    /// When all that nothing was in was taken from it last.
    gathered: Option<Instant>,
}

impl Writer {
    /// Until every sender is gone.
    pub fn run(self, mut queue: mpsc::Receiver<Request>) {
        let mut turns = None;
        let mut files: HashMap<DatabaseFile, Open> = HashMap::new();
        let mut pending = VecDeque::new();
        loop {
            if pending.is_empty() {
                let Some(request) = queue.blocking_recv() else { return };
                pending.push_back(request);
            }
            while pending.len() < PENDING
                && let Ok(request) = queue.try_recv()
            {
                pending.push_back(request);
            }
            pending.retain(|request: &Request| request.work.is_wanted());
            let Some(group) = take_group(&mut pending) else { continue };
            let file = group[0].file;
            let later = self.serve(&mut turns, &mut files, file, group);
            if !later.is_empty() {
                pending.extend(later);
                continue;
            }
            let Some(open) = files.get_mut(&file) else { continue };
            let Some(turns) = turns.as_ref() else { continue };
            if let Err(fault) = self.tidy(turns, open, file, pending.is_empty()) {
                self.failures.note(file, &fault);
            }
        }
    }

    /// Commits a group and answers it, in that order. Returns what has to be tried again, since
    /// somebody else's transaction is in the way, which does not hold up other files.
    fn serve(
        &self,
        turns: &mut Option<Turns>,
        files: &mut HashMap<DatabaseFile, Open>,
        file: DatabaseFile,
        mut group: Vec<Request>,
    ) -> Vec<Request> {
        let ended = match self.write(turns, files, file, &mut group) {
            Ok(ended) => ended,
            Err(Fault::Busy) => {
                let (young, old): (Vec<_>, Vec<_>) =
                    group.into_iter().partition(|request| request.since.elapsed() < BUSY_MAX);
                for request in old {
                    request.work.answer(Err(Fault::Busy));
                }
                return young;
            }
            Err(fault) => vec![Err(fault); group.len()],
        };
        for (request, ended) in group.into_iter().zip(ended) {
            request.work.answer(ended);
        }
        Vec::new()
    }

    fn write(
        &self,
        turns: &mut Option<Turns>,
        files: &mut HashMap<DatabaseFile, Open>,
        file: DatabaseFile,
        group: &mut [Request],
    ) -> Result<Vec<Result<(), Fault>>, Fault> {
        let turns = match turns {
            Some(turns) => turns,
            None => turns.insert(Turns::open(&self.place).map_err(|_| Fault::Disk)?),
        };
        let turn = turns.take().map_err(|_| Fault::Disk)?;
        let numbered = match files.get(&DatabaseFile::Catalogue) {
            Some(open) => catalogue::last(&open.db).unwrap_or(0),
            None => 0,
        };
        let found = room::measure(&self.place, file, numbered).map_err(|_| Fault::Disk)?;
        let open = match files.entry(file) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(_) if found.file == 0 && !has_room_for_another(found, self.share) => {
                return Err(Fault::Full);
            }
            Entry::Vacant(place) => {
                let open = place.insert(self.open(file)?);
                (self.opened)(file);
                open
            }
        };
        if self.failures.is_over(file) {
            return Err(Fault::ReadOnly);
        }
        let mut room = room::room(self.share.bytes, found, open.page_bytes);
        if found.wal > room::wal_is_too_long(self.share.bytes) {
            // A reader was in the way, and may have left.
            open.empty(Emptied::Whole).inspect_err(|fault| self.failures.note(file, fault))?;
            let found = room::measure(&self.place, file, numbered).map_err(|_| Fault::Disk)?;
            room = room::room(self.share.bytes, found, open.page_bytes);
        }
        let page_bytes = open.page_bytes;
        let wanted: u64 = group.iter().map(|it| room::in_wal(it.bytes, page_bytes)).sum();
        if room::is_tight(room, found, wanted, page_bytes) && self.gather(files, file, numbered) {
            let found = room::measure(&self.place, file, numbered).map_err(|_| Fault::Disk)?;
            room = room::room(self.share.bytes, found, page_bytes);
        }
        let open = files.get_mut(&file).ok_or(Fault::Broken)?;
        let sync = group.iter().map(|request| request.sync).max().unwrap_or(Sync::Full);
        open.prepare(sync, room).map_err(|error| Fault::of(file, error))?;

        // What does not fit is not begun.
        let mut verdicts = vec![Err(Fault::Full); group.len()];
        let (mut left, mut fitting) = (room.bytes, Vec::with_capacity(group.len()));
        let mut chosen: Vec<&mut dyn Job> = Vec::with_capacity(group.len());
        for (at, request) in group.iter_mut().enumerate() {
            if let Some(rest) = left.checked_sub(room::in_wal(request.bytes, open.page_bytes)) {
                left = rest;
                fitting.push(at);
                chosen.push(&mut *request.work);
            }
        }
        let ended = commit(&open.db, &mut chosen)?;
        drop(turn);
        self.counts.groups.fetch_add(1, Ordering::Relaxed);
        for (at, ended) in fitting.into_iter().zip(ended) {
            if let Err(fault) = &ended {
                self.failures.note(file, fault);
            }
            verdicts[at] = ended;
        }
        Ok(verdicts)
    }

    /// Takes from all other files what nothing is in, in a turn that is taken. Says whether it did: one
    /// that was looked at just now is left.
    fn gather(
        &self,
        files: &mut HashMap<DatabaseFile, Open>,
        but: DatabaseFile,
        numbered: u32,
    ) -> bool {
        let numbers = 1..=numbered.max(self.share.numbered());
        let others = [DatabaseFile::Stores].into_iter().chain(numbers.map(DatabaseFile::Numbered));
        let mut gathered = false;
        for file in others.filter(|file| *file != but && !self.failures.is_over(*file)) {
            if self.place.bytes(&file.name()).is_ok_and(|bytes| bytes == 0) {
                continue;
            }
            let open = match files.entry(file) {
                Entry::Occupied(open) => open.into_mut(),
                Entry::Vacant(place) => match self.open(file) {
                    Ok(open) => place.insert(open),
                    Err(_) => continue,
                },
            };
            if open.gathered.is_some_and(|gathered| gathered.elapsed() < TIDY) {
                continue;
            }
            open.gathered = Some(Instant::now());
            match open.shrink() {
                Ok(()) => gathered = true,
                Err(fault) => self.failures.note(file, &fault),
            }
        }
        gathered
    }

    fn open(&self, file: DatabaseFile) -> Result<Open, Fault> {
        let db = connection::open(&self.place, self.share, file, Role::Writer)
            .inspect_err(|fault| self.failures.note(file, fault))?;
        let steps = match file {
            DatabaseFile::Stores => entries::STEPS,
            DatabaseFile::Catalogue => catalogue::STEPS,
            DatabaseFile::Numbered(_) => &[],
        };
        migrate(&db, steps).inspect_err(|fault| self.failures.note(file, fault))?;
        let page_bytes: i64 = db
            .pragma_query_value(None, "page_size", |row| row.get(0))
            .map_err(|error| Fault::of(file, error))?;
        let page_bytes = page_bytes.cast_unsigned().max(512);
        let open = Open {
            db,
            sync: Sync::Full,
            pages_max: None,
            page_bytes,
            tidied: None,
            gathered: None,
        };
        Ok(open)
    }

    /// What has time until the replies are out.
    fn tidy(
        &self,
        turns: &Turns,
        open: &mut Open,
        file: DatabaseFile,
        has_time: bool,
    ) -> Result<(), Fault> {
        if self.failures.is_over(file) {
            return Ok(());
        }
        if open.tidied.is_none_or(|tidied| tidied.elapsed() >= TIDY) {
            open.tidied = Some(Instant::now());
            if file == DatabaseFile::Stores && entries::has_expired(&open.db, now_ms())? {
                // What is lost of it is swept again.
                open.set_sync(Sync::Relaxed)?;
                let _turn = turns.take().map_err(|_| Fault::Disk)?;
                while !entries::sweep(&open.db, now_ms())? && has_time {}
            }
            if has_time {
                open.give_back(turns)?;
            }
        }
        let wal = self.place.bytes(&file.wal()).map_err(|_| Fault::Disk)?;
        if wal > room::wal_is_too_long(self.share.bytes) {
            let _turn = turns.take().map_err(|_| Fault::Disk)?;
            open.empty(Emptied::Whole)?;
        } else if wal > room::wal_is_long(self.share.bytes) {
            open.empty(Emptied::AsFarAsFree)?;
        }
        Ok(())
    }
}

/// How far a WAL is emptied.
enum Emptied {
    /// Readers keep what they read, and nobody waits.
    AsFarAsFree,
    /// Cut to nothing, if the readers leave in time.
    Whole,
}

impl Open {
    /// What holds for the next transaction.
    fn prepare(&mut self, sync: Sync, room: Room) -> rusqlite::Result<()> {
        self.set_sync(sync)?;
        if self.pages_max != Some(room.pages) {
            self.db.pragma_update(None, "max_page_count", room.max_page_count())?;
            self.pages_max = Some(room.pages);
        }
        Ok(())
    }

    fn set_sync(&mut self, sync: Sync) -> rusqlite::Result<()> {
        if self.sync != sync {
            let value = match sync {
                Sync::Relaxed => "normal",
                Sync::Full => "full",
            };
            self.db.pragma_update(None, "synchronous", value)?;
            self.sync = sync;
        }
        Ok(())
    }

    fn empty(&self, how: Emptied) -> Result<(), Fault> {
        let sql = match how {
            Emptied::AsFarAsFree => "PRAGMA wal_checkpoint(PASSIVE)",
            Emptied::Whole => "PRAGMA wal_checkpoint(TRUNCATE)",
        };
        // That readers or another worker are in the way is no error.
        let waited = self.db.busy_timeout(READERS_LEAVE);
        let emptied = waited.and_then(|()| self.db.query_row(sql, [], |_| Ok(())));
        self.db.busy_timeout(WRITERS_BUSY)?;
        match emptied.map_err(Fault::from) {
            Ok(()) | Err(Fault::Busy) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    fn count(&self, name: &str) -> Result<i64, Fault> {
        let mut statement = self.db.prepare_cached(&format!("PRAGMA {name}"))?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }

    /// Makes the file shorter by pages that nothing is in, where these are many.
    fn give_back(&self, turns: &Turns) -> Result<(), Fault> {
        let (free, pages) = (self.count("freelist_count")?, self.count("page_count")?);
        if free < GIVEN_BACK || free < pages / 4 {
            return Ok(());
        }
        let _turn = turns.take().map_err(|_| Fault::Disk)?;
        self.cut()
    }

    /// Makes the file and its WAL as short as they can be.
    fn shrink(&self) -> Result<(), Fault> {
        let mut free = self.count("freelist_count")?;
        loop {
            if free > 0 {
                self.cut()?;
            }
            self.empty(Emptied::Whole)?;
            let left = self.count("freelist_count")?;
            if left == 0 || left >= free {
                return Ok(());
            }
            free = left;
        }
    }

    /// Takes some pages from its end that nothing is in.
    fn cut(&self) -> Result<(), Fault> {
        let sql = format!("PRAGMA incremental_vacuum({GIVEN_BACK})");
        let mut statement = self.db.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }
}

fn has_room_for_another(found: Found, share: Share) -> bool {
    found.others + NEW_FILE_BYTES <= share.bytes
}

fn migrate(db: &Connection, steps: &[&str]) -> Result<(), Fault> {
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known && known > 0 {
        return Err(Fault::TooNew);
    }
    for (step, sql) in (1..).zip(steps).filter(|(step, _)| *step > found) {
        db.execute_batch(&format!("BEGIN IMMEDIATE; {sql}; PRAGMA user_version = {step}; COMMIT"))
            .inspect_err(|_| {
                if !db.is_autocommit() {
                    let _ = db.execute_batch("ROLLBACK");
                }
            })?;
    }
    Ok(())
}

/// The file whose job is the oldest, and of that one all that may go together, in their order.
fn take_group(pending: &mut VecDeque<Request>) -> Option<Vec<Request>> {
    let first = pending.pop_front()?;
    let (file, mut bytes, mut is_open) = (first.file, first.bytes, !first.alone);
    let mut group = vec![first];
    let mut later = VecDeque::with_capacity(pending.len());
    for request in pending.drain(..) {
        if request.file == file && is_open {
            is_open = !request.alone
                && group.len() < GROUP_JOBS
                && bytes.saturating_add(request.bytes) <= GROUP_BYTES;
        }
        if request.file == file && is_open {
            bytes += request.bytes;
            group.push(request);
        } else {
            later.push_back(request);
        }
    }
    *pending = later;
    Some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Job for Nothing {
        fn run(&mut self, _: &Connection) -> Result<(), Fault> {
            Ok(())
        }
    }

    impl Work for Nothing {
        fn is_wanted(&self) -> bool {
            true
        }

        fn answer(self: Box<Self>, _: Result<(), Fault>) {}
    }

    /// Of files by number; `!` behind one that goes alone.
    fn groups(asked: &[&str], bytes: u64) -> Vec<String> {
        let request = |asked: &&str| Request {
            file: DatabaseFile::Numbered(asked.trim_end_matches('!').parse().unwrap()),
            alone: asked.ends_with('!'),
            sync: Sync::Full,
            bytes,
            since: Instant::now(),
            work: Box::new(Nothing),
        };
        let mut pending: VecDeque<_> = asked.iter().map(request).collect();
        let mut groups = Vec::new();
        while let Some(group) = take_group(&mut pending) {
            let files = group.iter().map(|it| it.file.name().replace(".db", ""));
            groups.push(files.collect::<Vec<_>>().join(" "));
        }
        groups
    }

    #[test]
    fn a_group_is_of_one_file_and_the_oldest_waits_least() {
        assert_eq!(groups(&["1", "2", "1", "2", "3"], 0), ["1 1", "2 2", "3"]);
        assert_eq!(groups(&["1!", "1", "1"], 0), ["1", "1 1"]);
        // What comes behind one that goes alone does not overtake it.
        assert_eq!(groups(&["1", "1!", "1"], 0), ["1", "1", "1"]);
        assert_eq!(groups(&["1", "2", "1!", "1", "2"], 0), ["1", "2 2", "1", "1"]);
        assert_eq!(groups(&[], 0), [""; 0]);
    }

    #[test]
    fn a_group_has_bounds() {
        let sizes = |asked: usize, bytes| {
            let groups = groups(&vec!["1"; asked], bytes);
            groups.iter().map(|group| group.split(' ').count()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(150, 0), [64, 64, 22]);
        assert_eq!(sizes(5, GROUP_BYTES / 2), [2, 2, 1]);
        assert_eq!(sizes(2, GROUP_BYTES + 1), [1, 1]);
    }
}
