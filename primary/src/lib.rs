//! The host and its command line. What the program `hearth` is made of, in a library so that its
//! parsers can be reached by `ops/fuzz`; nothing else uses it.

mod actor;
mod api;
mod app;
mod backup;
mod cli;
mod clock;
mod compile;
mod config;
mod descriptors;
mod drain;
mod durable;
mod fail;
mod fair;
mod fault;
mod files;
mod fleet;
mod front;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod gateway;
mod generations;
mod invoke;
mod isolation;
mod keyfile;
mod leftovers;
mod lock;
mod locks;
mod logs;
mod names;
mod owner;
mod patience;
mod problem;
mod provision;
mod quota;
mod refusal;
mod sealing;
mod settings;
mod stderr;
mod store;
mod telemetry;
mod terminal;
mod token_push;
mod tree;
mod upkeep;
mod uplink;
mod upload;

pub use cli::run;
