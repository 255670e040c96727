//! One tenant's connections while they are nobody's: between two requests, and between the
//! worker that had them and the one that will.
//!
//! ```text
//!  from a worker ──► silent ── spoke ──► awake ── batch ──► passing ── confirmed ──► a worker's
//!  from the front door ───────────────────► ▲                  │
//!                                           └── it died ───────┘
//! ```
//!
//! A silent one is watched and costs a descriptor. It is dropped when its client closes it, and
//! closed when it has been silent for as long as a worker would have kept it. One that has
//! something to say goes on to a worker; when there is one is the supervisor's to know. Until
//! the worker has confirmed it a copy stays here, so that it survives that worker's death.
//! Nothing is read of a connection here but whether there is something to read. Empty lines are
//! nothing: they are taken off, since they would go on waking its owner.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use hearth_connection::begins_head;
use hearth_wire::limits::{CONNECTIONS_MAX, SILENCE_MAX, UNREAD_MAX_BYTES};
use hearth_wire::{Entry, Passing};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketType, sockopt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use super::conversation::Nonsense;
use super::lifecycle::WorkerId;
use super::sockets::{Heard, Key, Sockets, Watch};

/// Bytes of one tenant that were read by one worker and wait for the next.
const UNREAD_TOTAL_MAX: usize = 8 << 20;
/// Of empty lines, taken off at once. Who sends more of them means something by it, and is told by
/// a worker how much a head may have.
const BLANK_MAX: usize = 64;

/// A connection between two requests.
pub struct Connection {
    pub socket: Arc<OwnedFd>,
    pub unread: Vec<u8>,
    /// Since when it waits for its client.
    pub since: Instant,
    pub entry: Entry,
    /// The kernel's own number of the socket.
    cookie: u64,
    _room: OwnedSemaphorePermit,
}

/// Where a tenant's connections can have come in.
#[derive(Debug, Clone, Copy)]
pub struct Entries {
    pub port: SocketAddr,
    pub front: SocketAddr,
}

impl Connection {
    /// Checks what came from a worker, which may be hostile. `None` where the connection is gone
    /// meanwhile, or where the host has no room for it.
    pub fn inspect(
        socket: OwnedFd,
        passing: Passing,
        entries: Entries,
        room: &Arc<Semaphore>,
    ) -> Result<Option<Self>, Nonsense> {
        if passing.unread.len() > UNREAD_MAX_BYTES {
            return Err(Nonsense::TooMuch);
        }
        let is = |found: rustix::io::Result<bool>| match found {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Nonsense::NoConnection),
        };
        is(sockopt::socket_type(&socket).map(|kind| kind == SocketType::STREAM))?;
        is(sockopt::socket_protocol(&socket)
            .map(|protocol| protocol == Some(rustix::net::ipproto::TCP)))?;
        is(sockopt::socket_acceptconn(&socket).map(|listens| !listens))?;
        let local = rustix::net::getsockname(&socket).map_err(|_| Nonsense::NoConnection)?;
        let local = SocketAddr::try_from(local).map_err(|_| Nonsense::NoConnection)?;
        let entry = if came_in_at(entries.port, local) {
            Entry::Port
        } else if came_in_at(entries.front, local) {
            Entry::Front
        } else {
            return Err(Nonsense::Foreign);
        };
        if rustix::net::getpeername(&socket).is_err() {
            return Ok(None);
        }
        Ok(Self::new(socket, passing.unread, passing.since.instant(), entry, room).ok())
    }

    /// It comes back where the host has no room for it.
    pub fn new(
        socket: OwnedFd,
        unread: Vec<u8>,
        since: Instant,
        entry: Entry,
        room: &Arc<Semaphore>,
    ) -> Result<Self, (OwnedFd, Vec<u8>)> {
        match (sockopt::socket_cookie(&socket), room.clone().try_acquire_owned()) {
            (Ok(cookie), Ok(_room)) => {
                Ok(Self { socket: Arc::new(socket), unread, since, entry, cookie, _room })
            }
            (Err(_), _) | (_, Err(_)) => Err((socket, unread)),
        }
    }

    pub fn passing(&self) -> Passing {
        Passing { unread: self.unread.clone(), since: self.since.into(), entry: self.entry }
    }

    /// The socket itself, where nobody else has a copy on its way.
    pub fn into_socket(self) -> Option<(OwnedFd, Vec<u8>)> {
        Some((Arc::into_inner(self.socket)?, self.unread))
    }

    fn look(&self) -> Look {
        if !self.unread.is_empty() {
            return Look::Speaks;
        }
        let mut bytes = [0; BLANK_MAX];
        match rustix::net::recv(&self.socket, &mut bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((0, _)) => Look::Gone,
            Ok((come, _)) if come == BLANK_MAX || begins_head(&bytes[..come]) => Look::Speaks,
            Ok((come, _)) => {
                // Whoever else reads of it meanwhile is its own tenant's, and has the loss.
                let _ = rustix::net::recv(&self.socket, &mut bytes[..come], RecvFlags::DONTWAIT);
                Look::Silent
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => Look::Silent,
            Err(_) => Look::Gone,
        }
    }
}

fn came_in_at(bound: SocketAddr, local: SocketAddr) -> bool {
    let ip = bound.ip().to_canonical();
    bound.port() == local.port() && (ip.is_unspecified() || ip == local.ip().to_canonical())
}

enum Look {
    Silent,
    Speaks,
    Gone,
}

pub struct Parking {
    sockets: Arc<Sockets>,
    heard: Arc<Heard>,
    silent: HashMap<Key, Connection>,
    /// The silent ones, longest first.
    by_age: BTreeSet<(Instant, Key)>,
    awake: VecDeque<Connection>,
    /// With a worker that has not confirmed them.
    passing: HashMap<WorkerId, Vec<Connection>>,
    /// Of all that are here: a worker can send one connection twice.
    cookies: HashSet<u64>,
}

impl Parking {
    /// `heard` is told the keys of silent ones that [`Parking::look_at`] is to be asked about.
    pub fn new(sockets: Arc<Sockets>, heard: Arc<Heard>) -> Self {
        Self {
            sockets,
            heard,
            silent: HashMap::new(),
            by_age: BTreeSet::new(),
            awake: VecDeque::new(),
            passing: HashMap::new(),
            cookies: HashSet::new(),
        }
    }

    /// Those that are with no worker.
    pub fn len(&self) -> usize {
        self.silent.len() + self.awake.len()
    }

    pub fn is_full(&self) -> bool {
        self.len() >= CONNECTIONS_MAX
    }

    pub fn has_awake(&self) -> bool {
        !self.awake.is_empty()
    }

    /// Takes one in. `goes_on` says that a worker is there for it, whether it speaks or not.
    pub fn take(&mut self, connection: Connection, goes_on: bool) {
        let unread: usize = self.awake.iter().map(|waits| waits.unread.len()).sum();
        if unread + connection.unread.len() > UNREAD_TOTAL_MAX {
            return;
        }
        if !self.cookies.insert(connection.cookie) {
            return;
        }
        if goes_on || !connection.unread.is_empty() {
            self.awake.push_back(connection);
        } else {
            self.watch(connection);
        }
        while self.len() > CONNECTIONS_MAX {
            let longest = self.by_age.first().map(|(_, key)| *key);
            let closed = match longest {
                Some(key) => self.unwatch(key),
                None => self.awake.pop_front(),
            };
            let Some(closed) = closed else { break };
            self.forget(&closed);
        }
    }

    fn watch(&mut self, connection: Connection) {
        match self.sockets.enter(&connection.socket, Watch::Spoken, self.heard.clone()) {
            Ok(key) => {
                self.by_age.insert((connection.since, key));
                self.silent.insert(key, connection);
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "a connection cannot be parked");
                self.forget(&connection);
            }
        }
    }

    fn unwatch(&mut self, key: Key) -> Option<Connection> {
        let connection = self.silent.remove(&key)?;
        self.by_age.remove(&(connection.since, key));
        self.sockets.leave(key, &connection.socket);
        Some(connection)
    }

    fn forget(&mut self, connection: &Connection) {
        self.cookies.remove(&connection.cookie);
    }

    /// Something happened on this one, if it is here.
    pub fn look_at(&mut self, key: Key) {
        let Some(connection) = self.unwatch(key) else { return };
        match connection.look() {
            Look::Speaks => self.awake.push_back(connection),
            Look::Silent => self.watch(connection),
            Look::Gone => self.forget(&connection),
        }
    }

    /// When [`Parking::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.by_age.first().map(|(since, _)| *since + SILENCE_MAX)
    }

    /// Closes those that have been silent for too long.
    pub fn expire(&mut self, now: Instant) {
        while let Some((since, key)) = self.by_age.first().copied()
            && since + SILENCE_MAX <= now
        {
            let Some(connection) = self.unwatch(key) else { return };
            match connection.look() {
                Look::Speaks => self.awake.push_back(connection),
                Look::Silent | Look::Gone => self.forget(&connection),
            }
        }
    }

    /// The next ones for this worker. None while it has not confirmed the last.
    pub fn pass_to(&mut self, worker: WorkerId) -> Option<&[Connection]> {
        if self.awake.is_empty() || self.passing.contains_key(&worker) {
            return None;
        }
        let most = Passing::batch(self.awake.iter().map(|waits| waits.unread.len()));
        let batch = self.awake.drain(..most).collect();
        Some(self.passing.entry(worker).insert_entry(batch).into_mut())
    }

    /// The worker has them, and with them whatever they say.
    pub fn passed(&mut self, worker: WorkerId) {
        for connection in self.passing.remove(&worker).into_iter().flatten() {
            self.forget(&connection);
        }
    }

    /// The worker is dead. What it has not confirmed it has not read.
    pub fn returned(&mut self, worker: WorkerId) {
        for connection in self.passing.remove(&worker).into_iter().flatten().rev() {
            self.awake.push_front(connection);
        }
    }

    /// Those that have something to say to a worker that will not come.
    pub fn turn_away(&mut self) -> Vec<Connection> {
        let turned: Vec<_> = self.awake.drain(..).collect();
        for connection in &turned {
            self.forget(connection);
        }
        turned
    }

    /// Closes those that have nothing to say.
    pub fn close_silent(&mut self) {
        for key in self.silent.keys().copied().collect::<Vec<_>>() {
            if let Some(connection) = self.unwatch(key) {
                self.forget(&connection);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::time::Duration;

    use hearth_wire::Moment;

    struct Lot {
        listener: TcpListener,
        room: Arc<Semaphore>,
        heard: Arc<Heard>,
        parking: Parking,
    }

    const ONE: WorkerId = WorkerId(1);

    impl Lot {
        fn new() -> Self {
            let sockets = Arc::new(Sockets::new().unwrap());
            tokio::spawn({
                let sockets = sockets.clone();
                async move { sockets.run().await }
            });
            let heard = Arc::new(Heard::default());
            Self {
                listener: TcpListener::bind("127.0.0.1:0").unwrap(),
                room: Arc::new(Semaphore::new(10_000)),
                heard: heard.clone(),
                parking: Parking::new(sockets, heard),
            }
        }

        fn entries(&self) -> Entries {
            let nowhere = "127.0.0.1:1".parse().unwrap();
            Entries { port: self.listener.local_addr().unwrap(), front: nowhere }
        }

        fn connect(&self) -> (TcpStream, TcpStream) {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            (client, self.listener.accept().unwrap().0)
        }

        fn passed_on(
            &self,
            socket: impl Into<OwnedFd>,
            unread: &[u8],
        ) -> Result<Option<Connection>, Nonsense> {
            let since = Moment::now();
            let passing = Passing { unread: unread.to_vec(), since, entry: Entry::Front };
            Connection::inspect(socket.into(), passing, self.entries(), &self.room)
        }

        fn park(&mut self, unread: &[u8]) -> TcpStream {
            let (client, server) = self.connect();
            let connection = self.passed_on(server, unread).unwrap().unwrap();
            self.parking.take(connection, false);
            client
        }

        async fn hear(&mut self) {
            for key in self.heard.keys().await {
                self.parking.look_at(key);
            }
        }
    }

    fn batch(parking: &mut Parking, worker: WorkerId) -> usize {
        parking.pass_to(worker).map_or(0, <[_]>::len)
    }

    #[tokio::test]
    async fn who_speaks_goes_on_and_who_leaves_is_forgotten() {
        let mut lot = Lot::new();
        let (mut speaks, leaves) = (lot.park(b""), lot.park(b""));
        let _said = lot.park(b"GET");
        assert_eq!((lot.parking.len(), batch(&mut lot.parking, ONE)), (3, 1));
        drop(leaves);
        lot.hear().await;
        assert_eq!(lot.parking.len(), 1);
        speaks.write_all(b"GET").unwrap();
        // The last request of a client that sends no other.
        speaks.shutdown(std::net::Shutdown::Write).unwrap();
        lot.hear().await;
        assert_eq!(batch(&mut lot.parking, ONE), 0, "it has not confirmed the one before");
        lot.parking.passed(ONE);
        assert_eq!(batch(&mut lot.parking, ONE), 1);
        lot.parking.passed(ONE);
        assert!(lot.parking.len() == 0 && lot.parking.cookies.is_empty());
        assert_eq!(lot.room.available_permits(), 10_000);
    }

    #[tokio::test]
    async fn empty_lines_are_taken_off_and_what_comes_behind_them_speaks() {
        let mut lot = Lot::new();
        let mut client = lot.park(b"");
        let deadline = lot.parking.deadline();
        for blank in ["\r\n", "\n", "\r", &"\n".repeat(BLANK_MAX - 1)] {
            client.write_all(blank.as_bytes()).unwrap();
            lot.hear().await;
            assert!(!lot.parking.has_awake() && lot.parking.len() == 1, "{blank:?}");
            assert_eq!(lot.parking.deadline(), deadline, "it waits no longer for them");
        }
        client.write_all(b"\r\nGET").unwrap();
        lot.hear().await;
        assert_eq!(batch(&mut lot.parking, ONE), 1);
        lot.parking.passed(ONE);
        let mut floods = lot.park(b"");
        floods.write_all(&[b'\n'; BLANK_MAX]).unwrap();
        lot.hear().await;
        assert_eq!(batch(&mut lot.parking, ONE), 1);
    }

    #[tokio::test]
    async fn what_a_dead_worker_did_not_confirm_comes_first_again() {
        let mut lot = Lot::new();
        let _clients = [lot.park(b"1"), lot.park(b"2")];
        assert_eq!(batch(&mut lot.parking, ONE), 2);
        let _third = lot.park(b"3");
        lot.parking.returned(ONE);
        let again = lot.parking.pass_to(WorkerId(2)).unwrap();
        let unread: Vec<_> = again.iter().map(|connection| &connection.unread[..]).collect();
        assert_eq!(unread, [b"1", b"2", b"3"]);
        lot.parking.passed(ONE);
        assert_eq!(lot.parking.passing.len(), 1, "a dead one confirms nothing");
    }

    #[tokio::test]
    async fn silence_ends() {
        let mut lot = Lot::new();
        let mut client = lot.park(b"");
        let deadline = lot.parking.deadline().unwrap();
        lot.parking.expire(deadline - Duration::from_millis(1));
        assert_eq!(lot.parking.len(), 1);
        lot.parking.expire(deadline);
        assert_eq!((lot.parking.len(), lot.parking.deadline()), (0, None));
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "closed, and not reset");
    }

    #[tokio::test]
    async fn the_longest_silent_makes_room() {
        let mut lot = Lot::new();
        let mut clients: Vec<_> = (0..=CONNECTIONS_MAX).map(|_| lot.park(b"")).collect();
        assert!(lot.parking.is_full() && lot.parking.len() == CONNECTIONS_MAX);
        assert_eq!(clients[0].read(&mut [0]).unwrap(), 0);
        lot.room = Arc::new(Semaphore::new(0));
        let (_client, server) = lot.connect();
        assert!(lot.passed_on(server, b"").unwrap().is_none(), "the host has no room");
    }

    #[tokio::test]
    async fn what_a_worker_may_pass_on() {
        let mut lot = Lot::new();
        let (client, server) = lot.connect();
        let twice = server.try_clone().unwrap();
        let connection = lot.passed_on(server, b"").unwrap().unwrap();
        assert_eq!(connection.entry, Entry::Port, "its word does not count");
        lot.parking.take(connection, false);
        let again = lot.passed_on(twice, b"").unwrap().unwrap();
        lot.parking.take(again, false);
        assert_eq!(lot.parking.len(), 1);

        let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
        let _their_client = TcpStream::connect(foreign.local_addr().unwrap()).unwrap();
        let theirs = foreign.accept().unwrap().0;
        let (pipe, _writer) = std::io::pipe().unwrap();
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        for (socket, nonsense) in [
            (OwnedFd::from(theirs), Nonsense::Foreign),
            (client.into(), Nonsense::Foreign),
            (lot.listener.try_clone().unwrap().into(), Nonsense::NoConnection),
            (UdpSocket::bind("127.0.0.1:0").unwrap().into(), Nonsense::NoConnection),
            (pipe.into(), Nonsense::NoConnection),
            (unix.into(), Nonsense::NoConnection),
        ] {
            let found = lot.passed_on(socket, b"").err().map(|found| found.to_string());
            assert_eq!(found, Some(nonsense.to_string()));
        }
        let (_client, server) = lot.connect();
        let giant = vec![0; UNREAD_MAX_BYTES + 1];
        assert!(matches!(lot.passed_on(server, &giant), Err(Nonsense::TooMuch)));
    }
}
