//! The tests' guests in JavaScript, whose toolchain comes from npm.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::chores::{Chores, succeed};
use crate::foreign::Foreign;

const GUEST: Foreign = Foreign {
    language: "JavaScript",
    files: &[
        "package.json",
        "package-lock.json",
        "build.js",
        "hono_app.js",
        "wit/world.wit",
        "wit/deps/http.wit",
    ],
    made: "hono_app.wasm",
};

pub(crate) fn guests(chores: &mut Chores) -> anyhow::Result<()> {
    GUEST.make(chores, install, make)
}

fn install(directory: &Path) -> anyhow::Result<()> {
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(directory);
    succeed(&mut npm).context("Node.js (20 or later) and its npm are needed for this")
}

fn make(directory: &Path) -> anyhow::Result<()> {
    succeed(Command::new("node").arg("build.js").current_dir(directory))
}
