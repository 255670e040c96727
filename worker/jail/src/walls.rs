//! The walls around each kind of process, as lists in the order in which they go up. The order
//! matters: a limit must stand before the right to raise it is gone, and what drops a right
//! comes before what forbids asking for it.
//!
//! This version needs no privilege and takes none away but the cheap ones. Own user ids and
//! namespaces go before `NoNewPrivileges`, Landlock and the system call filter behind
//! `NotDumpable`; the filter goes up last, when all code is loaded.

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};

#[derive(Debug, Clone, Copy)]
pub enum Wall {
    /// A session of its own, so that a key pressed at the host's terminal reaches the host alone.
    OwnSession,
    /// Killed when the thread that started this process ends. Forked children do not inherit it.
    EndWithParent,
    /// Files are made for their owner only.
    PrivateFiles,
    Limit(Limit),
    /// No later program can have more rights than this process has.
    NoNewPrivileges,
    /// Other processes of the same user cannot trace it or read its memory. The engine's
    /// descriptor for `/proc/self/pagemap` is open before this and goes on working.
    NotDumpable,
}

/// What a process may take at most. Never raises what it was given.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    CoreBytes(u64),
    DataBytes(u64),
    CpuSeconds(u64),
    Descriptors(u64),
    FileBytes(u64),
}

pub const ZYGOTE: &[Wall] = &[
    Wall::OwnSession,
    Wall::EndWithParent,
    Wall::PrivateFiles,
    Wall::Limit(Limit::CoreBytes(0)),
    // For its workers: a thousand connections, an artifact for each function, and some.
    Wall::Limit(Limit::Descriptors(4_096)),
    Wall::NoNewPrivileges,
];

pub const WORKER: &[Wall] = &[
    Wall::PrivateFiles,
    Wall::Limit(Limit::CoreBytes(0)),
    Wall::Limit(Limit::Descriptors(4_096)),
    Wall::NoNewPrivileges,
    Wall::NotDumpable,
];

/// Compiling strangers' code can be made expensive; this is what it may cost.
pub const COMPILE: &[Wall] = &[
    Wall::PrivateFiles,
    Wall::Limit(Limit::CoreBytes(0)),
    Wall::Limit(Limit::DataBytes(2 << 30)),
    Wall::Limit(Limit::CpuSeconds(120)),
    Wall::Limit(Limit::Descriptors(64)),
    Wall::Limit(Limit::FileBytes(1 << 30)),
    Wall::NoNewPrivileges,
    Wall::NotDumpable,
];

/// It moves a tenant's files, and holds one of them at a time.
pub const TREE: &[Wall] = &[
    Wall::PrivateFiles,
    Wall::Limit(Limit::CoreBytes(0)),
    Wall::Limit(Limit::DataBytes(64 << 20)),
    Wall::Limit(Limit::CpuSeconds(3_600)),
    Wall::Limit(Limit::Descriptors(64)),
    Wall::NoNewPrivileges,
    Wall::NotDumpable,
];

#[derive(Debug, thiserror::Error)]
#[error("the wall {wall:?} does not stand")]
pub struct WallError {
    wall: Wall,
    source: nix::Error,
}

/// Puts the walls up, one by one, and stops at the first that does not stand.
pub fn enter(walls: &[Wall]) -> Result<(), WallError> {
    walls.iter().try_for_each(|&wall| put_up(wall).map_err(|source| WallError { wall, source }))
}

fn put_up(wall: Wall) -> nix::Result<()> {
    match wall {
        Wall::OwnSession => match nix::unistd::setsid() {
            // It leads a group already, which keeps the terminal's keys away as well.
            Ok(_) | Err(nix::Error::EPERM) => Ok(()),
            Err(errno) => Err(errno),
        },
        Wall::EndWithParent => prctl::set_pdeathsig(Signal::SIGKILL),
        Wall::PrivateFiles => {
            umask(Mode::S_IRWXG | Mode::S_IRWXO);
            Ok(())
        }
        Wall::Limit(limit) => limit.set(),
        Wall::NoNewPrivileges => prctl::set_no_new_privs(),
        Wall::NotDumpable => prctl::set_dumpable(false),
    }
}

impl Limit {
    fn set(self) -> nix::Result<()> {
        let (resource, most) = match self {
            Self::CoreBytes(most) => (Resource::RLIMIT_CORE, most),
            Self::DataBytes(most) => (Resource::RLIMIT_DATA, most),
            Self::CpuSeconds(most) => (Resource::RLIMIT_CPU, most),
            Self::Descriptors(most) => (Resource::RLIMIT_NOFILE, most),
            Self::FileBytes(most) => (Resource::RLIMIT_FSIZE, most),
        };
        let (_, hard) = getrlimit(resource)?;
        let most = most.min(hard);
        setrlimit(resource, most, most)
    }
}
