//! The worker and the compiler as processes, driven over real sockets by what a primary would
//! say. Guests come from `functions/testing`; `cargo xtask test` builds them first.

mod calls;
mod compile;
mod handover;
mod harness;
mod life;
mod reuse;
mod tree;
