//! How the host stops, in this order:
//!
//! 1. the front door says so, at `/readyz` and to whoever asks for something else, and ends event
//!    streams; what it is at already it finishes;
//! 2. upkeep stops;
//! 3. workers accept no more either, and finish what runs, at their own ports and behind the
//!    front door; who comes meanwhile is told that the host is stopping;
//! 4. the front door closes, then uplinks and what is turned away; log lines reach the disk, the
//!    store closes.
//!
//! Each step has the rest of one deadline; what is not done by then is ended with the process,
//! and workers with it. A second signal has calls given up: they are told so, and it is over in a
//! moment. A third one ends the process. What was acknowledged is on the disk before any of this.

use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::fleet::Fleet;
use crate::logs::Logs;
use crate::store::Store;

/// A little more than a worker has to drain.
pub const DEADLINE: Duration = Duration::from_secs(35);

/// From a second signal on: a little more than a worker has for its farewell.
const HURRY_DEADLINE: Duration = Duration::from_secs(5);

/// What is to be stopped.
pub struct Running {
    /// Told to the front door and to upkeep.
    pub stop: CancellationToken,
    /// Told to the front door, once no worker is left.
    pub close_front: CancellationToken,
    pub front: JoinHandle<()>,
    pub upkeep: JoinHandle<()>,
    /// Told to uplinks and to who answers what is turned away, when the front door has closed.
    pub close_rest: CancellationToken,
    pub turned: JoinHandle<()>,
    pub uplinks: JoinHandle<()>,
    pub fleet: Fleet,
    pub logs: Logs,
    pub store: Store,
}

/// Which bit of a mask of signals is SIGHUP's.
const HANGUP_BIT: u64 = 1;

pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` where whoever started us wants us to outlive the terminal, as `nohup` does.
    hangup: Option<Signal>,
    /// Whether there is a terminal to lose, and not a service manager.
    has_terminal: bool,
}

impl Signals {
    pub fn listen(has_terminal: bool) -> std::io::Result<Self> {
        let ignored = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
            ignored_signals(&status).is_some_and(|ignored| ignored & HANGUP_BIT != 0)
        });
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: if ignored { None } else { Some(signal(SignalKind::hangup())?) },
            has_terminal,
        })
    }

    /// Somebody wants the host to stop.
    pub async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                () = hung_up(&mut self.hangup) => {}
            }
            if self.has_terminal {
                info!("the terminal is gone");
                return;
            }
            info!("SIGHUP changes nothing: settings are read at the start");
        }
    }

    /// Somebody says so expressly. A terminal that closes can be told of more than once.
    async fn ask(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => {
            hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// The mask of those that a process ignores, from what `/proc` says of it.
fn ignored_signals(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Stops everything; returns when it has stopped, or when it may not take longer.
pub async fn drain(running: Running, signals: &mut Signals) {
    let fleet = running.fleet.clone();
    let mut stopping = pin!(stop(running));
    let ended = tokio::select! {
        ended = timeout(DEADLINE, stopping.as_mut()) => ended.is_ok(),
        () = signals.ask() => {
            warn!("a second signal: calls are given up");
            fleet.hurry().await;
            tokio::select! {
                ended = timeout(HURRY_DEADLINE, stopping) => ended.is_ok(),
                () = signals.ask() => false,
            }
        }
    };
    if ended { info!("stopped") } else { warn!("stopped before everything had finished") }
}

async fn stop(running: Running) {
    let Running {
        stop,
        close_front,
        front,
        upkeep,
        close_rest,
        turned,
        uplinks,
        fleet,
        logs,
        store,
    } = running;
    info!("stopping: new requests are refused");
    stop.cancel();
    logs.end_follows().await;
    // A task that panicked has stopped as well, and has said so.
    let _ = upkeep.await;
    info!("stopping: workers finish");
    fleet.shutdown().await;
    close_front.cancel();
    let _ = front.await;
    close_rest.cancel();
    let _ = turned.await;
    let _ = uplinks.await;
    logs.close().await;
    store.close().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_does_is_seen() {
        let status =
            |mask: &str| format!("Name:\thearth\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        for (mask, ignored) in [
            ("0000000000000001", true),
            ("0000000000001001", true),
            ("0000000000001000", false),
            ("fffffffe7ffbfeff", true),
        ] {
            let found = ignored_signals(&status(mask)).unwrap() & HANGUP_BIT != 0;
            assert_eq!(found, ignored, "{mask}");
        }
        assert_eq!(ignored_signals("Name:\thearth\n"), None);
        assert!(ignored_signals(&std::fs::read_to_string("/proc/self/status").unwrap()).is_some());
    }
}
