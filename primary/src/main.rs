//! `hearth`: the host and its command line in one program.

mod api;
mod app;
mod backup;
mod cli;
mod compile;
mod config;
mod drain;
mod fleet;
mod front;
mod gateway;
mod logs;
mod provision;
mod release;
mod store;
mod telemetry;
mod tree;
mod upkeep;
mod upload;

fn main() -> std::process::ExitCode {
    cli::run()
}
