//! What a function is told of the time of day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wasmtime_wasi::HostWallClock;
use wasmtime_wasi::clocks::WallClock;

/// As the engine's own, which panics where the machine's calendar stands before 1970: there it is
/// 1970.
pub struct Calendar;

impl HostWallClock for Calendar {
    fn resolution(&self) -> Duration {
        WallClock.resolution()
    }

    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
