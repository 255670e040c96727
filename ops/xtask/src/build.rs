//! What is built, and in which order: the bundled functions, then the host that embeds them.
//!
//! The compiler has a cargo call of its own. In one call cargo would unite the features of all
//! packages, and the worker would carry Cranelift, which only the compiler may have.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::chores::{Chores, succeed};

const WASM: &str = "wasm32-wasip2";
/// Packed once and kept by every host: size counts for more than a second here.
const ZSTD_LEVEL: i32 = 19;
/// Guests of the tests, which no tenant gets.
const TESTING: &str = "testing";
/// One more of them, with dependencies that change the features of the others'.
const TESTING_SPIN: &str = "testing-spin";
/// Its examples are called by the tests, too.
const SDK: &str = "hearth-sdk";

/// What is built, checked and tested in one cargo call: another set of packages means other
/// features, and so the same dependencies compiled once more.
pub(crate) const HOST: &[&str] = &[
    "hearth",
    "hearth-worker",
    "hearth-connection",
    "hearth-wire",
    "hearth-schema",
    "hearth-jail",
    "hearth-engine",
    "hearth-host",
    "hearth-e2e",
];

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this file is in ops/xtask/src")
}

pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// Where a program of the host lies once it is built.
pub(crate) fn program(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

/// A cargo command in this repository and its one target directory.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root()).env("CARGO_TARGET_DIR", target());
    // What the cargo that runs this says of the chores themselves. Build scripts that watch the
    // environment would take it for a change, and half of the host would be compiled anew.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Whether the tests are built along. They have dependencies of their own, and so features of
/// their own; built apart, the host would be compiled twice for one run of the tests.
pub(crate) enum With {
    NoTests,
    Tests,
}

/// The functions that every host embeds, whatever its profile.
pub(crate) fn bundled(chores: &mut Chores) -> anyhow::Result<()> {
    toolchain(chores)?;
    let names = bundled_names()?;
    let mut build = cargo(["build", "--release", "--target", WASM]);
    chores.command("building the bundled functions", build.args(packages(&names)))?;
    chores.step("packing the bundled functions", || {
        let built = target().join(WASM).join("release");
        pack(&names, &built, &target().join("bundled"))
    })
}

/// Everything that `hearth up` needs.
pub(crate) fn host(chores: &mut Chores, with: With) -> anyhow::Result<()> {
    bundled(chores)?;
    let (name, mut build) = match with {
        With::NoTests => {
            ("building host and worker", cargo(["build", "-p", "hearth", "-p", "hearth-worker"]))
        }
        With::Tests => {
            guests(chores)?;
            let mut build = cargo(["build", "--bins", "--tests"]);
            build.args(packages(HOST));
            ("building host, worker and tests", build)
        }
    };
    chores.command(name, &mut build)?;
    chores.command("building the compiler", &mut cargo(["build", "-p", "hearth-compile"]))
}

/// Where a program of a release lies.
pub(crate) fn released(name: &str) -> PathBuf {
    target().join("dist").join(name)
}

/// A build with the profile of releases.
pub(crate) fn dist(packages: &[&str]) -> Command {
    let mut build = cargo(["build", "--profile", "dist"]);
    build.args(self::packages(packages));
    build
}

/// The guests of the tests.
fn guests(chores: &mut Chores) -> anyhow::Result<()> {
    testing(chores)?;
    chores.command(
        "building the tests' function with Spin's SDK",
        &mut cargo(["build", "--release", "--target", WASM, "-p", TESTING_SPIN]),
    )?;
    chores.command(
        "building the SDK's examples",
        &mut cargo(["build", "--release", "--target", WASM, "-p", SDK, "--examples"]),
    )?;
    crate::javascript::guests(chores)?;
    crate::python::guests(chores)
}

/// Those of them that behave in every way that a function can.
pub(crate) fn testing(chores: &mut Chores) -> anyhow::Result<()> {
    let mut build = cargo(["build", "--release", "--target", WASM, "-p", TESTING]);
    chores.command("building the tests' functions", &mut build)
}

/// The packages that are built for [`WASM`] only, as a check of them needs it.
pub(crate) fn guest_check() -> anyhow::Result<Command> {
    let mut names = bundled_names()?;
    names.extend([TESTING, TESTING_SPIN].map(str::to_owned));
    let mut clippy = cargo(["clippy", "--release", "--target", WASM]);
    clippy.args(packages(&names)).args(["--", "-D", "warnings"]);
    Ok(clippy)
}

/// Adds the target where it is missing: rustup does not do it by itself everywhere.
fn toolchain(chores: &mut Chores) -> anyhow::Result<()> {
    let found = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", WASM])
        .current_dir(root())
        .output()
        .context("rustc is not there; install Rust from https://rustup.rs")?;
    let directory = String::from_utf8(found.stdout).context("rustc names a directory")?;
    if found.status.success() && Path::new(directory.trim()).is_dir() {
        return Ok(());
    }
    chores.step("adding the target wasm32-wasip2", || {
        succeed(Command::new("rustup").args(["target", "add", WASM]).current_dir(root()))
            .context("Rust needs its target wasm32-wasip2; `rustup target add wasm32-wasip2`")
    })
}

/// Every package in `functions/` but the tests' guests.
fn bundled_names() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("functions"))? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("functions have plain names")?;
        if name != TESTING && entry.path().join("Cargo.toml").is_file() {
            names.push(name);
        }
    }
    names.sort();
    anyhow::ensure!(!names.is_empty(), "there is no function in functions/");
    Ok(names)
}

pub(crate) fn packages<S: AsRef<str>>(names: &[S]) -> impl Iterator<Item = &str> {
    names.iter().flat_map(|name| ["-p", name.as_ref()])
}

/// Writes `<name>.wasm.zst` for each function, and removes what is no longer one. A file that
/// would stay the same is not touched, so that the host is not built again.
fn pack(names: &[String], built: &Path, bundled: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(bundled)?;
    let mut expected = Vec::new();
    for name in names {
        let module = built.join(name.replace('-', "_")).with_extension("wasm");
        let module = fs::read(&module).with_context(|| module.display().to_string())?;
        let packed = zstd::encode_all(module.as_slice(), ZSTD_LEVEL)?;
        let file = bundled.join(format!("{name}.wasm.zst"));
        match fs::read(&file) {
            Ok(there) if there == packed => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Ok(_) | Err(_) => fs::write(&file, packed)?,
        }
        expected.push(file);
    }
    for entry in fs::read_dir(bundled)? {
        let file = entry?.path();
        if !expected.contains(&file) {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_written_and_what_is_gone_goes() {
        let directory = root().join("target").join(format!("xtask-test-{}", std::process::id()));
        let (built, bundled) = (directory.join("built"), directory.join("bundled"));
        fs::create_dir_all(&built).unwrap();
        fs::write(built.join("a_b.wasm"), "module").unwrap();
        let names = ["a-b".to_owned()];

        pack(&names, &built, &bundled).unwrap();
        let file = bundled.join("a-b.wasm.zst");
        let first = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(bundled.join("old.wasm.zst"), "").unwrap();
        pack(&names, &built, &bundled).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), first);
        assert_eq!(zstd::decode_all(fs::read(&file).unwrap().as_slice()).unwrap(), b"module");
        assert!(!bundled.join("old.wasm.zst").exists());

        assert!(pack(&["missing".to_owned()], &built, &bundled).is_err());
        fs::remove_dir_all(directory).unwrap();
    }
}
