//! Why a tenant's worker does not come, or did not do what was asked, and whose fault that is.

use std::time::Duration;

use hearth_wire::Code;

use super::unbound::Unbound;
use crate::fault::{Fault, Logged, Verdict};

/// A call cannot be served now. The reason is fit for callers of that tenant.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the worker is unavailable: {reason}")]
pub struct Unavailable {
    pub retry_after: Duration,
    pub cause: Cause,
    pub reason: String,
}

/// As far as it is a caller's to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its worker ended, and none is started for now.
    Ended,
    /// Its own port is not had.
    Unbound(Unbound),
    /// Its secrets cannot be opened.
    Sealed,
    Crowded,
    Stopping,
}

impl Unavailable {
    /// What a caller of a barred tenant is told: somebody must act first.
    pub const BARRED: Duration = Duration::from_secs(30);

    /// Of one whose worker is not started before that.
    pub fn until(retry_after: Duration, cause: Cause) -> Self {
        let reason = "no worker is started".to_owned();
        Self { retry_after, cause, reason }
    }

    /// Of all, once the host stops: one that is started anew is soon there.
    pub fn stopping() -> Self {
        let reason = "the host is stopping".to_owned();
        Self { retry_after: Duration::from_secs(5), cause: Cause::Stopping, reason }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    #[error("another change of this tenant is under way")]
    Busy,
    /// The generation before it still serves.
    #[error("the new generation did not start: {0}")]
    NotStarted(String),
    #[error("there is no such tenant")]
    NoTenant,
}

#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("there is no such tenant")]
    NoTenant,
    #[error(transparent)]
    Unbound(#[from] Unbound),
    #[error(transparent)]
    Swap(#[from] SwapError),
}

impl Fault for Unavailable {
    /// What callers of a tenant are told whose worker does not come. Why is its owner's to see.
    fn verdict(&self) -> Verdict {
        let code = Code::WorkerUnavailable;
        let verdict = match self.cause {
            Cause::Ended => Verdict::function(
                code,
                "this tenant's worker ended unexpectedly and is not started again for now; its \
                 owner finds the reason with `hearth worker list`, and can upload a fix meanwhile",
            ),
            Cause::Unbound(Unbound::Taken(_)) => Verdict::host(
                code,
                "this tenant is not served for now: its own port is used by another program on \
                 the host; the host's operator can free it",
            ),
            Cause::Unbound(_) => Verdict::host(
                code,
                "this tenant is not served for now: the host could not bind its own port; the \
                 host's operator finds the reason with `hearth tenant show`",
            ),
            Cause::Sealed => Verdict::host(
                code,
                "this tenant is not served: its secrets cannot be opened, since the host's key for \
                 them is missing or another one; the host's operator can put it right, or the \
                 tenant's owner can set its secrets again",
            ),
            Cause::Crowded => {
                Verdict::limit(code, "too many callers wait for this tenant's worker")
            }
            Cause::Stopping => Verdict::host(code, "the host is stopping"),
        };
        // Whoever calls could fill the log with it; it is told where it began.
        verdict.again_after(self.retry_after).logged(Logged::No)
    }
}

impl Fault for SwapError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::NoTenant => Verdict::caller(Code::NotFound, self),
            Self::Busy => Verdict::caller(Code::Conflict, self),
            Self::NotStarted(_) => Verdict::host(Code::WorkerUnavailable, self),
        }
    }
}

impl Fault for FleetError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::NoTenant => Verdict::caller(Code::NotFound, self),
            Self::Unbound(_) => Verdict::host(Code::WorkerUnavailable, self),
            Self::Swap(error) => error.verdict(),
        }
    }
}

/// Why a call got no worker.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("there is no such tenant")]
    NoTenant,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
