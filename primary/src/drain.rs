//! How the host stops, in this order:
//!
//! 1. the front door accepts no more, says so at `/readyz`, and ends event streams;
//! 2. upkeep stops;
//! 3. workers accept no more either, and finish what runs, at their own ports and behind the
//!    front door; who waits for a worker that sleeps is told to come back;
//! 4. the doors close, log lines reach the disk, the store closes.
//!
//! Each step has the rest of one deadline; what is not done by then is ended with the process,
//! and workers with it. A second signal skips to the end. What was acknowledged is on the disk
//! before any of this.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::fleet::Fleet;
use crate::logs::Logs;
use crate::store::Store;

/// A little more than a worker has to drain.
pub const DEADLINE: Duration = Duration::from_secs(35);

/// What is to be stopped.
pub struct Running {
    /// Told to the front door and to upkeep.
    pub stop: CancellationToken,
    pub front: JoinHandle<()>,
    pub upkeep: JoinHandle<()>,
    /// Told to the doors, once no worker is left.
    pub close_doors: CancellationToken,
    pub doors: JoinHandle<()>,
    pub fleet: Fleet,
    pub logs: Logs,
    pub store: Store,
}

pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Stops everything; returns when it has stopped, or when it may not take longer.
pub async fn drain(running: Running, signals: &mut Signals) {
    let ended = tokio::select! {
        ended = tokio::time::timeout(DEADLINE, stop(running)) => ended.is_ok(),
        () = signals.next() => false,
    };
    if ended { info!("stopped") } else { warn!("stopped before everything had finished") }
}

async fn stop(running: Running) {
    let Running { stop, front, upkeep, close_doors, doors, fleet, logs, store } = running;
    info!("stopping: the front door accepts no more");
    stop.cancel();
    logs.end_follows().await;
    // A task that panicked has stopped as well, and has said so.
    let _ = upkeep.await;
    info!("stopping: workers finish");
    let _ = tokio::join!(front, fleet.shutdown());
    close_doors.cancel();
    let _ = doors.await;
    logs.close().await;
    store.close().await;
}
