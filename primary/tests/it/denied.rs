//! A process whose system calls the kernel refuses for a while: what happens where a machine has no
//! memory, no process and no descriptor left. A debugger at its calls, since nothing else can have
//! the one call fail that a test is about.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::processes::pause;

/// Which calls are refused, and how.
#[derive(Debug, Clone, Copy)]
pub struct Denial {
    pub calls: &'static [c_long],
    pub with: Errno,
    /// Of the process itself, or of those that it forks from now on.
    pub of: Whose,
    /// So many calls of one process before the first that is refused, and how many are of all.
    pub after: usize,
    pub times: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Own,
    Children,
}

/// Until it is dropped.
pub struct Denied {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// One process as its debugger knows it.
#[derive(Default)]
struct Tracee {
    is_child: bool,
    /// Between a call's beginning and its end.
    in_call: bool,
    refusing: bool,
    seen: usize,
}

impl Denied {
    pub fn of(pid: i32, denial: Denial) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicUsize::new(0));
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn({
            let (stop, refused) = (Arc::clone(&stop), Arc::clone(&refused));
            // All of it in one thread, which is what the kernel takes for the debugger.
            move || {
                let root = Pid::from_raw(pid);
                let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEFORK;
                ptrace::seize(root, options).unwrap();
                ptrace::interrupt(root).unwrap();
                let mut tracees = HashMap::from([(root, Tracee::default())]);
                ready.send(()).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let mine =
                        WaitPidFlag::WNOHANG | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
                    match waitpid(None::<Pid>, Some(mine)) {
                        Ok(WaitStatus::StillAlive) => pause(Duration::from_micros(50)),
                        Ok(status) => goes_on(status, root, &mut tracees, &denial, &refused),
                        Err(_) => break,
                    }
                }
                for pid in tracees.into_keys() {
                    let _ = ptrace::interrupt(pid);
                    // A signal that was on its way to it is not lost.
                    let signal = match waitpid(pid, Some(WaitPidFlag::__WALL)) {
                        Ok(WaitStatus::Stopped(_, signal)) => Some(signal),
                        _ => None,
                    };
                    let _ = ptrace::detach(pid, signal.filter(|it| *it != Signal::SIGTRAP));
                }
            }
        });
        is_ready.recv().unwrap();
        Self { stop, refused, thread: Some(thread) }
    }

    /// How many calls were refused so far.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }
}

fn goes_on(
    status: WaitStatus,
    root: Pid,
    tracees: &mut HashMap<Pid, Tracee>,
    denial: &Denial,
    refused: &AtomicUsize,
) {
    let Some(pid) = status.pid() else { return };
    if matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
        tracees.remove(&pid);
        return;
    }
    let tracee = tracees.entry(pid).or_default();
    tracee.is_child = pid != root;
    let mut signal = None;
    match status {
        WaitStatus::PtraceSyscall(_) => at_a_call(pid, tracee, denial, refused),
        WaitStatus::Stopped(_, delivered) if delivered != Signal::SIGTRAP => {
            signal = Some(delivered);
        }
        _ => {}
    }
    // It may have been killed meanwhile.
    let _ = ptrace::syscall(pid, signal);
}

fn at_a_call(pid: Pid, tracee: &mut Tracee, denial: &Denial, refused: &AtomicUsize) {
    let Ok(mut registers) = ptrace::getregs(pid) else { return };
    tracee.in_call = !tracee.in_call;
    if tracee.in_call {
        let is_its = tracee.is_child == (denial.of == Whose::Children);
        if !is_its || !denial.calls.contains(&(registers.orig_rax as c_long)) {
            return;
        }
        tracee.seen += 1;
        if tracee.seen > denial.after && refused.load(Ordering::Relaxed) < denial.times {
            // In its place one that its filters allow, and that does nothing.
            registers.orig_rax = libc::SYS_restart_syscall as u64;
            tracee.refusing = ptrace::setregs(pid, registers).is_ok();
        }
    } else if std::mem::take(&mut tracee.refusing) {
        registers.rax = (-(denial.with as i64)) as u64;
        let _ = ptrace::setregs(pid, registers);
        refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Denied {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
