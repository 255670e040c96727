//! What an upload changes of what a function imports. Pure.

use hearth_wire::FunctionPath;

/// Names that a sentence has room for.
const SHOWN: usize = 5;

/// What becomes of an upload whose functions import more than those that they replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Additions {
    Taken,
    Refused,
}

/// What a function imports and the one before it at its path did not, and the other way round. Each
/// is named as the component that imports it does.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changed {
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

impl Changed {
    /// Another release that is compatible is the same import: an author who builds anew with a
    /// later toolchain asks for nothing more.
    pub fn between(before: &[String], now: &[String]) -> Self {
        let beside = |these: &[String], others: &[String]| {
            let is_there = |name: &str| others.iter().any(|other| line(other) == line(name));
            these.iter().filter(|name| !is_there(name)).cloned().collect()
        };
        Self { added: beside(now, before), removed: beside(before, now) }
    }
}

/// A name without what compatible releases differ by: 0.2.3 and 0.2.6 are of one line, as are 1.0.0
/// and 1.2.0. What comes before a release is compatible with itself alone.
fn line(import: &str) -> &str {
    let whole = import;
    let Some((name, version)) = import.split_once('@') else { return whole };
    if version.contains('-') {
        return whole;
    }
    let mut numbers = version.splitn(3, '.');
    let (Some(major), Some(minor), Some(_)) = (numbers.next(), numbers.next(), numbers.next())
    else {
        return whole;
    };
    let end = name.len() + "@".len();
    match (major, minor) {
        ("0", "0") => whole,
        ("0", minor) => &whole[..end + "0.".len() + minor.len()],
        (major, _) => &whole[..end + major.len()],
    }
}

/// Which functions import what they did not, for a sentence.
pub fn told(added: &[(FunctionPath, Vec<String>)]) -> String {
    let all: usize = added.iter().map(|(_, names)| names.len()).sum();
    let mut left = SHOWN;
    let mut told = Vec::new();
    for (path, names) in added {
        let shown: Vec<_> = names.iter().take(left).map(|name| format!("`{name}`")).collect();
        if shown.is_empty() {
            break;
        }
        left -= shown.len();
        told.push(format!("{path} would import {}", shown.join(", ")));
    }
    if all > SHOWN {
        told.push(format!("{} more", all - SHOWN));
    }
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn what_is_added_and_what_is_removed() {
        let none: &[&str] = &[];
        for (before, now, added, removed) in [
            (none, none, none, none),
            (&[], &["wasi:io/poll@0.2.6"], &["wasi:io/poll@0.2.6"], &[]),
            (&["wasi:io/poll@0.2.3"], &["wasi:io/poll@0.2.6"], &[], &[]),
            (&["a:b/c@1.0.0"], &["a:b/c@1.2.0"], &[], &[]),
            (&["a:b/c@1.0.0"], &["a:b/c@2.0.0"], &["a:b/c@2.0.0"], &["a:b/c@1.0.0"]),
            (&["a:b/c@0.0.1"], &["a:b/c@0.0.2"], &["a:b/c@0.0.2"], &["a:b/c@0.0.1"]),
            (&["a:b/c@0.2.0"], &["a:b/c@0.3.0"], &["a:b/c@0.3.0"], &["a:b/c@0.2.0"]),
            (
                &["a:b/c@0.2.0-draft"],
                &["a:b/c@0.2.0-draft2"],
                &["a:b/c@0.2.0-draft2"],
                &["a:b/c@0.2.0-draft"],
            ),
            (&["a:b/c"], &["a:b/d", "a:b/c"], &["a:b/d"], &[]),
            (&["a:b/c@1", "a:b/c@"], &["a:b/c@1"], &[], &["a:b/c@"]),
            (&["x:y/z@0.2.0", "x:y/z@0.2.3"], &["x:y/z@0.2.6"], &[], &[]),
        ] {
            let changed = Changed::between(&names(before), &names(now));
            let expected = Changed { added: names(added), removed: names(removed) };
            assert_eq!(changed, expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn what_is_added_in_a_sentence() {
        let path = |path: &str| path.parse::<FunctionPath>().unwrap();
        let one = [(path("/a"), names(&["x:y/z@1.0.0", "x:y/w@1.0.0"]))];
        assert_eq!(told(&one), "/a would import `x:y/z@1.0.0`, `x:y/w@1.0.0`");
        let many = [
            (path("/a"), names(&["1", "2", "3", "4"])),
            (path("/b"), names(&["5", "6"])),
            (path("/c"), names(&["7"])),
        ];
        let said = "/a would import `1`, `2`, `3`, `4`; /b would import `5`; 2 more";
        assert_eq!(told(&many), said);
    }
}
