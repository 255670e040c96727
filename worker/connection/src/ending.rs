//! How a connection ends that no other process takes: what its client is told, and that it hears
//! it. When it ends is the gate's to say.

use std::future::poll_fn;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;

use crate::gate::{Drain, FINISH_DEADLINE, Gate, STOP_GRACE};
use crate::refusal::Refused;

/// Of a body that nobody wanted, on a connection that is being closed.
const FORGOTTEN_MAX_BYTES: usize = 256 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Between two requests, with nothing owed.
    Taken,
    /// Every answer is written.
    Done,
    /// What came is no request. That is still to be said, unless hyper did behind an answer's
    /// last bytes.
    Refused,
    /// A head was not complete in time.
    Late,
    Broken,
}

impl End {
    /// Says what is still to be said, and closes. `refused` is what was found wrong with what came.
    pub async fn tell<S>(
        self,
        gate: &Gate,
        refused: Option<Refused>,
        mut stream: S,
        mut drain: watch::Receiver<Drain>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let refused = match self {
            Self::Late if drain.borrow().closes() => Some(Refused::Stopping),
            Self::Late => Some(Refused::Late),
            // hyper has nothing to say to some.
            Self::Refused if gate.is_refusing() => refused.or(Some(Refused::Malformed)),
            Self::Taken | Self::Done | Self::Refused | Self::Broken => refused,
        };
        // Late clients get the time that a head gets; what is still open then is cut.
        let sends = matches!(self, Self::Refused | Self::Late) || gate.body_is_left();
        let close = async move {
            match refused {
                Some(refused) if stream.write_all(&refused.answer()).await.is_err() => {}
                _ => close(stream, sends).await,
            }
        };
        let stopped = async move {
            let stops = drain.wait_for(|drain| drain.closes()).await.is_ok();
            if !stops {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(STOP_GRACE).await;
        };
        tokio::select! {
            _ = tokio::time::timeout(FINISH_DEADLINE, close) => {}
            () = stopped => {}
        }
    }
}

/// Says that nothing more comes. Where the client is still sending what nobody wanted, it is
/// read and forgotten first: closing on unread bytes resets the connection, and takes away the
/// answer that says why.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, sends: bool) {
    let shut = poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await;
    if shut.is_err() || !sends {
        return;
    }
    let mut forgotten = 0;
    let mut bytes = [0; 8 << 10];
    while forgotten < FORGOTTEN_MAX_BYTES {
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut buffer)).await;
        match (read, buffer.filled().len()) {
            (Ok(()), more) if more > 0 => forgotten += more,
            _ => return,
        }
    }
}
