//! One change of what a tenant serves, from a request's body to a serving generation: upload,
//! rollback, removal, other options, other limits.
//!
//! ```text
//! a place ─► body ── parts ──► files as they were sent ──► admitted (unpacked, compiled, kept)
//!   under the tenant's lock: next functions ──► release written ──► fleet.swap ─ commit ─► served
//! ```
//!
//! The one piece of code behind all addresses that take uploads: a tenant's port (through its
//! worker's door), the front door, the management API. Callers have authenticated. What fails
//! before the commit leaves the old generation serving and no metadata; modules that nothing
//! names are swept. What a body is made of is read in [`parts`]. Until an upload's body has come
//! whole it costs its place, its room on the disk, and nothing that others wait for.

pub mod parts;
mod places;
pub mod request;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use dashmap::DashMap;
use hearth_wire::{
    Code, FunctionPath, Generation, LimitError, LimitsPatch, ModuleDigest, NameError, OptionsError,
    OptionsPatch, PathMatch, Problem, Version, limits,
};
use http::HeaderMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tracing::{error, info};
use utoipa::ToSchema;

use crate::actor::Author;
use crate::compile::CompileError;
use crate::fail::{self, Point};
use crate::fleet::{Commit, Fleet, FleetError, SwapError};
use crate::patience::{to_its_end, within};
use crate::release::modules::{IngestError, Kept};
use crate::release::room::{NoRoom, Room};
use crate::release::{Admitted, Held, ReleaseError, Releases};
use crate::store::{
    Action, Cause, Change, Event, NewGeneration, Sides, Store, StoreError, Tenant, TenantId,
    VersionRow,
};
pub use places::Places;
use places::{Crowd, Place};

/// When one that found no place may come again.
pub const COME_AGAIN: Duration = Duration::from_secs(5);

/// How many uploads there are at once, and how long one may take until it is compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intake {
    pub places: Places,
    pub time: Duration,
}

/// Changes of one tenant that wait for their turn.
const CHANGES_WAITING_MAX: usize = 64;
/// How long one waits. Each that is before it takes a minute at the worst, where calls of older
/// workers have to come to their end first.
const TURN_DEADLINE: Duration = Duration::from_secs(10 * 60);

#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("{CHANGES_WAITING_MAX} changes of this tenant wait for their turn already")]
    Crowded,
    #[error("the changes of this tenant before this one take too long; nothing changed")]
    NoTurn,
    #[error("too many uploads are under way: one tenant may have {} at once, and all together {}; try again soon", .0.most_of_one, .0.most)]
    TooMany(Places),
    #[error("the upload was not received and compiled within {}", humantime::format_duration(*.0))]
    Late(Duration),
    #[error("{}", .0.detail)]
    Packed(Box<Problem>),
    #[error("the head of a part is longer than any needs to be")]
    PartHead,
    #[error("the upload is not valid multipart/form-data: {0}")]
    Multipart(#[from] multer::Error),
    #[error("the upload has no file; send one as a part named, for example, hello.wasm")]
    NoFile,
    #[error("an upload may have {} files", parts::FILES_MAX)]
    TooManyFiles,
    #[error("a file must be named NAME.wasm or NAME.wasm.zst, not {0:?}")]
    FileName(String),
    #[error(
        "the part {0:?} has no file name, and only the part `options` may have none; send filename=\"NAME.wasm\""
    )]
    NoFileName(String),
    #[error(
        "the part {0:?} names its file with `filename*` alone, which is not for forms; send filename=\"NAME.wasm\""
    )]
    ExtendedFileName(String),
    #[error("{file:?} does not give a valid path of a function: {source}")]
    Path { file: String, source: NameError },
    #[error("two parts of the upload give one function: {0} and {1}")]
    Twice(FunctionPath, FunctionPath),
    #[error("the upload has two parts named `options`")]
    TwoOptions,
    #[error("the `options` part is above {} KiB", limits::OPTIONS_MAX_BYTES >> 10)]
    OptionsTooLarge,
    #[error("{0}")]
    Options(#[from] OptionsError),
    #[error("{path}: {source}")]
    OptionsRefused { path: FunctionPath, source: ReleaseError },
    #[error("{0}")]
    Limits(#[from] LimitError),
    #[error("an upload may have {}", limits::size(*.0))]
    TooLarge(u64),
    #[error(
        "with several files, `options` is an object from file name to options, and {0:?} is the name of none"
    )]
    OptionsFor(String),
    #[error("{file:?}: {source}")]
    Module { file: String, source: ReleaseError },
    #[error("{path} differs from {existing} only in case; remove that first")]
    Case { path: FunctionPath, existing: FunctionPath },
    #[error("this tenant may have {0} functions")]
    TooManyFunctions(u64),
    #[error(
        "{0} and {1} both have the option `path: \"root\"`, and a tenant may have one such function: change or remove one of them first"
    )]
    TwoRoots(FunctionPath, FunctionPath),
    #[error("there is no function at {0}")]
    NoFunction(FunctionPath),
    #[error("{path} has no version {version}")]
    NoVersion { path: FunctionPath, version: Version },
    #[error("{path} has no version before {active}")]
    NoOlder { path: FunctionPath, active: Version },
    #[error("there is no such tenant")]
    NoTenant,
    #[error("{source}; generation {current} still serves")]
    Swap { current: Generation, source: SwapError },
    #[error("the release could not be written")]
    Release(#[from] ReleaseError),
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl UploadError {
    /// What the uploader is told.
    pub fn problem(&self) -> Problem {
        let code = match self {
            Self::Multipart(multer::Error::StreamSizeExceeded { limit }) => {
                return Self::TooLarge(*limit).problem();
            }
            Self::Multipart(multer::Error::StreamReadFailed(_)) => {
                return Problem::new(Code::BadRequest, Problem::BROKEN_BODY);
            }
            Self::Packed(problem) => return (**problem).clone(),
            Self::TooMany(_) => Code::TooManyRequests,
            Self::Late(_) => Code::RequestTimeout,
            Self::PartHead => Code::TooLarge,
            Self::Multipart(_)
            | Self::NoFile
            | Self::TooManyFiles
            | Self::Twice(..)
            | Self::TwoOptions
            | Self::Options(_)
            | Self::Limits(_)
            | Self::OptionsFor(_) => Code::BadRequest,
            Self::FileName(_)
            | Self::NoFileName(_)
            | Self::ExtendedFileName(_)
            | Self::Path { .. } => Code::InvalidPath,
            Self::OptionsTooLarge | Self::TooLarge(_) => Code::TooLarge,
            Self::Module { file, source } => return module_problem(file, source),
            Self::OptionsRefused { path, source } => {
                let code = match source {
                    ReleaseError::Compile(CompileError::Refused(_)) => Code::BadRequest,
                    other => other.code(),
                };
                return Problem::new(code, format!("{path}: {}", source.for_owner()));
            }
            Self::Case { .. }
            | Self::TooManyFunctions(_)
            | Self::TwoRoots(..)
            | Self::NoOlder { .. } => Code::Conflict,
            Self::Crowded => Code::TooManyRequests,
            Self::NoTurn => Code::WorkerUnavailable,
            Self::NoFunction(_) | Self::NoVersion { .. } | Self::NoTenant => Code::NotFound,
            Self::Swap { source: SwapError::Busy, .. } => Code::Conflict,
            Self::Swap { source: SwapError::NoTenant, .. } => Code::NotFound,
            Self::Swap { source: SwapError::NotStarted(_), .. } => Code::WorkerUnavailable,
            Self::Release(error) => return Problem::new(error.code(), error.for_owner()),
            Self::Store(StoreError::Full(_)) => {
                return Problem::new(Code::StorageFull, "the host's disk is full; nothing changed");
            }
            Self::Store(error @ StoreError::ReadOnly) => {
                return Problem::new(Code::StorageFull, error.to_string());
            }
            Self::Store(StoreError::Disk(_)) => {
                let detail =
                    "the host's disk failed: if the change is there shows when Hearth starts again";
                return Problem::new(Code::StorageFull, detail);
            }
            Self::Store(_) => {
                return Problem::new(Code::Internal, "the host's store failed; nothing changed");
            }
        };
        Problem::new(code, self.to_string())
    }
}

fn module_problem(file: &str, error: &ReleaseError) -> Problem {
    let code = match error {
        ReleaseError::Ingest(IngestError::TooLarge(_) | IngestError::TooDense) => Code::TooLarge,
        ReleaseError::Ingest(IngestError::NotZstd | IngestError::Empty)
        | ReleaseError::Compile(CompileError::Refused(_))
        | ReleaseError::Options(_) => Code::InvalidModule,
        other => other.code(),
    };
    let imports = match error {
        ReleaseError::Compile(CompileError::Refused(diagnosis)) => diagnosis.imports.clone(),
        _ => Vec::new(),
    };
    Problem { imports, ..Problem::new(code, format!("{file}: {}", error.for_owner())) }
}

/// The answer to an upload, given once the new generation serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Uploaded {
    pub uploaded: bool,
    #[schema(value_type = u64)]
    pub generation: Generation,
    pub functions: Vec<UploadedFunction>,
    /// Receiving excluded.
    pub compile_ms: u64,
    /// From the new generation being started until the old one takes no more connections.
    pub swap_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UploadedFunction {
    #[schema(value_type = String, example = "/hello")]
    pub path: FunctionPath,
    #[schema(value_type = u32)]
    pub version: Version,
    #[schema(value_type = String)]
    pub sha256: ModuleDigest,
    /// Bytes unpacked.
    pub size: u64,
    /// Bytes as kept.
    pub stored: u64,
    pub imports: Vec<String>,
    /// The same module with the same options was active already: nothing changed.
    pub unchanged: bool,
}

/// The answer to a rollback or a removal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Switched {
    #[schema(value_type = String, example = "/hello")]
    pub path: FunctionPath,
    /// The version that is active now; null once removed.
    #[schema(value_type = Option<u32>)]
    pub version: Option<Version>,
    #[schema(value_type = u64)]
    pub generation: Generation,
    pub swap_ms: u64,
}

/// An upload whose body came whole.
struct Taken {
    tenant: Tenant,
    room: Arc<Room>,
    incoming: Vec<parts::Incoming>,
    patches: HashMap<FunctionPath, OptionsPatch>,
    /// Of an upload's whole time.
    left: Duration,
    _place: Place,
}

#[derive(Clone)]
pub struct Uploads {
    store: Store,
    fleet: Fleet,
    releases: Releases,
    crowd: Crowd,
    intake: Intake,
    /// One change of a tenant at a time.
    changing: Arc<DashMap<TenantId, Arc<Mutex<()>>>>,
}

impl Uploads {
    pub fn new(store: Store, fleet: Fleet, releases: Releases, intake: Intake) -> Self {
        let crowd = Crowd::new(intake.places.clone());
        Self { store, fleet, releases, crowd, intake, changing: Arc::default() }
    }

    /// Takes an upload: all its files go live together, or none does. A caller that leaves before
    /// its body is whole ends it, and nothing of it is kept; from then on it is carried out.
    pub async fn receive(
        &self,
        tenant: &Tenant,
        dir: Option<FunctionPath>,
        headers: &HeaderMap,
        body: Body,
        by: &Author,
    ) -> Result<Uploaded, UploadError> {
        let arrived = self.take(tenant, dir, headers, body).await;
        let (uploads, tenant, by) = (self.clone(), tenant.clone(), by.clone());
        to_its_end(async move {
            let uploaded = match arrived {
                Ok(arrived) => uploads.install(arrived, &by).await,
                Err(error) => Err(error),
            };
            uploads.note(&tenant, &uploaded, &by);
            uploaded
        })
        .await
    }

    fn note(&self, tenant: &Tenant, uploaded: &Result<Uploaded, UploadError>, by: &Author) {
        let outcome = match uploaded {
            Ok(uploaded) => {
                let generation = uploaded.generation;
                info!(tenant = %tenant.name, generation, %by, swap_ms = uploaded.swap_ms, "uploaded");
                "done"
            }
            Err(refused) => {
                let problem = refused.problem();
                if problem.status >= 500 {
                    let error = refused as &dyn std::error::Error;
                    error!(tenant = %tenant.name, %by, error, "upload failed");
                } else {
                    info!(tenant = %tenant.name, %by, reason = problem.detail, "upload refused");
                }
                if problem.status >= 500 { "failed" } else { "refused" }
            }
        };
        metrics::counter!("hearth_uploads_total", "outcome" => outcome).increment(1);
    }

    /// Takes a place, and a body that comes at its sender's pace.
    async fn take(
        &self,
        tenant: &Tenant,
        dir: Option<FunctionPath>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Taken, UploadError> {
        let begun = Instant::now();
        let crowded = || UploadError::TooMany(self.intake.places.clone());
        let place = self.crowd.enter(tenant.id).ok_or_else(crowded)?;
        let taking = async {
            // Its limits may be others than when the caller last saw it.
            let tenant = self.store.tenant_by_id(tenant.id).await?.ok_or(UploadError::NoTenant)?;
            self.make_room(&tenant).await?;
            let room = self.releases.room(&tenant).await?;
            let chunks = body.into_data_stream();
            let spool = || self.releases.spool(&room);
            let (incoming, patches) =
                parts::read(dir.as_ref(), headers, chunks, &tenant.limits(), spool).await?;
            Ok::<_, UploadError>((tenant, room, incoming, patches))
        };
        let taken = within(self.intake.time, taking).await;
        let (tenant, room, incoming, patches) = taken.map_err(|_| self.late())??;
        fail::moment(Point::UploadReceived);
        let left = self.intake.time.saturating_sub(begun.elapsed());
        Ok(Taken { tenant, room, incoming, patches, left, _place: place })
    }

    fn late(&self) -> UploadError {
        UploadError::Late(self.intake.time)
    }

    async fn install(&self, taken: Taken, by: &Author) -> Result<Uploaded, UploadError> {
        let Taken { tenant, room, incoming, patches, left, _place } = taken;
        let begun = Instant::now();
        let mut litter = Litter::new(self, &tenant);
        let admitting = self.admit(&tenant, &room, incoming, patches, &mut litter.modules);
        let modules = tokio::time::timeout(left, admitting).await.map_err(|_| self.late())??;
        let compile_ms = begun.elapsed().as_millis() as u64;
        fail::moment(Point::UploadAdmitted);
        let (admitted, held): (Vec<_>, Vec<_>) = modules
            .into_iter()
            .map(|Module { path, patch, module, held }| ((path, patch, module), held))
            .unzip();
        let changing = self.lock(&tenant).await?;
        // Versions that are one too many go with this one.
        litter.modules.extend(self.store.modules_of(tenant.id).await?);
        let uploaded = self.change(changing, admitted, compile_ms, by).await?;
        held.into_iter().for_each(Held::settle);
        Ok(uploaded)
    }

    /// Compiles what came, each file when it is its tenant's turn.
    async fn admit(
        &self,
        tenant: &Tenant,
        room: &Arc<Room>,
        incoming: Vec<parts::Incoming>,
        mut patches: HashMap<FunctionPath, OptionsPatch>,
        litter: &mut HashSet<ModuleDigest>,
    ) -> Result<Vec<Module>, UploadError> {
        let limits = tenant.limits();
        let mut modules = Vec::new();
        for parts::Incoming { file, path, packing, spooled } in incoming {
            let patch = patches.remove(&path).unwrap_or_default();
            patch.check(&limits)?;
            let refused = |source| UploadError::Module { file: file.clone(), source };
            let sent = (packing, spooled);
            let most = limits.module_bytes;
            let admitted = self.releases.admit(tenant, sent, most, room, litter).await;
            let (module, held) = admitted.map_err(refused)?;
            module.declared.check(&limits).map_err(ReleaseError::Options).map_err(refused)?;
            modules.push(Module { path, patch, module, held });
        }
        Ok(modules)
    }

    /// Before it is said that there is none, what nothing names goes.
    async fn make_room(&self, tenant: &Tenant) -> Result<(), ReleaseError> {
        // What cannot be removed takes its room, and is no reason to refuse what fits beside it.
        if let Err(error) = self.releases.tidy_artifacts(tenant).await {
            error!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "tidy");
        }
        if self.releases.has_room() {
            return Ok(());
        }
        if let Err(error) = self.sweep().await {
            error!(error = &error as &dyn std::error::Error, "sweep");
        }
        if self.releases.has_room() { Ok(()) } else { Err(NoRoom::Host.into()) }
    }

    /// Makes what was admitted the tenant's.
    async fn change(
        &self,
        (tenant, changing): (Tenant, OwnedMutexGuard<()>),
        admitted: Vec<(FunctionPath, OptionsPatch, Admitted)>,
        compile_ms: u64,
        by: &Author,
    ) -> Result<Uploaded, UploadError> {
        let mut live = self.store.live_functions(tenant.id).await?;
        let mut changes = Vec::new();
        let mut functions = Vec::new();
        for (path, uploaded, module) in admitted {
            let (row, unchanged) =
                self.next_version(&tenant, &live, path, uploaded, module, by).await?;
            if !unchanged {
                self.check_options(&tenant, &row).await?;
            }
            functions.push(UploadedFunction {
                path: row.path.clone(),
                version: row.version,
                sha256: row.sha256,
                size: row.size,
                stored: row.stored,
                imports: row.imports.clone(),
                unchanged,
            });
            if !unchanged {
                live.retain(|function| function.path != row.path);
                live.push(row.clone());
                changes.push(Change::Add(row));
            }
        }
        count_functions(&tenant, &live)?;
        let (generation, swap) =
            self.apply(tenant, changing, live, changes, Cause::Upload, by).await?;
        let swap_ms = swap.as_millis() as u64;
        Ok(Uploaded { uploaded: true, generation, functions, compile_ms, swap_ms })
    }

    /// Makes another version of a function the active one; without a number, the one before.
    pub async fn rollback(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
        to: Option<Version>,
        by: &Author,
    ) -> Result<Switched, UploadError> {
        let (tenant, changing) = self.lock(tenant).await?;
        let function = self.store.function(tenant.id, path).await?;
        let function = function.ok_or_else(|| UploadError::NoFunction(path.clone()))?;
        let versions = self.store.versions(tenant.id, &function.path).await?;
        let path = function.path;
        let target = match (to, function.active) {
            (Some(version), _) => versions
                .into_iter()
                .find(|row| row.version == version)
                .ok_or(UploadError::NoVersion { path: path.clone(), version })?,
            (None, Some(active)) => versions
                .into_iter()
                .find(|row| row.version < active)
                .ok_or(UploadError::NoOlder { path: path.clone(), active })?,
            // It was removed: back comes what was active last.
            (None, None) => {
                versions.into_iter().next().ok_or_else(|| UploadError::NoFunction(path.clone()))?
            }
        };
        let version = target.version;
        let mut live = self.store.live_functions(tenant.id).await?;
        let mut changes = Vec::new();
        if function.active != Some(version) {
            self.releases.must_be_whole(&tenant, &target).await?;
            live.retain(|function| function.path != path);
            live.push(target);
            changes.push(Change::Switch { path: path.clone(), version });
        }
        count_functions(&tenant, &live)?;
        let (generation, swap) =
            self.apply(tenant, changing, live, changes, Cause::Rollback, by).await?;
        let swap_ms = swap.as_millis() as u64;
        Ok(Switched { path, version: Some(version), generation, swap_ms })
    }

    /// Takes a function away. Its versions are kept for a while, so that it can be rolled back.
    pub async fn remove(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
        by: &Author,
    ) -> Result<Switched, UploadError> {
        let (tenant, changing) = self.lock(tenant).await?;
        let mut live = self.store.live_functions(tenant.id).await?;
        let before = live.len();
        live.retain(|function| function.path != *path);
        if live.len() == before {
            return Err(UploadError::NoFunction(path.clone()));
        }
        let changes = vec![Change::Remove { path: path.clone() }];
        let (generation, swap) =
            self.apply(tenant, changing, live, changes, Cause::Remove, by).await?;
        let swap_ms = swap.as_millis() as u64;
        Ok(Switched { path: path.clone(), version: None, generation, swap_ms })
    }

    /// Sets options of a function over those of its module and its upload; what is null goes by
    /// these again.
    pub async fn set_options(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
        changes: Map<String, Value>,
        by: &Author,
    ) -> Result<Generation, UploadError> {
        let (tenant, changing) = self.lock(tenant).await?;
        let mut live = self.store.live_functions(tenant.id).await?;
        let function = live.iter_mut().find(|function| function.path == *path);
        let function = function.ok_or_else(|| UploadError::NoFunction(path.clone()))?;
        let before = function.set.clone();
        function.set = before.clone().changed(changes)?;
        function.options().check(&tenant.limits())?;
        let mut change = Vec::new();
        if function.set != before {
            self.check_options(&tenant, function).await?;
            let (path, options) = (function.path.clone(), function.set.clone());
            change.push(Change::Set { path, options });
        }
        Ok(self.apply(tenant, changing, live, change, Cause::Options, by).await?.0)
    }

    /// Sets limits of a tenant; what is `None` is as by default again.
    pub async fn set_limits(
        &self,
        tenant: &Tenant,
        changes: impl IntoIterator<Item = (String, Option<u64>)>,
        by: &Author,
    ) -> Result<LimitsPatch, UploadError> {
        let (tenant, changing) = self.lock(tenant).await?;
        let mut limits = tenant.limits.clone();
        limits.change(changes)?;
        let mut change = Vec::new();
        if limits != tenant.limits {
            change.push(Change::Limits(limits.clone()));
        }
        let live = self.store.live_functions(tenant.id).await?;
        let tenant = Tenant { limits: limits.clone(), ..tenant };
        self.apply(tenant, changing, live, change, Cause::Limits, by).await?;
        Ok(limits)
    }

    async fn check_options(
        &self,
        tenant: &Tenant,
        function: &VersionRow,
    ) -> Result<(), UploadError> {
        function.options().check(&tenant.limits())?;
        let checked = self.releases.check_options(tenant, function).await;
        let path = function.path.clone();
        checked.map_err(|source| UploadError::OptionsRefused { path, source })
    }

    /// Removes from disk what nothing names any more; nothing now while the host makes files of its
    /// own, or if nobody can say what is named.
    pub async fn sweep(&self) -> Result<u64, ReleaseError> {
        if self.store.is_read_only() {
            return Ok(0);
        }
        let Some(_alone) = self.releases.nothing_arrives() else { return Ok(0) };
        for tenant in self.store.tenants().await? {
            // One that is being changed is pruned with that.
            let lock = self.changing.entry(tenant.id).or_default().clone();
            let Ok(_changing) = lock.try_lock() else { continue };
            if let Some(tenant) = self.store.tenant_by_id(tenant.id).await? {
                self.releases.prune(&tenant, tenant.generation).await?;
            }
        }
        self.releases.sweep().await
    }

    /// A new worker of the same generation, in turn with changes: none of them is refused for it.
    pub async fn restart(&self, tenant: &Tenant, by: &Author) -> Result<(), UploadError> {
        let (tenant, changing) = self.lock(tenant).await?;
        let (store, by) = (self.store.clone(), by.clone());
        let (action, id) = (Action::WorkerRestart, Some(tenant.id));
        let event = Event { action, tenant: id, object: None, sides: Sides::none() };
        let (commit, mut refused) = committing(async move { store.note(by, event).await });
        let uploads = self.clone();
        to_its_end(async move {
            let _changing = changing;
            match uploads.fleet.restart(&tenant.name, Some(commit)).await {
                Ok(()) => Ok(()),
                Err(FleetError::Swap(source)) => Err(match refused.try_recv() {
                    Ok(error) => error.into(),
                    Err(_) => UploadError::Swap { current: tenant.generation, source },
                }),
                Err(FleetError::NoTenant | FleetError::PortTaken(_)) => Err(UploadError::NoTenant),
            }
        })
        .await
    }

    /// Has tenants serve what there is of their modules, where that is other than it was.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        for id in self.releases.outdated() {
            let Some(tenant) = self.store.tenant_by_id(id).await? else { continue };
            let Ok((tenant, _changing)) = self.lock(&tenant).await else { continue };
            self.releases.recheck(id);
            let is_awake = self.fleet.status(&tenant.name).is_some_and(|is| is.pid.is_some());
            if is_awake && let Err(error) = self.fleet.restart(&tenant.name, None).await {
                error!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "refresh");
            }
        }
        Ok(())
    }

    /// The tenant as it stands now, and the right to change it.
    async fn lock(&self, tenant: &Tenant) -> Result<(Tenant, OwnedMutexGuard<()>), UploadError> {
        let lock = self.changing.entry(tenant.id).or_default().clone();
        // One is the map's own, one this one's, and one whose turn it is.
        if Arc::strong_count(&lock) > CHANGES_WAITING_MAX + 3 {
            return Err(UploadError::Crowded);
        }
        let turn = tokio::time::timeout(TURN_DEADLINE, lock.lock_owned());
        let guard = turn.await.map_err(|_| UploadError::NoTurn)?;
        match self.store.tenant(&tenant.name).await? {
            Some(now) if now.id == tenant.id => Ok((now, guard)),
            _ => Err(UploadError::NoTenant),
        }
    }

    async fn next_version(
        &self,
        tenant: &Tenant,
        live: &[VersionRow],
        path: FunctionPath,
        uploaded: OptionsPatch,
        module: Admitted,
        by: &Author,
    ) -> Result<(VersionRow, bool), UploadError> {
        let folded = path.folded();
        if let Some(active) = live.iter().find(|function| function.path.folded() == folded) {
            if active.path != path {
                return Err(UploadError::Case { path, existing: active.path.clone() });
            }
            let same = active.sha256 == module.sha256 && active.uploaded == uploaded;
            // One that was out of service comes back as a version of its own.
            if same && !active.bundled && module.kept != Kept::Mended {
                return Ok((active.clone(), true));
            }
        }
        let set = self.store.function(tenant.id, &path).await?.map(|row| row.set);
        let version = self.store.latest_version(tenant.id, &path).await? + 1;
        let row = VersionRow {
            path,
            version,
            sha256: module.sha256,
            size: module.size,
            stored: module.stored,
            kind: module.kind,
            imports: module.imports,
            declared: module.declared,
            uploaded,
            set: set.unwrap_or_default(),
            bundled: false,
            created_at: Timestamp::now(),
            created_by: by.actor.name().to_owned(),
        };
        Ok((row, false))
    }

    /// Puts these functions in the place of what the tenant serves. Without a change nothing is
    /// done. With one, nobody else changes the tenant before it is done, whoever waits for it.
    async fn apply(
        &self,
        tenant: Tenant,
        changing: OwnedMutexGuard<()>,
        functions: Vec<VersionRow>,
        changes: Vec<Change>,
        cause: Cause,
        by: &Author,
    ) -> Result<(Generation, Duration), UploadError> {
        if changes.is_empty() {
            return Ok((tenant.generation, Duration::ZERO));
        }
        one_root(&functions)?;
        let (uploads, by) = (self.clone(), by.clone());
        to_its_end(async move {
            let _changing = changing;
            uploads.swap(&tenant, &functions, changes, cause, &by).await
        })
        .await
    }

    async fn swap(
        &self,
        tenant: &Tenant,
        functions: &[VersionRow],
        changes: Vec<Change>,
        cause: Cause,
        by: &Author,
    ) -> Result<(Generation, Duration), UploadError> {
        let generation = tenant.generation + 1;
        self.releases.write(tenant, generation, functions).await?;
        fail::moment(Point::ChangeWritten);
        let (store, new) = (
            self.store.clone(),
            NewGeneration { tenant: tenant.id, generation, cause, by: by.clone(), changes },
        );
        let (commit, mut refused) = committing(async move { store.commit_generation(new).await });
        match self.fleet.swap(&tenant.name, generation, commit).await {
            Ok(took) => {
                fail::moment(Point::ChangeCommitted);
                // Best effort: the next sweep takes what this leaves.
                if let Err(error) = self.releases.prune(tenant, generation).await {
                    error!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "prune");
                }
                fail::moment(Point::ChangeDone);
                Ok((generation, took))
            }
            Err(source) => {
                self.releases.discard(tenant, generation).await;
                Err(match refused.try_recv() {
                    Ok(error) => error.into(),
                    Err(_) => UploadError::Swap { current: tenant.generation, source },
                })
            }
        }
    }
}

/// What the store is to take before a new worker does, and why it did not.
fn committing(
    change: impl Future<Output = Result<(), StoreError>> + Send + 'static,
) -> (Commit, oneshot::Receiver<StoreError>) {
    let (tell, refused) = oneshot::channel();
    let commit = async move {
        change.await.map_err(|error| {
            let _ = tell.send(error);
            "the host's store did not take it".to_owned()
        })
    };
    (Box::pin(commit), refused)
}

/// One that was compiled and kept.
struct Module {
    path: FunctionPath,
    patch: OptionsPatch,
    module: Admitted,
    held: Held,
}

/// Modules that may have no name once an upload is over, however it ends. They are removed beside
/// its answer.
struct Litter {
    releases: Releases,
    tenant: Tenant,
    modules: HashSet<ModuleDigest>,
}

impl Litter {
    fn new(uploads: &Uploads, tenant: &Tenant) -> Self {
        let (releases, tenant) = (uploads.releases.clone(), tenant.clone());
        Self { releases, tenant, modules: HashSet::new() }
    }
}

impl Drop for Litter {
    fn drop(&mut self) {
        let modules = std::mem::take(&mut self.modules);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if modules.is_empty() {
            return;
        }
        let (releases, tenant) = (self.releases.clone(), self.tenant.clone());
        runtime.spawn(async move {
            // The sweep takes what this leaves.
            if let Err(error) = releases.tidy(&tenant, modules).await {
                error!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "tidy");
            }
        });
    }
}

fn one_root(live: &[VersionRow]) -> Result<(), UploadError> {
    let is_root = |function: &&VersionRow| function.options().path == Some(PathMatch::Root);
    let mut roots: Vec<_> = live.iter().filter(is_root).map(|it| it.path.clone()).collect();
    roots.sort();
    match &roots[..] {
        [one, other, ..] => Err(UploadError::TwoRoots(one.clone(), other.clone())),
        _ => Ok(()),
    }
}

fn count_functions(tenant: &Tenant, live: &[VersionRow]) -> Result<(), UploadError> {
    let most = tenant.limits().functions;
    if live.len() as u64 > most { Err(UploadError::TooManyFunctions(most)) } else { Ok(()) }
}
