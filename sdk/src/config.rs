//! What a function is told by name: its tenant's configuration (`hearth config`) and secrets
//! (`hearth secret`). Both are read alike; a name is one or the other. They stay what they are for as
//! long as a call goes on; a change is another worker's.
//!
//! ```no_run
//! use hearth_sdk::{Error, config, function};
//!
//! #[function]
//! fn region() -> Result<String, Error> {
//!     let key = config::require("API_KEY")?;
//!     let region = config::get("region")?.unwrap_or_else(|| "eu".to_owned());
//!     Ok(format!("{region}, with a key of {} bytes", key.len()))
//! }
//! ```
//!
//! A name has 1 to 128 characters: letters, digits, `_`, `-` and `.`. This is `wasi:config/store`
//! (0.2.0-rc.1), and works on any host of that interface. In a test of the author's own, outside of a
//! component, there is nobody to ask, and the call panics.

use std::fmt;

use crate::settings::wasi::config::store;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Nothing of that name was set.
    Missing(String),
    /// The host could not say. Hearth always can.
    Host(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => {
                write!(f, "neither configuration nor a secret has the name {name}")
            }
            Self::Host(said) => write!(f, "the host could not read its configuration: {said}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Upstream(said) | store::Error::Io(said) => Self::Host(said),
        }
    }
}

/// What has this name; `None` where nothing has.
pub fn get(name: &str) -> Result<Option<String>, Error> {
    Ok(store::get(name)?)
}

/// What has this name, where the function cannot do without.
pub fn require(name: &str) -> Result<String, Error> {
    get(name)?.ok_or_else(|| Error::Missing(name.to_owned()))
}

/// All that there is, by name.
pub fn all() -> Result<Vec<(String, String)>, Error> {
    Ok(store::get_all()?)
}
