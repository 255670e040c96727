//! `hearth-bench`: measures Hearth as its callers meet it, and prints one table.
//!
//! `cargo xtask bench` builds what is measured and starts this. How it measures, and what came
//! out, is in NOTES.md. Each measurement is one file in `measure/`; hosts, load, rounds and
//! table are the same for all.

mod cores;
mod host;
mod http;
mod load;
mod measure;
mod rounds;
mod samples;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;

use crate::cores::Cores;
use crate::measure::Measurement;

#[derive(Parser)]
#[command(about = "Measures Hearth; `cargo xtask bench` builds what it needs and starts it")]
struct Arguments {
    #[command(flatten)]
    setup: Setup,
    /// Only say whether these names are known
    #[arg(long)]
    check: bool,
    /// What to measure; everything where nothing is named
    names: Vec<String>,
}

/// What is measured, and how often.
#[derive(clap::Args)]
struct Setup {
    /// The directory of hearth, hearth-worker and hearth-compile
    #[arg(long, default_value = "target/dist")]
    programs: PathBuf,
    /// The same, with a worker that leaves its connections to hyper alone
    #[arg(long, default_value = "target/bench/plain-hyper")]
    plain_hyper: PathBuf,
    /// The directory of the tests' functions
    #[arg(long, default_value = "target/wasm32-wasip2/release")]
    guests: PathBuf,
    /// How often those who are compared take turns
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(5..))]
    rounds: u32,
}

impl Setup {
    /// One of the tests' functions.
    fn guest(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let file = self.guests.join(name).with_extension("wasm");
        std::fs::read(&file).with_context(|| file.display().to_string())
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hearth-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let chosen = chosen(&arguments.names)?;
    if arguments.check {
        return Ok(());
    }
    let cores = Cores::find()?;
    println!("{}", cores::machine());
    let mut rows = Vec::new();
    for Measurement { name, measure } in chosen {
        eprintln!("hearth-bench: {name} ...");
        let measured = measure(&arguments.setup, cores);
        let measured = measured.with_context(|| format!("{name} could not be measured"))?;
        rows.extend(measured.into_iter().map(|row| (name, row)));
    }
    print!("{}", table::render(&rows));
    Ok(())
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<Measurement>> {
    let known = measure::ALL.map(|it| it.name);
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no measurement {unknown}; there are {}", known.join(", "));
    }
    let wanted = |name| names.is_empty() || names.iter().any(|it| it == name);
    Ok(measure::ALL.into_iter().filter(|it| wanted(it.name)).collect())
}
