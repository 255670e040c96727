//! The tenants' listening sockets: binds them, and tells which of the watched ones has a
//! connection waiting.
//!
//! One nested epoll stands behind one handle of the runtime, so that ten thousand sleeping
//! tenants cost a registration in the kernel each and no time. A watch is one-shot: it fires
//! once and must be armed again. Whether it should be is the supervisor's to know.
//!
//! A listener is one open file that its worker shares, so nothing here blocks on it or changes
//! its flags after binding.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use dashmap::DashMap;
use hearth_wire::watch;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// Connections that wait in the kernel for a worker; the kernel caps it at `somaxconn`.
const BACKLOG: i32 = 4_096;
/// Events taken from the kernel at once.
const BATCH: usize = 256;

/// A tenant's listening socket, bound for as long as the tenant lives.
pub fn bind(ip: IpAddr, port: u16) -> io::Result<OwnedFd> {
    let address = SocketAddr::new(ip, port);
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
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

/// Watches any number of listeners.
pub struct Sockets {
    epoll: AsyncFd<OwnedFd>,
    waiting: DashMap<u64, Arc<Notify>>,
}

impl Sockets {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll: watch(epoll, Interest::READABLE)?, waiting: DashMap::new() })
    }

    /// Enters a listener under a key of its own, unarmed. `readable` is notified once for each time it is armed.
    pub fn enter(&self, key: u64, listener: &OwnedFd, readable: Arc<Notify>) -> io::Result<()> {
        self.waiting.insert(key, readable);
        epoll::add(
            self.epoll.get_ref(),
            listener,
            epoll::EventData::new_u64(key),
            epoll::EventFlags::ONESHOT,
        )?;
        Ok(())
    }

    /// Fires at once if a connection is waiting already.
    pub fn arm(&self, key: u64, listener: &OwnedFd) -> io::Result<()> {
        self.set(key, listener, epoll::EventFlags::IN | epoll::EventFlags::ONESHOT)
    }

    pub fn disarm(&self, key: u64, listener: &OwnedFd) -> io::Result<()> {
        self.set(key, listener, epoll::EventFlags::ONESHOT)
    }

    fn set(&self, key: u64, listener: &OwnedFd, flags: epoll::EventFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key);
        Ok(epoll::modify(self.epoll.get_ref(), listener, data, flags)?)
    }

    /// Must come before the listener is closed: a worker may hold the same open file.
    pub fn leave(&self, key: u64, listener: &OwnedFd) {
        self.waiting.remove(&key);
        // It can only fail for a listener that was never entered.
        let _ = epoll::delete(self.epoll.get_ref(), listener);
    }

    /// Tells of readable listeners until it is dropped.
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
            if let Some(readable) = self.waiting.get(&event.data.u64()) {
                readable.notify_one();
            }
        }
        Ok(events.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Duration;

    const WHILE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_watch_fires_once_for_each_time_it_is_armed() {
        let sockets = Arc::new(Sockets::new().unwrap());
        let listener = bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let address = SocketAddr::try_from(rustix::net::getsockname(&listener).unwrap()).unwrap();
        let readable = Arc::new(Notify::new());
        sockets.enter(7, &listener, readable.clone()).unwrap();
        let driver = tokio::spawn({
            let sockets = sockets.clone();
            async move { sockets.run().await }
        });

        let _client = TcpStream::connect(address).unwrap();
        assert!(
            tokio::time::timeout(WHILE, readable.notified()).await.is_err(),
            "it was not armed"
        );
        sockets.arm(7, &listener).unwrap();
        readable.notified().await;
        assert!(tokio::time::timeout(WHILE, readable.notified()).await.is_err(), "it fired twice");
        sockets.arm(7, &listener).unwrap();
        readable.notified().await;

        assert!(accept(listener.as_fd()).unwrap().is_some());
        assert!(accept(listener.as_fd()).unwrap().is_none());
        sockets.arm(7, &listener).unwrap();
        assert!(tokio::time::timeout(WHILE, readable.notified()).await.is_err(), "nobody waits");
        driver.abort();
    }
}
