//! The programs of a release. Its worker is built by a record of what it does most: once to record,
//! run in process over a mix of calls (`hearth-bench --train`), and then as it is released. A sealed
//! worker could write no record down, so it is a worker for measuring only that records.
//!
//! LLVM's tools must be those of the compiler, whose records the system's may not be able to read:
//! rustup has them as a component. Where they cannot be had, a release has a plain worker, and says
//! so. Development and tests know nothing of this.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

use crate::build::{self, cargo, dist, packages, released, root, target};
use crate::chores::{Chores, succeed};

const PROGRAMS: [&str; 3] = ["hearth", WORKER, "hearth-compile"];
const WORKER: &str = "hearth-worker";
/// What a worker has that no release has. No features of its package, by which the names in its code
/// would be others, so that a record of the one would be none of the other.
const RECORDING: &str = "--cfg measures -Cprofile-generate";
const MEASURING: &str = "--cfg measures --cfg plain_hyper";
/// Beside the programs, for whoever says what was measured.
const BUILT: &str = "built.txt";
const MISSING: &str = "xtask: there are none of LLVM's tools (`rustup component add llvm-tools`): \
                       the worker is built without a recorded run";

/// All of them, in `target/dist`, with the record that the worker is built by.
pub(crate) fn build(chores: &mut Chores) -> anyhow::Result<Option<Record>> {
    build::bundled(chores)?;
    chores.command("building host and worker", &mut dist(&["hearth", WORKER]))?;
    chores.command("building the compiler", &mut dist(&["hearth-compile"]))?;
    let record = record(chores)?;
    worker(chores, record.as_ref())?;
    for name in PROGRAMS {
        let bytes = fs::metadata(released(name))?.len();
        eprintln!("xtask: target/dist/{name}: {:.1} MB", bytes as f64 / 1e6);
    }
    Ok(record)
}

/// What a worker did in a recorded run.
pub(crate) struct Record {
    file: PathBuf,
    /// For which code is made: named, so that flags are not those of build scripts, too.
    host: String,
}

/// None where there is nothing that could read it. It is made once for each worker.
fn record(chores: &mut Chores) -> anyhow::Result<Option<Record>> {
    let host = host()?;
    let Some(profdata) = chores.step("looking for LLVM's tools", || tool(&host))? else {
        eprintln!("{MISSING}");
        return Ok(None);
    };
    chores.command("building the bench", &mut dist(&["hearth-bench"]))?;
    build::testing(chores)?;
    let guided = target().join("guided");
    let mut recording = building(&guided.join("recording"), &host, RECORDING);
    chores.command("building a worker that records", &mut recording)?;
    let worker = built(&guided.join("recording"), &host);
    let file = guided.join(format!("{}.profdata", digest(&worker)?));
    if !file.is_file() {
        let raw = guided.join("raw");
        chores.step("recording what it does", || {
            let _ = fs::remove_dir_all(&raw);
            train(&worker, &raw)
        })?;
        chores.step("merging what was recorded", || {
            let new = file.with_extension("new");
            succeed(Command::new(profdata).arg("merge").arg(&raw).arg("-o").arg(&new))?;
            Ok(fs::rename(new, &file)?)
        })?;
    }
    Ok(Some(Record { file, host }))
}

/// The worker of a release, in `target/dist`.
fn worker(chores: &mut Chores, record: Option<&Record>) -> anyhow::Result<()> {
    let said = match record {
        Some(record) => {
            let worker = guided(chores, record, "building the worker by its record", "")?;
            lay(&worker, &released(WORKER))?;
            "with the profile `dist`, its worker by a recorded run"
        }
        // It is there already, built along with the host.
        None => "with the profile `dist`, without a recorded run",
    };
    Ok(fs::write(released(BUILT), said)?)
}

/// The same for measuring only, wherever it lies.
pub(crate) fn worker_to_measure(
    chores: &mut Chores,
    record: Option<&Record>,
) -> anyhow::Result<PathBuf> {
    let name = "building a worker for measuring only";
    if let Some(record) = record {
        return guided(chores, record, name, MEASURING);
    }
    let (host, to) = (host()?, target().join("guided/plain"));
    chores.command(name, &mut building(&to, &host, MEASURING))?;
    Ok(built(&to, &host))
}

fn guided(
    chores: &mut Chores,
    record: &Record,
    name: &str,
    other: &str,
) -> anyhow::Result<PathBuf> {
    let directory = target().join("guided/by-record");
    let flags = format!("{other} -Cprofile-use={}", record.file.display());
    chores.command(name, &mut building(&directory, &record.host, &flags))?;
    Ok(built(&directory, &record.host))
}

fn building(directory: &Path, host: &str, flags: &str) -> Command {
    let mut build = cargo(["build", "--profile", "dist", "--target", host]);
    build.args(packages(&[WORKER]));
    build.env("CARGO_TARGET_DIR", directory).env("RUSTFLAGS", flags);
    build
}

fn built(directory: &Path, host: &str) -> PathBuf {
    directory.join(host).join("dist").join(WORKER)
}

/// A host of the release as it is has the functions compiled, and writes down what is called.
fn train(worker: &Path, raw: &Path) -> anyhow::Result<()> {
    let mut train = Command::new(released("hearth-bench"));
    train.arg("--train").arg("--programs").arg(target().join("dist"));
    train.arg("--measuring").arg(worker.parent().context("a program lies somewhere")?);
    train.arg("--guests").arg(target().join("wasm32-wasip2/release"));
    train.env("LLVM_PROFILE_FILE", raw.join("%p.profraw"));
    succeed(&mut train)
}

/// A new file in another's place: what still runs keeps its own.
pub(crate) fn lay(from: &Path, to: &Path) -> anyhow::Result<()> {
    let new = to.with_extension("new");
    fs::copy(from, &new).with_context(|| from.display().to_string())?;
    Ok(fs::rename(new, to)?)
}

/// As the compiler calls what it runs on.
fn host() -> anyhow::Result<String> {
    let said = rustc(&["--verbose", "--version"])?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc says what it runs on")
}

fn tool(host: &str) -> anyhow::Result<Option<PathBuf>> {
    let sysroot = rustc(&["--print", "sysroot"])?;
    let tool = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin/llvm-profdata");
    if !tool.is_file() {
        let mut add = Command::new("rustup");
        // Where there is no rustup, or it cannot have them, a release goes without.
        let _ = add.args(["component", "add", "llvm-tools"]).current_dir(root()).status();
    }
    Ok(tool.is_file().then_some(tool))
}

fn rustc(arguments: &[&str]) -> anyhow::Result<String> {
    let said = Command::new("rustc").args(arguments).current_dir(root()).output()?;
    ensure!(said.status.success(), "rustc ended with {}", said.status);
    Ok(String::from_utf8(said.stdout)?)
}

/// A few characters that stand for a program's bytes.
fn digest(program: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(program).with_context(|| program.display().to_string())?;
    let digest = Sha256::digest(bytes);
    Ok(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}
