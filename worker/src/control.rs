//! The worker's life, from what it inherited to its end, and the driver of its control socket.
//!
//! ```text
//!             Accept              idle               Leave
//!  Standby ───────────► Accepting ─────► Leaving ────────────┐
//!     │                     │               │                ▼   the last connection
//!     └──── Quiesce, Close ─┴───────────────┴──────────► Draining ───────► (exit)
//! ```
//!
//! A drain has a time, where the primary gives one: at its end the calls that still run are given
//! up, and a moment later what is left of them is cut, so that each is answered or on record before
//! the primary loses its patience. Uploads on their way to it are no calls, and go on.
//!
//! [`Life`] decides and is pure; [`run`] performs. In a drain the connections that are between
//! two requests go to the primary, one batch at a time; in any state it may bring some, which
//! were another worker's or came in at the front door. The end of the control socket ends the
//! worker in any state: without its primary it is nobody's.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hearth_jail::WallError;
use hearth_wire::{
    Channel, Entry, FromWorker, Moment, Passing, SocketError, Start, ToWorker, VERSION, What,
    complain,
};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags};
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admit::Grants;
use crate::call::Calls;
use crate::check;
use crate::connection::{self, Arrival, Departure, Drain};
use crate::finish::{Finish, Time};
use crate::generation::{self, Generation};
use crate::instance::Instances;
use crate::limits::{Activity, ActivityCount, Newcomers, Permits, Ticker, connections};
use crate::peer::{Peer, Trusted};
use crate::report::Reporter;
use crate::serve::Tenant;
use crate::threads;
use crate::uplink::Uplinks;
use crate::zygote::{Base, Inherited, explain};

/// After an accept failed for want of something, which time gives back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// After newcomers were too many: most of those who wait meanwhile and never ask have gone then,
/// and are taken together.
const CROWD_PAUSE: Duration = Duration::from_millis(5);
/// Read of a connection that has waited, before it is one of this worker's.
const FIRST_BYTES: usize = 4 << 10;
/// For the last words to the primary.
const FAREWELL: Duration = Duration::from_secs(2);
/// From giving calls up to cutting what is left of them: for what their callers are told.
const CUT_AFTER: Duration = Duration::from_millis(500);

/// How a worker ended.
pub enum End {
    Done,
    Refused,
}

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("the control socket broke")]
    Socket(#[source] SocketError),
    #[error("the primary is gone")]
    Gone,
    #[error("the primary said something else than expected: {0}")]
    Unexpected(String),
    #[error("the primary speaks version {0} and this worker {VERSION}")]
    Version(u32),
    #[error(transparent)]
    Wall(#[from] WallError),
    #[error("the runtime cannot be built")]
    Runtime(#[source] io::Error),
    #[error("a socket cannot be taken")]
    Sockets(#[source] io::Error),
    #[error("a check against a schema did not come to its end")]
    Stuck,
}

impl From<SocketError> for WorkerError {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Io(io) if io.kind() == io::ErrorKind::BrokenPipe => Self::Gone,
            error => Self::Socket(error),
        }
    }
}

/// From a check that is stuck to the end of its worker.
const STUCK_GRACE: Duration = Duration::from_millis(200);

/// Serves one generation of one tenant, to the end.
pub fn run(inherited: Inherited) -> Result<End, WorkerError> {
    match live(inherited) {
        Err(WorkerError::Gone) => Ok(End::Done),
        lived => lived,
    }
}

fn live(inherited: Inherited) -> Result<End, WorkerError> {
    let Inherited { control, listener, release, base, seal, cell, fenced_in } = inherited;
    let Some((first, _)) = hearth_wire::recv::<ToWorker>(&control)? else { return Ok(End::Done) };
    let ToWorker::Start(start) = first else {
        return Err(WorkerError::Unexpected(format!("{first:?} before Start")));
    };
    if start.version != VERSION {
        return Err(WorkerError::Version(start.version));
    }
    let began = Instant::now();
    let (generation, trusted) = match prepare(&base, &release, &start) {
        Ok(prepared) => prepared,
        Err(reason) => {
            hearth_wire::send(&control, &FromWorker::Refused { reason }, &[])?;
            return Ok(End::Refused);
        }
    };
    drop(release);
    let Base { engine, linker, bundle, handlers } = base;
    // For good, like everything of the zygote's: to free it would copy its pages first.
    std::mem::forget((linker, bundle, handlers));
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().max_blocking_threads(check::THREADS);
    if cell.shares_threads() {
        runtime.thread_keep_alive(threads::KEPT);
    }
    let runtime = runtime.build().map_err(WorkerError::Runtime)?;
    let limits = generation.manifest.limits;
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let ended = runtime.block_on(async {
        let (grants, seen) = watch::channel(Arc::new(Grants::new()));
        // For good as well.
        let tenant = ManuallyDrop::new(Arc::new(Tenant {
            name: start.tenant.clone(),
            trusted,
            domain: start.domain.clone(),
            ticker: Ticker::new(engine.clone()),
            engine,
            generation,
            grants: seen,
            permits: Permits::new(&limits, began),
            newcomers: Newcomers::new(&limits, began),
            room: check::Room::new(),
            connections: AtomicUsize::new(0),
            activity: ActivityCount::new(),
            uploads: ActivityCount::new(),
            finish: Finish::new(),
            calls: Calls::default(),
            instances: Instances::default(),
            reporter: Reporter::new(limits.log_bytes_per_second),
            uplinks: Uplinks::new(),
        }));
        // Never closed but by the process's end: the filter trusts its number.
        let channel = ManuallyDrop::new(Channel::new(control).map_err(SocketError::from)?);
        // Everything is loaded and built, and nothing that a stranger sent was looked at.
        let loaded = Instant::now();
        seal.close(forbidden)?;
        if cell.shares_threads() {
            threads::start_all(&tenant.ticker).map_err(WorkerError::Runtime)?;
            hearth_jail::no_more_threads()?;
        }
        let us = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let ready = FromWorker::Ready {
            version: VERSION,
            load_us: us(loaded - began),
            walls_us: us(fenced_in + loaded.elapsed()),
        };
        channel.send(&ready, &[]).await?;
        let driver = Driver {
            channel: &channel,
            tenant: &tenant,
            grants,
            drain: watch::Sender::new(Drain::No),
            connections: JoinSet::new(),
            links: JoinSet::new(),
            uplinks: JoinSet::new(),
            listening: Listening::NotYet(listener),
            arriving: VecDeque::new(),
            departing: VecDeque::new(),
            passing: false,
            woken_at: start.woken_at.map(Moment::instant),
            most_connections: connections(&limits, descriptors),
        };
        let life = Life { state: State::Standby, idle: start.idle, finish_by: None };
        let end = tokio::select! {
            end = driver.drive(life) => end,
            broken = tenant.reporter.keep_sending(&channel) => {
                broken.map(|()| Farewell::Alone).map_err(WorkerError::from)
            }
        };
        if let Farewell::Told = end? {
            tenant.calls.finish().await;
            // The primary may be gone or busy; nothing is owed to it beyond this.
            let _ = tokio::time::timeout(FAREWELL, tenant.reporter.send_all(&channel)).await;
        }
        Ok(End::Done)
    });
    // A check that is stuck is not waited for.
    runtime.shutdown_background();
    ended
}

/// The last words of a worker that made a call which its walls forbid. Runs within a signal.
fn forbidden(call: u32, message: &mut [u8]) -> usize {
    hearth_wire::encode_into(&FromWorker::Forbidden { call }, message)
}

/// What can fail because of the generation, with its reason for the primary.
fn prepare(base: &Base, release: &OwnedFd, start: &Start) -> Result<(Generation, Trusted), String> {
    let generation = generation::load(base, release, start).map_err(|error| explain(&error))?;
    let networks = start.trusted_proxies.iter().map(|network| {
        network.parse().map_err(|_| format!("`{network}` is no network of trusted proxies"))
    });
    let headers = start
        .trusted_headers
        .iter()
        .map(|name| name.parse().map_err(|_| format!("`{name}` is not a valid name of a header")));
    let trusted = Trusted {
        networks: networks.collect::<Result<_, _>>()?,
        headers: headers.collect::<Result<_, _>>()?,
    };
    Ok((generation, trusted))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Standby,
    Accepting {
        /// A worker that is accepting and never called is idle from here on.
        since: Instant,
    },
    Leaving,
    Draining(Left),
}

/// What there still is of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Calls run, for as long as there is time.
    Calls,
    /// They are given up, since then.
    GivenUp(Instant),
    /// They are cut, and just ending.
    Cut,
    /// Nothing but uploads.
    Uploads,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Accept,
    Quiesce,
    Close,
    Leave,
    /// It has until then to finish what runs, once it is told to.
    Finish(Instant),
    /// Time went on, or a call ended.
    Clock(Activity),
    /// Nothing is left but uploads.
    OnlyUploads,
    /// No connection and no call is left, and none is on its way.
    Empty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    StartAccepting,
    StopAccepting,
    SayAccepting,
    SayQuiesced,
    SayLeaving,
    SayCallsDone,
    /// No further request is taken from now on.
    HandOver,
    /// The same, and connections are closed.
    CloseConnections,
    GiveUpCalls,
    CutCalls,
    Exit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    state: State,
    idle: Duration,
    /// Until when calls may run in a drain. `None` where nobody has said.
    finish_by: Option<Instant>,
}

impl Life {
    /// When the clock is to be asked again: at the end of the idle time, or when that could be
    /// at the earliest.
    fn alarm(&self, activity: Activity, now: Instant) -> Option<Instant> {
        match self.state {
            State::Accepting { since } if activity.calls == 0 => {
                Some(activity.quiet_since.max(since) + self.idle)
            }
            State::Accepting { .. } => Some(now + self.idle),
            State::Draining(Left::Calls) => self.finish_by,
            State::Draining(Left::GivenUp(since)) => Some(since + CUT_AFTER),
            State::Standby | State::Leaving | State::Draining(Left::Cut | Left::Uploads) => None,
        }
    }

    fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        use Action::*;
        if let Event::Finish(by) = event {
            self.finish_by = Some(self.finish_by.map_or(by, |before| before.min(by)));
            return vec![];
        }
        let draining = State::Draining(Left::Calls);
        let (state, actions) = match (self.state, event) {
            (State::Standby, Event::Accept) => {
                (State::Accepting { since: now }, vec![StartAccepting, SayAccepting])
            }
            (State::Standby | State::Accepting { .. } | State::Leaving, Event::Quiesce) => {
                (draining, vec![StopAccepting, HandOver, SayQuiesced])
            }
            (State::Standby | State::Accepting { .. } | State::Leaving, Event::Close) => {
                (draining, vec![StopAccepting, CloseConnections, SayQuiesced])
            }
            (state @ State::Draining(_), Event::Close) => (state, vec![CloseConnections]),
            (State::Accepting { .. }, Event::Clock(activity))
                if activity.calls == 0
                    && self.alarm(activity, now).is_some_and(|alarm| alarm <= now) =>
            {
                (State::Leaving, vec![StopAccepting, SayLeaving])
            }
            (State::Leaving, Event::Leave) => (draining, vec![HandOver]),
            (State::Draining(Left::Calls), Event::Clock(_))
                if self.finish_by.is_some_and(|by| by <= now) =>
            {
                (State::Draining(Left::GivenUp(now)), vec![GiveUpCalls])
            }
            (State::Draining(Left::GivenUp(since)), Event::Clock(_))
                if since + CUT_AFTER <= now =>
            {
                (State::Draining(Left::Cut), vec![CutCalls])
            }
            (State::Draining(Left::Calls | Left::GivenUp(_) | Left::Cut), Event::OnlyUploads) => {
                (State::Draining(Left::Uploads), vec![SayCallsDone])
            }
            (state @ State::Draining(_), Event::Empty) => (state, vec![Exit]),
            // Crossed on the way, or nothing to do yet.
            (
                state @ State::Standby,
                Event::Leave | Event::Clock(_) | Event::OnlyUploads | Event::Empty,
            )
            | (
                state @ State::Accepting { .. },
                Event::Accept | Event::Leave | Event::Clock(_) | Event::OnlyUploads | Event::Empty,
            )
            | (
                state @ State::Leaving,
                Event::Accept | Event::Clock(_) | Event::OnlyUploads | Event::Empty,
            )
            | (
                state @ State::Draining(_),
                Event::Accept
                | Event::Quiesce
                | Event::Leave
                | Event::Clock(_)
                | Event::OnlyUploads,
            )
            | (state, Event::Finish(_)) => (state, vec![]),
        };
        self.state = state;
        actions
    }
}

enum Listening {
    NotYet(OwnedFd),
    Now(TcpListener),
    /// Accepting failed, or a crowd comes; the listener rests until then.
    Paused(TcpListener, tokio::time::Instant),
    NoMore,
}

/// Whether somebody is there to be told the last things.
enum Farewell {
    Told,
    Alone,
}

struct Driver<'a> {
    channel: &'a Channel,
    tenant: &'a Arc<Tenant>,
    grants: watch::Sender<Arc<Grants>>,
    drain: watch::Sender<Drain>,
    connections: JoinSet<Option<Departure<TcpStream>>>,
    links: JoinSet<()>,
    uplinks: JoinSet<()>,
    listening: Listening,
    /// Brought by the primary, which has not heard yet that they came.
    arriving: VecDeque<(OwnedFd, Passing)>,
    /// To be passed to the primary.
    departing: VecDeque<Departure<TcpStream>>,
    /// Whether the primary has not confirmed the last ones.
    passing: bool,
    woken_at: Option<Instant>,
    most_connections: u64,
}

impl Driver<'_> {
    async fn drive(mut self, mut life: Life) -> Result<Farewell, WorkerError> {
        loop {
            self.settle_connections().await?;
            let (calls, uploads) = (self.tenant.activity.now(), self.tenant.uploads.now());
            let seen = calls.and(uploads);
            let now = Instant::now();
            let mut actions = life.step(Event::Clock(seen), now);
            if self.is_empty() && seen.calls == 0 {
                actions.extend(life.step(Event::Empty, now));
            } else if self.has_only(uploads.calls) && calls.calls == 0 {
                actions.extend(life.step(Event::OnlyUploads, now));
            }
            if let Some(end) = self.perform(actions).await? {
                return Ok(end);
            }
            let alarm = life.alarm(seen, now);
            let drains = matches!(life.state, State::Draining(_));
            let waits_for_calls = (drains || self.is_empty()) && calls.calls > 0;
            let waits_for_uploads = self.is_empty() && uploads.calls > 0;
            let idle = async {
                match alarm {
                    Some(alarm) => tokio::time::sleep_until(alarm.into()).await,
                    None => std::future::pending().await,
                }
            };
            let room = self.has_room();
            self.tenant.connections.store(self.connections.len(), Ordering::Relaxed);
            tokio::select! {
                message = self.channel.recv::<ToWorker>() => {
                    let Some((message, fds)) = message? else { return Ok(Farewell::Alone) };
                    let actions = self.heard(message, fds, &mut life).await?;
                    if let Some(end) = self.perform(actions).await? {
                        return Ok(end);
                    }
                }
                accepted = next_connection(&self.listening), if room => {
                    match accepted {
                        Some(accepted) => {
                            // Whoever woke this worker came before.
                            self.woken_at = None;
                            self.accepted(accepted);
                        }
                        None => self.accept_waiting().map_err(WorkerError::Sockets)?,
                    }
                }
                Some(ended) = self.connections.join_next() => {
                    self.departing.extend(ended.ok().flatten());
                }
                () = self.tenant.permits.thinned(), if !self.arriving.is_empty() => {}
                Some(_) = self.links.join_next() => {}
                Some(_) = self.uplinks.join_next() => {}
                () = self.tenant.room.stuck() => {
                    // Whoever waited for it is told first.
                    tokio::time::sleep(STUCK_GRACE).await;
                    return Err(WorkerError::Stuck);
                }
                kind = self.tenant.uplinks.wanted() => {
                    self.channel.send(&FromWorker::WantUplink { kind }, &[]).await?;
                }
                () = self.tenant.activity.quiet(), if waits_for_calls => {}
                () = self.tenant.uploads.quiet(), if waits_for_uploads => {}
                () = idle => {}
            }
        }
    }

    async fn heard(
        &mut self,
        message: ToWorker,
        fds: Vec<OwnedFd>,
        life: &mut Life,
    ) -> Result<Vec<Action>, WorkerError> {
        let now = Instant::now();
        match message {
            ToWorker::Start(_) => Err(WorkerError::Unexpected("Start twice".to_owned())),
            ToWorker::Told { serial, what } => {
                let subject = what.subject();
                self.apply(what);
                self.channel.send(&FromWorker::Applied { serial, what: subject }, &[]).await?;
                Ok(vec![])
            }
            ToWorker::Accept => Ok(life.step(Event::Accept, now)),
            ToWorker::Quiesce => Ok(life.step(Event::Quiesce, now)),
            ToWorker::Close => Ok(life.step(Event::Close, now)),
            ToWorker::Leave => Ok(life.step(Event::Leave, now)),
            ToWorker::Pass(passing) => {
                if passing.len() != fds.len() {
                    return Err(unexpected(&fds));
                }
                self.arriving.extend(fds.into_iter().zip(passing));
                Ok(vec![])
            }
            ToWorker::Passed => {
                self.passing = false;
                Ok(vec![])
            }
            ToWorker::Link(origin) => {
                let stream = unix_stream(fds)?;
                let stream = UnixStream::from_std(stream).map_err(WorkerError::Sockets)?;
                let arrival = Arrival::new(stream, Peer::Link(origin), self.woken_at.take());
                let served =
                    connection::serve(arrival, Arc::clone(self.tenant), self.drain.subscribe());
                self.links.spawn(async {
                    served.await;
                });
                Ok(vec![])
            }
            ToWorker::Finish(respite) => Ok(life.step(Event::Finish(respite.end()), now)),
            ToWorker::Report { serial } => {
                // A call whose last byte is on its way may just be coming to its end.
                tokio::task::yield_now().await;
                self.tenant.reporter.send_all(self.channel).await?;
                self.channel.send(&FromWorker::Reported { serial }, &[]).await?;
                Ok(vec![])
            }
            ToWorker::AreYouAlive => {
                self.channel.send(&FromWorker::Alive, &[]).await?;
                Ok(vec![])
            }
            ToWorker::Uplink { kind } => {
                let socket = unix_stream(fds)?;
                match self.tenant.uplinks.open(kind, socket).await {
                    Ok(connection) => {
                        self.uplinks.spawn(connection);
                    }
                    Err(error) => {
                        let kind = kind.as_str();
                        complain(format_args!("hearth-worker: no {kind} uplink: {error}"));
                    }
                }
                Ok(vec![])
            }
        }
    }

    /// Goes by what it is told from now on.
    fn apply(&mut self, what: What) {
        match what {
            What::Tokens(grants) => {
                let grants = grants.into_iter().map(|grant| (grant.digest, grant));
                self.grants.send_replace(Arc::new(HashMap::from_iter(grants)));
            }
        }
    }

    async fn perform(&mut self, actions: Vec<Action>) -> Result<Option<Farewell>, WorkerError> {
        for action in actions {
            match action {
                Action::StartAccepting => self.accept_waiting().map_err(WorkerError::Sockets)?,
                // Nothing can be accepted after this: it is done on the thread that accepts.
                Action::StopAccepting => self.listening = Listening::NoMore,
                Action::SayAccepting => self.channel.send(&FromWorker::Accepting, &[]).await?,
                Action::SayQuiesced => self.channel.send(&FromWorker::Quiesced, &[]).await?,
                Action::SayLeaving => self.channel.send(&FromWorker::Leaving, &[]).await?,
                Action::SayCallsDone => self.channel.send(&FromWorker::CallsDone, &[]).await?,
                // Neither can a request be taken after these: connections look before they read.
                Action::HandOver => {
                    self.drain.send_replace(Drain::HandOver);
                }
                Action::CloseConnections => {
                    self.drain.send_replace(Drain::Close(Instant::now()));
                }
                Action::GiveUpCalls => self.tenant.finish.is(Time::Up),
                Action::CutCalls => self.tenant.finish.is(Time::Over),
                Action::Exit => return Ok(Some(Farewell::Told)),
            }
        }
        Ok(None)
    }

    /// Takes the connections that have waited for this worker, and listens for more.
    fn accept_waiting(&mut self) -> io::Result<()> {
        let listener = match std::mem::replace(&mut self.listening, Listening::NoMore) {
            Listening::NotYet(listener) => TcpListener::from_std(listener.into())?,
            Listening::Now(listener) | Listening::Paused(listener, _) => listener,
            Listening::NoMore => return Ok(()),
        };
        let mut accepted = Ok(());
        while accepted.is_ok() && self.has_room() {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(&listener, flags) {
                Ok(stream) => accepted = self.waited(stream.into()),
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.listening = Listening::Now(listener);
        if let Err(pause) = accepted {
            self.rest(pause);
        }
        Ok(())
    }

    /// Of a connection that has waited, something may have come, or its end. `Err` is for how long
    /// no other should be taken.
    fn waited(&mut self, stream: std::net::TcpStream) -> Result<(), Duration> {
        let Some(unread) = first_bytes(&stream) else {
            // Nobody is there any more, and it has cost next to nothing.
            return self.tenant.newcomers.take(Instant::now());
        };
        let peer = stream.peer_addr();
        match peer.and_then(|peer| Ok((TcpStream::from_std(stream)?, peer))) {
            Ok((stream, peer)) => self.newcomer(stream, peer, unread),
            Err(_) => Ok(()),
        }
    }

    fn accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, peer)) => {
                if let Err(pause) = self.newcomer(stream, peer, Bytes::new()) {
                    self.rest(pause);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => self.rest(ACCEPT_PAUSE),
        }
    }

    /// Serves a connection from outside. `Err` is for how long no other should be taken.
    fn newcomer(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        unread: Bytes,
    ) -> Result<(), Duration> {
        // Fails on a connection that is gone already, which its first read will tell.
        let _ = stream.set_nodelay(true);
        let peer = Peer::Tcp(peer.ip(), Entry::Port);
        // The first one in the queue is the one that woke this worker.
        let arrival = Arrival { unread, ..Arrival::new(stream, peer, self.woken_at.take()) };
        let counted = self.tenant.newcomers.take(arrival.since);
        self.serve(Arrival { is_newcomer: counted.is_ok(), ..arrival });
        counted
    }

    /// Accepts nothing for so long, and at least for a moment.
    fn rest(&mut self, pause: Duration) {
        let until = tokio::time::Instant::now() + pause.max(CROWD_PAUSE);
        self.listening = match std::mem::replace(&mut self.listening, Listening::NoMore) {
            Listening::Now(listener) => Listening::Paused(listener, until),
            other => other,
        };
    }

    fn serve(&mut self, arrival: Arrival<TcpStream>) {
        let (tenant, drain) = (Arc::clone(self.tenant), self.drain.subscribe());
        self.connections.spawn(connection::serve(arrival, tenant, drain));
    }

    fn is_empty(&self) -> bool {
        self.connections.is_empty()
            && self.links.is_empty()
            && self.arriving.is_empty()
            && self.departing.is_empty()
            && !self.passing
    }

    /// Whether there is no connection but those on which so many uploads come.
    fn has_only(&self, uploads: usize) -> bool {
        self.connections.len() <= uploads
            && self.links.is_empty()
            && self.arriving.is_empty()
            && self.departing.is_empty()
            && !self.passing
    }

    fn has_room(&self) -> bool {
        (self.connections.len() as u64) < self.most_connections
    }

    /// Takes the connections that the primary brought, and passes on those that leave.
    async fn settle_connections(&mut self) -> Result<(), WorkerError> {
        let room = self.has_room() && !self.tenant.permits.are_crowded();
        if !self.arriving.is_empty() && room {
            // Before anything is read of them: until it hears this, the primary would bring them
            // to somebody else if this worker died.
            self.channel.send(&FromWorker::Passed, &[]).await?;
            for (socket, passing) in std::mem::take(&mut self.arriving) {
                let woken_at = self.woken_at.take();
                // Fails on a connection that is gone already.
                if let Ok(arrival) = arrival_of(socket, passing, woken_at) {
                    self.serve(arrival);
                }
            }
            // What they ask is counted before more of them are taken.
            tokio::task::yield_now().await;
        }
        if !self.passing && !self.departing.is_empty() {
            let most = Passing::batch(self.departing.iter().map(|leaves| leaves.unread.len()));
            let batch: Vec<_> = self.departing.drain(..most).filter_map(passing_of).collect();
            let (sockets, passing): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            self.channel.send(&FromWorker::Pass(passing), &sockets).await?;
            self.passing = true;
        }
        Ok(())
    }
}

fn arrival_of(
    socket: OwnedFd,
    passing: Passing,
    woken_at: Option<Instant>,
) -> io::Result<Arrival<TcpStream>> {
    let stream = std::net::TcpStream::from(nonblocking(socket)?);
    let peer = Peer::Tcp(stream.peer_addr()?.ip(), passing.entry);
    let (unread, since) = (passing.unread.into(), passing.since.instant());
    let stream = TcpStream::from_std(stream)?;
    Ok(Arrival { unread, since, ..Arrival::new(stream, peer, woken_at) })
}

/// `None` for what is not passed on: the primary has its own links.
fn passing_of(departure: Departure<TcpStream>) -> Option<(OwnedFd, Passing)> {
    let Departure { stream, peer: Peer::Tcp(_, entry), unread, since } = departure else {
        return None;
    };
    // Takes it off this process's epoll as well, which would go on reporting it.
    let socket = OwnedFd::from(stream.into_std().ok()?);
    Some((socket, Passing { unread: unread.into(), since: since.into(), entry }))
}

/// The next connection from outside, if this worker takes any. `None` where some may have waited.
/// Cancel-safe.
async fn next_connection(listening: &Listening) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    match listening {
        Listening::Now(listener) => Some(listener.accept().await),
        Listening::Paused(_, rest) => {
            tokio::time::sleep_until(*rest).await;
            None
        }
        Listening::NotYet(_) | Listening::NoMore => std::future::pending().await,
    }
}

/// What has come of a connection already. `None` where its client has gone without a word.
fn first_bytes(stream: &std::net::TcpStream) -> Option<Bytes> {
    let mut bytes = [0; FIRST_BYTES];
    match rustix::net::recv(stream, &mut bytes, RecvFlags::DONTWAIT) {
        Ok((0, _)) => None,
        Ok((come, _)) => Some(Bytes::copy_from_slice(&bytes[..come])),
        Err(Errno::AGAIN | Errno::INTR) => Some(Bytes::new()),
        Err(_) => None,
    }
}

/// A stream socket that came with a message.
fn unix_stream(fds: Vec<OwnedFd>) -> Result<std::os::unix::net::UnixStream, WorkerError> {
    let [socket] = <[OwnedFd; 1]>::try_from(fds).map_err(|fds| unexpected(&fds))?;
    Ok(nonblocking(socket).map_err(WorkerError::Sockets)?.into())
}

/// The flag belongs to the open file, which others may hold, so that no worker may change it; and
/// one that blocks would hold up everybody.
fn nonblocking(socket: OwnedFd) -> io::Result<OwnedFd> {
    match rustix::fs::fcntl_getfl(&socket)?.contains(OFlags::NONBLOCK) {
        true => Ok(socket),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket that blocks")),
    }
}

fn unexpected(fds: &[OwnedFd]) -> WorkerError {
    WorkerError::Unexpected(format!("{} descriptors with a socket's message", fds.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{
        CloseConnections, CutCalls, Exit, GiveUpCalls, HandOver, SayAccepting, SayCallsDone,
        SayLeaving, SayQuiesced, StartAccepting, StopAccepting,
    };

    const IDLE: Duration = Duration::from_secs(60);

    /// Every state by every event: the state after it and what is done.
    #[test]
    fn every_state_by_every_event() {
        let start = Instant::now();
        let now = start + IDLE;
        let accepting = State::Accepting { since: start };
        let quiet = Event::Clock(Activity { calls: 0, quiet_since: start });
        let recent =
            Event::Clock(Activity { calls: 0, quiet_since: start + Duration::from_secs(1) });
        let busy = Event::Clock(Activity { calls: 1, quiet_since: start });
        let draining = State::Draining(Left::Calls);
        let [given_up, long_ago] = [now, start].map(|since| State::Draining(Left::GivenUp(since)));
        let [cut, uploads] = [Left::Cut, Left::Uploads].map(State::Draining);
        let begun = State::Accepting { since: now };
        let quiesced: &[Action] = &[StopAccepting, HandOver, SayQuiesced];
        let closed: &[Action] = &[StopAccepting, CloseConnections, SayQuiesced];
        let table: [(State, Event, State, &[Action]); 52] = [
            (State::Standby, Event::Accept, begun, &[StartAccepting, SayAccepting]),
            (State::Standby, Event::Quiesce, draining, quiesced),
            (State::Standby, Event::Close, draining, closed),
            (State::Standby, Event::Leave, State::Standby, &[]),
            (State::Standby, quiet, State::Standby, &[]),
            (State::Standby, recent, State::Standby, &[]),
            (State::Standby, busy, State::Standby, &[]),
            (State::Standby, Event::Empty, State::Standby, &[]),
            (accepting, Event::Accept, accepting, &[]),
            (accepting, Event::Quiesce, draining, quiesced),
            (accepting, Event::Close, draining, closed),
            (accepting, Event::Leave, accepting, &[]),
            (accepting, quiet, State::Leaving, &[StopAccepting, SayLeaving]),
            (accepting, recent, accepting, &[]),
            (accepting, busy, accepting, &[]),
            (accepting, Event::Empty, accepting, &[]),
            (begun, quiet, begun, &[]),
            (begun, recent, begun, &[]),
            (begun, busy, begun, &[]),
            (begun, Event::Empty, begun, &[]),
            (State::Leaving, Event::Accept, State::Leaving, &[]),
            (State::Leaving, Event::Quiesce, draining, quiesced),
            (State::Leaving, Event::Close, draining, closed),
            (State::Leaving, Event::Leave, draining, &[HandOver]),
            (State::Leaving, quiet, State::Leaving, &[]),
            (State::Leaving, recent, State::Leaving, &[]),
            (State::Leaving, busy, State::Leaving, &[]),
            (State::Leaving, Event::Empty, State::Leaving, &[]),
            (draining, Event::Accept, draining, &[]),
            (draining, Event::Quiesce, draining, &[]),
            (draining, Event::Close, draining, &[CloseConnections]),
            (draining, Event::Leave, draining, &[]),
            (draining, quiet, draining, &[]),
            (draining, recent, draining, &[]),
            (draining, busy, draining, &[]),
            (draining, Event::Empty, draining, &[Exit]),
            (State::Standby, Event::OnlyUploads, State::Standby, &[]),
            (accepting, Event::OnlyUploads, accepting, &[]),
            (State::Leaving, Event::OnlyUploads, State::Leaving, &[]),
            (draining, Event::OnlyUploads, uploads, &[SayCallsDone]),
            (given_up, Event::OnlyUploads, uploads, &[SayCallsDone]),
            (cut, Event::OnlyUploads, uploads, &[SayCallsDone]),
            (uploads, Event::OnlyUploads, uploads, &[]),
            (given_up, busy, given_up, &[]),
            (long_ago, busy, cut, &[CutCalls]),
            (cut, busy, cut, &[]),
            (uploads, busy, uploads, &[]),
            (given_up, Event::Close, given_up, &[CloseConnections]),
            (uploads, Event::Close, uploads, &[CloseConnections]),
            (given_up, Event::Empty, given_up, &[Exit]),
            (cut, Event::Empty, cut, &[Exit]),
            (uploads, Event::Empty, uploads, &[Exit]),
        ];
        for (before, event, after, actions) in table {
            let mut life = Life { state: before, idle: IDLE, finish_by: None };
            assert_eq!(life.step(event, now), actions, "{before:?} {event:?}");
            assert_eq!(life.state, after, "{before:?} {event:?}");
        }
    }

    #[test]
    fn the_alarm_is_the_end_of_the_idle_time() {
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        let life = |state| Life { state, idle: IDLE, finish_by: None };
        let quiet = |quiet_since| Activity { calls: 0, quiet_since };
        let accepting = life(State::Accepting { since: start });
        assert_eq!(accepting.alarm(quiet(later), later), Some(later + IDLE));
        let busy = Activity { calls: 2, quiet_since: start };
        assert_eq!(accepting.alarm(busy, later), Some(later + IDLE));
        let accepting = life(State::Accepting { since: later });
        assert_eq!(accepting.alarm(quiet(start), later), Some(later + IDLE));
        for state in [State::Standby, State::Leaving, State::Draining(Left::Calls)] {
            assert_eq!(life(state).alarm(quiet(start), later), None, "{state:?}");
        }
    }

    /// Whatever it is told, and however often, calls have the least of the times that they were given.
    #[test]
    fn calls_run_until_their_time_is_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let busy = Event::Clock(Activity { calls: 1, quiet_since: start });
        let begun = State::Accepting { since: start };
        let mut life = Life { state: begun, idle: IDLE, finish_by: None };
        for event in [Event::Finish(at(30)), busy, Event::Quiesce] {
            assert!(!life.step(event, at(40)).contains(&GiveUpCalls), "it is no drain yet");
        }
        let mut life = Life { state: begun, idle: IDLE, finish_by: None };
        assert_eq!(life.step(Event::Quiesce, start), [StopAccepting, HandOver, SayQuiesced]);
        assert_eq!(life.step(busy, at(1_000)), [], "nobody has said when");
        assert_eq!(life.step(Event::Finish(at(30)), start), []);
        assert_eq!(life.step(busy, at(29)), []);
        let Event::Clock(seen) = busy else { unreachable!() };
        assert_eq!(life.alarm(seen, at(29)), Some(at(30)));
        assert_eq!(life.step(Event::Finish(at(10)), start), [], "it is hurried");
        assert_eq!(life.step(Event::Finish(at(60)), start), [], "and has no more time for that");
        assert_eq!(life.step(busy, at(10)), [GiveUpCalls]);
        assert_eq!(life.alarm(seen, at(10)), Some(at(10) + CUT_AFTER));
        assert_eq!(life.step(busy, at(10)), []);
        assert_eq!(life.step(busy, at(10) + CUT_AFTER), [CutCalls]);
        assert_eq!(life.alarm(seen, at(11)), None);
        assert_eq!(life.step(busy, at(100)), []);
    }
}
