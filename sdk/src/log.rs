//! Lines of the call's log that say how much they matter.
//!
//! ```
//! use hearth_sdk::log;
//!
//! # if false { // there is a host to say it to in a component alone
//! log::info!("took the order {}", 7);
//! log::warn!(target: "orders", "the stock is low");
//! # }
//! ```
//!
//! `hearth logs` shows the level in the place of the stream, and the API has it as `level`. A
//! `target` stands before the message. Whatever else is written to standard output and standard
//! error is in the log as well, without a level.
//!
//! This is `wasi:logging/logging@0.1.0-draft`.

use std::fmt;

use self::bindings::wasi::logging::logging;

#[expect(
    unsafe_code,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    reason = "generated from `wit/imports`"
)]
mod bindings;

/// How much a line matters, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

/// Says a message. The macros of this module are shorter.
pub fn log(level: Level, target: &str, message: &str) {
    let level = match level {
        Level::Trace => logging::Level::Trace,
        Level::Debug => logging::Level::Debug,
        Level::Info => logging::Level::Info,
        Level::Warn => logging::Level::Warn,
        Level::Error => logging::Level::Error,
        Level::Critical => logging::Level::Critical,
    };
    logging::log(level, target, message);
}

/// What the macros expand to.
#[doc(hidden)]
pub fn __say(level: Level, target: &str, message: fmt::Arguments<'_>) {
    match message.as_str() {
        Some(message) => log(level, target, message),
        None => log(level, target, &message.to_string()),
    }
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, target: $target:expr, $($message:tt)+) => {
        $crate::log::__say($crate::log::Level::$level, $target, ::core::format_args!($($message)+))
    };
    ($level:ident, $($message:tt)+) => {
        $crate::log::__say($crate::log::Level::$level, "", ::core::format_args!($($message)+))
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log_trace {
    ($($said:tt)+) => { $crate::__log!(Trace, $($said)+) };
}
/// The values of variables and the way through a program.
pub use crate::__log_trace as trace;

#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug {
    ($($said:tt)+) => { $crate::__log!(Debug, $($said)+) };
}
/// Of use to who looks for a fault.
pub use crate::__log_debug as debug;

#[doc(hidden)]
#[macro_export]
macro_rules! __log_info {
    ($($said:tt)+) => { $crate::__log!(Info, $($said)+) };
}
/// Of use to who watches a program.
pub use crate::__log_info as info;

#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn {
    ($($said:tt)+) => { $crate::__log!(Warn, $($said)+) };
}
/// Something that may become a fault.
pub use crate::__log_warn as warn;

#[doc(hidden)]
#[macro_export]
macro_rules! __log_error {
    ($($said:tt)+) => { $crate::__log!(Error, $($said)+) };
}
/// A fault.
pub use crate::__log_error as error;

#[doc(hidden)]
#[macro_export]
macro_rules! __log_critical {
    ($($said:tt)+) => { $crate::__log!(Critical, $($said)+) };
}
/// A fault after which it does not go on.
pub use crate::__log_critical as critical;
