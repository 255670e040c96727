//! What is publicly known against the dependencies: whether the engine's line has a newer release,
//! by the registry, and the advisories, by cargo-deny. What cannot be asked fails, and says why:
//! nothing known and nothing asked are two things.
//!
//! What is done about an advisory is in `SECURITY.md`; which are met by other means until a release
//! comes, in `deny.toml`.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, bail};

use crate::build::{cargo, root};
use crate::chores::{Chores, succeed};
use crate::policy;

const ENGINE: &str = "wasmtime";
const DATABASE: &str = "https://github.com/rustsec/advisory-db";
/// Of what a command says of its failure.
const LINES_MAX: usize = 6;

pub(crate) fn run(chores: &mut Chores) -> anyhow::Result<()> {
    // Both are asked, whatever becomes of one.
    let line = chores.step("asking for releases of the engine's line", engine);
    let mut deny = policy::deny(chores)?;
    let advisories =
        chores.step("checking the dependencies against the advisories", || check(&mut deny));
    match (line, advisories) {
        (Err(line), Err(advisories)) => Err(anyhow::anyhow!("{line:#}\n{advisories:#}")),
        (line, advisories) => line.and(advisories),
    }
}

fn engine() -> anyhow::Result<()> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml"))?;
    let pinned = pinned(&manifest).context("Cargo.toml pins no version of the engine")?;
    let line = pinned.split('.').next().unwrap_or(pinned);
    // Elsewhere than in this workspace, whose own version would be what is told.
    let mut info = cargo(["info", "--color", "never", &format!("{ENGINE}@{line}")]);
    let said = info.current_dir(Path::new("/")).output().context("cargo could not be run")?;
    if !said.status.success() {
        bail!("the registry was not reached, so newer releases are not known: {}", ending(&said));
    }
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let newest = newest(&said).context("cargo told no version of the engine")?;
    if newest == pinned {
        eprintln!("xtask: {ENGINE} {pinned} is the newest release of its line");
        return Ok(());
    }
    bail!("{ENGINE} has the release {newest}, and {pinned} is used: see SECURITY.md")
}

fn check(deny: &mut Command) -> anyhow::Result<()> {
    // Asked first and by itself: an old copy of the database would be checked without a word.
    let mut git = Command::new("git");
    git.args(["ls-remote", "--quiet", DATABASE, "HEAD"]).env("GIT_TERMINAL_PROMPT", "0");
    let reached = git.output().context("git could not be run")?;
    if !reached.status.success() {
        bail!(
            "the database of advisories, {DATABASE}, was not reached by git, so nothing was \
             checked: {}",
            ending(&reached)
        );
    }
    succeed(deny.args(["check", "advisories"]))
}

/// The version that the workspace pins, whole.
fn pinned(manifest: &str) -> Option<&str> {
    let (_, rest) = manifest.split_once(&format!("\n{ENGINE} = {{ version = \"="))?;
    rest.split('"').next()
}

/// Of what `cargo info` says.
fn newest(said: &str) -> Option<&str> {
    let version = said.lines().find_map(|line| line.strip_prefix("version: "))?;
    version.split_whitespace().next()
}

/// The last lines of what a command said, which tell why.
fn ending(said: &Output) -> String {
    let text = String::from_utf8_lossy(&said.stderr);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pinned_is_found_in_the_workspaces_manifest() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let pinned = pinned(&manifest).unwrap();
        assert_eq!(pinned.split('.').count(), 3, "{pinned}");
        assert!(pinned.split('.').all(|part| part.parse::<u32>().is_ok()), "{pinned}");
        assert_eq!(super::pinned("[dependencies]\nwasmtime = \"48\"\n"), None);
    }

    #[test]
    fn what_cargo_says_of_a_package() {
        let said = "wasmtime\nHigh-level API\nversion: 48.0.9 (latest 50.0.2)\nlicense: x\n";
        assert_eq!(newest(said), Some("48.0.9"));
        assert_eq!(newest("wasmtime\nversion: 48.0.8\n"), Some("48.0.8"));
        assert_eq!(newest("nothing"), None);
    }
}
