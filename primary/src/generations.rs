//! What workers are started from: modules, artifacts and generations on disk.
//!
//! ```text
//! modules/<sha256>.wasm.zst                     uploaded, never changed   (generations/modules.rs)
//! artifacts/<engine>/<tenant>/<sha256>.cwasm    compiled; a cache       (generations/artifacts.rs)
//! tenants/<tenant>/releases/<generation>/       manifest.json and links to its artifacts
//!                                                                        (generations/manifest.rs)
//! tenants/<tenant>/…                            what else it has      (generations/directories.rs)
//! ```
//!
//! The store names what must exist; everything here but the modules can be made again from it. What
//! comes with the build, and is nobody's own, is in generations/bundle.rs.
//! Which functions are in a generation is `upload`'s to decide.

mod artifacts;
mod bundle;
mod directories;
mod disk;
mod error;
mod manifest;
pub mod modules;
mod pins;
pub mod room;
mod served;

pub use artifacts::{Admitted, Held};
pub use bundle::{BuildBundle, Source};
pub use directories::{KEPT, STATE, TENANTS, foreign_states};
pub use error::GenerationError;
pub use manifest::Prepared;
pub use modules::file_name as module_file;
pub use served::{Served, one};

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use hearth_wire::{Fingerprint, GenerationNumber, ModuleDigest, TenantName};
use tempfile::TempDir;
use tokio::sync::{Mutex, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::compile::Compiler;
use crate::durable;
use crate::fail::Point;
use crate::fair::Fair;
use crate::locks::TenantLocks;
use crate::patience::blocking;
use crate::store::{Store, Tenant, TenantId};
use crate::tree::Trees;
use artifacts::Owner;
use directories::Directories;
use manifest::Made;
use modules::{Condition, IngestError, Modules, Spool};
use pins::Pins;
use room::{Room, Rooms};

/// Of the data directory, which a restore fills, too.
pub const MODULES: &str = "modules";
/// Pieces of work on files at once, of all tenants and of one. Each takes a thread while the disk
/// is at it, of the 512 that there are.
const THREADS: usize = 64;
const THREADS_OF_ONE: usize = 8;
/// How often what a tenant has is counted again where it changed meanwhile.
const COUNTS_MAX: usize = 3;

#[derive(Clone)]
pub struct Generations {
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
    /// Set once, before anything is served.
    bundle: OnceLock<Arc<BuildBundle>>,
    /// Artifacts whose digest was checked since this process started, and which engine made each.
    checked: DashMap<(Owner, ModuleDigest), Fingerprint>,
    /// Generations that are known to be on disk for these engines.
    prepared: DashMap<(TenantId, GenerationNumber), Made>,
    /// The module that was looked at last.
    scrubbed: Mutex<Option<ModuleDigest>>,
    /// One at a time prepares a tenant's generation.
    preparing: TenantLocks,
    /// Held shared by the host while it makes files itself that no metadata names yet, which is
    /// short, and alone by the sweep.
    arriving: Arc<RwLock<()>>,
    /// What uploads keep and compile meanwhile, at whatever pace.
    pins: Pins,
    rooms: Arc<Rooms>,
    threads: Fair<TenantId>,
}

impl Generations {
    /// Makes the directories, and removes what an earlier process left half done. Whether tenants
    /// have users is the machine's to say.
    pub async fn open(
        data: &Path,
        store: Store,
        compiler: Compiler,
        trees: Trees,
        has_uids: bool,
        disk_reserve: u64,
    ) -> Result<Self, GenerationError> {
        let tmp = data.join("tmp");
        durable::remove_dir(&tmp, Point::TmpClear)?;
        let (kept, tenants) = (data.join(MODULES), data.join(TENANTS));
        let artifacts = compiler.engines.iter().map(|engine| artifacts_of(data, *engine));
        for dir in [tmp.clone(), kept.clone(), tenants.clone()].into_iter().chain(artifacts) {
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
            directories: Directories::new(tenants, trees, has_uids),
            store,
            key,
            bundle: OnceLock::new(),
            checked: DashMap::new(),
            prepared: DashMap::new(),
            scrubbed: Mutex::default(),
            preparing: TenantLocks::default(),
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

    /// Room on the disk for one upload, beside what its tenant has by now.
    pub async fn room(&self, tenant: &Tenant) -> Result<Arc<Room>, GenerationError> {
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

    /// Bytes on disk that are a tenant's: its tree, its artifacts, and the modules that it names,
    /// though others may name them too.
    pub async fn disk_use(&self, tenant: &Tenant) -> Result<u64, GenerationError> {
        let others = self.inner.host_bytes(tenant).await?;
        Ok(others.saturating_add(self.inner.state_bytes(tenant).await?))
    }

    /// What a tenant's state takes, and what it may take; its next worker is told the same.
    pub async fn look_at_state(&self, tenant: &Tenant) -> Result<StateUse, GenerationError> {
        let share = share(tenant.limits().disk_bytes, self.inner.host_bytes(tenant).await?);
        if let Some(mut made) = self.inner.prepared.get_mut(&(tenant.id, tenant.generation)) {
            made.state_bytes = share;
        }
        Ok(StateUse { bytes: self.inner.state_bytes(tenant).await?, share })
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
    pub async fn scrub(&self) -> Result<(), GenerationError> {
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

    /// Removes all that is kept of a tenant but its modules, which the next sweep finds unnamed.
    pub async fn forget(&self, tenant: &Tenant) -> io::Result<()> {
        self.recheck(tenant.id);
        self.inner.checked.retain(|(owner, _), _| owner.id() != tenant.id);
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
    pub fn left_uids(&self) -> HashSet<u32> {
        self.inner.directories.left_uids()
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
            for artifacts in inner.engines() {
                for entry in fs::read_dir(&artifacts)? {
                    let name = entry?.file_name();
                    if !is_known(&name) {
                        modules::swept(&artifacts.join(name), Point::StartStrangers);
                    }
                }
            }
            Ok(())
        })
        .await
    }
}

/// The directory of one engine's artifacts.
fn artifacts_of(data: &Path, engine: Fingerprint) -> PathBuf {
    data.join("artifacts").join(engine.to_string())
}

/// Of a tenant, bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateUse {
    pub bytes: u64,
    /// What it may take of `disk_bytes` beside what else there is.
    pub share: u64,
}

fn share(limit: u64, others: u64) -> u64 {
    limit.saturating_sub(others)
}

impl Inner {
    /// What is on disk of a tenant but for its state.
    async fn host_bytes(self: &Arc<Self>, tenant: &Tenant) -> Result<u64, GenerationError> {
        let modules = self.store.module_bytes(tenant.id).await?;
        let artifacts = self.engines().map(|engine| engine.join(tenant.name.as_str()));
        let artifacts: Vec<_> = artifacts.collect();
        let (inner, name) = (self.clone(), tenant.name.clone());
        let files =
            self.on_thread(tenant.id, move || inner.directories.host_bytes(&name, &artifacts));
        Ok(modules.saturating_add(files.await?))
    }

    async fn state_bytes(self: &Arc<Self>, tenant: &Tenant) -> io::Result<u64> {
        let (inner, name) = (self.clone(), tenant.name.clone());
        self.on_thread(tenant.id, move || inner.directories.state_bytes(&name)).await
    }

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

    /// The directories of the engines' artifacts.
    fn engines(&self) -> impl Iterator<Item = PathBuf> {
        self.compiler.engines.iter().map(|engine| artifacts_of(&self.data, *engine))
    }

    fn releases(&self, tenant: &Tenant) -> PathBuf {
        self.directories.releases(&tenant.name)
    }
}
