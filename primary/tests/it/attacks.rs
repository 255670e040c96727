//! A native attacker: a worker that serves makes whatever system call somebody who runs code in it
//! would try. It gets nothing, and a try that is let happen is counted and ends it.

mod rows;
mod state;

use std::collections::BTreeMap;
use std::fs;

use nix::errno::Errno;
use nix::libc::{self, c_long};

use crate::captive::{Came, Captive};
use crate::guests;
use crate::host::{Host, Tenant};
use crate::processes::{Beside, eventually, is_alive};

const CONTROL: u64 = 0;
const LISTENER: u64 = 4;
const NONE: [u64; 6] = [0; 6];

/// What an attacker can point at and name.
struct Place {
    /// A caller's connection, in the worker.
    connection: u64,
    primary: u64,
    neighbour: u64,
    /// `struct sockaddr_in` of the front door.
    front: u64,
    /// `struct sockaddr` without a family: disconnects.
    nowhere: u64,
    /// `struct msghdr` with that address of the front door.
    message: u64,
    file: u64,
    program: u64,
    /// Zeroes.
    nothing: u64,
    /// How many bytes there are: four.
    length: u64,
    /// Of the worker's own: executable, and writable.
    code: u64,
    data: u64,
}

type Attack = (&'static str, c_long, fn(&Place) -> [u64; 6]);

const fn on(name: &'static str, call: c_long, arguments: fn(&Place) -> [u64; 6]) -> Attack {
    (name, call, arguments)
}

const FAST_OPEN: u64 = libc::MSG_FASTOPEN as u64;
const RWX: u64 = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as u64;
const RX: u64 = (libc::PROT_READ | libc::PROT_EXEC) as u64;
const ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const SHARED: u64 = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u64;
const GROWS: u64 = libc::MAP_GROWSDOWN as u64;
const HUGE: u64 = libc::MAP_HUGETLB as u64;
const NOBODY: u64 = u64::MAX;

/// Sockets: to make one, or to turn one that is there to somewhere else.
const NETWORK: &[Attack] = &[
    on("a TCP socket", libc::SYS_socket, |_| [2, 1, 0, 0, 0, 0]),
    on("a UDP socket", libc::SYS_socket, |_| [2, 2, 0, 0, 0, 0]),
    on("a UNIX socket", libc::SYS_socket, |_| [1, 1, 0, 0, 0, 0]),
    on("a netlink socket", libc::SYS_socket, |_| [16, 3, 0, 0, 0, 0]),
    on("a packet socket", libc::SYS_socket, |_| [17, 3, 0, 0, 0, 0]),
    on("a VSOCK socket", libc::SYS_socket, |_| [40, 1, 0, 0, 0, 0]),
    on("an MPTCP socket", libc::SYS_socket, |_| [2, 1, 262, 0, 0, 0]),
    on("a socket pair", libc::SYS_socketpair, |at| [1, 1, 0, at.nothing, 0, 0]),
    on("disconnecting a caller", libc::SYS_connect, |at| [at.connection, at.nowhere, 16, 0, 0, 0]),
    on("connecting it elsewhere", libc::SYS_connect, |at| [at.connection, at.front, 16, 0, 0, 0]),
    on("connecting the listener", libc::SYS_connect, |at| [LISTENER, at.front, 16, 0, 0, 0]),
    on("binding", libc::SYS_bind, |at| [at.connection, at.front, 16, 0, 0, 0]),
    on("listening", libc::SYS_listen, |at| [at.connection, 1, 0, 0, 0, 0]),
    on("sending to an address", libc::SYS_sendto, |at| {
        [at.connection, at.nothing, 1, 0, at.front, 16]
    }),
    on("fast open", libc::SYS_sendto, |at| [at.connection, at.nothing, 1, FAST_OPEN, at.front, 16]),
    on("fast open to nowhere", libc::SYS_sendto, |at| {
        [at.connection, at.nothing, 1, FAST_OPEN, 0, 0]
    }),
    on("a message to an address", libc::SYS_sendmsg, |at| {
        [at.connection, at.message, FAST_OPEN, 0, 0, 0]
    }),
    on("the number of a spare child's socket", libc::SYS_sendmsg, |at| [6, at.message, 0, 0, 0, 0]),
    on("fast open on the control socket", libc::SYS_sendmsg, |at| {
        [CONTROL, at.message, FAST_OPEN, 0, 0, 0]
    }),
    on("messages to addresses", libc::SYS_sendmmsg, |at| {
        [at.connection, at.message, 1, FAST_OPEN, 0, 0]
    }),
    on("descriptors from a caller", libc::SYS_recvmsg, |at| {
        [at.connection, at.message, 0, 0, 0, 0]
    }),
    on("many messages", libc::SYS_recvmmsg, |at| [CONTROL, at.message, 1, 0, 0, 0]),
    on("closing the listener for all", libc::SYS_shutdown, |_| [LISTENER, 2, 0, 0, 0, 0]),
    on("half of that", libc::SYS_shutdown, |_| [LISTENER, 0, 0, 0, 0, 0]),
    on("binding to a device", libc::SYS_setsockopt, |at| [LISTENER, 1, 25, at.nothing, 4, 0]),
    on("sharing its port", libc::SYS_setsockopt, |at| [LISTENER, 1, 15, at.nothing, 4, 0]),
    on("repairing TCP", libc::SYS_setsockopt, |at| [at.connection, 6, 19, at.nothing, 4, 0]),
    on("another protocol's layer", libc::SYS_setsockopt, |at| {
        [at.connection, 6, 31, at.nothing, 4, 0]
    }),
    on("a handle on who is at the other end", libc::SYS_getsockopt, |at| {
        [CONTROL, 1, 77, at.nothing, at.length, 0]
    }),
    on("mapping what comes in", libc::SYS_getsockopt, |at| {
        [at.connection, 6, 35, at.nothing, at.length, 0]
    }),
    on("listing interfaces", libc::SYS_ioctl, |at| [LISTENER, 0x8912, at.nothing, 0, 0, 0]),
    on("making the listener block", libc::SYS_ioctl, |at| [LISTENER, 0x5421, at.nothing, 0, 0, 0]),
    on("the same by its flags", libc::SYS_fcntl, |_| [LISTENER, 4, 0, 0, 0, 0]),
    on("an owner for its signals", libc::SYS_fcntl, |at| [LISTENER, 8, at.primary, 0, 0, 0]),
    on("typing into a terminal", libc::SYS_ioctl, |at| [2, 0x5412, at.nothing, 0, 0, 0]),
    on("the control socket's number", libc::SYS_close, |_| [CONTROL, 0, 0, 0, 0, 0]),
    on("a connection in its place", libc::SYS_dup2, |at| [at.connection, CONTROL, 0, 0, 0, 0]),
    on("the same anew", libc::SYS_dup3, |at| [at.connection, CONTROL, 0, 0, 0, 0]),
    on("a copy", libc::SYS_dup, |_| [LISTENER, 0, 0, 0, 0, 0]),
    on("a copy by a flag", libc::SYS_fcntl, |_| [LISTENER, 0, 0, 0, 0, 0]),
    on("closing all", libc::SYS_close_range, |_| [0, 100, 0, 0, 0, 0]),
    on("the older accept", libc::SYS_accept, |_| [LISTENER, 0, 0, 0, 0, 0]),
];

/// Other processes: to become one, make one, or reach one.
const PROCESSES: &[Attack] = &[
    on("another program", libc::SYS_execve, |at| [at.program, at.nothing, at.nothing, 0, 0, 0]),
    on("the same by descriptor", libc::SYS_execveat, |at| {
        [3, at.program, at.nothing, at.nothing, 0, 0]
    }),
    on("a child", libc::SYS_fork, |_| NONE),
    on("a child that borrows", libc::SYS_vfork, |_| NONE),
    on("a child by clone", libc::SYS_clone, |_| [17, 0, 0, 0, 0, 0]),
    on("a namespace with a thread", libc::SYS_clone, |_| [0x1000_0000 | 0x10000, 0, 0, 0, 0, 0]),
    on("a signal to the host", libc::SYS_kill, |at| [at.primary, 9, 0, 0, 0, 0]),
    on("a signal to everybody", libc::SYS_kill, |_| [NOBODY, 9, 0, 0, 0, 0]),
    on("a signal to a neighbour", libc::SYS_tgkill, |at| [at.neighbour, at.neighbour, 6, 0, 0, 0]),
    on("the same to a thread", libc::SYS_tkill, |at| [at.neighbour, 9, 0, 0, 0, 0]),
    on("a signal with data", libc::SYS_rt_sigqueueinfo, |at| {
        [at.neighbour, 9, at.nothing, 0, 0, 0]
    }),
    on("a handle on the host", libc::SYS_pidfd_open, |at| [at.primary, 0, 0, 0, 0, 0]),
    on("a signal by handle", libc::SYS_pidfd_send_signal, |_| [3, 9, 0, 0, 0, 0]),
    on("somebody's descriptor", libc::SYS_pidfd_getfd, |_| [3, 0, 0, 0, 0, 0]),
    on("tracing the host", libc::SYS_ptrace, |at| [16, at.primary, 0, 0, 0, 0]),
    on("tracing a neighbour", libc::SYS_ptrace, |at| [16, at.neighbour, 0, 0, 0, 0]),
    on("reading a neighbour", libc::SYS_process_vm_readv, |at| {
        [at.neighbour, at.nothing, 1, at.nothing, 1, 0]
    }),
    on("writing to a neighbour", libc::SYS_process_vm_writev, |at| {
        [at.neighbour, at.nothing, 1, at.nothing, 1, 0]
    }),
    on("advice on a neighbour's memory", libc::SYS_process_madvise, |at| {
        [3, at.nothing, 1, 4, 0, 0]
    }),
    on("a neighbour's limits", libc::SYS_prlimit64, |at| [at.neighbour, 7, at.nothing, 0, 0, 0]),
    on("its own limits", libc::SYS_prlimit64, |at| [0, 7, at.nothing, 0, 0, 0]),
    on("the same by its older name", libc::SYS_setrlimit, |at| [7, at.nothing, 0, 0, 0, 0]),
    on("its priority", libc::SYS_setpriority, |_| [0, 0, NOBODY, 0, 0, 0]),
    on("real time", libc::SYS_sched_setscheduler, |at| [0, 1, at.nothing, 0, 0, 0]),
    on("another core", libc::SYS_sched_setaffinity, |at| [0, 8, at.nothing, 0, 0, 0]),
    on("comparing with the host", libc::SYS_kcmp, |at| [at.primary, 0, 0, 0, 0, 0]),
    on("a session", libc::SYS_setsid, |_| NONE),
    on("who waits", libc::SYS_wait4, |_| [NOBODY, 0, 1, 0, 0, 0]),
];

/// Memory: code of its own, and memory of others.
const MEMORY: &[Attack] = &[
    on("memory for code", libc::SYS_mmap, |_| [0, 4_096, RWX, ANONYMOUS, NOBODY, 0]),
    on("code that is only read", libc::SYS_mmap, |_| [0, 4_096, RX, ANONYMOUS, NOBODY, 0]),
    on("memory that is only read", libc::SYS_mmap, |_| [0, 4_096, 1, ANONYMOUS, NOBODY, 0]),
    on("shared memory of its own", libc::SYS_mmap, |_| [0, 4_096, 3, SHARED, NOBODY, 0]),
    on("a stack that grows", libc::SYS_mmap, |_| [0, 4_096, 3, ANONYMOUS | GROWS, NOBODY, 0]),
    on("the machine's huge pages", libc::SYS_mmap, |_| {
        [0, 2 << 20, 3, ANONYMOUS | HUGE, NOBODY, 0]
    }),
    on("a caller's connection as memory", libc::SYS_mmap, |at| [0, 4_096, 1, 1, at.connection, 0]),
    on("pages like somebody else's", libc::SYS_madvise, |at| {
        [at.data & !4_095, 4_096, 12, 0, 0, 0]
    }),
    on("code out of data", libc::SYS_mprotect, |at| [at.data & !4_095, 4_096, RX, 0, 0, 0]),
    on("code that can be written", libc::SYS_mprotect, |at| [at.code, 4_096, RWX, 0, 0, 0]),
    on("the same with a key", libc::SYS_pkey_mprotect, |at| [at.code, 4_096, RWX, 0, 0, 0]),
    on("a file of memory", libc::SYS_memfd_create, |at| [at.nothing, 0, 0, 0, 0, 0]),
    on("a secret one", libc::SYS_memfd_secret, |_| NONE),
    on("shared memory", libc::SYS_shmget, |_| [0, 4_096, 0o1600, 0, 0, 0]),
    on("attaching it", libc::SYS_shmat, |_| NONE),
    on("a queue of messages", libc::SYS_msgget, |_| [0, 0o1600, 0, 0, 0, 0]),
    on("semaphores", libc::SYS_semget, |_| [0, 1, 0o1600, 0, 0, 0]),
    on("faults of its own", libc::SYS_userfaultfd, |_| NONE),
    on("pages in another order", libc::SYS_remap_file_pages, |at| [at.data, 4_096, 0, 0, 0, 0]),
    on("memory of another node", libc::SYS_migrate_pages, |at| [at.primary, 0, 0, 0, 0, 0]),
    on("locked memory", libc::SYS_mlockall, |_| [1, 0, 0, 0, 0, 0]),
    on("another personality", libc::SYS_personality, |_| [0x0040_0000, 0, 0, 0, 0, 0]),
    on("a segment of its own", libc::SYS_modify_ldt, |at| [1, at.nothing, 16, 0, 0, 0]),
    on("who tells of forbidden calls", libc::SYS_rt_sigaction, |at| {
        [libc::SIGSYS as u64, at.nothing, 0, 8, 0, 0]
    }),
];

/// Files, mounts and all that has a name.
const FILES: &[Attack] = &[
    on("a file of the host's", libc::SYS_open, |at| [at.file, 0, 0, 0, 0, 0]),
    on("the same from nowhere", libc::SYS_openat, |at| [NOBODY - 99, at.file, 0, 0, 0, 0]),
    on("the same anew", libc::SYS_openat2, |at| [NOBODY - 99, at.file, at.nothing, 24, 0, 0]),
    on("a new file", libc::SYS_creat, |at| [at.file, 0o600, 0, 0, 0, 0]),
    on("by handle", libc::SYS_open_by_handle_at, |at| [3, at.nothing, 0, 0, 0, 0]),
    on("what a file is", libc::SYS_stat, |at| [at.file, at.nothing, 0, 0, 0, 0]),
    on("whether it is there", libc::SYS_access, |at| [at.file, 0, 0, 0, 0, 0]),
    on("which file it runs", libc::SYS_readlink, |at| [at.program, at.nothing, 8, 0, 0, 0]),
    on("another directory", libc::SYS_chdir, |at| [at.file, 0, 0, 0, 0, 0]),
    on("another root", libc::SYS_chroot, |at| [at.file, 0, 0, 0, 0, 0]),
    on("another root of mounts", libc::SYS_pivot_root, |at| [at.file, at.file, 0, 0, 0, 0]),
    on("a mount", libc::SYS_mount, |at| [at.file, at.file, at.file, 0, 0, 0]),
    on("no mount", libc::SYS_umount2, |at| [at.file, 0, 0, 0, 0, 0]),
    on("a tree", libc::SYS_open_tree, |at| [NOBODY - 99, at.file, 1, 0, 0, 0]),
    on("a file system", libc::SYS_fsopen, |at| [at.file, 0, 0, 0, 0, 0]),
    on("a link", libc::SYS_link, |at| [at.file, at.file, 0, 0, 0, 0]),
    on("a symbolic link", libc::SYS_symlink, |at| [at.file, at.file, 0, 0, 0, 0]),
    on("another name", libc::SYS_rename, |at| [at.file, at.file, 0, 0, 0, 0]),
    on("no name", libc::SYS_unlink, |at| [at.file, 0, 0, 0, 0, 0]),
    on("a directory", libc::SYS_mkdir, |at| [at.file, 0o700, 0, 0, 0, 0]),
    on("a device", libc::SYS_mknod, |at| [at.file, 0o20_666, 0, 0, 0, 0]),
    on("other rights", libc::SYS_chmod, |at| [at.file, 0o4_755, 0, 0, 0, 0]),
    on("other rights of what is open", libc::SYS_fchmod, |_| [2, 0o4_755, 0, 0, 0, 0]),
    on("another owner", libc::SYS_fchown, |_| [2, 0, 0, 0, 0, 0]),
    on("watching files", libc::SYS_inotify_init1, |_| NONE),
    on("watching all files", libc::SYS_fanotify_init, |_| NONE),
    on("a lock on what is open", libc::SYS_flock, |_| [2, 2, 0, 0, 0, 0]),
    on("a pipe", libc::SYS_pipe2, |at| [at.nothing, 0, 0, 0, 0, 0]),
    on("a file into a socket", libc::SYS_sendfile, |at| [at.connection, 2, 0, 8, 0, 0]),
    on("a pipe into a socket", libc::SYS_splice, |at| [2, 0, at.connection, 0, 8, 0]),
];

/// The kernel and its rights.
const KERNEL: &[Attack] = &[
    on("root", libc::SYS_setuid, |_| NONE),
    on("root in all ways", libc::SYS_setresuid, |_| NONE),
    on("root's group", libc::SYS_setgid, |_| NONE),
    on("groups", libc::SYS_setgroups, |_| NONE),
    on("capabilities", libc::SYS_capset, |at| [at.nothing, at.nothing, 0, 0, 0, 0]),
    on("namespaces", libc::SYS_unshare, |_| [0x1000_0000, 0, 0, 0, 0, 0]),
    on("somebody's namespace", libc::SYS_setns, |_| [3, 0, 0, 0, 0, 0]),
    on("another filter", libc::SYS_seccomp, |at| [1, 0, at.nothing, 0, 0, 0]),
    on("the same by prctl", libc::SYS_prctl, |at| [22, 2, at.nothing, 0, 0, 0]),
    on("being readable", libc::SYS_prctl, |_| [4, 1, 0, 0, 0, 0]),
    on("being traced by anybody", libc::SYS_prctl, |_| [0x5961_6d61, NOBODY, 0, 0, 0, 0]),
    on("capabilities by prctl", libc::SYS_prctl, |_| [47, 2, 21, 0, 0, 0]),
    on("where its memory is", libc::SYS_prctl, |at| [35, 1, at.data, 0, 0, 0]),
    on("a BPF program", libc::SYS_bpf, |at| [5, at.nothing, 8, 0, 0, 0]),
    on("counting events", libc::SYS_perf_event_open, |at| [at.nothing, 0, 0, 0, 0, 0]),
    on("a ring", libc::SYS_io_uring_setup, |at| [1, at.nothing, 0, 0, 0, 0]),
    on("older asynchronous I/O", libc::SYS_io_setup, |at| [1, at.nothing, 0, 0, 0, 0]),
    on("keys", libc::SYS_keyctl, |_| NONE),
    on("a key", libc::SYS_add_key, |at| [at.file, at.file, 0, 0, 0, 0]),
    on("a key of somebody's", libc::SYS_request_key, |at| [at.file, at.file, 0, 0, 0, 0]),
    on("the kernel's log", libc::SYS_syslog, |_| [10, 0, 0, 0, 0, 0]),
    on("a kernel module", libc::SYS_init_module, |at| [at.nothing, 8, at.nothing, 0, 0, 0]),
    on("one from a file", libc::SYS_finit_module, |at| [3, at.nothing, 0, 0, 0, 0]),
    on("another kernel", libc::SYS_kexec_load, |_| NONE),
    on("a restart", libc::SYS_reboot, |_| [0xfee1_dead, 672_274_793, 0x89ab_cdef, 0, 0, 0]),
    on("the time", libc::SYS_clock_settime, |at| [0, at.nothing, 0, 0, 0, 0]),
    on("the time's pace", libc::SYS_adjtimex, |at| [at.nothing, 0, 0, 0, 0, 0]),
    on("the host's name", libc::SYS_sethostname, |at| [at.file, 4, 0, 0, 0, 0]),
    on("swap", libc::SYS_swapon, |at| [at.file, 0, 0, 0, 0, 0]),
    on("ports of the machine", libc::SYS_iopl, |_| [3, 0, 0, 0, 0, 0]),
    on("some ports", libc::SYS_ioperm, |_| [0, 8, 1, 0, 0, 0]),
    on("what the machine is", libc::SYS_uname, |at| [at.nothing, 0, 0, 0, 0, 0]),
    on("quotas", libc::SYS_quotactl, |at| [0, at.file, 0, 0, 0, 0]),
    on("a call that is none", 1_000, |_| NONE),
    on("a call of the other kind", 0x4000_0000 | libc::SYS_getpid, |_| NONE),
];

/// What a worker does all the time, so that the rest does not fail for another reason.
const ALLOWED: &[Attack] = &[
    on("who it is", libc::SYS_getpid, |_| NONE),
    on("memory", libc::SYS_mmap, |_| [0, 4_096, 3, ANONYMOUS, NOBODY, 0]),
    on("whether a socket blocks", libc::SYS_fcntl, |_| [LISTENER, 3, 0, 0, 0, 0]),
    on("how large its stack may be", libc::SYS_prlimit64, |at| [0, 3, 0, at.nothing, 0, 0]),
    on("nothing to send", libc::SYS_sendto, |at| [at.connection, at.nothing, 0, 0x40, 0, 0]),
];

fn mapping(pid: i32, rights: &str) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = maps.lines().find(|line| line.split(' ').nth(1) == Some(rights)).unwrap();
    u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap()
}

/// The highest socket that it has: a caller's, who came last.
fn connection_of(pid: i32) -> u64 {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let sockets = fds.filter(|fd| {
        fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
    });
    sockets.map(|fd| fd.file_name().to_str().unwrap().parse().unwrap()).max().unwrap()
}

fn assault(host: &Host, tenant: &Tenant, neighbour: i32) {
    let worker = host.workers(tenant)[0];
    let mut caller = tenant.open();
    let request = tenant.address().request("POST", "/one").bytes(&tenant.name);
    caller.send(&request).unwrap();
    caller.answer("POST").expect(200);
    let connection = connection_of(worker);
    let front = host.front.port().to_be_bytes();
    let captive = Captive::take(worker);
    let address = [2, 0, front[0], front[1], 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let front = captive.place(0, &address);
    let message: Vec<u8> =
        [front, 16, 0, 0, 0, 0, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
    let at = Place {
        connection,
        primary: host.pid() as u64,
        neighbour: neighbour as u64,
        front,
        nowhere: captive.place(64, &[0; 16]),
        message: captive.place(128, &message),
        file: captive.place(256, b"/etc/passwd\0"),
        program: captive.place(320, b"/proc/self/exe\0"),
        nothing: captive.place(512, &[0; 512]),
        length: captive.place(384, &4_u64.to_le_bytes()),
        code: mapping(worker, "r-xp"),
        data: mapping(worker, "rw-p"),
    };
    for (name, call, arguments) in ALLOWED {
        let came = captive.call(*call, arguments(&at));
        assert!(matches!(came, Came::Through(_)), "{name}: {came:?}");
    }
    let mut came_to = BTreeMap::new();
    for list in [NETWORK, PROCESSES, MEMORY, FILES, KERNEL] {
        for (name, call, arguments) in list {
            let came = captive.call(*call, arguments(&at));
            assert_eq!(came, Came::Forbidden, "{name}");
            *came_to.entry("forbidden").or_insert(0) += 1;
        }
    }
    // What its flags are cannot be seen, so that there is no such call.
    assert_eq!(captive.call(libc::SYS_clone3, NONE), Came::Refused(Errno::ENOSYS));
    drop(captive);
    println!("{came_to:?}");
    // It was let go as it was found, and nobody else has noticed anything.
    caller.send(&request).unwrap();
    caller.answer("POST").expect(200);
    assert_eq!(host.workers(tenant), [worker]);
    assert!(is_alive(neighbour) && is_alive(host.pid()));
}

/// A tenant whose worker was a spare child, where there are any.
fn deployed(host: &Host, name: &str, was_spare: bool) -> Tenant {
    let tenant = host.tenant(name);
    tenant.deploy("one", guests::version_one());
    if was_spare {
        host.serve_by_spare(&tenant);
    }
    tenant
}

/// Beside somebody who is called all the while.
fn attack(host: &Host, was_spare: bool) {
    let [tenant, neighbour] = ["demo", "beside"].map(|name| deployed(host, name, was_spare));
    let load = {
        let neighbour = neighbour.clone();
        Beside::run(move |answered| {
            neighbour.post("/one", "").expect(200);
            answered.insert(0_u64);
        })
    };
    let beside = host.workers(&neighbour)[0];
    assault(host, &tenant, beside);
    assert!(!load.stop().is_empty());
    assert_eq!(host.workers(&neighbour), [beside]);
}

const NO_SPARES: &[&str] = &["--spares", "0"];

#[test]
fn row_25_native_code_in_a_worker_gets_nothing() {
    attack(&Host::start(), true);
    attack(&Host::with(NO_SPARES), false);
}

#[test]
fn row_25_the_same_where_the_host_runs_as_an_ordinary_user() {
    attack(&Host::as_user(), true);
    attack(&Host::as_user_with(NO_SPARES), false);
}

/// At the levels below, of workers that were spare children.
#[test]
fn row_25_the_same_without_this_or_that_wall() {
    for lacks in ["unshare", "landlock_create_ruleset", "unshare,landlock_create_ruleset"] {
        attack(&Host::wrapped(&[&crate::jailed::without(), lacks], &[]), true);
    }
}

#[test]
fn a_forbidden_call_is_counted_and_ends_its_worker_alone() {
    let host = Host::start();
    let [tenant, neighbour] = ["demo", "beside"].map(|name| {
        let tenant = host.tenant(name);
        tenant.deploy("one", guests::version_one());
        tenant
    });
    let (worker, beside) = (host.workers(&tenant)[0], host.workers(&neighbour)[0]);
    Captive::take(worker).call_and_go(libc::SYS_socket, [2, 1, 0, 0, 0, 0]);
    eventually("its end", || (!is_alive(worker)).then_some(()));
    let counted = r#"hearth_sandbox_violations_total{tenant="demo",call="socket"}"#;
    eventually("the count", || (host.figure(counted) == 1).then_some(()));
    assert!(host.log().contains("sandbox violation"), "{}", host.log());
    let reason =
        eventually("the reason", || tenant.ask("/worker")["reason"].as_str().map(str::to_owned));
    assert_eq!(reason, "sandbox violation: it made the system call socket");
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
    assert_eq!(host.workers(&neighbour), [beside]);
}
