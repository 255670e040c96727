//! A connection's bytes on their way to and from hyper: what was read before, then what the gate
//! lets through. Tells the gate of every byte and of every wait.

use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use hearth_wire::limits::READ_MAX_BYTES;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use crate::Shared;
use crate::cookies::Cookies;
use crate::gate::{Absence, Drain, Gate, Reading, Side};
use crate::refusal::Refused;

/// What carries a connection.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// How far the other end has left. Wakes the task when that changes, unless bytes lie unread
    /// in front of it.
    fn absence(&self, cx: &mut Context<'_>) -> Absence;
}

impl Socket for TcpStream {
    fn absence(&self, cx: &mut Context<'_>) -> Absence {
        let _ = self.poll_read_ready(cx);
        absence(self.ready(Interest::READABLE | Interest::WRITABLE))
    }
}

impl Socket for UnixStream {
    fn absence(&self, cx: &mut Context<'_>) -> Absence {
        let _ = self.poll_read_ready(cx);
        absence(self.ready(Interest::READABLE | Interest::WRITABLE))
    }
}

/// Within one process: what there is to know is read.
impl Socket for DuplexStream {
    fn absence(&self, _cx: &mut Context<'_>) -> Absence {
        Absence::None
    }
}

/// Asked only, and never waited for.
fn absence(ready: impl Future<Output = io::Result<Ready>>) -> Absence {
    match pin!(ready).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(is)) if is.is_write_closed() || is.is_error() => Absence::Whole,
        Poll::Ready(Ok(is)) if is.is_read_closed() => Absence::Half,
        Poll::Ready(Err(_)) => Absence::Whole,
        Poll::Ready(Ok(_)) | Poll::Pending => Absence::None,
    }
}

pub struct Gated<S> {
    pub stream: S,
    pub refused: Option<Refused>,
    /// Read by somebody before us.
    unread: Bytes,
    intake: Intake,
    shared: Shared,
    drain: watch::Receiver<Drain>,
}

impl<S> Gated<S> {
    pub fn new(
        stream: S,
        side: Side,
        unread: Bytes,
        shared: Shared,
        drain: watch::Receiver<Drain>,
    ) -> Self {
        // The primary has seen to those that it passes on.
        let cookies = (side == Side::Outside).then(|| Cookies::new(side.head_max_bytes()));
        let intake = Intake { cookies, passed: BytesMut::new() };
        Self { stream, refused: None, unread, intake, shared, drain }
    }

    /// All that was read and not parsed, of which hyper has the beginning.
    pub fn left_behind(&mut self, begun: Bytes) -> Bytes {
        let Intake { cookies, passed } = &mut self.intake;
        let mut left = [&begun[..], passed].concat();
        if let Some(cookies) = cookies {
            left = cookies.give_back(&left);
        }
        left.extend_from_slice(&self.unread);
        left.into()
    }
}

/// What hyper is given of the bytes that were read.
struct Intake {
    cookies: Option<Cookies>,
    /// May go on, and hyper had no room for it yet.
    passed: BytesMut,
}

impl Intake {
    /// Whether there was anything in these that goes on now.
    fn take(&mut self, gate: &mut Gate, bytes: &[u8], into: &mut ReadBuf<'_>) -> bool {
        let Some(cookies) = &mut self.cookies else {
            gate.read(bytes);
            into.put_slice(bytes);
            return true;
        };
        if !gate.in_exchange() {
            cookies.between_bodies(bytes[0]);
        }
        let has_room = bytes.len() + cookies.held() <= into.remaining();
        let mut any = false;
        cookies.pass(bytes, |bytes| {
            any = true;
            gate.read(bytes);
            match has_room {
                true => into.put_slice(bytes),
                false => self.passed.extend_from_slice(bytes),
            }
        });
        self.give(into);
        any
    }

    fn give(&mut self, into: &mut ReadBuf<'_>) {
        let bytes = self.passed.len().min(into.remaining());
        into.put_slice(&self.passed.split_to(bytes));
    }
}

impl<S: Socket> AsyncRead for Gated<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let drains = *this.drain.borrow() == Drain::HandOver;
        let mut gate = this.shared.lock();
        match gate.may_read(drains) {
            Reading::Yes => {}
            Reading::AskAgain => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Reading::Ended => return Poll::Ready(Ok(())),
            // Whoever changes that wakes the driver.
            Reading::WhenWanted | Reading::No => return Poll::Pending,
        }
        if !this.intake.passed.is_empty() {
            this.intake.give(into);
            return Poll::Ready(Ok(()));
        }
        while !this.unread.is_empty() {
            let bytes = this.unread.len().min(into.remaining()).min(gate.room());
            let bytes = this.unread.split_to(bytes);
            if this.intake.take(&mut gate, &bytes, into) {
                return Poll::Ready(Ok(()));
            }
        }
        // So that what hyper has read and not parsed is bounded and fits into one message.
        let mut bytes = [MaybeUninit::uninit(); READ_MAX_BYTES];
        let read = loop {
            let most = into.remaining().min(gate.room());
            let mut buffer = ReadBuf::uninit(&mut bytes[..most]);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    // Where nothing goes on, all of it is kept back.
                    if this.intake.take(&mut gate, buffer.filled(), into) {
                        return Poll::Ready(Ok(()));
                    }
                }
                ended => break ended,
            }
        };
        match read {
            Poll::Ready(Ok(())) => {
                // A link that is closed in one direction alone is that of a caller whose body has
                // broken off, and who is still there. One that is closed takes not even nothing.
                let is_link = gate.side() == Side::Primary && gate.in_exchange();
                let nothing = Pin::new(&mut this.stream);
                if is_link && matches!(nothing.poll_write(cx, &[]), Poll::Ready(Err(_))) {
                    gate.is_absent(Absence::Whole, Instant::now());
                    return Poll::Pending;
                }
                gate.read_ended(Instant::now());
                Poll::Ready(Ok(()))
            }
            // Not for a body's reader to find: whoever answers is told by being dropped.
            Poll::Ready(Err(_)) if gate.in_exchange() => {
                gate.is_absent(Absence::Whole, Instant::now());
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                gate.read_waits();
                Poll::Pending
            }
        }
    }
}

impl<S> Gated<S> {
    fn note(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(bytes)) => self.shared.lock().wrote(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.shared.lock().write_waits(Instant::now()),
        }
    }
}

impl<S: Socket> AsyncWrite for Gated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.shared.lock().is_refusing() {
            self.refused.get_or_insert(Refused::of(bytes));
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        let mut gate = self.shared.lock();
        if flushed.is_ready() {
            gate.flushed();
        }
        // hyper comes by here whenever it is polled, and reads in an exchange nothing but its body.
        if gate.in_exchange() {
            gate.is_absent(self.stream.absence(cx), Instant::now());
        }
        drop(gate);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.shared.lock().is_refusing() {
            let first = bytes.first().map_or(&[][..], |first| first);
            self.refused.get_or_insert(Refused::of(first));
            return Poll::Ready(Ok(bytes.iter().map(|bytes| bytes.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
