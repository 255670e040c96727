//! One tenant's supervisor: performs what the [`Life`] decides and brings back what came of it.
//!
//! The only writer of its tenant's state. Everything that happens arrives in its inbox, so that
//! nothing is decided in two places. Others read a snapshot, and use the links of the current
//! worker without asking. Owns the tenant's listener, its parked connections, the control sockets
//! of its workers and the tasks that serve them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use hearth_wire::{
    Cell, Channel, EXIT_STARVED, ExitStatus, FromWorker, Generation, Limits, Moment, Outcome,
    Passing, Respite, Start, ToWorker, TokenGrant, VERSION, pair,
};
use jiff::Timestamp;
use rustix::net::sockopt;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::cgroups::Group;
use super::conversation::{Conversation, Nonsense};
use super::lifecycle::{Action, Door, Event, Life, Phase, Swap, Swapped, WorkerId};
use super::links::{Links, Outgoing};
use super::parking::{Connection, Entries, Parking};
use super::sockets::{Heard, Key, Watch};
use super::status::{WorkerState, WorkerStatus};
use super::zygote::{self, Fork, Forked, ZygoteError};
use super::{Cause, FleetError, Shared, SwapError, Unavailable, Visit, sockets};
use crate::descriptors::is_shortage;
use crate::fail::{self, Point};
use crate::isolation::Level;
use crate::patience::LAST_LOOK;
use crate::release::Prepared;
use crate::stderr::{self, Speaker};
use crate::store::Tenant;
use crate::telemetry;

/// Commands of one tenant that wait for its supervisor.
const INBOX: usize = 256;
/// Messages that wait for one worker to read them.
const OUTGOING: usize = 512;
/// Callers through the gateway that wait for a worker at once.
const WAITERS_MAX: usize = 1_024;
/// Connections taken at once from a listener whose tenant is refused, and how many of them are
/// being told so.
const TURNED_MAX: usize = 64;
/// After the kernel had no descriptor for a connection: they wait in its queue meanwhile.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// Between two questions whether a worker lives, and how long it may take to answer. It has one
/// thread, which nothing of ours keeps for more than some milliseconds, and a busy machine for
/// seconds at most.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How often one fork is asked for where zygotes die over it.
const FORK_TRIES: u32 = 5;
/// Doors of one worker. One is opened when the one before is broken, or its end still to come.
const DOORS_MAX: usize = 4;
/// Of what a worker gives as its reason.
const REASON_MAX_BYTES: usize = 1 << 10;
/// How long a worker may take to apply new tokens before it is ended.
const TOKENS_DEADLINE: Duration = Duration::from_secs(5);
/// How long a dead worker's last words may take to read, and how long one may live on that does
/// not speak to us any more.
const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(2);

pub type Commit = BoxFuture<'static, Result<(), String>>;
pub type Answer<T> = oneshot::Sender<T>;

/// Small: every tenant's inbox has room for some from the start, and most tenants sleep.
pub enum Command {
    /// Links into a worker that serves, starting one if need be.
    Wake(Answer<Result<Arc<Links>, Unavailable>>),
    /// Without a commit: the same generation again.
    Swap(Generation, Option<Commit>, Answer<Result<Duration, SwapError>>),
    /// The tenant's port first, where it is not had yet.
    Listen(Answer<Result<(), FleetError>>),
    Start(Answer<Result<(), FleetError>>),
    Stop(Answer<Result<(), FleetError>>),
    /// Answered when every live worker goes by these.
    Tokens(Vec<TokenGrant>, Answer<()>),
    /// Answered when what calls wrote that were answered before is in the hands of the logs.
    Report(Answer<()>),
    /// Finish what runs, then end.
    Shutdown,
    /// There is no more time for that.
    Hurry,
    /// End soon: the tenant is being removed.
    Remove,
    /// A connection from the front door that speaks. It comes back where no worker can have it.
    Give(Box<Connection>, Answer<Result<(), Box<Connection>>>),
    FromWorker(WorkerId, Box<FromWorker>),
    /// Connections that a worker is done with.
    PassedOn(WorkerId, Vec<(OwnedFd, Passing)>),
    Forked(WorkerId, Box<Result<Newborn, StartError>>),
    Exited(WorkerId, String),
    Committed(Result<(), String>),
}

/// Why no process came of a start.
pub enum StartError {
    /// The release cannot be had: it counts like a death, since trying again changes nothing.
    Release(String),
    /// The zygote or the kernel, or what is missing of either; not the tenant's doing.
    Host(String),
}

pub struct Newborn {
    forked: Forked,
    channel: Channel,
    tokens: u64,
    permit: OwnedSemaphorePermit,
}

/// What others may know without asking.
#[derive(Clone)]
pub struct Snapshot {
    pub status: WorkerStatus,
    pub links: Option<Arc<Links>>,
}

struct Live {
    pid: i32,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    outgoing: mpsc::Sender<Outgoing>,
    links: Arc<Links>,
    /// The newest tokens that it has confirmed.
    tokens: u64,
    /// The newest report that it was asked for and has made.
    reported: u64,
    /// Held until it is ready, so that few workers start at once.
    starting: Option<OwnedSemaphorePermit>,
    /// Why we ended it, where we did.
    killed: Option<String>,
}

struct SwapAsked {
    commit: Option<Commit>,
    answer: Answer<Result<Duration, SwapError>>,
    at: Instant,
}

/// What is asked of workers is asked once at a time, however many wait for it.
#[derive(Default)]
struct Reports {
    /// Of the newest question.
    serial: u64,
    /// Who waits for the answers to it.
    asked: Vec<Answer<()>>,
    /// Who came later, and waits for the next one.
    next: Vec<Answer<()>>,
}

struct TokensAsked {
    serial: u64,
    deadline: Instant,
    answer: Answer<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    Shutdown,
    Remove,
}

pub struct Supervisor {
    tenant: Tenant,
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Command>,
    to_self: mpsc::Sender<Command>,
    snapshot: watch::Sender<Snapshot>,
    life: Life,
    /// `None` while another program has the port.
    listener: Option<(Key, Arc<OwnedFd>)>,
    heard: Arc<Heard>,
    armed: bool,
    /// Until when nothing is taken from the listener, since the kernel had no descriptor for it.
    short_until: Option<Instant>,
    parking: Parking,
    /// Places of those that are being told to come later.
    turned: Arc<Semaphore>,
    live: HashMap<WorkerId, Live>,
    /// Being forked, with the tokens that they were given.
    forking: HashMap<WorkerId, u64>,
    doomed: HashSet<WorkerId>,
    waiters: Vec<Answer<Result<Arc<Links>, Unavailable>>>,
    /// When the call that is being woken for was noticed.
    woken_at: Option<Instant>,
    swap: Option<SwapAsked>,
    grants: Vec<TokenGrant>,
    tokens: u64,
    tokens_asked: Vec<TokensAsked>,
    reports: Reports,
    /// Answered once what follows from the stop can be seen.
    stop_asked: Vec<Answer<Result<(), FleetError>>>,
    last_end: Option<String>,
    ending: Ending,
    /// When it was noticed that a worker is late.
    noticed_late: Option<Instant>,
    tasks: JoinSet<()>,
}

/// How to reach a supervisor.
#[derive(Clone)]
pub struct Handle {
    pub inbox: mpsc::Sender<Command>,
    pub snapshot: watch::Receiver<Snapshot>,
}

impl Supervisor {
    pub fn new(tenant: Tenant, grants: Vec<TokenGrant>, shared: Arc<Shared>) -> (Self, Handle) {
        let (to_self, inbox) = mpsc::channel(INBOX);
        let life = Life::new(tenant.generation);
        let first = Snapshot { status: status_of(&life, shared.isolation), links: None };
        let (snapshot, seen) = watch::channel(first);
        let handle = Handle { inbox: to_self.clone(), snapshot: seen };
        let heard = Arc::new(Heard::default());
        let parking = Parking::new(shared.sockets.clone(), heard.clone());
        let supervisor = Self {
            tenant,
            shared,
            inbox,
            to_self,
            snapshot,
            life,
            listener: None,
            heard,
            armed: false,
            short_until: None,
            parking,
            turned: Arc::new(Semaphore::new(TURNED_MAX)),
            live: HashMap::new(),
            forking: HashMap::new(),
            doomed: HashSet::new(),
            waiters: Vec::new(),
            woken_at: None,
            swap: None,
            grants,
            tokens: 1,
            tokens_asked: Vec::new(),
            reports: Reports::default(),
            stop_asked: Vec::new(),
            last_end: None,
            ending: Ending::No,
            noticed_late: None,
            tasks: JoinSet::new(),
        };
        (supervisor, handle)
    }

    /// Gives it the listener that was bound for the tenant; without one it says who has the port.
    pub fn with_listener(mut self, listener: std::io::Result<OwnedFd>) -> Self {
        match listener.and_then(|listener| self.enter(listener)) {
            Ok(()) => {}
            Err(error) => {
                warn!(tenant = %self.tenant.name, port = self.tenant.port, error = &error as &dyn std::error::Error, "port_taken");
                let reason = format!(
                    "port_taken: port {} is used by another program; free it, then start the worker",
                    self.tenant.port
                );
                self.life.current = Phase::Barred { reason };
            }
        }
        self.publish();
        self
    }

    fn listen(&mut self) -> Result<(), FleetError> {
        match &self.listener {
            Some(_) => Ok(()),
            None => sockets::bind(self.shared.tenant_bind, self.tenant.port)
                .and_then(|listener| self.enter(listener))
                .map_err(|_| FleetError::PortTaken(self.tenant.port)),
        }
    }

    fn enter(&mut self, listener: OwnedFd) -> std::io::Result<()> {
        let key = self.shared.sockets.enter(&listener, Watch::Unarmed, self.heard.clone())?;
        self.listener = Some((key, Arc::new(listener)));
        Ok(())
    }

    /// Until the host stops or the tenant is removed.
    pub async fn run(mut self: Box<Self>) {
        self.settle();
        loop {
            let alarm = self.alarm();
            let tick = async {
                match alarm {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let heard = self.heard.clone();
            let event = tokio::select! {
                command = self.inbox.recv() => match command {
                    Some(command) => self.take(command),
                    None => unreachable!("the supervisor holds a sender of its own"),
                },
                keys = heard.keys() => self.sockets_wait(keys),
                () = tick => Some(self.time_passed(Instant::now())),
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => None,
            };
            if let Some(event) = event {
                self.step(event);
            }
            self.settle();
            if self.ending != Ending::No && self.live.is_empty() && self.forking.is_empty() {
                break;
            }
        }
        if let Some((key, listener)) = self.listener.take() {
            self.shared.sockets.leave(key, &listener);
        }
        self.parking.close_silent();
        // What the last workers had to say is taken; nobody is answered any more.
        self.inbox.close();
        while self.tasks.join_next().await.is_some() {}
    }

    /// When a worker is late with something.
    fn deadline(&self) -> Option<Instant> {
        let tokens = self.tokens_asked.iter().map(|asked| asked.deadline);
        self.life.deadline().into_iter().chain(tokens).min()
    }

    /// When there is something to do, though nothing happens.
    fn alarm(&self) -> Option<Instant> {
        let late = match self.noticed_late {
            Some(noticed) => Some(noticed + LAST_LOOK),
            None => self.deadline(),
        };
        let resumes = self.life.resumes().into_iter().chain(self.short_until);
        late.into_iter().chain(resumes).chain(self.parking.deadline()).min()
    }

    fn time_passed(&mut self, now: Instant) -> Event {
        let is_late = self.deadline().is_some_and(|deadline| deadline <= now);
        match self.noticed_late {
            Some(noticed) if noticed + LAST_LOOK > now => Event::Tick,
            Some(_) if is_late => {
                self.noticed_late = None;
                self.end_who_lacks_tokens(now);
                Event::Overdue
            }
            Some(_) | None => {
                self.noticed_late = is_late.then_some(now);
                Event::Tick
            }
        }
    }

    /// Turns a command into an event, where it is one.
    fn take(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::Wake(answer) => {
                if self.waiters.len() >= WAITERS_MAX {
                    let reason = "too many callers wait for the worker".to_owned();
                    let retry_after = Duration::from_secs(1);
                    let _ = answer.send(Err(Unavailable {
                        retry_after,
                        cause: Cause::Crowded,
                        reason,
                    }));
                    return None;
                }
                self.waiters.push(answer);
                self.notice();
                Some(Event::Wanted)
            }
            Command::Swap(generation, commit, answer) => {
                if self.swap.is_some() {
                    let _ = answer.send(Err(SwapError::Busy));
                    return None;
                }
                self.swap = Some(SwapAsked { commit, answer, at: Instant::now() });
                Some(Event::Swap(generation))
            }
            Command::Listen(answer) => {
                let _ = answer.send(self.listen());
                None
            }
            Command::Start(answer) => {
                let bound = self.listen();
                let event = bound.is_ok().then_some(Event::Start);
                let _ = answer.send(bound);
                event
            }
            Command::Stop(answer) => {
                self.stop_asked.push(answer);
                Some(Event::Stop)
            }
            Command::Tokens(grants, answer) => {
                self.grants = grants;
                self.tokens += 1;
                for worker in self.live.keys().copied().collect::<Vec<_>>() {
                    self.tell_tokens(worker);
                }
                let deadline = Instant::now() + TOKENS_DEADLINE;
                self.tokens_asked.push(TokensAsked { serial: self.tokens, deadline, answer });
                None
            }
            Command::Report(answer) => {
                self.reports.next.push(answer);
                None
            }
            Command::Shutdown => {
                self.ending = Ending::Shutdown;
                Some(Event::Shutdown)
            }
            Command::Hurry => Some(Event::Hurry),
            Command::Remove => {
                self.ending = Ending::Remove;
                self.doomed.extend(self.forking.keys());
                self.step(Event::Shutdown);
                Some(Event::Hurry)
            }
            Command::Give(connection, answer) => {
                let has_worker = match self.life.door() {
                    Door::Worker | Door::Watched | Door::Held => true,
                    Door::Refused(_) => false,
                };
                let given = if has_worker && !self.parking.is_full() {
                    self.parking.take(*connection, true);
                    Ok(())
                } else {
                    Err(connection)
                };
                let _ = answer.send(given);
                None
            }
            Command::PassedOn(worker, passed) => {
                self.passed_on(worker, passed);
                None
            }
            Command::Forked(worker, newborn) => self.forked(worker, *newborn),
            Command::Exited(worker, reason) => {
                self.parking.returned(worker);
                let live = self.live.remove(&worker)?;
                live.links.close();
                let reason = live.killed.unwrap_or(reason);
                let tenant = &self.tenant.name;
                info!(%tenant, pid = live.pid, worker = worker.0, reason, "worker ended");
                if reason != "ended" {
                    let labels = [("tenant", tenant.to_string())];
                    metrics::counter!("hearth_worker_deaths_total", &labels).increment(1);
                }
                self.last_end = Some(reason.clone());
                self.listen_again();
                Some(Event::Died(worker, reason))
            }
            Command::Committed(Ok(())) => Some(Event::Committed),
            Command::Committed(Err(reason)) => Some(Event::CommitFailed(reason)),
            Command::FromWorker(worker, message) => self.heard(worker, *message),
        }
    }

    fn heard(&mut self, worker: WorkerId, message: FromWorker) -> Option<Event> {
        match message {
            FromWorker::Ready { version: VERSION, load_us, walls_us } => {
                let live = self.live.get_mut(&worker)?;
                live.starting = None;
                // It has nothing to report of a time before it was ready.
                live.reported = self.reports.serial;
                let walls = Duration::from_micros(walls_us);
                metrics::histogram!("hearth_walls_seconds").record(walls);
                info!(tenant = %self.tenant.name, pid = live.pid, worker = worker.0, load_us, "worker ready");
                Some(Event::Ready(worker))
            }
            FromWorker::Ready { version, .. } => {
                self.kill(worker, format!("it speaks version {version}, not {VERSION}"));
                None
            }
            FromWorker::Refused { mut reason } => {
                // Before the next one starts from them, its files are looked at.
                self.shared.releases.recheck(self.tenant.id);
                // It exits by itself; this is the reason that its owner is told.
                reason.truncate(reason.floor_char_boundary(REASON_MAX_BYTES));
                let live = self.live.get_mut(&worker)?;
                live.killed = Some(reason);
                None
            }
            FromWorker::Quiesced => Some(Event::Quiesced(worker)),
            FromWorker::Leaving => Some(Event::Leaving(worker)),
            FromWorker::CallsDone => Some(Event::CallsDone(worker)),
            FromWorker::TokensApplied { serial } => {
                let live = self.live.get_mut(&worker)?;
                live.tokens = live.tokens.max(serial);
                None
            }
            FromWorker::Reported { serial } => {
                let live = self.live.get_mut(&worker)?;
                live.reported = live.reported.max(serial);
                None
            }
            FromWorker::Passed => {
                self.parking.passed(worker);
                None
            }
            FromWorker::Accepting => None,
            FromWorker::Forbidden { call } => {
                let tenant = &self.tenant.name;
                let call = telemetry::sandbox_violation(Some(tenant), call);
                error!(%tenant, worker = worker.0, call, "sandbox violation");
                let live = self.live.get_mut(&worker)?;
                live.killed = Some(format!("sandbox violation: it made the system call {call}"));
                None
            }
            // Taken where it is read.
            FromWorker::Alive
            | FromWorker::WantDoor
            | FromWorker::Report(_)
            | FromWorker::Pass(_) => None,
        }
    }

    /// Takes connections that a worker is done with. It may be hostile: what it passes on is
    /// checked.
    fn passed_on(&mut self, worker: WorkerId, passed: Vec<(OwnedFd, Passing)>) {
        if !self.live.contains_key(&worker) {
            return;
        }
        let port = (self.shared.tenant_bind, self.tenant.port).into();
        let entries = Entries { port, front: self.shared.front };
        let goes_on = self.life.door() == Door::Worker;
        for (socket, passing) in passed {
            match Connection::inspect(socket, passing, entries, &self.shared.parking_room) {
                Ok(Some(connection)) => self.parking.take(connection, goes_on),
                Ok(None) => {}
                Err(nonsense) => {
                    count_nonsense(&self.tenant);
                    self.kill(worker, nonsense.to_string());
                    return;
                }
            }
        }
        self.tell(worker, ToWorker::Passed, vec![]);
    }

    fn forked(&mut self, worker: WorkerId, newborn: Result<Newborn, StartError>) -> Option<Event> {
        self.forking.remove(&worker);
        let doomed = self.doomed.remove(&worker);
        let newborn = match newborn {
            Ok(newborn) => newborn,
            Err(_) if doomed => return None,
            Err(StartError::Release(reason)) => {
                self.last_end = Some(reason.clone());
                return Some(Event::Died(worker, reason));
            }
            Err(StartError::Host(reason)) => {
                warn!(tenant = %self.tenant.name, reason, "no worker forked");
                return Some(Event::NotForked(worker, reason));
            }
        };
        let pidfd = match zygote::watch_pidfd(newborn.forked.pidfd) {
            Ok(pidfd) => Arc::new(pidfd),
            // Without it nobody would hear of its end; it ends with its control socket.
            Err(error) => return Some(Event::NotForked(worker, error.to_string())),
        };
        let (outgoing, to_send) = mpsc::channel(OUTGOING);
        self.tasks.spawn(accompany(
            Talk::new(newborn.channel, newborn.tokens),
            to_send,
            worker,
            (pidfd.clone(), newborn.forked.status),
            self.tenant.clone(),
            self.to_self.clone(),
            self.shared.clone(),
        ));
        let idle = self.shared.idle_links.clone();
        let links = Links::new(outgoing.clone(), self.shared.links, idle);
        let live = Live {
            pid: newborn.forked.pid,
            pidfd,
            outgoing,
            links,
            tokens: 0,
            reported: 0,
            starting: Some(newborn.permit),
            killed: None,
        };
        self.live.insert(worker, live);
        if newborn.tokens < self.tokens {
            self.tell_tokens(worker);
        }
        if doomed {
            self.kill(worker, "it is not wanted any more".to_owned());
        }
        Some(Event::Forked(worker))
    }

    fn sockets_wait(&mut self, keys: Vec<Key>) -> Option<Event> {
        let mut event = None;
        for key in keys {
            if self.listener.as_ref().is_some_and(|(listener, _)| *listener == key) {
                event = self.connection_waits();
            } else {
                self.parking.look_at(key);
            }
        }
        event
    }

    fn connection_waits(&mut self) -> Option<Event> {
        self.armed = false;
        match self.life.door() {
            Door::Watched if self.queue_is_not_empty() => {
                self.notice();
                Some(Event::Wanted)
            }
            Door::Refused(_) => {
                self.turn_away();
                None
            }
            // An old notice: somebody else has taken the connection.
            Door::Watched | Door::Worker | Door::Held => None,
        }
    }

    fn queue_is_not_empty(&self) -> bool {
        self.listener.as_ref().is_some_and(|(_, listener)| sockets::is_called(listener))
    }

    fn listen_again(&self) {
        if let Some((_, listener)) = &self.listener
            && let Err(error) = sockets::listen_again(listener.as_fd())
        {
            let error = &error as &dyn std::error::Error;
            error!(tenant = %self.tenant.name, error, "the listener was shut down");
        }
    }

    /// Takes the connections that wait for a worker that will not come, to be told so.
    fn turn_away(&mut self) {
        let Some((_, listener)) = self.listener.clone() else { return };
        for _ in 0..TURNED_MAX {
            match sockets::accept(listener.as_fd()) {
                Ok(Some(stream)) => self.visit(stream, Vec::new()),
                Ok(None) => break,
                Err(error) => {
                    warn!(tenant = %self.tenant.name, error = &error as &dyn std::error::Error, "accept");
                    self.short_until = Some(Instant::now() + SHORT_PAUSE);
                    break;
                }
            }
        }
    }

    fn visit(&self, stream: std::net::TcpStream, unread: Vec<u8>) {
        let retry_after = match self.life.door() {
            Door::Refused(Some(until)) => until.saturating_duration_since(Instant::now()),
            Door::Refused(None) | Door::Held | Door::Watched | Door::Worker => Unavailable::BARRED,
        };
        // Full: so many are being told already that this one is simply closed.
        let told = self.turned.clone().try_acquire_owned().is_ok_and(|place| {
            let tenant = self.tenant.clone();
            let visit = Visit::Turned { tenant, stream, unread, retry_after, place };
            self.shared.visits.try_send(visit).is_ok()
        });
        if !told {
            metrics::counter!("hearth_connections_dropped_total").increment(1);
        }
    }

    /// Notes when the first of those who wait was noticed.
    fn notice(&mut self) {
        self.woken_at.get_or_insert_with(Instant::now);
    }

    fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.life.step(event, Instant::now()) {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Fork { worker, generation } => {
                fail::moment(Point::WorkerFork);
                self.swap_begins(worker);
                self.forking.insert(worker, self.tokens);
                let start = self.start_of(worker, generation);
                self.tasks.spawn(fork(
                    start,
                    worker,
                    (self.tokens, self.grants.clone()),
                    self.tenant.clone(),
                    self.listener.as_ref().map(|(_, listener)| listener.clone()),
                    self.to_self.clone(),
                    self.shared.clone(),
                ));
            }
            Action::Accept(worker) => {
                fail::moment(Point::WorkerAccept);
                if let Some(at) = self.woken_at.take() {
                    metrics::counter!("hearth_wakes_total").increment(1);
                    metrics::histogram!("hearth_wake_seconds").record(at.elapsed());
                }
                self.tell(worker, ToWorker::Accept, vec![]);
            }
            Action::Finish(worker, within) => {
                self.tell(worker, ToWorker::Finish(Respite::now(within)), vec![]);
            }
            Action::Quiesce(worker) => {
                fail::moment(Point::WorkerQuiesce);
                self.close_links(worker);
                self.tell(worker, ToWorker::Quiesce, vec![]);
            }
            Action::Close(worker) => {
                self.close_links(worker);
                self.tell(worker, ToWorker::Close, vec![]);
            }
            Action::Leave(worker) => {
                self.close_links(worker);
                self.tell(worker, ToWorker::Leave, vec![]);
            }
            Action::Kill(worker, reason) => self.kill(worker, reason),
            Action::Commit(_) => match self.swap.as_mut().and_then(|swap| swap.commit.take()) {
                Some(commit) => {
                    fail::moment(Point::SwapReady);
                    let inbox = self.to_self.clone();
                    self.tasks.spawn(async move {
                        let _ = inbox.send(Command::Committed(commit.await)).await;
                    });
                }
                None => return Some(Event::Committed),
            },
            Action::Answer(swapped) => {
                if let Some(asked) = self.swap.take() {
                    fail::moment(Point::SwapAnswer);
                    let took = asked.at.elapsed();
                    let _ = asked.answer.send(match swapped {
                        Swapped::Done => Ok(took),
                        Swapped::Busy => Err(SwapError::Busy),
                        Swapped::Failed(reason) => Err(SwapError::NotStarted(reason)),
                    });
                }
            }
        }
        None
    }

    /// One that waited for its place has not begun before.
    fn swap_begins(&mut self, with: WorkerId) {
        if let Some(Swap::Loading { worker, .. }) = self.life.swap
            && worker == with
            && let Some(asked) = &mut self.swap
        {
            asked.at = Instant::now();
        }
    }

    fn start_of(&self, worker: WorkerId, generation: Generation) -> Start {
        let wakes = matches!(self.life.current, Phase::Starting { worker: current, .. } if current == worker);
        Start {
            version: VERSION,
            tenant: self.tenant.name.clone(),
            generation,
            idle: self.shared.idle,
            woken_at: self.woken_at.filter(|_| wakes).map(Moment::from),
            trusted_proxies: self.shared.trusted_proxies.clone(),
            trusted_headers: self.shared.trusted_headers.clone(),
            domain: self.shared.names.domain_of(&self.tenant.name).map(str::to_owned),
        }
    }

    fn tell(&mut self, worker: WorkerId, message: ToWorker, fds: Vec<Arc<OwnedFd>>) {
        if let Some(live) = self.live.get(&worker)
            && let Err(mpsc::error::TrySendError::Full(_)) = live.outgoing.try_send((message, fds))
        {
            self.kill(worker, "it does not listen to the primary".to_owned());
        }
    }

    fn tell_tokens(&mut self, worker: WorkerId) {
        let tokens = ToWorker::Tokens { serial: self.tokens, grants: self.grants.clone() };
        self.tell(worker, tokens, vec![]);
    }

    fn close_links(&self, worker: WorkerId) {
        if let Some(live) = self.live.get(&worker) {
            live.links.close();
        }
    }

    fn kill(&mut self, worker: WorkerId, reason: String) {
        match self.live.get_mut(&worker) {
            Some(live) => {
                warn!(tenant = %self.tenant.name, pid = live.pid, worker = worker.0, reason, "ending worker");
                live.links.close();
                live.killed = Some(reason);
                zygote::kill(&live.pidfd);
            }
            None => {
                if self.forking.contains_key(&worker) {
                    self.doomed.insert(worker);
                }
            }
        }
    }

    /// Brings the listener, the waiting callers and the snapshot in line with the state.
    fn settle(&mut self) {
        self.settle_tokens();
        self.settle_reports();
        self.settle_parking();
        self.settle_door();
        self.settle_waiters();
        self.publish();
        for asked in self.stop_asked.drain(..) {
            let _ = asked.send(Ok(()));
        }
    }

    fn settle_tokens(&mut self) {
        let oldest =
            self.forking.values().copied().chain(self.live.values().map(|l| l.tokens)).min();
        for asked in std::mem::take(&mut self.tokens_asked) {
            if oldest.is_none_or(|oldest| oldest >= asked.serial) {
                let _ = asked.answer.send(());
            } else {
                self.tokens_asked.push(asked);
            }
        }
    }

    fn settle_reports(&mut self) {
        loop {
            // One that is not ready has served nobody.
            let ready = self.live.values().filter(|live| live.starting.is_none());
            let oldest = ready.map(|live| live.reported).min();
            if oldest.is_some_and(|oldest| oldest < self.reports.serial) {
                return;
            }
            for asked in self.reports.asked.drain(..) {
                let _ = asked.send(());
            }
            // Whoever has stopped waiting is not asked for.
            self.reports.next.retain(|answer| !answer.is_closed());
            if self.reports.next.is_empty() {
                return;
            }
            self.reports.serial += 1;
            self.reports.asked = std::mem::take(&mut self.reports.next);
            let serial = self.reports.serial;
            let ready = self.live.iter().filter(|(_, live)| live.starting.is_none());
            for worker in ready.map(|(worker, _)| *worker).collect::<Vec<_>>() {
                self.tell(worker, ToWorker::Report { serial }, vec![]);
            }
        }
    }

    /// Ends the workers that did not take new tokens in time, and waits for that.
    fn end_who_lacks_tokens(&mut self, now: Instant) {
        let late = |asked: &&mut TokensAsked| asked.deadline <= now;
        let Some(serial) = self
            .tokens_asked
            .iter_mut()
            .filter(late)
            .map(|asked| {
                asked.deadline = now + TOKENS_DEADLINE;
                asked.serial
            })
            .max()
        else {
            return;
        };
        let behind = self.live.iter().filter(|(_, live)| live.tokens < serial);
        for worker in behind.map(|(worker, _)| *worker).collect::<Vec<_>>() {
            self.kill(worker, "it did not take new tokens in time".to_owned());
        }
    }

    /// Brings those that speak to a worker, or to the news that there is none.
    fn settle_parking(&mut self) {
        self.parking.expire(Instant::now());
        if self.life.current == Phase::Stopped {
            self.parking.close_silent();
        }
        if !self.parking.has_awake() {
            return;
        }
        if self.life.current == Phase::Asleep {
            self.notice();
            self.step(Event::Wanted);
        }
        match (&self.life.current, self.life.door()) {
            (&Phase::Ready { worker, .. }, _) => {
                let batch = self.parking.pass_to(worker).unwrap_or_default();
                let passing = batch.iter().map(Connection::passing).collect::<Vec<_>>();
                let sockets = batch.iter().map(|connection| connection.socket.clone()).collect();
                if !passing.is_empty() {
                    self.tell(worker, ToWorker::Pass(passing), sockets);
                }
            }
            (_, Door::Refused(_)) => {
                for connection in self.parking.turn_away() {
                    if let Some((socket, unread)) = connection.into_socket() {
                        self.visit(socket.into(), unread);
                    }
                }
            }
            (_, Door::Worker | Door::Watched | Door::Held) => {}
        }
    }

    fn settle_door(&mut self) {
        let Some((key, listener)) = self.listener.clone() else { return };
        self.short_until.take_if(|until| *until <= Instant::now());
        let wanted = match self.life.door() {
            Door::Watched | Door::Refused(_) => self.short_until.is_none(),
            Door::Worker | Door::Held => false,
        };
        let set = match (wanted, self.armed) {
            (true, false) => self.shared.sockets.arm(key, &listener, Watch::Readable),
            (false, true) => self.shared.sockets.arm(key, &listener, Watch::Unarmed),
            (true, true) | (false, false) => return,
        };
        match set {
            Ok(()) => self.armed = wanted,
            Err(error) => {
                warn!(tenant = %self.tenant.name, error = &error as &dyn std::error::Error, "watch");
            }
        }
    }

    fn settle_waiters(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        if self.life.current == Phase::Asleep {
            self.notice();
            self.step(Event::Wanted);
        }
        let answer = match &self.life.current {
            Phase::Asleep | Phase::Starting { .. } => return,
            Phase::Ready { worker, .. } => match self.live.get(worker) {
                Some(live) => Ok(live.links.clone()),
                // It has died and its end is in the inbox.
                None => return,
            },
            Phase::Backoff { until, reason, .. } => match self.life.door() {
                Door::Refused(_) => Err(Unavailable {
                    retry_after: until.saturating_duration_since(Instant::now()),
                    cause: Cause::Ended,
                    reason: reason.clone(),
                }),
                Door::Held | Door::Watched | Door::Worker => return,
            },
            Phase::Barred { reason } => Err(Unavailable {
                retry_after: Unavailable::BARRED,
                cause: Cause::Ended,
                reason: reason.clone(),
            }),
            Phase::Stopped => Err(Unavailable {
                retry_after: Duration::from_secs(1),
                cause: Cause::Stopping,
                reason: "the host is stopping".to_owned(),
            }),
        };
        for waiter in self.waiters.drain(..) {
            let _ = waiter.send(answer.clone());
        }
        if !matches!(self.life.current, Phase::Ready { .. } | Phase::Starting { .. }) {
            self.woken_at = None;
        }
    }

    fn publish(&self) {
        let mut status = status_of(&self.life, self.shared.isolation);
        let worker = match &self.life.current {
            Phase::Ready { worker, .. } | Phase::Starting { worker, .. } => Some(*worker),
            Phase::Asleep | Phase::Backoff { .. } | Phase::Barred { .. } | Phase::Stopped => {
                self.life.draining.last().map(|draining| draining.worker)
            }
        };
        let live = worker.and_then(|worker| self.live.get(&worker));
        status.pid = live.map(|live| live.pid);
        status.parked = self.parking.len() as u32;
        if status.reason.is_none() {
            status.reason = self.last_end.clone().filter(|reason| reason != "ended");
        }
        let links = match self.life.current {
            Phase::Ready { .. } => live.map(|live| live.links.clone()),
            _ => None,
        };
        self.snapshot.send_modify(|seen| {
            if seen.status.state == status.state && seen.status.pid == status.pid {
                status.since = seen.status.since;
            }
            *seen = Snapshot { status, links };
        });
    }
}

fn status_of(life: &Life, isolation: Level) -> WorkerStatus {
    let (state, reason) = match &life.current {
        Phase::Asleep | Phase::Stopped if !life.draining.is_empty() => {
            (WorkerState::Draining, None)
        }
        Phase::Asleep | Phase::Stopped => (WorkerState::Asleep, None),
        Phase::Starting { .. } => (WorkerState::Starting, None),
        Phase::Ready { .. } => (WorkerState::Ready, None),
        Phase::Backoff { reason, .. } => (WorkerState::Backoff, Some(reason.clone())),
        Phase::Barred { reason } => (WorkerState::Barred, Some(reason.clone())),
    };
    WorkerStatus {
        state,
        pid: None,
        generation: life.generation,
        since: Timestamp::now(),
        reason,
        isolation,
        memory: None,
        cpu_ms: None,
        draining: life.draining.len() as u32,
        parked: 0,
    }
}

/// Prepares a release and has a worker forked for it.
async fn fork(
    start: Start,
    worker: WorkerId,
    (serial, grants): (u64, Vec<TokenGrant>),
    tenant: Tenant,
    listener: Option<Arc<OwnedFd>>,
    inbox: mpsc::Sender<Command>,
    shared: Arc<Shared>,
) {
    let newborn = async {
        let host = |error: &dyn std::error::Error| StartError::Host(error.to_string());
        let Some(listener) = listener else {
            return Err(StartError::Release(format!(
                "port {} is used by another program",
                tenant.port
            )));
        };
        if shared.has_users && tenant.user.is_none() {
            let reason = "no user id is free for its workers: the host's operator widens --users";
            return Err(StartError::Release(reason.to_owned()));
        }
        let prepared =
            shared.releases.prepare(&tenant, start.generation).await.map_err(|error| {
                let told = error.for_owner();
                error!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "release");
                if is_short(&error) { StartError::Host(told) } else { StartError::Release(told) }
            })?;
        let permit = shared.starts.clone().acquire_owned().await.map_err(|error| host(&error))?;
        let noticed = start.woken_at.map(Moment::instant);
        let (start, tokens) = (ToWorker::Start(start), ToWorker::Tokens { serial, grants });
        let Prepared { release, limits } = prepared;
        let release = Arc::new(release);
        let cgroup = cgroup(&tenant, limits, &shared).await;
        let cell = Cell {
            user: tenant.user,
            // A cgroup counts what is really taken, of all workers of the tenant together.
            data_bytes: cgroup.is_none().then_some(limits.total_memory_mb << 20),
        };
        let mut tries = 1;
        let (forked, channel) = loop {
            let (ours, theirs) = pair().map_err(|error| host(&error))?;
            let channel = Channel::new(ours).map_err(|error| host(&error))?;
            // Both fit the socket's buffer, so the worker finds them when it is born.
            channel.send(&start, &[]).await.map_err(|error| host(&error))?;
            channel.send(&tokens, &[]).await.map_err(|error| host(&error))?;
            let (listener, release, cgroup) = (listener.clone(), release.clone(), cgroup.clone());
            let errors = stderr::listen(Speaker::worker(tenant.name.clone()));
            let errors = errors.map_err(|error| host(&error))?;
            let fork = Fork { control: theirs, listener, release, errors, cell, cgroup, noticed };
            match shared.zygote.fork(fork).await {
                Err(ZygoteError::Gone) if tries < FORK_TRIES => tries += 1,
                forked => break (forked.map_err(|error| host(&error))?, channel),
            }
        };
        Ok(Newborn { forked, channel, tokens: serial, permit })
    };
    let newborn = newborn.await;
    let _ = inbox.send(Command::Forked(worker, Box::new(newborn))).await;
}

/// Whether it comes of a shortage of descriptors or memory, somewhere below.
fn is_short(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(is_shortage)
}

/// The tenant's group, where this machine has any: made with its first worker, and from then on at
/// hand. That one cannot be made is told, and is no reason for not serving.
async fn cgroup(tenant: &Tenant, limits: Limits, shared: &Arc<Shared>) -> Option<Arc<Group>> {
    // A thread more is for what blocks, which a tenant that was woken before has behind it.
    if let Some(group) = shared.cgroups.as_ref()?.at_hand(&tenant.name, &limits) {
        return Some(group);
    }
    let (shared, name) = (shared.clone(), tenant.name.clone());
    let found = tokio::task::spawn_blocking(move || {
        shared.cgroups.as_ref().map(|cgroups| cgroups.group(&name, &limits))
    });
    match found.await.ok()?? {
        Ok(group) => Some(group),
        Err(error) => {
            warn!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "no cgroup");
            None
        }
    }
}

/// What is said between the primary and one worker.
struct Talk {
    channel: Channel,
    conversation: Mutex<Conversation>,
    doors: Arc<Semaphore>,
}

impl Talk {
    /// With a worker that was told these tokens before its birth.
    fn new(channel: Channel, tokens: u64) -> Self {
        let conversation = Mutex::new(Conversation::new(tokens, Instant::now()));
        Self { channel, conversation, doors: Arc::new(Semaphore::new(DOORS_MAX)) }
    }

    fn conversation(&self) -> MutexGuard<'_, Conversation> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(
        &self,
        message: &ToWorker,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), hearth_wire::SocketError> {
        // Before it can have heard it.
        self.conversation().told(message);
        self.channel.send(message, fds).await
    }

    /// The next thing that it says; `None` at the end of the conversation.
    async fn hear(&self) -> Result<Option<(FromWorker, Vec<OwnedFd>)>, Nonsense> {
        let Some((message, fds)) =
            self.channel.recv::<FromWorker>().await.map_err(Nonsense::Garbage)?
        else {
            return Ok(None);
        };
        for fd in &fds {
            // The last close of a socket can be made to wait. What is no socket has no such thing.
            let _ = sockopt::set_socket_linger(fd, None);
        }
        let pause = {
            let mut conversation = self.conversation();
            conversation.said(&message, fds.len())?;
            conversation.pause(Instant::now())
        };
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        Ok(Some((message, fds)))
    }
}

/// Speaks with one worker until its end, and then tells of that: whatever it had to say is said
/// by then.
async fn accompany(
    talk: Talk,
    to_send: mpsc::Receiver<Outgoing>,
    worker: WorkerId,
    (pidfd, status): (Arc<AsyncFd<OwnedFd>>, zygote::Status),
    tenant: Tenant,
    inbox: mpsc::Sender<Command>,
    shared: Arc<Shared>,
) {
    let mut ended = std::pin::pin!(zygote::exit_of(&pidfd, status));
    let mut talking = std::pin::pin!(converse(&talk, to_send, worker, &tenant, &inbox, &shared));
    let ends = |nonsense: Nonsense| {
        if !matches!(nonsense, Nonsense::Silent(_)) {
            count_nonsense(&tenant);
        }
        warn!(tenant = %tenant.name, worker = worker.0, error = &nonsense as &dyn std::error::Error, "ending a worker that talks nonsense");
        zygote::kill(&pidfd);
        nonsense.to_string()
    };
    let explain = |status| {
        let killed = matches!(status, Some(ExitStatus::Signal(9)));
        let cgroups = shared.cgroups.as_ref().filter(|_| killed);
        let starved = cgroups.and_then(|cgroups| cgroups.starved(&tenant.name));
        if starved.is_some() {
            let labels = [("tenant", tenant.name.to_string())];
            metrics::counter!("hearth_out_of_memory_total", &labels).increment(1);
        }
        explain(status, starved)
    };
    let reason = tokio::select! {
        status = &mut ended => match tokio::time::timeout(LAST_WORDS_DEADLINE, talking).await {
            Ok(Err(nonsense)) => ends(nonsense),
            Ok(Ok(())) | Err(_) => explain(status),
        },
        talked = &mut talking => match talked {
            Ok(()) => match tokio::time::timeout(LAST_WORDS_DEADLINE, &mut ended).await {
                Ok(status) => explain(status),
                Err(_) => {
                    warn!(tenant = %tenant.name, worker = worker.0, "ending a worker that does not speak");
                    zygote::kill(&pidfd);
                    explain(ended.await)
                }
            },
            Err(nonsense) => {
                let reason = ends(nonsense);
                ended.await;
                reason
            }
        },
    };
    let _ = inbox.send(Command::Exited(worker, reason)).await;
}

/// How a worker ended, for its owner. `starved` is how many bytes its tenant's processes may have,
/// where the kernel ended it for that.
fn explain(status: Option<ExitStatus>, starved: Option<u64>) -> String {
    match (status, starved) {
        (Some(ExitStatus::Code(0)), _) => "ended".to_owned(),
        (Some(ExitStatus::Signal(9)), Some(memory_bytes)) => format!(
            "out of memory: its processes had all of the {} MiB that the tenant may have \
             (total_memory_mb), and the kernel ended it",
            memory_bytes >> 20
        ),
        (Some(ExitStatus::Signal(9)), None) => {
            "killed by signal 9: by the kernel for want of memory, or by somebody".to_owned()
        }
        (Some(ExitStatus::Signal(31)), _) => {
            "sandbox violation: a forbidden system call".to_owned()
        }
        (Some(ExitStatus::Signal(signal)), _) => format!("killed by signal {signal}"),
        (Some(ExitStatus::Code(code)), _) if code == i32::from(EXIT_STARVED) => {
            "out of memory: it had all that it may have of the tenant's total_memory_mb".to_owned()
        }
        (Some(ExitStatus::Code(code)), _) => format!("exited with code {code}"),
        (None, _) => "ended, its status unknown".to_owned(),
    }
}

/// Tells a worker what is to be told, and sorts what it says, until it says no more.
async fn converse(
    talk: &Talk,
    mut to_send: mpsc::Receiver<Outgoing>,
    worker: WorkerId,
    tenant: &Tenant,
    inbox: &mpsc::Sender<Command>,
    shared: &Shared,
) -> Result<(), Nonsense> {
    let speaking = async {
        while let Some((message, fds)) = to_send.recv().await {
            let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
            if talk.tell(&message, &fds).await.is_err() {
                break;
            }
        }
        // Its end shows where it is listened to.
        std::future::pending().await
    };
    let listening = async {
        while let Some((message, fds)) = talk.hear().await? {
            let command = match message {
                FromWorker::Report(report) => {
                    count(tenant, &report);
                    shared.logs.take(&tenant.name, report);
                    continue;
                }
                FromWorker::WantDoor => {
                    if let Err(error) = open_door(talk, tenant, shared).await {
                        warn!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "door");
                    }
                    continue;
                }
                FromWorker::Pass(passing) => {
                    Command::PassedOn(worker, fds.into_iter().zip(passing).collect())
                }
                message => Command::FromWorker(worker, Box::new(message)),
            };
            if inbox.send(command).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    tokio::select! {
        listened = listening => listened,
        () = speaking => Ok(()),
        silent = watch_over(talk) => Err(silent),
    }
}

/// Asks for a sign of life every now and then, until none comes: a guest that is stuck in a call of
/// the host holds up its worker's one thread, and no epoch ends that.
async fn watch_over(talk: &Talk) -> Nonsense {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if talk.tell(&ToWorker::AreYouAlive, &[]).await.is_err() {
            // Its end shows where it is listened to.
            return std::future::pending().await;
        }
        for patience in [SILENCE_MAX, LAST_LOOK] {
            tokio::time::sleep(patience).await;
            if !talk.conversation().is_silent() {
                break;
            }
        }
        if talk.conversation().is_silent() {
            return Nonsense::Silent(SILENCE_MAX);
        }
    }
}

async fn open_door(
    talk: &Talk,
    tenant: &Tenant,
    shared: &Shared,
) -> Result<(), hearth_wire::SocketError> {
    // Whoever waits for one more door than there may be is told so by its worker, in time.
    let Ok(place) = talk.doors.clone().try_acquire_owned() else { return Ok(()) };
    let (near, far) = UnixStream::pair()?;
    let far = OwnedFd::from(far.into_std()?);
    talk.tell(&ToWorker::Door, &[far.as_fd()]).await?;
    // Its owner is gone only when the host stops.
    let _ = shared.visits.send(Visit::Door { tenant: tenant.clone(), stream: near, place }).await;
    Ok(())
}

fn count_nonsense(tenant: &Tenant) {
    let tenant = tenant.name.to_string();
    metrics::counter!("hearth_workers_ended_for_nonsense_total", "tenant" => tenant).increment(1);
}

fn count(tenant: &Tenant, report: &hearth_wire::Report) {
    if report.calls.is_empty() {
        return;
    }
    let seconds = metrics::histogram!("hearth_call_seconds");
    let mut outcomes = Outcome::ALL.map(|outcome| (outcome, 0));
    for call in &report.calls {
        seconds.record(Duration::from_micros(call.duration_us).as_secs_f64());
        for (counted, number) in &mut outcomes {
            *number += u64::from(*counted == call.outcome);
        }
    }
    for (outcome, number) in outcomes.into_iter().filter(|(_, number)| *number > 0) {
        let labels =
            [("tenant", tenant.name.to_string()), ("outcome", outcome.as_str().to_owned())];
        metrics::counter!("hearth_calls_total", &labels).increment(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A channel keeps room for 32 from its start, ten thousand times on a full host.
    #[test]
    fn a_command_is_small() {
        assert!(size_of::<Command>() <= 40, "{}", size_of::<Command>());
    }
}
