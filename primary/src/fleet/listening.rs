//! One tenant's listener: whether it is had and watched, and what waits there for a worker that will
//! not come. When it is to be watched is the [`Life`](super::lifecycle::Life)'s.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_wire::TenantName;
use tracing::{error, warn};

use super::sockets::{self, Heard, Key, Sockets, Watch};
use super::unbound::Unbound;
use crate::store::Tenant;

/// Connections taken at once from a listener whose tenant is refused.
const TAKEN_MAX: usize = 64;
/// After the kernel had no descriptor for a connection: they wait in its queue meanwhile.
const SHORT_PAUSE: Duration = Duration::from_secs(1);

pub struct Listening {
    tenant: TenantName,
    sockets: Arc<Sockets>,
    heard: Arc<Heard>,
    /// Or why there is none.
    listener: Result<(Key, Arc<OwnedFd>), Unbound>,
    armed: bool,
    /// Until when nothing is taken from the listener, since the kernel had no descriptor for it.
    short_until: Option<Instant>,
}

impl Listening {
    /// Without one, before it was tried to bind that port.
    pub fn new(tenant: &Tenant, sockets: Arc<Sockets>, heard: Arc<Heard>) -> Self {
        let (tenant, listener) = (tenant.name.clone(), Err(Unbound::Failed(tenant.port)));
        Self { tenant, sockets, heard, listener, armed: false, short_until: None }
    }

    /// Has what was bound at that address, or notes and logs why there is nothing.
    pub fn enter(
        &mut self,
        bound: io::Result<OwnedFd>,
        (ip, port): (IpAddr, u16),
    ) -> Result<(), Unbound> {
        let entered = bound.and_then(|listener| {
            let key = self.sockets.enter(&listener, Watch::Unarmed, self.heard.clone())?;
            Ok((key, Arc::new(listener)))
        });
        self.listener = entered.map_err(|error| {
            let unbound = Unbound::of(&error, ip, port);
            warn!(tenant = %self.tenant, port, error = &error as &dyn std::error::Error, "{}", unbound.word());
            unbound
        });
        self.had()
    }

    /// `port` is given back.
    pub fn leave(&mut self, port: u16) {
        let left = std::mem::replace(&mut self.listener, Err(Unbound::Failed(port)));
        if let Ok((key, listener)) = left {
            self.sockets.leave(key, &listener);
        }
    }

    /// Or why it is not.
    pub fn had(&self) -> Result<(), Unbound> {
        self.listener.as_ref().map(drop).map_err(|unbound| *unbound)
    }

    pub fn listener(&self) -> Result<Arc<OwnedFd>, Unbound> {
        let listener = self.listener.as_ref();
        listener.map(|(_, listener)| listener.clone()).map_err(|unbound| *unbound)
    }

    pub fn is(&self, key: Key) -> bool {
        self.listener.as_ref().is_ok_and(|(own, _)| *own == key)
    }

    /// Its watch has told of something, and tells of no more.
    pub fn told(&mut self) {
        self.armed = false;
    }

    /// Whether a connection waits.
    pub fn is_called(&self) -> bool {
        self.listener.as_ref().is_ok_and(|(_, listener)| sockets::is_called(listener))
    }

    /// After a worker has ended, which could have shut it down for all.
    pub fn listen_again(&self) {
        if let Ok((_, listener)) = &self.listener
            && let Err(error) = sockets::listen_again(listener.as_fd())
        {
            let error = &error as &dyn std::error::Error;
            error!(tenant = %self.tenant, error, "the listener was shut down");
        }
    }

    /// Some of the connections that wait.
    pub fn take(&mut self) -> Vec<TcpStream> {
        let mut taken = Vec::new();
        let Ok((_, listener)) = &self.listener else { return taken };
        while taken.len() < TAKEN_MAX {
            match sockets::accept(listener.as_fd()) {
                Ok(Some(stream)) => taken.push(stream),
                Ok(None) => break,
                Err(error) => {
                    warn!(tenant = %self.tenant, error = &error as &dyn std::error::Error, "a connection at a tenant's port could not be accepted");
                    self.short_until = Some(Instant::now() + SHORT_PAUSE);
                    break;
                }
            }
        }
        taken
    }

    /// When it is watched again, where it is not for a while.
    pub fn resumes(&self) -> Option<Instant> {
        self.short_until
    }

    /// Brings the watch in line with what is wanted.
    pub fn settle(&mut self, is_wanted: bool) {
        let Ok((key, listener)) = &self.listener else { return };
        self.short_until.take_if(|until| *until <= Instant::now());
        let wanted = is_wanted && self.short_until.is_none();
        let watch = match (wanted, self.armed) {
            (true, false) => Watch::Readable,
            (false, true) => Watch::Unarmed,
            (true, true) | (false, false) => return,
        };
        match self.sockets.arm(*key, listener, watch) {
            Ok(()) => self.armed = wanted,
            Err(error) => {
                warn!(tenant = %self.tenant, error = &error as &dyn std::error::Error, "a tenant's port could not be watched");
            }
        }
    }
}
