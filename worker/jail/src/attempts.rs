//! What a worker's walls must not allow, tried from within: a handful, before the host serves.
//! The whole list is in the system's tests, which try it in the place of a worker's code.

use std::ffi::CStr;
use std::fs::File;

use nix::libc::{self, c_int};

use crate::files::STATE;

/// A child whose attempt was not kept in.
pub const EXIT_ESCAPED: u8 = 77;

pub struct Attempt {
    pub name: &'static str,
    /// Whether it came out. A process may also be ended by its attempt.
    pub escapes: fn() -> bool,
}

pub const ATTEMPTS: &[Attempt] = &[
    Attempt { name: "making a socket", escapes: make_socket },
    Attempt { name: "connecting the listener elsewhere", escapes: connect_listener },
    Attempt { name: "reading a file of the host's", escapes: read_file },
    Attempt { name: "running another program", escapes: run_program },
    Attempt { name: "making memory executable", escapes: execute_memory },
    Attempt { name: "signalling another process", escapes: signal_another },
    Attempt { name: "tracing another process", escapes: trace_another },
    Attempt { name: "opening by path beside the state directory", escapes: open_beside },
    Attempt { name: "opening by another descriptor than its own", escapes: open_elsewhere },
    Attempt { name: "making a link in the state directory", escapes: make_link },
    Attempt { name: "changing flags of an open file", escapes: change_flags },
];

/// See `descriptors.rs`.
const LISTENER: c_int = 4;

fn make_socket() -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) >= 0 }
}

/// Disconnecting comes first: it needs no peer.
fn connect_listener() -> bool {
    // SAFETY: a sockaddr is plain data, for which zeroes are a value, and its size is said.
    unsafe {
        let nowhere: libc::sockaddr = std::mem::zeroed();
        libc::connect(LISTENER, &nowhere, size_of::<libc::sockaddr>() as u32) == 0
    }
}

fn read_file() -> bool {
    ["/etc/passwd", "/proc/1/environ", "/proc/self/status"]
        .iter()
        .any(|path| File::open(path).is_ok())
}

fn run_program() -> bool {
    let arguments = [std::ptr::null()];
    // SAFETY: the path ends with a zero, and both lists with a null pointer.
    unsafe { libc::execve(c"/proc/self/exe".as_ptr(), arguments.as_ptr(), arguments.as_ptr()) };
    // Where it succeeds, nothing comes back, and the program it became ends with another code.
    false
}

fn execute_memory() -> bool {
    let access = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, at no address in particular, of no file.
    unsafe { libc::mmap(std::ptr::null_mut(), 4_096, access, kind, -1, 0) != libc::MAP_FAILED }
}

/// Somebody who is always there, and whom it does no harm.
const FIRST_PROCESS: libc::pid_t = 1;

fn signal_another() -> bool {
    // SAFETY: takes no pointer; the signal is none.
    unsafe { libc::kill(FIRST_PROCESS, 0) == 0 }
}

fn trace_another() -> bool {
    // SAFETY: attaching takes no pointer; who is traced is let go again by this process's end.
    unsafe { libc::ptrace(libc::PTRACE_SEIZE, FIRST_PROCESS, 0, 0) == 0 }
}

/// What is in the place of a state directory there holds one file: see `stand_in_for_state`.
const FILE: &CStr = c"null";
/// As files of the state are opened.
const READ: c_int = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC;

fn open_at(directory: c_int, path: &CStr, flags: c_int) -> c_int {
    // SAFETY: the path ends with a zero.
    unsafe { libc::openat(directory, path.as_ptr(), flags, 0o600) }
}

fn open_beside() -> bool {
    let paths =
        [c"/etc/passwd", c"../etc/passwd", c"../proc/1/environ", c"/proc/self/status", c"/"];
    paths.iter().any(|path| open_at(STATE, path, READ) >= 0)
}

fn open_elsewhere() -> bool {
    open_at(libc::AT_FDCWD, FILE, READ) >= 0 || open_at(LISTENER, FILE, READ) >= 0
}

fn make_link() -> bool {
    // SAFETY: both names end with a zero.
    unsafe { libc::linkat(STATE, FILE.as_ptr(), STATE, c"made".as_ptr(), 0) == 0 }
}

fn change_flags() -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_SETFL, libc::O_NONBLOCK) == 0 }
}
