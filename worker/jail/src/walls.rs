//! The walls around each kind of process, in the order in which they go up. The order matters: a
//! limit must stand before the right to raise it is gone, what drops a right comes before what
//! forbids asking for it, and whatever needs a file comes before Landlock.
//!
//! ```text
//!  zygote    session ─ end with parent ─ offer ─ limits ─ namespaces ─ capabilities ─ no new privileges ─ filter
//!    ├ spare    as nobody's, until it is given: then as the next
//!    └ worker   limits ─ own user ─ no capability ─ not dumpable │ code is loaded │ Landlock ─ seal
//!  compiler  limits ─ namespaces (mounts) ─ own user ─ no capability ─ … ─ Landlock ─ filter │ compiled │ seal
//!  tree      limits ─ namespaces ─ own user ─ no capability ─ … ─ Landlock ─ filter │ files │ seal │ databases
//! ```
//!
//! The floor is what every kernel since 5.13 gives everybody: without the filter nothing starts.
//! What more a machine offers is used and told ([`Standing`]); what it means for people is the
//! primary's to say.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::{fs, io};

use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::{Mode, umask};
use rustix::thread::CapabilitySet;
use seccompiler::BpfProgram;

use crate::files::STATE;
use crate::filters::{self, Encode, FilterError};
use crate::memory::Offer;
use crate::policy::Stage;
use crate::process::threads;
use crate::{landlock, namespaces, scheduling, users};

/// Descriptors of a worker: a thousand connections, an artifact for each function, and some.
const WORKER_DESCRIPTORS: u64 = 4_096;
/// Compiling strangers' code can be made expensive; this is what it may cost.
const COMPILER_DATA_BYTES: u64 = 2 << 30;
const COMPILER_CPU_SECONDS: u64 = 120;
const COMPILER_DESCRIPTORS: u64 = 64;
const COMPILER_FILE_BYTES: u64 = 1 << 30;
/// What moves a tenant's files holds one of them at a time.
const TREE_DATA_BYTES: u64 = 64 << 20;
const TREE_CPU_SECONDS: u64 = 3_600;
const TREE_DESCRIPTORS: u64 = 64;
/// Threads of one tenant's user. More than its workers need, since other hosts of the machine may
/// have given that user as well; where there are cgroups, they allow less.
const USERS_THREADS: u64 = 512;

#[derive(Debug, thiserror::Error)]
pub enum WallError {
    #[error("{wall} could not be set up")]
    Os { wall: &'static str, source: io::Error },
    #[error("Landlock could not be set up")]
    Landlock(#[source] ::landlock::RulesetError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("this process has {0} threads, and its walls would hold for one of them")]
    Threads(u64),
}

impl WallError {
    /// What a trial of the walls could not be given.
    pub fn stand_in(source: io::Error) -> Self {
        Self::Os { wall: "a directory in the place of a state", source }
    }
}

/// Names the wall that an error is about.
fn wall<E: Into<io::Error>>(wall: &'static str) -> impl FnOnce(E) -> WallError {
    move |error| WallError::Os { wall, source: error.into() }
}

/// What this machine offers beyond the filter, which always stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Why there are no namespaces, where there are none.
    pub namespaces: Result<(), String>,
    /// Whether each worker can have a user of its own.
    pub uids: bool,
    /// The version of the kernel's Landlock.
    pub landlock: Option<u32>,
}

/// What is particular about one worker's walls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cell {
    /// Where the zygote can give one.
    pub uid: Option<u32>,
    /// Private memory that it may write to, beyond what it is born with, where no cgroup bounds all
    /// of it.
    pub data_bytes: Option<u64>,
}

impl Cell {
    /// Whether neither cgroups nor a user of its own bound its threads, which the kernel counts
    /// with everybody's of the host's user then: it starts those that it needs and ends with
    /// [`no_more_threads`].
    pub fn shares_threads(&self) -> bool {
        self.uid.is_none() && self.data_bytes.is_some()
    }
}

/// From here on this process can start neither a thread nor another process, and can have no right
/// to. It is no limit for root, whom the kernel does not count.
pub fn no_more_threads() -> Result<(), WallError> {
    Limit::Threads(0).set()
}

/// Around the zygote, and through it around each worker. Before it has a second thread or a
/// descriptor besides its control socket.
pub fn fence_zygote() -> Result<Standing, WallError> {
    alone()?;
    settle_library();
    own_session()?;
    // Its workers do not inherit this: a zygote that dies takes none of them with it.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(wall("ending with the primary"))?;
    Offer::Zygote.make();
    scheduling::take_short_turns();
    private_files();
    Limit::CoreBytes(0).set()?;
    Limit::Descriptors(WORKER_DESCRIPTORS).set()?;
    let namespaces = namespaces::enter().map_err(|error| error.to_string());
    close_zygote(namespaces)
}

/// The rest of it: no right but to give workers users of their own, and the first filter.
fn close_zygote(namespaces: Result<(), String>) -> Result<Standing, WallError> {
    // In a user namespace it has all rights, over nothing but that.
    let users = users::can_change_user() && in_first_namespace();
    let kept = if users { users::TO_CHANGE_USER } else { NONE };
    users::keep_capabilities(kept).map_err(wall("dropping capabilities"))?;
    prctl::set_no_new_privs().map_err(wall("no new privileges"))?;
    begin(Stage::Zygote)?;
    Ok(Standing { namespaces, uids: users, landlock: landlock::version() })
}

const NONE: CapabilitySet = CapabilitySet::empty();

/// The filters that a program begins with.
fn begin(stage: Stage) -> Result<(), FilterError> {
    filters::apply(&filters::absent(stage)?)?;
    filters::apply(&filters::open(stage)?)
}

/// The same for a worker that is started without a zygote, which nothing but its control socket
/// ties to its primary: without namespaces, since its release is read by paths of the host.
pub fn fence_lone_worker() -> Result<Standing, WallError> {
    alone()?;
    settle_library();
    Offer::Worker.make();
    scheduling::take_short_turns();
    private_files();
    Limit::CoreBytes(0).set()?;
    Limit::Descriptors(WORKER_DESCRIPTORS).set()?;
    let namespaces = Err("a worker without a zygote has none".to_owned());
    close_zygote(namespaces)
}

/// What a worker's walls have that is the same whoever's it will be.
pub fn begin_worker() {
    // While the file is its own.
    Offer::Worker.make();
    private_files();
}

/// The memory of this process that [`Cell::data_bytes`] does not count.
#[derive(Debug, Clone, Copy)]
pub struct BornWith(u64);

impl BornWith {
    pub fn now() -> Result<Self, WallError> {
        Ok(Self(data_bytes().map_err(wall("its own memory's size"))?))
    }
}

/// Does this with so many seconds of a processor at most, beyond which the process is ended by a
/// signal. Afterwards it may have as many as before.
pub fn with_cpu_seconds<T>(most: u64, work: impl FnOnce() -> T) -> Result<T, WallError> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_CPU).map_err(wall("a limit"))?;
    setrlimit(Resource::RLIMIT_CPU, most.min(soft), hard).map_err(wall("a limit"))?;
    let done = work();
    setrlimit(Resource::RLIMIT_CPU, soft, hard).map_err(wall("a limit"))?;
    Ok(done)
}

/// Around a worker that was just forked or given to a tenant, before it reads its first message.
/// With what it was born with, where that was not just now.
pub fn fence_worker(cell: Cell, born_with: Option<BornWith>) -> Result<(), WallError> {
    alone()?;
    if let Some(bytes) = cell.data_bytes {
        let BornWith(born_with) = born_with.map_or_else(BornWith::now, Ok)?;
        Limit::DataBytes(born_with.saturating_add(bytes)).set()?;
    }
    if cell.uid.is_some() {
        Limit::Threads(USERS_THREADS).set()?;
    }
    become_nobody_else(cell.uid)?;
    // After the user was changed, which sets it anew. Others of the same user cannot trace it; its
    // own descriptor for `/proc/self/pagemap` is open and goes on working.
    prctl::set_dumpable(false).map_err(wall("being unreadable"))
}

/// What goes up around a process by its first thread goes up around that thread alone.
pub fn alone() -> Result<(), WallError> {
    match threads().map_err(wall("being alone"))? {
        1 => Ok(()),
        more => Err(WallError::Threads(more)),
    }
}

/// What this process has of the memory that `RLIMIT_DATA` bounds. Most of it is the engine's stacks
/// and pools, which nobody has written to yet. See proc_pid_statm(5).
fn data_bytes() -> io::Result<u64> {
    let sizes = fs::read_to_string("/proc/self/statm")?;
    let pages = sizes.split_whitespace().nth(5).and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or(io::ErrorKind::InvalidData)?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// The seal around workers, built once in the zygote.
pub struct Seal {
    filter: BpfProgram,
    landlock: bool,
}

impl Seal {
    pub fn for_workers(landlock: bool) -> Result<Self, WallError> {
        let sealed = if landlock { Stage::Worker } else { Stage::Bare };
        Ok(Self { filter: filters::seal(sealed)?, landlock })
    }

    /// Whether who is behind it can have a state: without Landlock nothing would keep it to that.
    pub fn bears_state(&self) -> bool {
        self.landlock
    }

    /// Closes a worker when all its code is loaded and its runtime is built, and before it has
    /// seen a byte of a stranger's. One that has a state keeps that, with files of so many bytes at
    /// most. A forbidden call is told by `encode`.
    pub fn close(&self, state: Option<u64>, encode: Encode) -> Result<(), WallError> {
        alone()?;
        filters::report_with(encode)?;
        match state.filter(|_| self.landlock) {
            Some(most) => {
                // Whoever writes more is told by the call, which is how SQLite learns of it.
                ignore_large_files().map_err(wall("writing as much as there is room for"))?;
                // Files of memory are counted too: those of a guest's first one are made by now.
                Limit::FileBytes(most).set()?;
                // SAFETY: the number is taken before anything is opened, and nobody may close it.
                let state = unsafe { BorrowedFd::borrow_raw(STATE) };
                landlock::deny_all_but_state(state).map_err(WallError::Landlock)?;
            }
            None if self.landlock => landlock::deny_everything().map_err(WallError::Landlock)?,
            None => {}
        }
        Ok(filters::apply(&self.filter)?)
    }
}

fn ignore_large_files() -> nix::Result<()> {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is put in.
    unsafe { sigaction(Signal::SIGXFSZ, &ignore) }.map(drop)
}

/// Around the compiler, which may read and write what it was given open and nothing else. It joins
/// these namespaces, where there are some, in place of making its own. A forbidden call is told by
/// `encode`.
pub fn fence_compiler(
    user: Option<u32>,
    namespaces: &[OwnedFd],
    encode: Encode,
) -> Result<(), WallError> {
    Offer::Compiler.make();
    private_files();
    for limit in [
        Limit::CoreBytes(0),
        Limit::DataBytes(COMPILER_DATA_BYTES),
        Limit::CpuSeconds(COMPILER_CPU_SECONDS),
        Limit::Descriptors(COMPILER_DESCRIPTORS),
        Limit::FileBytes(COMPILER_FILE_BYTES),
    ] {
        limit.set()?;
    }
    take_rights(user, namespaces)?;
    die_of_faults().map_err(wall("the end by a fault"))?;
    filters::report_with(encode)?;
    if landlock::version().is_some() {
        landlock::deny_everything().map_err(WallError::Landlock)?;
    }
    Ok(begin(Stage::Compiler)?)
}

/// A stack that is used up is told by the signal, and not by the language's own report, which
/// looks like any other end of a program that gives up.
fn die_of_faults() -> nix::Result<()> {
    let usual = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for fault in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: no handler is put in, one is taken away.
        unsafe { sigaction(fault, &usual) }?;
    }
    Ok(())
}

/// Closes the compiler, with all its threads, before it runs what it has compiled.
pub fn seal_compiler() -> Result<(), WallError> {
    Ok(filters::apply_to_all(&filters::seal(Stage::Trial)?)?)
}

/// Around what packs, unpacks and removes a tenant's files. It comes to these by the descriptor of
/// their directory alone, and has no other right over them than whoever it runs as.
pub fn fence_tree(user: Option<u32>, directory: BorrowedFd<'_>) -> Result<(), WallError> {
    Offer::Tree.make();
    private_files();
    for limit in [
        Limit::CoreBytes(0),
        Limit::DataBytes(TREE_DATA_BYTES),
        Limit::CpuSeconds(TREE_CPU_SECONDS),
        Limit::Descriptors(TREE_DESCRIPTORS),
    ] {
        limit.set()?;
    }
    take_rights(user, &[])?;
    no_more_threads()?;
    // Where it cannot be had, files of others are closed by users and the empty root alone.
    landlock::deny_all_but(directory).map_err(WallError::Landlock)?;
    Ok(begin(Stage::Tree)?)
}

/// Closes what moves a tenant's files before it opens its databases, which are strangers' bytes to
/// SQLite. No file that it makes is larger than this.
pub fn seal_tree(most: u64) -> Result<(), WallError> {
    ignore_large_files().map_err(wall("writing as much as there is room for"))?;
    Limit::FileBytes(most).set()?;
    Ok(filters::apply(&filters::seal(Stage::Copier)?)?)
}

/// What goes up around each one-shot once its limits stand.
fn take_rights(user: Option<u32>, others: &[OwnedFd]) -> Result<(), WallError> {
    // Where there are none, the others stand: what the machine lacks is told of the zygote.
    let _ = namespaces::enter_beside(others);
    become_nobody_else(user)?;
    prctl::set_no_new_privs().map_err(wall("no new privileges"))?;
    prctl::set_dumpable(false).map_err(wall("being unreadable"))
}

/// That user, where one is given, and without any right besides.
fn become_nobody_else(user: Option<u32>) -> Result<(), WallError> {
    if let Some(user) = user {
        users::become_user(user).map_err(wall("a user of its own"))?;
    }
    users::keep_capabilities(NONE).map_err(wall("dropping capabilities"))
}

/// A session of its own, so that a key pressed at the host's terminal reaches the host alone.
fn own_session() -> Result<(), WallError> {
    match nix::unistd::setsid() {
        // It leads a group already, which keeps the terminal's keys away as well.
        Ok(_) | Err(nix::Error::EPERM) => Ok(()),
        Err(errno) => Err(wall("a session of its own")(errno)),
    }
}

/// What the C library would look for in files later on, where they must not be opened: what the local
/// time is, which is the world's here, and whether memory of another thread's own heap can be given
/// back, of which there is none.
fn settle_library() {
    // SAFETY: both names end with a zero, and there is no other thread, which could read the
    // environment or have a heap.
    unsafe {
        libc::setenv(c"TZ".as_ptr(), c"UTC0".as_ptr(), 1);
        tzset();
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

unsafe extern "C" {
    /// See tzset(3).
    fn tzset();
}

/// Files are made for their owner only.
fn private_files() {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
}

/// Whether the process is of the host's own user namespace: in another, more users than its own
/// are not to be had.
fn in_first_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2).and_then(|count| count.parse::<u64>().ok()).is_some_and(|n| n > 1)
}

/// What a process may take at most. Never raises what it was given.
#[derive(Debug, Clone, Copy)]
enum Limit {
    CoreBytes(u64),
    DataBytes(u64),
    CpuSeconds(u64),
    Descriptors(u64),
    FileBytes(u64),
    /// Of this process's user, with the processes. Nothing for root.
    Threads(u64),
}

impl Limit {
    fn set(self) -> Result<(), WallError> {
        let (resource, most) = match self {
            Self::CoreBytes(most) => (Resource::RLIMIT_CORE, most),
            Self::DataBytes(most) => (Resource::RLIMIT_DATA, most),
            Self::CpuSeconds(most) => (Resource::RLIMIT_CPU, most),
            Self::Descriptors(most) => (Resource::RLIMIT_NOFILE, most),
            Self::FileBytes(most) => (Resource::RLIMIT_FSIZE, most),
            Self::Threads(most) => (Resource::RLIMIT_NPROC, most),
        };
        let set = getrlimit(resource).and_then(|(_, hard)| {
            let most = most.min(hard);
            setrlimit(resource, most, most)
        });
        set.map_err(wall("a limit"))
    }
}
