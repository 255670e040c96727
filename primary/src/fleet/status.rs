//! What a tenant's worker is doing, as the API and the command line show it.

use hearth_wire::GenerationNumber;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::lifecycle::{Life, Phase};
use crate::isolation::Level;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// No process; the next call starts one.
    Asleep,
    Starting,
    Ready,
    /// Finishing its last calls; nothing new is taken by it.
    Draining,
    /// It died, and is not started again for a while.
    Backoff,
    /// It died too often; an upload, a rollback or a start lifts this.
    Barred,
}

impl WorkerState {
    pub const ALL: [Self; 6] =
        [Self::Asleep, Self::Starting, Self::Ready, Self::Draining, Self::Backoff, Self::Barred];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Backoff => "backoff",
            Self::Barred => "barred",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStatus {
    pub state: WorkerState,
    /// Null when there is no process.
    pub pid: Option<i32>,
    /// The generation that is current, whether or not a worker runs.
    #[schema(value_type = u64)]
    pub generation: GenerationNumber,
    /// Since when the state is what it is.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Why the worker is backing off or barred, or how its last one ended.
    pub reason: Option<String>,
    /// The walls around the worker besides WebAssembly's own.
    pub isolation: Level,
    /// Resident memory, bytes.
    pub memory: Option<u64>,
    /// Processor time so far, milliseconds.
    pub cpu_ms: Option<u64>,
    /// Older workers that are finishing beside the current one.
    pub draining: u32,
    /// Connections that wait without a worker until their clients say something.
    pub parked: u32,
}

impl WorkerStatus {
    /// As its tenant's life has it; which process that is, and what it takes, is found elsewhere.
    pub fn of(life: &Life, isolation: Level) -> Self {
        let (state, reason) = match &life.current {
            Phase::Asleep | Phase::Stopped if !life.draining.is_empty() => {
                (WorkerState::Draining, None)
            }
            Phase::Asleep | Phase::Stopped => (WorkerState::Asleep, None),
            Phase::Starting { .. } => (WorkerState::Starting, None),
            Phase::Ready { .. } => (WorkerState::Ready, None),
            Phase::Backoff { reason, .. } => (WorkerState::Backoff, Some(reason.clone())),
            Phase::Barred { reason } => (WorkerState::Barred, Some(reason.clone())),
        };
        Self {
            state,
            pid: None,
            generation: life.generation,
            since: Timestamp::now(),
            reason,
            isolation,
            memory: None,
            cpu_ms: None,
            draining: life.draining.len() as u32,
            parked: 0,
        }
    }
}

/// Reads a live process's resident memory (bytes) and processor time (milliseconds).
pub fn usage(pid: i32) -> Option<(u64, u64)> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; utime and stime are the 12th and 13th after it.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()?.saturating_add(ticks()?);
    let per_second = rustix::param::clock_ticks_per_second();
    let memory = pages.saturating_mul(rustix::param::page_size() as u64);
    Some((memory, ticks.saturating_mul(1_000) / per_second))
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_uses_something() {
        let (memory, _) = super::usage(std::process::id() as i32).unwrap();
        assert!(memory > 1 << 20, "{memory}");
        assert_eq!(super::usage(-1), None);
    }
}
