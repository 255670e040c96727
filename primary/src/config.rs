//! What an operator can set, and the only place that reads the environment.
//!
//! ```text
//! hearth up:      options > HEARTH_… > the file of --config > defaults
//!                 Written (texts, each with its source) ── resolve ──► Config (complete, valid)
//! hearth …:       options > HEARTH_URL, HEARTH_TOKEN, HEARTH_TENANT > what `hearth login` stored
//! ```
//!
//! Each noun has a file with its settings, one row each (`settings.rs` says what follows from a
//! row), and a line in `sections!` here. A key that nobody knows, or a value that is not valid, ends
//! the start with an error that names the key, where it was written and what is expected. Applies
//! nothing: that is for the parts that get their share of [`Config`]. Secrets are never part of it;
//! [`Config::read_secrets`] fetches them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use hearth_wire::Unknown;

mod client;
mod environment;
mod front;
mod host;
mod kinds;
mod log;
mod read;
mod settings;
mod tenants;
mod uploads;

pub use client::{Client, ClientArgs, Login, LoginError, ProxyWritten, UserDirectories, is_local};
use environment::{environment, variable};
pub use front::Handover;
pub use log::{Log, LogFormat};
use read::{environment_layer, file_layer, read_guarded};
pub use settings::UpArgs;
use settings::{Layer, Layers, Row, Section};

macro_rules! sections {
    ($($name:ident: $section:ident)+) => {
        /// Everything that `hearth up` was told, complete and valid. Prints itself without secrets.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            $(pub $name: $name::$section,)+
            /// Rather than in a file, which nothing is said of then.
            pub admin_token_in_environment: bool,
            /// Where systemd wants to be told that Hearth serves.
            pub notify_socket: Option<PathBuf>,
            /// Where the tests of crashes say what is to fail.
            #[cfg(debug_assertions)]
            pub fail_points: Option<PathBuf>,
            /// Where the tests of builds have what another build would bring.
            #[cfg(debug_assertions)]
            pub bundle: Option<PathBuf>,
        }

        /// Each with its name in the file, what it is about, and its settings.
        const SECTIONS: &[(&str, &str, &[Row])] =
            &[$(($name::$section::NAME, $name::$section::ABOUT, $name::$section::ROWS)),+];

        impl Written {
            fn resolve_all(self) -> Result<Config, ConfigError> {
                Ok(Config {
                    $($name: Section::resolve(&self.layers)?,)+
                    admin_token_in_environment: false,
                    notify_socket: self.notify_socket,
                    #[cfg(debug_assertions)]
                    fail_points: self.fail_points,
                    #[cfg(debug_assertions)]
                    bundle: self.bundle,
                })
            }
        }

        impl Config {
            fn list(&self) -> Vec<(&'static str, String)> {
                [$(self.$name.list()),+].concat()
            }
        }

        #[cfg(test)]
        const EXAMPLES: &[(&[tests::Good], &[tests::Bad])] =
            &[$(($name::examples::GOOD, $name::examples::BAD)),+];
    };
}

sections! {
    host: Host
    front: Front
    tenants: Tenants
    uploads: Uploads
    log: Log
}

const PREFIX: &str = "HEARTH_";
/// A token that somebody made up must still be hard to guess.
const ADMIN_TOKEN_BYTES: RangeInclusive<usize> = 16..=512;
const ADMIN_TOKEN_FILE: &str = "admin-token-file";
/// A configuration or token file that is larger is some other file.
const FILE_BYTES_MAX: u64 = 1 << 20;

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

/// Settings as they were written, and nothing resolved yet.
#[derive(Debug)]
pub struct Written {
    layers: Layers,
    token_in_environment: bool,
    notify_socket: Option<PathBuf>,
    #[cfg(debug_assertions)]
    fail_points: Option<PathBuf>,
    #[cfg(debug_assertions)]
    bundle: Option<PathBuf>,
}

impl Written {
    /// Reads the environment, and the file if one is named.
    pub fn gather(args: UpArgs) -> Result<Self, ConfigError> {
        let environment = environment();
        let path =
            args.config.clone().or_else(|| environment.get("HEARTH_CONFIG").map(PathBuf::from));
        let file = match path {
            Some(path) => Some((read_guarded(&path)?, path)),
            None => None,
        };
        Self::of(args, &environment, file)
    }

    fn of(
        args: UpArgs,
        environment: &BTreeMap<String, String>,
        file: Option<(String, PathBuf)>,
    ) -> Result<Self, ConfigError> {
        let file = match file {
            Some((text, path)) => file_layer(&text, &path)?,
            None => Layer::new(),
        };
        let token_in_environment = environment.contains_key("HEARTH_ADMIN_TOKEN");
        if token_in_environment && environment.contains_key("HEARTH_ADMIN_TOKEN_FILE") {
            return Err(ConfigError::TwoAdminTokens);
        }
        Ok(Self {
            #[cfg(debug_assertions)]
            fail_points: args.fail_points.clone(),
            #[cfg(debug_assertions)]
            bundle: args.bundle.clone(),
            layers: Layers([args.layer, environment_layer(environment)?, file]),
            token_in_environment,
            notify_socket: environment.get("NOTIFY_SOCKET").map(PathBuf::from),
        })
    }

    /// Whether anything says where to listen, rather than the default.
    pub fn says_listen(&self) -> bool {
        self.layers.given("listen").is_some()
    }

    pub fn resolve(self) -> Result<Config, ConfigError> {
        let by_option = self.layers.is_by_option(ADMIN_TOKEN_FILE);
        let in_environment = self.token_in_environment && !by_option;
        let mut config = self.resolve_all()?;
        if in_environment {
            config.admin_token_in_environment = true;
            config.host.admin_token_file = None;
        }
        Ok(config)
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

impl Config {
    pub fn admin_token(&self) -> Option<AdminToken> {
        match self.admin_token_in_environment {
            true => Some(AdminToken::Environment),
            false => self.host.admin_token_file.clone().map(AdminToken::File),
        }
    }

    /// To be called once no other process that could inherit them is started from here any more.
    pub fn read_secrets(&self) -> Result<Secrets, ConfigError> {
        let Some(from) = self.admin_token() else { return Ok(Secrets { admin_token: None }) };
        let text = match &from {
            AdminToken::Environment => variable("HEARTH_ADMIN_TOKEN").unwrap_or_default(),
            AdminToken::File(path) => read_guarded(path)?,
        };
        admin_token(&text)
            .map(|token| Secrets { admin_token: Some(token) })
            .ok_or(ConfigError::AdminToken { from })
    }
}

fn admin_token(text: &str) -> Option<String> {
    let token = text.trim();
    let valid =
        ADMIN_TOKEN_BYTES.contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
    valid.then(|| token.to_owned())
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<_> =
            self.list().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&list.join(" "))?;
        match self.admin_token_in_environment {
            true => f.write_str(" admin-token=HEARTH_ADMIN_TOKEN"),
            false => Ok(()),
        }
    }
}

/// What must not be printed, and is not kept longer than needed.
pub struct Secrets {
    pub admin_token: Option<String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

#[cfg(test)]
mod tests;
