//! What is wrong with a setting, where it was written, and what is expected.

use std::fmt;
use std::io;
use std::path::PathBuf;

use hearth_wire::Unknown;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}")]
    Unknown(Unknown),
    #[error("`{key}` ({from}) must be {expected}, not `{value}`")]
    Value { key: String, from: Source, value: String, expected: String },
    #[error("`{one}` and `{other}` ({from}) are two names of one setting; keep one of them")]
    Twice { one: String, other: String, from: Source },
    #[error("HEARTH_ADMIN_TOKEN and HEARTH_ADMIN_TOKEN_FILE exclude each other; set one")]
    TwoAdminTokens,
    #[error("the token in {from} must be one line of 16 to 512 visible ASCII characters")]
    AdminToken { from: AdminToken },
    #[error("{} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "the login that is stored in {} cannot be read; store it again: hearth login ADDRESS (or set HEARTH_URL and HEARTH_TOKEN)",
        path.display()
    )]
    StoredLogin { path: PathBuf, source: io::Error },
    #[error(
        "everybody on this machine may change {}, and with that take over the host; forbid it: chmod o-w {}",
        path.display(), path.display()
    )]
    Everybodys { path: PathBuf },
    #[error("{} is not valid TOML", path.display())]
    Toml { path: PathBuf, source: Box<toml::de::Error> },
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `--idle`
    Option(&'static str),
    /// `HEARTH_IDLE`
    Environment(String),
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(key) => write!(f, "option --{key}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "in {}", path.display()),
        }
    }
}

/// Where the admin token comes from, when it is not made at the first start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminToken {
    /// HEARTH_ADMIN_TOKEN
    Environment,
    File(PathBuf),
}

impl fmt::Display for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("HEARTH_ADMIN_TOKEN"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}
