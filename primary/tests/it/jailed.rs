//! Jailed processes by themselves, started as the host starts them and held within their walls: each
//! waits for something that does not come, and a test is what runs in it.

use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hearth_wire::{
    CompileJob, CompileRequest, Databases, Fingerprint, FromZygote, ToZygote, TreeJob, TreeRequest,
    VERSION, pair, recv, send,
};
use nix::libc;
use tempfile::TempDir;

use crate::guests;
use crate::processes::{eventually, pause};

/// One that waits, and is killed with the test.
pub struct Jailed {
    child: Child,
    pub pid: i32,
    control: OwnedFd,
    directory: TempDir,
    /// Where it would say what its own mistakes are.
    _errors: PipeReader,
    _keeps_waiting: Option<OwnedFd>,
}

impl Jailed {
    /// On a kernel that seems to lack these calls, and with a file open that is none of its business.
    fn start(missing: &str, name: &str, argument: Option<&str>) -> Self {
        let (control, theirs) = pair().unwrap();
        let (errors, its_errors) = io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec 7</etc/passwd 8>>/dev/null; exec "$@""#, "sh"]);
        if !missing.is_empty() {
            command.args([without().as_str(), missing]);
        }
        command.arg(program(name)).args(argument).env_clear();
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::from(its_errors));
        let child = command.spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        Self { child, pid, control, directory, _errors: errors, _keeps_waiting: None }
    }

    fn new_file(&self, name: &str) -> File {
        let path = self.directory.path().join(name);
        File::options().read(true).write(true).create_new(true).open(path).unwrap()
    }

    /// Until it is behind its walls and waits for what does not come, as long as this end is kept.
    fn kept_waiting(mut self, what: &str, missing: &str, never: PipeWriter) -> Self {
        self._keeps_waiting = Some(never.into());
        eventually(&format!("{what}, without {missing:?}"), || {
            let is_fenced = filters(self.pid)? == own_filters(missing) + 2;
            (is_fenced && waits_in(self.pid)? == libc::SYS_read).then_some(())
        });
        self
    }
}

impl Drop for Jailed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn program(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_hearth")).with_file_name(name);
    assert!(program.exists(), "{name} is not built: run `cargo xtask test`");
    program
}

/// A program that runs another one without some system calls.
pub fn without() -> String {
    program("without").to_str().unwrap().to_owned()
}

/// The engines that artifacts are made for, from who knows them.
fn engines() -> Vec<Fingerprint> {
    let zygote = Jailed::start("", "hearth-worker", Some("zygote"));
    send(&zygote.control, &ToZygote::Hello { version: VERSION }, &[]).unwrap();
    match recv(&zygote.control).unwrap() {
        Some((FromZygote::Hello { engines, .. }, _)) => engines,
        _ => panic!("no zygote"),
    }
}

/// Which system call a process waits in, if it does.
fn waits_in(pid: i32) -> Option<i64> {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    call.split(' ').next()?.parse().ok()
}

fn filters(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"))?;
    line.trim().parse().ok()
}

/// Filters of the tests' own, each of which takes one call away.
fn own_filters(missing: &str) -> u32 {
    missing.split(',').filter(|call| !call.is_empty()).count() as u32
}

/// One that is asked to compile a module which does not come.
pub fn compiler(missing: &str) -> Jailed {
    let jailed = Jailed::start(missing, "hearth-compile", None);
    let (module, never) = io::pipe().unwrap();
    let made = ["artifact", "declared"].map(|name| jailed.new_file(name));
    let fds = [module.as_fd(), made[0].as_fd(), made[1].as_fd()];
    let request = CompileRequest {
        version: VERSION,
        engines: engines(),
        job: CompileJob::Compile,
        uid: None,
    };
    send(&jailed.control, &request, &fds).unwrap();
    jailed.kept_waiting("a compiler that waits for its module", missing, never)
}

/// One whose module has been asked for its options, and thinks.
pub fn trial() -> Jailed {
    let engines = engines();
    // It is given up after a second, in which the test may not have come to look.
    for _ in 0..20 {
        let mut jailed = Jailed::start("", "hearth-compile", None);
        let files = ["module", "artifact", "declared"].map(|name| jailed.new_file(name));
        (&files[0]).write_all(guests::declares_late()).unwrap();
        io::Seek::rewind(&mut &files[0]).unwrap();
        let (engines, job) = (engines.clone(), CompileJob::Compile);
        let request = CompileRequest { version: VERSION, engines, job, uid: None };
        send(&jailed.control, &request, &files.each_ref().map(AsFd::as_fd)).unwrap();
        while jailed.child.try_wait().unwrap().is_none() {
            let waits = [libc::SYS_futex, libc::SYS_epoll_wait, libc::SYS_epoll_pwait];
            let waits = waits_in(jailed.pid).is_some_and(|call| waits.contains(&call));
            if waits && filters(jailed.pid) == Some(3) {
                return jailed;
            }
            pause(std::time::Duration::from_millis(1));
        }
    }
    panic!("no compiler could be caught at its trial");
}

/// One that unpacks what does not come.
pub fn tree(missing: &str) -> Jailed {
    let jailed = Jailed::start(missing, "hearth-worker", Some("tree"));
    let (tar, never) = io::pipe().unwrap();
    let inside = File::open(jailed.directory.path()).unwrap();
    let request = TreeRequest { version: VERSION, uid: None, job: TreeJob::Unpack };
    send(&jailed.control, &request, &[inside.as_fd(), tar.as_fd()]).unwrap();
    jailed.kept_waiting("a tree that waits for its archive", missing, never)
}

/// One that copies a database for whom nobody reads it.
pub fn copier() -> Jailed {
    let mut jailed = Jailed::start("", "hearth-worker", Some("tree"));
    let database = rusqlite::Connection::open(jailed.directory.path().join("kv.db")).unwrap();
    database.execute_batch("CREATE TABLE a AS SELECT randomblob(1000000) AS b").unwrap();
    drop(database);
    let (never, pipe) = io::pipe().unwrap();
    let inside = File::open(jailed.directory.path()).unwrap();
    let databases = Databases::Copied { most_bytes: 1 << 30 };
    let job = TreeJob::Pack { name: None, databases };
    let request = TreeRequest { version: VERSION, uid: None, job };
    send(&jailed.control, &request, &[inside.as_fd(), pipe.as_fd()]).unwrap();
    jailed._keeps_waiting = Some(never.into());
    eventually("a copier that waits for its reader", || {
        let is_sealed = filters(jailed.pid)? == 3;
        (is_sealed && waits_in(jailed.pid)? == libc::SYS_write).then_some(())
    });
    jailed
}
