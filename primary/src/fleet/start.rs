//! How one worker is started: its generation and its cgroup are made ready, what it is to know is laid
//! into its control socket, and the zygote forks it. What comes of it is told the supervisor.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_wire::{
    Cell, Channel, GenerationNumber, Limits, Moment, Serves, Setting, Start, TenantName, ToWorker,
    VERSION, pair,
};
use tracing::{error, warn};

use super::cgroups::Group;
use super::conversation::Conversation;
use super::inbox::{Command, Inbox, Newborn, StartError};
use super::lifecycle::WorkerId;
use super::shared::Shared;
use super::unbound::Unbound;
use super::zygote::{Fork, ZygoteError};
use crate::fault::{Fault, is_short};
use crate::generations::Prepared;
use crate::isolation::Level;
use crate::settings::SettingsError;
use crate::stderr::{self, Speaker};
use crate::store::Tenant;

/// For a worker that was born to read what it is to know, where that does not fit its socket.
const TELL_DEADLINE: Duration = Duration::from_secs(60);
/// How often one fork is asked for where zygotes die over it.
const FORK_TRIES: u32 = 5;

/// What a worker is to know at its birth, besides how it starts.
pub struct Known {
    /// Where it is not what is kept.
    pub settings: Option<Vec<Setting>>,
    pub told: Vec<ToWorker>,
}

/// What a worker is told first.
pub fn start(
    tenant: &TenantName,
    generation: GenerationNumber,
    serves: Serves,
    woken_at: Option<Moment>,
    shared: &Shared,
) -> Start {
    Start {
        version: VERSION,
        tenant: tenant.clone(),
        generation,
        serves,
        idle: shared.idle,
        woken_at,
        trusted_proxies: shared.trusted_proxies.clone(),
        trusted_headers: shared.trusted_headers.clone(),
        domain: shared.names.domain_of(tenant).map(str::to_owned),
        // How many there are, and how large it may be, is known where they are at hand.
        settings: 0,
        state_bytes: 0,
    }
}

/// Prepares a generation and has a worker forked for it.
pub async fn fork(
    mut start: Start,
    worker: WorkerId,
    known: Known,
    tenant: Tenant,
    listener: Result<Arc<OwnedFd>, Unbound>,
    inbox: Inbox,
    shared: Arc<Shared>,
) {
    let newborn = async {
        let host = |error: &dyn std::error::Error| StartError::Host(error.to_string());
        let listener = listener.map_err(|unbound| StartError::Generation(unbound.to_string()))?;
        if shared.has_uids && tenant.uid.is_none() {
            let reason = "no uid is free for its workers: the host's operator widens --uids";
            return Err(StartError::Generation(reason.to_owned()));
        }
        let Known { settings, told } = known;
        let settings = async {
            match settings {
                Some(settings) => Ok(settings),
                None => shared.settings.of(&tenant).await,
            }
        };
        let prepared = shared.generations.prepare(&tenant, start.generation);
        let (prepared, settings) = tokio::join!(prepared, settings);
        let prepared =
            prepared.map_err(|error| {
                let told = error.verdict().told;
                error!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "a generation could not be prepared");
                if is_short(&error) { StartError::Host(told) } else { StartError::Generation(told) }
            })?;
        let settings = Setting::parts(settings.map_err(unopened)?);
        start.settings = settings.len() as u32;
        let settings: Vec<_> = settings.into_iter().map(ToWorker::Settings).collect();
        let permit = shared.starts.clone().acquire_owned().await.map_err(|error| host(&error))?;
        let noticed = start.woken_at.map(Moment::instant);
        let Prepared { generation, state, limits, state_bytes } = prepared;
        let start = ToWorker::Start(Start { state_bytes, ..start });
        let release = Arc::new(generation);
        // Without Landlock nothing would keep a worker to it.
        let state = (shared.isolation > Level::D).then(|| Arc::new(state));
        let cgroup = cgroup(&tenant, limits, &shared).await;
        let cell = Cell {
            // One that an earlier host gave it is not to be had everywhere.
            uid: tenant.uid.filter(|_| shared.has_uids),
            // A cgroup counts what is really taken, of all workers of the tenant together.
            data_bytes: cgroup.is_none().then_some(limits.total_memory_mb << 20),
        };
        let mut tries = 1;
        let (forked, channel, conversation) = loop {
            let (ours, theirs) = pair().map_err(|error| host(&error))?;
            let (said, errors) = io::pipe().map_err(|error| host(&error))?;
            let fork = Fork {
                control: theirs,
                listener: listener.clone(),
                release: release.clone(),
                state: state.clone(),
                errors: errors.into(),
                cell,
                cgroup: cgroup.clone(),
                noticed,
            };
            // While the zygote forks: none of it is needed before there is somebody to need it.
            let beside = async {
                tokio::task::yield_now().await;
                tokio::spawn(stderr::relay(said, Speaker::worker(tenant.name.clone())));
                let channel = Channel::new(ours).map_err(|error| host(&error))?;
                let mut conversation = Conversation::new(Instant::now());
                // All of it fits the socket's buffer, unless there are many settings: then it is told
                // while the worker reads, which it does first.
                let telling = async {
                    for message in std::iter::once(&start).chain(&settings).chain(&told) {
                        conversation.told(message);
                        channel.send(message, &[]).await.map_err(|error| host(&error))?;
                    }
                    Ok::<_, StartError>(())
                };
                let late = "it did not read in time what it was told";
                tokio::time::timeout(TELL_DEADLINE, telling)
                    .await
                    .map_err(|_| StartError::Host(late.to_owned()))??;
                Ok::<_, StartError>((channel, conversation))
            };
            let (forked, talk) = tokio::join!(shared.zygote.fork(fork), beside);
            match forked {
                Err(ZygoteError::Gone) if tries < FORK_TRIES => tries += 1,
                Err(error) => return Err(host(&error)),
                Ok(forked) => {
                    let (channel, conversation) = talk?;
                    break (forked, channel, conversation);
                }
            }
        };
        Ok(Newborn { forked, channel, conversation, permit })
    };
    let newborn = newborn.await;
    let _ = inbox.send(Box::new(Command::Forked(worker, Box::new(newborn)))).await;
}

/// Why a tenant's settings could not be had.
fn unopened(error: SettingsError) -> StartError {
    match error {
        SettingsError::Closed(_) => StartError::Sealed(error.to_string()),
        error => StartError::Host(error.verdict().told),
    }
}

/// The tenant's group, where this machine has any: made with its first worker, and from then on at
/// hand. That one cannot be made is told, and is no reason for not serving.
async fn cgroup(tenant: &Tenant, limits: Limits, shared: &Arc<Shared>) -> Option<Arc<Group>> {
    // A thread more is for what blocks, which a tenant that was woken before has behind it.
    if let Some(group) = shared.cgroups.as_ref()?.at_hand(&tenant.name, &limits) {
        return Some(group);
    }
    let (shared, name) = (shared.clone(), tenant.name.clone());
    let found = tokio::task::spawn_blocking(move || {
        shared.cgroups.as_ref().map(|cgroups| cgroups.group(&name, &limits))
    });
    match found.await.ok()?? {
        Ok(group) => Some(group),
        Err(error) => {
            warn!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "no cgroup");
            None
        }
    }
}
