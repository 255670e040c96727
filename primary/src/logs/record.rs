//! What a journal is of: records of one kind, each with an id, and which of them a reader wants.

use hearth_wire::{FunctionPath, LogStream};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Which records a reader wants; what is `None` matches all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub path: Option<FunctionPath>,
    pub request_id: Option<String>,
    pub stream: Option<LogStream>,
}

impl Filter {
    pub fn takes(&self, function: &FunctionPath, request_id: &str) -> bool {
        let path = |path: &FunctionPath| path.as_str().eq_ignore_ascii_case(function.as_str());
        self.path.as_ref().is_none_or(path)
            && self.request_id.as_ref().is_none_or(|id| id == request_id)
    }
}

/// One kind of what is kept: a line, or a call.
pub trait Record: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Begins the names of its segments.
    const KIND: &str;
    /// As figures name it.
    const ONE: &str;

    fn matches(&self, filter: &Filter) -> bool;
}

/// A record and its id, which counts the tenant's records of one kind from 1 and outlives a
/// restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    pub id: u64,
    pub record: T,
}
