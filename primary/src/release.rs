//! What workers are started from: modules, artifacts and generations on disk.
//!
//! ```text
//! modules/<sha256>.wasm.zst                     uploaded, never changed          (release/modules.rs)
//! artifacts/<engine>/<tenant>/<sha256>.cwasm    compiled; a cache, keyed digest in the store
//! tenants/<tenant>/releases/<generation>/       manifest.json and links to its artifacts
//! ```
//!
//! The store names what must exist; everything here but the modules can be made again from it.
//! An artifact is native code, so before a worker may map it its keyed digest is checked, once a
//! boot. Which functions are in a generation is `upload`'s to decide.

mod disk;
pub mod modules;

pub use modules::{file_name as module_file, sync_dir};

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dashmap::{DashMap, DashSet};
use hearth_wire::{
    FunctionPath, Generation, Manifest, ManifestFunction, ModuleDigest, OptionsError, OptionsPatch,
    TenantName, limits,
};
use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::{Mode, OFlags};
use sha2::Sha256;
use tempfile::{NamedTempFile, TempDir};
use tokio::sync::{Mutex, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tracing::{info, warn};

use crate::compile::{CompileError, Compiler};
use crate::store::{Store, StoreError, Tenant, TenantId, VersionRow};
use crate::tree::Trees;
use modules::{Arrived, IngestError, Modules, Packing};

mod bundled {
    include!(concat!(env!("OUT_DIR"), "/bundled.rs"));
}

/// Directories of the data directory that a restore fills, too.
pub const MODULES: &str = "modules";
pub const TENANTS: &str = "tenants";

/// Files, and the modules that they were made of.
type Artifacts = BTreeSet<(PathBuf, ModuleDigest)>;

#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("the module declares options that are refused: {0}")]
    Options(#[source] OptionsError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error("a file of the data directory")]
    Disk(#[from] io::Error),
    #[error("the store")]
    Store(#[from] StoreError),
    #[error("the tenant may have {} on disk and would have {needed} bytes", limits::size(*limit))]
    Quota { needed: u64, limit: u64 },
    #[error("generation {0} is not the current one and was never written")]
    NoGeneration(Generation),
}

impl ReleaseError {
    /// What the tenant's owner is told: whose fault it was, and nothing of the host.
    pub fn for_owner(&self) -> String {
        match self {
            Self::Compile(CompileError::Refused(diagnosis)) => diagnosis.detail.clone(),
            Self::Options(error) => {
                format!("the module declares options that are refused: {error}")
            }
            Self::Quota { .. } => {
                format!("{self}: remove functions, or have the host's admin raise `disk_bytes`")
            }
            Self::Ingest(IngestError::Disk(_)) => "the host could not store the module".to_owned(),
            Self::Ingest(error) => error.to_string(),
            Self::Compile(_) => {
                "the host's compiler failed; its operator finds why in the log".to_owned()
            }
            Self::Disk(error) if error.kind() == io::ErrorKind::InvalidData => error.to_string(),
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
    trees: Trees,
    store: Store,
    /// Keys the artifacts' digests.
    key: [u8; 32],
    /// Artifacts whose digest was checked since this process started.
    checked: DashSet<(Owner, ModuleDigest)>,
    /// Generations that are known to be on disk, whole and for this engine.
    prepared: DashSet<(TenantId, Generation)>,
    /// One at a time prepares a tenant's release.
    preparing: DashMap<TenantId, Arc<Mutex<()>>>,
    /// Held shared from a file's arrival to the commit that names it, and alone by the sweep.
    arriving: Arc<RwLock<()>>,
}

impl Releases {
    /// Makes the directories, and removes what an earlier process left half done.
    pub async fn open(
        data: &Path,
        store: Store,
        compiler: Compiler,
        trees: Trees,
    ) -> Result<Self, ReleaseError> {
        let tmp = data.join("tmp");
        if tmp.exists() {
            fs::remove_dir_all(&tmp)?;
        }
        let (kept, tenants) = (data.join(MODULES), data.join(TENANTS));
        for dir in [&tmp, &kept, &tenants, &data.join("artifacts").join(&compiler.engine)] {
            fs::create_dir_all(dir)?;
        }
        let key = store.host_key().await?;
        let inner = Inner {
            data: data.to_owned(),
            modules: Modules::new(kept, tmp),
            compiler,
            trees,
            store,
            key,
            checked: DashSet::new(),
            prepared: DashSet::new(),
            preparing: DashMap::new(),
            arriving: Arc::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// To be held by whoever makes files that no metadata names yet.
    pub async fn arriving(&self) -> OwnedRwLockReadGuard<()> {
        self.inner.arriving.clone().read_owned().await
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
            let kept = inner.data.join(MODULES);
            for module in fs::read_dir(staged.join(MODULES))? {
                let module = module?;
                match fs::hard_link(module.path(), kept.join(module.file_name())) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
            sync_dir(&kept)?;
            let trees = inner.data.join(TENANTS);
            for tenant in &tenants {
                let (from, to) =
                    (staged.join(TENANTS).join(tenant.as_str()), trees.join(tenant.as_str()));
                // One that is there is of a tenant that was, and whose removal did not end.
                remove_tree(&inner.trees, &to)?;
                match fs::rename(from, to) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            sync_dir(&trees)
        })
        .await
    }

    /// Of tenants that did not come after all.
    pub async fn remove_trees(&self, tenants: &[TenantName]) -> io::Result<()> {
        let (inner, tenants) = (self.inner.clone(), tenants.to_vec());
        blocking(move || {
            let trees = inner.data.join(TENANTS);
            tenants.iter().try_for_each(|it| remove_tree(&inner.trees, &trees.join(it.as_str())))
        })
        .await
    }

    /// What is kept of a tenant besides its modules, where it has anything.
    pub fn tenant_directory(&self, tenant: &TenantName) -> io::Result<Option<OwnedFd>> {
        open_dir(&self.inner.data.join(TENANTS).join(tenant.as_str()))
    }

    /// Keeps and compiles the functions that come with Hearth; tells which artifacts are worth
    /// loading before any worker is forked.
    pub async fn bundle(&self) -> Result<Vec<(Bundled, OwnedFd)>, ReleaseError> {
        let mut functions = Vec::new();
        for (name, packed) in bundled::BUNDLED {
            let arrived = self.ingest(Packing::Zstd, *packed, limits::MODULE_MAX_BYTES).await?;
            let module = self.admit_as(Owner::Bundled, arrived).await?;
            let path =
                name.parse().expect("a bundled function's name is checked where it is built");
            let artifact = File::open(self.inner.artifact(&Owner::Bundled, module.sha256))?;
            functions.push((Bundled { path, module }, artifact.into()));
        }
        Ok(functions)
    }

    /// Takes an upload's bytes in. Blocks for as long as they take to arrive, on a thread for that.
    pub async fn ingest(
        &self,
        packing: Packing,
        upload: impl Read + Send + 'static,
        most: u64,
    ) -> Result<Arrived, IngestError> {
        let inner = self.inner.clone();
        blocking(move || inner.modules.ingest(packing, upload, most)).await
    }

    /// Refuses options that cannot be kept: a schema that is none, an instance that cannot be
    /// used again.
    pub async fn check_options(
        &self,
        tenant: &Tenant,
        function: &VersionRow,
    ) -> Result<(), ReleaseError> {
        let owner = Owner::of(tenant, function.bundled);
        let artifact = File::open(self.inner.artifact(&owner, function.sha256))?;
        let options = function.options().resolve();
        Ok(self.inner.compiler.check(&options, &artifact).await?)
    }

    /// Bytes on disk that are a tenant's: its tree, its artifacts, and the modules that it names,
    /// though others may name them too.
    pub async fn disk_use(&self, tenant: &Tenant) -> Result<u64, ReleaseError> {
        let modules = self.inner.store.module_bytes(tenant.id).await?;
        let tree = self.inner.data.join(TENANTS).join(tenant.name.as_str());
        let artifacts = self.inner.data.join("artifacts").join(&self.inner.compiler.engine);
        let artifacts = artifacts.join(tenant.name.as_str());
        // Releases hold links to the artifacts, which count once.
        let files = blocking(move || disk::allocated(&[&tree, &artifacts])).await?;
        Ok(modules + files)
    }

    /// Compiles a module that arrived and keeps both it and its artifact.
    pub async fn admit(&self, tenant: &Tenant, arrived: Arrived) -> Result<Admitted, ReleaseError> {
        self.admit_as(Owner::of(tenant, false), arrived).await
    }

    async fn admit_as(&self, owner: Owner, mut arrived: Arrived) -> Result<Admitted, ReleaseError> {
        let (sha256, size, stored) = (arrived.sha256, arrived.size, arrived.stored);
        arrived.raw.rewind()?;
        let compiled = self.inner.clone().compile(owner, sha256, &arrived.raw).await?;
        let declared = match &compiled.options {
            Some(json) => OptionsPatch::parse(json).map_err(ReleaseError::Options)?,
            None => OptionsPatch::default(),
        };
        let inner = self.inner.clone();
        blocking(move || inner.modules.keep(arrived)).await?;
        let (kind, imports) = (compiled.kind, compiled.imports);
        Ok(Admitted { sha256, size, stored, kind, imports, declared })
    }

    /// Writes a generation, in the place of any half-made one of that number. One that is there
    /// whole, as an earlier process of this host left it, stays as it is.
    pub async fn write(
        &self,
        tenant: &Tenant,
        generation: Generation,
        functions: &[VersionRow],
    ) -> Result<(), ReleaseError> {
        let artifacts = self.checked(tenant, functions).await?;
        let manifest = self.inner.manifest(tenant, generation, functions);
        let (inner, releases) = (self.inner.clone(), self.inner.releases(tenant));
        blocking(move || match is_release(&releases, &manifest, &artifacts) {
            true => Ok(()),
            false => inner.link(&releases, &manifest, &artifacts),
        })
        .await?;
        self.inner.prepared.insert((tenant.id, generation));
        Ok(())
    }

    /// The functions' artifacts, which are there and ours.
    async fn checked(
        &self,
        tenant: &Tenant,
        functions: &[VersionRow],
    ) -> Result<Artifacts, ReleaseError> {
        let mut artifacts = Artifacts::new();
        for function in functions {
            let owner = Owner::of(tenant, function.bundled);
            self.inner.clone().check(&owner, function.sha256).await?;
            artifacts.insert((self.inner.artifact(&owner, function.sha256), function.sha256));
        }
        Ok(artifacts)
    }

    /// The directory of a generation for a worker to start from; made again from the store where
    /// it is missing, damaged, or of another engine.
    pub async fn prepare(
        &self,
        tenant: &Tenant,
        generation: Generation,
    ) -> Result<OwnedFd, ReleaseError> {
        let dir = self.inner.releases(tenant).join(generation.to_string());
        if !self.inner.prepared.contains(&(tenant.id, generation)) {
            let lock = self.inner.preparing.entry(tenant.id).or_default().clone();
            let _one = lock.lock().await;
            if !self.inner.prepared.contains(&(tenant.id, generation)) {
                // Its limits may be others than when the caller read them.
                let current = self.inner.store.tenant(&tenant.name).await?;
                let current = current.filter(|current| current.generation == generation);
                let current = current.ok_or(ReleaseError::NoGeneration(generation))?;
                let functions = self.inner.store.live_functions(tenant.id).await?;
                self.write(&current, generation, &functions).await?;
            }
        }
        match File::open(&dir) {
            Ok(dir) => Ok(dir.into()),
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
        if let Err(error) = blocking(move || remove_dir(&dir)).await {
            warn!(tenant = %tenant.name, generation, error = &error as &dyn std::error::Error, "discard");
        }
    }

    /// Removes all that is kept of a tenant but its modules, which the next sweep finds unnamed.
    pub async fn forget(&self, tenant: &Tenant) -> io::Result<()> {
        self.inner.prepared.retain(|(id, _)| *id != tenant.id);
        self.inner.checked.retain(|(owner, _)| owner.id() != tenant.id);
        let tree = self.inner.data.join(TENANTS).join(tenant.name.as_str());
        let artifacts = self.inner.data.join("artifacts");
        let (name, trees) = (tenant.name.to_string(), self.inner.trees.clone());
        blocking(move || {
            remove_tree(&trees, &tree)?;
            for engine in fs::read_dir(artifacts)? {
                remove_dir(&engine?.path().join(&name))?;
            }
            Ok(())
        })
        .await
    }

    /// Removes the trees of tenants that are no more: a host was killed while it removed them.
    pub async fn forget_strangers(&self, tenants: &[Tenant]) -> io::Result<()> {
        let known: HashSet<String> = tenants.iter().map(|tenant| tenant.name.to_string()).collect();
        let dir = self.inner.data.join(TENANTS);
        let trees = self.inner.trees.clone();
        blocking(move || {
            for entry in fs::read_dir(&dir)? {
                let name = entry?.file_name();
                if name.to_str().is_none_or(|name| !known.contains(name)) {
                    remove_tree(&trees, &dir.join(name))?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Removes modules and artifacts that no version names, and artifacts of other engines.
    pub async fn sweep(&self) -> Result<u64, ReleaseError> {
        let mut named = self.inner.store.live_modules().await?;
        named.extend(self.inner.checked.iter().filter(|c| c.0 == Owner::Bundled).map(|c| c.1));
        let inner = self.inner.clone();
        Ok(blocking(move || inner.sweep(&named)).await?)
    }

    /// Removes a tenant's generations other than these. Workers hold what they mapped.
    pub async fn prune(&self, tenant: &Tenant, keep: Generation) -> Result<(), ReleaseError> {
        let releases = self.inner.releases(tenant);
        // One that is being made again would be taken apart under its maker's hands.
        let lock = self.inner.preparing.entry(tenant.id).or_default().clone();
        let _alone = lock.lock().await;
        self.inner.prepared.retain(|(id, generation)| *id != tenant.id || *generation == keep);
        blocking(move || {
            if releases.exists() {
                for entry in fs::read_dir(&releases)? {
                    let name = entry?.file_name();
                    if name.to_str() != Some(&keep.to_string()) {
                        remove_dir(&releases.join(name))?;
                    }
                }
            }
            Ok::<_, io::Error>(())
        })
        .await?;
        Ok(())
    }
}

impl Inner {
    fn artifact(&self, owner: &Owner, sha256: ModuleDigest) -> PathBuf {
        let engine = self.data.join("artifacts").join(&self.compiler.engine);
        engine.join(owner.dir()).join(format!("{sha256}.cwasm"))
    }

    fn releases(&self, tenant: &Tenant) -> PathBuf {
        self.data.join(TENANTS).join(tenant.name.as_str()).join("releases")
    }

    fn manifest(
        &self,
        tenant: &Tenant,
        generation: Generation,
        functions: &[VersionRow],
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
            })
            .collect();
        functions.sort_by(|a, b| a.path.cmp(&b.path));
        let (tenant, engine) = (tenant.name.clone(), self.compiler.engine.clone());
        Manifest { tenant, generation, engine, limits, functions }
    }

    /// Makes sure that an artifact is there and is ours.
    async fn check(
        self: Arc<Self>,
        owner: &Owner,
        sha256: ModuleDigest,
    ) -> Result<(), ReleaseError> {
        let key = (owner.clone(), sha256);
        if self.checked.contains(&key) {
            return Ok(());
        }
        let kept = self.store.artifact_mac(owner.id(), sha256, &self.compiler.engine).await?;
        let (inner, path) = (self.clone(), self.artifact(owner, sha256));
        let found = blocking(move || File::open(path).and_then(|file| inner.mac(file))).await;
        match (kept, found) {
            (Some(kept), Ok(found)) if kept == found => {
                self.checked.insert(key);
                return Ok(());
            }
            (Some(_), Ok(_)) => {
                warn!(%sha256, owner = owner.dir(), "an artifact was changed on disk")
            }
            (_, Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            (None, _) | (_, Err(_)) => {}
        }
        info!(%sha256, owner = owner.dir(), "compiling again");
        let inner = self.clone();
        let module = blocking(move || inner.modules.unpack(sha256)).await?;
        self.compile(owner.clone(), sha256, &module).await?;
        Ok(())
    }

    async fn compile(
        self: Arc<Self>,
        owner: Owner,
        sha256: ModuleDigest,
        module: &File,
    ) -> Result<crate::compile::Compiled, ReleaseError> {
        let artifact = NamedTempFile::new_in(self.data.join("tmp"))?;
        let compiled = self.compiler.compile(module, artifact.as_file()).await?;
        let (inner, path) = (self.clone(), self.artifact(&owner, sha256));
        let mac = blocking(move || {
            let mac = inner.mac(artifact.reopen()?)?;
            artifact.as_file().sync_all()?;
            let dir = path.parent().expect("it lies in its owner's directory");
            fs::create_dir_all(dir)?;
            artifact.persist(&path).map_err(|error| error.error)?;
            sync_dir(dir)?;
            Ok::<_, io::Error>(mac)
        })
        .await?;
        self.store.put_artifact(owner.id(), sha256, &self.compiler.engine, mac).await?;
        self.checked.insert((owner, sha256));
        Ok(compiled)
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

    /// Builds a generation beside its place and moves it there whole.
    fn link(&self, releases: &Path, manifest: &Manifest, artifacts: &Artifacts) -> io::Result<()> {
        fs::create_dir_all(releases)?;
        let dir = releases.join(manifest.generation.to_string());
        let half = releases.join(format!("{}.half", manifest.generation));
        remove_dir(&half)?;
        fs::create_dir(&half)?;
        for (artifact, sha256) in artifacts {
            fs::hard_link(artifact, half.join(format!("{sha256}.cwasm")))?;
        }
        let mut file = File::create(half.join(Manifest::FILE))?;
        file.write_all(&written(manifest))?;
        file.sync_all()?;
        sync_dir(&half)?;
        remove_dir(&dir)?;
        fs::rename(&half, &dir)?;
        sync_dir(releases)
    }

    fn sweep(&self, named: &HashSet<ModuleDigest>) -> io::Result<u64> {
        let mut removed = self.modules.sweep(named)?;
        for engine in fs::read_dir(self.data.join("artifacts"))? {
            let engine = engine?;
            if engine.file_name().to_str() != Some(&self.compiler.engine) {
                remove_dir(&engine.path())?;
                removed += 1;
                continue;
            }
            for owner in fs::read_dir(engine.path())? {
                for artifact in fs::read_dir(owner?.path())? {
                    let artifact = artifact?;
                    let sha256 = artifact.path().file_stem().and_then(|s| s.to_str()?.parse().ok());
                    if sha256.is_none_or(|sha256| !named.contains(&sha256)) {
                        fs::remove_file(artifact.path())?;
                        self.checked.retain(|(_, checked)| Some(*checked) != sha256);
                        removed += 1;
                    }
                }
            }
        }
        Ok(removed)
    }
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
    let same = |(artifact, sha256): &(PathBuf, ModuleDigest)| {
        let linked = file(&dir.join(format!("{sha256}.cwasm")));
        linked.is_some() && linked == file(artifact)
    };
    let found = fs::read(dir.join(Manifest::FILE));
    found.is_ok_and(|found| found == written(manifest)) && artifacts.iter().all(same)
}

/// The host removes what it wrote itself. Whatever else is there may be a tenant's own doing, and
/// is removed by a process without the host's rights.
fn remove_tree(trees: &Trees, dir: &Path) -> io::Result<()> {
    let Some(opened) = open_dir(dir)? else { return Ok(()) };
    for own in ["releases", "logs"] {
        remove_dir(&dir.join(own))?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            trees.remove(&opened).map_err(io::Error::other)?;
            fs::remove_dir(dir)
        }
        removed => removed,
    }
}

/// `None` where there is none.
fn open_dir(dir: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(dir, flags, Mode::empty()) {
        Ok(opened) => Ok(Some(opened)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
