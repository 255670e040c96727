//! A change of what a tenant serves that is decided and not made yet, what every one has to keep to,
//! and where it is told that one was not made.

use hearth_wire::PathMatch;
use tracing::error_span;

use super::error::UploadError;
use crate::actor::Author;
use crate::generations::Served;
use crate::locks::TenantLock;
use crate::problem;
use crate::store::{Cause, Change, OwnFunctions, Tenant};

/// A change that is decided, and the right to make it.
pub(super) struct Planned {
    /// With the limits that it has then.
    pub tenant: Tenant,
    pub changing: TenantLock,
    /// All that the tenant has of its own then.
    pub own: OwnFunctions,
    pub changes: Vec<Change>,
    pub cause: Cause,
}

/// Logs what the host's operator has to know of.
pub(super) fn log(tenant: &Tenant, by: &Author, error: &UploadError) {
    error_span!("change", tenant = %tenant.name, %by).in_scope(|| problem::log(error));
}

/// Of those that somebody made the root: what the bundle says yields.
pub(super) fn one_root(served: &[Served]) -> Result<(), UploadError> {
    let is_root = |function: &&Served| match function.is_bundled() {
        true => function.set.path == Some(PathMatch::Root),
        false => function.options().path == Some(PathMatch::Root),
    };
    let roots: Vec<_> = served.iter().filter(is_root).map(|it| it.path.clone()).collect();
    match &roots[..] {
        [one, other, ..] => Err(UploadError::TwoRoots(one.clone(), other.clone())),
        _ => Ok(()),
    }
}

/// Its own: what comes with Hearth does not count.
pub(super) fn count_functions(tenant: &Tenant, own: &OwnFunctions) -> Result<(), UploadError> {
    let most = tenant.limits().functions;
    if own.live.len() as u64 > most { Err(UploadError::TooManyFunctions(most)) } else { Ok(()) }
}
