//! Builds what is measured, with the profile of releases, and what it is compared with, and has
//! `hearth-bench` measure it and write the README's table.
//!
//! The worker is built twice, both by one record: as it is, and for measuring only: with a command
//! that measures calls in process, and leaving its connections to hyper alone, which is what the
//! measurement `gate` compares it with. Fastify is installed where there is npm; without it, the
//! rows that need it say so. What there is to measure is in `ops/bench`.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::build::{self, dist, released, root, target};
use crate::chores::Chores;
use crate::release;

/// Those that need it.
const WITH_MEASURING: [&str; 2] = ["call", "gate"];
/// Those that need Fastify, and its files.
const WITH_FASTIFY: [&str; 2] = ["hello", "wake"];
const PACKAGE: &str = "package.json";
const LOCK: &str = "package-lock.json";
const SERVER: &str = "server.js";

pub(crate) fn run(chores: &mut Chores, loaded: bool, names: &[String]) -> anyhow::Result<()> {
    // Before it is this that makes the machine busy.
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    chores.command("building the bench", &mut dist(&["hearth-bench"]))?;
    // Before minutes go into building what is not measured then.
    chores.command("looking for the measurements", program().arg("--check").args(names))?;
    let wanted = |name: &str| names.is_empty() || names.iter().any(|it| it == name);

    let record = release::build(chores)?;
    chores.step("checking that a release has no fail points", no_fail_points)?;
    build::testing(chores)?;
    let measuring = target().join("bench/measuring");
    if WITH_MEASURING.into_iter().any(wanted) {
        let worker = release::worker_to_measure(chores, record.as_ref())?;
        chores.step("laying it aside", || lay_aside(&worker, &measuring))?;
    }
    let fastify = target().join("bench/fastify");
    if WITH_FASTIFY.into_iter().any(wanted) {
        chores.step("installing Fastify", || install_fastify(&fastify))?;
    }
    let mut measure = program();
    measure.arg("--programs").arg(target().join("dist")).arg("--measuring").arg(measuring);
    measure.arg("--guests").arg(target().join("wasm32-wasip2/release"));
    measure.arg("--fastify").arg(fastify).arg("--readme").arg(root().join("README.md"));
    measure.args(["--load-before", load]).args(loaded.then_some("--loaded"));
    chores.command("measuring", measure.args(names))
}

fn program() -> Command {
    Command::new(released("hearth-bench"))
}

/// What the tests of crashes are steered by must not be there for others to use.
fn no_fail_points() -> anyhow::Result<()> {
    let program = fs::read(released("hearth"))?;
    let has = |text: &[u8]| program.windows(text.len()).any(|bytes| bytes == text);
    anyhow::ensure!(!has(b"fail-points"), "hearth was built with its fail points");
    anyhow::ensure!(has(b"trusted-proxy"), "this check would find no option at all");
    Ok(())
}

/// A host looks for the other programs beside itself.
fn lay_aside(worker: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    release::lay(worker, &to.join("hearth-worker"))?;
    for name in ["hearth", "hearth-compile"] {
        release::lay(&released(name), &to.join(name))?;
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
