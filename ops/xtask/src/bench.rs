//! Builds what is measured, with the profile of releases, and has `hearth-bench` measure it.
//!
//! The worker is built twice: as it is, and leaving its connections to hyper alone, which is
//! what the measurement `gate` compares it with. What there is to measure is in `ops/bench`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::build::{self, With, cargo, target};
use crate::chores::Chores;

const PROGRAMS: [&str; 3] = ["hearth", "hearth-worker", "hearth-compile"];
const PLAIN_HYPER: &str = "hearth-worker/plain-hyper";
/// The one measurement that needs it.
const GATE: &str = "gate";

pub(crate) fn run(chores: &mut Chores, names: &[String]) -> anyhow::Result<()> {
    chores.command("building the bench", &mut dist(&["hearth-bench"]))?;
    // Before minutes go into building what is not measured then.
    chores.command("looking for the measurements", bench().arg("--check").args(names))?;

    build::host(chores, With::NoTests)?;
    let mut guests = cargo(["build", "--release", "--target", "wasm32-wasip2", "-p", "testing"]);
    chores.command("building the tests' functions", &mut guests)?;
    chores.command("building the compiler to measure", &mut dist(&["hearth-compile"]))?;
    let plain = target().join("bench/plain-hyper");
    if names.is_empty() || names.iter().any(|name| name == GATE) {
        let mut build = dist(&["hearth", "hearth-worker"]);
        chores
            .command("building a worker on plain hyper", build.args(["--features", PLAIN_HYPER]))?;
        chores.step("laying it aside", || lay_aside(&plain))?;
    }
    chores
        .command("building host and worker to measure", &mut dist(&["hearth", "hearth-worker"]))?;
    let mut measure = bench();
    measure.arg("--programs").arg(target().join("dist")).arg("--plain-hyper").arg(plain);
    measure.arg("--guests").arg(target().join("wasm32-wasip2/release"));
    chores.command("measuring", measure.args(names))
}

fn bench() -> Command {
    Command::new(target().join("dist/hearth-bench"))
}

fn dist(packages: &[&str]) -> Command {
    let mut build = cargo(["build", "--profile", "dist"]);
    build.args(build::packages(packages));
    build
}

/// A host looks for the other programs beside itself.
fn lay_aside(to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for name in PROGRAMS {
        // A new file: what still runs keeps its own.
        let (from, new) = (target().join("dist").join(name), to.join(format!("{name}.new")));
        fs::copy(&from, &new).with_context(|| from.display().to_string())?;
        fs::rename(new, to.join(name))?;
    }
    Ok(())
}
