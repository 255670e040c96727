//! Compiled modules: `artifacts/<engine>/<tenant>/<sha256>.cwasm`, a cache. An artifact is native
//! code, so before a worker may map it its keyed digest, which the store has, is checked, once a
//! boot; one that is missing or was changed is compiled again.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hearth_wire::{Fingerprint, ModuleDigest, OptionsPatch};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tempfile::NamedTempFile;
use tracing::{info, warn};

use super::modules::{self, Arrived, Condition, Kept, Packing, Spooled};
use super::pins::{Pin, Sweep};
use super::room::{Reservation, Room};
use super::served::Served;
use super::{GenerationError, Generations, Inner, artifacts_of};
use crate::compile::{Compiled, Compiling};
use crate::durable;
use crate::fail::{self, Point};
use crate::files;
use crate::patience::blocking;
use crate::store::{Tenant, TenantId};

/// Between two looks at how much an artifact takes that is being made.
const LOOK: Duration = Duration::from_millis(50);
/// How long it is waited for that the host makes no files of its own, before what could be tidied
/// is left to the sweep.
const ALONE_MAX: Duration = Duration::from_secs(10);

/// Whose artifacts: a tenant's are its own, since a compilation that takes no time would tell
/// that somebody else has the same module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    Bundled,
    Tenant(TenantId, String),
}

impl Owner {
    pub(super) fn of(tenant: &Tenant) -> Self {
        Self::Tenant(tenant.id, tenant.name.to_string())
    }

    pub(super) fn id(&self) -> TenantId {
        match self {
            Self::Bundled => TenantId(0),
            Self::Tenant(id, _) => *id,
        }
    }

    /// No tenant's name begins with an underscore.
    pub(super) fn dir(&self) -> &str {
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
    /// Of these, the interfaces of other hosts that are not offered here.
    pub unavailable: Vec<String>,
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

impl Generations {
    /// Refuses options that cannot be kept: a schema that is none, an instance that cannot be
    /// used again.
    pub async fn check_options(
        &self,
        tenant: &Tenant,
        function: &Served,
    ) -> Result<(), GenerationError> {
        let options = function.options().resolve();
        let (artifact, engine) = if function.is_bundled() {
            self.bundle().artifact(function.sha256)?
        } else {
            let engine = self.must_be_whole(tenant, function).await?;
            let path = self.inner.artifact(&Owner::of(tenant), function.sha256, engine);
            (files::open(&path)?, engine)
        };
        Ok(self.inner.compiler.check(tenant.id, &options, (&artifact, engine)).await?)
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
    ) -> Result<(Admitted, Held), GenerationError> {
        let owner = Owner::of(tenant);
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
    ) -> Result<(Admitted, Held), GenerationError> {
        let (sha256, size, stored) = (arrived.sha256, arrived.size, arrived.stored);
        let _pin = self.inner.pins.pin(sha256);
        let packed = arrived.packed_room.take();
        arrived.raw.rewind()?;
        let (id, inner) = (owner.id(), self.inner.clone());
        let (compiled, artifact) = inner.compile(owner, turn, sha256, &arrived.raw, room).await?;
        let declared = declared(&compiled)?;
        let inner = self.inner.clone();
        let kept = self.inner.on_thread(id, move || inner.modules.keep(arrived)).await?;
        let Compiled { kind, imports, unavailable, engine: _, options: _ } = compiled;
        let admitted =
            Admitted { sha256, size, stored, kind, imports, unavailable, declared, kept };
        Ok((admitted, Held { _pin, packed, artifact }))
    }

    /// Removes those of these modules that nothing names, and what the tenant does not name of its
    /// artifacts.
    pub async fn tidy(
        &self,
        tenant: &Tenant,
        modules: HashSet<ModuleDigest>,
    ) -> Result<(), GenerationError> {
        self.tidy_artifacts(tenant).await?;
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
    pub async fn tidy_artifacts(&self, tenant: &Tenant) -> Result<(), GenerationError> {
        if self.inner.store.is_read_only() {
            return Ok(());
        }
        let sweep = self.inner.pins.sweep();
        let named = self.inner.store.modules_of(tenant.id).await?;
        let (inner, owner) = (self.inner.clone(), Owner::of(tenant));
        let remove = move || {
            let mut artifacts = inner.engines().map(|engine| engine.join(owner.dir()));
            artifacts.try_for_each(|artifacts| {
                inner.sweep_artifacts(&artifacts, &sweep, |it| named.contains(&it)).map(drop)
            })
        };
        self.inner.on_thread(tenant.id, remove).await?;
        Ok(())
    }

    /// Refuses a version of a tenant's own whose module is damaged, as it is now. Of one that is not,
    /// there is an artifact, which that engine made.
    pub async fn must_be_whole(
        &self,
        tenant: &Tenant,
        function: &Served,
    ) -> Result<Fingerprint, GenerationError> {
        let (owner, sha256) = (Owner::of(tenant), function.sha256);
        let inner = self.inner.clone();
        self.inner.on_thread(tenant.id, move || inner.modules.look(sha256)).await?;
        match self.inner.clone().check(&owner, sha256).await? {
            Some(engine) => Ok(engine),
            None => {
                let (path, version) = (function.path.clone(), function.version.clone());
                Err(GenerationError::Damaged { path, version })
            }
        }
    }

    /// Removes modules and artifacts that no version names, and artifacts of other engines.
    pub async fn sweep(&self) -> Result<u64, GenerationError> {
        let sweep = self.inner.pins.sweep();
        let modules = self.inner.store.live_modules().await?;
        let mut artifacts = HashSet::new();
        for (owner, sha256) in self.inner.store.live_artifacts().await? {
            artifacts.insert((owner.to_string(), sha256));
        }
        // No version names what comes with this build.
        for bundled in self.inner.checked.iter().filter(|it| it.key().0 == Owner::Bundled) {
            artifacts.insert((Owner::Bundled.dir().to_owned(), bundled.key().1));
        }
        let inner = self.inner.clone();
        Ok(blocking(move || inner.sweep(&modules, &artifacts, &sweep)).await?)
    }
}

impl Inner {
    pub(super) fn artifact(
        &self,
        owner: &Owner,
        sha256: ModuleDigest,
        engine: Fingerprint,
    ) -> PathBuf {
        let engine = artifacts_of(&self.data, engine);
        engine.join(owner.dir()).join(artifact_name(sha256))
    }

    /// Makes sure that an artifact is there and is ours, and tells which engine made it. There is
    /// none of a module that is damaged.
    pub(super) async fn check(
        self: Arc<Self>,
        owner: &Owner,
        sha256: ModuleDigest,
    ) -> Result<Option<Fingerprint>, GenerationError> {
        if self.modules.found(sha256) != Some(Condition::Whole) {
            let inner = self.clone();
            let look = move || inner.modules.condition(sha256);
            let condition = self.on_thread(owner.id(), look).await?;
            if condition == Condition::Damaged {
                return Ok(None);
            }
        }
        let key = (owner.clone(), sha256);
        if let Some(engine) = self.checked.get(&key) {
            return Ok(Some(*engine));
        }
        let engines = self.compiler.engines.clone();
        if let Some((engine, mac)) = self.store.artifact(owner.id(), sha256, engines).await? {
            let (inner, path) = (self.clone(), self.artifact(owner, sha256, engine));
            let read = move || files::open(&path).and_then(|file| inner.mac(file));
            match self.on_thread(owner.id(), read).await {
                Ok(found) if found == mac => {
                    self.checked.insert(key, engine);
                    return Ok(Some(engine));
                }
                Ok(_) => warn!(%sha256, owner = owner.dir(), "an artifact was changed on disk"),
                Err(error) if files::is_something_else(&error) => {
                    warn!(%sha256, owner = owner.dir(), error = &error as &dyn std::error::Error, "an artifact was changed on disk")
                }
                Err(error) if !is_not_there(&error) => return Err(error.into()),
                Err(_) => {}
            }
        }
        info!(%sha256, owner = owner.dir(), "compiling again");
        let turn = self.compiler.turn(owner.id()).await;
        let inner = self.clone();
        let module = self.on_thread(owner.id(), move || inner.modules.unpack(sha256)).await?;
        let (compiled, _) = self.compile(owner.clone(), &turn, sha256, &module, None).await?;
        Ok(Some(compiled.engine))
    }

    /// Compiles a module, with room for its artifact where it comes with an upload.
    pub(super) async fn compile(
        self: Arc<Self>,
        owner: Owner,
        turn: &Compiling,
        sha256: ModuleDigest,
        module: &File,
        room: Option<&Arc<Room>>,
    ) -> Result<(Compiled, Option<Reservation>), GenerationError> {
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
        let engine = compiled.engine;
        let (inner, path) = (self.clone(), self.artifact(&owner, sha256, engine));
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
        self.store.put_artifact(owner.id(), sha256, engine, mac).await?;
        self.checked.insert((owner, sha256), engine);
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

    fn sweep(
        &self,
        modules: &HashSet<ModuleDigest>,
        artifacts: &HashSet<(String, ModuleDigest)>,
        sweep: &Sweep,
    ) -> io::Result<u64> {
        let mut removed = self.modules.sweep(modules, sweep)?;
        let engines: HashSet<PathBuf> = self.engines().collect();
        for engine in fs::read_dir(self.data.join("artifacts"))? {
            let engine = engine?.path();
            if !engines.contains(&engine) {
                removed += u64::from(modules::swept(&engine, Point::ArtifactRemove));
                continue;
            }
            for owner in fs::read_dir(engine)? {
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
                            .retain(|(of, checked), _| of.dir() != owner || *checked != sha256);
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

/// What a module says of itself.
pub(super) fn declared(compiled: &Compiled) -> Result<OptionsPatch, GenerationError> {
    match &compiled.options {
        Some(json) => OptionsPatch::parse(json).map_err(GenerationError::Options),
        None => Ok(OptionsPatch::default()),
    }
}

/// Returns when an artifact that is being made has no more room.
async fn outgrown(artifact: &File, room: Option<&mut Reservation>) -> GenerationError {
    let Some(room) = room else { return std::future::pending().await };
    loop {
        tokio::time::sleep(LOOK).await;
        let grown = artifact.metadata().map_err(GenerationError::Disk);
        if let Err(error) = grown.and_then(|file| Ok(room.reach(file.len())?)) {
            return error;
        }
    }
}

pub(super) fn artifact_name(sha256: ModuleDigest) -> String {
    format!("{sha256}.cwasm")
}

/// Or something else is where it was to be.
fn is_not_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
