//! What tenants are given: addresses, names, uids, and how long a worker lives without a call.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::kinds::{DURATION_MAX, duration, parsed, span};
use super::settings::settings;

/// An idle time below this would end workers between two requests of one page.
const IDLE_MIN: Duration = Duration::from_millis(10);

settings! {
    /// What tenants are given, and what becomes of it.
    Tenants in "tenants":
    /// The address of the tenants' own ports
    one bind: IpAddr, "tenant-bind" "bind" "IP" = "127.0.0.1",
        parsed("an IP address, like 127.0.0.1");
    /// Which ports tenants get
    one ports: RangeInclusive<u16>, "tenant-ports" "ports" "A-B" = "3411-13410",
        span("a range of ports, like 3411-13410", |ports| *ports.start() > 0);
    /// How long a removed tenant's port and name are nobody's
    // The default is as long as browsers that come by now and then need to forget what was there.
    one rest: Duration, "rest" "rest" "DURATION" = "7d",
        duration(Duration::ZERO..=DURATION_MAX, "7d or 12h");
    /// A worker without a call for this long ends
    one idle: Duration, "idle" "idle" "DURATION" = "60s",
        duration(IDLE_MIN..=Duration::MAX, "60s or 5m");
    /// The uids that tenants are given, where the host runs as root
    // The first is the compiler's. By default they are where systemd's own list of ranges has nobody.
    one uids: RangeInclusive<u32>, "uids" "uids" "FIRST-LAST" = "1900000000-1900065535"
        (once "users"), span("two uids from 1000 on, like 1900000000-1900065535", are_uids);
}

/// Below are people and services, and the last number means nobody.
fn are_uids(uids: &RangeInclusive<u32>) -> bool {
    uids.start() < uids.end() && *uids.start() >= 1_000 && *uids.end() < u32::MAX
}

#[cfg(test)]
pub mod examples {
    use crate::config::settings::{Bad, Good};

    pub const GOOD: &[Good] = &[
        (
            "tenant-bind",
            ["0.0.0.0", "::1", "10.0.0.1"],
            ["tenant-bind=0.0.0.0 ", "tenant-bind=::1 ", "tenant-bind=10.0.0.1 "],
        ),
        (
            "tenant-ports",
            ["1-2", "5-5", "1024 - 65535"],
            ["tenant-ports=1-2 ", "tenant-ports=5-5 ", "tenant-ports=1024-65535 "],
        ),
        ("rest", ["0s", "12h", "30days"], [" rest=0s ", " rest=12h ", " rest=30days "]),
        ("idle", ["10ms", "5m", "1h 5s"], [" idle=10ms ", " idle=5m ", " idle=1h 5s "]),
        (
            "uids",
            ["1000-2000", "70000-70001", "5000-4294967294"],
            [" uids=1000-2000 ", " uids=70000-70001 ", " uids=5000-4294967294 "],
        ),
    ];

    pub const BAD: &[Bad] = &[
        ("tenant-bind", "127.0.0.1:80", "must be an IP address"),
        ("tenant-ports", "5-4", "must be a range of ports, like 3411-13410, not `5-4`"),
        ("tenant-ports", "0-4", "must be a range of ports"),
        ("tenant-ports", "1-65536", "must be a range of ports"),
        ("tenant-ports", "3411", "must be a range of ports"),
        ("rest", "7", "must be a duration, like 7d or 12h, not `7`"),
        ("rest", "101years", "must be a duration"),
        ("idle", "60", "must be a duration of at least 10ms, like 60s or 5m, not `60`"),
        ("idle", "9ms", "must be a duration of at least 10ms"),
        ("uids", "70000", "must be two uids from 1000 on"),
        ("uids", "0-70000", "must be two uids from 1000 on"),
        ("uids", "70000-70000", "must be two uids from 1000 on"),
    ];
}
