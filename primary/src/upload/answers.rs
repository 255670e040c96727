//! What is answered to a change of what a tenant serves, at every address alike.

use hearth_wire::{FunctionPath, FunctionVersion, GenerationNumber, ModuleDigest, Version};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::openapi::function_version_or_null;

/// The answer to an upload, given once the new generation serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Uploaded {
    pub uploaded: bool,
    #[schema(value_type = u64)]
    pub generation: GenerationNumber,
    pub functions: Vec<UploadedFunction>,
    /// Receiving excluded.
    pub compile_ms: u64,
    /// From the new generation being started until the old one takes no more connections.
    pub swap_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UploadedFunction {
    #[schema(value_type = String, example = "/hello")]
    pub path: FunctionPath,
    #[schema(value_type = u32)]
    pub version: Version,
    #[schema(value_type = String)]
    pub sha256: ModuleDigest,
    /// Bytes unpacked.
    pub size: u64,
    /// Bytes as kept.
    pub stored: u64,
    pub imports: Vec<String>,
    /// What it imports and what served at its path before did not, whatever the release: all of it
    /// where nothing served.
    pub imports_added: Vec<String>,
    /// What it imports no more.
    pub imports_removed: Vec<String>,
    /// Of its imports, the interfaces of other hosts that are not offered here: a call that needs
    /// one of them fails with its name.
    pub unavailable: Vec<String>,
    /// The same module with the same options was active already: nothing changed.
    pub unchanged: bool,
}

/// The answer to a rollback or a removal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Switched {
    #[schema(value_type = String, example = "/hello")]
    pub path: FunctionPath,
    /// The version that is active now; null where none is, and the build's where what comes with
    /// Hearth serves.
    #[schema(schema_with = function_version_or_null)]
    pub version: Option<FunctionVersion>,
    #[schema(value_type = u64)]
    pub generation: GenerationNumber,
    pub swap_ms: u64,
}

/// The answer to a rollback to an earlier generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Returned {
    /// The new one, which serves what that one served.
    #[schema(value_type = u64)]
    pub generation: GenerationNumber,
    #[schema(value_type = u64)]
    pub rolled_back_to: GenerationNumber,
    /// What is other than before, by path.
    pub functions: Vec<ReturnedFunction>,
    pub swap_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReturnedFunction {
    #[schema(value_type = String, example = "/hello")]
    pub path: FunctionPath,
    /// The version that is active now; null where none is, and the build's where what comes with
    /// Hearth serves.
    #[schema(schema_with = function_version_or_null)]
    pub version: Option<FunctionVersion>,
}
