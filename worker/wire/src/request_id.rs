//! The name of one call, from its caller or made here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// 1 to 128 visible ASCII characters, so that it is safe in a header and in a log line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId(String);

impl RequestId {
    pub const BYTES_MAX: usize = 128;

    /// What the caller sent, where it can be kept.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let valid = (1..=Self::BYTES_MAX).contains(&text.len())
            && text.iter().all(|b| b.is_ascii_graphic());
        valid.then(|| Self(text.iter().map(|&b| char::from(b)).collect()))
    }

    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(bytes)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept() {
        assert_eq!(RequestId::parse(b"abc-1").map(|id| id.to_string()), Some("abc-1".to_owned()));
        for bad in [&b""[..], b"a b", b"a\nb", "é".as_bytes(), &[b'a'; 129]] {
            assert_eq!(RequestId::parse(bad), None);
        }
        let made = RequestId::from_random([1; 16]);
        assert_eq!(RequestId::parse(made.as_str().as_bytes()), Some(made));
    }
}
