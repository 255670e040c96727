//! The birth and the end of a tenant: a port of its own, the bundled functions, an owner's token;
//! and the removal of all of it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use hearth_wire::{Code, OptionsPatch, Problem, Scope, TenantName};
use jiff::Timestamp;
use tokio::sync::Mutex;
use tracing::{error, info, warn};

use crate::backup::Staged;
use crate::fleet::{self, Fleet, sockets};
use crate::logs::Logs;
use crate::release::{Bundled, ReleaseError, Releases};
use crate::store::{self, Change, NewGeneration, Store, StoreError, Tenant, VersionRow};

#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    #[error("there is a tenant {0} already")]
    Exists(TenantName),
    #[error("the backup has no tenant {0}")]
    Unknown(TenantName),
    #[error("no port of {}-{} is free; widen --tenant-ports", .0.start(), .0.end())]
    NoPort(RangeInclusive<u16>),
    #[error("the tenant's first generation could not be made")]
    Release(#[from] ReleaseError),
    #[error("the store")]
    Store(#[from] StoreError),
}

impl ProvisionError {
    /// What the caller is told. What is ours to mend is logged, with its causes.
    pub fn problem(&self) -> Problem {
        if let Self::Release(_) | Self::Store(_) = self {
            error!(error = self as &dyn std::error::Error, "a tenant could not be made or removed");
        }
        match self {
            Self::Unknown(_) => Problem::new(Code::NotFound, self.to_string()),
            Self::Exists(_) | Self::NoPort(_) => Problem::new(Code::Conflict, self.to_string()),
            Self::Store(StoreError::Full(_)) => {
                Problem::new(Code::StorageFull, "the host's disk is full")
            }
            Self::Release(_) | Self::Store(_) => {
                let detail = "the tenant could not be made or removed; the host's log says why";
                Problem::new(Code::Internal, detail)
            }
        }
    }
}

#[derive(Clone)]
pub struct Provision {
    store: Store,
    fleet: Fleet,
    releases: Releases,
    logs: Logs,
    bind: IpAddr,
    ports: RangeInclusive<u16>,
    bundled: Arc<[Bundled]>,
    /// One at a time looks for a port, or removes what is a tenant's.
    creating: Arc<Mutex<()>>,
}

impl Provision {
    pub fn new(
        store: Store,
        fleet: Fleet,
        releases: Releases,
        logs: Logs,
        (bind, ports): (IpAddr, RangeInclusive<u16>),
        bundled: Vec<Bundled>,
    ) -> Self {
        let creating = Arc::default();
        Self { store, fleet, releases, logs, bind, ports, bundled: bundled.into(), creating }
    }

    /// Where a tenant's functions are called.
    pub fn url(&self, tenant: &Tenant) -> String {
        let ip = match self.bind {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        format!("http://{}", std::net::SocketAddr::new(ip, tenant.port))
    }

    /// Makes a tenant with the bundled functions, and its owner's token, which is shown once.
    pub async fn create(
        &self,
        name: TenantName,
        by: &str,
    ) -> Result<(Tenant, String), ProvisionError> {
        let _creating = self.creating.lock().await;
        if self.store.tenant(&name).await?.is_some() {
            return Err(ProvisionError::Exists(name));
        }
        let taken = self.store.ports().await?;
        let (listener, port) =
            self.bind_free(&taken).ok_or_else(|| ProvisionError::NoPort(self.ports.clone()))?;
        let tenant = match self.store.create_tenant(name.clone(), port).await {
            Err(StoreError::Exists) => return Err(ProvisionError::Exists(name)),
            tenant => tenant?,
        };
        let tenant = self.complete(tenant, by).await?;
        let token =
            self.store.create_token(Some(tenant.id), "owner".to_owned(), Scope::Owner, None);
        let (_, token) = token.await?;
        let grants = self.store.grants(tenant.id).await?;
        self.fleet.add(tenant.clone(), grants, listener);
        info!(tenant = %tenant.name, port, by, "tenant created");
        Ok((tenant, token))
    }

    /// Takes tenants over from a backup that was checked, to the ports that they had where these
    /// are free. All of them come, or none does.
    pub async fn take_over(
        &self,
        staged: &Staged,
        names: &[TenantName],
        by: &str,
    ) -> Result<Vec<Tenant>, ProvisionError> {
        let _creating = self.creating.lock().await;
        let mut taken = self.store.ports().await?;
        let (mut wanted, mut listeners) = (Vec::new(), Vec::new());
        for name in names {
            let own = staged.contents.tenants.get(name);
            let own = own.copied().ok_or_else(|| ProvisionError::Unknown(name.clone()))?;
            if self.store.tenant(name).await?.is_some() {
                return Err(ProvisionError::Exists(name.clone()));
            }
            let bound = match taken.contains(&own) {
                // Where it was just removed, its last worker may have the port for a moment yet.
                false => fleet::bind_patiently(self.bind, own).await.ok().map(|it| (it, own)),
                true => None,
            };
            let bound = bound.or_else(|| self.bind_free(&taken));
            let (listener, port) =
                bound.ok_or_else(|| ProvisionError::NoPort(self.ports.clone()))?;
            taken.insert(port);
            wanted.push((name.clone(), port));
            listeners.push(listener);
        }
        let tenants = {
            let _arriving = self.releases.arriving().await;
            let from = staged.directory.path();
            self.releases.take_over(from, names).await.map_err(ReleaseError::Disk)?;
            let imported = self.store.import(from.join(store::FILE), wanted).await;
            if imported.is_err() {
                self.releases.remove_trees(names).await.map_err(ReleaseError::Disk)?;
            }
            imported?
        };
        let mut here = Vec::new();
        for (tenant, listener) in tenants.into_iter().zip(listeners) {
            let tenant = self.complete(tenant, by).await?;
            let grants = self.store.grants(tenant.id).await?;
            self.fleet.add(tenant.clone(), grants, listener);
            info!(tenant = %tenant.name, port = tenant.port, by, "tenant restored");
            here.push(tenant);
        }
        Ok(here)
    }

    /// Gives a tenant its first generation, where the host stopped before it had one.
    pub async fn complete(&self, tenant: Tenant, by: &str) -> Result<Tenant, ProvisionError> {
        if tenant.generation > 0 {
            return Ok(tenant);
        }
        let _arriving = self.releases.arriving().await;
        let rows: Vec<VersionRow> = self.bundled.iter().map(first_version).collect();
        let generation = 1;
        self.releases.write(&tenant, generation, &rows).await?;
        self.store
            .commit_generation(NewGeneration {
                tenant: tenant.id,
                generation,
                cause: "created".to_owned(),
                by: by.to_owned(),
                changes: rows.into_iter().map(Change::Add).collect(),
            })
            .await?;
        Ok(Tenant { generation, ..tenant })
    }

    fn bind_free(&self, taken: &HashSet<u16>) -> Option<(OwnedFd, u16)> {
        let mut free = self.ports.clone().filter(|port| !taken.contains(port));
        free.find_map(|port| Some((sockets::bind(self.bind, port).ok()?, port)))
    }

    /// Ends a tenant and removes all that was kept of it.
    pub async fn delete(&self, tenant: &Tenant, by: &str) -> Result<(), ProvisionError> {
        // Nobody of its name comes before its files are gone.
        let _creating = self.creating.lock().await;
        self.store.delete_tenant(tenant.id).await?;
        self.fleet.remove(&tenant.name).await;
        self.logs.remove(&tenant.name).await;
        if let Err(error) = self.releases.forget(tenant).await {
            // The next start finds a tree without a tenant and removes it.
            warn!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "files were left");
        }
        info!(tenant = %tenant.name, by, "tenant removed");
        Ok(())
    }
}

fn first_version(function: &Bundled) -> VersionRow {
    let Bundled { path, module } = function;
    VersionRow {
        path: path.clone(),
        version: 1,
        sha256: module.sha256,
        size: module.size,
        stored: module.stored,
        kind: module.kind,
        imports: module.imports.clone(),
        declared: module.declared.clone(),
        uploaded: OptionsPatch::default(),
        set: OptionsPatch::default(),
        bundled: true,
        created_at: Timestamp::now(),
        created_by: "hearth".to_owned(),
    }
}
