//! The sources of this workspace, as the checks read them: which files there are, and which parts
//! of them are for tests alone.

use std::fs;
use std::path::{Path, PathBuf};

use syn::{Attribute, Item};

use crate::build::root;

/// Where our own code is.
const PLACES: [&str; 5] = ["functions", "ops", "primary", "sdk", "worker"];
/// What is in it and not ours, or made.
const NOT_OURS: [&str; 3] = ["target", "node_modules", "corpus"];

/// Every file of Rust, in order.
pub(crate) fn all() -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for place in PLACES {
        walk(&root().join(place), &mut files)?;
    }
    files.sort();
    anyhow::ensure!(!files.is_empty(), "there are no sources below {}", root().display());
    Ok(files)
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if !NOT_OURS.iter().any(|name| entry.file_name() == *name) {
                walk(&path, files)?;
            }
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// As it is written in messages.
pub(crate) fn name(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

/// Whether something is compiled for tests only.
pub(crate) fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list();
        attribute.path().is_ident("cfg")
            && list.is_ok_and(|list| {
                let text = list.tokens.to_string();
                let mut words = text.split(|it: char| !it.is_alphanumeric());
                !text.contains("not") && words.any(|word| word == "test")
            })
    })
}

pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Union(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}
