//! The tests' guests in JavaScript: their toolchain comes from npm into `target/javascript`, where
//! they are made, and made again only when something of theirs has changed.
//!
//! Their sources are in `functions/testing/javascript`, where nothing is written.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::build::{root, target};
use crate::chores::{Chores, succeed};

const FILES: [&str; 6] = [
    "package.json",
    "package-lock.json",
    "build.js",
    "hono_app.js",
    "wit/world.wit",
    "wit/deps/http.wit",
];
const MADE: &str = "hono_app.wasm";
/// Beside what was made: the files that it was made of.
const MADE_OF: &str = "made-of";

pub(crate) fn guests(chores: &mut Chores) -> anyhow::Result<()> {
    let sources = root().join("functions/testing/javascript");
    let directory = target().join("javascript");
    let wanted = written(&sources)?;
    let made_of = fs::read_to_string(directory.join(MADE_OF)).unwrap_or_default();
    if made_of == wanted && directory.join(MADE).is_file() {
        return Ok(());
    }
    chores.step("installing what JavaScript is made into functions with", || {
        copy(&sources, &directory)?;
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(&directory);
        succeed(&mut npm).context("Node.js (20 or later) and its npm are needed for this")
    })?;
    chores.step("building the tests' functions in JavaScript", || {
        succeed(Command::new("node").arg("build.js").current_dir(&directory))?;
        Ok(fs::write(directory.join(MADE_OF), wanted)?)
    })
}

/// The text of all files.
fn written(sources: &Path) -> anyhow::Result<String> {
    let texts = FILES.into_iter().map(|name| {
        let text = fs::read_to_string(sources.join(name)).with_context(|| name.to_owned())?;
        Ok(format!("{name}\n{text}\n"))
    });
    texts.collect()
}

fn copy(sources: &Path, directory: &Path) -> anyhow::Result<()> {
    for name in FILES {
        let to = directory.join(name);
        fs::create_dir_all(to.parent().expect("a file is in a directory"))?;
        fs::copy(sources.join(name), to).with_context(|| name.to_owned())?;
    }
    Ok(())
}
