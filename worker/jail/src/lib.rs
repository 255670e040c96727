//! What fences a process of Hearth in, and the few system calls that need care: the descriptors
//! that a child starts with, forking, and the ordered list of walls.
//!
//! The only home of unsafe code besides the loading of artifacts. Knows nothing of functions,
//! messages or engines: who calls what, and when, is the programs' to decide.

#![expect(unsafe_code, reason = "what needs it lives here, so that nothing else has to")]

mod descriptors;
mod process;
mod walls;

pub use descriptors::{Slots, keep_only, open_now, take_stdin};
pub use process::{ChildEnd, Children, ForkError, Forked, fork};
pub use walls::{COMPILE, Limit, TREE, WORKER, Wall, WallError, ZYGOTE, enter};
