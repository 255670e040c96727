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

mod error;
mod followers;
mod journal;
mod owner;
mod record;
mod records;

pub use error::LogsError;
pub use followers::News;
pub use journal::{PAGE_MAX, Page, Query};
pub use owner::Kept;
pub use record::{Entry, Filter, Record};
pub use records::{Call, Line};

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use hearth_wire::{Report, TenantName};
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::warn;

use crate::fair::{Fair, Turn};
use followers::Followers;
use owner::{Owner, Request, count_both_dropped, directory, taken};

/// Reports that wait to be written, of all tenants and of one. A report is below
/// [`hearth_wire::FRAME_MAX`], so that this is 16 MiB at the most.
const QUEUE: usize = 256;
const QUEUE_OF_ONE: usize = 16;
/// Pages that are read at once, of all tenants and of one.
const READERS: usize = 4;
const READERS_OF_ONE: usize = 2;
/// That there is something that cannot be read is said once in this time, of all tenants.
const SAY_AGAIN: Duration = Duration::from_secs(60);

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
    pub async fn follow<T: Kept>(
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

#[cfg(test)]
mod tests {
    use hearth_wire::{CallRecord, LogLine, LogStream, Origin, Outcome};
    use tokio::sync::broadcast::error::RecvError;

    use super::followers::{BEHIND_MAX, FOLLOWERS_MAX};
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
            version: 1.into(),
            request_id: "r".into(),
            stream: LogStream::Stdout,
            level: None,
            text: text.into(),
        }
    }

    fn call() -> CallRecord {
        CallRecord {
            time_ms: 1,
            function: "/a".parse().unwrap(),
            version: 1.into(),
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
        assert!(matches!(follow().await, Err(LogsError::TooManyFollowers(_))));
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
