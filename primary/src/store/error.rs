//! Why the store did not do what it was asked.

use hearth_wire::{Code, GenerationNumber, TenantName};

use super::database::DatabaseError;
use crate::fault::{Fault, Verdict};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("there is already one of that name")]
    Exists,
    #[error("port {0} belongs to another tenant")]
    PortTaken(u16),
    #[error("there are {max} {what} already, which is the limit")]
    TooMany { what: &'static str, max: usize },
    #[error("there is no such {0}")]
    Missing(&'static str),
    /// Another change was committed between reading and committing.
    #[error("generation {generation} comes too late: the tenant is at {current} already")]
    Stale { generation: GenerationNumber, current: GenerationNumber },
    /// In a backup, with a key that is not known here.
    #[error(
        "secrets of the tenant {0} are sealed with a key that this host does not have: give the key that they were sealed with (--secrets-key FILE), or leave all secrets out (--without-secrets)"
    )]
    Sealed(TenantName),
    #[error("random bytes could not be read")]
    Random(#[source] getrandom::Error),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Fault for StoreError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Exists | Self::PortTaken(_) | Self::Stale { .. } | Self::Sealed(_) => {
                Verdict::caller(Code::Conflict, self)
            }
            Self::TooMany { .. } => Verdict::limit(Code::Conflict, self),
            Self::Missing(_) => Verdict::caller(Code::NotFound, self),
            Self::Random(_) => Verdict::host(Code::Internal, "the host's store failed"),
            Self::Database(error) => error.verdict(),
        }
    }
}

pub(super) type Result<T, E = StoreError> = std::result::Result<T, E>;
