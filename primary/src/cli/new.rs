//! `hearth new`: a function's directory from a template.
//!
//! The templates and the SDK's sources are part of the binary, and the SDK is copied into the new
//! directory, so that what is made builds on any machine with Rust. Builds nothing itself.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::error::{CliError, usage};
use super::print::Print;

const RUST: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml.in")),
    ("README.md", include_str!("../../templates/rust/README.md.in")),
    (".gitignore", include_str!("../../templates/rust/gitignore")),
    ("src/lib.rs", include_str!("../../templates/rust/src/lib.rs")),
];

/// The files of the SDK, by their paths in its directory.
macro_rules! sdk {
    ($($file:literal)*) => {
        &[$(($file, include_str!(concat!("../../../sdk/", $file)))),*]
    };
}

const SDK_DIRECTORY: &str = "vendor/hearth-sdk";
const SDK: &[(&str, &str)] = sdk! {
    "Cargo.toml"
    "macros/Cargo.toml"
    "macros/src/expand.rs"
    "macros/src/lib.rs"
    "macros/src/options.rs"
    "options/Cargo.toml"
    "options/src/lib.rs"
    "options/src/near.rs"
    "src/bindings.rs"
    "src/config.rs"
    "src/error.rs"
    "src/kind.rs"
    "src/kv.rs"
    "src/kv/bindings.rs"
    "src/lib.rs"
    "src/log.rs"
    "src/log/bindings.rs"
    "src/options.rs"
    "src/query.rs"
    "src/request.rs"
    "src/response.rs"
    "src/serve.rs"
    "src/settings.rs"
    "src/sql.rs"
    "src/sql/bindings.rs"
    "src/sql/row.rs"
    "src/sql/value.rs"
    "wit/function.wit"
};
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
    if is_function(Path::new(".")) {
        return Err(CliError::Refused(
            "this is the directory of a function; make the next one beside it: cd ..".to_owned(),
        ));
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
        print.raw(&serde_json::json!({ "name": name, "directory": directory }).to_string())?;
    } else {
        writeln!(out, "Made the function {name} in ./{name}. Next:\n")?;
        writeln!(out, "  cd {name} && hearth build && hearth upload {name}.wasm")?;
    }
    Ok(())
}

/// Whether a function is there already, which another one within would be part of.
fn is_function(directory: &Path) -> bool {
    directory.join(SDK_DIRECTORY).is_dir() && directory.join("Cargo.toml").is_file()
}

/// A name that is good for a crate and for a function.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn create(directory: &Path, name: &str) -> io::Result<()> {
    std::fs::create_dir(directory)?;
    let write = |file: &Path, text: &str| {
        let path = directory.join(file);
        std::fs::create_dir_all(path.parent().expect("a file within the directory"))?;
        std::fs::write(path, text)
    };
    for (file, text) in RUST {
        write(Path::new(file), &text.replace("{{name}}", name))?;
    }
    for (file, text) in SDK {
        let path = Path::new(SDK_DIRECTORY).join(file);
        if file.ends_with("Cargo.toml") {
            write(&path, &standing_alone(file, text))?;
        } else {
            write(&path, text)?;
        }
    }
    Ok(())
}

/// A manifest of the SDK with everything written out that it inherits from the workspace, and
/// without what only the SDK's own tests need.
fn standing_alone(file: &str, manifest: &str) -> String {
    let table = |text| toml::from_str::<Table>(text).expect("the manifests of this build");
    let workspace = table(WORKSPACE_MANIFEST);
    let workspace = workspace["workspace"].as_table().expect("the root manifest's workspace");
    let mut manifest = table(manifest);
    for section in ["lints", "dev-dependencies", "target", "example"] {
        manifest.remove(section);
    }
    for (section, inherited) in [("package", "package"), ("dependencies", "dependencies")] {
        let Some(Value::Table(entries)) = manifest.get_mut(section) else { continue };
        for (name, value) in entries {
            if value.get("workspace").is_some() {
                *value = workspace[inherited][name.as_str()].clone();
            }
            // A path is from the workspace's root, of which the SDK is all that comes along.
            if let Some(Value::String(path)) = value.get_mut("path") {
                let within = path.strip_prefix("sdk/").expect("a part of the SDK");
                *path = "../".repeat(file.matches('/').count()) + within;
            }
        }
    }
    toml::to_string(&manifest).expect("a manifest is plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_not_made_within_another() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_function(directory.path()));
        create(&directory.path().join("greet"), "greet").unwrap();
        assert!(is_function(&directory.path().join("greet")) && !is_function(directory.path()));
    }

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
    fn the_vendored_sdk_is_whole() {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk");
        let there = ["Cargo.toml", "macros/Cargo.toml", "options/Cargo.toml"].map(str::to_owned);
        let mut there = there.to_vec();
        let mut directories =
            ["macros/src", "options/src", "src", "wit"].map(str::to_owned).to_vec();
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(sdk.join(&directory)).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{directory}/{}", entry.file_name().into_string().unwrap());
                match entry.file_type().unwrap().is_file() {
                    true => there.push(name),
                    // Others' texts below `wit` are the host's, and those that made its bindings.
                    false if directory != "wit" => directories.push(name),
                    false => {}
                }
            }
        }
        there.sort();
        let vendored: Vec<&str> = SDK.iter().map(|(file, _)| *file).collect();
        assert_eq!(vendored, there);
    }

    #[test]
    fn the_vendored_sdk_inherits_nothing() {
        for (file, text) in SDK.iter().filter(|(file, _)| file.ends_with("Cargo.toml")) {
            let text = standing_alone(file, text);
            let manifest: Table = toml::from_str(&text).unwrap();
            assert!(manifest["package"]["edition"].is_str(), "{file}: {text}");
            assert!(!text.contains("workspace"), "{file}: {text}");
            assert!(manifest.get("example").is_none(), "{file}: {text}");
        }
        let dependencies = |of: &str| {
            let (file, text) = SDK.iter().find(|(file, _)| *file == of).unwrap();
            let manifest: Table = toml::from_str(&standing_alone(file, text)).unwrap();
            manifest["dependencies"].clone()
        };
        let of_sdk = dependencies("Cargo.toml");
        assert!(of_sdk["serde"]["features"].is_array());
        assert_eq!(of_sdk["hearth-sdk-macros"]["path"].as_str(), Some("macros"));
        let of_macros = dependencies("macros/Cargo.toml");
        assert_eq!(of_macros["hearth-options"]["path"].as_str(), Some("../options"));
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
