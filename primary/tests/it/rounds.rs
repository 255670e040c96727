//! One round of a worker's event loop: what comes of 64 calls that are there at once. Each look of
//! its at its sockets and each byte that it moves is a system call, whose order shows whether the
//! answers leave together; and a small body that comes slowly keeps nobody from his turn.

use nix::libc::{self, c_long};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;

use crate::guests;
use crate::host::Host;
use crate::http::Connection;
use crate::limits::used;
use crate::processes::{eventually, stop_thread};

const CALLS: usize = 64;

/// What a worker does with a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Looks at its sockets, and waits where nothing is ready.
    Looks,
    Reads,
    /// Runs a guest that grows its memory, or takes that back.
    Runs,
    /// Writes an answer.
    Writes,
    /// Has itself woken by its own eventfd, for a timer that was set.
    Wakes,
}

impl Step {
    fn of(call: c_long) -> Option<Self> {
        match call {
            libc::SYS_epoll_wait | libc::SYS_epoll_pwait => Some(Self::Looks),
            libc::SYS_recvfrom | libc::SYS_readv => Some(Self::Reads),
            libc::SYS_mprotect
            | libc::SYS_madvise
            | libc::SYS_mmap
            | libc::SYS_munmap
            | libc::SYS_ioctl => Some(Self::Runs),
            libc::SYS_sendto | libc::SYS_writev => Some(Self::Writes),
            libc::SYS_write => Some(Self::Wakes),
            // Among them what it tells the host.
            _ => None,
        }
    }
}

/// A worker that stands still until it is told to go on.
struct Held(Pid);

impl Held {
    fn take(pid: i32) -> Self {
        let pid = Pid::from_raw(pid);
        ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD).unwrap();
        ptrace::interrupt(pid).unwrap();
        waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap();
        Self(pid)
    }

    /// Goes on until it has written so often, and tells what it did.
    fn go_on(&self, until_written: usize) -> Vec<Step> {
        let (mut steps, mut written) = (Vec::new(), 0);
        let (mut enters, mut signal) = (true, None);
        while written < until_written {
            ptrace::syscall(self.0, signal.take()).unwrap();
            match waitpid(self.0, Some(WaitPidFlag::__WALL)).unwrap() {
                WaitStatus::PtraceSyscall(_) => {
                    if enters {
                        let call = ptrace::getregs(self.0).unwrap().orig_rax as c_long;
                        steps.extend(Step::of(call));
                        written += usize::from(Step::of(call) == Some(Step::Writes));
                    }
                    enters = !enters;
                }
                WaitStatus::Stopped(_, came) => {
                    signal = Some(came).filter(|it| *it != Signal::SIGTRAP)
                }
                WaitStatus::PtraceEvent(..) => {}
                other => panic!("{other:?}"),
            }
        }
        steps
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

/// Each request is read and its guest runs, and only then the first answer is written, and all of
/// them one right after another: an idle caller is woken once. A guest that ended at once had no
/// task of its own, which would have run behind the next caller's; and no timer was set for it,
/// which would have woken the runtime.
#[test]
fn answers_of_one_round_leave_together() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("fills", guests::fills_memory());
    let request = tenant.address().request("POST", "/fills?pages=64").body("{}").bytes("demo");
    let mut callers: Vec<Connection> = (0..CALLS).map(|_| tenant.open()).collect();
    for caller in &mut callers {
        caller.send(&request).unwrap();
        assert_eq!(caller.answer("POST").expect(200).text(), "64");
    }
    let [worker] = host.workers(&tenant)[..] else { panic!("one worker") };
    // Each step takes a debugger's time, in which guests would have to give way.
    let _no_ticks = stop_thread(worker, "ticker");

    let held = Held::take(worker);
    for caller in &mut callers {
        caller.send(&request).unwrap();
    }
    let steps = held.go_on(CALLS);
    drop(held);
    for caller in &mut callers {
        let answer = caller.answer("POST").expect(200);
        let length = (answer.text(), answer.header("content-length"));
        assert_eq!(length, ("64".to_owned(), Some("2")), "{:?}", answer.headers);
    }

    let looks = steps.iter().filter(|step| **step == Step::Looks).count();
    // One is the reporter's, or another's who waits for his time.
    let wakes = steps.iter().filter(|step| **step == Step::Wakes).count();
    assert!(wakes <= 2, "{wakes} timers were set");
    let moves = steps.into_iter().filter(|step| !matches!(step, Step::Looks | Step::Wakes));
    let moves: Vec<Step> = moves.collect();
    let runs: Vec<_> = moves.chunk_by(|one, next| one == next).map(|run| run[0]).collect();
    let together = [[Step::Reads, Step::Runs].repeat(CALLS), vec![Step::Writes]].concat();
    assert_eq!(runs, together);
    let count = |wanted| moves.iter().filter(|step| **step == wanted).count();
    assert_eq!((count(Step::Reads), count(Step::Writes)), (CALLS, CALLS));
    assert!(looks <= 4, "{looks} looks at the sockets");
}

/// Half a body each, and then nothing: a caller of somebody else's finds all turns free.
#[test]
fn slow_small_bodies_take_no_turns() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    let options = json!({ "schema": { "body": {"type": "string"} } });
    tenant.deploy_with("checked", guests::echo(), &options);
    let mut slow: Vec<(Connection, Vec<u8>)> = Vec::new();
    for path in ["/echo", "/checked"] {
        let request = tenant.address().request("POST", path).body("\"half\"").bytes("demo");
        let (begun, rest) = request.split_at(request.len() - 3);
        for _ in 0..CALLS {
            let mut caller = tenant.open();
            caller.send(begun).unwrap();
            slow.push((caller, rest.to_vec()));
        }
    }
    eventually("all of them connected", || {
        (used(&tenant, "connections") >= 2 * CALLS as u64).then_some(())
    });
    for _ in 0..3 {
        assert_eq!(tenant.post("/echo", "quick").expect(200).json()["body"], "quick");
        assert_eq!(tenant.post("/checked", "\"quick\"").expect(200).json()["body"], "\"quick\"");
        assert_eq!((used(&tenant, "calls_running"), used(&tenant, "calls_waiting")), (0, 0));
    }
    for (caller, rest) in &mut slow {
        caller.send(rest).unwrap();
    }
    for (caller, _) in &mut slow {
        assert_eq!(caller.answer("POST").expect(200).json()["body"], "\"half\"");
    }
}
