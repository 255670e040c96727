//! `hearth-bench`: measures Hearth as its callers meet it, and prints one table.
//!
//! `cargo xtask bench` builds what is measured and starts this. How it measures, and what came
//! out, is in NOTES.md. Each measurement is one file in `measure/`; hosts, load, rounds and
//! table are the same for all.

#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a measurement speaks to whoever runs it, at a terminal"
)]

mod attacks;
mod cores;
mod ground;
mod host;
mod http;
mod lines;
mod load;
mod measure;
mod module;
mod others;
mod readme;
mod rounds;
mod samples;
mod table;
mod training;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Parser;

use crate::cores::Cores;
use crate::measure::Measurement;
use crate::readme::Measured;

#[derive(Parser)]
#[command(about = "Measures Hearth; `cargo xtask bench` builds what it needs and starts it")]
struct Arguments {
    #[command(flatten)]
    setup: Setup,
    /// Only say whether these names are known
    #[arg(long)]
    check: bool,
    /// Measure nothing: only make the calls that a worker's record is made of
    #[arg(long)]
    train: bool,
    /// The README whose table is to be written
    #[arg(long)]
    readme: Option<PathBuf>,
    /// Write it also where the machine was busy before, and say so in the table
    #[arg(long)]
    loaded: bool,
    /// The machine's load before anything was built for this; what it is now where it is not said
    #[arg(long)]
    load_before: Option<f64>,
    /// What to measure; everything where nothing is named
    names: Vec<String>,
}

/// Fewer are for trying, and are no figures for a README.
const ROUNDS: u32 = 40;
/// Beside more, figures are of the machine's other work as well.
const LOAD_QUIET: f64 = 1.5;

/// What is measured, and how often.
#[derive(clap::Args)]
struct Setup {
    /// The directory of hearth, hearth-worker and hearth-compile
    #[arg(long, default_value = "target/dist")]
    programs: PathBuf,
    /// The same, with a worker that can measure itself and leaves its connections to hyper alone
    #[arg(long, default_value = "target/bench/measuring")]
    measuring: PathBuf,
    /// The directory of the tests' functions
    #[arg(long, default_value = "target/wasm32-wasip2/release")]
    guests: PathBuf,
    /// The directory where Fastify was installed, beside its server
    #[arg(long, default_value = "target/bench/fastify")]
    fastify: PathBuf,
    /// The program `wasmtime`
    #[arg(long, env = "WASMTIME", default_value = "wasmtime")]
    wasmtime: PathBuf,
    /// How often those who are compared take turns
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(5..))]
    rounds: u32,
}

impl Setup {
    /// One of the tests' functions.
    fn guest(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let file = self.guest_file(name);
        fs::read(&file).with_context(|| file.display().to_string())
    }

    /// The worker that can measure itself.
    fn measuring_worker(&self) -> anyhow::Result<PathBuf> {
        let worker = fs::canonicalize(self.measuring.join("hearth-worker"));
        worker.context("the worker that measures")
    }

    fn guest_file(&self, name: &str) -> PathBuf {
        self.guests.join(name).with_extension("wasm")
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
    if arguments.train {
        return training::run(&arguments.setup);
    }
    let cores = Cores::find()?;
    let machine = cores::machine()?;
    let load = arguments.load_before.map_or_else(cores::load_average, Ok)?;
    println!("{machine}; load before it {load}");
    let (mut run, mut failed) = (Vec::new(), Vec::new());
    let mut rows = Vec::new();
    for Measurement { name, measure } in chosen {
        eprintln!("hearth-bench: {name} ...");
        let begun = Instant::now();
        match measure(&arguments.setup, cores) {
            Ok(measured) => {
                run.push(name);
                rows.extend(measured.into_iter().map(|row| (name, row)));
                eprintln!("hearth-bench: {name}: {:.0} s", begun.elapsed().as_secs_f64());
            }
            // The others, which took minutes, are kept all the same.
            Err(error) => {
                eprintln!("hearth-bench: {name} could not be measured: {error:#}");
                failed.push(name);
            }
        }
    }
    print!("{}", table::render(&rows));
    if let Some(file) = &arguments.readme {
        ensure!(arguments.setup.rounds >= ROUNDS, "a README has figures of {ROUNDS} rounds only");
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let measured = Measured {
            machine,
            programs: others::programs(&arguments.setup),
            load: (load > LOAD_QUIET).then_some(load),
        };
        let names = (&measure::ALL.map(|it| it.name)[..], &run[..]);
        if measured.load.is_some() && !arguments.loaded {
            eprintln!(
                "hearth-bench: the README is left as it is: the machine had a load of {load} \
                 before; `--loaded` writes the table with it"
            );
        } else {
            match readme::update(&text, &measured, names, &rows)? {
                Some(updated) => fs::write(file, updated)?,
                None => eprintln!(
                    "hearth-bench: the README is left as it is: its table is of another machine, \
                     or of programs that were built otherwise, and only a run of everything \
                     begins another"
                ),
            }
        }
    }
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
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
