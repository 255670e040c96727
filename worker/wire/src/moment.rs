//! A moment that all processes of a host mean the same by.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of CLOCK_MONOTONIC, which also stands behind [`Instant`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(u64);

impl Moment {
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let duration = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32);
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    /// This moment by the process's own clock, and never one that is still to come.
    pub fn instant(self) -> Instant {
        let now = Instant::now();
        let ago = Duration::from_nanos(Self::now().0.saturating_sub(self.0));
        now.checked_sub(ago).unwrap_or(now)
    }
}

impl From<Instant> for Moment {
    fn from(instant: Instant) -> Self {
        let ago = u64::try_from(instant.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Self(Self::now().0.saturating_sub(ago))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let then = Instant::now() - Duration::from_millis(700);
        let back = Moment::from(then).instant();
        let off = back.max(then) - back.min(then);
        assert!(off < Duration::from_millis(100), "{off:?}");
    }

    #[test]
    fn nothing_is_still_to_come() {
        let far = Moment(u64::MAX);
        assert!(far.instant() <= Instant::now());
    }
}
