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
    /// What moves a tenant's files, from its start.
    Tree = 16,
}

impl Stage {
    pub const ALL: [Self; 5] =
        [Self::Zygote, Self::Worker, Self::Compiler, Self::Trial, Self::Tree];

    /// Whether a row's conditions for programs that are sealed hold here.
    pub fn is_sealed(self) -> bool {
        matches!(self, Self::Worker | Self::Trial)
    }
}

const Z: u8 = Stage::Zygote as u8;
const W: u8 = Stage::Worker as u8;
const C: u8 = Stage::Compiler as u8;
const T: u8 = Stage::Trial as u8;
const D: u8 = Stage::Tree as u8;
const OPEN: u8 = Z | C;
const ALL: u8 = Z | W | C | T | D;
const SERVING: u8 = Z | W;
const FILES: u8 = OPEN | D;

pub struct Row {
    pub call: c_long,
    pub who: u8,
    /// Only with such arguments, in every stage. Of these lists one must hold whole.
    pub only: &'static [&'static [Test]],
    /// With such arguments as well in that stage alone: its seal takes them away.
    pub also: &'static [(Stage, &'static [Test])],
    /// Never with such arguments once the program is sealed. Holds if all do.
    pub never: &'static [Test],
    /// Where the call is answered by `ENOSYS`, as by a kernel that has none: whoever asks for it
    /// has another way, and lives.
    pub absent: u8,
    pub why: &'static str,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Made,
    /// Refused by error number.
    Absent,
    /// Never made: the program ends.
    Forbidden,
}

impl Row {
    pub fn is_of(&self, stage: Stage) -> bool {
        self.who & stage as u8 != 0
    }

    pub fn is_absent(&self, stage: Stage) -> bool {
        self.absent & stage as u8 != 0
    }

    /// Whether nothing is asked of its arguments.
    pub fn is_unconditional(&self, stage: Stage) -> bool {
        self.only.is_empty() && (self.never.is_empty() || !stage.is_sealed())
    }

    /// With which arguments alone it may make the call, where that is asked: of these lists one must
    /// hold whole.
    pub fn lists(&self, stage: Stage) -> impl Iterator<Item = &'static [Test]> {
        let also = self.also.iter().filter(move |(of, _)| *of == stage).map(|(_, tests)| *tests);
        self.only.iter().copied().chain(also)
    }

    /// Of the call with these arguments.
    pub fn verdict(&self, stage: Stage, arguments: &[u64; 6]) -> Verdict {
        let all = |tests: &[Test]| tests.iter().all(|test| test.holds(arguments));
        let is_one_of_them = self.only.is_empty() || self.lists(stage).any(all);
        let never = stage.is_sealed() && !self.never.is_empty() && all(self.never);
        match self.is_of(stage) && is_one_of_them && !never {
            false => Verdict::Forbidden,
            true if self.is_absent(stage) => Verdict::Absent,
            true => Verdict::Made,
        }
    }
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

impl Test {
    pub fn holds(self, arguments: &[u64; 6]) -> bool {
        let lower = |at: u8| arguments[usize::from(at)] & 0xffff_ffff;
        match self {
            Is(at, value) => lower(at) == value,
            Not(at, value) => lower(at) != value,
            UpTo(at, value) => lower(at) <= value,
            Bits(at, mask, value) => lower(at) & mask == value,
            Null(at) => arguments[usize::from(at)] == 0,
            Given(at) => arguments[usize::from(at)] != 0,
        }
    }
}

const fn row(call: c_long, who: u8, why: &'static str) -> Row {
    Row { call, who, only: &[], also: &[], never: &[], absent: 0, why }
}

const fn only(call: c_long, who: u8, only: &'static [&'static [Test]], why: &'static str) -> Row {
    Row { call, who, only, also: &[], never: &[], absent: 0, why }
}

const fn never(call: c_long, who: u8, never: &'static [Test], why: &'static str) -> Row {
    Row { call, who, only: &[], also: &[], never, absent: 0, why }
}

/// What these are told is not there.
const fn absent(call: c_long, who: u8, absent: u8, why: &'static str) -> Row {
    Row { call, who, only: &[], also: &[], never: &[], absent, why }
}

const NO_ACCESS: u64 = libc::PROT_NONE as u64;
const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
/// Memory that no limit of a process counts: shared, a stack that grows, the machine's huge pages.
const UNCOUNTED: u64 = (libc::MAP_SHARED | libc::MAP_GROWSDOWN | libc::MAP_HUGETLB) as u64;
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
/// `MADV_GUARD_INSTALL`, of Linux 6.13, below the stacks of threads.
const GUARD_INSTALL: u64 = 102;
/// `PAGEMAP_SCAN`: `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: u64 = 0xc060_6610;
/// The control socket.
const CONTROL: u64 = 0;
/// The zygote's end of a spare child's control socket.
const SPARE_CHILD: u64 = crate::descriptors::SPARE_CHILD as u64;
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
    Row {
        call: libc::SYS_sendmsg,
        who: ALL,
        only: &[&[Is(0, CONTROL), Bits(2, FAST_OPEN, 0)]],
        also: &[(Stage::Zygote, &[Is(0, SPARE_CHILD), Bits(2, FAST_OPEN, 0)])],
        never: &[],
        absent: 0,
        why: "the control socket, which is not a network's; its message could hold an address. The \
              zygote speaks to a spare child as well, by another number",
    },
    only(libc::SYS_recvmsg, ALL, &[&[Is(0, CONTROL)]], "messages and descriptors of the primary's"),
    only(
        libc::SYS_shutdown,
        SERVING,
        &[&[Is(1, libc::SHUT_WR as u64)]],
        "the end of an answer; any other kind would close the listener for the primary as well",
    ),
    only(
        libc::SYS_getsockopt,
        SERVING,
        &[&[Is(1, libc::SOL_SOCKET as u64), Is(2, libc::SO_ERROR as u64)]],
        "whether a connection has failed; other options give a descriptor of who is at the other \
         end, or map what comes in",
    ),
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
        also: &[],
        // The flags belong to the open file, which the primary shares.
        never: &[Not(1, libc::F_GETFL as u64), Not(1, libc::F_GETFD as u64)],
        absent: 0,
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
    // Memory. Code comes from artifacts, all of which are loaded before the seal. Sealed, memory is
    // read and written or not accessible at all, so that none is executable and all of it counts.
    Row {
        call: libc::SYS_mmap,
        who: ALL,
        only: &[&[Bits(3, UNCOUNTED, 0)]],
        also: &[],
        never: &[Not(2, NO_ACCESS), Not(2, READ_WRITE)],
        absent: 0,
        why: "memory of its own, which is never executable once sealed",
    },
    never(
        libc::SYS_mprotect,
        ALL,
        &[Not(2, NO_ACCESS), Not(2, READ_WRITE)],
        "a guest's memory that grows; never to make something executable once sealed",
    ),
    row(libc::SYS_munmap, ALL, "memory that is not used any more"),
    absent(
        libc::SYS_mremap,
        ALL,
        ALL,
        "nothing: enlarging a file's executable mapping makes executable what follows in the file, \
         and what is mapped there cannot be seen; the allocator then copies",
    ),
    only(
        libc::SYS_madvise,
        ALL,
        &[
            &[Is(2, libc::MADV_DONTNEED as u64)],
            &[Is(2, libc::MADV_FREE as u64)],
            &[Is(2, libc::MADV_HUGEPAGE as u64)],
            &[Is(2, libc::MADV_NOHUGEPAGE as u64)],
            &[Is(2, GUARD_INSTALL)],
        ],
        "a guest's memory that is given back, and what the C library advises of its own; merging \
         pages with others' would tell what those hold",
    ),
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
        also: &[],
        never: &[Bits(0, THREAD, 0)],
        absent: 0,
        why: "the zygote's children; once sealed, threads alone",
    },
    absent(
        libc::SYS_clone3,
        ALL,
        ALL,
        "nothing: what it is asked for cannot be seen; the C library then takes clone",
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
        also: &[],
        never: &[Given(2), Not(1, libc::RLIMIT_NPROC as u64)],
        absent: 0,
        why: "its own limits; once sealed only to read how large a thread's stack is to be, and to \
              have fewer threads",
    },
    // The compiler has what it needs open, and asks for names where its libraries look for the
    // machine's: whatever these are, it gets on without.
    absent(libc::SYS_openat, FILES, C, "artifacts, /proc/self; a tenant's files"),
    #[cfg(target_arch = "x86_64")]
    absent(libc::SYS_open, OPEN, C, "the same by its older name"),
    absent(libc::SYS_newfstatat, FILES, C, "the same, and what they are"),
    row(libc::SYS_fstat, FILES, "how large they are"),
    absent(libc::SYS_statx, FILES, C, "the same"),
    row(libc::SYS_lseek, FILES, "where they are read"),
    row(libc::SYS_pread64, OPEN, "the same"),
    absent(libc::SYS_readlinkat, OPEN, C, "which file a descriptor is"),
    #[cfg(target_arch = "x86_64")]
    absent(libc::SYS_readlink, OPEN, C, "the same by its older name"),
    row(
        libc::SYS_getdents64,
        Z | D,
        "which descriptors are open, how many threads there are; what is in a directory",
    ),
    row(libc::SYS_mkdirat, D, "directories that are unpacked"),
    row(libc::SYS_unlinkat, D, "files that are removed"),
    row(libc::SYS_renameat, D, "directories that lie too deep to be removed where they are"),
    row(libc::SYS_fchmod, D, "what its owner forbade itself to read"),
    row(libc::SYS_fchmodat, D, "the same"),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_chmod, D, "the same by its older name"),
    row(libc::SYS_close_range, Z, "what a child does not keep"),
    row(libc::SYS_dup3, Z, "fixed numbers for what it keeps"),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_dup2, Z, "the same, and the engine's new /proc/self/pagemap in a child"),
    row(libc::SYS_memfd_create, OPEN, "images of a guest's first memory"),
    row(libc::SYS_ftruncate, OPEN, "the same, and the artifact's file"),
    row(libc::SYS_epoll_create1, OPEN, "the runtime, which is built before the seal"),
    row(libc::SYS_eventfd2, OPEN, "the same"),
    row(
        libc::SYS_socketpair,
        Z,
        "the same: what wakes it for signals; a spare child's control socket, and its own caller",
    ),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_poll, OPEN, "what the zygote waits for"),
    row(libc::SYS_ppoll, OPEN, "the same"),
    row(libc::SYS_wait4, Z, "children that ended"),
    row(libc::SYS_pidfd_open, Z, "children by a name that is never another's"),
    only(
        libc::SYS_kill,
        Z,
        &[&[Is(1, libc::SIGKILL as u64)]],
        "a child that nobody could watch, and a spare one that is not wanted",
    ),
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
            // The filter that answers is put up once, at the start.
            assert_eq!(row.absent & !row.who, 0, "{}", row.call);
        }
    }

    #[test]
    fn verdicts_are_of_all_conditions_together() {
        let of = |call: c_long| POLICY.iter().find(|row| row.call == call).unwrap();
        let memory = |protection: u64, flags: u64| [0, 4_096, protection, flags, u64::MAX, 0];
        let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let mmap = of(libc::SYS_mmap);
        for (stage, protection, flags, verdict) in [
            (Stage::Worker, READ_WRITE, private, Verdict::Made),
            (Stage::Worker, NO_ACCESS, private, Verdict::Made),
            (Stage::Worker, READ_WRITE | 1 << 32, private, Verdict::Made),
            (Stage::Worker, READ_WRITE | 4, private, Verdict::Forbidden),
            (Stage::Worker, 4, private, Verdict::Forbidden),
            (Stage::Worker, 1, private, Verdict::Forbidden),
            (Stage::Zygote, 5, private, Verdict::Made),
            (Stage::Zygote, READ_WRITE, UNCOUNTED, Verdict::Forbidden),
        ] {
            let came = mmap.verdict(stage, &memory(protection, flags));
            assert_eq!(came, verdict, "{stage:?} {protection:x} {flags:x}");
        }
        let sendmsg = of(libc::SYS_sendmsg);
        for stage in Stage::ALL {
            let to = |number: u64| sendmsg.verdict(stage, &[number, 0, 0, 0, 0, 0]);
            assert_eq!(to(CONTROL), Verdict::Made, "{stage:?}");
            let spare = if stage == Stage::Zygote { Verdict::Made } else { Verdict::Forbidden };
            assert_eq!(to(SPARE_CHILD), spare, "{stage:?}");
        }
        assert_eq!(of(libc::SYS_mremap).verdict(Stage::Worker, &[0; 6]), Verdict::Absent);
        assert_eq!(of(libc::SYS_openat).verdict(Stage::Compiler, &[0; 6]), Verdict::Absent);
        assert_eq!(of(libc::SYS_openat).verdict(Stage::Trial, &[0; 6]), Verdict::Forbidden);
    }
}
