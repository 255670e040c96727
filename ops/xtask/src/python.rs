//! The tests' guests in Python, whose toolchain comes from PyPI, by digests: it is in no directory
//! of the system's, and nothing else is taken along.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::chores::{Chores, succeed};
use crate::foreign::Foreign;

const GUEST: Foreign = Foreign {
    language: "Python",
    files: &["requirements.txt", "spin_app.py"],
    made: "spin_app.wasm",
};
/// All that Spin has, as its SDK's own applications are made.
const WORLD: &str = "spin:up/http-trigger@4.1.0";
const ENVIRONMENT: &str = "venv";

pub(crate) fn guests(chores: &mut Chores) -> anyhow::Result<()> {
    GUEST.make(chores, install, make)
}

fn install(directory: &Path) -> anyhow::Result<()> {
    let mut environment = Command::new("python3");
    environment.args(["-m", "venv", "--clear", ENVIRONMENT]).current_dir(directory);
    succeed(&mut environment).context("Python (3.10 or later) and its venv are needed for this")?;
    let mut pip = Command::new(directory.join(ENVIRONMENT).join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary", ":all:", "--require-hashes", "--requirement", "requirements.txt"]);
    succeed(pip.current_dir(directory))
}

fn make(directory: &Path) -> anyhow::Result<()> {
    let environment = directory.join(ENVIRONMENT);
    let mut made = Command::new(environment.join("bin/componentize-py"));
    made.args(["--quiet", "--world", WORLD, "componentize", "spin_app", "--output", GUEST.made]);
    // Where it looks for the SDK.
    succeed(made.env("VIRTUAL_ENV", environment).current_dir(directory))
}
