//! What workers are told of their tenants' tokens, one change of a tenant at a time: without that, an
//! older list could come to a worker after a newer one, and bring a revoked token back.

use crate::fail::{self, Point};
use crate::fault::{Fault, Verdict};
use crate::fleet::{Fleet, FleetError};
use crate::locks::TenantLocks;
use crate::store::{Store, StoreError, Tenant};

/// The change is made, and workers do not know of it yet.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

impl Fault for PushError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Store(error) => error.verdict(),
            Self::Fleet(error) => error.verdict(),
        }
    }
}

#[derive(Clone)]
pub struct TokenPush {
    store: Store,
    fleet: Fleet,
    changing: TenantLocks,
}

impl TokenPush {
    pub fn new(store: Store, fleet: Fleet) -> Self {
        Self { store, fleet, changing: TenantLocks::default() }
    }

    /// Returns when every live worker of the tenant goes by the tokens that it has.
    pub async fn push(&self, tenant: &Tenant) -> Result<(), PushError> {
        fail::moment(Point::TokenPush);
        let _alone = self.changing.lock(&tenant.id).await;
        let grants = self.store.grants(tenant.id).await?;
        self.fleet.set_tokens(&tenant.name, grants).await?;
        fail::moment(Point::TokenPushed);
        Ok(())
    }
}
