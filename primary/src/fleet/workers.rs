//! The workers of one tenant that live or are being made, as far as its supervisor reaches them:
//! what is sent to each, and how one is ended. When that is due is the [`Life`](super::lifecycle::Life)'s.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use hearth_wire::{TenantName, ToWorker};
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::warn;

use super::lifecycle::WorkerId;
use super::links::{Links, Outgoing};
use super::zygote;

pub struct Worker {
    pub pid: i32,
    pub pidfd: Arc<AsyncFd<OwnedFd>>,
    pub outgoing: mpsc::Sender<Outgoing>,
    pub links: Arc<Links>,
    /// The newest report that it was asked for and has made.
    pub reported: u64,
    /// Held until it is ready, so that few workers start at once.
    pub starting: Option<OwnedSemaphorePermit>,
    /// Why we ended it, where we did.
    pub killed: Option<String>,
}

impl Worker {
    /// One that is not has served nobody.
    pub fn is_ready(&self) -> bool {
        self.starting.is_none()
    }
}

pub struct Workers {
    tenant: TenantName,
    live: HashMap<WorkerId, Worker>,
    forking: HashSet<WorkerId>,
    /// Of those that are being made, the ones that nobody wants any more.
    doomed: HashSet<WorkerId>,
}

impl Workers {
    pub fn new(tenant: TenantName) -> Self {
        let (live, forking, doomed) = (HashMap::new(), HashSet::new(), HashSet::new());
        Self { tenant, live, forking, doomed }
    }

    /// Whether none lives or is being made.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.forking.is_empty()
    }

    pub fn fork(&mut self, worker: WorkerId) {
        self.forking.insert(worker);
    }

    /// It was made, or was not. Tells whether nobody wants it any more.
    pub fn forked(&mut self, worker: WorkerId) -> bool {
        self.forking.remove(&worker);
        self.doomed.remove(&worker)
    }

    /// None of those that are being made is wanted any more.
    pub fn doom(&mut self) {
        self.doomed.extend(&self.forking);
    }

    pub fn add(&mut self, id: WorkerId, worker: Worker) {
        self.live.insert(id, worker);
    }

    pub fn remove(&mut self, worker: WorkerId) -> Option<Worker> {
        self.live.remove(&worker)
    }

    pub fn has(&self, worker: WorkerId) -> bool {
        self.live.contains_key(&worker)
    }

    pub fn get(&self, worker: WorkerId) -> Option<&Worker> {
        self.live.get(&worker)
    }

    pub fn get_mut(&mut self, worker: WorkerId) -> Option<&mut Worker> {
        self.live.get_mut(&worker)
    }

    pub fn ids(&self) -> Vec<WorkerId> {
        self.live.keys().copied().collect()
    }

    pub fn ready(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.live.iter().filter(|(_, worker)| worker.is_ready()).map(|(id, worker)| (*id, worker))
    }

    pub fn tell(&mut self, worker: WorkerId, message: ToWorker, fds: Vec<Arc<OwnedFd>>) {
        if let Some(live) = self.live.get(&worker)
            && let Err(mpsc::error::TrySendError::Full(_)) = live.outgoing.try_send((message, fds))
        {
            self.kill(worker, "it does not listen to the primary".to_owned());
        }
    }

    pub fn close_links(&self, worker: WorkerId) {
        if let Some(live) = self.live.get(&worker) {
            live.links.close();
        }
    }

    pub fn kill_all(&mut self, reason: &str) {
        for worker in self.ids() {
            self.kill(worker, reason.to_owned());
        }
    }

    pub fn kill(&mut self, worker: WorkerId, reason: String) {
        match self.live.get_mut(&worker) {
            Some(live) => {
                warn!(tenant = %self.tenant, pid = live.pid, worker = worker.0, reason, "ending worker");
                live.links.close();
                live.killed = Some(reason);
                zygote::kill(&live.pidfd);
            }
            None => {
                if self.forking.contains(&worker) {
                    self.doomed.insert(worker);
                }
            }
        }
    }
}
