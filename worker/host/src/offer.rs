//! What the list says to a name: whether it is offered, how near it is to what is, and what there
//! is to choose from.
//!
//! Names alone. An import that brings nothing but types links without being offered.

use semver::Version as Number;

use crate::{INTERFACES, Version};

/// How near an import is to what may be there, the furthest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offer {
    /// Nothing of its package is.
    NoPackage,
    NoInterface,
    /// The interface is, and in another version.
    OtherVersion,
    Offered,
}

impl Offer {
    /// Of an import by its whole name (`wasi:cli/stdout@0.2.6`).
    pub fn of(import: &str) -> Self {
        let name = import.split_once('@').map_or(import, |(name, _)| name);
        let package = name.split_once('/').map_or(name, |(package, _)| package);
        if find(import).is_some() {
            Self::Offered
        } else if INTERFACES.iter().any(|interface| interface.name == name) {
            Self::OtherVersion
        } else if INTERFACES.iter().any(|interface| interface.package() == package) {
            Self::NoInterface
        } else {
            Self::NoPackage
        }
    }
}

/// Whether an import may be there, by its whole name.
pub fn is_offered(import: &str) -> bool {
    find(import).is_some()
}

/// Whether an import of this name is linked by an engine with the component model's concurrency
/// alone.
pub fn needs_concurrency(import: &str) -> bool {
    find(import).is_some_and(|version| version.needs_concurrency)
}

/// What an import of this name would be linked with.
pub(crate) fn find(import: &str) -> Option<&'static Version> {
    let (name, number) = import.split_once('@')?;
    let interface = INTERFACES.iter().find(|interface| interface.name == name)?;
    interface.versions.iter().find(|version| version.serves(number))
}

impl Version {
    /// As the engine's linker finds what is compatible.
    fn serves(&self, number: &str) -> bool {
        self.number == number
            || track(number).is_some_and(|wanted| track(self.number) == Some(wanted))
    }

    /// As people call it: the part of its number that compatible releases share.
    fn line(&self) -> String {
        match track(self.number) {
            None => self.number.to_owned(),
            Some((0, minor)) => format!("0.{minor}"),
            Some((major, _)) => major.to_string(),
        }
    }
}

/// What the numbers of compatible releases have in common. A release before the first one, and any
/// that is only announced, is compatible with itself alone.
fn track(number: &str) -> Option<(u64, u64)> {
    let number = Number::parse(number).ok().filter(|number| number.pre.is_empty())?;
    match (number.major, number.minor) {
        (0, 0) => None,
        (0, minor) => Some((0, minor)),
        (major, _) => Some((major, 0)),
    }
}

/// All that can be imported, for a sentence: packages that are there in the same versions come
/// together.
pub fn offered() -> String {
    let mut packages: Vec<(&str, Vec<String>)> = Vec::new();
    for interface in INTERFACES {
        let lines = match packages.iter_mut().find(|(name, _)| *name == interface.package()) {
            Some((_, lines)) => lines,
            None => &mut packages.push_mut((interface.package(), Vec::new())).1,
        };
        for version in interface.versions {
            let line = version.line();
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    let mut alike: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    for (package, mut lines) in packages {
        lines.sort();
        match alike.iter_mut().find(|(theirs, _)| *theirs == lines) {
            Some((_, packages)) => packages.push(package.to_owned()),
            None => alike.push((lines, vec![package.to_owned()])),
        }
    }
    let alike = alike.iter().map(|(lines, packages)| {
        let noun = if lines.len() == 1 { "version" } else { "versions" };
        format!("{} in the {noun} {}", list(packages), list(lines))
    });
    let alike: Vec<_> = alike.collect();
    alike.join(", and ")
}

fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [word] => word.clone(),
        [words @ .., last] => format!("{} and {last}", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered() {
        for name in [
            "wasi:cli/stdout@0.2.0",
            "wasi:io/poll@0.2.12",
            "wasi:io/poll@0.2.99",
            "wasi:sockets/tcp@0.2.3",
            "wasi:filesystem/preopens@0.3.0",
            "wasi:http/types@0.2.6",
            "wasi:http/outgoing-handler@0.2.6",
            "wasi:http/client@0.3.2",
            "wasi:config/store@0.2.0-draft",
            "wasi:config/store@0.2.0-draft-2024-09-27",
            "wasi:config/store@0.2.0-rc.1",
            "wasi:config/runtime@0.2.0-draft",
            "fermyon:spin/variables@2.0.0",
            "spin:variables/variables@3.0.0",
            "wasi:keyvalue/store@0.2.0-draft",
            "wasi:keyvalue/atomics@0.2.0-draft2",
            "wasi:keyvalue/batch@0.2.0-draft2",
            "fermyon:spin/key-value@2.0.0",
            "spin:key-value/key-value@3.0.0",
            "hearth:platform/keyvalue@0.1.0",
            "fermyon:spin/sqlite@2.0.0",
            "spin:sqlite/sqlite@3.0.0",
            "spin:sqlite/sqlite@3.1.0",
            "hearth:platform/sql@0.1.0",
            "wasi:logging/logging@0.1.0-draft",
        ] {
            assert!(is_offered(name), "{name}");
        }
        for name in [
            "wasi:cli/stdout",
            "wasi:cli@0.2.0",
            "wasi:cli/stdout@0.1.0",
            "wasi:cli/stdout@0.2.",
            "wasi:cli/stdout@0.2",
            "wasi:cli/stdout@0.3.0-rc-2025",
            "wasi:cli/run@0.2.0",
            "wasi:clocks/timezone@0.2.0",
            "wasi:io/poll@0.3.0",
            "wasi:http/incoming-handler@0.2.0",
            "wasi:http/handler@0.3.0",
            "wasi:config/store@0.2.0",
            "wasi:config/store@0.2.0-rc.2",
            "wasi:config/runtime@0.2.0-rc.1",
            "wasi:keyvalue/store@0.2.0",
            "wasi:keyvalue/store@0.2.0-draft3",
            "wasi:keyvalue/watcher@0.2.0-draft2",
            "wasi:logging/logging@0.2.0",
            "hearth:platform/sql@0.2.0",
            "hearth:platform/sql",
            "spin:sqlite/sqlite@2.0.0",
            "spin:sqlite@3.0.0",
            "",
        ] {
            assert!(!is_offered(name), "{name}");
        }
    }

    #[test]
    fn how_near_an_import_is() {
        for (name, offer) in [
            ("wasi:cli/stdout@0.2.0", Offer::Offered),
            ("wasi:cli/stdout@0.3.0-rc-2026-03-15", Offer::OtherVersion),
            ("wasi:cli/stdout", Offer::OtherVersion),
            ("wasi:io/poll@0.3.0", Offer::OtherVersion),
            ("wasi:http/handler@0.3.0", Offer::NoInterface),
            ("wasi:cli@0.2.0", Offer::NoInterface),
            ("wasi:keyvalue/store@0.2.0", Offer::OtherVersion),
            ("wasi:keyvalue/watcher@0.2.0-draft2", Offer::NoInterface),
            ("acme:db/sql@1.0.0", Offer::NoPackage),
            ("run", Offer::NoPackage),
        ] {
            assert_eq!(Offer::of(name), offer, "{name}");
        }
    }

    #[test]
    fn a_draft_serves_itself_alone() {
        let draft = Version {
            number: "0.2.0-draft2",
            needs_concurrency: false,
            link: |_| Ok(()),
            other: None,
        };
        assert!(draft.serves("0.2.0-draft2"));
        for other in ["0.2.0-draft", "0.2.0", "0.2.1", "0.2.0-draft2 "] {
            assert!(!draft.serves(other), "{other}");
        }
        assert_eq!(draft.line(), "0.2.0-draft2");
    }

    #[test]
    fn there_is_a_sentence_for_all_of_it() {
        assert_eq!(
            offered(),
            "wasi:cli, wasi:clocks, wasi:random, wasi:filesystem, wasi:sockets and wasi:http in \
             the versions 0.2 and 0.3, and wasi:io in the version 0.2, and wasi:logging in the \
             version 0.1.0-draft, and wasi:config in the versions 0.2.0-draft, \
             0.2.0-draft-2024-09-27 and 0.2.0-rc.1, and fermyon:spin in the version 2, and \
             spin:variables, spin:key-value and spin:sqlite in the version 3, and wasi:keyvalue in \
             the versions 0.2.0-draft and 0.2.0-draft2, and hearth:platform in the version 0.1"
        );
    }
}
