//! Runs the fuzz targets of `ops/fuzz`, each for a bounded time, from the corpus that is kept
//! there. What a run finds of its own lies below `target`, and what breaks, beside its target.
//!
//! libFuzzer needs the nightly toolchain and cargo-fuzz. Nothing else here does, and nothing of it
//! is installed by itself.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::build::{root, target};
use crate::chores::Chores;

/// As the files in `ops/fuzz/fuzz_targets` are called.
const TARGETS: [&str; 5] = ["control", "http", "options", "router", "upload"];
/// One input may take so many seconds, so much memory, and be so long.
const LIMITS: [&str; 3] = ["-timeout=25", "-rss_limit_mb=2048", "-max_len=16384"];

pub(crate) fn run(chores: &mut Chores, seconds: u32) -> anyhow::Result<()> {
    chores.step("looking for cargo-fuzz", || {
        let found = fuzz().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        anyhow::ensure!(
            found.is_ok_and(|status| status.success()),
            "fuzzing needs the nightly toolchain and cargo-fuzz: \
             `rustup toolchain install nightly && cargo install cargo-fuzz`"
        );
        Ok(())
    })?;
    for name in TARGETS {
        let found = target().join("fuzz/found").join(name);
        fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
        let mut run = fuzz();
        run.args(["run", "--fuzz-dir"]).arg(directory()).arg(name);
        run.arg(found).arg(directory().join("corpus").join(name));
        run.arg("--").arg(format!("-max_total_time={seconds}")).args(LIMITS);
        chores.command(&format!("fuzzing {name}"), &mut run)?;
    }
    Ok(())
}

fn directory() -> PathBuf {
    root().join("ops/fuzz")
}

fn fuzz() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "fuzz"]).current_dir(root());
    command.env("CARGO_TARGET_DIR", target().join("fuzz"));
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_target_is_run_and_has_a_corpus() {
        let names = |part: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(directory().join(part)).unwrap();
            let paths = entries.map(|entry| entry.unwrap().path());
            paths.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
        };
        let targets = BTreeSet::from(TARGETS.map(str::to_owned));
        assert_eq!(names("fuzz_targets"), targets);
        assert_eq!(names("corpus"), targets);
    }
}
