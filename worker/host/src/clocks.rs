//! `wasi:clocks`: the machine's own, whatever its calendar says.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wasmtime_wasi::clocks::{WallClock, WasiClocksCtxView};
use wasmtime_wasi::{HostWallClock, WasiCtxBuilder};

use crate::Guest;

pub(crate) fn view(guest: &mut Guest) -> WasiClocksCtxView<'_> {
    WasiClocksCtxView { ctx: guest.surroundings.wasi.clocks(), table: &mut guest.table }
}

pub(crate) fn set(wasi: &mut WasiCtxBuilder) {
    wasi.wall_clock(Calendar);
}

/// As the engine's own, which panics where the machine's calendar stands before 1970: there it is
/// 1970.
struct Calendar;

impl HostWallClock for Calendar {
    fn resolution(&self) -> Duration {
        WallClock.resolution()
    }

    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
