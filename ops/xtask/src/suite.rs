//! What a test run consists of: form, lints, every package's own tests, and then the whole
//! system as real processes. Stops at the first thing that fails.

use std::ffi::OsString;
use std::fs;
use std::num::NonZero;
use std::process::Command;

use crate::build::{self, HOST, With, cargo, packages};
use crate::chores::Chores;
use crate::{lengths, policy, prose, rings};

const SDK: &[&str] = &["hearth-sdk", "hearth-sdk-macros", "hearth-options"];

pub(crate) fn run(chores: &mut Chores, arguments: &[OsString]) -> anyhow::Result<()> {
    chores.command("checking the form", &mut cargo(["fmt", "--all", "--check"]))?;
    chores.step("checking that no files import each other", rings::check)?;
    chores.step("checking how long files are", lengths::check)?;
    chores.step("checking that texts are plain", prose::check)?;
    policy::check(chores)?;
    build::host(chores, With::Tests)?;
    chores.step("checking that only the compiler has Cranelift", only_the_compiler_compiles)?;
    let mut clippy = cargo(["clippy", "--all-targets"]);
    clippy.args(packages(HOST)).args(packages(&["hearth-compile", "xtask"])).args(packages(SDK));
    chores.command("linting the host", clippy.args(["--", "-D", "warnings"]))?;
    chores.command("linting the functions", &mut build::guest_check()?)?;
    chores.command("checking the links of the documentation", &mut documentation())?;
    for (name, targets, packages) in [
        ("testing the parts", &["--lib", "--bins"][..], HOST),
        ("testing the compiler", &["--bins"], &["hearth-compile"]),
        ("testing the chores", &["--bins"], &["xtask"]),
        ("testing the SDK", &[], SDK),
    ] {
        let mut test = cargo(["test"]);
        test.args(targets).args(build::packages(packages));
        chores.command(name, &mut test)?;
    }
    let mut worker = cargo(["test", "--test", "worker"]);
    chores.command("testing worker and compiler by themselves", worker.args(packages(HOST)))?;
    let mut system = cargo(["test", "--test", "it"]);
    system.args(packages(HOST)).args(["--", SHOW]).args(arguments);
    system.env("RUST_TEST_THREADS", at_once().to_string());
    chores.command("testing the whole system", &mut system)
}

/// All that is ours, private things too, since most of it is. What clippy has looked at is not
/// looked at again.
fn documentation() -> Command {
    let mut doc = cargo(["doc", "--no-deps", "--document-private-items"]);
    doc.args(packages(HOST)).args(packages(&["hearth-compile", "xtask"])).args(packages(SDK));
    doc.env("RUSTDOCFLAGS", "-D rustdoc::broken_intra_doc_links");
    doc
}

/// How many of the system's tests run side by side: they wait more than they work.
fn at_once() -> usize {
    2 * std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// What passed says how much it tried: kills, calls, points.
const SHOW: &str = "--show-output";

/// The worker's own test that has a long form.
const RANDOM: &str = "row_33_random_statements";

/// The tests that have a long form, or a part of their names.
const LONG: &[&str] = &[
    "builds::all_wake_at_once_",
    "bursts_around_the_idle_time_lose_nothing",
    "durability::entries::",
    "durability::kills::",
    "durability::power::",
    "handover::load::",
    "hostile::ends::",
    "mix::",
];

pub(crate) fn soak(chores: &mut Chores) -> anyhow::Result<()> {
    build::host(chores, With::Tests)?;
    let mut test = cargo(["test", "--test", "it"]);
    test.args(packages(HOST)).args(["--", SHOW]).args(LONG).env("SOAK", "1");
    chores.command("running the long forms", &mut test)?;
    let mut random = cargo(["test", "--bins"]);
    random.args(packages(&["hearth-worker"])).args(["--", SHOW, RANDOM]).env("SOAK", "1");
    chores.command("running ten thousand random statements", &mut random)
}

/// A worker runs what it is given and can make no code: a mistake in the features would not be
/// noticed otherwise.
fn only_the_compiler_compiles() -> anyhow::Result<()> {
    let has_cranelift = |name| -> anyhow::Result<bool> {
        let program = fs::read(build::program(name))?;
        Ok(program.windows(b"cranelift_codegen".len()).any(|bytes| bytes == b"cranelift_codegen"))
    };
    anyhow::ensure!(!has_cranelift("hearth-worker")?, "hearth-worker contains Cranelift");
    anyhow::ensure!(!has_cranelift("hearth")?, "hearth contains Cranelift");
    anyhow::ensure!(has_cranelift("hearth-compile")?, "this check would find no Cranelift at all");
    Ok(())
}
