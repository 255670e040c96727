//! What functions wrote and how their calls went: two journals a tenant, kept below
//! `DATA/tenants/<tenant>/logs`, and told to followers as they come.
//!
//! ```text
//!  supervisors ── take ──► queue ──► one thread ──► journal.rs (segments on disk)
//!                (never waits)          └─────────► followers (broadcast, may miss some)
//!  readers ─────────────────────────────────────── read the segments
//! ```
//!
//! Best effort by design: nothing here is synced, and whatever does not fit is dropped and
//! counted. The thread alone writes; who may read is the API's to decide.

mod journal;
mod records;

pub use journal::{Page, Query};
pub use records::{Call, Line};

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use hearth_wire::{FunctionPath, LogStream, Report, TenantName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::{error, warn};

use crate::fair::{Fair, Turn};
use journal::Journal;

/// Reports that wait to be written, of all tenants and of one. A report is below
/// [`hearth_wire::FRAME_MAX`], so that this is 16 MiB at the most.
const QUEUE: usize = 256;
const QUEUE_OF_ONE: usize = 16;
/// Records that a follower may be behind before it misses some.
const BEHIND_MAX: usize = 256;
/// Followers of one tenant's lines, and of its calls.
const FOLLOWERS_MAX: usize = 32;
/// Pages that are read at once, of all tenants and of one.
const READERS: usize = 4;
const READERS_OF_ONE: usize = 2;
/// Records of the past that one read returns, and what they may take together as they are kept:
/// whoever asked has them in memory until they are read.
pub const PAGE_MAX: usize = 1_000;
const PAGE_BYTES: usize = 256 << 10;

/// That there is something that cannot be read is said once in this time, of all tenants.
const SAY_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error("{FOLLOWERS_MAX} clients follow this already, which is the limit")]
    TooManyFollowers,
    #[error("the journal could not be read")]
    Read(#[source] io::Error),
    #[error("the journals are closed")]
    Closed,
}

/// Which records a reader wants; what is `None` matches all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub path: Option<FunctionPath>,
    pub request_id: Option<String>,
    pub stream: Option<LogStream>,
}

impl Filter {
    fn takes(&self, function: &FunctionPath, request_id: &str) -> bool {
        let path = |path: &FunctionPath| path.as_str().eq_ignore_ascii_case(function.as_str());
        self.path.as_ref().is_none_or(path)
            && self.request_id.as_ref().is_none_or(|id| id == request_id)
    }
}

/// One kind of what is kept: a line, or a call.
pub trait Record: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Begins the names of its segments.
    const KIND: &str;
    /// As figures name it.
    const ONE: &str;

    fn matches(&self, filter: &Filter) -> bool;
    fn feed(feeds: &mut Feeds) -> &mut Feed<Self>;
    fn shelf(shelves: &mut Shelves) -> &mut Option<Journal>;
}

/// A record and its id, which counts the tenant's records of one kind from 1 and outlives a
/// restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    pub id: u64,
    pub record: T,
}

/// What a follower is sent.
#[derive(Debug, Clone)]
pub enum News<T> {
    Entry(Arc<Entry<T>>),
    /// So many were dropped before they could be kept.
    Dropped(u64),
}

type Feed<T> = broadcast::Sender<News<T>>;

/// One tenant's followers.
pub struct Feeds {
    lines: Feed<Line>,
    calls: Feed<Call>,
}

impl Feeds {
    fn new() -> Self {
        Self {
            lines: broadcast::Sender::new(BEHIND_MAX),
            calls: broadcast::Sender::new(BEHIND_MAX),
        }
    }

    fn deserted(&self) -> bool {
        self.lines.receiver_count() == 0 && self.calls.receiver_count() == 0
    }
}

/// One tenant's journals, opened when first written.
#[derive(Default)]
pub struct Shelves {
    lines: Option<Journal>,
    calls: Option<Journal>,
    /// When it was used last, by the owner's count.
    used: u64,
}

enum Request {
    Take {
        tenant: TenantName,
        report: Report,
    },
    /// A piece of work for the owner that is typed by the kind of record.
    Follow(Box<dyn FnOnce(&mut Owner) + Send>),
    Remove {
        tenant: TenantName,
        done: oneshot::Sender<()>,
    },
    EndFollows,
    /// Answered in its turn.
    Settle(oneshot::Sender<()>),
    Close {
        done: oneshot::Sender<()>,
    },
}

/// Where a follower begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// With so many of the past first.
    Last(usize),
    /// With what came after this id.
    After(u64),
}

/// Records as they come, after those of the past that were asked for.
pub struct Followed<T: Record> {
    pub past: Page<T>,
    pub news: broadcast::Receiver<News<T>>,
}

#[derive(Clone)]
pub struct Logs {
    requests: mpsc::Sender<Request>,
    /// Reports in the queue, by tenant, so that one cannot fill it. Counted up by `take`,
    /// counted down by the owner.
    waiting: Arc<DashMap<TenantName, usize>>,
    readers: Fair<TenantName>,
    tenants: Arc<Path>,
    /// When it was said last that something cannot be read.
    said: Arc<Mutex<Option<Instant>>>,
}

impl Logs {
    /// Over the data directory; nothing is opened yet. Later the journals of so many tenants are
    /// held open.
    pub fn open(data: &Path, open_max: usize) -> io::Result<Logs> {
        let tenants: Arc<Path> = data.join("tenants").into();
        let waiting = Arc::<DashMap<_, _>>::default();
        let (requests, queue) = mpsc::channel(QUEUE);
        let owner = Owner {
            tenants: tenants.clone(),
            waiting: waiting.clone(),
            shelves: HashMap::new(),
            open_max,
            followers: Followers::Served(HashMap::new()),
            uses: 0,
        };
        thread::Builder::new().name("logs".to_owned()).spawn(move || owner.run(queue))?;
        let readers = Fair::new(READERS, READERS_OF_ONE);
        Ok(Logs { requests, waiting, readers, tenants, said: Arc::default() })
    }

    /// Keeps what a worker reported. Never waits: what does not fit is dropped and counted.
    pub fn take(&self, tenant: &TenantName, report: Report) {
        let lines = report.lines.len() as u64;
        let calls = report.calls.len() as u64;
        let room = {
            let mut waiting = self.waiting.entry(tenant.clone()).or_insert(0);
            let room = *waiting < QUEUE_OF_ONE;
            *waiting += usize::from(room);
            room
        };
        if !room {
            return count_both_dropped(tenant, lines, calls);
        }
        let request = Request::Take { tenant: tenant.clone(), report };
        if self.requests.try_send(request).is_err() {
            taken(&self.waiting, tenant);
            count_both_dropped(tenant, lines, calls);
        }
    }

    /// Returns when everything that was taken before is written.
    pub async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        if self.requests.send(Request::Settle(done)).await.is_ok() {
            let _ = settled.await;
        }
    }

    /// One page of the past. The newest records come last.
    pub async fn page<T: Record>(
        &self,
        tenant: &TenantName,
        query: Query,
    ) -> Result<Page<T>, LogsError> {
        let reading = self.readers.turn(tenant.clone()).await;
        self.read(tenant, query, reading).await
    }

    async fn read<T: Record>(
        &self,
        tenant: &TenantName,
        query: Query,
        reading: Turn<TenantName>,
    ) -> Result<Page<T>, LogsError> {
        let directory = directory(&self.tenants, tenant);
        let read = tokio::task::spawn_blocking(move || {
            let page = journal::page(&directory, &query);
            drop(reading);
            page
        });
        let page = read.await.map_err(|_| LogsError::Closed)?.map_err(LogsError::Read)?;
        tell_unreadable::<T>(tenant, page.unreadable, &self.said);
        Ok(page)
    }

    /// What comes from now on, after what `since` asks for, with nothing between them lost.
    pub async fn follow<T: Record>(
        &self,
        tenant: &TenantName,
        since: Since,
        filter: Filter,
    ) -> Result<Followed<T>, LogsError> {
        // Before the queue, which is all tenants'.
        let reading = self.readers.turn(tenant.clone()).await;
        let (reply, answer) = oneshot::channel();
        let name = tenant.clone();
        let subscribe = move |owner: &mut Owner| {
            let _ = reply.send(owner.subscribe::<T>(&name));
        };
        let request = Request::Follow(Box::new(subscribe));
        self.requests.send(request).await.map_err(|_| LogsError::Closed)?;
        let (next, news) = answer.await.map_err(|_| LogsError::Closed)??;
        let query = match since {
            Since::Last(limit) => Query { filter, before: Some(next), limit, ..Query::default() },
            Since::After(id) => {
                let (before, after) = (Some(next), Some(id));
                Query { filter, before, after, limit: PAGE_MAX, ..Query::default() }
            }
        };
        Ok(Followed { past: self.read(tenant, query, reading).await?, news })
    }

    /// Closes and deletes a tenant's journals; its followers' streams end.
    pub async fn remove(&self, tenant: &TenantName) {
        let (done, removed) = oneshot::channel();
        let request = Request::Remove { tenant: tenant.clone(), done };
        if self.requests.send(request).await.is_ok() {
            let _ = removed.await;
        }
    }

    /// Ends every follower's stream for good, so that connections that only follow do not hold
    /// up the host's end. Reports are still taken.
    pub async fn end_follows(&self) {
        // A closed owner has no followers left.
        let _ = self.requests.send(Request::EndFollows).await;
    }

    /// Writes what was taken before and closes everything.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.requests.send(Request::Close { done }).await.is_ok() {
            let _ = closed.await;
        }
    }
}

fn directory(tenants: &Path, tenant: &TenantName) -> PathBuf {
    tenants.join(tenant.as_str()).join("logs")
}

fn taken(waiting: &DashMap<TenantName, usize>, tenant: &TenantName) {
    if let dashmap::Entry::Occupied(mut entry) = waiting.entry(tenant.clone()) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

fn count_both_dropped(tenant: &TenantName, lines: u64, calls: u64) {
    count_dropped::<Line>(tenant, lines);
    count_dropped::<Call>(tenant, calls);
}

fn count_dropped<T: Record>(tenant: &TenantName, dropped: u64) {
    if dropped > 0 {
        let labels = [("tenant", tenant.to_string()), ("kind", T::ONE.to_owned())];
        metrics::counter!("hearth_log_records_dropped_total", &labels).increment(dropped);
    }
}

/// Counts what a reader met, and says it now and then: somebody may read the same again and again.
fn tell_unreadable<T: Record>(tenant: &TenantName, unreadable: u64, said: &Mutex<Option<Instant>>) {
    if unreadable == 0 {
        return;
    }
    let labels = [("tenant", tenant.to_string()), ("kind", T::ONE.to_owned())];
    metrics::counter!("hearth_log_records_unreadable_total", &labels).increment(unreadable);
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    if said.is_none_or(|said| said.elapsed() > SAY_AGAIN) {
        *said = Some(Instant::now());
        warn!(%tenant, kind = T::ONE, unreadable, "a journal has records that cannot be read");
    }
}

/// The one writer.
struct Owner {
    tenants: Arc<Path>,
    waiting: Arc<DashMap<TenantName, usize>>,
    shelves: HashMap<TenantName, Shelves>,
    followers: Followers,
    open_max: usize,
    uses: u64,
}

enum Followers {
    /// By tenant, where there are any.
    Served(HashMap<TenantName, Feeds>),
    /// The host is going down.
    Ended,
}

impl Followers {
    fn feeds(&mut self) -> Option<&mut HashMap<TenantName, Feeds>> {
        match self {
            Self::Served(feeds) => Some(feeds),
            Self::Ended => None,
        }
    }
}

impl Owner {
    fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(request) = queue.blocking_recv() {
            if let Request::Close { done } = request {
                queue.close();
                drop(self);
                let _ = done.send(());
                return;
            }
            // It is everybody's thread: what one tenant's part of it comes to is that tenant's.
            if catch_unwind(AssertUnwindSafe(|| self.perform(request))).is_err() {
                error!("a request about a tenant's journals failed; the others go on");
                // Whatever it was at is opened anew.
                self.shelves.clear();
            }
        }
    }

    fn perform(&mut self, request: Request) {
        match request {
            Request::Take { tenant, report } => {
                taken(&self.waiting, &tenant);
                self.take(&tenant, report);
            }
            Request::Follow(subscribe) => subscribe(self),
            Request::Remove { tenant, done } => {
                self.remove(&tenant);
                let _ = done.send(());
            }
            Request::EndFollows => self.followers = Followers::Ended,
            Request::Settle(done) => {
                let _ = done.send(());
            }
            Request::Close { .. } => unreachable!("it is the loop's"),
        }
    }

    fn take(&mut self, tenant: &TenantName, report: Report) {
        let Report { lines, calls, lines_dropped, calls_dropped } = report;
        count_both_dropped(tenant, lines_dropped, calls_dropped);
        self.write(tenant, lines.into_iter().map(Line::from).collect(), lines_dropped);
        self.write(tenant, calls.into_iter().map(Call::from).collect(), calls_dropped);
        if let Some(feeds) = self.followers.feeds()
            && feeds.get(tenant).is_some_and(Feeds::deserted)
        {
            feeds.remove(tenant);
        }
    }

    fn write<T: Record>(&mut self, tenant: &TenantName, records: Vec<T>, mut dropped: u64) {
        let count = records.len() as u64;
        let first = match self.journal::<T>(tenant).and_then(|journal| journal.append(&records)) {
            Ok(first) => Some(first),
            Err(error) => {
                *T::shelf(self.shelves(tenant)) = None;
                // A late report of a tenant that was removed has nowhere to go.
                if error.kind() != io::ErrorKind::NotFound {
                    warn!(%tenant, error = &error as &dyn std::error::Error, "a journal could not be written");
                }
                count_dropped::<T>(tenant, count);
                dropped = dropped.saturating_add(count);
                None
            }
        };
        let Some(feeds) = self.followers.feeds().and_then(|feeds| feeds.get_mut(tenant)) else {
            return;
        };
        let feed = T::feed(feeds);
        if feed.receiver_count() == 0 {
            return;
        }
        // A receiver that went away in the meantime is no loss.
        if let Some(first) = first {
            for (id, record) in (first..).zip(records) {
                let _ = feed.send(News::Entry(Arc::new(Entry { id, record })));
            }
        }
        if dropped > 0 {
            let _ = feed.send(News::Dropped(dropped));
        }
    }

    /// The id that the next record will have, and what comes from then on.
    fn subscribe<T: Record>(
        &mut self,
        tenant: &TenantName,
    ) -> Result<(u64, broadcast::Receiver<News<T>>), LogsError> {
        let next = self.journal::<T>(tenant).map_err(LogsError::Read)?.next();
        let feeds = self.followers.feeds().ok_or(LogsError::Closed)?;
        let feed = T::feed(feeds.entry(tenant.clone()).or_insert_with(Feeds::new));
        match feed.receiver_count() {
            0..FOLLOWERS_MAX => Ok((next, feed.subscribe())),
            _ => Err(LogsError::TooManyFollowers),
        }
    }

    fn remove(&mut self, tenant: &TenantName) {
        self.shelves.remove(tenant);
        if let Some(feeds) = self.followers.feeds() {
            feeds.remove(tenant);
        }
        match std::fs::remove_dir_all(directory(&self.tenants, tenant)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                warn!(%tenant, error = &error as &dyn std::error::Error, "the journals could not be removed");
            }
        }
    }

    fn shelves(&mut self, tenant: &TenantName) -> &mut Shelves {
        self.uses += 1;
        if self.shelves.len() >= self.open_max && !self.shelves.contains_key(tenant) {
            let oldest = self.shelves.iter().min_by_key(|(_, shelves)| shelves.used);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.shelves.remove(&name);
            }
        }
        let shelves = self.shelves.entry(tenant.clone()).or_default();
        shelves.used = self.uses;
        shelves
    }

    fn journal<T: Record>(&mut self, tenant: &TenantName) -> io::Result<&mut Journal> {
        let directory = directory(&self.tenants, tenant);
        let shelf = T::shelf(self.shelves(tenant));
        match shelf {
            Some(journal) => Ok(journal),
            None => Ok(shelf.insert(Journal::open(directory, T::KIND)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use hearth_wire::{CallRecord, LogLine, Origin, Outcome};
    use tokio::sync::broadcast::error::RecvError;

    use super::*;

    const OPEN: usize = 16;

    fn tenant() -> TenantName {
        "acme".parse().unwrap()
    }

    fn scratch() -> (tempfile::TempDir, Logs) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("tenants/acme")).unwrap();
        let logs = Logs::open(directory.path(), OPEN).unwrap();
        (directory, logs)
    }

    fn line(text: &str) -> LogLine {
        LogLine {
            time_ms: 1,
            function: "/a".parse().unwrap(),
            version: 1,
            request_id: "r".into(),
            stream: LogStream::Stdout,
            text: text.into(),
        }
    }

    fn call() -> CallRecord {
        CallRecord {
            time_ms: 1,
            function: "/a".parse().unwrap(),
            version: 1,
            origin: Origin::Api,
            request_id: "r".into(),
            method: "POST".into(),
            status: 200,
            outcome: Outcome::Answered,
            duration_us: 5,
            request_bytes: 0,
            response_bytes: 2,
            cold_us: None,
        }
    }

    fn lines(texts: &[&str]) -> Report {
        Report { lines: texts.iter().map(|text| line(text)).collect(), ..Report::default() }
    }

    fn texts(page: &Page<Line>) -> Vec<&str> {
        page.entries.iter().map(|entry| &*entry.record.text).collect()
    }

    async fn all(logs: &Logs) -> Page<Line> {
        logs.page(&tenant(), Query { limit: PAGE_MAX, ..Query::default() }).await.unwrap()
    }

    #[tokio::test]
    async fn lines_and_calls_are_counted_apart_and_outlive_a_restart() {
        let (directory, logs) = scratch();
        let calls = vec![call(), call()];
        logs.take(&tenant(), Report { lines: vec![line("one")], calls, ..Report::default() });
        logs.close().await;
        logs.close().await;

        let logs = Logs::open(directory.path(), OPEN).unwrap();
        logs.take(&tenant(), lines(&["two"]));
        logs.close().await;
        let page = all(&logs).await;
        assert_eq!(texts(&page), ["one", "two"]);
        assert_eq!(page.entries[1].id, 2);
        let calls: Page<Call> =
            logs.page(&tenant(), Query { limit: 10, ..Query::default() }).await.unwrap();
        assert_eq!(calls.entries.iter().map(|e| e.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(calls.entries[0].record, call().into());
    }

    async fn next(followed: &mut Followed<Line>) -> Option<String> {
        match followed.news.recv().await {
            Ok(News::Entry(entry)) => Some(format!("{} {}", entry.id, entry.record.text)),
            Ok(News::Dropped(count)) => Some(format!("dropped {count}")),
            Err(RecvError::Lagged(count)) => Some(format!("missed {count}")),
            Err(RecvError::Closed) => None,
        }
    }

    #[tokio::test]
    async fn a_follower_gets_the_past_it_asked_for_and_all_that_comes() {
        let (_directory, logs) = scratch();
        logs.take(&tenant(), lines(&["one", "two", "three"]));
        let acme = tenant();
        let follow = |since| logs.follow::<Line>(&acme, since, Filter::default());
        for (since, past) in [
            (Since::Last(0), &[][..]),
            (Since::Last(2), &["two", "three"]),
            (Since::After(1), &["two", "three"]),
            (Since::After(3), &[]),
        ] {
            let followed = follow(since).await.unwrap();
            assert_eq!(texts(&followed.past), past, "{since:?}");
        }
        let mut followed = follow(Since::Last(1)).await.unwrap();
        logs.take(&tenant(), lines(&["four"]));
        logs.take(&tenant(), Report { lines_dropped: 7, ..lines(&["five"]) });
        assert_eq!(next(&mut followed).await.as_deref(), Some("4 four"));
        assert_eq!(next(&mut followed).await.as_deref(), Some("5 five"));
        assert_eq!(next(&mut followed).await.as_deref(), Some("dropped 7"));
        logs.end_follows().await;
        assert_eq!(next(&mut followed).await, None);
        assert!(matches!(follow(Since::Last(0)).await, Err(LogsError::Closed)));
        logs.take(&tenant(), lines(&["six"]));
        logs.close().await;
        assert_eq!(all(&logs).await.entries.len(), 6);
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_what_it_missed() {
        let (_directory, logs) = scratch();
        let mut followed =
            logs.follow::<Line>(&tenant(), Since::Last(0), Filter::default()).await.unwrap();
        let texts: Vec<String> = (1..=BEHIND_MAX + 5).map(|n| n.to_string()).collect();
        logs.take(&tenant(), lines(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
        // Answered after the report was taken.
        let _ = logs.follow::<Call>(&tenant(), Since::Last(0), Filter::default()).await;
        assert_eq!(next(&mut followed).await.as_deref(), Some("missed 5"));
        assert_eq!(next(&mut followed).await.as_deref(), Some("6 6"));
    }

    #[tokio::test]
    async fn followers_are_bounded() {
        let (_directory, logs) = scratch();
        let mut followers = Vec::new();
        let acme = tenant();
        let follow = || logs.follow::<Line>(&acme, Since::Last(0), Filter::default());
        for _ in 0..FOLLOWERS_MAX {
            followers.push(follow().await.unwrap());
        }
        assert!(matches!(follow().await, Err(LogsError::TooManyFollowers)));
        followers.pop();
        follow().await.unwrap();
    }

    #[tokio::test]
    async fn a_removed_tenant_s_journals_stay_gone() {
        let (directory, logs) = scratch();
        logs.take(&tenant(), lines(&["one"]));
        let mut followed =
            logs.follow::<Line>(&tenant(), Since::Last(0), Filter::default()).await.unwrap();
        logs.remove(&tenant()).await;
        assert_eq!(next(&mut followed).await, None);
        let of_acme = directory.path().join("tenants/acme");
        assert!(!of_acme.join("logs").exists());
        std::fs::remove_dir(&of_acme).unwrap();
        logs.take(&tenant(), lines(&["late"]));
        logs.close().await;
        assert!(!of_acme.exists());
    }

    /// The owner is held up, so that what comes has to wait.
    #[tokio::test]
    async fn one_tenant_s_flood_leaves_room_for_others() {
        let (directory, logs) = scratch();
        let beta: TenantName = "beta".parse().unwrap();
        std::fs::create_dir_all(directory.path().join("tenants/beta")).unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let hold = Request::Follow(Box::new(move |_| {
            let _ = held.recv();
        }));
        logs.requests.send(hold).await.ok().unwrap();
        for n in 0..2 * QUEUE {
            logs.take(&tenant(), lines(&[&n.to_string()]));
        }
        logs.take(&beta, lines(&["beta"]));
        drop(release);
        logs.close().await;
        assert_eq!(all(&logs).await.entries.len(), QUEUE_OF_ONE);
        let page: Page<Line> =
            logs.page(&beta, Query { limit: 10, ..Query::default() }).await.unwrap();
        assert_eq!(texts(&page), ["beta"]);
        assert!(logs.waiting.is_empty());
    }

    #[tokio::test]
    async fn only_so_many_journals_are_held_open() {
        let (directory, logs) = scratch();
        let names: Vec<TenantName> =
            (0..OPEN + 3).map(|n| format!("t{n}").parse().unwrap()).collect();
        for round in ["one", "two"] {
            for name in &names {
                let _ = std::fs::create_dir(directory.path().join("tenants").join(name.as_str()));
                logs.take(name, lines(&[round]));
                // Answered after the report was taken.
                let _ = logs.follow::<Call>(name, Since::Last(0), Filter::default()).await;
            }
        }
        logs.close().await;
        for name in &names {
            let page = logs.page(name, Query { limit: 10, ..Query::default() }).await.unwrap();
            assert_eq!(texts(&page), ["one", "two"], "{name}");
        }
    }
}
