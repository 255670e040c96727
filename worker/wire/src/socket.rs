//! Framed messages and descriptors over `SOCK_SEQPACKET`.
//!
//! One packet is one message (postcard) and the descriptors that belong to it. A packet above
//! [`FRAME_MAX`], a truncated one or one that does not parse ends the conversation: the peer is
//! either broken or hostile. Blocking and asynchronous ends mix freely, because every call says
//! for itself whether it waits, and the socket's own flags are never touched.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The largest message, bytes. Well below the kernel's own bound for one packet (about 208 KiB).
pub const FRAME_MAX: usize = 64 << 10;
/// The most descriptors with one message. The kernel would take 253.
pub const FDS_MAX: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("the control socket failed")]
    Io(#[from] io::Error),
    #[error("a message of {0} bytes is above the bound of a frame")]
    TooLarge(usize),
    #[error("a message was cut short on its way")]
    Truncated,
    #[error("a message does not parse")]
    Malformed(#[from] postcard::Error),
}

impl From<Errno> for SocketError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Two ends of one conversation, closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message; waits for room.
pub fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), SocketError> {
    Ok(transmit(socket.as_fd(), &encode(message)?, fds, SendFlags::empty())?)
}

/// Receives one message; waits for it. `None` at the end of the conversation.
pub fn recv<T: DeserializeOwned>(
    socket: impl AsFd,
) -> Result<Option<(T, Vec<OwnedFd>)>, SocketError> {
    decode(receive(socket.as_fd(), RecvFlags::empty())??)
}

/// Registers a descriptor with the runtime that this is called within.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for descriptors that could close early; an OwnedFd does not"
    )]
    AsyncFd::with_interest(fd, interest)
}

/// One end of a conversation inside a tokio runtime.
pub struct Channel {
    socket: AsyncFd<OwnedFd>,
}

impl Channel {
    /// Must be called within a runtime that drives I/O.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: watch(socket, Interest::READABLE | Interest::WRITABLE)? })
    }

    /// Cancel-safe: the message went whole or not at all.
    pub async fn send<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), SocketError> {
        let packet = encode(message)?;
        // First without asking whether there is room, which a new channel's runtime does not know.
        match transmit(self.socket.get_ref().as_fd(), &packet, fds, SendFlags::DONTWAIT) {
            Err(Errno::AGAIN) => {}
            sent => return Ok(sent?),
        }
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| {
            transmit(socket.as_fd(), &packet, fds, SendFlags::DONTWAIT).map_err(io::Error::from)
        });
        Ok(sent.await?)
    }

    /// Cancel-safe. `None` at the end of the conversation.
    pub async fn recv<T: DeserializeOwned>(
        &self,
    ) -> Result<Option<(T, Vec<OwnedFd>)>, SocketError> {
        let packet = self.socket.async_io(Interest::READABLE, |socket| {
            receive(socket.as_fd(), RecvFlags::DONTWAIT).map_err(io::Error::from)
        });
        decode(packet.await??)
    }
}

/// One message as it is sent, without allocation: for a process that is about to end within a
/// signal. Zero where it does not fit.
pub fn encode_into<T: Serialize>(message: &T, buffer: &mut [u8]) -> usize {
    postcard::to_slice(message, buffer).map_or(0, |message| message.len())
}

fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, SocketError> {
    let packet = postcard::to_allocvec(message)?;
    if packet.len() > FRAME_MAX { Err(SocketError::TooLarge(packet.len())) } else { Ok(packet) }
}

type Packet = (Vec<u8>, Vec<OwnedFd>);

fn decode<T: DeserializeOwned>(
    (bytes, fds): Packet,
) -> Result<Option<(T, Vec<OwnedFd>)>, SocketError> {
    // No message is empty (each begins with its variant), so an empty packet is the end.
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some((parse(&bytes)?, fds)))
}

/// A packet's message. Nothing is allocated for what is not in it.
pub fn parse<T: DeserializeOwned>(packet: &[u8]) -> Result<T, SocketError> {
    Ok(postcard::from_bytes(packet)?)
}

fn transmit(
    socket: BorrowedFd<'_>,
    packet: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(packet)], &mut ancillary, flags | SendFlags::NOSIGNAL)
        {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

thread_local! {
    /// Kept, since most messages are a few bytes and clearing room for the largest costs more.
    static PACKET: RefCell<Vec<u8>> = RefCell::new(vec![0; FRAME_MAX]);
}

fn receive(socket: BorrowedFd<'_>, flags: RecvFlags) -> Result<Result<Packet, SocketError>, Errno> {
    PACKET.with_borrow_mut(|bytes| receive_into(bytes, socket, flags))
}

fn receive_into(
    bytes: &mut [u8],
    socket: BorrowedFd<'_>,
    flags: RecvFlags,
) -> Result<Result<Packet, SocketError>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let into = &mut [IoSliceMut::new(bytes)];
        match recvmsg(socket, into, &mut ancillary, flags | RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => break got,
            Err(Errno::INTR) => {}
            // The peer ended with messages of ours unread. Said once, and before what it had said
            // itself: that is still to be read, and then comes the end.
            Err(Errno::CONNRESET) => {}
            Err(errno) => return Err(errno),
        }
    };
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Ok(Err(SocketError::Truncated));
    }
    Ok(Ok((bytes[..got.bytes].to_vec(), fds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::given::Given;
    use crate::message::{Cell, FromWorker, ToWorker, ToZygote};
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    #[test]
    fn a_descriptor_travels_with_its_message() {
        let (near, far) = pair().unwrap();
        let mut file = tempfile();
        file.write_all(b"hello").unwrap();
        let fork = ToZygote::Fork { ticket: 7, cell: Cell::default(), given: vec![Given::Control] };
        send(&near, &fork, &[file.as_fd()]).unwrap();
        let (message, mut fds) = recv::<ToZygote>(&far).unwrap().unwrap();
        assert_eq!(message, fork);
        let mut received = File::from(fds.pop().unwrap());
        received.rewind().unwrap();
        let mut text = String::new();
        received.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), fds.len()), ("hello", 0));
    }

    #[test]
    fn the_end_is_told_from_a_message() {
        let (near, far) = pair().unwrap();
        drop(near);
        assert!(recv::<ToZygote>(&far).unwrap().is_none());
    }

    #[test]
    fn the_last_words_are_heard_of_a_peer_that_left_messages_unread() {
        let (near, far) = pair().unwrap();
        send(&near, &ToWorker::Accept, &[]).unwrap();
        let last = FromWorker::Refused { reason: "because".to_owned() };
        send(&far, &last, &[]).unwrap();
        drop(far);
        assert_eq!(recv::<FromWorker>(&near).unwrap().unwrap().0, last);
        assert!(recv::<FromWorker>(&near).unwrap().is_none());
    }

    #[test]
    fn garbage_and_giants_are_refused() {
        let (near, far) = pair().unwrap();
        transmit(near.as_fd(), &[250, 1], &[], SendFlags::empty()).unwrap();
        assert!(matches!(recv::<ToZygote>(&far), Err(SocketError::Malformed(_))));
        transmit(near.as_fd(), &vec![0; FRAME_MAX + 1], &[], SendFlags::empty()).unwrap();
        assert!(matches!(recv::<ToZygote>(&far), Err(SocketError::Truncated)));
        let giant = FromWorker::Refused { reason: "x".repeat(FRAME_MAX) };
        assert!(matches!(send(&near, &giant, &[]), Err(SocketError::TooLarge(_))));
    }

    fn tempfile() -> File {
        File::from(rustix::fs::memfd_create("wire-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap())
    }
}
