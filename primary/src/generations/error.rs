//! Why a module or a generation could not be had, and whose fault that was.

use std::io;

use hearth_wire::{Code, FunctionPath, FunctionVersion, Generation, OptionsError, Problem};

use super::bundle::BundleError;
use super::modules::IngestError;
use super::room::NoRoom;
use crate::compile::CompileError;
use crate::descriptors::is_shortage;
use crate::durable;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("the module declares options that are refused: {0}")]
    Options(#[source] OptionsError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error("a file of the data directory")]
    Disk(#[from] io::Error),
    #[error("the store")]
    Store(#[from] StoreError),
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("{}", Problem::damaged(.path, .version))]
    Damaged { path: FunctionPath, version: FunctionVersion },
    #[error("what comes with this build cannot be used")]
    Bundle(#[from] BundleError),
    #[error("generation {0} is not the current one and was never written")]
    NoGeneration(Generation),
}

impl GenerationError {
    /// What it is where it is not the module's fault: no room, or ours.
    pub fn code(&self) -> Code {
        let full = match self {
            Self::Disk(error)
            | Self::Ingest(IngestError::Disk(error))
            | Self::Compile(CompileError::Spawn(error) | CompileError::File(error))
                if is_shortage(error) =>
            {
                return Code::WorkerUnavailable;
            }
            Self::Disk(error) | Self::Ingest(IngestError::Disk(error)) => {
                durable::is_the_disks(error)
            }
            Self::Damaged { .. } => return Code::ModuleDamaged,
            Self::NoRoom(_)
            | Self::Ingest(IngestError::NoRoom(_))
            | Self::Compile(CompileError::Full)
            | Self::Store(StoreError::Full(_) | StoreError::Disk(_) | StoreError::ReadOnly) => true,
            _ => false,
        };
        if full { Code::StorageFull } else { Code::Internal }
    }

    /// What the tenant's owner is told: whose fault it was, and nothing of the host.
    pub fn for_owner(&self) -> String {
        match self {
            Self::Compile(CompileError::Refused(diagnosis)) => diagnosis.detail.clone(),
            Self::Options(error) => {
                format!("the module declares options that are refused: {error}")
            }
            Self::NoRoom(NoRoom::Quota { .. })
            | Self::Ingest(IngestError::NoRoom(NoRoom::Quota { .. })) => {
                format!("{self}: remove functions, or have the host's admin raise `disk_bytes`")
            }
            Self::NoRoom(NoRoom::Host) => self.to_string(),
            Self::Damaged { .. } => self.to_string(),
            Self::Store(error @ StoreError::ReadOnly) => error.to_string(),
            Self::Ingest(IngestError::Disk(_)) => "the host could not store the module".to_owned(),
            Self::Ingest(error) => error.to_string(),
            Self::Compile(_) => {
                "the host's compiler failed; its operator finds why in the log".to_owned()
            }
            Self::Disk(_) | Self::Store(_) | Self::NoGeneration(_) | Self::Bundle(_) => {
                "the host could not prepare the functions; its operator finds why in the log"
                    .to_owned()
            }
        }
    }
}
