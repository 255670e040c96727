//! The one thread that writes all journals, and what it is asked for.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dashmap::DashMap;
use hearth_wire::{Report, TenantName};
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::{error, warn};

use super::error::LogsError;
use super::followers::{FOLLOWERS_MAX, Feed, Feeds, Followers, News};
use super::journal::Journal;
use super::record::{Entry, Record};
use super::records::{Call, Line};

/// A kind of records that each tenant has a journal and followers of.
pub trait Kept: Record {
    fn feed(feeds: &mut Feeds) -> &mut Feed<Self>;
    fn shelf(shelves: &mut Shelves) -> &mut Option<Journal>;
}

impl Kept for Line {
    fn feed(feeds: &mut Feeds) -> &mut Feed<Self> {
        &mut feeds.lines
    }

    fn shelf(shelves: &mut Shelves) -> &mut Option<Journal> {
        &mut shelves.lines
    }
}

impl Kept for Call {
    fn feed(feeds: &mut Feeds) -> &mut Feed<Self> {
        &mut feeds.calls
    }

    fn shelf(shelves: &mut Shelves) -> &mut Option<Journal> {
        &mut shelves.calls
    }
}

/// One tenant's journals, opened when first written.
#[derive(Default)]
pub struct Shelves {
    pub lines: Option<Journal>,
    pub calls: Option<Journal>,
    /// When it was used last, by the owner's count.
    used: u64,
}

pub enum Request {
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

/// The one writer.
pub struct Owner {
    pub tenants: Arc<Path>,
    pub waiting: Arc<DashMap<TenantName, usize>>,
    pub shelves: HashMap<TenantName, Shelves>,
    pub followers: Followers,
    pub open_max: usize,
    pub uses: u64,
}

impl Owner {
    pub fn run(mut self, mut queue: mpsc::Receiver<Request>) {
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

    fn write<T: Kept>(&mut self, tenant: &TenantName, records: Vec<T>, mut dropped: u64) {
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
    pub fn subscribe<T: Kept>(
        &mut self,
        tenant: &TenantName,
    ) -> Result<(u64, broadcast::Receiver<News<T>>), LogsError> {
        let next = self.journal::<T>(tenant).map_err(LogsError::Read)?.next();
        let feeds = self.followers.feeds().ok_or(LogsError::Closed)?;
        let feed = T::feed(feeds.entry(tenant.clone()).or_insert_with(Feeds::new));
        match feed.receiver_count() {
            0..FOLLOWERS_MAX => Ok((next, feed.subscribe())),
            _ => Err(LogsError::TooManyFollowers(FOLLOWERS_MAX)),
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

    fn journal<T: Kept>(&mut self, tenant: &TenantName) -> io::Result<&mut Journal> {
        let directory = directory(&self.tenants, tenant);
        let shelf = T::shelf(self.shelves(tenant));
        match shelf {
            Some(journal) => Ok(journal),
            None => Ok(shelf.insert(Journal::open(directory, T::KIND)?)),
        }
    }
}

pub fn directory(tenants: &Path, tenant: &TenantName) -> PathBuf {
    tenants.join(tenant.as_str()).join("logs")
}

pub fn taken(waiting: &DashMap<TenantName, usize>, tenant: &TenantName) {
    if let dashmap::Entry::Occupied(mut entry) = waiting.entry(tenant.clone()) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

pub fn count_both_dropped(tenant: &TenantName, lines: u64, calls: u64) {
    count_dropped::<Line>(tenant, lines);
    count_dropped::<Call>(tenant, calls);
}

pub fn count_dropped<T: Record>(tenant: &TenantName, dropped: u64) {
    if dropped > 0 {
        let labels = [("tenant", tenant.to_string()), ("kind", T::ONE.to_owned())];
        metrics::counter!("hearth_log_records_dropped_total", &labels).increment(dropped);
    }
}
