//! The whole system as real processes, spoken to as its users do: HTTP, the command line,
//! signals. Each test has a host of its own; none waits for time to pass where it can ask.
//!
//! The host's side is `host.rs`, the kernel's `processes.rs`, the wire's `http.rs`, many clients'
//! `traffic.rs`, the terminal's `terminal.rs`, the proxies' `proxies.rs`, and the functions that are uploaded `guests.rs`; every
//! other file is one part of what Hearth promises.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test says what it saw")]

mod api;
mod attacks;
mod audit;
mod backup;
mod builds;
mod calendar;
mod calls;
mod captive;
mod commands;
mod components;
mod config;
mod cookies;
mod cors;
mod crashes;
mod credentials;
mod denied;
mod durability;
mod earlier;
mod examples;
mod foreign;
mod forms;
mod framing;
mod gateway;
mod guarded;
mod guests;
mod handover;
mod host;
mod hostile;
mod http;
mod isolation;
mod jailed;
mod kept;
mod keyvalue;
mod leaving;
mod leftovers;
mod levels;
mod liars;
mod limits;
mod logs;
mod manners;
mod mix;
mod names;
mod options;
mod origins;
mod planted;
mod processes;
mod prompts;
mod protocol;
mod proxies;
mod reaching;
mod refused_uploads;
mod resting;
mod roots;
mod rounds;
mod scarce;
mod schemas;
mod sdks;
mod secrets;
mod service;
mod shown;
mod sleeping;
mod smuggling;
mod spares;
mod sql;
mod state_api;
mod state_commands;
mod stderr;
mod stopping;
mod suite;
mod swaps;
mod syncs;
mod tenants;
mod terminal;
mod traffic;
mod uploading;
mod versions;
mod worlds;
