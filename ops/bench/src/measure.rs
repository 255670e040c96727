//! What can be measured. One file a measurement, which says what it compares and how.

mod besieged;
mod burst;
mod call;
mod front;
mod gate;
mod handover;
mod hello;
mod late;
mod memory;
mod neighbour;
mod state;
mod swap;
mod tenants;
mod wake;

use std::thread;
use std::time::Duration;

use crate::Setup;
use crate::cores::Cores;
use crate::table::Row;

pub struct Measurement {
    pub name: &'static str,
    pub measure: fn(&Setup, Cores) -> anyhow::Result<Vec<Row>>,
}

/// In the order of the table.
pub const ALL: [Measurement; 13] = [
    Measurement { name: "hello", measure: hello::measure },
    Measurement { name: "call", measure: call::measure },
    Measurement { name: "wake", measure: wake::measure },
    Measurement { name: "memory", measure: memory::measure },
    Measurement { name: "tenants", measure: tenants::measure },
    Measurement { name: "burst", measure: burst::measure },
    Measurement { name: "late", measure: late::measure },
    Measurement { name: "swap", measure: swap::measure },
    Measurement { name: "front", measure: front::measure },
    Measurement { name: "gate", measure: gate::measure },
    Measurement { name: "handover", measure: handover::measure },
    Measurement { name: "state", measure: state::measure },
    Measurement { name: "neighbour", measure: neighbour::measure },
];

/// Connections of a load that keeps one core busy.
const BUSY: usize = 32;
/// A caller who wakes a tenant finds a host that had nothing to do.
const CALM: Duration = Duration::from_millis(10);

#[expect(clippy::disallowed_methods, reason = "it is the time itself that is wanted")]
pub fn calm() {
    thread::sleep(CALM);
}
