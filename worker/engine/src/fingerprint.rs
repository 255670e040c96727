//! Which engine made an artifact, in a few characters: its version, the revision of its
//! configuration, and the processor that code was made for. The engine's own hash of itself
//! needs its compiler, which workers do not have.

use sha2::{Digest, Sha256};

use crate::REVISION;

/// Kept equal to the version in the workspace's manifest by a test.
const WASMTIME: &str = "48.0.8";

/// 16 hexadecimal digits; the name of a directory of artifacts.
pub fn fingerprint() -> String {
    let text = format!("{WASMTIME} {REVISION} {} {}", std::env::consts::ARCH, features().join(" "));
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

macro_rules! detected {
    ($macro:ident: $($feature:tt)*) => {
        [$(($feature, std::arch::$macro!($feature))),*]
            .into_iter()
            .filter_map(|(name, detected)| detected.then_some(name))
            .collect()
    };
}

/// What the compiler looks for in the processor that it runs on.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    detected!(is_x86_feature_detected:
        "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "cmpxchg16b" "lzcnt" "bmi1" "bmi2" "avx" "avx2"
        "fma" "avx512bitalg" "avx512dq" "avx512f" "avx512vl" "avx512vbmi")
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    detected!(is_aarch64_feature_detected: "lse" "paca" "pacg" "fp16" "bti")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_is_built() {
        let manifest = include_str!("../../../Cargo.toml");
        assert!(manifest.contains(&format!("wasmtime = {{ version = \"={WASMTIME}\"")));
    }

    #[test]
    fn it_is_short_and_stable() {
        assert_eq!(fingerprint(), fingerprint());
        assert_eq!(fingerprint().len(), 16);
    }
}
