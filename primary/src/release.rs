//! What workers are started from: modules, artifacts and generations on disk.
//!
//! ```text
//! modules/<sha256>.wasm.zst                     uploaded, never changed          (release/modules.rs)
//! artifacts/<engine>/<tenant>/<sha256>.cwasm    compiled; a cache, keyed digest in the store
//! tenants/<tenant>/releases/<generation>/       manifest.json and links to its artifacts
//! tenants/<tenant>/…                            what else it has     (release/directories.rs)
//! ```
//!
//! The store names what must exist; everything here but the modules can be made again from it.
//! An artifact is native code, so before a worker may map it its keyed digest is checked, once a
//! boot. Which functions are in a generation is `upload`'s to decide.

mod directories;
mod disk;
pub mod modules;
mod pins;
pub mod room;

pub use directories::{KEPT, foreign_states};
pub use modules::file_name as module_file;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dashmap::{DashMap, DashSet};
use hearth_wire::{
    Code, FunctionPath, Generation, Limits, Manifest, ManifestFunction, ModuleDigest, OptionsError,
    OptionsPatch, Problem, TenantName, Version, limits,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tempfile::{NamedTempFile, TempDir};
use tokio::sync::{Mutex, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tracing::{info, warn};

use crate::compile::{CompileError, Compiler, Compiling};
use crate::descriptors::is_shortage;
use crate::durable;
use crate::fail::{self, Point};
use crate::fair::Fair;
use crate::files;
use crate::store::{Store, StoreError, Tenant, TenantId, VersionRow};
use crate::tree::Trees;
use directories::Directories;
use modules::{Arrived, Condition, IngestError, Kept, Modules, Packing, Spool, Spooled};
use pins::{Pin, Pins, Sweep};
use room::{NoRoom, Reservation, Room, Rooms};

mod bundled {
    include!(concat!(env!("OUT_DIR"), "/bundled.rs"));
}

/// Directories of the data directory that a restore fills, too.
pub const MODULES: &str = "modules";
pub const TENANTS: &str = "tenants";
/// Pieces of work on files at once, of all tenants and of one. Each takes a thread while the disk
/// is at it, of the 512 that there are.
const THREADS: usize = 64;
const THREADS_OF_ONE: usize = 8;
/// Between two looks at how much an artifact takes that is being made.
const LOOK: Duration = Duration::from_millis(50);
/// How long it is waited for that the host makes no files of its own, before what could be tidied
/// is left to the sweep.
const ALONE_MAX: Duration = Duration::from_secs(10);
/// How often what a tenant has is counted again where it changed meanwhile.
const COUNTS_MAX: usize = 3;

/// What a worker is started from.
pub struct Prepared {
    /// The directory of its generation.
    pub release: OwnedFd,
    pub limits: Limits,
}

/// Files by the modules that they were made of, by which they are named in a generation. A module
/// that comes with Hearth can be the tenant's own as well, and either file will do.
type Artifacts = BTreeMap<ModuleDigest, PathBuf>;

/// What the modules of a generation were found to be.
type Conditions = BTreeMap<ModuleDigest, Condition>;

/// What is known of a generation on disk.
struct Made {
    limits: Limits,
    /// As its modules were then.
    modules: Conditions,
}

#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("the module declares options that are refused: {0}")]
    Options(#[source] OptionsError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error("a file of the data directory could not be read or written")]
    Disk(#[from] io::Error),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("{}", Problem::damaged(.path, *.version))]
    Damaged { path: FunctionPath, version: Version },
    #[error("generation {0} is not the current one and was never written")]
    NoGeneration(Generation),
}

impl ReleaseError {
    /// What it is where it is not the module's fault: no room, or ours.
    pub fn code(&self) -> Code {
        let full = match self {
            Self::Disk(error)
            | Self::Ingest(IngestError::Disk(error))
            | Self::Compile(CompileError::Spawn(error) | CompileError::File(error))
                if is_shortage(error) =>
            {
                return Code::WorkerUnavailable;
            }
            Self::Disk(error) | Self::Ingest(IngestError::Disk(error)) => {
                durable::is_the_disks(error)
            }
            Self::Damaged { .. } => return Code::ModuleDamaged,
            Self::NoRoom(_)
            | Self::Ingest(IngestError::NoRoom(_))
            | Self::Compile(CompileError::Full)
            | Self::Store(StoreError::Full(_) | StoreError::Disk(_) | StoreError::ReadOnly) => true,
            _ => false,
        };
        if full { Code::StorageFull } else { Code::Internal }
    }

    /// What the tenant's owner is told: whose fault it was, and nothing of the host.
    pub fn for_owner(&self) -> String {
        match self {
            Self::Compile(CompileError::Refused(diagnosis)) => diagnosis.detail.clone(),
            Self::Options(error) => {
                format!("the module declares options that are refused: {error}")
            }
            Self::NoRoom(NoRoom::Quota { .. })
            | Self::Ingest(IngestError::NoRoom(NoRoom::Quota { .. })) => {
                format!("{self}: remove functions, or have the host's admin raise `disk_bytes`")
            }
            Self::NoRoom(NoRoom::Host) => self.to_string(),
            Self::Damaged { .. } => self.to_string(),
            Self::Store(error @ StoreError::ReadOnly) => error.to_string(),
            Self::Ingest(IngestError::Disk(_)) => "the host could not store the module".to_owned(),
            Self::Ingest(error) => error.to_string(),
            Self::Compile(_) => {
                "the host's compiler failed; its operator finds why in the log".to_owned()
            }
            Self::Disk(_) | Self::Store(_) | Self::NoGeneration(_) => {
                "the host could not prepare the functions; its operator finds why in the log"
                    .to_owned()
            }
        }
    }
}

/// Whose artifacts: a tenant's are its own, since a compilation that takes no time would tell
/// that somebody else has the same module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owner {
    Bundled,
    Tenant(TenantId, String),
}

impl Owner {
    fn of(tenant: &Tenant, bundled: bool) -> Self {
        if bundled { Self::Bundled } else { Self::Tenant(tenant.id, tenant.name.to_string()) }
    }

    fn id(&self) -> TenantId {
        match self {
            Self::Bundled => TenantId(0),
            Self::Tenant(id, _) => *id,
        }
    }

    /// No tenant's name begins with an underscore.
    fn dir(&self) -> &str {
        match self {
            Self::Bundled => "_bundled",
            Self::Tenant(_, name) => name,
        }
    }
}

/// A module that can be a function, kept and compiled.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub sha256: ModuleDigest,
    pub size: u64,
    pub stored: u64,
    pub kind: hearth_wire::HandlerKind,
    pub imports: Vec<String>,
    /// What the module declares of itself.
    pub declared: OptionsPatch,
    pub kept: Kept,
}

/// Keeps a module that the store does not name yet, and its room. Dropped before it is settled,
/// nothing is the tenant's.
pub struct Held {
    _pin: Pin,
    packed: Option<Reservation>,
    artifact: Option<Reservation>,
}

impl Held {
    /// The store names it now.
    pub fn settle(self) {
        for room in [self.packed, self.artifact].into_iter().flatten() {
            room.settle();
        }
    }
}

/// A function that comes with Hearth.
#[derive(Debug, Clone)]
pub struct Bundled {
    pub path: FunctionPath,
    pub module: Admitted,
}

#[derive(Clone)]
pub struct Releases {
    inner: Arc<Inner>,
}

struct Inner {
    data: PathBuf,
    modules: Modules,
    compiler: Compiler,
    directories: Directories,
    store: Store,
    /// Keys the artifacts' digests.
    key: [u8; 32],
    /// Artifacts whose digest was checked since this process started.
    checked: DashSet<(Owner, ModuleDigest)>,
    /// Generations that are known to be on disk for this engine.
    prepared: DashMap<(TenantId, Generation), Made>,
    /// The module that was looked at last.
    scrubbed: Mutex<Option<ModuleDigest>>,
    /// One at a time prepares a tenant's release.
    preparing: DashMap<TenantId, Arc<Mutex<()>>>,
    /// Held shared by the host while it makes files itself that no metadata names yet, which is
    /// short, and alone by the sweep.
    arriving: Arc<RwLock<()>>,
    /// What uploads keep and compile meanwhile, at whatever pace.
    pins: Pins,
    rooms: Arc<Rooms>,
    threads: Fair<TenantId>,
}

impl Releases {
    /// Makes the directories, and removes what an earlier process left half done. Whether tenants
    /// have users is the machine's to say.
    pub async fn open(
        data: &Path,
        store: Store,
        compiler: Compiler,
        trees: Trees,
        has_users: bool,
        disk_reserve: u64,
    ) -> Result<Self, ReleaseError> {
        let tmp = data.join("tmp");
        durable::remove_dir(&tmp, Point::TmpClear)?;
        let (kept, tenants) = (data.join(MODULES), data.join(TENANTS));
        for dir in [&tmp, &kept, &tenants, &data.join("artifacts").join(&compiler.engine)] {
            fs::create_dir_all(dir)?;
        }
        // An earlier process may have been killed between a name and its sync.
        for dir in [&kept, data] {
            durable::sync_dir(dir, Point::DataSync)?;
        }
        let key = store.host_key().await?;
        let inner = Inner {
            data: data.to_owned(),
            modules: Modules::new(kept, tmp),
            compiler,
            directories: Directories::new(tenants, trees, has_users),
            store,
            key,
            checked: DashSet::new(),
            prepared: DashMap::new(),
            scrubbed: Mutex::default(),
            preparing: DashMap::new(),
            arriving: Arc::default(),
            pins: Pins::default(),
            rooms: Rooms::new(data.to_owned(), disk_reserve),
            threads: Fair::new(THREADS, THREADS_OF_ONE),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// To be held by whoever makes files of the host's own that no metadata names yet.
    pub async fn arriving(&self) -> OwnedRwLockReadGuard<()> {
        self.inner.arriving.clone().read_owned().await
    }

    /// Where tenants can have no users of their own, takes what earlier hosts gave to some. Tells
    /// whose that could not be done for.
    pub async fn settle_all(&self, tenants: &[Tenant]) -> Vec<(TenantName, io::Error)> {
        let inner = self.inner.clone();
        let names: Vec<TenantName> = tenants.iter().map(|tenant| tenant.name.clone()).collect();
        blocking(move || inner.directories.settle_all(&names)).await
    }

    /// For the sweep: `None` while something arrives.
    pub fn nothing_arrives(&self) -> Option<OwnedRwLockWriteGuard<()>> {
        self.inner.arriving.clone().try_write_owned().ok()
    }

    /// A directory on the file system of everything else, which goes with its handle, or with the
    /// next start.
    pub fn scratch(&self) -> io::Result<TempDir> {
        TempDir::new_in(self.inner.data.join("tmp"))
    }

    /// Gives modules a second name in `dir`, and tells which of them are not there.
    pub async fn link_modules(
        &self,
        modules: &HashSet<ModuleDigest>,
        dir: &Path,
    ) -> io::Result<Vec<ModuleDigest>> {
        let (inner, modules, dir) = (self.inner.clone(), modules.clone(), dir.to_owned());
        blocking(move || {
            let mut missing = Vec::new();
            for sha256 in modules {
                match inner.modules.link(sha256, &dir) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(sha256),
                    Err(error) => return Err(error),
                }
            }
            Ok(missing)
        })
        .await
    }

    /// Puts the modules and these tenants' directories of a backup, which are durable there, among
    /// this host's own. To be called before the commit that names them.
    pub async fn take_over(&self, staged: &Path, tenants: &[TenantName]) -> io::Result<()> {
        let (inner, staged, tenants) = (self.inner.clone(), staged.to_owned(), tenants.to_vec());
        blocking(move || {
            inner.modules.adopt(&staged.join(MODULES))?;
            inner.directories.take_over(&staged.join(TENANTS), &tenants)
        })
        .await
    }

    /// Of tenants that did not come after all.
    pub async fn remove_trees(&self, tenants: &[TenantName]) -> io::Result<()> {
        let (inner, tenants) = (self.inner.clone(), tenants.to_vec());
        blocking(move || tenants.iter().try_for_each(|it| inner.directories.remove(it))).await
    }

    /// One of the [`KEPT`] of a tenant's directory, where it is there.
    pub fn kept(&self, tenant: &TenantName, part: &str) -> io::Result<Option<OwnedFd>> {
        self.inner.directories.kept(tenant, part)
    }

    /// Keeps and compiles the functions that come with Hearth; tells which artifacts are worth
    /// loading before any worker is forked.
    pub async fn bundle(&self) -> Result<Vec<(Bundled, OwnedFd)>, ReleaseError> {
        let mut functions = Vec::new();
        for (name, packed) in bundled::BUNDLED {
            let (inner, owner) = (self.inner.clone(), Owner::Bundled);
            let turn = self.inner.compiler.turn(owner.id()).await;
            let most = limits::MODULE_MAX_BYTES;
            let arrived = blocking(move || inner.modules.ingest(*packed, most)).await?;
            let (module, _) = self.admit_as(owner, &turn, arrived, None).await?;
            let path =
                name.parse().expect("a bundled function's name is checked where it is built");
            let artifact = files::open(&self.inner.artifact(&Owner::Bundled, module.sha256))?;
            functions.push((Bundled { path, module }, artifact.into()));
        }
        Ok(functions)
    }

    /// Room on the disk for one upload, beside what its tenant has by now.
    pub async fn room(&self, tenant: &Tenant) -> Result<Arc<Room>, ReleaseError> {
        let room = self.inner.rooms.enter(tenant.id, tenant.limits().disk_bytes);
        for _ in 0..COUNTS_MAX {
            let begun = room.begin_count();
            let bytes = self.disk_use(tenant).await?;
            if room.counted(begun, bytes) {
                break;
            }
        }
        Ok(room)
    }

    /// Whether the disk has more room than what is the store's.
    pub fn has_room(&self) -> bool {
        self.inner.rooms.has(0)
    }

    /// For a file of an upload that is about to come.
    pub fn spool(&self, room: &Arc<Room>) -> Result<Spool, IngestError> {
        self.inner.modules.spool(room)
    }

    /// Refuses options that cannot be kept: a schema that is none, an instance that cannot be
    /// used again.
    pub async fn check_options(
        &self,
        tenant: &Tenant,
        function: &VersionRow,
    ) -> Result<(), ReleaseError> {
        self.must_be_whole(tenant, function).await?;
        let owner = Owner::of(tenant, function.bundled);
        let artifact = files::open(&self.inner.artifact(&owner, function.sha256))?;
        let options = function.options().resolve();
        Ok(self.inner.compiler.check(tenant.id, &options, &artifact).await?)
    }

    /// Bytes on disk that are a tenant's: its tree, its artifacts, and the modules that it names,
    /// though others may name them too.
    pub async fn disk_use(&self, tenant: &Tenant) -> Result<u64, ReleaseError> {
        let modules = self.inner.store.module_bytes(tenant.id).await?;
        let artifacts = self.inner.data.join("artifacts").join(&self.inner.compiler.engine);
        let artifacts = artifacts.join(tenant.name.as_str());
        let (inner, name) = (self.inner.clone(), tenant.name.clone());
        let files =
            self.inner.on_thread(tenant.id, move || inner.directories.bytes(&name, &artifacts));
        Ok(modules.saturating_add(files.await?))
    }

    /// Takes in a file of an upload, at most so many bytes of a module, compiles it, and keeps both
    /// it and its artifact. Until it is its turn, it is no more than it was sent. `seen` is told of
    /// the module before there is a file of it.
    pub async fn admit(
        &self,
        tenant: &Tenant,
        (packing, spooled): (Packing, Spooled),
        most: u64,
        room: &Arc<Room>,
        seen: &mut HashSet<ModuleDigest>,
    ) -> Result<(Admitted, Held), ReleaseError> {
        let owner = Owner::of(tenant, false);
        let turn = self.inner.compiler.turn(owner.id()).await;
        let (inner, its) = (self.inner.clone(), room.clone());
        let taken = self
            .inner
            .on_thread(owner.id(), move || inner.modules.take_in(packing, spooled, most, &its));
        let arrived = taken.await?;
        seen.insert(arrived.sha256);
        self.admit_as(owner, &turn, arrived, Some(room)).await
    }

    async fn admit_as(
        &self,
        owner: Owner,
        turn: &Compiling,
        mut arrived: Arrived,
        room: Option<&Arc<Room>>,
    ) -> Result<(Admitted, Held), ReleaseError> {
        let (sha256, size, stored) = (arrived.sha256, arrived.size, arrived.stored);
        let _pin = self.inner.pins.pin(sha256);
        let packed = arrived.packed_room.take();
        arrived.raw.rewind()?;
        let (id, inner) = (owner.id(), self.inner.clone());
        let (compiled, artifact) = inner.compile(owner, turn, sha256, &arrived.raw, room).await?;
        let declared = match &compiled.options {
            Some(json) => OptionsPatch::parse(json).map_err(ReleaseError::Options)?,
            None => OptionsPatch::default(),
        };
        let inner = self.inner.clone();
        let kept = self.inner.on_thread(id, move || inner.modules.keep(arrived)).await?;
        let (kind, imports) = (compiled.kind, compiled.imports);
        let admitted = Admitted { sha256, size, stored, kind, imports, declared, kept };
        Ok((admitted, Held { _pin, packed, artifact }))
    }

    /// Removes those of these modules that nothing names, and what the tenant does not name of its
    /// artifacts.
    pub async fn tidy(
        &self,
        tenant: &Tenant,
        mut modules: HashSet<ModuleDigest>,
    ) -> Result<(), ReleaseError> {
        self.tidy_artifacts(tenant).await?;
        // What comes with Hearth is needed even while no tenant has it.
        modules.retain(|sha256| !self.inner.checked.contains(&(Owner::Bundled, *sha256)));
        let arriving = self.inner.arriving.write();
        let Ok(_alone) = tokio::time::timeout(ALONE_MAX, arriving).await else { return Ok(()) };
        if self.inner.store.is_read_only() {
            return Ok(());
        }
        let sweep = self.inner.pins.sweep();
        let unnamed = self.inner.store.unnamed(modules).await?;
        let inner = self.inner.clone();
        let remove =
            move || unnamed.into_iter().try_for_each(|it| inner.modules.remove(it, &sweep));
        Ok(self.inner.on_thread(tenant.id, remove).await?)
    }

    /// Removes what the tenant does not name of its artifacts.
    pub async fn tidy_artifacts(&self, tenant: &Tenant) -> Result<(), ReleaseError> {
        if self.inner.store.is_read_only() {
            return Ok(());
        }
        let sweep = self.inner.pins.sweep();
        let named = self.inner.store.modules_of(tenant.id).await?;
        let (inner, owner) = (self.inner.clone(), Owner::of(tenant, false));
        let remove = move || {
            let artifacts = inner.data.join("artifacts").join(&inner.compiler.engine);
            inner.sweep_artifacts(&artifacts.join(owner.dir()), &sweep, |it| named.contains(&it))
        };
        self.inner.on_thread(tenant.id, remove).await?;
        Ok(())
    }

    /// Writes a generation, in the place of any half-made one of that number, and gives the tenant
    /// what else its workers need of its directory. One that is there
    /// whole, as an earlier process of this host left it, stays as it is.
    pub async fn write(
        &self,
        tenant: &Tenant,
        generation: Generation,
        functions: &[VersionRow],
    ) -> Result<(), ReleaseError> {
        let (artifacts, modules) = self.checked(tenant, functions).await?;
        let manifest = self.inner.manifest(tenant, generation, functions, &modules);
        let (inner, releases) = (self.inner.clone(), self.inner.releases(tenant));
        let (limits, user) = (manifest.limits, tenant.user);
        let written = self.inner.on_thread(tenant.id, move || {
            inner.directories.settle(&manifest.tenant, user)?;
            match is_release(&releases, &manifest, &artifacts) {
                true => Ok(()),
                false => inner.link(&releases, &manifest, &artifacts),
            }
        });
        written.await?;
        self.inner.prepared.insert((tenant.id, generation), Made { limits, modules });
        Ok(())
    }

    /// The functions' artifacts, which are there and ours; none of a module that is damaged.
    async fn checked(
        &self,
        tenant: &Tenant,
        functions: &[VersionRow],
    ) -> Result<(Artifacts, Conditions), ReleaseError> {
        let (mut artifacts, mut modules) = (Artifacts::new(), Conditions::new());
        for function in functions {
            let (owner, sha256) = (Owner::of(tenant, function.bundled), function.sha256);
            let condition = self.inner.clone().check(&owner, sha256).await?;
            modules.insert(sha256, condition);
            if condition == Condition::Whole {
                let artifact = self.inner.artifact(&owner, sha256);
                let kept = artifacts.entry(sha256).or_insert_with(|| artifact.clone());
                // Whatever order they come in, so that a generation that is there is known again.
                if artifact < *kept {
                    *kept = artifact;
                }
            }
        }
        Ok((artifacts, modules))
    }

    /// Refuses a version whose module is damaged, as it is now.
    pub async fn must_be_whole(
        &self,
        tenant: &Tenant,
        function: &VersionRow,
    ) -> Result<(), ReleaseError> {
        let (owner, sha256) = (Owner::of(tenant, function.bundled), function.sha256);
        let inner = self.inner.clone();
        self.inner.on_thread(tenant.id, move || inner.modules.look(sha256)).await?;
        match self.inner.clone().check(&owner, sha256).await? {
            Condition::Whole => Ok(()),
            Condition::Damaged => {
                let (path, version) = (function.path.clone(), function.version);
                Err(ReleaseError::Damaged { path, version })
            }
        }
    }

    /// Whether a module was found damaged when it was looked at last.
    pub fn is_damaged(&self, sha256: ModuleDigest) -> bool {
        self.inner.modules.found(sha256) == Some(Condition::Damaged)
    }

    /// Sets the figure of modules that are damaged.
    pub fn gauge(&self) {
        let damaged = u32::try_from(self.inner.modules.damaged()).unwrap_or(u32::MAX);
        metrics::gauge!("hearth_modules_damaged").set(damaged);
    }

    /// Looks at one more of the modules that versions name, in turn and for ever.
    pub async fn scrub(&self) -> Result<(), ReleaseError> {
        // So that it is not swept meanwhile, and missed.
        let _arriving = self.arriving().await;
        let mut last = self.inner.scrubbed.lock().await;
        *last = self.inner.store.module_after(*last).await?;
        if let Some(sha256) = *last {
            let inner = self.inner.clone();
            blocking(move || inner.modules.look(sha256)).await?;
        }
        Ok(())
    }

    /// Returns when a module is found other than before.
    pub async fn changed(&self) {
        self.inner.modules.changed.notified().await;
    }

    /// Tenants whose generation was made when a module was found other than it is now.
    pub fn outdated(&self) -> HashSet<TenantId> {
        let is_other = |(sha256, as_made): (&ModuleDigest, &Condition)| {
            self.inner.modules.found(*sha256).is_some_and(|now| now != *as_made)
        };
        let outdated = self.inner.prepared.iter().filter(|made| made.modules.iter().any(is_other));
        outdated.map(|made| made.key().0).collect()
    }

    /// Has a tenant's generation be looked at again before the next worker starts from it.
    pub fn recheck(&self, tenant: TenantId) {
        self.inner.prepared.retain(|(id, _), _| *id != tenant);
    }

    /// The directory of a generation for a worker to start from; made again from the store where
    /// it is missing, damaged, or of another engine.
    pub async fn prepare(
        &self,
        tenant: &Tenant,
        generation: Generation,
    ) -> Result<Prepared, ReleaseError> {
        let dir = self.inner.releases(tenant).join(generation.to_string());
        if !self.inner.prepared.contains_key(&(tenant.id, generation)) {
            let lock = self.inner.preparing.entry(tenant.id).or_default().clone();
            let _one = lock.lock().await;
            if !self.inner.prepared.contains_key(&(tenant.id, generation)) {
                // Its limits may be others than when the caller read them.
                let current = self.inner.store.tenant(&tenant.name).await?;
                let current = current.filter(|current| current.generation == generation);
                let current = current.ok_or(ReleaseError::NoGeneration(generation))?;
                let functions = self.inner.store.live_functions(tenant.id).await?;
                self.write(&current, generation, &functions).await?;
            }
        }
        let limits = self.inner.prepared.get(&(tenant.id, generation)).map(|made| made.limits);
        match files::dir(&dir) {
            Ok(release) => {
                let limits = limits.unwrap_or_else(|| tenant.limits());
                Ok(Prepared { release, limits })
            }
            Err(error) => {
                // Somebody removed it behind our back: the next start makes it again.
                self.inner.prepared.remove(&(tenant.id, generation));
                Err(error.into())
            }
        }
    }

    /// Removes a generation that came to nothing.
    pub async fn discard(&self, tenant: &Tenant, generation: Generation) {
        self.inner.prepared.remove(&(tenant.id, generation));
        let dir = self.inner.releases(tenant).join(generation.to_string());
        let remove = move || durable::remove_dir(&dir, Point::ReleaseRemove);
        let removed = self.inner.on_thread(tenant.id, remove).await;
        if let Err(error) = removed {
            warn!(tenant = %tenant.name, generation, error = &error as &dyn std::error::Error, "discard");
        }
    }

    /// Removes all that is kept of a tenant but its modules, which the next sweep finds unnamed.
    pub async fn forget(&self, tenant: &Tenant) -> io::Result<()> {
        self.recheck(tenant.id);
        self.inner.checked.retain(|(owner, _)| owner.id() != tenant.id);
        let (inner, name) = (self.inner.clone(), tenant.name.clone());
        blocking(move || {
            let removed = inner.directories.remove(&name);
            for engine in fs::read_dir(inner.data.join("artifacts"))? {
                let artifacts = engine?.path().join(name.as_str());
                durable::remove_dir(&artifacts, Point::TenantArtifacts)?;
            }
            removed
        })
        .await
    }

    /// Users of tenants that are no more, whose files could not be removed.
    pub fn left_users(&self) -> HashSet<u32> {
        self.inner.directories.left_users()
    }

    /// Removes the files of tenants that are no more: a host was killed while it removed them, or
    /// they could not be removed then.
    pub async fn forget_strangers(&self, tenants: &[Tenant]) -> io::Result<()> {
        let mut known: HashSet<String> =
            tenants.iter().map(|tenant| tenant.name.to_string()).collect();
        known.insert(Owner::Bundled.dir().to_owned());
        let inner = self.inner.clone();
        blocking(move || {
            let is_known = |name: &OsString| name.to_str().is_some_and(|it| known.contains(it));
            inner.directories.remove_strangers(is_known)?;
            let artifacts = inner.data.join("artifacts").join(&inner.compiler.engine);
            for entry in fs::read_dir(&artifacts)? {
                let name = entry?.file_name();
                if !is_known(&name) {
                    modules::swept(&artifacts.join(name), Point::StartStrangers);
                }
            }
            Ok(())
        })
        .await
    }

    /// Removes modules and artifacts that no version names, and artifacts of other engines.
    pub async fn sweep(&self) -> Result<u64, ReleaseError> {
        let sweep = self.inner.pins.sweep();
        let mut modules = self.inner.store.live_modules().await?;
        let mut artifacts = HashSet::new();
        for (owner, sha256) in self.inner.store.live_artifacts().await? {
            let dir = owner.map_or(Owner::Bundled.dir().to_owned(), |name| name.to_string());
            artifacts.insert((dir, sha256));
        }
        // What comes with Hearth is needed even while no tenant has it.
        for bundled in self.inner.checked.iter().filter(|checked| checked.0 == Owner::Bundled) {
            modules.insert(bundled.1);
            artifacts.insert((Owner::Bundled.dir().to_owned(), bundled.1));
        }
        let inner = self.inner.clone();
        Ok(blocking(move || inner.sweep(&modules, &artifacts, &sweep)).await?)
    }

    /// Removes a tenant's generations other than these. Workers hold what they mapped.
    pub async fn prune(&self, tenant: &Tenant, keep: Generation) -> Result<(), ReleaseError> {
        let releases = self.inner.releases(tenant);
        // One that is being made again would be taken apart under its maker's hands.
        let lock = self.inner.preparing.entry(tenant.id).or_default().clone();
        let _alone = lock.lock().await;
        self.inner.prepared.retain(|(id, generation), _| *id != tenant.id || *generation == keep);
        let pruned = self.inner.on_thread(tenant.id, move || {
            // One that leads elsewhere is made anew before the next worker starts.
            if fs::symlink_metadata(&releases).is_ok_and(|found| found.is_dir()) {
                for entry in fs::read_dir(&releases)? {
                    let name = entry?.file_name();
                    if name.to_str() != Some(&keep.to_string()) {
                        durable::remove_dir(&releases.join(name), Point::ReleaseRemove)?;
                    }
                }
            }
            Ok::<_, io::Error>(())
        });
        pruned.await?;
        Ok(())
    }
}

impl Inner {
    /// Does what blocks for a tenant, when it is its turn.
    async fn on_thread<T: Send + 'static>(
        &self,
        tenant: TenantId,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let turn = self.threads.turn(tenant).await;
        blocking(move || {
            let done = work();
            // Not before it is done, though nobody may wait for it any more.
            drop(turn);
            done
        })
        .await
    }

    fn artifact(&self, owner: &Owner, sha256: ModuleDigest) -> PathBuf {
        let engine = self.data.join("artifacts").join(&self.compiler.engine);
        engine.join(owner.dir()).join(artifact_name(sha256))
    }

    fn releases(&self, tenant: &Tenant) -> PathBuf {
        self.directories.releases(&tenant.name)
    }

    fn manifest(
        &self,
        tenant: &Tenant,
        generation: Generation,
        functions: &[VersionRow],
        modules: &Conditions,
    ) -> Manifest {
        let limits = tenant.limits();
        let mut functions: Vec<_> = functions
            .iter()
            .map(|function| ManifestFunction {
                path: function.path.clone(),
                version: function.version,
                sha256: function.sha256,
                kind: function.kind,
                options: function.options().resolve().within(&limits),
                damaged: modules.get(&function.sha256) == Some(&Condition::Damaged),
            })
            .collect();
        functions.sort_by(|a, b| a.path.cmp(&b.path));
        let (tenant, engine) = (tenant.name.clone(), self.compiler.engine.clone());
        Manifest { tenant, generation, engine, limits, functions }
    }

    /// Makes sure that an artifact is there and is ours, unless its module is damaged.
    async fn check(
        self: Arc<Self>,
        owner: &Owner,
        sha256: ModuleDigest,
    ) -> Result<Condition, ReleaseError> {
        if self.modules.found(sha256) != Some(Condition::Whole) {
            let inner = self.clone();
            let look = move || inner.modules.condition(sha256);
            let condition = self.on_thread(owner.id(), look).await?;
            if condition == Condition::Damaged {
                return Ok(condition);
            }
        }
        let key = (owner.clone(), sha256);
        if self.checked.contains(&key) {
            return Ok(Condition::Whole);
        }
        let kept = self.store.artifact_mac(owner.id(), sha256, &self.compiler.engine).await?;
        let (inner, path) = (self.clone(), self.artifact(owner, sha256));
        let read = move || files::open(&path).and_then(|file| inner.mac(file));
        let found = self.on_thread(owner.id(), read).await;
        match (kept, found) {
            (Some(kept), Ok(found)) if kept == found => {
                self.checked.insert(key);
                return Ok(Condition::Whole);
            }
            (Some(_), Ok(_)) => {
                warn!(%sha256, owner = owner.dir(), "an artifact was changed on disk")
            }
            (_, Err(error)) if files::is_something_else(&error) => {
                warn!(%sha256, owner = owner.dir(), error = &error as &dyn std::error::Error, "an artifact was changed on disk")
            }
            (_, Err(error)) if !is_not_there(&error) => return Err(error.into()),
            (None, _) | (_, Err(_)) => {}
        }
        info!(%sha256, owner = owner.dir(), "compiling again");
        let turn = self.compiler.turn(owner.id()).await;
        let inner = self.clone();
        let module = self.on_thread(owner.id(), move || inner.modules.unpack(sha256)).await?;
        self.compile(owner.clone(), &turn, sha256, &module, None).await?;
        Ok(Condition::Whole)
    }

    /// Compiles a module, with room for its artifact where it comes with an upload.
    async fn compile(
        self: Arc<Self>,
        owner: Owner,
        turn: &Compiling,
        sha256: ModuleDigest,
        module: &File,
        room: Option<&Arc<Room>>,
    ) -> Result<(crate::compile::Compiled, Option<Reservation>), ReleaseError> {
        fail::step(Point::ArtifactCreate)?;
        let artifact = NamedTempFile::new_in(self.data.join("tmp"))?;
        let mut room = room.map(Room::reservation);
        let compiling = self.compiler.compile(turn, module, artifact.as_file());
        let compiled = tokio::select! {
            compiled = compiling => compiled?,
            // What is dropped with that is the compiler.
            error = outgrown(artifact.as_file(), room.as_mut()) => return Err(error),
        };
        if let Some(room) = &mut room {
            room.reach(artifact.as_file().metadata()?.len())?;
            room.place();
        }
        let (inner, path) = (self.clone(), self.artifact(&owner, sha256));
        let placed = self.on_thread(owner.id(), move || {
            let mut written = artifact.as_file().try_clone()?;
            written.rewind()?;
            let mac = inner.mac(written)?;
            durable::sync(artifact.as_file(), Point::ArtifactSync)?;
            let dir = path.parent().expect("it lies in its owner's directory");
            durable::create_own_dir(dir, Point::ArtifactDir)?;
            durable::place(artifact, &path, Point::ArtifactPlace)?;
            if let Err(error) = durable::sync_dir(dir, Point::ArtifactSyncDir) {
                // Nothing vouches for it yet, and so nothing needs it.
                let _ = fs::remove_file(&path);
                return Err(error);
            }
            Ok::<_, io::Error>(mac)
        });
        let mac = placed.await?;
        self.store.put_artifact(owner.id(), sha256, &self.compiler.engine, mac).await?;
        self.checked.insert((owner, sha256));
        Ok((compiled, room))
    }

    fn mac(&self, mut file: File) -> io::Result<[u8; 32]> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length will do");
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(mac.finalize().into_bytes().into()),
                got => mac.update(&buffer[..got]),
            }
        }
    }

    /// Builds a generation beside its place and moves it there whole. What fails leaves none.
    fn link(&self, releases: &Path, manifest: &Manifest, artifacts: &Artifacts) -> io::Result<()> {
        let dir = releases.join(manifest.generation.to_string());
        let half = releases.join(format!("{}.half", manifest.generation));
        let place = || {
            durable::create_own_dir(releases, Point::ReleaseDir)?;
            durable::remove_dir(&half, Point::ReleaseClear)?;
            fail::step(Point::ReleaseCreate)?;
            fs::create_dir(&half)?;
            let readable = |file: &File, mode| file.set_permissions(Permissions::from_mode(mode));
            readable(&files::dir(&half)?.into(), READABLE_DIR)?;
            for (sha256, artifact) in artifacts {
                fail::step(Point::ReleaseLink)?;
                // By descriptor, here and below: what else may come to lie there is nobody's to
                // give away.
                readable(&files::open(artifact)?, READABLE)?;
                fs::hard_link(artifact, half.join(artifact_name(*sha256)))?;
            }
            fail::step(Point::ReleaseWrite)?;
            let mut file = files::open_or_make(&half.join(Manifest::FILE))?;
            file.write_all(&written(manifest))?;
            readable(&file, READABLE)?;
            durable::sync(&file, Point::ReleaseSync)?;
            durable::sync_dir(&half, Point::ReleaseSyncHalf)?;
            durable::remove_dir(&dir, Point::ReleaseClear)?;
            durable::rename(&half, &dir, Point::ReleasePlace)?;
            durable::sync_dir(releases, Point::ReleaseSyncDir)
        };
        place().inspect_err(|_| {
            for left in [&half, &dir] {
                // What stays all the same is swept.
                let _ = fs::remove_dir_all(left);
            }
        })
    }

    fn sweep(
        &self,
        modules: &HashSet<ModuleDigest>,
        artifacts: &HashSet<(String, ModuleDigest)>,
        sweep: &Sweep,
    ) -> io::Result<u64> {
        let mut removed = self.modules.sweep(modules, sweep)?;
        for engine in fs::read_dir(self.data.join("artifacts"))? {
            let engine = engine?;
            if engine.file_name().to_str() != Some(&self.compiler.engine) {
                removed += u64::from(modules::swept(&engine.path(), Point::ArtifactRemove));
                continue;
            }
            for owner in fs::read_dir(engine.path())? {
                let owner = owner?;
                if !owner.file_type()?.is_dir() {
                    removed += u64::from(modules::swept(&owner.path(), Point::ArtifactRemove));
                    continue;
                }
                let dir = owner.file_name().to_string_lossy().into_owned();
                removed += self.sweep_artifacts(&owner.path(), sweep, |sha256| {
                    artifacts.contains(&(dir.clone(), sha256))
                })?;
            }
        }
        Ok(removed)
    }

    /// Removes those of one owner's artifacts that are not named.
    fn sweep_artifacts(
        &self,
        dir: &Path,
        sweep: &Sweep,
        is_named: impl Fn(ModuleDigest) -> bool,
    ) -> io::Result<u64> {
        let mut removed = 0;
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let owner = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        for artifact in entries {
            let artifact = artifact?.path();
            let remove = || modules::swept(&artifact, Point::ArtifactRemove);
            let sha256 = artifact.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            removed += match sha256 {
                Some(sha256) if is_named(sha256) => 0,
                Some(sha256) => {
                    let gone = sweep.remove(sha256, || {
                        let gone = remove();
                        self.checked
                            .retain(|(of, checked)| of.dir() != owner || *checked != sha256);
                        gone.then_some(()).ok_or(())
                    });
                    u64::from(gone.unwrap_or(false))
                }
                None => u64::from(remove()),
            };
        }
        Ok(removed)
    }
}

/// Returns when an artifact that is being made has no more room.
async fn outgrown(artifact: &File, room: Option<&mut Reservation>) -> ReleaseError {
    let Some(room) = room else { return std::future::pending().await };
    loop {
        tokio::time::sleep(LOOK).await;
        let grown = artifact.metadata().map_err(ReleaseError::Disk);
        if let Err(error) = grown.and_then(|file| Ok(room.reach(file.len())?)) {
            return error;
        }
    }
}

/// What any user may read who is handed the directory of a generation: a worker's own is not the
/// host's. By a path nobody comes there, since the data directory is the host's alone.
const READABLE: u32 = 0o444;
const READABLE_DIR: u32 = 0o755;

fn artifact_name(sha256: ModuleDigest) -> String {
    format!("{sha256}.cwasm")
}

/// Or something else is where it was to be.
fn is_not_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn written(manifest: &Manifest) -> Vec<u8> {
    serde_json::to_vec_pretty(manifest).expect("a manifest is plain data")
}

/// Whether that generation is there, whole: the manifest byte by byte, and its artifacts the very
/// files that were checked.
fn is_release(releases: &Path, manifest: &Manifest, artifacts: &Artifacts) -> bool {
    let dir = releases.join(manifest.generation.to_string());
    let file =
        |path: &Path| fs::symlink_metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let same = |(sha256, artifact): (&ModuleDigest, &PathBuf)| {
        let linked = file(&dir.join(artifact_name(*sha256)));
        linked.is_some() && linked == file(artifact)
    };
    let wanted = written(manifest);
    let found = files::read(&dir.join(Manifest::FILE), wanted.len() as u64);
    let is_open = |path: &Path, is_dir, mode| {
        let found = fs::symlink_metadata(path);
        found.is_ok_and(|it| it.is_dir() == is_dir && it.mode() & mode == mode)
    };
    is_open(&dir, true, READABLE_DIR)
        && is_open(&dir.join(Manifest::FILE), false, READABLE)
        && found.is_ok_and(|found| found == wanted)
        && artifacts.iter().all(same)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
