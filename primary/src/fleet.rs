//! All tenants' workers: one supervisor a tenant, and what they share.
//!
//! ```text
//!  fleet ─┬─ supervisor (one a tenant) ── lifecycle, told (pure) · listening, workers, callers,
//!         │    │                            reports, parking · links · status
//!         │    └─ talk (one a worker) ── conversation (pure) · uplinks
//!         ├─ zygote      forks workers; vigil says when it counts as hung (pure)
//!         ├─ sockets     watches the listeners of tenants without a worker
//!         ├─ cgroups     what bounds each tenant from outside
//!         └─ parking     connections between two requests and two workers
//! ```
//!
//! Knows tenants by name and generations by number. What is in a generation is `generations`',
//! what is kept is the store's, and who may ask is the API's.

mod callers;
pub mod cgroups;
pub mod conversation;
mod error;
mod handle;
mod inbox;
mod keeper;
mod lifecycle;
mod links;
mod listening;
mod parking;
mod reports;
mod shared;
pub mod sockets;
mod start;
pub mod status;
mod supervisor;
mod swap;
mod talk;
mod told;
mod turning;
mod unbound;
mod uplinks;
mod vigil;
mod workers;
pub mod zygote;

use std::net::{IpAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;
use hearth_wire::{Entry, GenerationNumber, Setting, TenantName, TokenGrant, What};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

pub use error::{CallError, Cause, FleetError, SwapError, Unavailable};
use handle::Handle;
pub use inbox::Commit;
use inbox::{Command, Next};
pub use links::{LinkError, Links};
use parking::Connection;
pub use shared::{Shared, Turned};
pub use status::{WorkerState, WorkerStatus};
use supervisor::Supervisor;
pub use unbound::Unbound;
pub use uplinks::Uplink;

use crate::store::Tenant;

/// Two seconds in all.
const BIND_TRIES: u32 = 40;
const BIND_PAUSE: Duration = Duration::from_millis(50);
/// How long whoever reads a log waits for what a worker has to add.
const REPORT_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
    tenants: Arc<DashMap<TenantName, Handle>>,
    supervisors: TaskTracker,
}

impl Fleet {
    pub fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared), tenants: Arc::default(), supervisors: TaskTracker::new() }
    }

    /// Binds the tenant's port and supervises it from now on. Where another process has the
    /// port, the tenant says so and the host starts all the same. Tells whether it was had.
    pub async fn adopt(&self, tenant: Tenant, grants: Vec<TokenGrant>) -> bool {
        let listener = bind_patiently(self.shared.tenant_bind, tenant.port).await;
        let had = listener.is_ok();
        self.supervise(tenant, grants, listener);
        had
    }

    /// The same with a listener that is bound already.
    pub fn add(&self, tenant: Tenant, grants: Vec<TokenGrant>, listener: OwnedFd) {
        self.supervise(tenant, grants, Ok(listener));
    }

    fn supervise(
        &self,
        tenant: Tenant,
        grants: Vec<TokenGrant>,
        listener: std::io::Result<OwnedFd>,
    ) {
        if let Place::Vacant(place) = self.tenants.entry(tenant.name.clone()) {
            let (supervisor, handle) = Supervisor::new(tenant, grants, self.shared.clone());
            place.insert(handle);
            self.supervisors.spawn(Box::new(supervisor.with_listener(listener)).run());
        }
    }

    /// Ends the tenant's workers and gives its port back.
    pub async fn remove(&self, name: &TenantName) {
        if let Some((_, handle)) = self.tenants.remove(name) {
            // It is ending already if it does not take this.
            let _ = handle.inbox.send(Box::new(Command::Remove)).await;
            let mut snapshot = handle.snapshot;
            while snapshot.changed().await.is_ok() {}
            if let Some(cgroups) = &self.shared.cgroups {
                cgroups.remove(name);
            }
        }
    }

    fn handle(&self, name: &TenantName) -> Option<Handle> {
        self.tenants.get(name).map(|handle| handle.clone())
    }

    async fn ask<T>(
        &self,
        name: &TenantName,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Option<T> {
        let handle = self.handle(name)?;
        let (answer, answered) = oneshot::channel();
        handle.inbox.send(Box::new(command(answer))).await.ok()?;
        answered.await.ok()
    }

    pub fn status(&self, name: &TenantName) -> Option<WorkerStatus> {
        let mut status = self.tenants.get(name)?.snapshot.borrow().status.clone();
        if let Some((memory, cpu_ms)) = status.pid.and_then(status::usage) {
            status.memory = Some(memory);
            status.cpu_ms = Some(cpu_ms);
        }
        Some(status)
    }

    /// Sets the figures of what there is: tenants by their worker's state, parked connections.
    pub fn gauge(&self) {
        let mut census = WorkerState::ALL.map(|state| (state, 0_u32));
        let mut parked = 0;
        for handle in self.tenants.iter() {
            let snapshot = handle.snapshot.borrow();
            parked += snapshot.status.parked;
            for (counted, number) in &mut census {
                *number += u32::from(*counted == snapshot.status.state);
            }
        }
        for (state, number) in census {
            metrics::gauge!("hearth_workers", "state" => state.as_str()).set(number);
        }
        metrics::gauge!("hearth_connections_parked").set(parked);
    }

    /// Gives a connection from the front door to the tenant, for good. It comes back where no
    /// worker can have it.
    pub async fn give(
        &self,
        name: &TenantName,
        stream: TcpStream,
        unread: Vec<u8>,
        since: Instant,
    ) -> Result<(), (TcpStream, Vec<u8>)> {
        let Some(handle) = self.handle(name) else { return Err((stream, unread)) };
        let room = &self.shared.parking_room;
        let connection = Connection::new(stream.into(), unread, since, Entry::Front, room)
            .map_err(|(socket, unread)| (socket.into(), unread))?;
        let (answer, answered) = oneshot::channel();
        let command = Box::new(Command::Give(Box::new(connection), answer));
        let back = match handle.inbox.send(command).await.map_err(|unsent| *unsent.0) {
            Ok(()) => answered.await.unwrap_or(Ok(())).err(),
            Err(Command::Give(connection, _)) => Some(connection),
            Err(_) => unreachable!("what is not sent is what was to be sent"),
        };
        match back.and_then(|connection| connection.into_socket()) {
            Some((socket, unread)) => Err((socket.into(), unread)),
            None => Ok(()),
        }
    }

    /// Links into a worker of the tenant that serves, starting one if need be.
    pub async fn links(&self, name: &TenantName) -> Result<Arc<Links>, CallError> {
        let handle = self.handle(name).ok_or(CallError::NoTenant)?;
        let links = handle.snapshot.borrow().links.clone();
        match links {
            Some(links) => Ok(links),
            None => Ok(self.ask(name, Command::Wake).await.ok_or(CallError::NoTenant)??),
        }
    }

    /// Links into one that answers for what the tenant keeps, though no function may be served.
    pub async fn links_for_state(&self, name: &TenantName) -> Result<Arc<Links>, CallError> {
        match self.links(name).await {
            Err(CallError::Unavailable(Unavailable {
                cause: Cause::Ended | Cause::Unbound(_) | Cause::Sealed,
                ..
            })) => Ok(self.ask(name, Command::Keep).await.ok_or(CallError::NoTenant)??),
            links => links,
        }
    }

    /// The same where one serves already; nothing is woken for it.
    pub fn links_awake(&self, name: &TenantName) -> Option<Arc<Links>> {
        self.tenants.get(name)?.snapshot.borrow().links.clone()
    }

    /// Starts this generation beside the current one and puts it in its place once it is ready
    /// and `commit` has made it durable. Tells how long that took.
    pub async fn swap(
        &self,
        name: &TenantName,
        generation: GenerationNumber,
        commit: Commit,
    ) -> Result<Duration, SwapError> {
        let next = Next { generation, commit: Some(commit), settings: None };
        let swap = |answer| Command::Swap(next, answer);
        self.ask(name, swap).await.ok_or(SwapError::NoTenant)?
    }

    /// Sees to it that the tenant's port is its own: what can keep a worker from being started.
    pub async fn listen(&self, name: &TenantName) -> Result<(), FleetError> {
        self.ask(name, Command::Listen).await.ok_or(FleetError::NoTenant)?
    }

    /// A worker now, whatever happened before.
    pub async fn start(&self, name: &TenantName) -> Result<(), FleetError> {
        self.ask(name, Command::Start).await.ok_or(FleetError::NoTenant)?
    }

    /// No worker now; the next call starts one.
    pub async fn stop(&self, name: &TenantName) -> Result<(), FleetError> {
        self.ask(name, Command::Stop).await.ok_or(FleetError::NoTenant)?
    }

    /// A new worker of the same generation in the place of the old, once it is ready and `commit`,
    /// where there is one, is done. It is told these settings, or those that are kept.
    pub async fn restart(
        &self,
        name: &TenantName,
        commit: Option<Commit>,
        settings: Option<Vec<Setting>>,
    ) -> Result<(), FleetError> {
        let generation = self.status(name).ok_or(FleetError::NoTenant)?.generation;
        let next = Next { generation, commit, settings };
        let swap = |answer| Command::Swap(next, answer);
        self.ask(name, swap).await.ok_or(FleetError::NoTenant)??;
        Ok(())
    }

    /// Returns when every live worker of the tenant goes by these tokens.
    pub async fn set_tokens(
        &self,
        name: &TenantName,
        grants: Vec<TokenGrant>,
    ) -> Result<(), FleetError> {
        let tell = |answer| Command::Tell(What::Tokens(grants), answer);
        self.ask(name, tell).await.ok_or(FleetError::NoTenant)
    }

    /// Returns when what calls wrote that are answered by now is in the hands of the logs, or where
    /// that takes long: a worker can be kept by a guest.
    pub async fn report(&self, name: &TenantName) {
        let _ = tokio::time::timeout(REPORT_PATIENCE, self.ask(name, Command::Report)).await;
    }

    /// Tenants that have a process.
    pub fn live(&self) -> Vec<TenantName> {
        let live = self.tenants.iter().filter(|it| it.snapshot.borrow().status.pid.is_some());
        live.map(|it| it.key().clone()).collect()
    }

    /// Kills all workers of a tenant, for a reason that its owner sees.
    pub async fn end(&self, name: &TenantName, reason: String) {
        if let Some(handle) = self.handle(name) {
            // One that is ending takes no more, and has none left soon.
            let _ = handle.inbox.send(Box::new(Command::End(reason))).await;
        }
    }

    /// Has all workers finish; returns when all are gone.
    pub async fn shutdown(&self) {
        let handles: Vec<Handle> = self.tenants.iter().map(|handle| handle.clone()).collect();
        for handle in handles {
            let _ = handle.inbox.send(Box::new(Command::Shutdown)).await;
        }
        self.supervisors.close();
        self.supervisors.wait().await;
    }

    /// Has workers that finish give up what they still have, and say so to whoever waits for it.
    pub async fn hurry(&self) {
        let handles: Vec<Handle> = self.tenants.iter().map(|handle| handle.clone()).collect();
        for handle in handles {
            let _ = handle.inbox.send(Box::new(Command::Hurry)).await;
        }
    }
}

/// Binds a port that a worker of a host that was just killed may still hold: it ends when it
/// sees that its primary is gone.
pub async fn bind_patiently(ip: IpAddr, port: u16) -> std::io::Result<OwnedFd> {
    let mut tries = 0;
    loop {
        match sockets::bind(ip, port) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tries < BIND_TRIES => {
                tries += 1;
                tokio::time::sleep(BIND_PAUSE).await;
            }
            bound => return bound,
        }
    }
}
