//! What the kernel knows of Hearth's processes. The tests trust it more than what the host says
//! of itself.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::ptrace::{self, Event};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Asks again until there is an answer. Fails the test when there is none in time.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let mut answer = None;
    let had = soon(|| {
        answer = ask();
        answer.is_some()
    });
    assert!(had, "not in time: {what}");
    answer.expect("it was had")
}

/// The same for a test that has more to say of what it did not find.
pub fn soon(mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        pause(Duration::from_millis(5));
    }
}

#[expect(clippy::disallowed_methods, reason = "between two looks, never in place of one")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

pub fn signal(pid: i32, signal: Signal) {
    // It may be gone already, which is what most signals here are sent for.
    let _ = kill(Pid::from_raw(pid), signal);
}

pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
}

pub fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists =
        threads.flatten().filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    lists
        .flat_map(|list| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

pub fn descendants(pid: i32) -> Vec<i32> {
    let mut found = children(pid);
    let mut at = 0;
    while at < found.len() {
        found.extend(children(found[at]));
        at += 1;
    }
    found
}

/// What becomes of a child that was given something, before it has run another instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Killed,
    Stopped,
}

/// Waits beside the test until this process, which waits for a message, has one: only a debugger is
/// neither too early nor too late for that.
pub fn when_told(pid: i32, fate: Fate) -> JoinHandle<()> {
    let child = Pid::from_raw(pid);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        // All of it in one thread, which is what the kernel takes for the debugger.
        let options = ptrace::Options::PTRACE_O_TRACESYSGOOD;
        ptrace::seize(child, options).unwrap();
        ptrace::interrupt(child).unwrap();
        let await_stop = || waitpid(child, Some(WaitPidFlag::__WALL)).unwrap();
        await_stop();
        // It goes back to its call, and that is made anew.
        ptrace::syscall(child, None).unwrap();
        ready.send(()).unwrap();
        let mut has_begun = false;
        loop {
            if await_stop() == WaitStatus::PtraceSyscall(child) {
                let registers = ptrace::getregs(child).unwrap();
                let is_told = registers.orig_rax == nix::libc::SYS_recvmsg as u64;
                if has_begun && is_told && (registers.rax as i64) > 0 {
                    break;
                }
                has_begun |= is_told;
            }
            ptrace::syscall(child, None).unwrap();
        }
        match fate {
            Fate::Killed => {
                kill(child, Signal::SIGKILL).unwrap();
                await_stop();
            }
            Fate::Stopped => {
                kill(child, Signal::SIGSTOP).unwrap();
                ptrace::detach(child, None).unwrap();
            }
        }
    });
    is_ready.recv().unwrap();
    thread
}

pub fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Those of `pids` that hold the socket that listens on `port`.
pub fn holders(port: u16, pids: &[i32]) -> BTreeSet<i32> {
    let Some(inode) = listener(port) else { return BTreeSet::new() };
    let socket = format!("socket:[{inode}]");
    let holds = |pid: i32| {
        fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
            fds.flatten().any(|fd| {
                fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == socket.as_str())
            })
        })
    };
    pids.iter().copied().filter(|pid| holds(*pid)).collect()
}

pub fn is_listening(port: u16) -> bool {
    listener(port).is_some()
}

/// The inode of the socket that listens on `port` of the IPv4 loopback.
fn listener(port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let local = format!("0100007F:{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        (columns.get(1) == Some(&local.as_str()) && columns.get(3) == Some(&LISTEN))
            .then(|| columns[9].parse().ok())?
    })
}

/// The server's end of a connection over the IPv4 loopback.
pub struct FarEnd {
    /// Whether a process has it; else it waits in the listener's queue.
    pub accepted: bool,
    /// Bytes that have arrived and that nobody has read.
    pub unread: u64,
    /// Bytes that the kernel has of its and that its client has not taken.
    pub untaken: u64,
}

/// Of the connection with these two ends; `None` once the kernel has forgotten it.
pub fn far_end((client, server): (SocketAddr, SocketAddr)) -> Option<FarEnd> {
    let name = |address: SocketAddr| match address {
        SocketAddr::V4(at) => format!("{:08X}:{:04X}", at.ip().to_bits().to_be(), at.port()),
        SocketAddr::V6(_) => unreachable!("the tests speak IPv4"),
    };
    let (local, remote) = (name(server), name(client));
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let its = columns.get(1) == Some(&&*local) && columns.get(2) == Some(&&*remote);
        let (untaken, unread) = columns.get(4).filter(|_| its)?.split_once(':')?;
        let bytes = |hex| u64::from_str_radix(hex, 16).ok();
        let (untaken, unread) = (bytes(untaken)?, bytes(unread)?);
        Some(FarEnd { accepted: columns[9] != "0", unread, untaken })
    })
}

/// Lets this process, and those that it starts, have as many descriptors as the machine allows.
pub fn allow_many_descriptors() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

/// How many descriptors a process has open.
pub fn descriptors(pid: i32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |fds| fds.count() as u64)
}

/// From now on a process can open no descriptor more than it has.
pub fn deny_descriptors(pid: i32) {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let open: BTreeSet<u64> = fds.filter_map(|fd| fd.file_name().to_str()?.parse().ok()).collect();
    // What bounds them is their number, and they have gaps.
    let lowest_free = (0..).find(|number| !open.contains(number)).unwrap();
    allow_descriptors(pid, lowest_free);
}

/// The last one's number.
pub fn highest_descriptor(pid: i32) -> u64 {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    fds.filter_map(|fd| fd.file_name().to_str()?.parse().ok()).max().unwrap()
}

/// From now on a process may have descriptors below this number; later it may be more again.
pub fn allow_descriptors(pid: i32, most: u64) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let hard = line.split_whitespace().nth(4).and_then(|hard| hard.parse().ok());
    let limit = Rlimit { current: Some(most), maximum: hard };
    prlimit(Pid::from_raw(pid), Resource::Nofile, limit).unwrap();
}

/// The processor's time that a process has had.
pub fn processor_time(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
}

/// Something done over and over beside the test, until it is stopped or dropped.
pub struct Beside<T> {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeSet<T>>>,
    thread: Option<JoinHandle<()>>,
}

/// Somebody from outside who kills everything that this process forks, before it has run its
/// first instruction. Only a debugger is never too late for that.
pub fn kill_at_birth(parent: i32) -> Beside<i32> {
    at_birth(parent, |child| {
        kill(child, Signal::SIGKILL).unwrap();
        while !matches!(
            waitpid(child, Some(WaitPidFlag::__WALL)),
            Ok(WaitStatus::Signaled(..)) | Err(_)
        ) {}
    })
}

fn at_birth(parent: i32, act: impl Fn(Pid) + Send + 'static) -> Beside<i32> {
    let parent = Pid::from_raw(parent);
    let mut seized = false;
    let killer = Beside::run(move |killed| {
        // All of it in one thread, which is what the kernel takes for the debugger.
        if !seized {
            ptrace::seize(parent, ptrace::Options::PTRACE_O_TRACEFORK).unwrap();
            seized = true;
        }
        match waitpid(parent, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::PtraceEvent(_, _, event))
                if event == Event::PTRACE_EVENT_FORK as i32 =>
            {
                let child = Pid::from_raw(ptrace::getevent(parent).unwrap() as i32);
                act(child);
                killed.insert(child.as_raw());
                ptrace::cont(parent, None).unwrap();
            }
            Ok(WaitStatus::PtraceEvent(..)) => ptrace::cont(parent, None).unwrap(),
            Ok(WaitStatus::Stopped(_, signal)) => ptrace::cont(parent, signal).unwrap(),
            Ok(_) | Err(_) => {}
        }
    });
    eventually("a debugger at its place", || {
        let status = fs::read_to_string(format!("/proc/{parent}/status")).unwrap();
        (!status.contains("TracerPid:\t0\n")).then_some(())
    });
    killer
}

/// The same, and each of them is stopped, until somebody lets it go on.
pub fn stop_at_birth(parent: i32) -> Beside<i32> {
    at_birth(parent, |child| {
        // Only one that is at its place can be let go.
        waitpid(child, Some(WaitPidFlag::__WALL)).unwrap();
        kill(child, Signal::SIGSTOP).unwrap();
        ptrace::detach(child, None).unwrap();
    })
}

/// One thread of a process stands still until this is dropped, as one that waits for a disk.
pub fn stop_thread(pid: i32, name: &str) -> Beside<()> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let named = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|it| it.trim() == name)
    };
    let thread = tasks.into_iter().find(named).expect("it has such a thread").file_name();
    let thread = Pid::from_raw(thread.to_str().unwrap().parse().unwrap());
    let mut seized = false;
    let stopper = Beside::run(move |stopped| {
        // All of it in one thread. With its end the kernel lets the other go on.
        if !seized {
            ptrace::seize(thread, ptrace::Options::empty()).unwrap();
            ptrace::interrupt(thread).unwrap();
            waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
            seized = true;
            stopped.insert(());
        }
    });
    eventually("a thread that stands still", || stopper.seen().first().copied());
    stopper
}

impl<T: Ord + Clone + Send + 'static> Beside<T> {
    pub fn run(mut act: impl FnMut(&mut BTreeSet<T>) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let thread = std::thread::spawn({
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    act(&mut seen.lock().unwrap());
                    pause(Duration::from_micros(300));
                }
            }
        });
        Self { stop, seen, thread: Some(thread) }
    }

    pub fn seen(&self) -> BTreeSet<T> {
        self.seen.lock().unwrap().clone()
    }

    pub fn stop(mut self) -> BTreeSet<T> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("what runs beside a test does not panic");
        }
        self.seen()
    }
}

impl<T> Drop for Beside<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
