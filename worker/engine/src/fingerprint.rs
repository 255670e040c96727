//! Which engine made an artifact, in a few characters: its version, the revision of its
//! configuration, whether it has concurrency, and the processor that code was made for. The
//! engine's own hash of itself needs its compiler, which workers do not have.

use std::sync::LazyLock;

use hearth_wire::Fingerprint;
use sha2::{Digest, Sha256};

use crate::{EngineKind, REVISION};

/// Kept equal to the version in the workspace's manifest by a test.
const WASMTIME: &str = "48.0.8";

/// Also the name of a directory of artifacts.
pub fn fingerprint(kind: EngineKind) -> Fingerprint {
    static ALL: LazyLock<[Fingerprint; 2]> = LazyLock::new(|| EngineKind::ALL.map(made));
    ALL[kind as usize]
}

/// Of all engines of this build.
pub fn fingerprints() -> Vec<Fingerprint> {
    EngineKind::ALL.map(fingerprint).to_vec()
}

impl EngineKind {
    /// The one of this build's that makes, and loads, artifacts of this fingerprint.
    pub fn made(by: Fingerprint) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| fingerprint(*kind) == by)
    }
}

fn made(kind: EngineKind) -> Fingerprint {
    let (arch, features) = (std::env::consts::ARCH, features().join(" "));
    let text = format!("{WASMTIME} {REVISION} {kind:?} {arch} {features}");
    let digest: [u8; 32] = Sha256::digest(text).into();
    Fingerprint::new(std::array::from_fn(|at| digest[at]))
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
    fn each_engine_has_its_own() {
        for kind in EngineKind::ALL {
            assert_eq!(EngineKind::made(fingerprint(kind)), Some(kind));
            assert_eq!(made(kind), fingerprint(kind));
        }
        let [plain, concurrent] = EngineKind::ALL.map(fingerprint);
        assert_ne!(plain, concurrent);
        assert_eq!(EngineKind::made(Fingerprint::new([0; 8])), None);
    }
}
