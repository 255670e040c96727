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
    Pack { name: Option<TreePath>, databases: Databases },
    /// Makes in the directory what comes out of the pipe. Nothing may be there under its name.
    Unpack,
    /// Removes everything below the directory.
    Remove,
    /// Counts what is below the directory.
    Measure,
}

/// What of a directory whose files may be databases is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Databases {
    /// Each file as it is: nobody has one open, or there is no database.
    Files,
    /// Of each database right in the directory a copy by SQLite, as it was at one instant whoever
    /// writes meanwhile, of so many bytes at most; and nothing of what SQLite and the workers keep
    /// beside it.
    Copied { most_bytes: u64 },
}

impl Databases {
    /// What a database's file is called, and what is beside it for as long as somebody has it open.
    const SUFFIX: &str = ".db";
    const BESIDE: [&str; 3] = [".db-wal", ".db-shm", ".db-journal"];
    /// The file whose lock is the turn at writing.
    pub const TURN: &str = "turn";
    /// What a database's copy is called before its name is taken from it again.
    pub const COPY: &str = "copy.new";

    pub fn is_one(name: &str) -> bool {
        name.strip_suffix(Self::SUFFIX).is_some_and(|stem| !stem.is_empty())
    }

    /// Whether a copy of the databases has what it is for.
    pub fn is_beside(name: &str) -> bool {
        let of_copy =
            name.strip_prefix(Self::COPY).is_some_and(|it| it.is_empty() || it.starts_with('-'));
        name == Self::TURN || of_copy || Self::BESIDE.iter().any(|suffix| name.ends_with(suffix))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeReply {
    Done(TreeDone),
    Failed { reason: String },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeDone {
    pub files: u64,
    /// Of their contents; where they are measured, of the disk that they take.
    pub bytes: u64,
    /// Links, devices and the like, names that are no [`TreePath`], other file systems: a tenant's
    /// own files are none of these.
    pub left_out: u64,
    /// Databases that could not be copied, the first [`Unsound::MOST`] of them.
    pub unsound: Vec<Unsound>,
}

/// A database that could not be copied, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsound {
    /// Of its file.
    pub name: String,
    pub reason: String,
}

impl Unsound {
    /// Told of one directory; what is beyond is among what was left out.
    pub const MOST: usize = 64;
    pub const REASON_MAX_BYTES: usize = 200;
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
    fn what_is_a_database_and_what_is_beside_one() {
        for name in ["kv.db", "1.db", "a.b.db"] {
            assert!(Databases::is_one(name) && !Databases::is_beside(name), "{name}");
        }
        for name in
            ["kv.db-wal", "kv.db-shm", "1.db-journal", "turn", "copy.new", "copy.new-journal"]
        {
            assert!(Databases::is_beside(name) && !Databases::is_one(name), "{name}");
        }
        for name in [".db", "db", "notes", "turned", "copy.newer", "kv.db.bak"] {
            assert!(!Databases::is_beside(name) && !Databases::is_one(name), "{name}");
        }
    }

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
