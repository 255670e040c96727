//! Whether the machine's calendar can be right. Tokens end by it, and what was removed is forgotten
//! by it; a machine without a battery may come up in 1970 and know better a minute later. Pure.

use jiff::Timestamp;

/// 2020-01-01: years before this program was written.
const EARLIEST: Timestamp = Timestamp::constant(1_577_836_800, 0);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this machine's clock says {0}, which is before 2020: set it (`timedatectl set-ntp true`, or `date -s`), then start Hearth; nothing was changed"
)]
pub struct Early(Timestamp);

/// Refuses a time before which no host was started.
pub fn check(now: Timestamp) -> Result<(), Early> {
    if now < EARLIEST { Err(Early(now)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_cannot_be_right_is_refused() {
        let at = |text: &str| check(text.parse().unwrap());
        assert_eq!(at("2020-01-01T00:00:00Z"), Ok(()));
        assert_eq!(at("2126-01-01T00:00:00Z"), Ok(()));
        for early in ["2019-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "1901-12-13T20:45:52Z"] {
            let refused = at(early).unwrap_err().to_string();
            assert!(refused.contains(early) && refused.contains("timedatectl"), "{refused}");
        }
    }
}
