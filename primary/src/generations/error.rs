//! Why a module or a generation could not be had, and whose fault that was.

use std::io;

use hearth_wire::limits::{COMPONENTS_MAX, MOUNTS_MAX};
use hearth_wire::{Code, FunctionPath, FunctionVersion, GenerationNumber, OptionsError, Problem};

use super::modules::IngestError;
use super::room::NoRoom;
use crate::compile::CompileError;
use crate::fault::{Fault, Logged, Verdict};
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("the module declares options that are refused: {0}")]
    Options(#[source] OptionsError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error("a file of the data directory could not be read or written")]
    Disk(#[from] io::Error),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("{}", Problem::damaged(.path, .version))]
    Damaged { path: FunctionPath, version: FunctionVersion },
    #[error("what comes with this build cannot be used")]
    Bundle(#[from] BundleError),
    #[error("generation {0} is not the current one and was never written")]
    NoGeneration(GenerationNumber),
}

/// Why what comes with this build cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("bundle.json does not parse")]
    Json(#[from] serde_json::Error),
    #[error("{path}: the options are refused: {source}")]
    Options { path: FunctionPath, source: OptionsError },
    #[error("{0} is mounted twice")]
    Twice(FunctionPath),
    #[error("{path}: there is no component {component}")]
    NoComponent { path: FunctionPath, component: String },
    #[error("the component {name}: {source}")]
    Component { name: String, source: Box<GenerationError> },
    #[error("the component {0} is mounted nowhere")]
    Nowhere(String),
    #[error("there are {0} mounts, more than {MOUNTS_MAX}")]
    Mounts(usize),
    #[error("there are {0} components, more than {COMPONENTS_MAX}")]
    Components(usize),
}

impl Fault for GenerationError {
    fn verdict(&self) -> Verdict {
        let failed = "the host could not read or write what the functions are kept in; its \
                      operator finds why in the log";
        match self {
            Self::Compile(error) => error.verdict(),
            Self::Options(_) => Verdict::function(Code::InvalidModule, self),
            Self::Ingest(error) => error.verdict(),
            Self::NoRoom(error) => error.verdict(),
            // Told in the log when it was found.
            Self::Damaged { .. } => {
                Verdict::host(Code::ModuleDamaged, self).logged(Logged::Warning)
            }
            Self::Store(error) => error.verdict().within(failed),
            Self::Disk(_) | Self::Bundle(_) | Self::NoGeneration(_) => {
                Verdict::of_host(self, failed)
            }
        }
    }
}
