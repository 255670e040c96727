//! Watches a process sync: each of its threads is stopped at each of its system calls that makes
//! something durable, before and after, and can be told that it failed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// One call, of which the thread that makes it waits meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sync {
    Begins,
    /// With what was synced.
    Done(PathBuf),
}

/// What the process hears of a call that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    AsItIs,
    /// As a disk would have it that cannot be written to.
    Failed,
}

/// Until it is dropped.
pub struct Watch {
    pid: Pid,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// It has no handler, and nothing comes of it but that the process is stopped once more.
const WAKE: Signal = Signal::SIGURG;

impl Watch {
    pub fn begin(pid: i32, mut tell: impl FnMut(Sync) -> Said + Send + 'static) -> Self {
        let pid = Pid::from_raw(pid);
        let ends = Arc::new(AtomicBool::new(false));
        let (until, (begun, began)) = (ends.clone(), std::sync::mpsc::channel());
        // Only the thread that took them can let them go on.
        let thread = std::thread::spawn(move || {
            let mut threads = take(pid);
            begun.send(()).unwrap();
            while !threads.is_empty() {
                // Nobody else's children.
                let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
                let stopped = waitpid(None, Some(flags)).unwrap();
                let thread = stopped.pid().unwrap();
                let mut pass_on = None;
                match stopped {
                    WaitStatus::PtraceSyscall(_) => {
                        if let Some(sync) = sync_of(pid, thread)
                            && tell(sync) == Said::Failed
                        {
                            fail(thread);
                        }
                    }
                    WaitStatus::Stopped(_, signal) if signal != WAKE => pass_on = Some(signal),
                    WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                        threads.remove(&thread);
                        continue;
                    }
                    _ => {}
                }
                threads.insert(thread);
                let went_on = if until.load(Ordering::Relaxed) {
                    threads.remove(&thread);
                    let went = ptrace::detach(thread, pass_on);
                    // The others come by at their next system call, or are called.
                    for thread in &threads {
                        let _ = ptrace::interrupt(*thread);
                    }
                    went
                } else {
                    ptrace::syscall(thread, pass_on)
                };
                assert!(matches!(went_on, Ok(()) | Err(Errno::ESRCH)), "{went_on:?}");
            }
        });
        began.recv().unwrap();
        Self { pid, ends, thread: Some(thread) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = kill(self.pid, WAKE);
        let ended = self.thread.take().expect("it is joined once").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the watch ended early");
    }
}

/// Stops every thread; those that they start are stopped from their start.
fn take(pid: Pid) -> BTreeSet<Pid> {
    let mut taken = BTreeSet::new();
    loop {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let threads = threads.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let threads = threads.map(|thread| Pid::from_raw(thread.parse().unwrap()));
        let new: Vec<Pid> = threads.filter(|thread| !taken.contains(thread)).collect();
        if new.is_empty() {
            return taken;
        }
        for thread in new {
            let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
            match ptrace::seize(thread, options) {
                Ok(()) => ptrace::interrupt(thread).unwrap(),
                // Ended, or taken with the one that started it.
                Err(Errno::ESRCH | Errno::EPERM) => {}
                Err(error) => panic!("{thread} cannot be watched: {error}"),
            }
            taken.insert(thread);
        }
    }
}

fn fail(thread: Pid) {
    let mut registers = ptrace::getregs(thread).unwrap();
    registers.rax = (-i64::from(libc::EIO)).cast_unsigned();
    ptrace::setregs(thread, registers).unwrap();
}

/// Where it stands in a call that syncs.
fn sync_of(pid: Pid, thread: Pid) -> Option<Sync> {
    let registers = ptrace::getregs(thread).ok()?;
    let number = registers.orig_rax as i64;
    if ![libc::SYS_fsync, libc::SYS_fdatasync].contains(&number) {
        return None;
    }
    match registers.rax as i64 {
        // So the kernel has it until there is an answer.
        unanswered if unanswered == -i64::from(libc::ENOSYS) => Some(Sync::Begins),
        0 => fs::read_link(format!("/proc/{pid}/fd/{}", registers.rdi)).ok().map(Sync::Done),
        _ => None,
    }
}
