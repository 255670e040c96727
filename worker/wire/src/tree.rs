//! What the primary says to `hearth-worker tree`, and the names of files in a tenant's directory.
//!
//! ```text
//! primary ── TreeRequest ──► tree    Pack and Unpack carry [directory, pipe], others [directory]
//!         ◄─ TreeReply ─────
//! ```
//!
//! What travels through the pipe is a tar of regular files and directories, each named by a
//! [`TreePath`]. Either side reads it as if the other one were hostile.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One job in one tenant's directory. It is answered once, and the process ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeRequest {
    pub version: u32,
    /// Who the process becomes before it looks at anything; else it stays who it is.
    pub uid: Option<u32>,
    pub job: TreeJob,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeJob {
    /// Writes the directory and what is below it to the pipe, under this name; without one, only
    /// what is below it.
    Pack { name: Option<TreePath> },
    /// Makes in the directory what comes out of the pipe. Nothing may be there under its name.
    Unpack,
    /// Removes everything below the directory.
    Remove,
    /// Counts what is below the directory.
    Measure,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeReply {
    Done(TreeDone),
    Failed { reason: String },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeDone {
    pub files: u64,
    /// Of their contents; where they are measured, of the disk that they take.
    pub bytes: u64,
    /// Links, devices and the like, names that are no [`TreePath`], other file systems: a tenant's
    /// own files are none of these.
    pub left_out: u64,
}

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a file's path in a tenant's directory is 1 to 8 plain names, 100 bytes in all")]
pub struct TreePathError;

/// Relative, of plain names only, and short enough for the oldest of tar's headers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreePath(String);

impl TreePath {
    pub const NAMES_MAX: usize = 8;
    pub const BYTES_MAX: usize = 100;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From the outermost directory to the file itself: at least one.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// What lies in this directory under that name.
    pub fn join(&self, name: &str) -> Result<Self, TreePathError> {
        if name.contains('/') {
            return Err(TreePathError);
        }
        format!("{}/{name}", self.0).parse()
    }
}

impl FromStr for TreePath {
    type Err = TreePathError;

    fn from_str(path: &str) -> Result<Self, TreePathError> {
        let plain = |name: &str| {
            !matches!(name, "" | "." | "..")
                && !name.chars().any(|c| c.is_control() || matches!(c, '\\' | '/'))
        };
        let valid = path.len() <= Self::BYTES_MAX
            && path.split('/').count() <= Self::NAMES_MAX
            && path.split('/').all(plain);
        if valid { Ok(Self(path.to_owned())) } else { Err(TreePathError) }
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TreePath {
    type Error = TreePathError;

    fn try_from(path: String) -> Result<Self, TreePathError> {
        path.parse()
    }
}

impl From<TreePath> for String {
    fn from(path: TreePath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_paths_are_plain() {
        for good in ["logs", "logs/lines.00000000000000000001.jsonl", "state/a b/ä.db", "..."] {
            let path: TreePath = good.parse().unwrap();
            assert_eq!(path.names().collect::<Vec<_>>().join("/"), good);
        }
        let long = "x".repeat(101);
        let deep = "a/b/c/d/e/f/g/h/i";
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "a/../b",
            "a//b",
            "a/",
            ".",
            "a/.",
            "a\\b",
            "a\0b",
            "a\nb",
            &long,
            deep,
        ] {
            assert_eq!(bad.parse::<TreePath>(), Err(TreePathError), "{bad:?}");
        }
        let logs: TreePath = "logs".parse().unwrap();
        assert_eq!(logs.join("a").unwrap().as_str(), "logs/a");
        assert!(logs.join("a/b").is_err());
        assert!(logs.join("..").is_err());
    }
}
