//! What an operator can set, and the only place that reads the environment.
//!
//! ```text
//! hearth up:      options > HEARTH_… > the file of --config > defaults
//!                 Written (texts, each with its source) ── resolve ──► Config (complete, valid)
//! hearth …:       options > HEARTH_URL, HEARTH_TOKEN, HEARTH_TENANT > what `hearth login` stored
//! ```
//!
//! Each noun has a file with its settings, one row each (`settings.rs` says what follows from a
//! row), and a line in `sections.rs`. A key that nobody knows, or a value that is not valid, ends
//! the start with an error that names the key, where it was written and what is expected. Applies
//! nothing: that is for the parts that get their share of [`Config`]. Secrets are never part of it;
//! [`Config::read_secrets`] fetches them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

mod client;
mod environment;
mod error;
mod front;
mod host;
mod kinds;
mod log;
mod read;
mod sections;
mod settings;
mod table;
mod tenants;
mod uploads;

pub use client::{Client, ClientArgs, Login, LoginError, ProxyWritten, UserDirectories, is_local};
use environment::{environment, variable};
pub use error::{AdminToken, ConfigError};
pub use front::Handover;
pub use log::{Log, LogFormat};
use read::{environment_layer, file_layer, read_guarded};
pub use sections::Config;
use settings::{Layer, Layers};
pub use table::UpArgs;

/// A token that somebody made up must still be hard to guess.
const ADMIN_TOKEN_BYTES: RangeInclusive<usize> = 16..=512;
const ADMIN_TOKEN_FILE: &str = "admin-token-file";

/// Settings as they were written, and nothing resolved yet.
#[derive(Debug)]
pub struct Written {
    layers: Layers,
    token_in_environment: bool,
    notify_socket: Option<PathBuf>,
    spares: Option<u8>,
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
            spares: args.spares,
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
        let mut config = Config::resolve(&self.layers)?;
        config.notify_socket = self.notify_socket;
        config.spares = self.spares.unwrap_or(config.spares);
        #[cfg(debug_assertions)]
        {
            config.fail_points = self.fail_points;
            config.bundle = self.bundle;
        }
        if in_environment {
            config.admin_token_in_environment = true;
            config.host.admin_token_file = None;
        }
        Ok(config)
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
