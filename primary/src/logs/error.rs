//! Why a journal was not read or followed.

use std::io;

use hearth_wire::Code;

use crate::fault::{Fault, Verdict};

#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error("{0} clients follow this already, which is the limit")]
    TooManyFollowers(usize),
    #[error("the journal could not be read")]
    Read(#[source] io::Error),
    #[error("the journals are closed")]
    Closed,
}

impl Fault for LogsError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::TooManyFollowers(_) => Verdict::limit(Code::TooManyRequests, self),
            Self::Read(_) => Verdict::of_host(self, "the journal could not be read"),
            Self::Closed => Verdict::stopping(),
        }
    }
}
