//! Guests of the tests in other languages: their toolchain comes from a registry of its own into
//! `target/LANGUAGE`, where they are made, and made again only when something of theirs has changed.
//!
//! Their sources are in `functions/testing/LANGUAGE`, where nothing is written. Which files these
//! are, and what makes a component of them, is each language's to say.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::build::{root, target};
use crate::chores::Chores;

/// Beside what was made: the files that it was made of.
const MADE_OF: &str = "made-of";

pub(crate) struct Foreign {
    pub(crate) language: &'static str,
    pub(crate) files: &'static [&'static str],
    pub(crate) made: &'static str,
}

impl Foreign {
    /// Installs and makes in a directory that has all of the files.
    pub(crate) fn make(
        &self,
        chores: &mut Chores,
        install: impl FnOnce(&Path) -> anyhow::Result<()>,
        make: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let name = self.language.to_lowercase();
        let sources = root().join("functions/testing").join(&name);
        let directory = target().join(name);
        let wanted = self.written(&sources)?;
        let made_of = fs::read_to_string(directory.join(MADE_OF)).unwrap_or_default();
        if made_of == wanted && self.made(&directory).is_file() {
            return Ok(());
        }
        let language = self.language;
        chores.step(&format!("installing what {language} is made into functions with"), || {
            self.copy(&sources, &directory)?;
            install(&directory)
        })?;
        chores.step(&format!("building the tests' functions in {language}"), || {
            make(&directory)?;
            Ok(fs::write(directory.join(MADE_OF), wanted)?)
        })
    }

    fn made(&self, directory: &Path) -> PathBuf {
        directory.join(self.made)
    }

    /// The text of all files.
    fn written(&self, sources: &Path) -> anyhow::Result<String> {
        let texts = self.files.iter().map(|name| {
            let text =
                fs::read_to_string(sources.join(name)).with_context(|| (*name).to_owned())?;
            Ok(format!("{name}\n{text}\n"))
        });
        texts.collect()
    }

    fn copy(&self, sources: &Path, directory: &Path) -> anyhow::Result<()> {
        for name in self.files {
            let to = directory.join(name);
            fs::create_dir_all(to.parent().expect("a file is in a directory"))?;
            fs::copy(sources.join(name), to).with_context(|| (*name).to_owned())?;
        }
        Ok(())
    }
}
