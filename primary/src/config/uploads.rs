//! How much of uploads the host takes at once.

use std::time::Duration;

use super::kinds::{duration, whole};
use super::settings::settings;
use crate::upload::{Intake, Places};

const AT_ONCE_MAX: usize = 1_000;
const TIME_MIN: Duration = Duration::from_secs(1);
const DISK_RESERVE_MAX_MB: u64 = 1 << 20;

settings! {
    /// How much of uploads the host takes at once.
    Uploads in "uploads":
    /// Uploads at once, of all tenants
    // Each takes some of the host's memory and up to 32 MiB of its disk while it comes.
    one at_once: usize, "uploads" "at-once" "N" = "32", whole("a number", 1..=AT_ONCE_MAX);
    /// Uploads at once of one tenant
    one per_tenant: usize, "uploads-per-tenant" "per-tenant" "N" = "8",
        whole("a number", 1..=AT_ONCE_MAX);
    /// An upload that has not come and been compiled within this time is refused
    // Enough for the largest one over a line of half a megabit, and for what is slow to compile.
    one time: Duration, "upload-time" "time" "DURATION" = "10m",
        duration(TIME_MIN..=Duration::MAX, "10m");
    /// MiB of the disk that uploads leave free, so that other changes can be kept
    // The store's journal is a few of them.
    one disk_reserve_mb: u64, "disk-reserve" "disk-reserve" "MB" = "64",
        whole("MiB,", 0..=DISK_RESERVE_MAX_MB);
}

impl Uploads {
    pub fn intake(&self) -> Intake {
        let places = Places { most: self.at_once, most_of_one: self.per_tenant };
        Intake { places, time: self.time }
    }
}

#[cfg(test)]
pub mod examples {
    use crate::config::settings::{Bad, Good};

    pub const GOOD: &[Good] = &[
        ("uploads", ["1", "64", "1000"], [" uploads=1 ", " uploads=64 ", " uploads=1000 "]),
        (
            "uploads-per-tenant",
            ["1", "2", "1000"],
            [" uploads-per-tenant=1 ", " uploads-per-tenant=2 ", " uploads-per-tenant=1000 "],
        ),
        (
            "upload-time",
            ["1s", "5m", "1h"],
            [" upload-time=1s ", " upload-time=5m ", " upload-time=1h "],
        ),
        (
            "disk-reserve",
            ["0", "1", "1048576"],
            [" disk-reserve=0 ", " disk-reserve=1 ", " disk-reserve=1048576 "],
        ),
    ];

    pub const BAD: &[Bad] = &[
        ("uploads", "0", "must be a number from 1 to 1000"),
        ("uploads-per-tenant", "1001", "must be a number from 1 to 1000"),
        ("upload-time", "999ms", "must be a duration of at least 1s, like 10m, not `999ms`"),
        ("disk-reserve", "1.5", "must be MiB, from 0 to 1048576"),
    ];
}
