//! The tenants' sockets: binds their listeners, and tells which of the watched ones has
//! something waiting, be it a listener or a parked connection.
//!
//! One nested epoll stands behind one handle of the runtime, so that ten thousand sleeping
//! tenants cost a registration in the kernel each and no time. A watch is one-shot: it fires
//! once and must be armed again. Whether it should be is the supervisor's to know.
//!
//! A socket is one open file that a worker can share, so nothing here blocks on it or changes
//! its flags after binding.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dashmap::DashMap;
use hearth_wire::watch;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// Connections that wait in the kernel for a worker; the kernel caps it at `somaxconn`.
const BACKLOG: i32 = 4_096;
/// What the kernel keeps of answers for one client that does not read them: it doubles this, and
/// would go up to some megabytes by itself. Enough for 5 MB/s to the other side of the earth.
const UNREAD_ANSWER_BYTES: usize = 256 << 10;
/// After this long without a sign that a client has what was sent, the kernel gives the connection
/// up, and what it keeps of it, even where the process that had it is gone. Longer than whoever
/// serves it waits.
const UNREAD_MAX_MS: u32 = 75_000;
/// Events taken from the kernel at once.
const BATCH: usize = 256;

/// A tenant's listening socket, bound for as long as the tenant lives.
pub fn bind(ip: IpAddr, port: u16) -> io::Result<OwnedFd> {
    let address = SocketAddr::new(ip, port);
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bound_unread(&socket)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// A socket that is nobody's, in the place of a listener that a worker is not to have.
pub fn unbound() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?)
}

/// Bounds what each connection that comes to this listener can have in the kernel.
pub fn bound_unread(listener: impl AsFd) -> io::Result<()> {
    sockopt::set_socket_send_buffer_size(&listener, UNREAD_ANSWER_BYTES)?;
    Ok(sockopt::set_tcp_user_timeout(&listener, UNREAD_MAX_MS)?)
}

/// A worker has the listener itself, and can have shut it down for everybody: it listens again.
pub fn listen_again(listener: BorrowedFd<'_>) -> io::Result<()> {
    if !sockopt::socket_acceptconn(listener)? {
        rustix::net::listen(listener, BACKLOG)?;
    }
    Ok(())
}

/// Whether a connection waits there.
pub fn is_called(listener: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&listener, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
}

/// Takes one waiting connection, if there is one.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<std::net::TcpStream>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match rustix::net::accept_with(listener, flags) {
        Ok(stream) => Ok(Some(stream.into())),
        Err(Errno::WOULDBLOCK | Errno::CONNABORTED) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// What a watched socket is watched for: a connection, bytes, the other side's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Nothing, for now.
    Unarmed,
    Readable,
    /// Readable, or closed by the other side.
    Spoken,
}

impl Watch {
    fn flags(self) -> epoll::EventFlags {
        let flags = match self {
            Self::Unarmed => epoll::EventFlags::empty(),
            Self::Readable => epoll::EventFlags::IN,
            Self::Spoken => epoll::EventFlags::IN | epoll::EventFlags::RDHUP,
        };
        flags | epoll::EventFlags::ONESHOT
    }
}

/// A watched socket; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

/// Where the owner of some sockets hears of them.
#[derive(Default)]
pub struct Heard {
    keys: Mutex<Vec<Key>>,
    told: Notify,
}

impl Heard {
    /// Those that something waits at; waits for the first. Cancel-safe.
    pub async fn keys(&self) -> Vec<Key> {
        loop {
            let keys = std::mem::take(&mut *self.keys.lock().expect("no one panics with it"));
            if !keys.is_empty() {
                return keys;
            }
            self.told.notified().await;
        }
    }

    fn tell(&self, key: Key) {
        self.keys.lock().expect("no one panics with it").push(key);
        self.told.notify_one();
    }
}

/// Watches any number of sockets.
pub struct Sockets {
    epoll: AsyncFd<OwnedFd>,
    owners: DashMap<Key, Arc<Heard>>,
    last_key: AtomicU64,
}

impl Sockets {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let epoll = watch(epoll, Interest::READABLE)?;
        Ok(Self { epoll, owners: DashMap::new(), last_key: AtomicU64::new(0) })
    }

    /// Enters a socket, whose owner hears of it once for each time it is armed.
    pub fn enter(&self, socket: impl AsFd, watch: Watch, owner: Arc<Heard>) -> io::Result<Key> {
        let key = Key(self.last_key.fetch_add(1, Ordering::Relaxed) + 1);
        // First, since it can fire at once.
        self.owners.insert(key, owner);
        let data = epoll::EventData::new_u64(key.0);
        match epoll::add(self.epoll.get_ref(), socket, data, watch.flags()) {
            Ok(()) => Ok(key),
            Err(errno) => {
                self.owners.remove(&key);
                Err(errno.into())
            }
        }
    }

    /// Fires at once if something is waiting already.
    pub fn arm(&self, key: Key, socket: impl AsFd, watch: Watch) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key.0);
        Ok(epoll::modify(self.epoll.get_ref(), socket, data, watch.flags())?)
    }

    /// Must come before the socket is closed or given away: the kernel goes on reporting an open
    /// file that somebody else holds.
    pub fn leave(&self, key: Key, socket: impl AsFd) {
        self.owners.remove(&key);
        // It can only fail for a socket that was never entered.
        let _ = epoll::delete(self.epoll.get_ref(), socket);
    }

    /// Tells the owners until it is dropped.
    pub async fn run(&self) -> io::Result<()> {
        loop {
            let mut ready = self.epoll.readable().await?;
            if self.tell()? < BATCH {
                ready.clear_ready();
            }
        }
    }

    /// Takes one batch of events, and tells how many they were.
    fn tell(&self) -> io::Result<usize> {
        let mut events = Vec::with_capacity(BATCH);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let into = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(self.epoll.get_ref(), into, Some(&now)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in &events {
            let key = Key(event.data.u64());
            if let Some(owner) = self.owners.get(&key) {
                owner.tell(key);
            }
        }
        Ok(events.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::Duration;

    const WHILE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_watch_fires_once_for_each_time_it_is_armed() {
        let sockets = Arc::new(Sockets::new().unwrap());
        let listener = bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let address = SocketAddr::try_from(rustix::net::getsockname(&listener).unwrap()).unwrap();
        let heard = Arc::new(Heard::default());
        let key = sockets.enter(&listener, Watch::Unarmed, heard.clone()).unwrap();
        let driver = tokio::spawn({
            let sockets = sockets.clone();
            async move { sockets.run().await }
        });
        let silent = async || tokio::time::timeout(WHILE, heard.keys()).await.is_err();

        let client = TcpStream::connect(address).unwrap();
        assert!(silent().await, "it was not armed");
        for _ in 0..2 {
            sockets.arm(key, &listener, Watch::Readable).unwrap();
            assert_eq!(heard.keys().await, [key]);
            assert!(silent().await, "it fired twice");
        }

        let accepted = accept(listener.as_fd()).unwrap().unwrap();
        assert!(accept(listener.as_fd()).unwrap().is_none());
        sockets.arm(key, &listener, Watch::Readable).unwrap();
        assert!(silent().await, "nobody waits");

        let parked = sockets.enter(&accepted, Watch::Spoken, heard.clone()).unwrap();
        assert!(silent().await, "nothing was said");
        drop(client);
        assert_eq!(heard.keys().await, [parked], "the other side is gone");
        sockets.leave(parked, &accepted);
        driver.abort();
    }
}
