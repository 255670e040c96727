//! The zygote: builds the engines once, loads what is ours, and from then on only
//! forks. One thread, no runtime, no random generator, no tenant's bytes: whatever it holds,
//! every worker holds. What draws keys of hash tables is done on a thread apart, since those of a
//! process's first thread would be every child's.
//!
//! A worker is forked when it is asked for, or is a spare child that was forked before: see
//! [`spares`]. What a child does is [`crate::control`]'s and, before it is anybody's,
//! [`crate::spare`]'s; what ended children mean is the primary's.

mod spares;
mod stock;

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use hearth_host::Handler;
use hearth_jail::{
    ATTEMPTS, Attempt, BornWith, ChildEnd, Children, EXIT_ESCAPED, EXIT_VIOLATION, ForkError,
    Forked, Mouthpiece, Seal, Slots, Standing, WallError,
};
use hearth_schema::Checks;
use hearth_wire::{
    self as wire, Birthright, Bundle, Cell, ExitStatus, Fingerprint, FromZygote, GivenError,
    ModuleDigest, SocketError, ToZygote, VERSION, Walls, complain,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::runtime::Runtime;

use crate::engines::Engines;
use crate::heap;
pub use spares::REASON_MAX_BYTES;
use spares::{Birth, Came, Ended, Order, Spares, Trial};

/// Of a file of the state that a child which tries the walls could make.
const TRIED_FILE_BYTES: u64 = 1 << 20;
/// A child that was to try the walls and could not put them up.
const EXIT_UNFENCED: u8 = 1;

/// What a worker begins with.
pub struct Inherited {
    pub control: OwnedFd,
    pub listener: OwnedFd,
    pub release: OwnedFd,
    /// Whether it has a directory for its tenant's state, at the number for that.
    pub has_state: bool,
    pub base: Base,
    /// To be closed once everything is loaded.
    pub seal: Seal,
    pub cell: hearth_jail::Cell,
    /// Where it was built before the worker was anybody's.
    pub runtime: Option<Runtime>,
    /// What the walls took that stand already.
    pub fenced_in: Duration,
}

/// What a child has that waits to be given: its number for the control socket, the end of the
/// socket that is to be there, and what it holds for its workers.
pub struct Newborn {
    pub control: OwnedFd,
    pub socket: OwnedFd,
    pub slots: Slots,
    pub base: Base,
    pub seal: Seal,
    pub kept: BTreeSet<RawFd>,
}

/// What has become of a zygote in its child.
pub enum Born {
    Worker(Inherited),
    /// One that is nobody's yet.
    Spare(Newborn),
}

/// What is the same for every worker: nothing of any tenant's.
pub struct Base {
    pub engines: Engines,
    /// What comes with this build.
    pub bundle: Bundle,
    /// What is mounted of it, loaded and linked once, however often.
    pub handlers: HashMap<ModuleDigest, Handler>,
}

#[derive(Debug, thiserror::Error)]
pub enum ZygoteError {
    #[error("standard input is not a control socket")]
    NoControl(#[source] io::Error),
    #[error("the control socket broke")]
    Socket(#[source] SocketError),
    #[error("the primary is gone")]
    Gone,
    #[error("the primary sent an unexpected message: {0}")]
    Unexpected(String),
    #[error("the primary sent other descriptors than a worker needs")]
    Given(#[from] GivenError),
    #[error(transparent)]
    Wall(#[from] WallError),
    #[error("the engine cannot be built")]
    Engine(#[source] wasmtime::Error),
    #[error("the bundle does not parse")]
    Bundle(#[source] serde_json::Error),
    #[error("a system call failed")]
    Io(#[from] io::Error),
}

impl From<SocketError> for ZygoteError {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Io(io) if io.kind() == io::ErrorKind::BrokenPipe => Self::Gone,
            error => Self::Socket(error),
        }
    }
}

impl Base {
    pub fn new() -> Result<Self, ZygoteError> {
        let engines = Engines::build().map_err(ZygoteError::Engine)?;
        Checks::prepare();
        Ok(Self { engines, bundle: Bundle::default(), handlers: HashMap::new() })
    }

    /// Tells which modules could not be had, and why.
    fn take(
        &mut self,
        modules: Vec<(ModuleDigest, Fingerprint)>,
        fds: Vec<OwnedFd>,
    ) -> Result<Vec<(ModuleDigest, String)>, ZygoteError> {
        let mut fds = fds.into_iter();
        let (bundle, artifacts) = (fds.next().map(File::from), fds);
        let (Some(mut bundle), true) = (bundle, artifacts.len() == modules.len()) else {
            return Err(ZygoteError::Unexpected("a bundle without its modules".to_owned()));
        };
        let mut json = Vec::new();
        // A zygote before this one may have read it.
        bundle.rewind()?;
        bundle.read_to_end(&mut json)?;
        self.bundle = serde_json::from_slice(&json).map_err(ZygoteError::Bundle)?;
        let mut failed = Vec::new();
        for ((sha256, engine), artifact) in modules.into_iter().zip(artifacts) {
            match self.engines.load(&File::from(artifact), engine) {
                Ok(handler) => drop(self.handlers.insert(sha256, handler)),
                Err(error) => failed.push((sha256, explain(&error))),
            }
        }
        Ok(failed)
    }
}

/// What is the same for all children is done before the first, after everything that changes it.
/// Gives the descriptors that the engine holds, which are theirs too.
fn prepare_forks(ours: &BTreeSet<RawFd>) -> io::Result<BTreeSet<RawFd>> {
    let open = hearth_jail::open_now()?;
    heap::fill_holes();
    Ok(open.difference(ours).copied().collect())
}

/// Serves until the primary goes, which is `None`, or is a child.
pub fn run() -> Result<Option<Born>, ZygoteError> {
    match serve() {
        Err(ZygoteError::Gone) => Ok(None),
        served => served,
    }
}

fn serve() -> Result<Option<Born>, ZygoteError> {
    let control = hearth_jail::take_stdin().map_err(ZygoteError::NoControl)?;
    let slots = Slots::reserve()?;
    let spares = Spares::new(Mouthpiece::reserve()?);
    let children = Children::watch()?;
    let standing = hearth_jail::fence_zygote()?;
    let seal = Seal::for_workers(standing.landlock.is_some())?;
    let ours = hearth_jail::open_now()?;
    let base = hearth_jail::apart(Base::new)??;
    hearth_connection::begin_calendar();
    let held = prepare_forks(&ours)?;
    let mut zygote = Zygote { control, slots, spares, children, standing, seal, ours, base, held };
    loop {
        match zygote.turn()? {
            Turn::Next => {}
            Turn::End => return Ok(None),
            Turn::Worker(order) => return zygote.settle(order).map(Born::Worker).map(Some),
            Turn::Spare(socket) => return zygote.into_newborn(socket).map(Born::Spare).map(Some),
        }
    }
}

struct Zygote {
    control: OwnedFd,
    slots: Slots,
    spares: Spares,
    children: Children,
    standing: Standing,
    seal: Seal,
    /// Descriptors that no child has.
    ours: BTreeSet<RawFd>,
    base: Base,
    /// Descriptors that each child has.
    held: BTreeSet<RawFd>,
}

/// What this process is after a turn: as a rule what it was before.
enum Turn {
    Next,
    End,
    /// A child, for this tenant.
    Worker(Order),
    /// A child, for nobody yet.
    Spare(OwnedFd),
}

impl Zygote {
    /// Waits for something, and does all that follows from it.
    fn turn(&mut self) -> Result<Turn, ZygoteError> {
        let Some(spoken_to) = self.wait()? else {
            // Only where nobody waits for anything.
            return Ok(match self.spares.settle(Instant::now()) {
                Birth::Parent => Turn::Next,
                Birth::Child(socket) => Turn::Spare(socket),
            });
        };
        let now = Instant::now();
        let mut came = self.spares.hear();
        came.extend(self.spares.look(now));
        for came in came {
            if let Some(order) = self.tell(came)? {
                return Ok(Turn::Worker(order));
            }
        }
        while let Some((pid, end)) = self.children.reap()? {
            let refused = match self.spares.ended(pid, end, now) {
                Some(Ended::Unused) => None,
                Some(Ended::Refused(order)) => self.fork(order)?,
                Some(Ended::Used(came)) => {
                    let refused = self.tell(came)?;
                    self.tell_end(pid, end)?;
                    refused
                }
                None => {
                    self.tell_end(pid, end)?;
                    None
                }
            };
            if let Some(order) = refused {
                return Ok(Turn::Worker(order));
            }
        }
        if spoken_to { self.hear() } else { Ok(Turn::Next) }
    }

    /// Whether the primary has said something; `None` where nobody has, and it is time for the next
    /// thing that nobody says.
    fn wait(&mut self) -> Result<Option<bool>, ZygoteError> {
        let now = Instant::now();
        let due = self.spares.due(now).map(|due| due.saturating_duration_since(now));
        let timeout = due.map(Timespec::try_from).transpose();
        let timeout = timeout.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let watched = [self.control.as_fd(), self.children.as_fd()].into_iter();
        let watched = watched.chain(self.spares.speaking());
        let mut watched: Vec<_> =
            watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match poll(&mut watched, timeout.as_ref()) {
            Ok(0) if self.spares.is_late(Instant::now()) => Ok(Some(false)),
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(!watched[0].revents().is_empty())),
            Err(rustix::io::Errno::INTR) => Ok(Some(false)),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }

    /// Tells the primary what came of an order, or does what was not done of it: in the child it is
    /// that child's.
    fn tell(&mut self, came: Came) -> Result<Option<Order>, ZygoteError> {
        match came {
            Came::Taken { ticket, pid, pidfd } => {
                let forked = FromZygote::Forked { ticket, pid };
                hearth_wire::send(&self.control, &forked, &[pidfd.as_fd()])?;
                Ok(None)
            }
            Came::Refused(order) => self.fork(order),
        }
    }

    fn tell_end(&self, pid: i32, end: ChildEnd) -> Result<(), ZygoteError> {
        let status = match end {
            ChildEnd::Code(code) => ExitStatus::Code(code),
            ChildEnd::Signal(signal) => ExitStatus::Signal(signal),
        };
        Ok(hearth_wire::send(&self.control, &FromZygote::Exited { pid, status }, &[])?)
    }

    /// Forks a worker; gives the order back in the child.
    fn fork(&mut self, order: Order) -> Result<Option<Order>, ZygoteError> {
        let ticket = order.ticket;
        match hearth_jail::fork() {
            Ok(Forked::Parent { pid, pidfd }) => {
                let forked = FromZygote::Forked { ticket, pid };
                hearth_wire::send(&self.control, &forked, &[pidfd.as_fd()])?;
            }
            Ok(Forked::Child) => return Ok(Some(order)),
            Err(error) => {
                let reason = explain::<ForkError>(&error);
                let failed = FromZygote::ForkFailed { ticket, reason };
                hearth_wire::send(&self.control, &failed, &[])?;
            }
        }
        Ok(None)
    }

    /// One message of the primary's.
    fn hear(&mut self) -> Result<Turn, ZygoteError> {
        let Some((message, fds)) = hearth_wire::recv::<ToZygote>(&self.control)? else {
            return Ok(Turn::End);
        };
        match message {
            ToZygote::Hello { version: _ } => {
                // Told without a look at theirs: the primary refuses a mixture and says so.
                let hello = FromZygote::Hello {
                    version: VERSION,
                    engines: hearth_engine::fingerprints(),
                    pagemap_scan: hearth_engine::pagemap_scan_available(),
                    walls: walls(&self.standing),
                };
                hearth_wire::send(&self.control, &hello, &[])?;
            }
            ToZygote::Bundle { modules, spares } => {
                // Those of the bundle before.
                self.spares.renew(0);
                let failed = hearth_jail::apart(|| self.base.take(modules, fds))??;
                self.held = prepare_forks(&self.numbers_of_ours())?;
                hearth_wire::send(&self.control, &FromZygote::Bundled { failed }, &[])?;
                self.spares.renew(spares.into());
            }
            ToZygote::Fork { ticket, cell, given } => {
                let order = Order { ticket, cell, given, fds };
                if let Err(order) = self.spares.give(order, Instant::now())
                    && let Some(order) = self.fork(order)?
                {
                    return Ok(Turn::Worker(order));
                }
            }
            ToZygote::Try { uid, birth } => {
                let cell = Cell { uid, data_bytes: None };
                let tried = match birth {
                    wire::Birth::Forked => self.try_forked(cell)?,
                    wire::Birth::Spare => match self.try_spares(cell)? {
                        Tried::Parent { attempts, escapes } => (attempts, escapes),
                        Tried::Child(socket) => return Ok(Turn::Spare(socket)),
                    },
                };
                let (attempts, escapes) = tried;
                hearth_wire::send(&self.control, &FromZygote::Tried { attempts, escapes }, &[])?;
            }
            ToZygote::AreYouAlive => hearth_wire::send(&self.control, &FromZygote::Alive, &[])?,
        }
        Ok(Turn::Next)
    }

    /// Those that were open before the engine was built, and what holds the spare children.
    fn numbers_of_ours(&self) -> BTreeSet<RawFd> {
        self.ours.iter().copied().chain(self.spares.numbers()).collect()
    }

    fn try_forked(&self, cell: Cell) -> Result<(u32, Vec<String>), ZygoteError> {
        let mut escapes = Vec::new();
        for (number, attempt) in (0..).zip(ATTEMPTS) {
            match hearth_jail::fork() {
                Ok(Forked::Parent { pid, pidfd: _ }) => {
                    escapes.extend(what_escaped(attempt, hearth_jail::wait(pid)?));
                }
                Ok(Forked::Child) => {
                    hearth_jail::begin_worker();
                    match try_attempt(number, cell, &self.seal) {
                        Err(error) => {
                            complain(format_args!("hearth-worker: {}", explain(&error)));
                            hearth_jail::leave(EXIT_UNFENCED)
                        }
                    }
                }
                Err(error) => return Err(ZygoteError::Unexpected(explain(&error))),
            }
        }
        Ok((ATTEMPTS.len() as u32, escapes))
    }

    /// The same by children that are warmed and given as spare ones are: all of them at once, since
    /// each runs something first.
    fn try_spares(&mut self, cell: Cell) -> Result<Tried, ZygoteError> {
        let (mut attempts, mut escapes) = (0, Vec::new());
        if self.spares.most() == 0 {
            return Ok(Tried::Parent { attempts, escapes });
        }
        let (began, mut trials) = (Instant::now(), Vec::new());
        for (number, attempt) in (0..).zip(ATTEMPTS) {
            match self.spares.trial(number, cell) {
                Ok(Trial::Parent(child)) => trials.push((attempt, child)),
                Ok(Trial::Child(socket)) => return Ok(Tried::Child(socket)),
                Err(error) => return Err(ZygoteError::Unexpected(explain(&error))),
            }
        }
        for (attempt, child) in trials {
            match spares::end_of_trial(&child, began)? {
                Err(reason) => self.spares.close(&reason),
                Ok(end) => {
                    attempts += 1;
                    escapes.extend(what_escaped(attempt, end));
                }
            }
        }
        Ok(Tried::Parent { attempts, escapes })
    }

    /// In a child: the fixed numbers, nothing else open but what the engine holds, and its walls.
    fn settle(self, order: Order) -> Result<Inherited, ZygoteError> {
        let Self { control, slots, spares, children, base, seal, held: mut kept, .. } = self;
        children.forget()?;
        drop(spares);
        kept.extend([0, 1, 2]);
        kept.extend(slots.numbers());
        hearth_jail::begin_worker();
        let Order { ticket: _, cell, given, fds } = order;
        let birthright = Birthright::of(&given, fds)?;
        let entered = enter(control, slots, birthright, cell, Some(&kept), None)?;
        Ok(entered.with(base, seal, None))
    }

    fn into_newborn(self, socket: OwnedFd) -> Result<Newborn, ZygoteError> {
        let Self { control, slots, spares, children, base, seal, held: kept, .. } = self;
        children.forget()?;
        drop(spares);
        Ok(Newborn { control, socket, slots, base, seal, kept })
    }
}

enum Tried {
    Parent { attempts: u32, escapes: Vec<String> },
    Child(OwnedFd),
}

fn walls(standing: &Standing) -> Walls {
    let Standing { namespaces, uids, landlock } = standing.clone();
    Walls { namespaces, uids, landlock }
}

/// Tries one thing in a child, which is fenced in as a worker is.
pub fn try_attempt(number: u32, cell: Cell, seal: &Seal) -> Result<Infallible, WallError> {
    fence(cell, None)?;
    hearth_jail::stand_in_for_state().map_err(WallError::stand_in)?;
    // To nobody: the control socket is the zygote's.
    seal.close(seal.bears_state().then_some(TRIED_FILE_BYTES), |_, _| 0)?;
    let attempt = ATTEMPTS.get(number as usize);
    let escapes = attempt.is_none_or(|attempt| (attempt.escapes)());
    hearth_jail::leave(if escapes { EXIT_ESCAPED } else { 0 })
}

/// Refused with an error, or ended by the report of it: everything else is no wall, or no trial.
fn what_escaped(attempt: &Attempt, end: ChildEnd) -> Option<String> {
    match end {
        ChildEnd::Code(code) if code == 0 || code == i32::from(EXIT_VIOLATION) => None,
        ChildEnd::Code(code) if code == i32::from(EXIT_ESCAPED) => Some(attempt.name.to_owned()),
        other => Some(format!("{} ended the process with {other:?}", attempt.name)),
    }
}

/// What a worker has once it is somebody's.
pub struct Entered {
    control: OwnedFd,
    listener: OwnedFd,
    release: OwnedFd,
    has_state: bool,
    cell: hearth_jail::Cell,
    fenced_in: Duration,
}

impl Entered {
    pub fn with(self, base: Base, seal: Seal, runtime: Option<Runtime>) -> Inherited {
        let Self { control, listener, release, has_state, cell, fenced_in } = self;
        Inherited { control, listener, release, has_state, base, seal, cell, runtime, fenced_in }
    }
}

/// Takes what came for a tenant: the fixed numbers, where it says what goes wrong, its cgroups and its
/// walls. Nothing else stays open but what is `kept`, if that is not so already.
pub fn enter(
    mut control: OwnedFd,
    slots: Slots,
    birthright: Birthright,
    cell: Cell,
    kept: Option<&BTreeSet<RawFd>>,
    born_with: Option<BornWith>,
) -> Result<Entered, ZygoteError> {
    let Birthright { control: own_control, listener, release, errors, state, cgroups } = birthright;
    let has_state = state.is_some();
    // In the place of the zygote's, so that no worker can speak for it.
    hearth_jail::speak_to(errors)?;
    rustix::io::dup2(&own_control, &mut control).map_err(io::Error::from)?;
    let (listener, release) = slots.fill(state, listener, release)?;
    drop(own_control);
    let began = Instant::now();
    // One thread enters them, of however many there are.
    hearth_jail::alone()?;
    for entry in cgroups {
        // Itself. Before its user changes, and before it takes any memory.
        File::from(entry).write_all(b"0")?;
    }
    if let Some(kept) = kept {
        hearth_jail::keep_only(kept)?;
    }
    let cell = fence(cell, born_with)?;
    Ok(Entered { control, listener, release, has_state, cell, fenced_in: began.elapsed() })
}

fn fence(cell: Cell, born_with: Option<BornWith>) -> Result<hearth_jail::Cell, WallError> {
    let Cell { uid, data_bytes } = cell;
    let cell = hearth_jail::Cell { uid, data_bytes };
    hearth_jail::fence_worker(cell, born_with)?;
    Ok(cell)
}

/// A worker without a zygote: the one message that would have been a fork's makes this process
/// the worker.
pub fn exec() -> Result<Option<Inherited>, ZygoteError> {
    let starter = hearth_jail::take_stdin().map_err(ZygoteError::NoControl)?;
    let slots = Slots::reserve()?;
    let standing = hearth_jail::fence_lone_worker()?;
    let seal = Seal::for_workers(standing.landlock.is_some())?;
    let base = Base::new()?;
    hearth_connection::begin_calendar();
    let Some((message, fds)) = hearth_wire::recv::<ToZygote>(&starter)? else { return Ok(None) };
    let ToZygote::Fork { ticket: _, cell, given } = message else {
        return Err(ZygoteError::Unexpected(format!("{message:?}")));
    };
    hearth_jail::begin_worker();
    let birthright = Birthright::of(&given, fds)?;
    let entered = enter(starter, slots, birthright, cell, None, None)?;
    Ok(Some(entered.with(base, seal, None)))
}

/// An error with its causes, for a message.
pub fn explain<E: std::error::Error>(error: &E) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
