//! What `deny.toml` says of the dependencies: which licences and registries are taken, and which
//! packages are there in two versions. Judged by cargo-deny, without the network; what is publicly
//! known against them, which needs it, is in [`crate::advisories`].
//!
//! cargo-deny comes from the registry, in the version that is named here, and stays in
//! `target/tools`. It is built without optimisation, since it runs for seconds.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::build::{cargo, root, target};
use crate::chores::Chores;

const VERSION: &str = "0.20.2";

pub(crate) fn check(chores: &mut Chores) -> anyhow::Result<()> {
    // All of them, also those of other systems, since it reads what each says of itself.
    chores.command("fetching the dependencies", &mut cargo(["fetch", "--locked"]))?;
    let mut deny = deny(chores)?;
    let judged = ["bans", "licenses", "sources"];
    // What is right is not told at length, and a warning is as good as an error.
    deny.args(["--offline", "--log-level", "error", "check", "--deny", "warnings"]).args(judged);
    chores.command("checking what deny.toml says of the dependencies", &mut deny)
}

/// The tool, in its one version.
pub(crate) fn deny(chores: &mut Chores) -> anyhow::Result<Command> {
    let program = program();
    if !is_there(&program) {
        let mut install = cargo(["install", "--locked", "--debug", "--no-default-features"]);
        install.args(["cargo-deny", "--version", VERSION, "--force", "--root"]).arg(tools());
        // Where it is built is its own affair: its packages have other features than ours.
        install.env("CARGO_TARGET_DIR", tools().join("build")).env("CARGO_PROFILE_DEV_DEBUG", "0");
        chores
            .command("building cargo-deny", &mut install)
            .with_context(|| format!("cargo-deny {VERSION} is needed from the registry"))?;
        std::fs::remove_dir_all(tools().join("build"))?;
    }
    let mut deny = Command::new(program);
    deny.current_dir(root());
    Ok(deny)
}

fn tools() -> PathBuf {
    target().join("tools")
}

fn program() -> PathBuf {
    tools().join("bin/cargo-deny")
}

fn is_there(program: &std::path::Path) -> bool {
    let said = Command::new(program).arg("--version").output();
    said.is_ok_and(|said| {
        String::from_utf8_lossy(&said.stdout).trim() == format!("cargo-deny {VERSION}")
    })
}
