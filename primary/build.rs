//! Embeds the bundle: `functions/bundle.json`, which says what is mounted where, and the components,
//! which `cargo xtask build` made and packed. Lists the
//! guests of the system tests, so that a guest without a test does not compile. Builds nothing.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package has a parent");
    for (name, source) in [
        ("bundled.rs", bundled(&root.join("functions/bundle.json"), &root.join("target/bundled"))),
        ("guests.rs", guests(&root.join("functions/testing/src/bin"))),
    ] {
        match source {
            Ok(source) => fs::write(out.join(name), source).expect("OUT_DIR can be written"),
            Err(reason) => println!("cargo::error={reason}"),
        }
    }
}

/// `BUNDLE`: what is mounted where. `COMPONENTS`: the name and the packed module of each.
fn bundled(bundle: &Path, directory: &Path) -> Result<String, String> {
    println!("cargo::rerun-if-changed={}", bundle.display());
    let mut source = format!("pub static BUNDLE: &[u8] = include_bytes!({bundle:?});\n");
    source.push_str("pub static COMPONENTS: &[(&str, &[u8])] = &[\n");
    let files = files(directory, ".wasm.zst").unwrap_or_default();
    if files.is_empty() {
        return Err("there are no bundled functions yet; run `cargo xtask build`".to_owned());
    }
    for (name, file) in files {
        writeln!(source, "    ({name:?}, include_bytes!({file:?})),").expect("a String takes it");
    }
    source.push_str("];\n");
    Ok(source)
}

/// `for_each_guest!`: calls a macro with the name of each.
fn guests(directory: &Path) -> Result<String, String> {
    let mut source = String::from("macro_rules! for_each_guest { ($each:ident) => {\n");
    let files = files(directory, ".rs").map_err(|e| format!("{}: {e}", directory.display()))?;
    for (name, _) in files {
        writeln!(source, "    $each!({name});").expect("a String takes it");
    }
    source.push_str("} }\n");
    Ok(source)
}

fn files(directory: &Path, ending: &str) -> io::Result<Vec<(String, PathBuf)>> {
    println!("cargo::rerun-if-changed={}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let file = entry?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(name) = name.strip_suffix(ending) {
            files.push((name.to_owned(), file));
        }
    }
    files.sort();
    Ok(files)
}
