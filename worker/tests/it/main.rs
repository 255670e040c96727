//! The worker and the compiler as processes, driven over real sockets by what a primary would
//! say. Guests come from `functions/testing`; `cargo xtask test` builds them first.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test says what it saw")]

mod calls;
mod compile;
mod config;
mod engines;
mod handover;
mod harness;
mod keyvalue;
mod life;
mod reuse;
mod sql;
mod tree;
mod worlds;
