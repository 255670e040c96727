//! Generations on disk: `tenants/<tenant>/releases/<generation>/`, a manifest and links to its
//! artifacts, written whole beside its place and moved there, and made again where it is missing,
//! damaged, or of engines of another build. What comes with the build is no part of it, so that a new build
//! has nothing to write.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hearth_wire::{
    Fingerprint, GenerationNumber, Limits, Manifest, ManifestFunction, ModuleDigest,
};
use tracing::warn;

use super::artifacts::{Owner, artifact_name};
use super::bundle::BuildBundle;
use super::modules::Condition;
use super::{GenerationError, Generations, Inner, share};
use crate::durable;
use crate::fail::{self, Point};
use crate::files;
use crate::store::{OwnFunctions, Tenant, VersionRow};

/// What a worker is started from.
pub struct Prepared {
    /// The directory of its generation.
    pub generation: OwnedFd,
    /// That of its tenant's state, as a place.
    pub state: OwnedFd,
    pub limits: Limits,
    /// What its state may take on disk.
    pub state_bytes: u64,
}

/// What is linked into a generation.
struct Artifact {
    engine: Fingerprint,
    path: PathBuf,
}

/// By the modules that they were made of, by which they are named in a generation.
type Artifacts = BTreeMap<ModuleDigest, Artifact>;

/// What the modules of a generation were found to be.
type Conditions = BTreeMap<ModuleDigest, Condition>;

/// What is known of a generation on disk.
pub(super) struct Made {
    pub limits: Limits,
    /// As its modules were then.
    pub modules: Conditions,
    /// What the tenant's state may take on disk, as it was found last.
    pub state_bytes: u64,
}

impl Generations {
    /// Writes a generation, in the place of any half-made one of that number, and gives the tenant
    /// what else its workers need of its directory. One that is there
    /// whole, as an earlier process of this host left it, stays as it is.
    pub async fn write(
        &self,
        tenant: &Tenant,
        generation: GenerationNumber,
        own: &OwnFunctions,
    ) -> Result<(), GenerationError> {
        let (artifacts, modules) = self.checked(tenant, &own.live).await?;
        let manifest = self.inner.manifest(tenant, generation, own, &artifacts, self.bundle());
        let (inner, releases) = (self.inner.clone(), self.inner.releases(tenant));
        let (limits, uid) = (manifest.limits, tenant.uid);
        let written = self.inner.on_thread(tenant.id, move || {
            inner.directories.settle(&manifest.tenant, uid)?;
            match is_there(&releases, &manifest, &artifacts) {
                true => Ok(()),
                false => inner.link(&releases, &manifest, &artifacts),
            }
        });
        written.await?;
        let state_bytes = share(limits.disk_bytes, self.inner.host_bytes(tenant).await?);
        let made = Made { limits, modules, state_bytes };
        self.inner.prepared.insert((tenant.id, generation), made);
        Ok(())
    }

    /// The functions' artifacts, which are there and ours; none of a module that is damaged.
    async fn checked(
        &self,
        tenant: &Tenant,
        functions: &[VersionRow],
    ) -> Result<(Artifacts, Conditions), GenerationError> {
        let (mut artifacts, mut modules) = (Artifacts::new(), Conditions::new());
        for function in functions {
            let (owner, sha256) = (Owner::of(tenant), function.sha256);
            let condition = match self.inner.clone().check(&owner, sha256).await? {
                None => Condition::Damaged,
                Some(engine) => {
                    let path = self.inner.artifact(&owner, sha256, engine);
                    artifacts.insert(sha256, Artifact { engine, path });
                    Condition::Whole
                }
            };
            modules.insert(sha256, condition);
        }
        Ok((artifacts, modules))
    }

    /// The directory of a generation for a worker to start from; made again from the store where
    /// it is missing, damaged, or of engines of another build.
    pub async fn prepare(
        &self,
        tenant: &Tenant,
        generation: GenerationNumber,
    ) -> Result<Prepared, GenerationError> {
        let dir = self.inner.releases(tenant).join(generation.to_string());
        if !self.inner.prepared.contains_key(&(tenant.id, generation)) {
            let _one = self.inner.preparing.lock(&tenant.id).await;
            if !self.inner.prepared.contains_key(&(tenant.id, generation)) {
                // Its limits may be others than when the caller read them.
                let current = self.inner.store.tenant(&tenant.name).await?;
                let current = current.filter(|current| current.generation == generation);
                let current = current.ok_or(GenerationError::NoGeneration(generation))?;
                let own = self.inner.store.own_functions(tenant.id).await?;
                self.write(&current, generation, &own).await?;
            }
        }
        let made = self.inner.prepared.get(&(tenant.id, generation));
        let made = made.map(|made| (made.limits, made.state_bytes));
        match files::dir(&dir) {
            Ok(generation) => {
                // It was removed again meanwhile: nothing is known of what else there is.
                let (limits, state_bytes) = made.unwrap_or_else(|| (tenant.limits(), 0));
                let state = self.state(tenant).await?;
                Ok(Prepared { generation, state, limits, state_bytes })
            }
            Err(error) => {
                // Somebody removed it behind our back: the next start makes it again.
                self.inner.prepared.remove(&(tenant.id, generation));
                Err(error.into())
            }
        }
    }

    /// The directory of a tenant's state, made again where somebody removed it behind our back.
    async fn state(&self, tenant: &Tenant) -> io::Result<OwnedFd> {
        if let Ok(Some(state)) = self.inner.directories.state(&tenant.name) {
            return Ok(state);
        }
        let (inner, name, uid) = (self.inner.clone(), tenant.name.clone(), tenant.uid);
        let settled = self.inner.on_thread(tenant.id, move || {
            inner.directories.settle(&name, uid)?;
            inner.directories.state(&name)
        });
        settled.await?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Removes a generation that came to nothing.
    pub async fn discard(&self, tenant: &Tenant, generation: GenerationNumber) {
        self.inner.prepared.remove(&(tenant.id, generation));
        let dir = self.inner.releases(tenant).join(generation.to_string());
        let remove = move || durable::remove_dir(&dir, Point::ReleaseRemove);
        let removed = self.inner.on_thread(tenant.id, remove).await;
        if let Err(error) = removed {
            warn!(tenant = %tenant.name, generation = generation.0, error = &error as &dyn std::error::Error, "a generation that came to nothing could not be removed");
        }
    }

    /// Removes a tenant's generations other than these. Workers hold what they mapped.
    pub async fn prune(
        &self,
        tenant: &Tenant,
        keep: GenerationNumber,
    ) -> Result<(), GenerationError> {
        let releases = self.inner.releases(tenant);
        // One that is being made again would be taken apart under its maker's hands.
        let _alone = self.inner.preparing.lock(&tenant.id).await;
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
    fn manifest(
        &self,
        tenant: &Tenant,
        generation: GenerationNumber,
        own: &OwnFunctions,
        artifacts: &Artifacts,
        bundle: &BuildBundle,
    ) -> Manifest {
        let limits = tenant.limits();
        let mut functions: Vec<_> = own
            .live
            .iter()
            .map(|function| ManifestFunction {
                path: function.path.clone(),
                version: function.version.into(),
                sha256: function.sha256,
                kind: function.kind,
                options: function.options().resolve().within(&limits),
                engine: artifacts.get(&function.sha256).map(|artifact| artifact.engine),
            })
            .collect();
        functions.sort_by(|a, b| a.path.cmp(&b.path));
        let tenant = tenant.name.clone();
        let (bundle, over) = (bundle.mounts.digest, bundle.changed(&own.over));
        Manifest { tenant, generation, limits, bundle, over, functions }
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
                readable(&files::open(&artifact.path)?, READABLE)?;
                fs::hard_link(&artifact.path, half.join(artifact_name(*sha256)))?;
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
}

/// What any user may read who is handed the directory of a generation: a worker's own is not the
/// host's. By a path nobody comes there, since the data directory is the host's alone.
const READABLE: u32 = 0o444;
const READABLE_DIR: u32 = 0o755;

fn written(manifest: &Manifest) -> Vec<u8> {
    serde_json::to_vec_pretty(manifest).expect("a manifest is plain data")
}

/// Whether that generation is there, whole: the same manifest, and its artifacts the very files that
/// were checked. Which bundle it was written over makes no difference.
fn is_there(releases: &Path, manifest: &Manifest, artifacts: &Artifacts) -> bool {
    let dir = releases.join(manifest.generation.to_string());
    let file =
        |path: &Path| fs::symlink_metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let same = |(sha256, artifact): (&ModuleDigest, &Artifact)| {
        let linked = file(&dir.join(artifact_name(*sha256)));
        linked.is_some() && linked == file(&artifact.path)
    };
    let most = written(manifest).len() as u64;
    let is_same = |found: &[u8]| {
        serde_json::from_slice::<Manifest>(found).is_ok_and(|mut found| {
            found.bundle = manifest.bundle;
            found == *manifest
        })
    };
    let found = files::read(&dir.join(Manifest::FILE), most);
    let is_open = |path: &Path, is_dir, mode| {
        let found = fs::symlink_metadata(path);
        found.is_ok_and(|it| it.is_dir() == is_dir && it.mode() & mode == mode)
    };
    is_open(&dir, true, READABLE_DIR)
        && is_open(&dir.join(Manifest::FILE), false, READABLE)
        && found.is_ok_and(|found| is_same(&found))
        && artifacts.iter().all(same)
}
