//! `hearth new`: a function's directory from a template.
//!
//! The templates and the SDK's sources are part of the binary, and the SDK is copied into the new
//! directory, so that what is made builds on any machine with Rust. Builds nothing itself.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::print::Print;
use super::{CliError, usage};

const RUST: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml.in")),
    ("README.md", include_str!("../../templates/rust/README.md.in")),
    (".gitignore", include_str!("../../templates/rust/gitignore")),
    ("src/lib.rs", include_str!("../../templates/rust/src/lib.rs")),
    ("vendor/hearth-sdk/src/lib.rs", include_str!("../../../sdk/src/lib.rs")),
];
const SDK_MANIFEST: &str = include_str!("../../../sdk/Cargo.toml");
const WORKSPACE_MANIFEST: &str = include_str!("../../../Cargo.toml");

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  hearth new hello && cd hello && hearth build && hearth upload hello.wasm"
)]
pub struct NewArgs {
    /// The function's name, and that of its directory
    name: String,
    /// The language to write it in
    #[arg(long, default_value = "rust")]
    lang: String,
}

pub fn run(args: NewArgs, print: Print) -> Result<(), CliError> {
    let NewArgs { name, lang } = args;
    if lang != "rust" {
        return Err(usage(format!("there is no template for `{lang}`; there is one for rust")));
    }
    if !is_name(&name) {
        return Err(usage(format!(
            "`{name}` cannot name a function in Rust: 1 to 64 of letters, digits, '_' and '-', \
             beginning with a letter"
        )));
    }
    let directory = PathBuf::from(&name);
    create(&directory, &name).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            CliError::Refused(format!("./{name} exists already; choose another name"))
        }
        _ => CliError::File { path: directory.clone(), source: error },
    })?;
    let mut out = print.out();
    if print.json() {
        writeln!(out, "{}", serde_json::json!({ "name": name, "directory": directory }))?;
    } else {
        writeln!(out, "Made the function {name} in ./{name}. Next:\n")?;
        writeln!(out, "  cd {name} && hearth build && hearth upload {name}.wasm")?;
    }
    Ok(())
}

/// A name that is good for a crate and for a function.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn create(directory: &Path, name: &str) -> io::Result<()> {
    std::fs::create_dir(directory)?;
    let manifest = sdk_manifest();
    let files = RUST.iter().copied().chain([("vendor/hearth-sdk/Cargo.toml", manifest.as_str())]);
    for (file, text) in files {
        let path = directory.join(file);
        std::fs::create_dir_all(path.parent().expect("a file within the directory"))?;
        std::fs::write(path, text.replace("{{name}}", name))?;
    }
    Ok(())
}

/// The SDK's manifest with everything written out that it inherits from the workspace.
fn sdk_manifest() -> String {
    let table = |text| toml::from_str::<Table>(text).expect("the manifests of this build");
    let workspace = table(WORKSPACE_MANIFEST);
    let workspace = workspace["workspace"].as_table().expect("the root manifest's workspace");
    let mut manifest = table(SDK_MANIFEST);
    manifest.remove("lints");
    for (section, inherited) in [("package", "package"), ("dependencies", "dependencies")] {
        let Some(Value::Table(entries)) = manifest.get_mut(section) else { continue };
        for (name, value) in entries {
            if value.get("workspace").is_some() {
                *value = workspace[inherited][name.as_str()].clone();
            }
        }
    }
    toml::to_string(&manifest).expect("a manifest is plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["hello", "a", "my-function", "v2_x"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "_a", "2a", "a/b", "a.b", "ä", "a b", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn the_vendored_sdk_inherits_nothing() {
        let manifest: Table = toml::from_str(&sdk_manifest()).unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some("hearth-sdk"));
        assert!(manifest["package"]["edition"].is_str());
        assert!(manifest["dependencies"]["wasip2"].is_str());
        assert!(manifest["dependencies"]["serde"]["features"].is_array());
        assert!(!sdk_manifest().contains("workspace"), "{}", sdk_manifest());
        // A part of the SDK that lies elsewhere must be vendored too.
        assert!(!sdk_manifest().contains("path"), "{}", sdk_manifest());
    }

    #[test]
    fn an_existing_directory_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let error = create(dir.path(), "hello").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        create(&dir.path().join("hello"), "hello").unwrap();
        let manifest = std::fs::read_to_string(dir.path().join("hello/Cargo.toml")).unwrap();
        assert!(manifest.contains("name = \"hello\"\n"), "{manifest}");
    }
}
