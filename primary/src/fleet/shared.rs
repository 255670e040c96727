//! What all supervisors use, and where what they cannot answer themselves goes.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::cgroups::Cgroups;
use super::error::Cause;
use super::sockets::Sockets;
use super::uplinks::Uplink;
use super::zygote::Zygote;
use crate::generations::Generations;
use crate::isolation::Level;
use crate::logs::Logs;
use crate::names::Names;
use crate::settings::Settings;
use crate::store::Tenant;

/// A connection to the port of a tenant whose worker is backing off or barred, for the primary
/// itself to answer.
pub struct Turned {
    pub tenant: Tenant,
    pub stream: TcpStream,
    /// Was read of it by a worker before.
    pub unread: Vec<u8>,
    pub retry_after: Duration,
    pub cause: Cause,
    /// One of the tenant's.
    pub place: OwnedSemaphorePermit,
}

/// What all supervisors use.
pub struct Shared {
    pub sockets: Arc<Sockets>,
    pub zygote: Zygote,
    pub generations: Generations,
    pub settings: Settings,
    pub logs: Logs,
    pub turned: mpsc::Sender<Turned>,
    pub uplinks: mpsc::Sender<Uplink>,
    /// Starts that are under way at once; the queue behind it is fair.
    pub starts: Arc<Semaphore>,
    pub tenant_bind: IpAddr,
    /// Where the front door is.
    pub front: SocketAddr,
    /// Those of the front door.
    pub names: Arc<Names>,
    /// Connections that are with no worker, of all tenants together.
    pub parking_room: Arc<Semaphore>,
    /// Links to one worker at once.
    pub links: usize,
    /// Links that wait for a request, of all tenants together.
    pub idle_links: Arc<Semaphore>,
    pub idle: Duration,
    pub trusted_proxies: Vec<String>,
    pub trusted_headers: Vec<String>,
    pub isolation: Level,
    /// Whether each tenant's workers are of a user of its own.
    pub has_uids: bool,
    /// `None` where there are none on this machine.
    pub cgroups: Option<Cgroups>,
}
