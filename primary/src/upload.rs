//! One change of what a tenant serves, from a request's body to a serving generation: upload,
//! rollback, removal, other options, other limits.
//!
//! ```text
//! body ── parts ──► arrived (counted, hashed, packed) ──► admitted (compiled, kept)
//!   under the tenant's lock: next functions ──► release written ──► fleet.swap ─ commit ─► served
//! ```
//!
//! The one piece of code behind all addresses that take uploads: a tenant's port (through its
//! worker's door), the front door, the management API. Callers have authenticated. What fails
//! before the commit leaves the old generation serving and no metadata; modules that nothing
//! names are swept.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use dashmap::DashMap;
use futures_util::{Stream, StreamExt, future, stream};
use hearth_wire::{
    Code, FunctionPath, Generation, LimitError, Limits, LimitsPatch, ModuleDigest, NameError,
    OptionsError, OptionsPatch, Problem, Version, limits,
};
use http::HeaderMap;
use jiff::Timestamp;
use multer::{Constraints, Field, Multipart, SizeLimit};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tracing::{error, info};
use utoipa::ToSchema;

use crate::compile::CompileError;
use crate::fleet::{Fleet, SwapError};
use crate::release::modules::{Arrived, IngestError, Packing};
use crate::release::{Admitted, ReleaseError, Releases};
use crate::store::{Change, NewGeneration, Store, StoreError, Tenant, TenantId, VersionRow};

/// Files in one upload.
const FILES_MAX: usize = 32;
/// Chunks of a body between the network and the disk.
const CHUNKS: usize = 8;
/// The part that is no file.
const OPTIONS: &str = "options";

#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("the upload is no multipart/form-data: {0}")]
    Multipart(#[from] multer::Error),
    #[error("the upload has no file; send one as a part named, for example, hello.wasm")]
    NoFile,
    #[error("an upload may have {FILES_MAX} files")]
    TooManyFiles,
    #[error("a file must be named NAME.wasm or NAME.wasm.zst, not {0:?}")]
    FileName(String),
    #[error("{file:?} gives no function's path: {source}")]
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
    #[error("the store")]
    Store(#[from] StoreError),
}

impl UploadError {
    /// What the uploader is told.
    pub fn problem(&self) -> Problem {
        let code = match self {
            Self::Multipart(multer::Error::StreamSizeExceeded { limit }) => {
                return Self::TooLarge(*limit).problem();
            }
            Self::Multipart(_)
            | Self::NoFile
            | Self::TooManyFiles
            | Self::Twice(..)
            | Self::TwoOptions
            | Self::Options(_)
            | Self::Limits(_)
            | Self::OptionsFor(_) => Code::BadRequest,
            Self::FileName(_) | Self::Path { .. } => Code::InvalidPath,
            Self::OptionsTooLarge | Self::TooLarge(_) => Code::TooLarge,
            Self::Module { file, source } => return module_problem(file, source),
            Self::OptionsRefused { path, source } => {
                let code = match source {
                    ReleaseError::Compile(CompileError::Refused(_)) => Code::BadRequest,
                    other => disk_code(other),
                };
                return Problem::new(code, format!("{path}: {}", source.for_owner()));
            }
            Self::Case { .. } | Self::TooManyFunctions(_) | Self::NoOlder { .. } => Code::Conflict,
            Self::NoFunction(_) | Self::NoVersion { .. } | Self::NoTenant => Code::NotFound,
            Self::Swap { source: SwapError::Busy, .. } => Code::Conflict,
            Self::Swap { source: SwapError::NoTenant, .. } => Code::NotFound,
            Self::Swap { source: SwapError::NotStarted(_), .. } => Code::WorkerUnavailable,
            Self::Release(error) => return Problem::new(disk_code(error), error.for_owner()),
            Self::Store(StoreError::Full(_)) => Code::StorageFull,
            Self::Store(_) => {
                return Problem::new(Code::Internal, "the host's store failed; nothing changed");
            }
        };
        Problem::new(code, self.to_string())
    }
}

fn module_problem(file: &str, error: &ReleaseError) -> Problem {
    let code = match error {
        ReleaseError::Ingest(IngestError::TooLarge(_)) => Code::TooLarge,
        ReleaseError::Ingest(IngestError::Body(_)) => Code::BadRequest,
        ReleaseError::Ingest(IngestError::NotZstd | IngestError::Empty)
        | ReleaseError::Compile(CompileError::Refused(_))
        | ReleaseError::Options(_) => Code::InvalidModule,
        other => disk_code(other),
    };
    Problem::new(code, format!("{file}: {}", error.for_owner()))
}

fn disk_code(error: &ReleaseError) -> Code {
    let full = match error {
        ReleaseError::Disk(error) | ReleaseError::Ingest(IngestError::Disk(error)) => {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        }
        ReleaseError::Quota { .. } | ReleaseError::Store(StoreError::Full(_)) => true,
        _ => false,
    };
    if full { Code::StorageFull } else { Code::Internal }
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

#[derive(Clone)]
pub struct Uploads {
    store: Store,
    fleet: Fleet,
    releases: Releases,
    /// One change of a tenant at a time.
    changing: Arc<DashMap<TenantId, Arc<Mutex<()>>>>,
}

/// A file of an upload, taken in.
struct Incoming {
    file: String,
    path: FunctionPath,
    arrived: Arrived,
}

impl Uploads {
    pub fn new(store: Store, fleet: Fleet, releases: Releases) -> Self {
        Self { store, fleet, releases, changing: Arc::default() }
    }

    /// Takes an upload: all its files go live together, or none does.
    pub async fn receive(
        &self,
        tenant: &Tenant,
        dir: Option<FunctionPath>,
        headers: &HeaderMap,
        body: Body,
        by: &str,
    ) -> Result<Uploaded, UploadError> {
        let uploaded = self.take(tenant, dir, headers, body, by).await;
        let outcome = match &uploaded {
            Ok(uploaded) => {
                let generation = uploaded.generation;
                info!(tenant = %tenant.name, generation, by, swap_ms = uploaded.swap_ms, "uploaded");
                "done"
            }
            Err(refused) => {
                let problem = refused.problem();
                if problem.status >= 500 {
                    let error = refused as &dyn std::error::Error;
                    error!(tenant = %tenant.name, by, error, "upload failed");
                } else {
                    info!(tenant = %tenant.name, by, reason = problem.detail, "upload refused");
                }
                if problem.status >= 500 { "failed" } else { "refused" }
            }
        };
        metrics::counter!("hearth_uploads_total", "outcome" => outcome).increment(1);
        if let Err(UploadError::Module { source: ReleaseError::Quota { .. }, .. }) = &uploaded {
            // What was compiled in vain takes the very room that there is not. Best effort: the
            // sweep comes by itself, too.
            let _ = self.sweep().await;
        }
        uploaded
    }

    async fn take(
        &self,
        tenant: &Tenant,
        dir: Option<FunctionPath>,
        headers: &HeaderMap,
        body: Body,
        by: &str,
    ) -> Result<Uploaded, UploadError> {
        // Its limits may be others than when the caller last saw it.
        let tenant = &self.store.tenant_by_id(tenant.id).await?.ok_or(UploadError::NoTenant)?;
        let _arriving = self.releases.arriving().await;
        let chunks = body.into_data_stream();
        let limits = tenant.limits();
        let (incoming, options) = self.read_parts(dir.as_ref(), headers, chunks, &limits).await?;
        let mut patches = assign_options(&incoming, options)?;

        let begun = Instant::now();
        let mut admitted = Vec::new();
        // Of modules that no metadata names yet.
        let mut stored = 0;
        for Incoming { file, path, arrived } in incoming {
            let patch = patches.remove(&path).unwrap_or_default();
            patch.check(&limits)?;
            let refused = |source| UploadError::Module { file: file.clone(), source };
            stored += arrived.stored;
            // Before time goes into it, and with what came of it.
            self.fits(tenant, stored).await.map_err(refused)?;
            let module = self.releases.admit(tenant, arrived).await.map_err(refused)?;
            self.fits(tenant, stored).await.map_err(refused)?;
            module.declared.check(&limits).map_err(ReleaseError::Options).map_err(refused)?;
            admitted.push((path, patch, module));
        }
        let compile_ms = begun.elapsed().as_millis() as u64;

        let (tenant, _changing) = self.lock(tenant).await?;
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
        let (generation, swap) = self.apply(&tenant, &live, changes, "upload", by).await?;
        let swap_ms = swap.as_millis() as u64;
        Ok(Uploaded { uploaded: true, generation, functions, compile_ms, swap_ms })
    }

    /// Makes another version of a function the active one; without a number, the one before.
    pub async fn rollback(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
        to: Option<Version>,
        by: &str,
    ) -> Result<Switched, UploadError> {
        let (tenant, _changing) = self.lock(tenant).await?;
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
            live.retain(|function| function.path != path);
            live.push(target);
            changes.push(Change::Switch { path: path.clone(), version });
        }
        count_functions(&tenant, &live)?;
        let (generation, swap) = self.apply(&tenant, &live, changes, "rollback", by).await?;
        let swap_ms = swap.as_millis() as u64;
        Ok(Switched { path, version: Some(version), generation, swap_ms })
    }

    /// Takes a function away. Its versions are kept for a while, so that it can be rolled back.
    pub async fn remove(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
        by: &str,
    ) -> Result<Switched, UploadError> {
        let (tenant, _changing) = self.lock(tenant).await?;
        let mut live = self.store.live_functions(tenant.id).await?;
        let before = live.len();
        live.retain(|function| function.path != *path);
        if live.len() == before {
            return Err(UploadError::NoFunction(path.clone()));
        }
        let changes = vec![Change::Remove { path: path.clone() }];
        let (generation, swap) = self.apply(&tenant, &live, changes, "remove", by).await?;
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
        by: &str,
    ) -> Result<Generation, UploadError> {
        let (tenant, _changing) = self.lock(tenant).await?;
        let mut live = self.store.live_functions(tenant.id).await?;
        let function = live.iter_mut().find(|function| function.path.folded() == path.folded());
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
        Ok(self.apply(&tenant, &live, change, "options", by).await?.0)
    }

    /// Sets limits of a tenant; what is `None` is as by default again.
    pub async fn set_limits(
        &self,
        tenant: &Tenant,
        changes: impl IntoIterator<Item = (String, Option<u64>)>,
        by: &str,
    ) -> Result<LimitsPatch, UploadError> {
        let (tenant, _changing) = self.lock(tenant).await?;
        let mut limits = tenant.limits.clone();
        limits.change(changes)?;
        let mut change = Vec::new();
        if limits != tenant.limits {
            change.push(Change::Limits(limits.clone()));
        }
        let live = self.store.live_functions(tenant.id).await?;
        let tenant = Tenant { limits: limits.clone(), ..tenant };
        self.apply(&tenant, &live, change, "limits", by).await?;
        Ok(limits)
    }

    /// Whether there is room for so much more than what is named and compiled.
    async fn fits(&self, tenant: &Tenant, more: u64) -> Result<(), ReleaseError> {
        let limit = tenant.limits().disk_bytes;
        match self.releases.disk_use(tenant).await? + more {
            needed if needed > limit => Err(ReleaseError::Quota { needed, limit }),
            _ => Ok(()),
        }
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

    /// Removes from disk what nothing names any more; nothing now if something is arriving.
    pub async fn sweep(&self) -> Result<u64, ReleaseError> {
        let Some(_alone) = self.releases.nothing_arrives() else { return Ok(0) };
        for tenant in self.store.tenants().await? {
            if let Ok((tenant, _changing)) = self.lock(&tenant).await {
                self.releases.prune(&tenant, tenant.generation).await?;
            }
        }
        self.releases.sweep().await
    }

    /// The tenant as it stands now, and the right to change it.
    async fn lock(&self, tenant: &Tenant) -> Result<(Tenant, OwnedMutexGuard<()>), UploadError> {
        let lock = self.changing.entry(tenant.id).or_default().clone();
        let guard = lock.lock_owned().await;
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
        by: &str,
    ) -> Result<(VersionRow, bool), UploadError> {
        let folded = path.folded();
        if let Some(active) = live.iter().find(|function| function.path.folded() == folded) {
            if active.path != path {
                return Err(UploadError::Case { path, existing: active.path.clone() });
            }
            if active.sha256 == module.sha256 && active.uploaded == uploaded && !active.bundled {
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
            created_by: by.to_owned(),
        };
        Ok((row, false))
    }

    /// Puts these functions in the place of what the tenant serves. Without a change nothing is done.
    async fn apply(
        &self,
        tenant: &Tenant,
        functions: &[VersionRow],
        changes: Vec<Change>,
        cause: &str,
        by: &str,
    ) -> Result<(Generation, Duration), UploadError> {
        if changes.is_empty() {
            return Ok((tenant.generation, Duration::ZERO));
        }
        let generation = tenant.generation + 1;
        self.releases.write(tenant, generation, functions).await?;
        let (store, new) = (
            self.store.clone(),
            NewGeneration {
                tenant: tenant.id,
                generation,
                cause: cause.to_owned(),
                by: by.to_owned(),
                changes,
            },
        );
        let commit = async move {
            store.commit_generation(new).await.map_err(|error| {
                error!(error = &error as &dyn std::error::Error, "commit");
                "the host's store did not take it".to_owned()
            })
        };
        match self.fleet.swap(&tenant.name, generation, Box::pin(commit)).await {
            Ok(took) => {
                // Best effort: the next sweep takes what this leaves.
                if let Err(error) = self.releases.prune(tenant, generation).await {
                    error!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "prune");
                }
                Ok((generation, took))
            }
            Err(source) => {
                self.releases.discard(tenant, generation).await;
                Err(UploadError::Swap { current: tenant.generation, source })
            }
        }
    }

    async fn read_parts(
        &self,
        dir: Option<&FunctionPath>,
        headers: &HeaderMap,
        chunks: impl Stream<Item = Result<Bytes, axum::Error>> + Send,
        limits: &Limits,
    ) -> Result<(Vec<Incoming>, Option<Value>), UploadError> {
        let content_type = headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let boundary = multer::parse_boundary(content_type.unwrap_or_default())?;
        let announced =
            headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let limit = limits.upload_bytes;
        if announced.is_some_and(|announced: u64| announced > limit) {
            return Err(UploadError::TooLarge(limit));
        }
        let size = SizeLimit::new()
            .whole_stream(limit)
            .for_field(OPTIONS, limits::OPTIONS_MAX_BYTES as u64);
        let constraints = Constraints::new().size_limit(size);
        let mut multipart = Multipart::with_constraints(end_later(chunks), boundary, constraints);
        let mut incoming: Vec<Incoming> = Vec::new();
        let mut options = None;
        while let Some(field) = multipart.next_field().await? {
            let Some(file) = field.file_name().map(str::to_owned) else {
                if field.name() == Some(OPTIONS) {
                    if options.replace(read_options(field).await?).is_some() {
                        return Err(UploadError::TwoOptions);
                    }
                    continue;
                }
                let name = field.name().unwrap_or_default().to_owned();
                return Err(UploadError::FileName(name));
            };
            let (stem, packing) = match (file.strip_suffix(".wasm.zst"), file.strip_suffix(".wasm"))
            {
                (Some(stem), _) => (stem, Packing::Zstd),
                (None, Some(stem)) => (stem, Packing::Plain),
                (None, None) => return Err(UploadError::FileName(file)),
            };
            let path = match FunctionPath::within(dir, stem) {
                Ok(path) => path,
                Err(source) => return Err(UploadError::Path { file, source }),
            };
            let folded = path.folded();
            if let Some(earlier) = incoming.iter().find(|earlier| earlier.path.folded() == folded) {
                return Err(UploadError::Twice(earlier.path.clone(), path));
            }
            if incoming.len() == FILES_MAX {
                return Err(UploadError::TooManyFiles);
            }
            let arrived = self.take_file(packing, field, limits.module_bytes).await?;
            match arrived {
                Ok(arrived) => incoming.push(Incoming { file, path, arrived }),
                Err(error) => return Err(UploadError::Module { file, source: error.into() }),
            }
        }
        if incoming.is_empty() {
            return Err(UploadError::NoFile);
        }
        Ok((incoming, options))
    }

    /// Passes one file from the network to the thread that packs it.
    async fn take_file(
        &self,
        packing: Packing,
        mut field: Field<'_>,
        most: u64,
    ) -> Result<Result<Arrived, IngestError>, UploadError> {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let reader = Chunks::new(receiver);
        let feed = async move {
            loop {
                match field.chunk().await {
                    Ok(Some(chunk)) => {
                        // It takes no more: what it has to say comes from the other side.
                        if sender.send(Ok(chunk)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        let _ = sender.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
                        return Err(error);
                    }
                }
            }
        };
        let (fed, arrived) = future::join(feed, self.releases.ingest(packing, reader, most)).await;
        fed?;
        Ok(arrived)
    }
}

fn count_functions(tenant: &Tenant, live: &[VersionRow]) -> Result<(), UploadError> {
    let most = tenant.limits().functions;
    if live.len() as u64 > most { Err(UploadError::TooManyFunctions(most)) } else { Ok(()) }
}

async fn read_options(field: Field<'_>) -> Result<Value, UploadError> {
    let bytes = match field.bytes().await {
        Err(multer::Error::FieldSizeExceeded { .. }) => return Err(UploadError::OptionsTooLarge),
        bytes => bytes?,
    };
    serde_json::from_slice(&bytes).map_err(|error| OptionsError::Json(error.to_string()).into())
}

/// Which file the `options` part speaks of.
fn assign_options(
    incoming: &[Incoming],
    options: Option<Value>,
) -> Result<HashMap<FunctionPath, OptionsPatch>, UploadError> {
    let object = match options {
        None => return Ok(HashMap::new()),
        Some(Value::Object(object)) => object,
        Some(_) => return Err(OptionsError::NoObject.into()),
    };
    if let [only] = incoming {
        // Both forms name the one file.
        let named = object.len() == 1
            && object.keys().all(|key| *key == only.file)
            && object.values().all(Value::is_object);
        if !named {
            let patch = OptionsPatch::from_object(object)?;
            return Ok(HashMap::from([(only.path.clone(), patch)]));
        }
    }
    let mut patches = HashMap::new();
    for (name, options) in object {
        let Some(file) = incoming.iter().find(|incoming| incoming.file == name) else {
            return Err(UploadError::OptionsFor(name));
        };
        let Value::Object(options) = options else { return Err(OptionsError::NoObject.into()) };
        patches.insert(file.path.clone(), OptionsPatch::from_object(options)?);
    }
    Ok(patches)
}

/// A body's chunks as a blocking reader.
pub struct Chunks {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Chunks {
    pub fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { receiver, current: Bytes::new() }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let taken = self.current.split_to(buffer.len().min(self.current.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

/// The same chunks, with their end told one poll after the last of them. multer looks twice for
/// the first boundary, and a form that comes whole between the two looks has, to it, none.
fn end_later<C, E>(
    chunks: impl Stream<Item = Result<C, E>> + Send,
) -> impl Stream<Item = Result<C, E>> + Send {
    let mut chunks = Box::pin(chunks.fuse());
    let mut has_ended = false;
    stream::poll_fn(move |cx| match chunks.as_mut().poll_next(cx) {
        Poll::Ready(None) if !std::mem::replace(&mut has_ended, true) => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        polled => polled,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_form_that_comes_whole_at_the_second_look_is_read() {
        let form = "--b\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nhello\r\n--b--\r\n";
        let mut looks = 0;
        let chunks = stream::poll_fn(move |cx| {
            looks += 1;
            cx.waker().wake_by_ref();
            match looks {
                1 => Poll::Pending,
                2 => Poll::Ready(Some(Ok::<_, io::Error>(Bytes::from(form)))),
                _ => Poll::Ready(None),
            }
        });
        let mut form = Multipart::new(end_later(chunks), "b");
        let field = form.next_field().await.unwrap().unwrap();
        assert_eq!(field.text().await.unwrap(), "hello");
        assert!(form.next_field().await.unwrap().is_none());
    }
}
