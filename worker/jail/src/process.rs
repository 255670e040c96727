//! Forking, and the children's ends.
//!
//! The zygote forks with the C library's `fork`, never a raw clone: the engine re-opens
//! `/proc/self/pagemap` in a handler that only this one runs. With the parent's pagemap a child
//! would find nothing dirty and a "fresh" instance would keep the last call's memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use rustix::process::PidfdFlags;

#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    #[error("the process could not fork")]
    Os(#[from] io::Error),
    #[error("this process has {0} threads, and forks only with one")]
    Threads(u64),
}

impl From<Errno> for ForkError {
    fn from(errno: Errno) -> Self {
        Self::Os(errno.into())
    }
}

pub enum Forked {
    Child,
    Parent {
        pid: i32,
        /// Opened before the child could be reaped, so it names this child for ever.
        pidfd: OwnedFd,
    },
}

/// How many threads this process has.
pub(crate) fn threads() -> io::Result<u64> {
    // A directory has a link for itself, one for its entry, and one for each directory in it.
    Ok(std::fs::metadata("/proc/self/task")?.nlink().saturating_sub(2))
}

/// Does this on a thread of its own, which is gone afterwards, for a process that has no other. What
/// the language keeps for each thread is then not in it: keys of hash tables above all, which
/// every child of a fork would have from its parent.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let done = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("apart".to_owned());
        Ok::<_, io::Error>(thread.spawn_scoped(scope, work)?.join())
    })?;
    // One that was waited for may be in the kernel's list a moment longer.
    while threads()? != 1 {
        std::thread::yield_now();
    }
    done.map_err(|_| io::Error::other("it came to no end"))
}

/// Forks this process, which has one thread.
pub fn fork() -> Result<Forked, ForkError> {
    let threads = threads()?;
    if threads != 1 {
        return Err(ForkError::Threads(threads));
    }
    // SAFETY: with one thread, as was just seen, no lock is held by another and the child is a
    // whole copy: it may do anything that this process may.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Forked::Child),
        ForkResult::Parent { child } => {
            let pid =
                rustix::process::Pid::from_raw(child.as_raw()).expect("a child's pid is positive");
            match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                Ok(pidfd) => Ok(Forked::Parent { pid: child.as_raw(), pidfd }),
                Err(errno) => {
                    // Nobody could watch it; it is not reaped yet, so the pid is still its own.
                    let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
                    Err(io::Error::from(errno).into())
                }
            }
        }
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildEnd {
    Code(i32),
    Signal(i32),
}

impl ChildEnd {
    /// Whether it had all that it may have of the processors' time.
    pub fn was_out_of_time(self) -> bool {
        self == Self::Signal(Signal::SIGXCPU as i32)
    }
}

/// Ends a forked child at once: nothing that its parent would do at its own end is done twice.
pub fn leave(code: u8) -> ! {
    // SAFETY: takes no pointer and does not come back.
    unsafe { nix::libc::_exit(i32::from(code)) }
}

/// Ends a child that was not waited for yet, so that its number is nobody else's.
pub fn kill(pid: i32) {
    // Its end is told as any other's; one that has ended needs nothing.
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// Waits for the end of one child.
pub fn wait(pid: i32) -> io::Result<ChildEnd> {
    loop {
        match waitpid(Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(ChildEnd::Code(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(ChildEnd::Signal(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Tells of ended children through a descriptor that can be polled.
pub struct Children {
    signals: SignalFd,
}

impl Children {
    /// From now on, until [`Children::forget`] in a child, SIGCHLD is held back for this.
    pub fn watch() -> io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self { signals: SignalFd::with_flags(&mask, flags)? })
    }

    /// The next child that ended, if there is one.
    pub fn reap(&mut self) -> io::Result<Option<(i32, ChildEnd)>> {
        // One signal may stand for several children: the signals only wake, waitpid tells.
        while self.signals.read_signal()?.is_some() {}
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => {
                    return Ok(Some((pid.as_raw(), ChildEnd::Code(code))));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    return Ok(Some((pid.as_raw(), ChildEnd::Signal(signal as i32))));
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// In a child: signals reach it again as they do any process.
    pub fn forget(self) -> io::Result<()> {
        Ok(SigSet::empty().thread_set_mask()?)
    }
}

impl AsFd for Children {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}
