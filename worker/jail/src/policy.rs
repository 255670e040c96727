//! Which system calls each program may make, as data: one row a call, with its reason.
//!
//! Whoever is not named in a row may not make the call. A program goes through two stages: it is
//! *open* while it starts (the zygote all its life), and *sealed* before the first byte of a
//! stranger's is looked at. Sealed, nothing can become executable, no file can be opened and no
//! socket made, connected or taken over.

use nix::libc::{self, c_long};

/// A stage of a program, as a bit in [`Row::who`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The zygote, and a worker until all its code is loaded.
    Zygote = 1,
    /// A worker that serves.
    Worker = 2,
    /// The compiler, from its start.
    Compiler = 4,
    /// The compiler once it runs what it has compiled.
    Trial = 8,
}

const Z: u8 = Stage::Zygote as u8;
const W: u8 = Stage::Worker as u8;
const C: u8 = Stage::Compiler as u8;
const T: u8 = Stage::Trial as u8;
const OPEN: u8 = Z | C;
const ALL: u8 = Z | W | C | T;
const SERVING: u8 = Z | W;

pub struct Row {
    pub call: c_long,
    pub who: u8,
    /// Only with such arguments, in every stage. Of these lists one must hold whole.
    pub only: &'static [&'static [Test]],
    /// Never with such arguments once the program is sealed. Holds if all do.
    pub never: &'static [Test],
    pub why: &'static str,
}

/// What is asked of one argument. Pointers cannot be looked through, so only their being null can
/// be asked.
#[derive(Debug, Clone, Copy)]
pub enum Test {
    /// Its lower 32 bits.
    Is(u8, u64),
    Not(u8, u64),
    UpTo(u8, u64),
    /// Of its lower 32 bits those of the first number are the second.
    Bits(u8, u64, u64),
    /// All of its 64 bits are zero, or not.
    Null(u8),
    Given(u8),
}
use Test::{Bits, Given, Is, Not, Null, UpTo};

const fn row(call: c_long, who: u8, why: &'static str) -> Row {
    Row { call, who, only: &[], never: &[], why }
}

const fn only(call: c_long, who: u8, only: &'static [&'static [Test]], why: &'static str) -> Row {
    Row { call, who, only, never: &[], why }
}

const fn never(call: c_long, who: u8, never: &'static [Test], why: &'static str) -> Row {
    Row { call, who, only: &[], never, why }
}

const EXECUTABLE: u64 = libc::PROT_EXEC as u64;
const THREAD: u64 = libc::CLONE_THREAD as u64;
/// Everything that would make a namespace.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32 as u64;
const FAST_OPEN: u64 = libc::MSG_FASTOPEN as u64;
/// `PAGEMAP_SCAN`: `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: u64 = 0xc060_6610;
/// The control socket.
const CONTROL: u64 = 0;
/// The standard streams, the first of which is the control socket.
const FIXED_LAST: u64 = 2;

/// By what they are for. The order does not matter.
pub const POLICY: &[Row] = &[
    // Connections, pipes and files that are open.
    row(libc::SYS_read, ALL, "what was opened or accepted"),
    row(libc::SYS_readv, ALL, "the same in pieces"),
    row(libc::SYS_write, ALL, "answers, wake-ups, and last words on standard error"),
    row(libc::SYS_writev, ALL, "the same in pieces"),
    never(
        libc::SYS_close,
        ALL,
        // A number that rules go by must not come to mean another file.
        &[UpTo(0, FIXED_LAST)],
        "connections that end; once sealed not the control socket, whose number is trusted below",
    ),
    // Sockets: those that came, and what comes in at the listener. A socket that exists can be
    // disconnected and connected elsewhere, or send by fast open, past Landlock and an empty
    // network namespace alike. So no call here takes an address.
    row(libc::SYS_accept4, SERVING, "callers"),
    row(libc::SYS_recvfrom, SERVING, "requests"),
    only(
        libc::SYS_sendto,
        SERVING,
        &[&[Null(4), Bits(3, FAST_OPEN, 0)]],
        "answers, to whom the socket is connected with and to nobody else",
    ),
    only(
        libc::SYS_sendmsg,
        ALL,
        &[&[Is(0, CONTROL), Bits(2, FAST_OPEN, 0)]],
        "the control socket, which is no network's; its message could hold an address",
    ),
    only(libc::SYS_recvmsg, ALL, &[&[Is(0, CONTROL)]], "messages and descriptors of the primary's"),
    only(
        libc::SYS_shutdown,
        SERVING,
        &[&[Is(1, libc::SHUT_WR as u64)]],
        "the end of an answer; any other kind would close the listener for the primary as well",
    ),
    row(libc::SYS_getsockopt, SERVING, "whether a connection has failed"),
    only(
        libc::SYS_setsockopt,
        SERVING,
        &[&[Is(1, libc::IPPROTO_TCP as u64), Is(2, libc::TCP_NODELAY as u64)]],
        "answers that leave at once; other options would bind it to a device or route it, or have \
         the primary wait where it closes it",
    ),
    row(libc::SYS_getsockname, SERVING, "at which address a caller came in"),
    row(libc::SYS_getpeername, SERVING, "who calls"),
    Row {
        call: libc::SYS_fcntl,
        who: ALL,
        only: &[],
        // The flags belong to the open file, which the primary shares.
        never: &[Not(1, libc::F_GETFL as u64), Not(1, libc::F_GETFD as u64)],
        why: "copies closed on exec; once sealed only to see whether a socket would block",
    },
    // Waiting.
    row(libc::SYS_epoll_ctl, SERVING, "what is waited for"),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_epoll_wait, SERVING, "waiting for connections"),
    row(libc::SYS_epoll_pwait, SERVING, "the same, where there is no older form"),
    row(libc::SYS_futex, ALL, "locks between threads"),
    row(libc::SYS_sched_yield, ALL, "a lock that is about to be free"),
    row(libc::SYS_clock_gettime, ALL, "the time, where the kernel does not share its clock"),
    row(libc::SYS_clock_getres, ALL, "what a function may ask of a clock"),
    row(libc::SYS_clock_nanosleep, ALL, "the ticker's beat"),
    row(libc::SYS_nanosleep, ALL, "the same by its older name"),
    row(libc::SYS_getrandom, ALL, "keys of tables, and what functions ask for"),
    // Memory. Code comes from artifacts, all of which are loaded before the seal.
    never(
        libc::SYS_mmap,
        ALL,
        &[Bits(2, EXECUTABLE, EXECUTABLE)],
        "memory, which is never executable once sealed",
    ),
    never(
        libc::SYS_mprotect,
        ALL,
        &[Bits(2, EXECUTABLE, EXECUTABLE)],
        "a guest's memory that grows; never to make something executable once sealed",
    ),
    row(libc::SYS_munmap, ALL, "memory that is not used any more"),
    row(libc::SYS_mremap, ALL, "large buffers that grow"),
    row(libc::SYS_madvise, ALL, "a guest's memory that is given back"),
    row(libc::SYS_brk, ALL, "the allocator"),
    only(
        libc::SYS_ioctl,
        SERVING | C,
        &[&[Is(1, PAGEMAP_SCAN)]],
        "which pages a guest has written, so that the next call sees none of them",
    ),
    // Threads and signals of its own.
    Row {
        call: libc::SYS_clone,
        who: ALL,
        only: &[&[Bits(0, NAMESPACES, 0)]],
        never: &[Bits(0, THREAD, 0)],
        why: "the zygote's children; once sealed, threads alone",
    },
    row(
        libc::SYS_clone3,
        ALL,
        "nothing: a filter beside says that there is none (ENOSYS), \
         since what it is asked for cannot be seen; the C library then takes clone",
    ),
    row(libc::SYS_set_robust_list, ALL, "each thread's beginning"),
    row(libc::SYS_rseq, ALL, "the same"),
    row(libc::SYS_gettid, ALL, "names of threads in messages, and locks"),
    row(libc::SYS_getpid, ALL, "the same of the process"),
    row(libc::SYS_sched_getaffinity, ALL, "how many threads may run"),
    only(
        libc::SYS_prctl,
        ALL,
        &[
            &[Is(0, libc::PR_SET_NAME as u64)],
            &[Is(0, libc::PR_SET_VMA as u64)],
            &[Is(0, libc::PR_SET_NO_NEW_PRIVS as u64)],
            &[Is(0, libc::PR_SET_DUMPABLE as u64), Is(1, 0)],
            &[Is(0, libc::PR_CAP_AMBIENT as u64), Is(1, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64)],
        ],
        "names of threads and of memory; the walls, which it can only make higher",
    ),
    never(
        libc::SYS_rt_sigaction,
        ALL,
        &[Is(0, libc::SIGSYS as u64)],
        "faults of guests; once sealed never who reports a forbidden call",
    ),
    row(libc::SYS_rt_sigprocmask, ALL, "each thread's beginning and end"),
    row(libc::SYS_rt_sigreturn, ALL, "the end of a handled fault"),
    row(libc::SYS_sigaltstack, ALL, "a stack for faults of guests"),
    row(libc::SYS_restart_syscall, ALL, "a wait that was interrupted"),
    row(libc::SYS_exit, ALL, "a thread's end"),
    row(libc::SYS_exit_group, ALL, "the process's end"),
    // While a program starts: files, descriptors, children, and the walls themselves.
    Row {
        call: libc::SYS_prlimit64,
        who: ALL,
        only: &[&[Is(0, 0)]],
        never: &[Given(2)],
        why: "its own limits; once sealed only to read how large a thread's stack is to be",
    },
    row(libc::SYS_openat, OPEN, "artifacts, /proc/self"),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_open, OPEN, "the same by its older name"),
    row(libc::SYS_newfstatat, OPEN, "the same"),
    row(libc::SYS_fstat, OPEN, "how large they are"),
    row(libc::SYS_statx, OPEN, "the same"),
    row(libc::SYS_lseek, OPEN, "where they are read"),
    row(libc::SYS_pread64, OPEN, "the same"),
    row(libc::SYS_readlinkat, OPEN, "which file a descriptor is"),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_readlink, OPEN, "the same by its older name"),
    row(libc::SYS_getdents64, Z, "which descriptors are open, how many threads there are"),
    row(libc::SYS_close_range, Z, "what a child does not keep"),
    row(libc::SYS_dup3, Z, "fixed numbers for what it keeps"),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_dup2, Z, "the same, and the engine's new /proc/self/pagemap in a child"),
    row(libc::SYS_memfd_create, OPEN, "images of a guest's first memory"),
    row(libc::SYS_ftruncate, OPEN, "the same, and the artifact's file"),
    row(libc::SYS_epoll_create1, OPEN, "the runtime, which is built before the seal"),
    row(libc::SYS_eventfd2, OPEN, "the same"),
    row(libc::SYS_socketpair, Z, "the same: what wakes it for signals"),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_poll, OPEN, "the zygote's two descriptors"),
    row(libc::SYS_ppoll, OPEN, "the same"),
    row(libc::SYS_wait4, Z, "children that ended"),
    row(libc::SYS_pidfd_open, Z, "children by a name that is never another's"),
    only(libc::SYS_kill, Z, &[&[Is(1, libc::SIGKILL as u64)]], "a child that nobody could watch"),
    row(libc::SYS_umask, Z, "files for their owner alone"),
    row(libc::SYS_setgroups, Z, "a worker's own user"),
    row(libc::SYS_setresgid, Z, "the same"),
    row(libc::SYS_setresuid, Z, "the same"),
    row(libc::SYS_getresgid, Z, "the same"),
    row(libc::SYS_getresuid, Z, "the same"),
    row(libc::SYS_capget, Z, "capabilities, which are all dropped"),
    row(libc::SYS_capset, Z, "the same"),
    row(libc::SYS_landlock_create_ruleset, OPEN, "Landlock"),
    row(libc::SYS_landlock_add_rule, OPEN, "the same"),
    row(libc::SYS_landlock_restrict_self, OPEN, "the same"),
    row(libc::SYS_seccomp, OPEN, "the seal"),
    row(libc::SYS_membarrier, OPEN, "code that was just loaded, on processors that ask for it"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_call_has_one_row_with_a_reason() {
        let mut seen = BTreeSet::new();
        for row in POLICY {
            assert!(seen.insert(row.call), "{} is there twice", row.call);
            assert!(!row.why.is_empty(), "{}", row.call);
        }
    }

    /// A seal takes away and never gives.
    #[test]
    fn who_is_sealed_was_allowed_before() {
        for row in POLICY {
            for (open, sealed) in [(Z, W), (C, T)] {
                assert!(row.who & sealed == 0 || row.who & open != 0, "{}", row.call);
            }
        }
    }
}
