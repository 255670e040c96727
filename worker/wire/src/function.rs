//! What is said of one version of a function, wherever it is from.

use serde::{Deserialize, Serialize};

/// Counts a function's versions, from 1.
pub type Version = u32;

/// Which generation of `wasi:http` a component exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HandlerKind {
    /// `wasi:http/incoming-handler@0.2.x`
    IncomingHandler,
    /// `wasi:http/handler@0.3.x`
    Handler,
}
