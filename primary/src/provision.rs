//! The birth and the end of a tenant: a port of its own, a first generation, an owner's token; and
//! the removal of all of it. What it serves from then on comes with the build.

mod ports;

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use hearth_wire::{Code, GenerationNumber, TenantName, TokenGrant};
use jiff::Timestamp;
use rustix::io::Errno;
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::actor::Author;
use crate::backup::Staged;
use crate::fail::{self, Point};
use crate::fault::{Fault, Verdict};
use crate::fleet::{self, Fleet, sockets};
use crate::generations::{GenerationError, Generations};
use crate::logs::Logs;
use crate::settings::Settings;
use crate::store::{self, Cause, NewGeneration, OwnFunctions, Store, StoreError, Taking, Tenant};

#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    #[error("there is a tenant {0} already")]
    Exists(TenantName),
    #[error("the backup has no tenant {0}")]
    Unknown(TenantName),
    #[error("no port of {}-{} is free; widen --tenant-ports", .0.start(), .0.end())]
    NoPort(RangeInclusive<u16>),
    #[error(
        "no port of {}-{} is free but {resting} that other tenants had until lately, the first of them from {from} on; widen --tenant-ports, or shorten --rest",
        .ports.start(), .ports.end()
    )]
    PortsRest { ports: RangeInclusive<u16>, resting: usize, from: Timestamp },
    #[error(
        "a tenant {name} was removed not long ago, and browsers may still hold what it left in them: the name is free from {from} on. Take another name, restore that tenant from a backup, or shorten the host's setting --rest"
    )]
    NameRests { name: TenantName, from: Timestamp },
    #[error(
        "no uid of {}-{} is free for a tenant's workers; remove a tenant, or widen --uids and start again",
        .0.start(), .0.end()
    )]
    NoUid(RangeInclusive<u32>),
    #[error(
        "files of an earlier tenant {name} cannot be removed ({error}); remove them by hand, or take another name"
    )]
    Left { name: TenantName, error: io::Error },
    #[error("the tenant's first generation could not be made")]
    Generation(#[from] GenerationError),
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl Fault for ProvisionError {
    fn verdict(&self) -> Verdict {
        let failed = "the tenant could not be made or removed; the host's log says why";
        match self {
            Self::Unknown(_) => Verdict::caller(Code::NotFound, self),
            Self::Exists(_) | Self::NameRests { .. } => Verdict::caller(Code::Conflict, self),
            Self::NoPort(_) | Self::PortsRest { .. } | Self::NoUid(_) => {
                Verdict::limit(Code::Conflict, self)
            }
            Self::Left { .. } => Verdict::host(Code::Conflict, self),
            Self::Generation(error) => error.verdict().within(failed),
            // It says itself what to do.
            Self::Store(error @ StoreError::Sealed(_)) => error.verdict(),
            Self::Store(error) => error.verdict().within(failed),
        }
    }
}

/// Where tenants are, and how long what one of them has left is nobody's.
#[derive(Debug, Clone)]
pub struct Addresses {
    pub bind: IpAddr,
    pub ports: RangeInclusive<u16>,
    pub rest: Duration,
}

#[derive(Clone)]
pub struct Provision {
    store: Store,
    fleet: Fleet,
    generations: Generations,
    settings: Settings,
    logs: Logs,
    addresses: Addresses,
    /// For tenants' workers, where they can have users of their own.
    uids: Option<RangeInclusive<u32>>,
    /// One at a time looks for a port and a user, or gives them back.
    creating: Arc<Mutex<()>>,
}

impl Provision {
    pub fn new(
        store: Store,
        fleet: Fleet,
        generations: Generations,
        settings: Settings,
        logs: Logs,
        addresses: Addresses,
        uids: Option<RangeInclusive<u32>>,
    ) -> Self {
        let creating = Arc::default();
        Self { store, fleet, generations, settings, logs, addresses, uids, creating }
    }

    /// Sees to it that tenants of a store that was restored have ports of this host's. To be called
    /// before any of them is bound.
    pub async fn settle_ports(&self) -> Result<(), ProvisionError> {
        let ports = &self.addresses.ports;
        match self.store.settle_ports(ports.clone()).await {
            Ok(settled) => {
                for (tenant, before, port) in settled {
                    warn!(%tenant, before, port, "the tenant's port is not one of --tenant-ports, so the tenant has another port now");
                }
                Ok(())
            }
            Err(StoreError::Missing(_)) => Err(ProvisionError::NoPort(ports.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives each tenant what it lacks of this machine: a user of its own.
    pub async fn settle(&self) -> Result<(), ProvisionError> {
        let Some(uids) = &self.uids else { return Ok(()) };
        if !self.store.lacks_uids().await? {
            return Ok(());
        }
        match self.store.give_uids(uids.clone(), self.generations.left_uids()).await? {
            0 => Ok(()),
            _ => Err(ProvisionError::NoUid(uids.clone())),
        }
    }

    /// Removes what is left of tenants that are no more.
    pub async fn sweep(&self) -> Result<(), ProvisionError> {
        // A removal that failed on its way to the disk may not be there.
        if self.store.is_read_only() {
            return Ok(());
        }
        // Whoever comes or goes meanwhile waits.
        let _creating = self.creating.lock().await;
        let tenants = self.store.tenants().await?;
        Ok(self.generations.forget_strangers(&tenants).await.map_err(GenerationError::Disk)?)
    }

    /// Where a tenant's functions are called.
    pub fn url(&self, tenant: &Tenant) -> String {
        let ip = match self.addresses.bind {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        format!("http://{}", std::net::SocketAddr::new(ip, tenant.port))
    }

    /// Makes a tenant, which has the bundled functions at once, and its owner's token, which is shown once.
    pub async fn create(
        &self,
        name: TenantName,
        by: &Author,
    ) -> Result<(Tenant, String), ProvisionError> {
        let _creating = self.creating.lock().await;
        match self.store.tenant(&name).await? {
            // A making that failed could not be taken back then.
            Some(half) if half.generation == GenerationNumber::NONE => self.undo(&half).await,
            Some(_) => return Err(ProvisionError::Exists(name)),
            None => {}
        }
        if let Some(freed) = self.store.name_freed_at(&name).await?
            && let Some(from) = ports::rests_until(freed, self.addresses.rest, Timestamp::now())
        {
            return Err(ProvisionError::NameRests { name, from });
        }
        let taken = self.store.ports().await?;
        let (listener, port) = self.bind_free(&taken).await?;
        fail::moment(Point::TenantBound);
        let tenant = match self.store.create_tenant(name.clone(), port).await {
            Err(StoreError::Exists) => return Err(ProvisionError::Exists(name)),
            tenant => tenant?,
        };
        fail::moment(Point::TenantMade);
        let founded = async {
            self.settle().await?;
            let tenant = self.current(&tenant).await?;
            self.found(&tenant, by).await
        };
        let token = match founded.await {
            Ok(token) => token,
            Err(error) => {
                self.undo(&tenant).await;
                return Err(error);
            }
        };
        fail::moment(Point::TenantFounded);
        let tenant = self.current(&tenant).await?;
        let grants = self.store.grants(tenant.id).await?;
        self.fleet.add(tenant.clone(), grants, listener);
        info!(tenant = %tenant.name, port, %by, "tenant created");
        Ok((tenant, token))
    }

    /// Takes tenants over from a backup that was checked, to the ports that they had where these
    /// are free. All of them come, or none does.
    pub async fn take_over(
        &self,
        staged: &Staged,
        names: &[TenantName],
        secrets: Taking,
        by: &Author,
    ) -> Result<Vec<Tenant>, ProvisionError> {
        let _creating = self.creating.lock().await;
        let mut taken = self.store.ports().await?;
        let freed = self.store.freed_ports().await?;
        let (mut wanted, mut listeners) = (Vec::new(), Vec::new());
        for name in names {
            let own = staged.contents.tenants.get(name);
            let own = own.copied().ok_or_else(|| ProvisionError::Unknown(name.clone()))?;
            if self.store.tenant(name).await?.is_some() {
                return Err(ProvisionError::Exists(name.clone()));
            }
            // One that somebody else had last may still be in browsers as theirs.
            let rests = freed.get(&own).is_some_and(|freed| {
                freed.name != *name
                    && ports::rests_until(freed.at, self.addresses.rest, Timestamp::now()).is_some()
            });
            // A backup may name any port; the host has its own.
            let is_own = self.addresses.ports.contains(&own);
            let bound = match is_own && !taken.contains(&own) && !rests {
                // Where it was just removed, its last worker may have the port for a moment yet.
                true => {
                    let bound = fleet::bind_patiently(self.addresses.bind, own).await;
                    bound.ok().map(|it| (it, own))
                }
                false => None,
            };
            let (listener, port) = match bound {
                Some(bound) => bound,
                None => self.bind_free(&taken).await?,
            };
            taken.insert(port);
            wanted.push((name.clone(), port));
            listeners.push(listener);
        }
        let tenants = {
            let _arriving = self.generations.arriving().await;
            let from = staged.directory.path();
            self.generations.take_over(from, names).await.map_err(GenerationError::Disk)?;
            let file = from.join(store::FILE);
            let imported = self.store.import(file, wanted, secrets, by.clone()).await;
            // What failed on its way to the disk may be there all the same, and names these.
            if imported.is_err() && !self.store.is_read_only() {
                self.generations.remove_trees(names).await.map_err(GenerationError::Disk)?;
            }
            imported?
        };
        tenants.iter().for_each(|tenant| self.settings.knows(tenant.id));
        let completed = match self.complete(&tenants, by).await {
            Ok(completed) => completed,
            // As above.
            Err(error) if self.store.is_read_only() => return Err(error),
            Err(error) => {
                for tenant in &tenants {
                    self.undo(tenant).await;
                }
                return Err(error);
            }
        };
        let mut here = Vec::new();
        for ((tenant, grants), listener) in completed.into_iter().zip(listeners) {
            self.fleet.add(tenant.clone(), grants, listener);
            info!(tenant = %tenant.name, port = tenant.port, %by, "tenant restored");
            here.push(tenant);
        }
        Ok(here)
    }

    /// What restored tenants lack: a user of this machine's, and the first generation of those
    /// that the backup was made before.
    async fn complete(
        &self,
        tenants: &[Tenant],
        by: &Author,
    ) -> Result<Vec<(Tenant, Vec<TokenGrant>)>, ProvisionError> {
        self.settle().await?;
        let mut completed = Vec::new();
        for tenant in tenants {
            let mut tenant = self.current(tenant).await?;
            if tenant.generation == GenerationNumber::NONE {
                let _arriving = self.generations.arriving().await;
                let first = self.first(&tenant, Cause::Restored, by).await?;
                self.store.commit_generation(first).await?;
                tenant = self.current(&tenant).await?;
            }
            let grants = self.store.grants(tenant.id).await?;
            completed.push((tenant, grants));
        }
        Ok(completed)
    }

    /// A tenant as it is by now.
    async fn current(&self, tenant: &Tenant) -> Result<Tenant, StoreError> {
        self.store.tenant_by_id(tenant.id).await?.ok_or(StoreError::Missing("tenant"))
    }

    /// A new tenant's first generation, and its owner's token.
    async fn found(&self, tenant: &Tenant, by: &Author) -> Result<String, ProvisionError> {
        let _arriving = self.generations.arriving().await;
        // What an earlier one of that name could not be rid of must not become this one's.
        let forgotten = self.generations.forget(tenant).await;
        forgotten.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                GenerationError::Disk(error).into()
            }
            _ if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                GenerationError::Disk(error).into()
            }
            _ => ProvisionError::Left { name: tenant.name.clone(), error },
        })?;
        let first = self.first(tenant, Cause::Created, by).await?;
        Ok(self.store.found_tenant(first).await?)
    }

    /// Writes a tenant's first generation, which is then to be committed: nothing of its own, over
    /// what comes with this build.
    async fn first(
        &self,
        tenant: &Tenant,
        cause: Cause,
        by: &Author,
    ) -> Result<NewGeneration, ProvisionError> {
        self.generations.write(tenant, GenerationNumber::FIRST, &OwnFunctions::default()).await?;
        Ok(NewGeneration {
            tenant: tenant.id,
            generation: GenerationNumber::FIRST,
            cause,
            by: by.clone(),
            bundle: self.generations.bundle().mounts.clone(),
            changes: Vec::new(),
        })
    }

    /// Takes back a tenant of which nobody was told: without a generation it is none.
    async fn undo(&self, tenant: &Tenant) {
        if let Err(error) = self.store.delete_tenant(tenant.id).await {
            // The next start takes it back.
            warn!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "a tenant could not be removed completely");
        }
        self.forget(tenant).await;
    }

    /// The tenants that there are. One that an earlier host was killed over before it had its
    /// first generation is none, and is taken back.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        let (whole, half): (Vec<_>, Vec<_>) = self
            .store
            .tenants()
            .await?
            .into_iter()
            .partition(|tenant| tenant.generation > GenerationNumber::NONE);
        for tenant in half {
            self.undo(&tenant).await;
        }
        Ok(whole)
    }

    /// A port that is nobody's, and has been for longest.
    async fn bind_free(&self, taken: &HashSet<u16>) -> Result<(OwnedFd, u16), ProvisionError> {
        let Addresses { bind, ports, rest } = &self.addresses;
        let freed = self.store.freed_ports().await?;
        let free = ports::free(ports.clone(), taken, &freed, *rest, Timestamp::now());
        let mut bound = free.ports.into_iter();
        let bound = bound.find_map(|port| Some((sockets::bind(*bind, port).ok()?, port)));
        bound.ok_or_else(|| match free.resting_until {
            None => ProvisionError::NoPort(ports.clone()),
            Some(from) => {
                ProvisionError::PortsRest { ports: ports.clone(), resting: free.resting, from }
            }
        })
    }

    /// Ends a tenant and removes all that was kept of it.
    pub async fn delete(&self, tenant: &Tenant, by: &Author) -> Result<(), ProvisionError> {
        // Its name and its user are nobody else's before its files are gone.
        let _creating = self.creating.lock().await;
        let rest = self.addresses.rest;
        let forgotten = Timestamp::now().checked_sub(rest).unwrap_or(Timestamp::MIN);
        self.store.retire_tenant(tenant.id, forgotten, by.clone()).await?;
        fail::moment(Point::TenantDeleted);
        self.fleet.remove(&tenant.name).await;
        fail::moment(Point::TenantLogs);
        self.logs.remove(&tenant.name).await;
        self.forget(tenant).await;
        fail::moment(Point::TenantGone);
        info!(tenant = %tenant.name, %by, "tenant removed");
        Ok(())
    }

    async fn forget(&self, tenant: &Tenant) {
        if let Err(error) = self.generations.forget(tenant).await {
            // Every sweep finds a tree without a tenant and tries again.
            warn!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "files of a removed tenant could not be removed");
        }
    }
}
