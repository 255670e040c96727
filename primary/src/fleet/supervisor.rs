//! One tenant's supervisor: performs what the [`Life`] decides and brings back what came of it.
//!
//! The only writer of its tenant's state. Everything that happens arrives in its inbox, so that
//! nothing is decided in two places. Others read a snapshot, and use the links of the current
//! worker without asking. Owns the tenant's listener, its parked connections, the control sockets
//! of its workers and the tasks that serve them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_wire::{
    FromWorker, Generation, Moment, Passing, Respite, Start, ToWorker, TokenGrant, VERSION, What,
};
use jiff::Timestamp;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::inbox::{Answer, Command, Commit, Newborn, StartError};
use super::lifecycle::{Action, Event, Life, Phase, Reception, Swap, Swapped, WorkerId};
use super::links::{Links, Outgoing};
use super::parking::{Connection, Entries, Parking};
use super::sockets::{Heard, Key, Watch};
use super::start::fork;
use super::status::{WorkerState, WorkerStatus};
use super::talk::{Talk, accompany, count_nonsense};
use super::told::AllTold;
use super::{Cause, FleetError, Shared, SwapError, Turned, Unavailable, sockets, zygote};
use crate::fail::{self, Point};
use crate::isolation::Level;
use crate::patience::LAST_LOOK;
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
/// Of what a worker gives as its reason.
const REASON_MAX_BYTES: usize = 1 << 10;

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
    forking: HashSet<WorkerId>,
    doomed: HashSet<WorkerId>,
    waiters: Vec<Answer<Result<Arc<Links>, Unavailable>>>,
    /// When the call that is being woken for was noticed.
    woken_at: Option<Instant>,
    swap: Option<SwapAsked>,
    told: AllTold,
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
    pub fn new(tenant: Tenant, tokens: Vec<TokenGrant>, shared: Arc<Shared>) -> (Self, Handle) {
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
            forking: HashSet::new(),
            doomed: HashSet::new(),
            waiters: Vec::new(),
            woken_at: None,
            swap: None,
            told: AllTold::new([What::Tokens(tokens)]),
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
        self.life.deadline().into_iter().chain(self.told.deadline()).min()
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
                self.end_who_stays_behind(now);
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
            Command::Tell(what, answer) => {
                let message = self.told.set(what, answer, Instant::now());
                for worker in self.live.keys().copied().collect::<Vec<_>>() {
                    self.tell(worker, message.clone(), vec![]);
                }
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
                self.doomed.extend(&self.forking);
                self.step(Event::Shutdown);
                Some(Event::Hurry)
            }
            Command::Give(connection, answer) => {
                let has_worker = match self.life.reception() {
                    Reception::Worker | Reception::Watched | Reception::Held => true,
                    Reception::Refused(_) => false,
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
                self.told.gone(worker);
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
                self.kill(
                    worker,
                    format!("the worker speaks version {version}, and the host speaks {VERSION}"),
                );
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
            FromWorker::Applied { serial, what } => {
                self.told.applied(worker, what, serial);
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
            | FromWorker::WantUplink { .. }
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
        let goes_on = self.life.reception() == Reception::Worker;
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
        if newborn.is_err() {
            self.told.gone(worker);
        }
        let newborn = match newborn {
            Ok(newborn) => newborn,
            Err(_) if doomed => return None,
            Err(StartError::Release(reason)) => {
                self.last_end = Some(reason.clone());
                return Some(Event::Died(worker, reason));
            }
            Err(StartError::Host(reason)) => {
                warn!(tenant = %self.tenant.name, reason, "a worker could not be forked");
                return Some(Event::NotForked(worker, reason));
            }
        };
        let pidfd = match zygote::watch_pidfd(newborn.forked.pidfd) {
            Ok(pidfd) => Arc::new(pidfd),
            // Without it nobody would hear of its end; it ends with its control socket.
            Err(error) => {
                self.told.gone(worker);
                return Some(Event::NotForked(worker, error.to_string()));
            }
        };
        let (outgoing, to_send) = mpsc::channel(OUTGOING);
        self.tasks.spawn(accompany(
            Talk::new(newborn.channel, newborn.conversation),
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
            reported: 0,
            starting: Some(newborn.permit),
            killed: None,
        };
        self.live.insert(worker, live);
        for message in self.told.lives(worker) {
            self.tell(worker, message, vec![]);
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
        match self.life.reception() {
            Reception::Watched if self.queue_is_not_empty() => {
                self.notice();
                Some(Event::Wanted)
            }
            Reception::Refused(_) => {
                self.turn_away();
                None
            }
            // An old notice: somebody else has taken the connection.
            Reception::Watched | Reception::Worker | Reception::Held => None,
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
        let retry_after = match self.life.reception() {
            Reception::Refused(Some(until)) => until.saturating_duration_since(Instant::now()),
            Reception::Refused(None) | Reception::Held | Reception::Watched | Reception::Worker => {
                Unavailable::BARRED
            }
        };
        // Full: so many are being told already that this one is simply closed.
        let told = self.turned.clone().try_acquire_owned().is_ok_and(|place| {
            let tenant = self.tenant.clone();
            let turned = Turned { tenant, stream, unread, retry_after, place };
            self.shared.turned.try_send(turned).is_ok()
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
                self.forking.insert(worker);
                let start = self.start_of(worker, generation);
                self.tasks.spawn(fork(
                    start,
                    worker,
                    self.told.forks(worker),
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
                if self.forking.contains(&worker) {
                    self.doomed.insert(worker);
                }
            }
        }
    }

    /// Brings the listener, the waiting callers and the snapshot in line with the state.
    fn settle(&mut self) {
        for answer in self.told.answered() {
            let _ = answer.send(());
        }
        self.settle_reports();
        self.settle_parking();
        self.settle_reception();
        self.settle_waiters();
        self.publish();
        for asked in self.stop_asked.drain(..) {
            let _ = asked.send(Ok(()));
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

    /// Ends the workers that do not go in time by what they were told, and waits for that.
    fn end_who_stays_behind(&mut self, now: Instant) {
        for (worker, subject) in self.told.late(now) {
            self.kill(worker, format!("it did not take new {} in time", subject.as_str()));
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
        match (&self.life.current, self.life.reception()) {
            (&Phase::Ready { worker, .. }, _) => {
                let batch = self.parking.pass_to(worker).unwrap_or_default();
                let passing = batch.iter().map(Connection::passing).collect::<Vec<_>>();
                let sockets = batch.iter().map(|connection| connection.socket.clone()).collect();
                if !passing.is_empty() {
                    self.tell(worker, ToWorker::Pass(passing), sockets);
                }
            }
            (_, Reception::Refused(_)) => {
                for connection in self.parking.turn_away() {
                    if let Some((socket, unread)) = connection.into_socket() {
                        self.visit(socket.into(), unread);
                    }
                }
            }
            (_, Reception::Worker | Reception::Watched | Reception::Held) => {}
        }
    }

    fn settle_reception(&mut self) {
        let Some((key, listener)) = self.listener.clone() else { return };
        self.short_until.take_if(|until| *until <= Instant::now());
        let wanted = match self.life.reception() {
            Reception::Watched | Reception::Refused(_) => self.short_until.is_none(),
            Reception::Worker | Reception::Held => false,
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
            Phase::Backoff { until, reason, .. } => match self.life.reception() {
                Reception::Refused(_) => Err(Unavailable {
                    retry_after: until.saturating_duration_since(Instant::now()),
                    cause: self.cause(),
                    reason: reason.clone(),
                }),
                Reception::Held | Reception::Watched | Reception::Worker => return,
            },
            Phase::Barred { reason } => Err(Unavailable {
                retry_after: Unavailable::BARRED,
                cause: self.cause(),
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

    /// Why no worker is started.
    fn cause(&self) -> Cause {
        match self.listener {
            Some(_) => Cause::Ended,
            None => Cause::PortTaken(self.tenant.port),
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
