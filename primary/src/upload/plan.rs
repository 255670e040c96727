//! A change of what a tenant serves that is decided and not made yet, what every one has to keep to,
//! and where it is told that one was not made.

use hearth_wire::PathMatch;
use tracing::error_span;

use super::error::UploadError;
use crate::actor::Author;
use crate::locks::TenantLock;
use crate::problem;
use crate::store::{Cause, Change, Tenant, VersionRow};

/// A change that is decided, and the right to make it.
pub(super) struct Planned {
    /// With the limits that it has then.
    pub tenant: Tenant,
    pub changing: TenantLock,
    /// All that the tenant serves then.
    pub functions: Vec<VersionRow>,
    pub changes: Vec<Change>,
    pub cause: Cause,
}

/// Logs what the host's operator has to know of.
pub(super) fn log(tenant: &Tenant, by: &Author, error: &UploadError) {
    error_span!("change", tenant = %tenant.name, %by).in_scope(|| problem::log(error));
}

pub(super) fn one_root(live: &[VersionRow]) -> Result<(), UploadError> {
    let is_root = |function: &&VersionRow| function.options().path == Some(PathMatch::Root);
    let mut roots: Vec<_> = live.iter().filter(is_root).map(|it| it.path.clone()).collect();
    roots.sort();
    match &roots[..] {
        [one, other, ..] => Err(UploadError::TwoRoots(one.clone(), other.clone())),
        _ => Ok(()),
    }
}

pub(super) fn count_functions(tenant: &Tenant, live: &[VersionRow]) -> Result<(), UploadError> {
    let most = tenant.limits().functions;
    if live.len() as u64 > most { Err(UploadError::TooManyFunctions(most)) } else { Ok(()) }
}
