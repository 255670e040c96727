//! The driver of a worker's control socket: hears what the primary says, and performs what
//! [`Life`] decides.
//!
//! In a drain the connections that are between two requests go to the primary, one batch at a time;
//! in any state it may bring some, which were another worker's or came in at the front door. The
//! end of the control socket ends the worker in any state: without its primary it is nobody's. How
//! a connection is served is [`crate::connection`]'s.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hearth_wire::{Channel, Entry, FromWorker, Passing, ToWorker, What, complain};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admit::Grants;
use crate::connection::{self, Arrival, Departure, Drain};
use crate::finish::Time;
use crate::life::{Action, Event, Life, State, WorkerError};
use crate::peer::Peer;
use crate::serving::Serving;
use crate::state::sql;

/// After an accept failed for want of something, which time gives back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// After newcomers were too many: most of those who wait meanwhile and never ask have gone then,
/// and are taken together.
const CROWD_PAUSE: Duration = Duration::from_millis(5);
/// Read of a connection that has waited, before it is one of this worker's.
const FIRST_BYTES: usize = 4 << 10;
/// From a check that is stuck to the end of its worker.
const STUCK_GRACE: Duration = Duration::from_millis(200);

/// Whether somebody is there to be told the last things.
pub enum Farewell {
    Told,
    Alone,
}

enum Listening {
    NotYet(OwnedFd),
    Now(TcpListener),
    /// Accepting failed, or a crowd comes; the listener rests until then.
    Paused(TcpListener, tokio::time::Instant),
    NoMore,
}

pub struct Driver<'a> {
    channel: &'a Channel,
    serving: &'a Arc<Serving>,
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

impl<'a> Driver<'a> {
    /// With the listener that it does not listen on yet, and since when somebody waits for it.
    pub fn new(
        channel: &'a Channel,
        serving: &'a Arc<Serving>,
        grants: watch::Sender<Arc<Grants>>,
        listener: OwnedFd,
        woken_at: Option<Instant>,
        most_connections: u64,
    ) -> Self {
        Self {
            channel,
            serving,
            grants,
            drain: watch::Sender::new(Drain::No),
            connections: JoinSet::new(),
            links: JoinSet::new(),
            uplinks: JoinSet::new(),
            listening: Listening::NotYet(listener),
            arriving: VecDeque::new(),
            departing: VecDeque::new(),
            passing: false,
            woken_at,
            most_connections,
        }
    }

    /// Until the life's end.
    pub async fn drive(mut self, mut life: Life) -> Result<Farewell, WorkerError> {
        loop {
            self.settle_connections().await?;
            let (calls, uploads) =
                (self.serving.doing.activity.now(), self.serving.doing.uploads.now());
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
            // A guest without end does not keep this waiting, either.
            let _aim = alarm.filter(|_| drains).map(|at| self.serving.doing.ticker.aim(at));
            let idle = async {
                match alarm {
                    Some(alarm) => tokio::time::sleep_until(alarm.into()).await,
                    None => std::future::pending().await,
                }
            };
            let room = self.has_room();
            self.serving.room.connections.store(self.connections.len(), Ordering::Relaxed);
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
                () = self.serving.room.permits.thinned(), if !self.arriving.is_empty() => {}
                Some(_) = self.links.join_next() => {}
                Some(_) = self.uplinks.join_next() => {}
                () = self.serving.room.checks.stuck() => {
                    // Whoever waited for it is told first.
                    tokio::time::sleep(STUCK_GRACE).await;
                    return Err(WorkerError::Stuck);
                }
                () = sql::over() => return Err(WorkerError::Overtime),
                kind = self.serving.uplinks.wanted() => {
                    self.channel.send(&FromWorker::WantUplink { kind }, &[]).await?;
                }
                () = self.serving.doing.activity.quiet(), if waits_for_calls => {}
                () = self.serving.doing.uploads.quiet(), if waits_for_uploads => {}
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
            ToWorker::Settings(_) => {
                Err(WorkerError::Unexpected("more settings than were told of".to_owned()))
            }
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
                    connection::serve(arrival, Arc::clone(self.serving), self.drain.subscribe());
                self.links.spawn(async {
                    served.await;
                });
                Ok(vec![])
            }
            ToWorker::Finish(respite) => Ok(life.step(Event::Finish(respite.end()), now)),
            ToWorker::Report { serial } => {
                // A call whose last byte is on its way may just be coming to its end.
                tokio::task::yield_now().await;
                self.serving.reporter.send_all(self.channel).await?;
                self.channel.send(&FromWorker::Reported { serial }, &[]).await?;
                Ok(vec![])
            }
            ToWorker::AreYouAlive => {
                self.channel.send(&FromWorker::Alive, &[]).await?;
                Ok(vec![])
            }
            ToWorker::Uplink { kind } => {
                let socket = unix_stream(fds)?;
                match self.serving.uplinks.open(kind, socket).await {
                    Ok(connection) => {
                        self.uplinks.spawn(connection);
                    }
                    Err(error) => {
                        let kind = kind.as_str();
                        complain(format_args!(
                            "hearth-worker: the {kind} uplink could not be opened: {error}"
                        ));
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
                Action::GiveUpCalls => self.serving.doing.finish.is(Time::Up),
                Action::CutCalls => self.serving.doing.finish.is(Time::Over),
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
            return self.serving.room.newcomers.take(Instant::now());
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
        let counted = self.serving.room.newcomers.take(arrival.since);
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
        let (serving, drain) = (Arc::clone(self.serving), self.drain.subscribe());
        self.connections.spawn(connection::serve(arrival, serving, drain));
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
        let room = self.has_room() && !self.serving.room.permits.are_crowded();
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
