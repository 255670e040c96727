//! What tells apart the types that are JSON from the few that the SDK has for other things.
//!
//! A trait is implemented for every type that serde knows and for some of ours; for the compiler
//! those could be one and the same. With one of these as the trait's parameter they are not, and
//! which it is, is inferred.

/// Any type of the author's that serde reads or writes.
pub enum Json {}

/// A type of the SDK: a request, a response, a part of them.
pub enum Raw {}
