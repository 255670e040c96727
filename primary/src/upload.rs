//! One change of what a tenant serves, from a request's body to a serving generation: upload,
//! rollback, removal, other options, other limits, other settings.
//!
//! ```text
//! a place ─► body ── parts ──► files as they were sent ──► admitted (unpacked, compiled, kept)
//!   under the tenant's lock: next functions ──► generation written ──► fleet.swap ─ commit ─► served
//! ```
//!
//! The one piece of code behind all addresses that take uploads: a tenant's port (through its
//! worker's uplink), the front door, the management API. Callers have authenticated. What fails
//! before the commit leaves the old generation serving and no metadata; modules that nothing
//! names are swept. What a body is made of is read in [`parts`]. Until an upload's body has come
//! whole it costs its place, its room on the disk, and nothing that others wait for.

mod answers;
mod changes;
mod earlier;
mod error;
mod history;
mod imports;
mod litter;
pub mod parts;
mod places;
mod plan;
pub mod request;
pub mod settings;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use hearth_wire::{FunctionPath, ModuleDigest, OptionsPatch};
use http::HeaderMap;
use jiff::Timestamp;
use tracing::{error, info};

use crate::actor::Author;
use crate::fail::{self, Point};
use crate::fault::{Blame, Fault, Verdict};
use crate::fleet::Fleet;
use crate::generations::modules::Kept;
use crate::generations::room::{NoRoom, Room};
use crate::generations::{self, Admitted, GenerationError, Generations, Held, Served};
use crate::locks::{Crowded, TenantLock, TenantLocks};
use crate::patience::{to_its_end, within};
use crate::settings::Settings;
use crate::store::{Cause, Change, OwnFunctions, Store, StoreError, Tenant, VersionRow};
pub use answers::{Returned, Switched, Uploaded, UploadedFunction};
pub use error::UploadError;
use imports::Additions;
use litter::Litter;
pub use places::Places;
use places::{Crowd, Place};
use plan::{Planned, count_functions, log};

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

/// An upload whose body came whole.
struct Taken {
    tenant: Tenant,
    room: Arc<Room>,
    form: parts::Form,
    /// Of an upload's whole time.
    left: Duration,
    _place: Place,
}

#[derive(Clone)]
pub struct Uploads {
    store: Store,
    fleet: Fleet,
    generations: Generations,
    settings: Settings,
    crowd: Crowd,
    intake: Intake,
    /// One change of a tenant at a time.
    changing: TenantLocks,
}

impl Uploads {
    pub fn new(
        store: Store,
        fleet: Fleet,
        generations: Generations,
        settings: Settings,
        intake: Intake,
    ) -> Self {
        let (crowd, changing) = (Crowd::new(intake.places.clone()), TenantLocks::default());
        Self { store, fleet, generations, settings, crowd, intake, changing }
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
                info!(tenant = %tenant.name, generation = generation.0, %by, swap_ms = uploaded.swap_ms, "uploaded");
                "done"
            }
            Err(refused) => {
                let Verdict { blame, told, .. } = refused.verdict();
                log(tenant, by, refused);
                match blame {
                    Blame::Host => "failed",
                    Blame::Caller | Blame::Function | Blame::Limit => {
                        info!(tenant = %tenant.name, %by, reason = told, "upload refused");
                        "refused"
                    }
                }
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
            let room = self.generations.room(&tenant).await?;
            let chunks = body.into_data_stream();
            let spool = || self.generations.spool(&room);
            let form = parts::read(dir.as_ref(), headers, chunks, &tenant.limits(), spool).await?;
            Ok::<_, UploadError>((tenant, room, form))
        };
        let taken = within(self.intake.time, taking).await;
        let (tenant, room, form) = taken.map_err(|_| self.late())??;
        fail::moment(Point::UploadReceived);
        let left = self.intake.time.saturating_sub(begun.elapsed());
        Ok(Taken { tenant, room, form, left, _place: place })
    }

    fn late(&self) -> UploadError {
        UploadError::Late(self.intake.time)
    }

    async fn install(&self, taken: Taken, by: &Author) -> Result<Uploaded, UploadError> {
        let Taken { tenant, room, form, left, _place } = taken;
        let parts::Form { incoming, options: patches, additions } = form;
        let begun = Instant::now();
        let mut litter = Litter::new(&self.generations, &tenant);
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
        let uploaded = self.change(changing, admitted, additions, compile_ms, by).await?;
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
            let admitted = self.generations.admit(tenant, sent, most, room, litter).await;
            let (module, held) = admitted.map_err(refused)?;
            module.declared.check(&limits).map_err(GenerationError::Options).map_err(refused)?;
            modules.push(Module { path, patch, module, held });
        }
        Ok(modules)
    }

    /// Before it is said that there is none, what nothing names goes.
    async fn make_room(&self, tenant: &Tenant) -> Result<(), GenerationError> {
        // What cannot be removed takes its room, and is no reason to refuse what fits beside it.
        if let Err(error) = self.generations.tidy_artifacts(tenant).await {
            error!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "artifacts that nothing names could not be removed");
        }
        if self.generations.has_room() {
            return Ok(());
        }
        if let Err(error) = self.sweep().await {
            error!(
                error = &error as &dyn std::error::Error,
                "files that nothing refers to could not be removed"
            );
        }
        if self.generations.has_room() { Ok(()) } else { Err(NoRoom::Host.into()) }
    }

    /// Makes what was admitted the tenant's.
    async fn change(
        &self,
        (tenant, changing): (Tenant, TenantLock),
        admitted: Vec<(FunctionPath, OptionsPatch, Admitted)>,
        additions: Additions,
        compile_ms: u64,
        by: &Author,
    ) -> Result<Uploaded, UploadError> {
        let mut own = self.store.own_functions(tenant.id).await?;
        let served = self.generations.bundle().beneath(&own);
        let mut rows = Vec::new();
        let mut functions = Vec::new();
        for (path, uploaded, module) in admitted {
            let unavailable = module.unavailable.clone();
            let (row, unchanged) =
                self.next_version(&tenant, &own, path, uploaded, module, by).await?;
            let before = generations::one(&served, &row.path);
            let before = before.map_or(&[][..], |function| &function.imports[..]);
            let changed = imports::Changed::between(before, &row.imports);
            functions.push(UploadedFunction {
                path: row.path.clone(),
                version: row.version,
                sha256: row.sha256,
                size: row.size,
                stored: row.stored,
                imports: row.imports.clone(),
                imports_added: changed.added,
                imports_removed: changed.removed,
                unavailable,
                unchanged,
            });
            if !unchanged {
                own.activate(row.clone());
                rows.push(row);
            }
        }
        if additions == Additions::Refused {
            let added = functions.iter().filter(|function| !function.imports_added.is_empty());
            let added = added.map(|it| (it.path.clone(), it.imports_added.clone()));
            let added: Vec<_> = added.collect();
            if !added.is_empty() {
                return Err(UploadError::NewImports(added));
            }
        }
        for row in &rows {
            self.check_options(&tenant, &row.clone().into()).await?;
        }
        let changes = rows.into_iter().map(Change::Add).collect();
        count_functions(&tenant, &own)?;
        let cause = Cause::Upload;
        let planned = Planned { tenant, changing, own, changes, cause };
        let (generation, swap) = self.apply(planned, by).await?;
        let swap_ms = swap.as_millis() as u64;
        Ok(Uploaded { uploaded: true, generation, functions, compile_ms, swap_ms })
    }

    async fn check_options(&self, tenant: &Tenant, function: &Served) -> Result<(), UploadError> {
        function.options().check(&tenant.limits())?;
        let checked = self.generations.check_options(tenant, function).await;
        let path = function.path.clone();
        checked.map_err(|source| UploadError::OptionsRefused { path, source })
    }

    /// Removes from disk what nothing names any more; nothing now while the host makes files of its
    /// own, or if nobody can say what is named.
    pub async fn sweep(&self) -> Result<u64, GenerationError> {
        if self.store.is_read_only() {
            return Ok(0);
        }
        let Some(_alone) = self.generations.nothing_arrives() else { return Ok(0) };
        for tenant in self.store.tenants().await? {
            // One that is being changed is pruned with that.
            let Some(_changing) = self.changing.try_lock(&tenant.id) else { continue };
            if let Some(tenant) = self.store.tenant_by_id(tenant.id).await? {
                self.generations.prune(&tenant, tenant.generation).await?;
            }
        }
        self.generations.sweep().await
    }

    /// Has tenants serve what there is of their modules, where that is other than it was.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        for id in self.generations.outdated() {
            let Some(tenant) = self.store.tenant_by_id(id).await? else { continue };
            let Ok((tenant, _changing)) = self.lock(&tenant).await else { continue };
            self.generations.recheck(id);
            let is_awake = self.fleet.status(&tenant.name).is_some_and(|is| is.pid.is_some());
            if is_awake && let Err(error) = self.fleet.restart(&tenant.name, None, None).await {
                error!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "a worker could not be restarted after its modules changed");
            }
        }
        Ok(())
    }

    /// The tenant as it stands now, and the right to change it.
    async fn lock(&self, tenant: &Tenant) -> Result<(Tenant, TenantLock), UploadError> {
        let turn = self.changing.lock_among(&tenant.id, CHANGES_WAITING_MAX);
        let turn = tokio::time::timeout(TURN_DEADLINE, turn).await;
        let guard = turn
            .map_err(|_| UploadError::NoTurn)?
            .map_err(|Crowded| UploadError::Crowded(CHANGES_WAITING_MAX))?;
        match self.store.tenant(&tenant.name).await? {
            Some(now) if now.id == tenant.id => Ok((now, guard)),
            _ => Err(UploadError::NoTenant),
        }
    }

    async fn next_version(
        &self,
        tenant: &Tenant,
        own: &OwnFunctions,
        path: FunctionPath,
        uploaded: OptionsPatch,
        module: Admitted,
        by: &Author,
    ) -> Result<(VersionRow, bool), UploadError> {
        let served = self.generations.bundle().beneath(own);
        if let Some(existing) = generations::one(&served, &path)
            && existing.path != path
        {
            return Err(UploadError::Case { path, existing: existing.path.clone() });
        }
        if let Some(active) = own.live.iter().find(|function| function.path == path) {
            let same = active.sha256 == module.sha256 && active.uploaded == uploaded;
            // One that was out of service comes back as a version of its own.
            if same && module.kept != Kept::Mended {
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
            created_at: Timestamp::now(),
            created_by: by.actor.name().to_owned(),
        };
        Ok((row, false))
    }
}

/// One that was compiled and kept.
struct Module {
    path: FunctionPath,
    patch: OptionsPatch,
    module: Admitted,
    held: Held,
}
