//! `cargo xtask`: the chores, from a fresh clone to a running host and to a passed test.
//!
//! `up` and `test` share `build`, one cargo profile and one target directory, so that nothing
//! is compiled twice that need not be. What is built, in which order, is in `build.rs`; what a
//! test run consists of, in `suite.rs`. Owns no setting of the host: what stands after `--`
//! goes to `hearth up` as it is.

#![expect(clippy::print_stderr, reason = "a chore speaks to whoever runs it, at a terminal")]

mod advisories;
mod bench;
mod build;
mod chores;
mod foreign;
mod fuzz;
mod javascript;
mod lengths;
mod policy;
mod prose;
mod python;
mod release;
mod rings;
mod sources;
mod suite;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use crate::build::With;
use crate::chores::Chores;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Hearth's chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Does all the set-up and starts Hearth
    Up {
        /// Arguments of `hearth up`
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Does all the set-up and runs every check and test
    Test {
        /// Arguments of the system tests' program, such as a part of a test's name
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Builds functions, host, worker and compiler
    Build,
    /// Builds the three programs for release, into target/dist
    Dist,
    /// Builds for release and measures
    Bench {
        /// Write the README's table also where the machine was busy before, and say so there
        #[arg(long)]
        loaded: bool,
        /// What to measure; everything where nothing is named
        names: Vec<String>,
    },
    /// Checks the dependencies against the public advisories
    Advisories,
    /// Runs the long forms of the tests, and then the fuzz targets
    Soak {
        /// How long each fuzz target runs
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        fuzz_seconds: u32,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> anyhow::Result<()> {
    match chore {
        Chore::Build => {
            let mut chores = Chores::begin();
            build::host(&mut chores, With::NoTests)?;
            chores.end("built");
            Ok(())
        }
        Chore::Up { arguments } => {
            let mut chores = Chores::begin();
            build::host(&mut chores, With::NoTests)?;
            chores.end("built");
            let error = Command::new(build::program("hearth")).arg("up").args(arguments).exec();
            Err(anyhow::Error::new(error).context("hearth could not be started"))
        }
        Chore::Test { arguments } => {
            let mut chores = Chores::begin();
            suite::run(&mut chores, &arguments)?;
            chores.end("everything passed");
            Ok(())
        }
        Chore::Dist => {
            let mut chores = Chores::begin();
            release::build(&mut chores)?;
            chores.end("built");
            Ok(())
        }
        Chore::Bench { loaded, names } => {
            let mut chores = Chores::begin();
            bench::run(&mut chores, loaded, &names)?;
            chores.end("measured");
            Ok(())
        }
        Chore::Advisories => {
            let mut chores = Chores::begin();
            advisories::run(&mut chores)?;
            chores.end("nothing is known against the dependencies but what deny.toml names");
            Ok(())
        }
        Chore::Soak { fuzz_seconds } => {
            let mut chores = Chores::begin();
            suite::soak(&mut chores)?;
            fuzz::run(&mut chores, fuzz_seconds)?;
            chores.end("everything passed");
            Ok(())
        }
    }
}
