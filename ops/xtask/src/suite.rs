//! What a test run consists of: form, lints, every package's own tests, and then the whole
//! system as real processes. Stops at the first thing that fails.

use std::ffi::OsString;
use std::fs;

use crate::build::{self, cargo};
use crate::chores::Chores;

/// Grouped as `build.rs` groups them, since another set of packages in one cargo call means
/// other features, and so the same dependencies compiled once more.
const HOST: [&str; 5] = ["hearth", "hearth-worker", "hearth-wire", "hearth-jail", "hearth-engine"];
const COMPILER: [&str; 1] = ["hearth-compile"];
const CHORES: [&str; 1] = ["xtask"];
const SDK: [&str; 1] = ["hearth-sdk"];

pub(crate) fn run(chores: &mut Chores, arguments: &[OsString]) -> anyhow::Result<()> {
    chores.command("checking the form", &mut cargo(["fmt", "--all", "--check"]))?;
    build::host(chores)?;
    build::guests(chores)?;
    chores.step("checking that only the compiler has Cranelift", only_the_compiler_compiles)?;
    chores.command(
        "linting the host",
        cargo(["clippy", "--all-targets"])
            .args([HOST.as_slice(), &COMPILER, &CHORES, &SDK].concat().iter().flat_map(package))
            .args(["--", "-D", "warnings"]),
    )?;
    chores.command("linting the functions", &mut build::guest_check()?)?;
    for (name, packages) in [
        ("testing the parts", HOST.as_slice()),
        ("testing the compiler", &COMPILER),
        ("testing the chores", &CHORES),
        ("testing the SDK", &SDK),
    ] {
        let mut test = cargo(["test", "--lib", "--bins"]);
        chores.command(name, test.args(packages.iter().flat_map(package)))?;
    }
    chores.command(
        "testing the whole system",
        cargo(["test", "--test", "it"])
            .args(HOST.iter().flat_map(package))
            .arg("--")
            .args(arguments),
    )
}

fn package<'a>(name: &&'a str) -> [&'a str; 2] {
    ["-p", name]
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
