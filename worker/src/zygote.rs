//! The zygote: builds the engines once, loads what is ours, and from then on only
//! forks. One thread, no runtime, no random generator, no tenant's bytes: whatever it holds,
//! every worker holds.
//!
//! What a child does is [`crate::control`]'s; what ended children mean is the primary's.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use hearth_host::Handler;
use hearth_jail::{
    ATTEMPTS, Attempt, ChildEnd, Children, EXIT_ESCAPED, EXIT_VIOLATION, ForkError, Forked, Seal,
    Slots, Standing, WallError,
};
use hearth_schema::Checks;
use hearth_wire::{
    Bundle, Cell, ExitStatus, Fingerprint, FromZygote, ModuleDigest, SocketError, ToZygote,
    VERSION, Walls, complain,
};
use rustix::event::{PollFd, PollFlags, poll};

use crate::engines::Engines;
use crate::heap;

/// A child that was to try the walls and could not put them up.
const EXIT_UNFENCED: u8 = 1;

/// What a worker begins with.
pub struct Inherited {
    pub control: OwnedFd,
    pub listener: OwnedFd,
    pub release: OwnedFd,
    pub base: Base,
    /// To be closed once everything is loaded.
    pub seal: Seal,
    pub cell: hearth_jail::Cell,
    /// What the walls took that stand already.
    pub fenced_in: Duration,
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

/// Serves until the primary goes, which is `None`, or is a child that was just forked.
pub fn run() -> Result<Option<Inherited>, ZygoteError> {
    match serve() {
        Err(ZygoteError::Gone) => Ok(None),
        served => served,
    }
}

fn serve() -> Result<Option<Inherited>, ZygoteError> {
    let control = hearth_jail::take_stdin().map_err(ZygoteError::NoControl)?;
    let slots = Slots::reserve()?;
    let mut children = Children::watch()?;
    let standing = hearth_jail::fence_zygote()?;
    let seal = Seal::for_workers(standing.landlock.is_some())?;
    let ours = hearth_jail::open_now()?;
    let mut base = Base::new()?;
    hearth_connection::begin_calendar();
    let mut held = prepare_forks(&ours)?;
    loop {
        let mut watched =
            [PollFd::new(&control, PollFlags::IN), PollFd::new(&children, PollFlags::IN)];
        match poll(&mut watched, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
        let [spoken_to, _] = watched.map(|fd| !fd.revents().is_empty());
        while let Some((pid, end)) = children.reap()? {
            let status = match end {
                ChildEnd::Code(code) => ExitStatus::Code(code),
                ChildEnd::Signal(signal) => ExitStatus::Signal(signal),
            };
            hearth_wire::send(&control, &FromZygote::Exited { pid, status }, &[])?;
        }
        if !spoken_to {
            continue;
        }
        let Some((message, fds)) = hearth_wire::recv::<ToZygote>(&control)? else {
            return Ok(None);
        };
        match message {
            ToZygote::Hello { version: _ } => {
                // Told without a look at theirs: the primary refuses a mixture and says so.
                let hello = FromZygote::Hello {
                    version: VERSION,
                    engines: hearth_engine::fingerprints(),
                    pagemap_scan: hearth_engine::pagemap_scan_available(),
                    walls: walls(&standing),
                };
                hearth_wire::send(&control, &hello, &[])?;
            }
            ToZygote::Bundle { modules } => {
                let failed = base.take(modules, fds)?;
                held = prepare_forks(&ours)?;
                hearth_wire::send(&control, &FromZygote::Bundled { failed }, &[])?;
            }
            ToZygote::Fork { ticket, cell } => {
                let told = match hearth_jail::fork() {
                    Ok(Forked::Parent { pid, pidfd }) => {
                        let forked = FromZygote::Forked { ticket, pid };
                        hearth_wire::send(&control, &forked, &[pidfd.as_fd()])
                    }
                    Ok(Forked::Child) => {
                        children.forget()?;
                        return Ok(Some(settle(control, slots, fds, base, seal, held, cell)?));
                    }
                    Err(error) => {
                        let reason = explain::<ForkError>(&error);
                        hearth_wire::send(&control, &FromZygote::ForkFailed { ticket, reason }, &[])
                    }
                };
                told?;
            }
            ToZygote::Try { uid } => {
                let cell = Cell { uid, data_bytes: None };
                let mut escapes = Vec::new();
                for attempt in ATTEMPTS {
                    match hearth_jail::fork() {
                        Ok(Forked::Parent { pid, pidfd: _ }) => {
                            escapes.extend(what_escaped(attempt, hearth_jail::wait(pid)?));
                        }
                        Ok(Forked::Child) => match try_out(attempt, cell, &seal) {
                            Err(error) => {
                                complain(format_args!("hearth-worker: {}", explain(&error)));
                                hearth_jail::leave(EXIT_UNFENCED)
                            }
                        },
                        Err(error) => return Err(ZygoteError::Unexpected(explain(&error))),
                    }
                }
                let attempts = ATTEMPTS.len() as u32;
                hearth_wire::send(&control, &FromZygote::Tried { attempts, escapes }, &[])?;
            }
            ToZygote::AreYouAlive => hearth_wire::send(&control, &FromZygote::Alive, &[])?,
        }
    }
}

fn walls(standing: &Standing) -> Walls {
    let Standing { namespaces, uids, landlock } = standing.clone();
    Walls { namespaces, uids, landlock }
}

/// Tries one thing in a child, which is fenced in as a worker is.
fn try_out(attempt: &Attempt, cell: Cell, seal: &Seal) -> Result<Infallible, WallError> {
    fence(cell)?;
    // To nobody: the control socket is the zygote's.
    seal.close(|_, _| 0)?;
    let escapes = (attempt.escapes)();
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

/// In a child: the fixed numbers, nothing else open but what the engine holds, and its walls.
fn settle(
    mut control: OwnedFd,
    slots: Slots,
    mut fds: Vec<OwnedFd>,
    base: Base,
    seal: Seal,
    mut kept: BTreeSet<RawFd>,
    cell: Cell,
) -> Result<Inherited, ZygoteError> {
    let cgroups = fds.split_off(fds.len().min(4));
    let [own_control, listener, release, errors] = exactly(fds)?;
    kept.extend([0, 1, 2]);
    kept.extend(slots.numbers());
    // In the place of the zygote's, so that no worker can speak for it.
    hearth_jail::speak_to(errors)?;
    rustix::io::dup2(&own_control, &mut control).map_err(io::Error::from)?;
    let (listener, release) = slots.fill(listener, release)?;
    drop(own_control);
    let began = Instant::now();
    for entry in cgroups {
        // Itself. Before its user changes, and before it takes any memory.
        File::from(entry).write_all(b"0")?;
    }
    hearth_jail::keep_only(&kept)?;
    let cell = fence(cell)?;
    Ok(Inherited { control, listener, release, base, seal, cell, fenced_in: began.elapsed() })
}

fn fence(cell: Cell) -> Result<hearth_jail::Cell, WallError> {
    let Cell { uid, data_bytes } = cell;
    let cell = hearth_jail::Cell { uid, data_bytes };
    hearth_jail::fence_worker(cell)?;
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
    let ToZygote::Fork { ticket: _, cell } = message else {
        return Err(ZygoteError::Unexpected(format!("{message:?}")));
    };
    let [own_control, listener, release, errors] = exactly(fds)?;
    let mut control = starter;
    hearth_jail::speak_to(errors)?;
    rustix::io::dup2(&own_control, &mut control).map_err(io::Error::from)?;
    let (listener, release) = slots.fill(listener, release)?;
    let began = Instant::now();
    let cell = fence(cell)?;
    let fenced_in = began.elapsed();
    Ok(Some(Inherited { control, listener, release, base, seal, cell, fenced_in }))
}

fn exactly<const N: usize>(fds: Vec<OwnedFd>) -> Result<[OwnedFd; N], ZygoteError> {
    let wrong =
        |fds: Vec<_>| ZygoteError::Unexpected(format!("{} descriptors, not {N}", fds.len()));
    fds.try_into().map_err(wrong)
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
