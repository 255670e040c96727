//! The time of day, as the files have it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; what is beyond that counts as its end.
pub fn ms(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub fn now_ms() -> i64 {
    ms(SystemTime::now())
}

/// The same back.
pub fn time(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
