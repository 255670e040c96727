//! A worker's beginning and its last words: from what it inherited, by way of its first messages, its
//! generation, its runtime and its seal, to the driver of its control socket.
//!
//! What it does then is decided in [`crate::life`] and performed in [`crate::control`].

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_host::Settings;
use hearth_wire::{Channel, FromWorker, Moment, Setting, SocketError, Start, ToWorker, VERSION};
use rustix::process::{Resource, getrlimit};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::admit::Grants;
use crate::check;
use crate::control::{Driver, Farewell};
use crate::generation::{self, Generation};
use crate::life::{Life, WorkerError};
use crate::limits::connections;
use crate::peer::Trusted;
use crate::serving::Serving;
use crate::state::{Place, Share, State};
use crate::threads;
use crate::zygote::{Base, Inherited, explain};

/// For the last words to the primary.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a worker ended.
pub enum End {
    Done,
    Refused,
}

/// Serves one generation of one tenant, to the end.
pub fn run(inherited: Inherited) -> Result<End, WorkerError> {
    match live(inherited) {
        Err(WorkerError::Gone) => Ok(End::Done),
        lived => lived,
    }
}

fn live(inherited: Inherited) -> Result<End, WorkerError> {
    let Inherited { control, listener, release, has_state, base, seal, .. } = inherited;
    let Inherited { cell, runtime, fenced_in, .. } = inherited;
    let Some((first, _)) = hearth_wire::recv::<ToWorker>(&control)? else { return Ok(End::Done) };
    let ToWorker::Start(start) = first else {
        return Err(WorkerError::Unexpected(format!("{first:?} before Start")));
    };
    if start.version != VERSION {
        return Err(WorkerError::Version(start.version));
    }
    let began = Instant::now();
    let settings = told(&control, start.settings)?;
    let (generation, trusted) = match prepare(&base, &release, &start) {
        Ok(prepared) => prepared,
        Err(reason) => {
            hearth_wire::send(&control, &FromWorker::Refused { reason }, &[])?;
            return Ok(End::Refused);
        }
    };
    drop(release);
    // For good, like everything of the zygote's: to free it would copy its pages first.
    std::mem::forget(base);
    let runtime = match runtime.filter(|_| !cell.shares_threads()) {
        Some(runtime) => runtime,
        None => self::runtime(cell.shares_threads()).map_err(WorkerError::Runtime)?,
    };
    let limits = generation.manifest.limits;
    let place = (has_state && seal.bears_state()).then_some(Place::Sealed);
    let share = Share { bytes: start.state_bytes, ..Share::of(&limits) };
    let state = State::new(place, share);
    let file_bytes = state.file_bytes().map_err(WorkerError::State)?;
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let ended = runtime.block_on(async {
        let (grants, seen) = watch::channel(Arc::new(Grants::new()));
        let serving = Serving::new(generation, state, trusted, &start, settings, seen, began);
        // For good as well.
        let serving = ManuallyDrop::new(Arc::new(serving));
        // Never closed but by the process's end: the filter trusts its number.
        let channel = ManuallyDrop::new(Channel::new(control).map_err(SocketError::from)?);
        // Everything is loaded and built, and nothing that a stranger sent was looked at.
        let loaded = Instant::now();
        seal.close(file_bytes, forbidden)?;
        if cell.shares_threads() {
            threads::start_all(&serving.doing.ticker).map_err(WorkerError::Runtime)?;
            serving.state.start().map_err(WorkerError::Runtime)?;
            serving.sql.start().map_err(WorkerError::Runtime)?;
            hearth_jail::no_more_threads()?;
        }
        let us = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let ready = FromWorker::Ready {
            version: VERSION,
            load_us: us(loaded - began),
            walls_us: us(fenced_in + loaded.elapsed()),
        };
        channel.send(&ready, &[]).await?;
        let woken_at = start.woken_at.map(Moment::instant);
        let most_connections = connections(&limits, descriptors);
        let driver = Driver::new(&channel, &serving, grants, listener, woken_at, most_connections);
        let end = tokio::select! {
            end = driver.drive(Life::new(start.idle)) => end,
            broken = serving.reporter.keep_sending(&channel) => {
                broken.map(|()| Farewell::Alone).map_err(WorkerError::from)
            }
        };
        if let Farewell::Told = end? {
            serving.doing.calls.finish().await;
            // The primary may be gone or busy; nothing is owed to it beyond this.
            let _ = tokio::time::timeout(FAREWELL, serving.reporter.send_all(&channel)).await;
        }
        Ok(End::Done)
    });
    // A check that is stuck is not waited for.
    runtime.shutdown_background();
    ended
}

/// All parts of what its functions are told, before anything is served by some of them.
fn told(control: &OwnedFd, parts: u32) -> Result<Settings, WorkerError> {
    let mut settings = Vec::new();
    if parts as usize > Setting::PARTS_MAX {
        return Err(WorkerError::Unexpected(format!("{parts} parts of settings")));
    }
    for _ in 0..parts {
        match hearth_wire::recv(control)?.ok_or(WorkerError::Gone)? {
            (ToWorker::Settings(part), _) => settings.extend(part),
            (other, _) => {
                return Err(WorkerError::Unexpected(format!("{other:?} before all settings")));
            }
        }
    }
    Ok(Settings::new(settings))
}

/// A worker's. It starts no thread by itself; those that it will have are kept where they could not be
/// started again.
pub fn runtime(keeps_threads: bool) -> io::Result<Runtime> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().max_blocking_threads(check::THREADS);
    if keeps_threads {
        runtime.thread_keep_alive(threads::KEPT);
    }
    runtime.build()
}

/// The last words of a worker that made a call which its walls forbid. Runs within a signal.
fn forbidden(call: u32, message: &mut [u8]) -> usize {
    hearth_wire::encode_into(&FromWorker::Forbidden { call }, message)
}

/// What can fail because of the generation, with its reason for the primary.
fn prepare(base: &Base, release: &OwnedFd, start: &Start) -> Result<(Generation, Trusted), String> {
    let generation = generation::load(base, release, start).map_err(|error| explain(&error))?;
    let networks = start.trusted_proxies.iter().map(|network| {
        network
            .parse()
            .map_err(|_| format!("`{network}` is not a valid network of trusted proxies"))
    });
    let headers = start
        .trusted_headers
        .iter()
        .map(|name| name.parse().map_err(|_| format!("`{name}` is not a valid name of a header")));
    let trusted = Trusted {
        networks: networks.collect::<Result<_, _>>()?,
        headers: headers.collect::<Result<_, _>>()?,
    };
    Ok((generation, trusted))
}
