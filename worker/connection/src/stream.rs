//! A connection's bytes on their way to and from hyper: what was read before, then what the gate
//! lets through. Tells the gate of every byte and of every wait.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};
use hearth_wire::limits::READ_MAX_BYTES;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::Shared;
use crate::gate::{Drain, Reading};
use crate::refusal::Refused;

pub struct Gated<S> {
    pub stream: S,
    pub refused: Option<Refused>,
    /// Read by somebody before us.
    pub unread: Bytes,
    pub shared: Shared,
    pub drain: watch::Receiver<Drain>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
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
            Reading::WhenWanted => {
                this.shared.wake_when_wanted(cx.waker());
                return Poll::Pending;
            }
            Reading::Ended => return Poll::Ready(Ok(())),
            Reading::No => return Poll::Pending,
        }
        if !this.unread.is_empty() {
            let bytes = this.unread.len().min(into.remaining()).min(gate.room());
            into.put_slice(&this.unread[..bytes]);
            this.unread.advance(bytes);
            gate.read(bytes);
            return Poll::Ready(Ok(()));
        }
        // So that what hyper has read and not parsed is bounded and fits into one message.
        let mut bytes = [MaybeUninit::uninit(); READ_MAX_BYTES];
        let most = into.remaining().min(gate.room());
        let mut buffer = ReadBuf::uninit(&mut bytes[..most]);
        match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                if gate.read_ended(Instant::now()) {
                    return Poll::Ready(Ok(()));
                }
                if gate.body_is_left() {
                    // hyper has given out all that came. Who wants more of it then is cut off.
                    this.shared.wake_when_wanted(cx.waker());
                    this.shared.ask_for_more();
                }
                Poll::Pending
            }
            Poll::Ready(Ok(())) => {
                gate.read(buffer.filled().len());
                into.put_slice(buffer.filled());
                Poll::Ready(Ok(()))
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
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
        if flushed.is_ready() {
            self.shared.lock().flushed();
        }
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
