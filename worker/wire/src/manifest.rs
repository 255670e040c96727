//! A generation's manifest: what is a tenant's own of what its worker serves. Written once by the
//! primary as `manifest.json` beside the artifacts that it names, and never changed. The rest comes
//! with the build (`bundle.rs`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bundle::{FunctionVersion, Over};
use crate::digest::{BundleDigest, Fingerprint, ModuleDigest};
use crate::function::HandlerKind;
use crate::limits::Limits;
use crate::name::{FunctionPath, TenantName};
use crate::options::Options;

/// Counts a tenant's generations, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GenerationNumber(pub u64);

impl GenerationNumber {
    /// Of a tenant that is only half made.
    pub const NONE: Self = Self(0);
    pub const FIRST: Self = Self(1);

    /// Of the one that takes its place.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for GenerationNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub tenant: TenantName,
    pub generation: GenerationNumber,
    pub limits: Limits,
    /// The bundle that it was written over. Where the build that reads it has another, that is what
    /// serves: a new build writes nothing for a tenant.
    pub bundle: BundleDigest,
    /// What is other than the bundle says.
    #[serde(default, skip_serializing_if = "Over::is_empty")]
    pub over: Over,
    /// The tenant's own, in the order of their paths; no two that differ only in case.
    pub functions: Vec<ManifestFunction>,
}

impl Manifest {
    pub const FILE: &str = "manifest.json";
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFunction {
    pub path: FunctionPath,
    pub version: FunctionVersion,
    pub sha256: ModuleDigest,
    pub kind: HandlerKind,
    pub options: Options,
    /// Which engine made its artifact; another one cannot load it. `None` where there is none, since
    /// the host's copy of its module is not what it was: callers are told so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Fingerprint>,
}

impl ManifestFunction {
    pub fn is_damaged(&self) -> bool {
        self.engine.is_none()
    }

    /// The artifact's file name beside the manifest.
    pub fn artifact(&self) -> String {
        format!("{}.cwasm", self.sha256)
    }
}
