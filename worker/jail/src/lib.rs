//! What fences a process of Hearth in, and the few system calls that need care: the descriptors
//! that a child starts with, forking, and the ordered list of walls.
//!
//! The only home of unsafe code besides the loading of artifacts. Knows nothing of functions,
//! messages or engines: who calls what, and when, is the programs' to decide.

#![expect(unsafe_code, reason = "what needs it lives here, so that nothing else has to")]

mod attempts;
mod descriptors;
pub mod files;
mod filters;
mod landlock;
mod memory;
mod namespaces;
pub mod policy;
mod process;
mod rowid;
mod scheduling;
mod users;
mod walls;

pub use attempts::{ATTEMPTS, Attempt, EXIT_ESCAPED};
pub use descriptors::{
    Mouthpiece, Slots, keep_only, open_now, speak_to, stand_in_for_state, take_stdin,
};
pub use filters::{EXIT_VIOLATION, Encode};
pub use memory::{Bounded, private_bytes};
pub use process::{ChildEnd, Children, ForkError, Forked, apart, fork, kill, leave, wait};
pub use rowid::set_last_insert_rowid;
pub use scheduling::take_short_turns;
pub use walls::{
    BornWith, Cell, Seal, Standing, WallError, alone, begin_worker, fence_compiler,
    fence_lone_worker, fence_tree, fence_worker, fence_zygote, no_more_threads, seal_compiler,
    seal_tree, with_cpu_seconds,
};
