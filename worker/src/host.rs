//! What a worker puts behind the interfaces of `hearth_host`: the bodies of requests and answers,
//! the log of the call that an instance serves, and random numbers that no fork repeats.

pub mod http;
pub mod log;
mod random;

use hearth_host::Surroundings;
use hearth_wire::LogStream;
use log::GuestLog;
use random::Kernel;

pub use random::{fill, forget};

/// What stands around an instance, and where its log goes.
pub fn surroundings() -> (Surroundings, GuestLog) {
    let log = GuestLog::default();
    let (stdout, stderr) = (log.stream(LogStream::Stdout), log.stream(LogStream::Stderr));
    (Surroundings::new(stdout, stderr, Kernel), log)
}
