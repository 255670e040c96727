//! Builds what is measured, with the profile of releases, and what it is compared with, and has
//! `hearth-bench` measure it and write the README's table.
//!
//! The worker is built twice: as it is, and for measuring only: with a command that measures calls
//! in process, and leaving its connections to hyper alone, which is what the measurement `gate`
//! compares it with. Fastify is installed where there is npm; without
//! it, the rows that need it say so. What there is to measure is in `ops/bench`.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::build::{self, cargo, dist, root, target};
use crate::chores::Chores;

const PROGRAMS: [&str; 3] = ["hearth", "hearth-worker", "hearth-compile"];
const MEASURING: &str = "hearth-worker/plain-hyper,hearth-worker/bench";
/// Those that need it.
const WITH_MEASURING: [&str; 2] = ["call", "gate"];
/// Those that need Fastify, and its files.
const WITH_FASTIFY: [&str; 2] = ["hello", "wake"];
const PACKAGE: &str = "package.json";
const LOCK: &str = "package-lock.json";
const SERVER: &str = "server.js";

pub(crate) fn run(chores: &mut Chores, names: &[String]) -> anyhow::Result<()> {
    chores.command("building the bench", &mut dist(&["hearth-bench"]))?;
    // Before minutes go into building what is not measured then.
    chores.command("looking for the measurements", bench().arg("--check").args(names))?;
    let wanted = |name: &str| names.is_empty() || names.iter().any(|it| it == name);

    build::bundled(chores)?;
    let mut guests = cargo(["build", "--release", "--target", "wasm32-wasip2", "-p", "testing"]);
    chores.command("building the tests' functions", &mut guests)?;
    chores.command("building the compiler to measure", &mut dist(&["hearth-compile"]))?;
    let measuring = target().join("bench/measuring");
    if WITH_MEASURING.into_iter().any(wanted) {
        let mut build = dist(&["hearth", "hearth-worker"]);
        let build = build.args(["--features", MEASURING]);
        chores.command("building a worker for measuring only", build)?;
        chores.step("laying it aside", || lay_aside(&measuring))?;
    }
    chores
        .command("building host and worker to measure", &mut dist(&["hearth", "hearth-worker"]))?;
    chores.step("checking that a release has no fail points", no_fail_points)?;
    let fastify = target().join("bench/fastify");
    if WITH_FASTIFY.into_iter().any(wanted) {
        chores.step("installing Fastify", || install_fastify(&fastify))?;
    }
    let mut measure = bench();
    measure.arg("--programs").arg(target().join("dist")).arg("--measuring").arg(measuring);
    measure.arg("--guests").arg(target().join("wasm32-wasip2/release"));
    measure.arg("--fastify").arg(fastify).arg("--readme").arg(root().join("README.md"));
    chores.command("measuring", measure.args(names))
}

fn bench() -> Command {
    Command::new(target().join("dist/hearth-bench"))
}

/// What the tests of crashes are steered by must not be there for others to use.
fn no_fail_points() -> anyhow::Result<()> {
    let program = fs::read(target().join("dist/hearth"))?;
    let has = |text: &[u8]| program.windows(text.len()).any(|bytes| bytes == text);
    anyhow::ensure!(!has(b"fail-points"), "hearth was built with its fail points");
    anyhow::ensure!(has(b"trusted-proxy"), "this check would find no option at all");
    Ok(())
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

/// What the lock file says, and nothing that a package would run while it is installed. That it
/// cannot be had is no failure: much is measured without it.
fn install_fastify(to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    let from = root().join("ops/bench/fastify");
    let copy = |name: &str| fs::copy(from.join(name), to.join(name)).context(name.to_owned());
    copy(SERVER)?;
    // npm writes its own list when it has installed all of it.
    let wanted = fs::read(from.join(LOCK)).context(LOCK)?;
    let is_wanted = fs::read(to.join(LOCK)).is_ok_and(|there| there == wanted);
    if is_wanted && to.join("node_modules/.package-lock.json").is_file() {
        return Ok(());
    }
    copy(PACKAGE)?;
    copy(LOCK)?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]);
    match npm.current_dir(to).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            eprintln!("xtask: npm ended with {status}: going on without Fastify");
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("xtask: there is no npm: going on without Fastify");
            Ok(())
        }
        Err(error) => Err(error).context("npm could not be run"),
    }
}
