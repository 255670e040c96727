//! What a worker's walls must not allow, tried from within: a handful, before the host serves.
//! The whole list is in the system's tests, which try it in the place of a worker's code.

use std::fs::File;

use nix::libc;

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
];

fn make_socket() -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) >= 0 }
}

/// Disconnecting comes first: it needs no peer.
fn connect_listener() -> bool {
    // SAFETY: a sockaddr is plain data, for which zeroes are a value, and its size is said.
    unsafe {
        let nowhere: libc::sockaddr = std::mem::zeroed();
        libc::connect(3, &nowhere, size_of::<libc::sockaddr>() as u32) == 0
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
