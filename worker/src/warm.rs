//! What a spare child does before it is anybody's: it answers two calls of a function that comes with
//! this build, as a worker answers its callers, over a connection of its own with itself. Whatever is
//! touched first at a call is touched then.
//!
//! Nobody hears of these calls: what they log and record goes nowhere. They have one thread, so that a
//! function that spins is not stopped here: the process ends of it.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_host::Settings;
use hearth_jail::WallError;
use hearth_wire::{Entry, Manifest, Start, VERSION};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::admit::Grants;
use crate::birth;
use crate::connection::{self, Arrival, Drain};
use crate::generation::Generation;
use crate::peer::{Peer, Trusted};
use crate::serving::Serving;
use crate::state::{Share, State};
use crate::zygote::Base;

const CALLS: usize = 2;
/// Of both calls, where their function waits for something.
const DEADLINE: Duration = Duration::from_secs(5);
/// Of an answer.
const ANSWER_MAX_BYTES: u64 = 64 << 10;

/// Why there are no spare children of this build.
#[derive(Debug, thiserror::Error)]
pub enum WarmError {
    #[error("nothing that comes with this build can be called")]
    Nothing,
    #[error("{path} was called and answered {status}")]
    Answer { path: String, status: String },
    #[error("{0} was called and did not answer in time")]
    Late(String),
    #[error("a call failed")]
    Io(#[from] io::Error),
    #[error("the manifest of what comes with this build does not parse")]
    Manifest(#[source] serde_json::Error),
    #[error("something of the calls is left")]
    Left,
    #[error(transparent)]
    Wall(#[from] WallError),
    #[error("what they take of memory is not known")]
    Unbounded(#[source] io::Error),
    #[error("each would take {0} bytes of memory that are nobody's")]
    Large(u64),
}

/// Leaves nothing behind but memory that is warm.
pub fn up(base: &Base) -> Result<(), WarmError> {
    let generation = Generation::bundled(base);
    let functions = generation.manifest.functions.iter();
    let callable = functions.clone().find(|function| function.engine.is_some());
    let path = callable.ok_or(WarmError::Nothing)?.path.to_string();
    // As every worker reads its own.
    let manifest = serde_json::to_vec(&generation.manifest).map_err(WarmError::Manifest)?;
    serde_json::from_slice::<Manifest>(&manifest).map_err(WarmError::Manifest)?;

    let start = Start {
        version: VERSION,
        tenant: generation.manifest.tenant.clone(),
        serves: hearth_wire::Serves::Functions,
        generation: generation.manifest.generation,
        idle: DEADLINE,
        woken_at: None,
        trusted_proxies: vec![],
        trusted_headers: vec![],
        domain: None,
        settings: 0,
        state_bytes: 0,
    };
    let (_grants, seen) = watch::channel(Arc::new(Grants::new()));
    let runtime = birth::runtime(false)?;
    let warmed = runtime.block_on(async {
        // Nothing of a tenant's is there.
        let state = State::new(None, Share::of(&generation.manifest.limits));
        let (trusted, settings) = (Trusted::default(), Settings::default());
        let began = Instant::now();
        let serving = Serving::new(generation, state, trusted, &start, settings, seen, began);
        let serving = Arc::new(serving.without_ticker());
        let calls = async {
            for _ in 0..CALLS {
                call(&serving, &path).await?;
            }
            serving.doing.calls.finish().await;
            Ok(())
        };
        tokio::time::timeout(DEADLINE, calls).await.unwrap_or(Err(WarmError::Late(path.clone())))
    });
    drop(runtime);
    warmed?;
    hearth_jail::alone()?;
    if base.engines.instances() == 0 { Ok(()) } else { Err(WarmError::Left) }
}

async fn call(serving: &Arc<Serving>, path: &str) -> Result<(), WarmError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(io::Error::from)?;
    // Of the type of a caller's, so that it is the code of a caller's that runs: nothing there asks
    // the socket for what only the network's have.
    let [mut near, far] = [stream(near)?, stream(far)?];
    let peer = Peer::Tcp(Ipv4Addr::LOCALHOST.into(), Entry::Port);
    let drain = watch::Sender::new(Drain::No);
    let served =
        connection::serve(Arrival::new(far, peer, None), Arc::clone(serving), drain.subscribe());
    let served = tokio::spawn(served);
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: 2\r\nconnection: close\r\n\r\n{{}}"
    );
    near.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    (&mut near).take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await?;
    drop(near);
    let _ = served.await;
    let status = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    match status.starts_with(b"HTTP/1.1 2") {
        true => Ok(()),
        false => {
            let status = String::from_utf8_lossy(status).into_owned();
            Err(WarmError::Answer { path: path.to_owned(), status })
        }
    }
}

fn stream(socket: OwnedFd) -> io::Result<TcpStream> {
    TcpStream::from_std(socket.into())
}
