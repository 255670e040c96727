//! Tenants' directories. Two parts of each are the host's, and one is its tenant's own:
//!
//! ```text
//! tenants/<tenant>/releases/   what workers start from     written by manifest.rs
//! tenants/<tenant>/logs/       the tenant's journal        written by logs.rs
//! tenants/<tenant>/state/      of the tenant's user, where workers have users
//! ```
//!
//! The host makes, moves and removes a `state`, and never looks into one: what lies there is a
//! tenant's doing, and is for a process of that tenant's user ([`Trees`]).

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hearth_wire::{Databases, TenantName};
use rustix::fs::{Mode, OFlags, fstat};
use rustix::process::geteuid;
use tracing::{info, warn};

use super::disk;
use crate::durable;
use crate::fail::{self, Point};
use crate::locks::TenantLocks;
use crate::owner::ForeignState;
use crate::tree::Trees;

/// Of the data directory, which a restore fills, too.
pub const TENANTS: &str = "tenants";
const RELEASES: &str = "releases";
const LOGS: &str = "logs";
pub const STATE: &str = "state";
/// A `state` on its way to its place, or from there to its end.
const OTHER_STATE: &str = "state.other";

/// What of a tenant's directory cannot be made again from the store and the modules.
pub const KEPT: [&str; 2] = [LOGS, STATE];

pub(super) struct Directories {
    root: PathBuf,
    trees: Trees,
    /// Whether this host can give files to tenants' users.
    has_uids: bool,
    /// Held by whoever settles that one: what there is to do takes as long as what lies there.
    settling: TenantLocks<TenantName>,
    /// Users whose files could not be removed, as far as that was tried.
    left: Mutex<HashSet<u32>>,
}

impl Directories {
    pub fn new(root: PathBuf, trees: Trees, has_uids: bool) -> Self {
        Self { root, trees, has_uids, settling: TenantLocks::default(), left: Mutex::default() }
    }

    fn of(&self, tenant: &TenantName) -> PathBuf {
        self.root.join(tenant.as_str())
    }

    pub fn releases(&self, tenant: &TenantName) -> PathBuf {
        self.of(tenant).join(RELEASES)
    }

    /// A tenant's `state`, for its workers.
    pub fn state(&self, tenant: &TenantName) -> io::Result<Option<OwnedFd>> {
        place(&self.of(tenant).join(STATE))
    }

    /// One of the [`KEPT`], where it is there: to be handed to who may read it.
    pub fn kept(&self, tenant: &TenantName, part: &str) -> io::Result<Option<OwnedFd>> {
        place(&self.of(tenant).join(part))
    }

    /// Gives each of these tenants its `state` before somebody asks for it, where the host has no
    /// users to give: a backup reads them, too. Tells which could not be.
    pub fn settle_all(&self, tenants: &[TenantName]) -> Vec<(TenantName, io::Error)> {
        if self.has_uids {
            return Vec::new();
        }
        let there = tenants.iter().filter(|tenant| self.of(tenant).join(STATE).exists());
        there.filter_map(|it| Some((it.clone(), self.settle(it, None).err()?))).collect()
    }

    /// Sees to it that a tenant has a `state`, and that it is its user's. One that is somebody
    /// else's was restored, or is of a time when the host had no users to give: it is copied, by
    /// the one who may read it to the one who is to have it.
    pub fn settle(&self, tenant: &TenantName, uid: Option<u32>) -> io::Result<()> {
        let _alone = self.settling.blocking_lock(tenant);
        let dir = self.of(tenant);
        let (state, other) = (dir.join(STATE), dir.join(OTHER_STATE));
        let uid = uid.filter(|_| self.has_uids);
        let wanted = uid.unwrap_or_else(|| geteuid().as_raw());
        self.clear(&other)?;
        let found = match place(&state) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                warn!(%tenant, "something else lay in the place of a tenant's state");
                fs::remove_file(&state)?;
                None
            }
            found => found?,
        };
        let owner = found.as_ref().map(fstat).transpose()?.map(|found| found.st_uid);
        let found = match owner {
            Some(owner) if owner == wanted => return Ok(()),
            // Of a time when it had users to give. Nobody here may read it, and an empty one need
            // not be.
            Some(owner) if !self.has_uids => {
                let foreign = || ForeignState { state: state.clone(), owner, own: wanted };
                fs::remove_dir(&state).map_err(|_| io::Error::other(foreign()))?;
                None
            }
            _ => found,
        };
        durable::create_own_dir(&dir, Point::TenantState)?;
        DirBuilder::new().mode(0o700).create(&other)?;
        if uid.is_some() {
            std::os::unix::fs::chown(&other, Some(wanted), Some(wanted))?;
        }
        match found {
            None => durable::rename(&other, &state, Point::TenantState)?,
            Some(found) => {
                self.copy(tenant, &found, &other)?;
                durable::sync_file_system(&dir, Point::TenantState)?;
                // The old one goes the next time: a backup may be reading it.
                durable::exchange(&other, &state, Point::TenantState)?;
                info!(%tenant, uid = wanted, "a tenant's state was given to its user");
            }
        }
        durable::sync_dir(&dir, Point::TenantState)
    }

    fn copy(&self, tenant: &TenantName, from: &OwnedFd, to: &Path) -> io::Result<()> {
        let to = place(to)?.ok_or(io::ErrorKind::NotFound)?;
        // Nobody has a database of it open: no worker of the tenant's is there by now.
        let mut packing =
            self.trees.pack(from, None, Databases::Files).map_err(io::Error::other)?;
        let mut unpacking = self.trees.unpack(&to).map_err(io::Error::other)?;
        let copied = io::copy(&mut packing, &mut unpacking);
        // Where its stream broke off, it knows why.
        let packed = packing.finish().map_err(io::Error::other)?;
        copied?;
        unpacking.finish().map_err(io::Error::other)?;
        if packed.left_out > 0 {
            warn!(%tenant, files = packed.left_out, "files that do not belong to the tenant were left behind");
        }
        Ok(())
    }

    /// Bytes on disk of what is the host's of a tenant.
    pub fn host_bytes(&self, tenant: &TenantName, artifacts: &[PathBuf]) -> io::Result<u64> {
        let dir = self.of(tenant);
        // Generations hold links to the artifacts, which count once.
        let (releases, logs) = (dir.join(RELEASES), dir.join(LOGS));
        let hosts = [&*releases, &*logs].into_iter().chain(artifacts.iter().map(PathBuf::as_path));
        disk::allocated(&hosts.collect::<Vec<_>>())
    }

    /// Bytes on disk of its state, counted by a process of its user.
    pub fn state_bytes(&self, tenant: &TenantName) -> io::Result<u64> {
        match self.state(tenant)? {
            Some(state) => Ok(self.trees.measure(&state).map_err(io::Error::other)?.bytes),
            None => Ok(0),
        }
    }

    pub fn remove(&self, tenant: &TenantName) -> io::Result<()> {
        let dir = self.of(tenant);
        self.remove_dir(&dir, Point::TenantTree).inspect_err(|_| self.left().extend(owners(&dir)))
    }

    /// Removes the directories of all that `is_known` does not know. What cannot be removed is told,
    /// and keeps nothing else from it.
    pub fn remove_strangers(&self, is_known: impl Fn(&OsString) -> bool) -> io::Result<()> {
        let mut uids = HashSet::new();
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            if is_known(&name) {
                continue;
            }
            let left = self.root.join(name);
            if let Err(error) = self.remove_dir(&left, Point::StartStrangers) {
                uids.extend(owners(&left));
                warn!(left = %left.display(), error = &error as &dyn std::error::Error, "the files of a removed tenant could not be removed: no other tenant gets its user id before they are, and it is tried again every ten minutes");
            }
        }
        *self.left() = uids;
        Ok(())
    }

    /// Users of tenants that are no more, whose files could not be removed.
    pub fn left_uids(&self) -> HashSet<u32> {
        self.left().clone()
    }

    fn left(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes these tenants' directories from beside, where they are durable.
    pub fn take_over(&self, staged: &Path, tenants: &[TenantName]) -> io::Result<()> {
        for tenant in tenants {
            // One that is there is of a tenant that was, and whose removal did not end.
            self.remove(tenant)?;
            let from = staged.join(tenant.as_str());
            match durable::rename(&from, &self.of(tenant), Point::TenantTree) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        durable::sync_dir(&self.root, Point::TenantTree)
    }

    fn remove_dir(&self, dir: &Path, point: Point) -> io::Result<()> {
        fail::step(point)?;
        // What only leads to a directory is nobody's.
        if fs::symlink_metadata(dir).is_ok_and(|found| !found.is_dir()) {
            return fs::remove_file(dir);
        }
        // As much of it as can be, and then what could not.
        let own = [RELEASES, LOGS].map(|own| durable::remove_dir(&dir.join(own), point));
        let given = [STATE, OTHER_STATE].map(|given| self.clear(&dir.join(given)));
        own.into_iter().chain(given).collect::<io::Result<()>>()?;
        // Nothing else is there that the host knows of.
        self.clear(dir)
    }

    /// Removes a directory by a process of whom it belongs to; an empty one by its name alone.
    fn clear(&self, dir: &Path) -> io::Result<()> {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            // Something else has its name.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return fs::remove_file(dir);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(()),
        }
        if let Some(opened) = place(dir)? {
            self.trees.remove(&opened).map_err(io::Error::other)?;
        }
        fs::remove_dir(dir)
    }
}

/// The tenants' own files below a data directory that a host which gives no user ids could not
/// take. An empty directory is nobody's; one that cannot be read may hold something.
pub fn foreign_states(data: &Path) -> Vec<ForeignState> {
    use std::os::unix::fs::MetadataExt;
    let own = geteuid().as_raw();
    let tenants = fs::read_dir(data.join(TENANTS)).into_iter().flatten().flatten();
    let foreign = |tenant: fs::DirEntry| {
        let state = tenant.path().join(STATE);
        let found = fs::symlink_metadata(&state).ok().filter(fs::Metadata::is_dir)?;
        let is_empty = fs::read_dir(&state).is_ok_and(|mut within| within.next().is_none());
        let is_own = found.uid() == own || is_empty;
        (!is_own).then_some(ForeignState { state, owner: found.uid(), own })
    };
    tenants.filter_map(foreign).collect()
}

/// Whose files a tenant's directory may hold besides the host's.
fn owners(dir: &Path) -> Vec<u32> {
    use std::os::unix::fs::MetadataExt;
    let given = [STATE, OTHER_STATE].map(|part| fs::symlink_metadata(dir.join(part)));
    given.iter().flatten().map(MetadataExt::uid).collect()
}

/// A descriptor that stands for the directory, for which nobody has to be allowed to read it.
/// `None` where there is none.
fn place(dir: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(dir, flags, Mode::empty()) {
        Ok(opened) => Ok(Some(opened)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
