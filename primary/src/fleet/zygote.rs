//! The client of the zygote: starts it, keeps it alive, and has it fork workers.
//!
//! The zygote is started before this process has a second thread or has read a secret. If it
//! dies, or gives no sign of life any more, its workers live on (this process is their subreaper)
//! and a new one is started; a fork that was under way fails as [`ZygoteError::Gone`] and is asked
//! for again by whoever wanted it, with another control socket: what the old one may have forked
//! all the same sees the end of its own and ends.
//!
//! Whether a worker is forked when it is asked for or before is the zygote's business, and makes no
//! difference here. What a worker does, and when one is wanted, is the supervisors' business.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_wire::{
    Birth, Cell, Channel, ExitStatus, Fingerprint, FromZygote, Given, ModuleDigest, SocketError,
    ToZygote, VERSION, Walls, pair, watch,
};
use rustix::process::{Signal, WaitIdOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::cgroups::Group;
use super::vigil::{Look, Vigil};
use crate::leftovers::Notes;
use crate::stderr::{self, Speaker};

/// Spare children that a zygote keeps at most. Each takes about as much memory as a worker that
/// is asleep between two calls.
pub const SPARES: u8 = 4;
/// Forks asked for and not yet sent. Each tenant has at most two.
const QUEUE: usize = 1_024;
/// From being spawned to having said hello: building the engine takes a few milliseconds.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Of what is asked before anything is served: a spare child that tries the walls runs something first.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Between two starts of a zygote, doubling from the first to the second.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long a dead worker's status may take to arrive. Longer than it takes to notice that its
/// zygote hangs, since it is had from the kernel then.
const STATUS_DEADLINE: Duration = Duration::from_secs(5);
/// How long what an ended zygote has said may take to be told.
const WORDS_DEADLINE: Duration = Duration::from_secs(1);
/// How long a zygote that was killed may take to be gone, and how often that is looked at.
const END_DEADLINE: Duration = Duration::from_secs(2);
const END_PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug, thiserror::Error)]
pub enum ZygoteError {
    #[error("the zygote could not be started")]
    Spawn(#[source] io::Error),
    #[error("the conversation with the zygote broke")]
    Socket(#[from] SocketError),
    #[error("the zygote sent an unexpected message: {0}")]
    Unexpected(String),
    #[error(
        "hearth-worker speaks version {theirs} and hearth speaks {VERSION}: install both from one build"
    )]
    Version { theirs: u32 },
    #[error("the zygote could not fork: {0}")]
    Fork(String),
    #[error("the zygote ended before it answered")]
    Gone,
    #[error("the zygote does not answer")]
    Hung,
}

/// A zygote's process and our end of its control socket.
pub struct Spawned {
    child: Child,
    socket: OwnedFd,
    errors: PipeReader,
}

impl Spawned {
    /// For those who wait: a host has the conversation within its runtime.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Tells what it has said on standard error, if it has.
    pub fn end(mut self) -> Option<String> {
        drop(self.socket);
        let _ = self.child.wait();
        stderr::quote_last(&self.errors)
    }
}

/// Starts a zygote. Plain posix_spawn: nothing runs between fork and exec, and nothing is
/// inherited but its control socket, which is its standard input, and a pipe for errors.
pub fn spawn(worker_program: &Path) -> io::Result<Spawned> {
    let (socket, theirs) = pair()?;
    let (errors, its_errors) = io::pipe()?;
    let child = Command::new(worker_program)
        .arg("zygote")
        .env_clear()
        // A second thread's own part of the heap would cost each worker time and memory.
        .env("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::from(its_errors))
        .spawn()?;
    Ok(Spawned { child, socket, errors })
}

/// What the zygote told of itself.
#[derive(Debug, Clone)]
pub struct Greeting {
    pub engines: Vec<Fingerprint>,
    pub pagemap_scan: bool,
    pub walls: Walls,
}

/// A forked worker.
#[derive(Debug)]
pub struct Forked {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub status: Status,
}

/// Will be a worker's exit status; dropped unsaid if its zygote dies first.
pub type Status = oneshot::Receiver<ExitStatus>;

/// What a fork takes: the worker's end of its control socket, its tenant's listener, its release,
/// the directory of its tenant's state, the pipe that is its standard error, and what is particular
/// about its walls.
pub struct Fork {
    pub control: OwnedFd,
    pub listener: Arc<OwnedFd>,
    pub release: Arc<OwnedFd>,
    /// `None` where it is to have none.
    pub state: Option<Arc<OwnedFd>>,
    pub errors: OwnedFd,
    pub cell: Cell,
    pub cgroup: Option<Arc<Group>>,
    /// When the connection or call was seen that it is for.
    pub noticed: Option<Instant>,
}

impl Fork {
    fn given(&self) -> (Vec<Given>, Vec<BorrowedFd<'_>>) {
        let given = [
            (Given::Control, self.control.as_fd()),
            (Given::Listener, self.listener.as_fd()),
            (Given::Release, self.release.as_fd()),
            (Given::Errors, self.errors.as_fd()),
        ];
        let state = self.state.iter().map(|state| (Given::State, state.as_fd()));
        let cgroups = self.cgroup.iter().flat_map(|group| &group.entries);
        let cgroups = cgroups.map(|entry| (Given::Cgroup, entry.as_fd()));
        given.into_iter().chain(state).chain(cgroups).unzip()
    }
}

/// What every fork is to hold: the bundle as JSON, and its modules' artifacts, each with the engine
/// that made it.
pub struct Bundled {
    pub json: OwnedFd,
    pub artifacts: Vec<(ModuleDigest, Fingerprint, OwnedFd)>,
    /// How many spare children a zygote keeps of it at most.
    pub spares: u8,
}

impl Bundled {
    fn message(&self) -> (ToZygote, Vec<BorrowedFd<'_>>) {
        let modules = self.artifacts.iter().map(|(sha256, engine, _)| (*sha256, *engine));
        let modules = modules.collect();
        let artifacts = self.artifacts.iter().map(|(_, _, artifact)| artifact.as_fd());
        let fds = std::iter::once(self.json.as_fd()).chain(artifacts);
        (ToZygote::Bundle { modules, spares: self.spares }, fds.collect())
    }
}

/// A fork that is asked for, and who waits for it.
struct Request(Fork, oneshot::Sender<Result<Forked, ZygoteError>>);

#[derive(Clone)]
pub struct Zygote {
    requests: mpsc::Sender<Request>,
}

/// Keeps a zygote alive; runs until every handle is gone.
pub struct Keeper {
    spawner: Spawner,
    requests: mpsc::Receiver<Request>,
    bundled: Option<Bundled>,
    conversation: Conversation,
    vigil: Vigil,
    orphans: Vec<Orphans>,
    notes: Arc<Notes>,
}

struct Conversation {
    channel: Channel,
    child: Child,
    /// Forks that were asked for, and who waits for them.
    forks: HashMap<u64, oneshot::Sender<Result<Forked, ZygoteError>>>,
    /// Who waits for the end of a worker.
    statuses: HashMap<i32, oneshot::Sender<ExitStatus>>,
    last_ticket: u64,
}

impl Zygote {
    /// Greets the zygote that was spawned first. Within a runtime.
    pub async fn greet(
        worker_program: &Path,
        spawned: Spawned,
        notes: Arc<Notes>,
    ) -> Result<(Self, Keeper, Greeting), ZygoteError> {
        let (conversation, greeting) = Conversation::begin(spawned, &notes).await?;
        let (sender, requests) = mpsc::channel(QUEUE);
        let keeper = Keeper {
            spawner: Spawner::new(worker_program).map_err(ZygoteError::Spawn)?,
            requests,
            bundled: None,
            conversation,
            vigil: Vigil::new(Instant::now()),
            orphans: Vec::new(),
            notes,
        };
        Ok((Self { requests: sender }, keeper, greeting))
    }

    pub async fn fork(&self, fork: Fork) -> Result<Forked, ZygoteError> {
        let (answer, answered) = oneshot::channel();
        let request = Request(fork, answer);
        self.requests.send(request).await.map_err(|_| ZygoteError::Gone)?;
        answered.await.map_err(|_| ZygoteError::Gone)?
    }
}

/// Waits until a worker is gone, and tells how it went, where that can be known.
pub async fn exit_of(pidfd: &AsyncFd<OwnedFd>, status: Status) -> Option<ExitStatus> {
    // An error here means that the runtime is going down, and with it every worker.
    drop(pidfd.readable().await.ok()?);
    if let Some(status) = adopted_status(pidfd.get_ref()) {
        return Some(status);
    }
    match tokio::time::timeout(STATUS_DEADLINE, status).await.ok()? {
        Ok(status) => Some(status),
        // Its zygote has ended meanwhile.
        Err(_) => adopted_status(pidfd.get_ref()),
    }
}

/// Reaps a worker that became this process's child when its zygote died.
fn adopted_status(pidfd: &OwnedFd) -> Option<ExitStatus> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
    let status = rustix::process::waitid(id, options).ok().flatten()?;
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(ExitStatus::Code(code)),
        (_, Some(signal)) => Some(ExitStatus::Signal(signal)),
        (None, None) => None,
    }
}

impl Keeper {
    pub async fn run(mut self) {
        let (mut pause, longest) = RESTART_PAUSE;
        loop {
            let started = Instant::now();
            let error = match self.serve().await {
                Ok(()) => {
                    // Its end of the socket closes with ours: it exits by itself.
                    return;
                }
                Err(error) => error,
            };
            warn!(error = &error as &dyn std::error::Error, "the zygote is gone");
            self.end().await;
            self.vigil = self.vigil.next(matches!(error, ZygoteError::Hung), Instant::now());
            if started.elapsed() > longest {
                pause = RESTART_PAUSE.0;
            }
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
                match self.restart().await {
                    Ok(()) => break info!("a new zygote serves"),
                    Err(error) => {
                        error!(
                            error = &error as &dyn std::error::Error,
                            "a new zygote could not be started"
                        );
                    }
                }
            }
        }
    }

    /// Ends the zygote, which may hang rather than be dead. Only then is told who waits for it, so
    /// that its workers are this process's children by then.
    async fn end(&mut self) {
        let Conversation { child, forks, statuses, .. } = &mut self.conversation;
        let _ = child.kill();
        let ended = async {
            while child.try_wait().is_ok_and(|ended| ended.is_none()) {
                tokio::time::sleep(END_PAUSE).await;
            }
        };
        if tokio::time::timeout(END_DEADLINE, ended).await.is_err() {
            warn!(pid = child.id(), "the zygote was killed and does not end");
        }
        forks.clear();
        statuses.clear();
        let group = nix::unistd::Pid::from_raw(child.id().cast_signed());
        self.orphans.push(Orphans { group, ended: None });
    }

    async fn restart(&mut self) -> Result<(), ZygoteError> {
        let spawned = self.spawner.spawn().await.map_err(ZygoteError::Spawn)?;
        let (conversation, _) = Conversation::begin(spawned, &self.notes).await?;
        self.conversation = conversation;
        self.vigil = self.vigil.next(false, Instant::now());
        if let Some(bundled) = &self.bundled {
            let (message, fds) = bundled.message();
            say(&self.conversation.channel, &mut self.vigil, &message, &fds).await?;
        }
        Ok(())
    }

    /// Until the zygote or every handle is gone.
    async fn serve(&mut self) -> Result<(), ZygoteError> {
        let Self { requests, conversation, vigil, orphans, .. } = self;
        let Conversation { channel, child, forks, statuses, last_ticket } = conversation;
        loop {
            tokio::select! {
                // What it has said counts before how long that took.
                biased;
                message = channel.recv::<FromZygote>() => {
                    let (message, mut fds) = message?.ok_or(ZygoteError::Gone)?;
                    match message {
                        FromZygote::Exited { .. } => vigil.heard(Instant::now()),
                        _ => vigil.answered(Instant::now()),
                    }
                    match message {
                        FromZygote::Forked { ticket, pid } => {
                            let Some(answer): Option<oneshot::Sender<_>> = forks.remove(&ticket) else { continue };
                            let (sender, status) = oneshot::channel();
                            statuses.insert(pid, sender);
                            let forked = fds.pop().map(|pidfd| Forked { pid, pidfd, status });
                            let forked = forked.ok_or(ZygoteError::Gone);
                            // Nobody waits any more: the worker ends with its control socket.
                            let _ = answer.send(forked);
                        }
                        FromZygote::ForkFailed { ticket, reason } => {
                            if let Some(answer) = forks.remove(&ticket) {
                                let _ = answer.send(Err(ZygoteError::Fork(reason)));
                            }
                        }
                        FromZygote::Exited { pid, status } => {
                            if let Some(waiting) = statuses.remove(&pid) {
                                let _ = waiting.send(status);
                            }
                        }
                        FromZygote::Bundled { failed } => tell_of_failed(failed),
                        FromZygote::Alive => {}
                        FromZygote::Hello { .. } | FromZygote::Tried { .. } => {
                            return Err(ZygoteError::Unexpected(format!("{message:?}")));
                        }
                    }
                }
                () = tokio::time::sleep_until(vigil.due().into()) => {
                    orphans.retain_mut(Orphans::reap);
                    match vigil.look(|| is_stopped(child.id())) {
                        Look::Ask => say(channel, vigil, &ToZygote::AreYouAlive, &[]).await?,
                        Look::Wait => {}
                        Look::Hung => return Err(ZygoteError::Hung),
                    }
                }
                request = requests.recv() => match request {
                    None => return Ok(()),
                    Some(Request(fork, answer)) => {
                        *last_ticket += 1;
                        let (given, fds) = fork.given();
                        let message = ToZygote::Fork { ticket: *last_ticket, cell: fork.cell, given };
                        forks.insert(*last_ticket, answer);
                        say(channel, vigil, &message, &fds).await?;
                        if let Some(noticed) = fork.noticed {
                            metrics::histogram!("hearth_spawn_seconds").record(noticed.elapsed());
                        }
                    }
                },
            }
        }
    }
}

/// Says what has an answer. Room for it is there but where the zygote has read nothing for long.
async fn say(
    channel: &Channel,
    vigil: &mut Vigil,
    message: &ToZygote,
    fds: &[BorrowedFd<'_>],
) -> Result<(), ZygoteError> {
    vigil.asked(Instant::now());
    let said = tokio::time::timeout_at(vigil.deadline().into(), channel.send(message, fds));
    Ok(said.await.map_err(|_| ZygoteError::Hung)??)
}

/// Whether somebody has stopped this process: see proc_pid_stat(5).
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with(['T', 't']))
}

/// The children of a zygote that is gone, which are this process's now. Whoever waits for one of
/// them has its status at its end; the rest are those that the zygote forked and did not tell of.
struct Orphans {
    /// A zygote leads a group of its own, and its workers can leave it nowhere.
    group: nix::unistd::Pid,
    /// One that had ended at the last look, and that nobody has asked after.
    ended: Option<nix::unistd::Pid>,
}

impl Orphans {
    /// Lets the kernel forget one that ended a look ago. Whether there are others left.
    fn reap(&mut self) -> bool {
        use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::PGid(self.group), flags) {
            Ok(status) => {
                let ended = status.pid();
                if ended.is_some() && ended == self.ended {
                    let _ = ended.map(|pid| waitpid(pid, Some(WaitPidFlag::WNOHANG)));
                }
                self.ended = ended;
                true
            }
            Err(errno) => errno != nix::errno::Errno::ECHILD,
        }
    }
}

impl Conversation {
    async fn begin(spawned: Spawned, notes: &Notes) -> Result<(Self, Greeting), ZygoteError> {
        let Spawned { mut child, socket, errors } = spawned;
        let telling = tokio::spawn(stderr::relay(errors, Speaker::zygote()));
        if let Err(error) = notes.note(child.id()) {
            // The next host will not know its workers by it.
            warn!(error = &error as &dyn std::error::Error, "a zygote could not be noted");
        }
        match greet(socket).await {
            Ok((channel, greeting)) => {
                let (forks, statuses) = (HashMap::new(), HashMap::new());
                Ok((Self { channel, child, forks, statuses, last_ticket: 0 }, greeting))
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let _ = tokio::time::timeout(WORDS_DEADLINE, telling).await;
                Err(error)
            }
        }
    }
}

async fn greet(socket: OwnedFd) -> Result<(Channel, Greeting), ZygoteError> {
    let channel = Channel::new(socket).map_err(SocketError::from)?;
    channel.send(&ToZygote::Hello { version: VERSION }, &[]).await?;
    let hello = tokio::time::timeout(HELLO_DEADLINE, channel.recv::<FromZygote>());
    let (hello, _) = hello.await.map_err(|_| ZygoteError::Hung)??.ok_or(ZygoteError::Gone)?;
    match hello {
        FromZygote::Hello { version: VERSION, engines, pagemap_scan, walls } => {
            Ok((channel, Greeting { engines, pagemap_scan, walls }))
        }
        FromZygote::Hello { version, .. } => Err(ZygoteError::Version { theirs: version }),
        other => Err(ZygoteError::Unexpected(format!("{other:?}"))),
    }
}

impl Keeper {
    /// Those of the zygote's that hold nothing, for others to join: the user namespace, which gives
    /// the right to the rest, first. One that is everybody's is not among them.
    pub fn namespaces(&self) -> io::Result<Vec<OwnedFd>> {
        let pid = self.conversation.child.id();
        let mut entered = Vec::new();
        for kind in ["user", "net", "ipc", "uts"] {
            let [own, its] = [format!("/proc/self/ns/{kind}"), format!("/proc/{pid}/ns/{kind}")];
            if fs::read_link(&own)? != fs::read_link(&its)? {
                entered.push(File::open(its)?.into());
            }
        }
        Ok(entered)
    }

    /// Has the zygote try from within a worker's walls what they must not allow, before anything
    /// is served. Tells how many attempts there were, and which were not kept in.
    pub async fn try_walls(
        &self,
        uid: Option<u32>,
        birth: Birth,
    ) -> Result<(u32, Vec<String>), ZygoteError> {
        match self.ask(&ToZygote::Try { uid, birth }, &[]).await? {
            FromZygote::Tried { attempts, escapes } => Ok((attempts, escapes)),
            other => Err(ZygoteError::Unexpected(format!("{other:?}"))),
        }
    }

    /// Has what comes with this build loaded, so that every fork holds it already, of this zygote and
    /// of those that follow it.
    pub async fn bundle(&mut self, bundled: Bundled) -> Result<(), ZygoteError> {
        let (message, fds) = bundled.message();
        match self.ask(&message, &fds).await? {
            FromZygote::Bundled { failed } => tell_of_failed(failed),
            other => return Err(ZygoteError::Unexpected(format!("{other:?}"))),
        }
        self.bundled = Some(bundled);
        Ok(())
    }

    /// Before there is anybody else who speaks with it.
    async fn ask(
        &self,
        question: &ToZygote,
        fds: &[BorrowedFd<'_>],
    ) -> Result<FromZygote, ZygoteError> {
        let channel = &self.conversation.channel;
        channel.send(question, fds).await?;
        let answer = tokio::time::timeout(ANSWER_DEADLINE, channel.recv::<FromZygote>());
        Ok(answer.await.map_err(|_| ZygoteError::Hung)??.ok_or(ZygoteError::Gone)?.0)
    }
}

fn tell_of_failed(failed: Vec<(ModuleDigest, String)>) {
    for (sha256, error) in failed {
        error!(%sha256, error, "what is bundled of this module is out of service");
    }
}

/// A thread that does nothing but start zygotes: a zygote asks to be killed with the *thread*
/// that started it, so that must not be one of the runtime's, which come and go.
struct Spawner {
    requests: std::sync::mpsc::Sender<oneshot::Sender<io::Result<Spawned>>>,
}

impl Spawner {
    fn new(worker_program: &Path) -> io::Result<Self> {
        let worker_program = PathBuf::from(worker_program);
        let (sender, requests) = std::sync::mpsc::channel::<oneshot::Sender<_>>();
        std::thread::Builder::new().name("zygote-spawner".to_owned()).spawn(move || {
            for answer in requests {
                let _ = answer.send(spawn(&worker_program));
            }
        })?;
        Ok(Self { requests: sender })
    }

    async fn spawn(&self) -> io::Result<Spawned> {
        let (answer, answered) = oneshot::channel();
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.requests.send(answer).map_err(|_| io::ErrorKind::BrokenPipe)?;
        answered.await.map_err(gone)?
    }
}

/// Watches a worker's pidfd within the runtime.
pub fn watch_pidfd(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watch(pidfd, Interest::READABLE)
}

/// Ends a worker at once. One that is gone already needs nothing.
pub fn kill(pidfd: &AsyncFd<OwnedFd>) {
    let _ = rustix::process::pidfd_send_signal(pidfd.get_ref(), Signal::KILL);
}

/// Makes this process the parent of workers whose zygote dies.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}
