//! hyper writes the date into each answer, and panics where the calendar stands before 1970 when a
//! thread asks for the first one. Later ones it only takes if they are later. So each thread asks
//! once at its start, when the calendar is right: the host looks at that before it starts.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;

/// To be called once by each thread that serves connections, or is forked to do so.
pub fn begin_calendar() {
    if SystemTime::now() < UNIX_EPOCH {
        return;
    }
    let never = service_fn(async |_: Request<Incoming>| {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let connection = pin!(http1::Builder::new().serve_connection(Ended, never));
    // It ends at once: what counts is that hyper has looked at the time.
    let _ = connection.poll(&mut Context::from_waker(Waker::noop()));
}

/// A connection on which nothing comes.
struct Ended;

impl Read for Ended {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Write for Ended {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
