//! Why settings are not changed, or not told to a worker, and whose fault that is.

use std::io;
use std::sync::Arc;

use hearth_wire::{Code, SettingName, TenantName, limits};

use crate::fault::{Fault, Verdict};
use crate::keyfile::KeyFileError;
use crate::sealing::OpenError;
use crate::store::StoreError;
use crate::store::database::DatabaseError;

/// Names that a sentence lists before it stops.
const LISTED: usize = 8;

/// Why the key that seals secrets cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unusable {
    #[error("the host's key that seals secrets is missing")]
    Missing,
    #[error("the host's key is not the one that sealed its secrets")]
    Other,
    /// For the operator alone.
    #[error("the file of the host's key that seals secrets cannot be used")]
    File(#[source] Arc<KeyFileError>),
}

impl PartialEq for Unusable {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Eq for Unusable {}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(
        "{0} is a secret of this tenant already, and a name is one or the other: remove that first (hearth secret rm {0}), or take another name"
    )]
    IsSecret(SettingName),
    #[error(
        "{0} is configuration of this tenant already, and a name is one or the other: remove that first (hearth config --rm {0}), or take another name"
    )]
    IsConfig(SettingName),
    #[error("there is no configuration {0}")]
    NoConfig(SettingName),
    #[error("there is no secret {0}")]
    NoSecret(SettingName),
    #[error("the value of {0} is above {most} KiB", most = limits::SETTING_VALUE_MAX_BYTES >> 10)]
    Value(SettingName),
    #[error(
        "a tenant may have {} names of configuration and secrets together",
        limits::SETTINGS_MAX
    )]
    TooMany,
    #[error(
        "a tenant's configuration and secrets may have {} KiB together, names and values",
        limits::SETTINGS_MAX_BYTES >> 10
    )]
    TooLarge,
    #[error("{0}: its operator can put it right, and no secret can be set until then")]
    Unusable(#[from] Unusable),
    #[error("the host's key that seals secrets could not be written")]
    KeyNotWritten(#[source] io::Error),
    #[error(
        "secrets of these tenants cannot be opened with the host's key: {}. Put the key back that sealed them and start the host again, or forget them: hearth secret rekey --forget",
        listed(.0)
    )]
    Lost(Vec<TenantName>),
    /// Of the tenant that is about to be served.
    #[error(
        "the tenant is not served: its secrets cannot be opened with the host's key ({}). The host's operator can put that key right; its owner can set or remove these secrets",
        listed(&.0.iter().map(|(name, _)| name).collect::<Vec<_>>())
    )]
    Closed(Vec<(SettingName, OpenError)>),
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl From<DatabaseError> for SettingsError {
    fn from(error: DatabaseError) -> Self {
        Self::Store(error.into())
    }
}

fn listed<T: ToString>(names: &[T]) -> String {
    let mut listed: Vec<_> = names.iter().take(LISTED).map(T::to_string).collect();
    if let Some(more) = names.len().checked_sub(LISTED).filter(|more| *more > 0) {
        listed.push(format!("and {more} more"));
    }
    listed.join(", ")
}

impl Fault for SettingsError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::IsSecret(_) | Self::IsConfig(_) | Self::Lost(_) => {
                Verdict::caller(Code::Conflict, self)
            }
            Self::NoConfig(_) | Self::NoSecret(_) => Verdict::caller(Code::NotFound, self),
            Self::Value(_) => Verdict::caller(Code::BadRequest, self),
            Self::TooMany | Self::TooLarge => Verdict::limit(Code::Conflict, self),
            Self::Unusable(_) | Self::Closed(_) => Verdict::host(Code::WorkerUnavailable, self),
            Self::KeyNotWritten(_) => Verdict::of_host(
                self,
                "the host's key that seals secrets could not be written; the host's log says why",
            ),
            Self::Store(error) => error.verdict(),
        }
    }
}
