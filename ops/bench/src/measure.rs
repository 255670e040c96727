//! What can be measured. One file a measurement, which says what it compares and how.

mod front;
mod gate;
mod handover;
mod swap;

use crate::Setup;
use crate::cores::Cores;
use crate::table::Row;

pub struct Measurement {
    pub name: &'static str,
    pub measure: fn(&Setup, Cores) -> anyhow::Result<Vec<Row>>,
}

/// In the order of the table.
pub const ALL: [Measurement; 4] = [
    Measurement { name: "gate", measure: gate::measure },
    Measurement { name: "swap", measure: swap::measure },
    Measurement { name: "front", measure: front::measure },
    Measurement { name: "handover", measure: handover::measure },
];

/// Connections of a load that keeps one core busy.
const BUSY: usize = 32;
