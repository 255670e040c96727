//! That one process has a data directory. Whose the directory is, and what is in it, is
//! [`crate::owner`]'s to say.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::files;
use crate::owner::LOCK;

/// Goes with the process that took it.
pub struct Lock {
    /// The file of that name, in which a host keeps its notes.
    pub notes: File,
    /// Held as well, since the file can be removed under a host that runs. Not every file system lends
    /// a directory for it.
    pub directory: Option<OwnedFd>,
}

pub fn take(data: &Path) -> anyhow::Result<Lock> {
    let path = data.join(LOCK);
    let taken = || {
        anyhow::anyhow!(
            "another hearth runs on {}; stop it, or give --data another directory",
            data.display()
        )
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(data, flags, Mode::empty())
        .with_context(|| format!("{} cannot be opened", data.display()))?;
    let directory = match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Some(directory),
        Err(Errno::WOULDBLOCK) => return Err(taken()),
        Err(_) => None,
    };
    let notes = files::open_or_make(&path)
        .with_context(|| format!("{} cannot be opened", path.display()))?;
    flock(&notes, FlockOperation::NonBlockingLockExclusive).map_err(|_| taken())?;
    Ok(Lock { notes, directory })
}
