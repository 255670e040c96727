//! Namespaces of the process's own, and a root that holds nothing of the host's: `/proc`, without
//! which the engine cannot see which pages a guest has written, and `/dev/null`.
//!
//! Entered once, by the zygote, whose children are born inside: a network or mount namespace of
//! their own would cost each of them more than everything else together. Compilers join what is
//! not the mounts, since the kernel takes a while to make a network, during which it lets nobody
//! else have the core.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

/// Where the new root is attached before it becomes the root: any directory that is there.
const ATTACHED_AT: &str = "/proc";

/// Which step is not possible here.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct NamespaceError {
    pub step: Step,
    source: io::Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Making the namespaces; without privilege, a user namespace above all.
    Unshare,
    /// Saying who the process is in its user namespace.
    Identity,
    /// Building the new root and going there.
    Root,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unshare => "namespaces cannot be made",
            Self::Identity => "the user namespace cannot be set up",
            Self::Root => "an empty root cannot be mounted",
        })
    }
}

fn at<E: Into<io::Error>>(step: Step) -> impl FnOnce(E) -> NamespaceError {
    move |error| NamespaceError { step, source: error.into() }
}

/// No network, no other mounts, no shared memory or host name of the host's. An ordinary user gets
/// them within a user namespace, in which it has no more rights outside than before. Needs a
/// process of one thread.
pub fn enter() -> Result<(), NamespaceError> {
    let own = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    if geteuid().is_root() {
        unshare(own).map_err(at(Step::Unshare))?;
    } else {
        let (user, group) = (geteuid(), getegid());
        unshare(own | CloneFlags::CLONE_NEWUSER).map_err(at(Step::Unshare))?;
        // The order is the kernel's: without the first, an ordinary user may not write the third.
        for (file, text) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("{user} {user} 1")),
            ("gid_map", format!("{group} {group} 1")),
        ] {
            let write = std::fs::write(format!("/proc/self/{file}"), text);
            write.map_err(at(Step::Identity))?;
        }
    }
    move_to_an_empty_root().map_err(at(Step::Root))
}

/// The same, with those of another process as far as they are given: the user namespace first,
/// which gives the right to the others. The mounts are always its own.
pub fn enter_beside(others: &[OwnedFd]) -> Result<(), NamespaceError> {
    let join = || others.iter().try_for_each(|other| setns(other, CloneFlags::empty()));
    if others.is_empty() || join().is_err() {
        return enter();
    }
    unshare(CloneFlags::CLONE_NEWNS).map_err(at(Step::Unshare))?;
    move_to_an_empty_root().map_err(at(Step::Root))
}

fn move_to_an_empty_root() -> io::Result<()> {
    // Nothing that is mounted from here on is seen by the host.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let root = empty_file_system()?;
    let proc = own_proc()?;
    let null = open_tree(CWD, "/dev/null", OpenTreeFlags::OPEN_TREE_CLONE | CLOEXEC)?;
    let readable = Mode::from_raw_mode(0o755);
    for directory in ["proc", "dev"] {
        mkdirat(&root, directory, readable)?;
    }
    openat(&root, "dev/null", OFlags::CREATE | OFlags::CLOEXEC, readable)?;
    attach(&root, CWD, ATTACHED_AT)?;
    attach(&proc, &root, "proc")?;
    attach(&null, &root, "dev/null")?;
    fchdir(&root)?;
    // The old root comes to lie on the new one, from where it is taken away with all below it.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    let sealed = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount_remount("/", sealed | MountFlags::NOEXEC, "")?)
}

const CLOEXEC: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLOEXEC;
const BARE: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

fn empty_file_system() -> io::Result<OwnedFd> {
    let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Readable by whatever user a worker becomes: it goes through here to its own /proc entry.
    for (key, value) in [("size", "64k"), ("nr_inodes", "16"), ("mode", "0755")] {
        fsconfig_set_string(&tmpfs, key, value)?;
    }
    fsconfig_create(&tmpfs)?;
    Ok(fsmount(&tmpfs, FsMountFlags::FSMOUNT_CLOEXEC, BARE)?)
}

/// A `/proc` in which a process finds itself and nothing of the host. Where only the host's own
/// can be had, as in a user namespace, it is that, which Landlock closes.
fn own_proc() -> io::Result<OwnedFd> {
    let own = || {
        let proc = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&proc, "hidepid", "invisible")?;
        fsconfig_set_string(&proc, "subset", "pid")?;
        fsconfig_create(&proc)?;
        fsmount(&proc, FsMountFlags::FSMOUNT_CLOEXEC, BARE)
    };
    match own() {
        Ok(proc) => Ok(proc),
        Err(_) => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | CLOEXEC;
            Ok(open_tree(CWD, "/proc", flags)?)
        }
    }
}

fn attach(mount: impl AsFd, to: impl AsFd, path: &str) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(mount, "", to, path, flags)?)
}
