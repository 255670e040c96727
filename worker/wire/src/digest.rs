//! SHA-256, or the beginning of one, as names of what has no other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 is 64 lower-case hexadecimal digits")]
pub struct DigestError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the fingerprint of an engine is 16 lower-case hexadecimal digits")]
pub struct FingerprintError;

macro_rules! digests {
    ($($(#[doc = $about:literal])+ $name:ident: $bytes:literal, $error:ident;)+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $bytes]);

        impl $name {
            pub const fn new(sha256: [u8; $bytes]) -> Self {
                Self(sha256)
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                let nibble = |b: u8| match b {
                    b'0'..=b'9' => Ok(b - b'0'),
                    b'a'..=b'f' => Ok(b - b'a' + 10),
                    _ => Err($error),
                };
                let digits: &[u8; 2 * $bytes] =
                    text.as_bytes().try_into().map_err(|_| $error)?;
                let mut bytes = [0; $bytes];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
                }
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $error;
            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(digest: $name) -> String {
                digest.to_string()
            }
        }
    )+};
}

digests! {
    /// The name of a module: the SHA-256 of its unpacked bytes.
    ModuleDigest: 32, DigestError;
    /// The name of a bundle: the SHA-256 of what it mounts where.
    BundleDigest: 32, DigestError;
    /// Which engine made an artifact, and alone can load it: the beginning of the SHA-256 of what
    /// makes it this one and no other.
    Fingerprint: 8, FingerprintError;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_agree() {
        let digest = ModuleDigest::new(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for bad in ["", "zz", &"A".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            assert_eq!(bad.parse::<ModuleDigest>(), Err(DigestError), "{bad:?}");
        }
        let fingerprint = Fingerprint::new([0, 1, 2, 3, 4, 5, 6, 0xff]);
        assert_eq!(fingerprint.to_string(), "00010203040506ff");
        assert_eq!("00010203040506ff".parse(), Ok(fingerprint));
        for bad in ["", "00010203040506fF", "00010203040506", "../../../../etc/a"] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(FingerprintError), "{bad:?}");
        }
    }
}
