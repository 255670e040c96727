//! The first moments of a connection at the front door: reads its first head, and gives the
//! connection to its tenant's worker where `peek` says that it may. From then on no byte of it
//! passes through here. What has been read goes along, either way.

use std::net::SocketAddr;
use std::time::Instant;

use hearth_connection::{Waiting, begins_head};
use hearth_wire::limits::{HEAD_DEADLINE, SILENCE_MAX};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use super::peek::{HEAD_MAX_BYTES, Peek, peek};
use crate::config::Handover;

impl Gateway {
    /// The connection, with what was read of it, if the front door is to serve it: it also says
    /// what there is to say to one whose head does not come. `None` where a worker has it now, or
    /// where it came to its end.
    pub async fn keep(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        stop: &CancellationToken,
    ) -> Option<Waiting<TcpStream>> {
        let mut since = Instant::now();
        let mut unread = Vec::new();
        let gives = self.handover == Handover::Auto && !self.store.has_unmarked_admin_token();
        if !gives || self.is_trusted(peer.ip()) {
            count("proxied");
            return Some(Waiting::new(stream));
        }
        let tenant = loop {
            match peek(&unread, &self.names) {
                Peek::Incomplete => {}
                // It is refused here: no worker could tell whose token that is.
                Peek::Tenant(_, tokens) if self.carries_admins(&tokens) => break None,
                Peek::Unusual => break None,
                Peek::Tenant(tenant, _) => break Some(tenant),
            }
            let begun = begins_head(&unread);
            let deadline = if begun { HEAD_DEADLINE } else { SILENCE_MAX };
            unread.reserve(HEAD_MAX_BYTES - unread.len());
            let read = tokio::select! {
                read = stream.read_buf(&mut unread) => read,
                () = tokio::time::sleep_until((since + deadline).into()) => break None,
                // Whoever has begun gets an answer.
                () = stop.cancelled() => break None,
            };
            match read {
                Ok(0) | Err(_) => return None,
                Ok(_) if !begun && begins_head(&unread) => since = Instant::now(),
                Ok(_) => {}
            }
        };
        let Some(tenant) = tenant else {
            count("proxied");
            return Some(Waiting { stream, unread: unread.into(), since });
        };
        let stream = stream.into_std().ok()?;
        match self.fleet.give(&tenant, stream, unread, since).await {
            Ok(()) => {
                count("handed_over");
                None
            }
            // Why it cannot go there is told like to any other request.
            Err((stream, unread)) => {
                count("proxied");
                let stream = TcpStream::from_std(stream).ok()?;
                Some(Waiting { stream, unread: unread.into(), since })
            }
        }
    }
}

fn count(way: &'static str) {
    metrics::counter!("hearth_front_connections_total", "way" => way).increment(1);
}
