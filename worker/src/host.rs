//! What a worker puts behind the interfaces of `hearth_host`: the bodies of requests and answers,
//! the log of the call that an instance serves, the stores and databases that its function may use,
//! and random numbers that no fork repeats.

pub mod http;
pub mod keyvalue;
pub mod log;
mod random;
mod sql;

use hearth_host::Surroundings;
use hearth_wire::LogStream;
use log::GuestLog;
use random::Kernel;

pub use keyvalue::Granted as GrantedStores;
pub use random::{fill, forget};
pub use sql::Granted as GrantedDatabases;

/// What stands around an instance, and where its log goes.
pub fn surroundings() -> (Surroundings, GuestLog) {
    let log = GuestLog::default();
    let (stdout, stderr) = (log.stream(LogStream::Stdout), log.stream(LogStream::Stderr));
    (Surroundings::new(stdout, stderr, log.clone(), Kernel), log)
}
