//! A change of what a tenant tells its functions. Its worker is another one then, as with every change:
//! it is ready with the new settings before they are kept, and serves before whoever asked is answered,
//! so that nobody finds the old ones afterwards. No generation has them, and no rollback brings any
//! back.

use std::collections::BTreeMap;

use hearth_wire::{SettingKind, SettingName, SettingValue};

use super::Uploads;
use super::error::UploadError;
use super::plan::log;
use crate::actor::Author;
use crate::locks::TenantLock;
use crate::patience::to_its_end;
use crate::settings::{Plan, SettingsError, plan};
use crate::store::Tenant;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub set: Vec<SettingName>,
    pub removed: Vec<SettingName>,
    /// Why no worker serves with that, where it is kept and none does.
    pub unserved: Option<String>,
}

impl Uploads {
    /// All of it or nothing; what is `None` is removed.
    pub async fn change_settings(
        &self,
        tenant: &Tenant,
        kind: SettingKind,
        changes: BTreeMap<SettingName, Option<SettingValue>>,
        by: &Author,
    ) -> Result<Changed, UploadError> {
        let planned = self.plan_settings(tenant, kind, changes).await;
        let (uploads, tenant, by) = (self.clone(), tenant.clone(), by.clone());
        to_its_end(async move {
            let done = match planned {
                Ok((tenant, changing, plan)) => {
                    uploads.carry_settings((&tenant, changing), plan, &by).await
                }
                Err(error) => Err(error),
            };
            done.inspect_err(|error| log(&tenant, &by, error))
        })
        .await
    }

    async fn plan_settings(
        &self,
        tenant: &Tenant,
        kind: SettingKind,
        changes: BTreeMap<SettingName, Option<SettingValue>>,
    ) -> Result<(Tenant, TenantLock, Plan), UploadError> {
        let (tenant, changing) = self.lock(tenant).await?;
        let plan = plan(&self.store.settings(tenant.id).await?, kind, changes)?;
        if kind == SettingKind::Secret && !plan.set.is_empty() {
            self.settings.ready_to_seal().await?;
        }
        Ok((tenant, changing, plan))
    }

    async fn carry_settings(
        &self,
        (tenant, _changing): (&Tenant, TenantLock),
        plan: Plan,
        by: &Author,
    ) -> Result<Changed, UploadError> {
        let set = plan.set.iter().map(|(name, _)| name.clone()).collect();
        let mut changed = Changed { set, removed: plan.removed.clone(), unserved: None };
        if plan.is_empty() {
            return Ok(changed);
        }
        match self.settings.next(tenant, &plan).await {
            Ok(next) => {
                let (settings, of, by) = (self.settings.clone(), tenant.clone(), by.clone());
                let kept = async move { settings.commit(&of, plan, by).await };
                self.restart_with(tenant, kept, Some(next)).await?;
                Ok(changed)
            }
            // Secrets that nobody can open are set again one after another: nothing serves before the
            // last of them is.
            Err(error @ SettingsError::Closed(_)) => {
                self.settings.commit(tenant, plan, by.clone()).await?;
                changed.unserved = Some(error.to_string());
                Ok(changed)
            }
            Err(error) => Err(error.into()),
        }
    }
}
