//! Why a command was not done: what is wrong with it here, and what the host said.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use serde::Deserialize;

use crate::backup::archive::ArchiveError;
use crate::backup::restore::RestoreError;
use crate::config::{ConfigError, LoginError};
use crate::terminal::escape;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Problem(Said),
    #[error("{url} cannot be reached")]
    Unreachable { url: String, source: Box<ureq::Error> },
    #[error("the connection to {url} broke before there was an answer")]
    Broken { url: String, source: Box<ureq::Error> },
    #[error("{}", .fault.at(.url))]
    Encryption { url: String, fault: Encryption },
    #[error("the answer broke off")]
    Cut(#[source] io::Error),
    #[error("the answer is not what this version of hearth knows")]
    Answer(#[source] serde_json::Error),
    #[error("{}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Backup(ArchiveError),
    #[error(transparent)]
    Restore(RestoreError),
    #[error("standard output could not be written")]
    Output(#[source] io::Error),
    #[error(transparent)]
    Up(Box<dyn Error + Send + Sync>),
    /// The reason has been told.
    #[error("")]
    Told,
}

pub fn usage(message: impl Into<String>) -> CliError {
    CliError::Usage(message.into())
}

/// A problem as any version of Hearth may put it, and as functions do.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Said {
    pub detail: String,
    pub code: Option<String>,
    pub request_id: Option<String>,
    /// All of it, for programs.
    #[serde(skip)]
    pub json: String,
}

impl Said {
    pub fn of(json: String) -> Result<Self, CliError> {
        let said: Self = serde_json::from_str(&json).map_err(CliError::Answer)?;
        Ok(Self { json, ..said })
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&escape(&self.detail))?;
        match (&self.code, &self.request_id) {
            (Some(code), Some(id)) => {
                let (code, id) = (escape(code), escape(id));
                write!(f, " ({code}, request {id})")
            }
            (Some(code), None) => write!(f, " ({})", escape(code)),
            (None, _) => Ok(()),
        }
    }
}

/// Why there is no encrypted connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// It is not spoken there.
    Plain,
    Unknown,
    Authority,
    Name,
    Expired,
    Early,
    /// In the library's words.
    Other(String),
}

impl Encryption {
    /// The library tells it in words alone.
    pub fn of(said: &str) -> Option<Self> {
        if said.contains("InvalidContentType") {
            return Some(Self::Plain);
        }
        let (_, what) = said.split_once("invalid peer certificate: ")?;
        let about = |words: &[&str]| words.iter().any(|word| what.contains(word));
        Some(match () {
            () if about(&["UnknownIssuer"]) => Self::Unknown,
            () if about(&["CaUsedAsEndEntity"]) => Self::Authority,
            () if about(&["NotValidForName", "not valid for name"]) => Self::Name,
            () if about(&["NotValidYet", "not valid yet"]) => Self::Early,
            () if about(&["Expired", "expired"]) => Self::Expired,
            () => Self::Other(what.to_owned()),
        })
    }

    pub fn at(&self, url: &str) -> String {
        match self {
            Self::Plain => {
                format!("{url} does not speak https: it speaks http there; write http:// instead")
            }
            Self::Unknown => format!(
                "no trusted authority has signed the certificate of {url}; if it is right, \
                 name its authority's: --ca-file FILE"
            ),
            Self::Authority => format!(
                "the certificate of {url} is an authority's own (CA:TRUE), and a server needs one \
                 that is not: make it with CA:FALSE, or have an authority sign one and name that \
                 authority's with --ca-file; docs/operating.md has the commands"
            ),
            Self::Name => format!(
                "the certificate of {url} is for other names; use one of these, or have it made \
                 for this one (subjectAltName)"
            ),
            Self::Expired => format!(
                "the certificate of {url} has expired; renew it there, or set this machine's clock"
            ),
            Self::Early => format!(
                "the certificate of {url} is not valid yet; set the clock, here or where it was made"
            ),
            Self::Other(what) => format!("the certificate of {url} is not valid: {what}"),
        }
    }
}

/// An error and its sources in one line; a source that says the same is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(said.trim_end());
        }
        source = error.source();
    }
    text
}
