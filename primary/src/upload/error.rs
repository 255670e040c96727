//! Why a change of what a tenant serves did not come about, and whose fault that was.

use std::time::Duration;

use hearth_wire::{
    Code, FunctionPath, GenerationNumber, LimitError, NameError, OptionsError, Problem, Version,
    Wanted, limits,
};

use super::imports;
use super::places::Places;
use crate::compile::CompileError;
use crate::fault::{Fault, Logged, Verdict};
use crate::fleet::SwapError;
use crate::generations::GenerationError;
use crate::settings::SettingsError;
use crate::store::StoreError;
use crate::store::database::DatabaseError;

#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("{0} changes of this tenant wait for their turn already")]
    Crowded(usize),
    #[error("the changes of this tenant before this one take too long; nothing changed")]
    NoTurn,
    #[error("too many uploads are under way: one tenant may have {} at once, and all together {}; try again soon", .0.most_of_one, .0.most)]
    TooMany(Places),
    #[error("the upload was not received and compiled within {}", humantime::format_duration(*.0))]
    Late(Duration),
    #[error("{}", .0.detail)]
    Packed(Box<Problem>),
    #[error("the head of a part is longer than any needs to be")]
    PartHead,
    #[error("the upload is not valid multipart/form-data: {0}")]
    Multipart(#[from] multer::Error),
    #[error("the upload has no file; send one as a part named, for example, hello.wasm")]
    NoFile,
    #[error("an upload may have {0} files")]
    TooManyFiles(usize),
    #[error("a file must be named NAME.wasm or NAME.wasm.zst, not {0:?}")]
    FileName(String),
    #[error(
        "the part {0:?} has no file name, and only the parts `options` and `same_imports` may have none; send filename=\"NAME.wasm\""
    )]
    NoFileName(String),
    #[error(
        "the part {0:?} names its file with `filename*` alone, which is not for forms; send filename=\"NAME.wasm\""
    )]
    ExtendedFileName(String),
    #[error("{file:?} does not give a valid path of a function: {source}")]
    Path { file: String, source: NameError },
    #[error("two parts of the upload give one function: {0} and {1}")]
    Twice(FunctionPath, FunctionPath),
    #[error("the upload has two parts named `options`, or two named `same_imports`")]
    TwoParts,
    #[error("the part `same_imports` must be `true` or `false`")]
    SameImports,
    #[error(
        "the upload may import nothing new (`same_imports`), and {}; nothing changed",
        imports::told(.0)
    )]
    NewImports(Vec<(FunctionPath, Vec<String>)>),
    #[error("the `options` part is above {} KiB", limits::OPTIONS_MAX_BYTES >> 10)]
    OptionsTooLarge,
    #[error("{0}")]
    Options(#[from] OptionsError),
    #[error("{path}: {source}")]
    OptionsRefused { path: FunctionPath, source: GenerationError },
    #[error("{0}")]
    Limits(#[from] LimitError),
    #[error("an upload may have {}", limits::size(*.0))]
    TooLarge(u64),
    #[error(
        "with several files, `options` is an object from file name to options, and {0:?} is the name of none"
    )]
    OptionsFor(String),
    #[error("{file:?}: {source}")]
    Module { file: String, source: GenerationError },
    #[error("{path} differs from {existing} only in case; remove that first")]
    Case { path: FunctionPath, existing: FunctionPath },
    #[error("this tenant may have {0} functions")]
    TooManyFunctions(u64),
    #[error(
        "{0} and {1} both have the option `path: \"root\"`, and a tenant may have one such function: change or remove one of them first"
    )]
    TwoRoots(FunctionPath, FunctionPath),
    #[error("there is no function at {0}")]
    NoFunction(FunctionPath),
    #[error("{path} has no version {version}")]
    NoVersion { path: FunctionPath, version: Version },
    #[error("{path} has no version before {active}")]
    NoOlder { path: FunctionPath, active: Wanted },
    #[error("no function at {0} comes with Hearth")]
    NotBundled(FunctionPath),
    #[error("this tenant has no generation {0}, or had it so long ago that it is no longer listed")]
    NoGeneration(GenerationNumber),
    #[error(
        "what generation {0} served is not known any more: an earlier Hearth made it, or large options were set too often since"
    )]
    ForgottenGeneration(GenerationNumber),
    #[error(
        "generation {generation} cannot serve again: {path} had version {version} then, which is no longer kept; nothing changed"
    )]
    BrokenGeneration { generation: GenerationNumber, path: FunctionPath, version: Version },
    #[error("there is no such tenant")]
    NoTenant,
    #[error("{source}; generation {current} still serves")]
    Swap { current: GenerationNumber, source: SwapError },
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("the generation could not be written")]
    Generation(#[from] GenerationError),
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl Fault for UploadError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Multipart(multer::Error::StreamSizeExceeded { limit }) => {
                Self::TooLarge(*limit).verdict()
            }
            Self::Multipart(multer::Error::StreamReadFailed(_)) => {
                Verdict::caller(Code::BadRequest, Problem::BROKEN_BODY)
            }
            Self::Packed(problem) => Verdict::caller(problem.code, &problem.detail),
            Self::Crowded(_) | Self::TooMany(_) => Verdict::limit(Code::TooManyRequests, self),
            Self::NoTurn => Verdict::limit(Code::WorkerUnavailable, self).logged(Logged::Warning),
            Self::Late(_) => Verdict::caller(Code::RequestTimeout, self),
            Self::PartHead | Self::OptionsTooLarge | Self::TooLarge(_) => {
                Verdict::caller(Code::TooLarge, self)
            }
            Self::Multipart(_)
            | Self::NoFile
            | Self::TooManyFiles(_)
            | Self::Twice(..)
            | Self::TwoParts
            | Self::SameImports
            | Self::Options(_)
            | Self::Limits(_)
            | Self::OptionsFor(_) => Verdict::caller(Code::BadRequest, self),
            Self::FileName(_)
            | Self::NoFileName(_)
            | Self::ExtendedFileName(_)
            | Self::Path { .. } => Verdict::caller(Code::InvalidPath, self),
            Self::Module { file, source } => source.verdict().about(file),
            // The module is one that was taken; it is the options that it cannot have.
            Self::OptionsRefused {
                path,
                source: source @ GenerationError::Compile(CompileError::Refused(_)),
            } => {
                let Verdict { told, .. } = source.verdict();
                Verdict::caller(Code::BadRequest, told).about(path)
            }
            Self::OptionsRefused { path, source } => source.verdict().about(path),
            Self::Case { .. }
            | Self::TwoRoots(..)
            | Self::NoOlder { .. }
            | Self::ForgottenGeneration(_)
            | Self::BrokenGeneration { .. } => Verdict::caller(Code::Conflict, self),
            Self::NewImports(added) => Verdict {
                imports: added.iter().flat_map(|(_, names)| names.clone()).collect(),
                ..Verdict::caller(Code::Conflict, self)
            },
            Self::TooManyFunctions(_) => Verdict::limit(Code::Conflict, self),
            Self::NoFunction(_)
            | Self::NoVersion { .. }
            | Self::NotBundled(_)
            | Self::NoGeneration(_)
            | Self::NoTenant => Verdict::caller(Code::NotFound, self),
            Self::Swap { source, .. } => Verdict { told: self.to_string(), ..source.verdict() },
            Self::Generation(error) => error.verdict(),
            Self::Settings(SettingsError::Store(error)) | Self::Store(error) => of_store(error),
            Self::Settings(error) => error.verdict(),
        }
    }
}

/// The store of a change that was not made, or of which nobody can say whether it was.
fn of_store(error: &StoreError) -> Verdict {
    let verdict = error.verdict();
    match error {
        StoreError::Database(DatabaseError::Disk(_)) => {
            verdict.and(": if the change is there shows when Hearth starts again")
        }
        StoreError::Database(DatabaseError::ReadOnly | DatabaseError::Closed) => verdict,
        _ => verdict.within("the host's store failed").and("; nothing changed"),
    }
}
