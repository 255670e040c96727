//! `hearth-worker`: serves the functions of exactly one tenant.
//!
//! `hearth-worker zygote` holds the engine and forks workers, some of them before they are needed; `hearth-worker exec` is the slower
//! way to the same [`birth::run`], one process for one worker. `hearth-worker tree` does one job
//! in one tenant's directory. Whichever it is, the control socket is the standard input and
//! everything else comes with messages. Opens no socket and reads no environment.

mod admit;
mod birth;
mod builtin;
mod call;
mod check;
mod connection;
mod control;
mod cors;
mod engines;
mod finish;
mod generation;
mod heap;
mod held;
mod host;
mod instance;
mod ledger;
mod life;
mod limits;
#[cfg(measures)]
mod measure;
mod meeting;
mod peer;
mod refusal;
mod report;
mod scrub;
mod serve;
mod serving;
mod spare;
mod state;
mod threads;
mod ticker;
mod tree;
mod uplink;
mod warm;
mod zygote;

use std::io::{self, Write};
use std::process::ExitCode;

use birth::End;
use hearth_wire::{EXIT_STARVED, complain};
use zygote::Born;

/// A worker that has all of the memory that it may have ends by a code of its own.
#[global_allocator]
static MEMORY: hearth_jail::Bounded = hearth_jail::Bounded(EXIT_STARVED);

/// This generation cannot be served; the reason has been told.
const EXIT_REFUSED: u8 = 3;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    #[cfg(measures)]
    if std::env::args().nth(1).as_deref() == Some("measure-call") {
        return match measure::run(arguments.skip(1)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        };
    }
    if std::env::args().nth(1).as_deref() == Some("tree") {
        return match tree::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        };
    }
    let started = match (arguments.next().as_deref(), arguments.next()) {
        (Some("zygote"), None) => zygote::run(),
        (Some("exec"), None) => zygote::exec().map(|worker| worker.map(Born::Worker)),
        (Some("--version"), None) => {
            let _ = writeln!(io::stdout(), "hearth-worker {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {
            complain(format_args!(
                "usage: hearth-worker zygote | exec | tree (started by hearth, not by hand)"
            ));
            return ExitCode::from(2);
        }
    };
    let worker = started.and_then(|born| match born {
        Some(Born::Worker(inherited)) => Ok(Some(inherited)),
        Some(Born::Spare(newborn)) => spare::live(newborn),
        None => Ok(None),
    });
    let inherited = match worker {
        Ok(Some(inherited)) => inherited,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => return failed(&error.into()),
    };
    match birth::run(inherited) {
        Ok(End::Done) => ExitCode::SUCCESS,
        Ok(End::Refused) => ExitCode::from(EXIT_REFUSED),
        Err(error) => failed(&error.into()),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    complain(format_args!("hearth-worker: {error:#}"));
    ExitCode::FAILURE
}
