//! `hearth build`: the function in the current directory, from its sources to NAME.wasm.
//!
//! Runs cargo, which draws its own progress on a terminal. What a module must be is for the host
//! to say at upload.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::error::CliError;
use super::print::{Print, bytes};

pub const TARGET: &str = "wasm32-wasip2";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Runs `cargo build --release --target wasm32-wasip2` and leaves NAME.wasm beside Cargo.toml.\n\nExample:\n  cd hello && hearth build"
)]
pub struct BuildArgs {}

pub fn run(BuildArgs {}: &BuildArgs, print: Print) -> Result<(), CliError> {
    let manifest = Path::new("Cargo.toml");
    let name = package_name(manifest)?;
    match target() {
        Target::Installed => {}
        Target::Missing => {
            return Err(CliError::Refused(format!(
                "Rust's target {TARGET} is not installed: rustup target add {TARGET}"
            )));
        }
        Target::NoRust(source) => return Err(no_rust("rustc", source)),
    }
    let named = |source| CliError::File { path: manifest.to_owned(), source };
    let built = cargo(&manifest.canonicalize().map_err(named)?)?;
    let file = PathBuf::from(format!("{name}.wasm"));
    let size = std::fs::copy(&built, &file)
        .map_err(|source| CliError::File { path: file.clone(), source })?;
    let mut out = print.out();
    if print.json() {
        print.raw(&serde_json::json!({ "file": file, "size": size }).to_string())?;
    } else {
        let file = file.display();
        writeln!(out, "Built {file} ({}). Next: hearth upload {file}", bytes(size))?;
    }
    Ok(())
}

fn package_name(manifest: &Path) -> Result<String, CliError> {
    let text = match std::fs::read_to_string(manifest) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(CliError::Refused(
                "there is no Cargo.toml here; go to the function's directory, or make one: hearth new NAME"
                    .to_owned(),
            ));
        }
        Err(source) => return Err(CliError::File { path: manifest.to_owned(), source }),
    };
    let table: Option<toml::Table> = toml::from_str(&text).ok();
    let name = table.as_ref().and_then(|table| table.get("package")?.get("name")?.as_str());
    name.map(str::to_owned).ok_or_else(|| {
        CliError::Refused("Cargo.toml names no package; go to that of the function".to_owned())
    })
}

/// Whether Rust can build functions here.
pub enum Target {
    Installed,
    Missing,
    NoRust(io::Error),
}

pub fn target() -> Target {
    let asked = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .stderr(Stdio::null())
        .output();
    match asked {
        Ok(output) => {
            let directory = String::from_utf8_lossy(&output.stdout);
            let is_there = output.status.success() && Path::new(directory.trim()).is_dir();
            if is_there { Target::Installed } else { Target::Missing }
        }
        Err(error) => Target::NoRust(error),
    }
}

fn no_rust(program: &str, source: io::Error) -> CliError {
    match source.kind() {
        io::ErrorKind::NotFound => CliError::Refused(format!(
            "there is no `{program}` here; Rust is installed from https://rustup.rs"
        )),
        _ => CliError::File { path: program.into(), source },
    }
}

/// What cargo reports of each thing that it built.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// Builds, and says where the component lies.
fn cargo(manifest: &Path) -> Result<PathBuf, CliError> {
    let mut child = Command::new("cargo")
        .args(["build", "--release", "--target", TARGET])
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| no_rust("cargo", source))?;
    let stdout = BufReader::new(child.stdout.take().expect("it was piped"));
    let named = |source| CliError::File { path: "cargo".into(), source };
    let mut modules = Vec::new();
    for line in stdout.lines() {
        modules.extend(modules_of(&line.map_err(named)?, manifest));
    }
    let status = child.wait().map_err(named)?;
    if !status.success() {
        return Err(CliError::Refused("cargo could not build it; see above".to_owned()));
    }
    match modules.as_slice() {
        [module] => Ok(module.clone()),
        [] => Err(CliError::Refused(
            "the package makes no module; its Cargo.toml needs [lib] crate-type = [\"cdylib\"]"
                .to_owned(),
        )),
        many => Err(CliError::Refused(format!(
            "the package makes {} modules; upload them from target/{TARGET}/release by name",
            many.len()
        ))),
    }
}

/// A line may be of any kind, also of none that this version of cargo is known for.
fn modules_of(line: &str, manifest: &Path) -> Vec<PathBuf> {
    let Ok(message) = serde_json::from_str::<Message>(line) else { return Vec::new() };
    if message.reason != "compiler-artifact" || message.manifest_path != manifest {
        return Vec::new();
    }
    let is_module = |file: &PathBuf| file.extension().is_some_and(|it| it == "wasm");
    message.filenames.into_iter().filter(is_module).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_of_cargos_messages_name_the_module() {
        let modules = |line| modules_of(line, Path::new("/f/Cargo.toml"));
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/f/Cargo.toml","target":{"kind":["cdylib"]},"filenames":["/t/f.wasm","/t/f.d"]}"#;
        assert_eq!(modules(line), [PathBuf::from("/t/f.wasm")]);
        for line in [
            r#"{"reason":"compiler-artifact","manifest_path":"/dep/Cargo.toml","filenames":["/t/dep.wasm"]}"#,
            r#"{"reason":"compiler-artifact","manifest_path":"/f/Cargo.toml","filenames":["/t/f.rlib"]}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "no JSON",
        ] {
            assert!(modules(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn a_package_has_a_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (toml, name) in [
            ("[package]\nname = \"my-function\"", Some("my-function")),
            ("[workspace]", None),
            ("[package", None),
        ] {
            std::fs::write(file.path(), toml).unwrap();
            assert_eq!(package_name(file.path()).ok().as_deref(), name);
        }
        assert!(package_name(Path::new("/nowhere/Cargo.toml")).is_err());
    }
}
