//! What an earlier host of the same data directory left running. Its processes end with it, but for
//! one that native code has taken over, or that somebody has stopped: such a one keeps its tenant's
//! port, and would go on for ever.
//!
//! They are known by their cgroups, whose names tell the data directory (`fleet/cgroups.rs`), and
//! everywhere by their session: each zygote leads one that its workers cannot leave, and is noted in
//! the lock of the data directory before it forks any. Whoever holds that lock is the only host.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};
use tracing::warn;

/// The kernel needs a moment for each, and longer for one that waits for a disk.
const END_DEADLINE: Duration = Duration::from_secs(5);
/// What is read of the notes of an earlier host.
const NOTES_BYTES_MAX: u64 = 1 << 20;
/// A filter of system calls is in force: see proc_pid_status(5).
const FILTERED: &str = "2";

/// A zygote that was started, and so the session of its workers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    /// Process ids are numbers of one boot and of one namespace.
    world: World,
    leader: i32,
    /// When it was started, by the kernel's count.
    began: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct World {
    boot: String,
    namespace: String,
}

impl World {
    fn here() -> io::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let namespace = fs::read_link("/proc/self/ns/pid")?.to_string_lossy().into_owned();
        Ok(Self { boot, namespace })
    }
}

impl FromStr for Session {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let fields: Vec<&str> = line.split(' ').collect();
        let [boot, namespace, leader, began] = fields[..] else { return Err(()) };
        let world = World { boot: boot.to_owned(), namespace: namespace.to_owned() };
        let (leader, began) = (leader.parse().map_err(drop)?, began.parse().map_err(drop)?);
        Ok(Self { world, leader, began })
    }
}

/// Whether this is what a host writes into its lock. Where the power failed, some of it may be
/// nothing.
pub fn are_notes(lock: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(lock) else { return false };
    text.trim_matches('\0').lines().all(|line| line.parse::<Session>().is_ok())
}

/// What the kernel says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: i32,
    session: i32,
    began: u64,
    is_dead: bool,
    uid: u32,
    /// Whether it can have no new privileges and has a filter of system calls, as zygotes and
    /// their workers have.
    is_fenced: bool,
}

/// Where zygotes are noted: the lock, which this process holds.
pub struct Notes {
    file: File,
}

impl Notes {
    /// Over the lock of the data directory, which must be held.
    pub fn new(lock: File) -> Self {
        Self { file: lock }
    }

    /// To be called with each zygote before it forks.
    pub fn note(&self, zygote: u32) -> io::Result<()> {
        let World { boot, namespace } = World::here()?;
        let began = began(&stat(zygote.cast_signed())?).ok_or(io::ErrorKind::InvalidData)?;
        let mut file = &self.file;
        file.seek(io::SeekFrom::End(0))?;
        file.write_all(format!("{boot} {namespace} {zygote} {began}\n").as_bytes())
    }

    /// Ends what earlier hosts left, and forgets their zygotes. Only what is provably theirs: of a
    /// noted session, whose leader is gone or that very zygote, a user of this host's, and fenced.
    pub fn end_leftovers(&self, uids: &RangeInclusive<u32>) -> io::Result<usize> {
        let mut text = String::new();
        let mut file = &self.file;
        file.rewind()?;
        file.take(NOTES_BYTES_MAX).read_to_string(&mut text).or_else(|error| {
            // Nothing that a host wrote.
            if error.kind() == io::ErrorKind::InvalidData { Ok(0) } else { Err(error) }
        })?;
        let here = World::here()?;
        let sessions: Vec<Session> = text.lines().filter_map(|line| line.parse().ok()).collect();
        let sessions = sessions.into_iter().filter(|it| it.world == here).collect::<Vec<_>>();
        let own = geteuid().as_raw();
        let is_ours = |uid: u32| uid == own || uids.contains(&uid);
        let left = match sessions.as_slice() {
            [] => Vec::new(),
            sessions => leftovers(sessions, &processes()?, is_ours),
        };
        let ended = end(&left);
        self.file.set_len(0)?;
        Ok(ended)
    }
}

/// Those of the processes that are left of these sessions. Pure.
fn leftovers(
    sessions: &[Session],
    processes: &[Process],
    is_ours: impl Fn(u32) -> bool,
) -> Vec<Process> {
    let alive: HashMap<i32, &Process> =
        processes.iter().filter(|it| !it.is_dead).map(|it| (it.pid, it)).collect();
    let of_session = |process: &&&Process| {
        sessions.iter().any(|session| {
            // A number is given again when nobody goes by it any more, and then to another leader.
            let is_that = alive.get(&session.leader).is_none_or(|it| it.began == session.began);
            is_that && process.session == session.leader && process.began >= session.began
        })
    };
    let left = alive.values().filter(of_session);
    left.filter(|it| it.is_fenced && is_ours(it.uid)).map(|it| (*it).clone()).collect()
}

/// Kills these and waits until they are gone. Tells how many there were.
fn end(processes: &[Process]) -> usize {
    let killed: Vec<(i32, OwnedFd)> = processes.iter().filter_map(kill).collect();
    let deadline = Instant::now() + END_DEADLINE;
    for (pid, process) in &killed {
        warn!(pid, "a process that an earlier host left was ended");
        if !is_gone(process, deadline) {
            warn!(pid, "a process that an earlier host left was killed and did not end");
        }
    }
    killed.len()
}

fn kill(process: &Process) -> Option<(i32, OwnedFd)> {
    let opened = pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
    // It is that one for ever now, if it was when it was opened.
    let now = began(&stat(process.pid).ok()?)?;
    (now == process.began).then_some(())?;
    pidfd_send_signal(&opened, Signal::KILL).ok()?;
    Some((process.pid, opened))
}

/// Ends one by its number, which was just read where nobody else's stands.
pub fn kill_now(pid: i32) {
    let opened = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(opened) = opened {
        let _ = pidfd_send_signal(opened, Signal::KILL);
    }
}

fn is_gone(process: &OwnedFd, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let left =
        Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
    matches!(poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left)), Ok(1..))
}

fn processes() -> io::Result<Vec<Process>> {
    let pids = fs::read_dir("/proc")?.flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // One that ends meanwhile is none.
    Ok(pids.filter_map(process).collect())
}

fn process(pid: i32) -> Option<Process> {
    parse(pid, &stat(pid).ok()?, &fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn stat(pid: i32) -> io::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/stat"))
}

/// From `/proc/PID/stat` and `status`. Pure.
fn parse(pid: i32, stat: &str, status: &str) -> Option<Process> {
    let fields = fields(stat)?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()
    };
    Some(Process {
        pid,
        session: fields.get(3)?.parse().ok()?,
        began: began(stat)?,
        is_dead: ["Z", "X"].contains(fields.first()?),
        uid: of("Uid")?.parse().ok()?,
        is_fenced: of("NoNewPrivs") == Some("1") && of("Seccomp") == Some(FILTERED),
    })
}

/// Those behind the name, which may hold anything: see proc_pid_stat(5).
fn fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(") ")?.1.split_whitespace().collect())
}

fn began(stat: &str) -> Option<u64> {
    fields(stat)?.get(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        World { boot: "b".to_owned(), namespace: "pid:[1]".to_owned() }
    }

    fn worker(pid: i32) -> Process {
        Process { pid, session: 100, began: 60, is_dead: false, uid: 7, is_fenced: true }
    }

    fn left(processes: &[Process]) -> Vec<i32> {
        let sessions = [Session { world: world(), leader: 100, began: 50 }];
        let mut left: Vec<_> =
            leftovers(&sessions, processes, |uid| uid == 7).iter().map(|it| it.pid).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn what_is_left_of_a_session_is_found_and_nothing_else() {
        let others = [
            Process { session: 101, ..worker(2) },
            Process { began: 49, ..worker(3) },
            Process { is_dead: true, ..worker(4) },
            Process { uid: 8, ..worker(5) },
            Process { is_fenced: false, ..worker(6) },
        ];
        let mut all = vec![worker(1)];
        all.extend(others);
        assert_eq!(left(&all), [1]);
        // The zygote itself, where it did not end.
        let zygote = Process { began: 50, ..worker(100) };
        assert_eq!(left(&[worker(1), zygote.clone()]), [1, 100]);
        // A leader of a later time: the number is another's by now.
        assert_eq!(left(&[worker(1), Process { began: 51, ..zygote.clone() }]), [0; 0]);
        // A dead one leads nobody else.
        assert_eq!(left(&[worker(1), Process { began: 51, is_dead: true, ..zygote }]), [1]);
    }

    #[test]
    fn a_process_is_read_whatever_it_calls_itself() {
        let stat = "7 (a) Z 1 (b) ) S 3 100 100 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 60 1 2 3";
        let status = "Name:\tUid:\nUmask:\t0077\nUid:\t7\t7\t7\t7\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        assert_eq!(parse(7, stat, status), Some(worker(7)));
        let open = parse(7, stat, &status.replace("Seccomp:\t2", "Seccomp:\t0")).unwrap();
        assert!(!open.is_fenced);
        for wrong in ["", "7 (a) S 3", "7 a S 3 100 100 0 -1 4 0 0"] {
            assert_eq!(parse(7, wrong, status), None, "{wrong}");
        }
        let own = process(std::process::id().cast_signed()).unwrap();
        assert!(!own.is_dead && own.began > 0);
    }

    #[test]
    fn notes_of_this_world_are_read_back_and_others_harm_nobody() {
        let file = tempfile::tempfile().unwrap();
        let notes = Notes::new(file.try_clone().unwrap());
        notes.note(std::process::id()).unwrap();
        (&file)
            .write_all(b"other pid:[1] 1 1\nrubbish\n 1 1\n1 1 1 99999999999999999999\n")
            .unwrap();
        // This process leads no such session, or is not fenced.
        assert_eq!(notes.end_leftovers(&(1..=1)).unwrap(), 0);
        assert_eq!(file.metadata().unwrap().len(), 0, "they are forgotten");
        (&file).rewind().unwrap();
        (&file).write_all(&[0xff; 100]).unwrap();
        assert_eq!(notes.end_leftovers(&(1..=1)).unwrap(), 0);
    }
}
