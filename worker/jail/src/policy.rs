//! Which system calls each program may make, as data: one row a call, with its reason.
//!
//! Whoever is not named in a row may not make the call. A program goes through two stages: it is
//! *open* while it starts (the zygote all its life), and *sealed* before the first byte of a
//! stranger's is looked at. Sealed, nothing can become executable, no file can be opened but beneath
//! its state directory, and no socket made, connected or taken over.

use nix::libc::{self, c_long};

/// A stage of a program, as a bit in [`Row::who`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The zygote, and a worker until all its code is loaded.
    Zygote = 1,
    /// A worker that serves, and may have a state.
    Worker = 2,
    /// The compiler, from its start.
    Compiler = 4,
    /// The compiler once it runs what it has compiled.
    Trial = 8,
    /// What moves a tenant's files, from its start.
    Tree = 16,
    /// A worker that serves where the kernel has no Landlock: a filter cannot read a path, so that
    /// nothing would keep it to its state directory, and it has none.
    Bare = 32,
    /// What moves a tenant's files once it opens its databases.
    Copier = 64,
}

impl Stage {
    pub const ALL: [Self; 7] = [
        Self::Zygote,
        Self::Worker,
        Self::Compiler,
        Self::Trial,
        Self::Tree,
        Self::Bare,
        Self::Copier,
    ];

    /// The stage that a program was in before it was sealed to be this; `None` where it begins so.
    pub fn opened(self) -> Option<Self> {
        match self {
            Self::Zygote | Self::Compiler | Self::Tree => None,
            Self::Worker | Self::Bare => Some(Self::Zygote),
            Self::Trial => Some(Self::Compiler),
            Self::Copier => Some(Self::Tree),
        }
    }

    /// Whether a row's conditions for programs that are sealed hold here.
    pub fn is_sealed(self) -> bool {
        self.opened().is_some()
    }
}

const Z: u8 = Stage::Zygote as u8;
const W: u8 = Stage::Worker as u8;
const C: u8 = Stage::Compiler as u8;
const T: u8 = Stage::Trial as u8;
const D: u8 = Stage::Tree as u8;
const B: u8 = Stage::Bare as u8;
const K: u8 = Stage::Copier as u8;
const OPEN: u8 = Z | C;
const ALL: u8 = Z | W | C | T | D | B | K;
const SERVING: u8 = Z | W | B;
const FILES: u8 = OPEN | D;
/// Who has files of a state open, and who becomes one of them.
const STATEFUL: u8 = W | K;
const TO_STATEFUL: u8 = Z | D;
const SEALED: u8 = W | T | B | K;

pub struct Row {
    pub call: c_long,
    pub who: u8,
    /// Only with such arguments, in every stage. Of these lists, and those that its stage has
    /// besides, one must hold whole.
    pub only: &'static [&'static [Test]],
    /// With such arguments in those stages alone. A seal takes away what is not of the stage that it
    /// leads to.
    pub also: &'static [(u8, &'static [Test])],
    /// Never with such arguments in those stages, to which a seal leads: none of these lists may hold
    /// whole.
    pub never: &'static [(u8, &'static [Test])],
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
        self.lists(stage).next().is_none() && self.refused(stage).next().is_none()
    }

    /// With which arguments alone it may make the call, where that is asked: of these lists one must
    /// hold whole.
    pub fn lists(&self, stage: Stage) -> impl Iterator<Item = &'static [Test]> {
        self.only.iter().copied().chain(of(stage, self.also))
    }

    /// With which arguments it may not make it, though they are among those: none of these lists may
    /// hold whole.
    pub fn refused(&self, stage: Stage) -> impl Iterator<Item = &'static [Test]> {
        of(stage, self.never)
    }

    /// What a seal from one stage to another takes away of the arguments.
    pub fn taken(&self, open: Stage, sealed: Stage) -> impl Iterator<Item = &'static [Test]> {
        let lost = self
            .also
            .iter()
            .filter(move |(stages, _)| stages & open as u8 != 0 && stages & sealed as u8 == 0);
        lost.map(|(_, tests)| *tests).chain(self.refused(sealed))
    }

    /// Of the call with these arguments.
    pub fn verdict(&self, stage: Stage, arguments: &[u64; 6]) -> Verdict {
        let all = |tests: &[Test]| tests.iter().all(|test| test.holds(arguments));
        let is_one_of_them = self.lists(stage).next().is_none() || self.lists(stage).any(all);
        let never = self.refused(stage).any(all);
        match self.is_of(stage) && is_one_of_them && !never {
            false => Verdict::Forbidden,
            true if self.is_absent(stage) => Verdict::Absent,
            true => Verdict::Made,
        }
    }
}

fn of(
    stage: Stage,
    lists: &'static [(u8, &'static [Test])],
) -> impl Iterator<Item = &'static [Test]> {
    lists.iter().filter(move |(stages, _)| stages & stage as u8 != 0).map(|(_, tests)| *tests)
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

const fn never(
    call: c_long,
    who: u8,
    never: &'static [(u8, &'static [Test])],
    why: &'static str,
) -> Row {
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
const STREAMS_LAST: u64 = 2;
/// The state directory: the number behind the streams'.
const STATE: u64 = crate::files::STATE as u64;
const PLACE: u64 = libc::O_PATH as u64;
/// Which kind of mapping it is, and what no limit counts of one that is a file's.
const MAPPING: u64 = libc::MAP_TYPE as u64
    | libc::MAP_ANONYMOUS as u64
    | libc::MAP_GROWSDOWN as u64
    | libc::MAP_HUGETLB as u64;
const SHARED: u64 = libc::MAP_SHARED as u64;

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
        &[(T | B, &[UpTo(0, STREAMS_LAST)]), (STATEFUL, &[UpTo(0, STATE)])],
        "connections that end; once sealed neither the control socket nor the state directory, \
         whose numbers are trusted below",
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
        also: &[(Z, &[Is(0, SPARE_CHILD), Bits(2, FAST_OPEN, 0)])],
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
        never: &[
            (T | B, &[Not(1, libc::F_GETFL as u64), Not(1, libc::F_GETFD as u64)]),
            (
                STATEFUL,
                &[
                    Not(1, libc::F_GETFL as u64),
                    Not(1, libc::F_GETFD as u64),
                    Not(1, libc::F_GETLK as u64),
                    Not(1, libc::F_SETLK as u64),
                    Not(1, libc::F_OFD_SETLKW as u64),
                ],
            ),
        ],
        absent: 0,
        why: "copies closed on exec; once sealed only to see whether a socket would block, and for \
              SQLite's locks and turns at a database, which nobody else's files have",
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
        // No memory of its own: a shared mapping of no file is not this, and the files of memory that
        // it has are sealed against writing.
        also: &[(TO_STATEFUL | STATEFUL, &[Is(2, READ_WRITE), Bits(3, MAPPING, SHARED)])],
        never: &[(SEALED, &[Not(2, NO_ACCESS), Not(2, READ_WRITE)])],
        absent: 0,
        why: "memory of its own, which is never executable once sealed; and the index of a \
              database's log, a file of the state that two generations share",
    },
    never(
        libc::SYS_mprotect,
        ALL,
        &[(SEALED, &[Not(2, NO_ACCESS), Not(2, READ_WRITE)])],
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
        never: &[(SEALED, &[Bits(0, THREAD, 0)])],
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
        &[(SEALED, &[Is(0, libc::SIGSYS as u64)])],
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
        never: &[(SEALED, &[Given(2), Not(1, libc::RLIMIT_NPROC as u64)])],
        absent: 0,
        why: "its own limits; once sealed only to read how large a thread's stack is to be, and to \
              have fewer threads",
    },
    // The compiler has what it needs open, and asks for names where its libraries look for the
    // machine's: whatever these are, it gets on without. Who is sealed and has files of a state
    // comes to them by the directory's number. That a path is relative cannot be seen here: an
    // absolute one leads nowhere in an empty root, and nothing that it leads to is opened or removed
    // past Landlock.
    Row {
        call: libc::SYS_openat,
        who: FILES | STATEFUL,
        only: &[],
        also: &[],
        never: &[
            (STATEFUL, &[Not(0, STATE)]),
            // Never as a mere place, which Landlock would let it have.
            (STATEFUL, &[Bits(2, PLACE, PLACE)]),
        ],
        absent: C,
        why: "artifacts, /proc/self; a tenant's files; once sealed those of the state directory",
    },
    #[cfg(target_arch = "x86_64")]
    absent(libc::SYS_open, OPEN, C, "the same by its older name"),
    Row {
        call: libc::SYS_newfstatat,
        who: FILES | STATEFUL,
        only: &[],
        also: &[],
        never: &[(STATEFUL, &[Not(0, STATE)])],
        absent: C,
        why: "the same, and what they are, of which Landlock has no say: where the root is the \
              host's, an absolute path tells of what any user may look at",
    },
    row(libc::SYS_fstat, FILES | STATEFUL, "how large they are"),
    absent(libc::SYS_statx, FILES, C, "the same"),
    row(libc::SYS_lseek, FILES, "where they are read"),
    row(libc::SYS_pread64, FILES | STATEFUL, "the same; a database's pages"),
    row(
        libc::SYS_pwrite64,
        TO_STATEFUL | STATEFUL,
        "the same, written; whatever else it has open cannot be written at a place, or is its own",
    ),
    row(
        libc::SYS_fsync,
        TO_STATEFUL | STATEFUL,
        "what is acknowledged, and the names of new files",
    ),
    absent(libc::SYS_readlinkat, OPEN, C, "which file a descriptor is"),
    #[cfg(target_arch = "x86_64")]
    absent(libc::SYS_readlink, OPEN, C, "the same by its older name"),
    row(
        libc::SYS_getdents64,
        Z | D,
        "which descriptors are open, how many threads there are; what is in a directory",
    ),
    row(libc::SYS_mkdirat, D, "directories that are unpacked"),
    Row {
        call: libc::SYS_unlinkat,
        who: TO_STATEFUL | STATEFUL,
        only: &[],
        also: &[(Z | W, &[Is(0, STATE)])],
        never: &[(K, &[Not(0, STATE)])],
        absent: 0,
        why: "files that are removed; a worker's those of its state directory, where Landlock lets it \
              remove no directory",
    },
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
    row(
        libc::SYS_ftruncate,
        OPEN | TO_STATEFUL | STATEFUL,
        "the same, and the artifact's file; once sealed databases, their logs and their indexes. It \
         takes any number, and of what else a worker has open nothing can be cut: sockets and pipes \
         have no size, artifacts are open for reading alone, and the images are sealed against it",
    ),
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
    row(libc::SYS_seccomp, OPEN | D, "the seal"),
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
            for sealed in Stage::ALL {
                let Some(open) = sealed.opened() else { continue };
                assert!(!row.is_of(sealed) || row.is_of(open), "{}", row.call);
                // A list that only the sealed have could be held by nobody.
                let lists = |stage| row.lists(stage).count();
                assert!(lists(sealed) <= lists(open), "{} {sealed:?}", row.call);
            }
            for (stages, _) in row.never {
                assert_eq!(stages & !SEALED, 0, "{}", row.call);
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
