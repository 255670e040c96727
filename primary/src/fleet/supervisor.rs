//! One tenant's supervisor: performs what the [`Life`] decides and brings back what came of it.
//!
//! The only writer of its tenant's state. Everything that happens arrives in its inbox, so that
//! nothing is decided in two places. Others read a snapshot, and use the links of the current
//! worker without asking. Owns the tenant's parts ([`Listening`], [`Parking`], [`Workers`],
//! [`Callers`], [`Reports`]: each brings itself in line when it is told to settle) and the tasks that
//! serve its workers. In files of their own: what it does for who asks for state while no worker
//! serves functions ([`keeping`]), and with connections that change hands ([`passing`]).

mod keeping;
mod passing;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_wire::{
    FromWorker, GenerationNumber, Moment, Respite, Serves, Setting, Start, ToWorker, TokenGrant,
    VERSION, What,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::callers::{Callers, Told};
use super::error::{Cause, FleetError, SwapError};
use super::handle::{Handle, Snapshot};
use super::inbox::{Answer, Command, Inbox, Newborn, StartError};
use super::keeper::Keeper;
use super::lifecycle::{Action, Event, Life, Phase, Reception, Swap, WorkerId};
use super::links::Links;
use super::listening::Listening;
use super::parking::Parking;
use super::reports::Reports;
use super::shared::Shared;
use super::sockets::{Heard, Key};
use super::start::{Known, fork, start};
use super::status::WorkerStatus;
use super::talk::{Talk, accompany};
use super::told::AllTold;
use super::turning::Turning;
use super::unbound::Unbound;
use super::workers::{Worker, Workers};
use super::{sockets, swap, zygote};
use crate::fail::{self, Point};
use crate::patience::LAST_LOOK;
use crate::store::Tenant;
use crate::telemetry;

/// Commands of one tenant that wait for its supervisor.
const INBOX: usize = 256;
/// Messages that wait for one worker to read them.
const OUTGOING: usize = 512;
/// Of what a worker gives as its reason.
const REASON_MAX_BYTES: usize = 1 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    Shutdown,
    Remove,
}

pub struct Supervisor {
    tenant: Tenant,
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Box<Command>>,
    to_self: Inbox,
    snapshot: watch::Sender<Snapshot>,
    life: Life,
    listening: Listening,
    heard: Arc<Heard>,
    parking: Parking,
    turning: Turning,
    workers: Workers,
    callers: Callers,
    keeper: Keeper,
    /// Those who wait for it.
    for_state: Callers,
    swap: Option<swap::Asked>,
    told: AllTold,
    reports: Reports,
    /// Answered once what follows from the stop can be seen.
    stop_asked: Vec<Answer<Result<(), FleetError>>>,
    last_end: Option<String>,
    /// Whether the last start came to nothing since the tenant's secrets could not be opened.
    sealed: bool,
    ending: Ending,
    /// When it was noticed that a worker is late.
    noticed_late: Option<Instant>,
    tasks: JoinSet<()>,
}

impl Supervisor {
    pub fn new(tenant: Tenant, tokens: Vec<TokenGrant>, shared: Arc<Shared>) -> (Self, Handle) {
        let (to_self, inbox) = mpsc::channel(INBOX);
        let life = Life::new(tenant.generation);
        let first = Snapshot { status: WorkerStatus::of(&life, shared.isolation), links: None };
        let (snapshot, seen) = watch::channel(first);
        let handle = Handle { inbox: to_self.clone(), snapshot: seen };
        let heard = Arc::new(Heard::default());
        let parking = Parking::new(shared.sockets.clone(), heard.clone());
        let sockets = shared.sockets.clone();
        let supervisor = Self {
            listening: Listening::new(&tenant, sockets, heard.clone()),
            workers: Workers::new(tenant.name.clone()),
            turning: Turning::new(shared.turned.clone()),
            tenant,
            shared,
            inbox,
            to_self,
            snapshot,
            life,
            heard,
            parking,
            callers: Callers::default(),
            keeper: Keeper::default(),
            for_state: Callers::default(),
            swap: None,
            told: AllTold::new([What::Tokens(tokens)]),
            reports: Reports::default(),
            stop_asked: Vec::new(),
            last_end: None,
            sealed: false,
            ending: Ending::No,
            noticed_late: None,
            tasks: JoinSet::new(),
        };
        (supervisor, handle)
    }

    /// Gives it the listener that was bound for the tenant; without one it says why there is none.
    pub fn with_listener(mut self, listener: std::io::Result<OwnedFd>) -> Self {
        self.enter(listener).unwrap_or_else(|unbound| self.is_unbound(unbound));
        self.publish();
        self
    }

    fn enter(&mut self, bound: std::io::Result<OwnedFd>) -> Result<(), Unbound> {
        self.listening.enter(bound, (self.shared.tenant_bind, self.tenant.port))
    }

    fn listen(&mut self) -> Result<(), FleetError> {
        if self.listening.had().is_err() {
            let bound = sockets::bind(self.shared.tenant_bind, self.tenant.port);
            let entered = self.enter(bound);
            if let (Err(unbound), Phase::Barred { .. }) = (entered, &self.life.current) {
                // It may be for another reason than before.
                self.is_unbound(unbound);
                self.publish();
            }
            entered?;
        }
        Ok(())
    }

    fn is_unbound(&mut self, unbound: Unbound) {
        let (word, remedy) = (unbound.word(), unbound.remedy());
        let reason = format!("{word}: {unbound}; {remedy}, then start the worker");
        self.life.current = Phase::Barred { reason };
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
                    Some(command) => self.take(*command),
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
            if self.ending != Ending::No && self.workers.is_empty() {
                break;
            }
        }
        self.listening.leave(self.tenant.port);
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
        let resumes = self.life.resumes().into_iter().chain(self.listening.resumes());
        let parts = self.parking.deadline().into_iter().chain(self.keeper.deadline());
        late.into_iter().chain(resumes).chain(parts).min()
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
            Command::Wake(answer) => self.callers.wait(answer).then_some(Event::Wanted),
            Command::Keep(answer) => {
                self.keep(answer);
                None
            }
            Command::Swap(next, answer) => {
                if self.swap.is_some() {
                    let _ = answer.send(Err(SwapError::Busy));
                    return None;
                }
                let asked = self.swap.insert(swap::Asked::new(next, answer));
                Some(Event::Swap(asked.generation()))
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
                for worker in self.workers.ids() {
                    self.workers.tell(worker, message.clone(), vec![]);
                }
                None
            }
            Command::Report(answer) => {
                self.reports.ask(answer);
                None
            }
            Command::End(reason) => {
                self.workers.kill_all(&reason);
                None
            }
            Command::Shutdown => {
                self.ending = Ending::Shutdown;
                self.dismiss_keeper();
                Some(Event::Shutdown)
            }
            Command::Hurry => {
                self.hurry_keeper();
                Some(Event::Hurry)
            }
            Command::Remove => {
                self.ending = Ending::Remove;
                self.hurry_keeper();
                self.workers.doom();
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
                let live = self.workers.remove(worker)?;
                self.told.gone(worker);
                self.keeper.gone(worker);
                live.links.close();
                let reason = live.killed.unwrap_or(reason);
                let tenant = &self.tenant.name;
                info!(%tenant, pid = live.pid, worker = worker.0, reason, "worker ended");
                if reason != "ended" {
                    let labels = [("tenant", tenant.to_string())];
                    metrics::counter!("hearth_worker_deaths_total", &labels).increment(1);
                }
                self.last_end = Some(reason.clone());
                self.listening.listen_again();
                Some(Event::Died(worker, reason))
            }
            Command::Committed(Ok(())) => Some(Event::Committed),
            Command::Committed(Err(reason)) => Some(Event::CommitFailed(reason)),
            Command::FromWorker(worker, message) => self.heard(worker, message),
        }
    }

    fn heard(&mut self, worker: WorkerId, message: FromWorker) -> Option<Event> {
        match message {
            FromWorker::Ready { version: VERSION, load_us, walls_us } => {
                let live = self.workers.get_mut(worker)?;
                live.starting = None;
                // It has nothing to report of a time before it was ready.
                live.reported = self.reports.serial();
                let walls = Duration::from_micros(walls_us);
                metrics::histogram!("hearth_walls_seconds").record(walls);
                info!(tenant = %self.tenant.name, pid = live.pid, worker = worker.0, load_us, "worker ready");
                self.keeper.ready(worker, Instant::now());
                Some(Event::Ready(worker))
            }
            FromWorker::Ready { version, .. } => {
                self.workers.kill(
                    worker,
                    format!("the worker speaks version {version}, and the host speaks {VERSION}"),
                );
                None
            }
            FromWorker::Refused { mut reason } => {
                // Before the next one starts from them, its files are looked at.
                self.shared.generations.recheck(self.tenant.id);
                // It exits by itself; this is the reason that its owner is told.
                reason.truncate(reason.floor_char_boundary(REASON_MAX_BYTES));
                let live = self.workers.get_mut(worker)?;
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
                let live = self.workers.get_mut(worker)?;
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
                let live = self.workers.get_mut(worker)?;
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

    fn forked(&mut self, worker: WorkerId, newborn: Result<Newborn, StartError>) -> Option<Event> {
        let doomed = self.workers.forked(worker);
        if newborn.is_err() {
            self.told.gone(worker);
            self.keeper.gone(worker);
        }
        let newborn = match newborn {
            Ok(newborn) => newborn,
            Err(_) if doomed => return None,
            Err(StartError::Sealed(reason)) => {
                self.sealed = true;
                warn!(tenant = %self.tenant.name, reason, "a tenant is not served");
                return Some(Event::Barred(worker, reason));
            }
            Err(StartError::Generation(reason)) => {
                self.last_end = Some(reason.clone());
                return Some(Event::Died(worker, reason));
            }
            Err(StartError::Host(reason)) => {
                warn!(tenant = %self.tenant.name, reason, "a worker could not be forked");
                return Some(Event::NotForked(worker, reason));
            }
        };
        self.sealed = false;
        let pidfd = match zygote::watch_pidfd(newborn.forked.pidfd) {
            Ok(pidfd) => Arc::new(pidfd),
            // Without it nobody would hear of its end; it ends with its control socket.
            Err(error) => {
                self.told.gone(worker);
                self.keeper.gone(worker);
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
        let live = Worker {
            pid: newborn.forked.pid,
            pidfd,
            outgoing,
            links,
            reported: 0,
            starting: Some(newborn.permit),
            killed: None,
        };
        self.workers.add(worker, live);
        for message in self.told.lives(worker) {
            self.workers.tell(worker, message, vec![]);
        }
        if doomed {
            self.workers.kill(worker, "it is not wanted any more".to_owned());
        }
        self.keeper.forked(worker, Instant::now());
        Some(Event::Forked(worker))
    }

    fn sockets_wait(&mut self, keys: Vec<Key>) -> Option<Event> {
        let mut event = None;
        for key in keys {
            if self.listening.is(key) {
                event = self.connection_waits();
            } else {
                self.parking.look_at(key);
            }
        }
        event
    }

    fn connection_waits(&mut self) -> Option<Event> {
        self.listening.told();
        match self.life.reception() {
            Reception::Watched if self.listening.is_called() => {
                self.callers.notice();
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

    /// Takes the connections that wait for a worker that will not come, to be told so.
    fn turn_away(&mut self) {
        for stream in self.listening.take() {
            let (reception, cause) = (self.life.reception(), self.cause());
            self.turning.turn(&self.tenant, (stream, Vec::new()), reception, cause);
        }
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
                let settings = self.swap_begins(worker);
                self.workers.fork(worker);
                let start = self.start_of(worker, generation, Serves::Functions);
                let known = Known { settings, told: self.told.forks(worker) };
                self.tasks.spawn(fork(
                    start,
                    worker,
                    known,
                    self.tenant.clone(),
                    self.listening.listener(),
                    self.to_self.clone(),
                    self.shared.clone(),
                ));
            }
            Action::Accept(worker) => {
                fail::moment(Point::WorkerAccept);
                self.callers.accepted();
                self.workers.tell(worker, ToWorker::Accept, vec![]);
            }
            Action::Finish(worker, within) => {
                self.workers.tell(worker, ToWorker::Finish(Respite::now(within)), vec![]);
            }
            Action::Quiesce(worker) => {
                fail::moment(Point::WorkerQuiesce);
                self.workers.close_links(worker);
                self.workers.tell(worker, ToWorker::Quiesce, vec![]);
            }
            Action::Close(worker) => {
                self.workers.close_links(worker);
                self.workers.tell(worker, ToWorker::Close, vec![]);
            }
            Action::Leave(worker) => {
                self.workers.close_links(worker);
                self.workers.tell(worker, ToWorker::Leave, vec![]);
            }
            Action::Kill(worker, reason) => self.workers.kill(worker, reason),
            Action::Commit(_) => match self.swap.as_mut().and_then(swap::Asked::commit) {
                Some(commit) => {
                    fail::moment(Point::SwapReady);
                    let inbox = self.to_self.clone();
                    self.tasks.spawn(async move {
                        let _ = inbox.send(Box::new(Command::Committed(commit.await))).await;
                    });
                }
                None => return Some(Event::Committed),
            },
            Action::Answer(swapped) => {
                if let Some(asked) = self.swap.take() {
                    fail::moment(Point::SwapAnswer);
                    asked.end(swapped);
                }
            }
        }
        None
    }

    /// What this worker is told, where a swap starts it.
    fn swap_begins(&mut self, with: WorkerId) -> Option<Vec<Setting>> {
        match (&self.life.swap, &mut self.swap) {
            (Some(Swap::Loading { worker, .. }), Some(asked)) if *worker == with => asked.begins(),
            _ => None,
        }
    }

    fn start_of(&self, worker: WorkerId, generation: GenerationNumber, serves: Serves) -> Start {
        let wakes = matches!(self.life.current, Phase::Starting { worker: current, .. } if current == worker);
        let woken_at = self.callers.woken_at().filter(|_| wakes).map(Moment::from);
        start(&self.tenant.name, generation, serves, woken_at, &self.shared)
    }

    /// Brings the listener, the waiting callers and the snapshot in line with the state.
    fn settle(&mut self) {
        for answer in self.told.answered() {
            let _ = answer.send(());
        }
        self.reports.settle(&mut self.workers);
        self.settle_parking();
        self.settle_reception();
        self.settle_callers();
        self.settle_keeper();
        self.publish();
        for asked in self.stop_asked.drain(..) {
            let _ = asked.send(Ok(()));
        }
    }

    /// Ends the workers that do not go in time by what they were told, and waits for that.
    fn end_who_stays_behind(&mut self, now: Instant) {
        for (worker, subject) in self.told.late(now) {
            self.workers.kill(worker, format!("it did not take new {} in time", subject.as_str()));
        }
    }

    fn settle_reception(&mut self) {
        let is_wanted = match self.life.reception() {
            Reception::Watched | Reception::Refused(_) => true,
            Reception::Worker | Reception::Held => false,
        };
        self.listening.settle(is_wanted);
    }

    fn settle_callers(&mut self) {
        if self.callers.is_empty() {
            return;
        }
        if self.life.current == Phase::Asleep {
            self.callers.notice();
            self.step(Event::Wanted);
        }
        let answer = match Told::of(&self.life, self.cause(), Instant::now()) {
            Told::Wait => return,
            Told::Worker(worker) => match self.workers.get(worker) {
                Some(live) => Ok(live.links.clone()),
                // It has died and its end is in the inbox.
                None => return,
            },
            Told::Unavailable(unavailable) => Err(unavailable),
        };
        self.callers.answer(&answer);
    }

    /// Why no worker is started.
    fn cause(&self) -> Cause {
        let ended = if self.sealed { Cause::Sealed } else { Cause::Ended };
        self.listening.had().map_or_else(Cause::Unbound, |()| ended)
    }

    fn publish(&self) {
        let mut status = WorkerStatus::of(&self.life, self.shared.isolation);
        let worker = match &self.life.current {
            Phase::Ready { worker, .. } | Phase::Starting { worker, .. } => Some(*worker),
            Phase::Asleep | Phase::Backoff { .. } | Phase::Barred { .. } | Phase::Stopped => {
                self.life.draining.last().map(|draining| draining.worker)
            }
        };
        let live = worker.and_then(|worker| self.workers.get(worker));
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
