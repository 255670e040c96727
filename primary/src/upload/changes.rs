//! How what a tenant serves becomes something else: what the functions are then, for every change
//! that brings no module (rollback, removal, other options, other limits, a new worker); and for
//! these and for uploads, the steps to the generation that serves.

use std::time::Duration;

use hearth_wire::{FunctionPath, Generation, LimitsPatch, Version};
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tracing::error;

use super::Uploads;
use super::answers::Switched;
use super::error::UploadError;
use super::plan::{Planned, count_functions, log, one_root};
use crate::actor::Author;
use crate::fail::{self, Point};
use crate::fleet::{Commit, FleetError};
use crate::patience::to_its_end;
use crate::store::{
    Action, Cause, Change, Event, NewGeneration, Sides, StoreError, Tenant, VersionRow,
};

impl Uploads {
    /// Makes another version of a function the active one; without a number, the one before.
    pub async fn rollback(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
        to: Option<Version>,
        by: &Author,
    ) -> Result<Switched, UploadError> {
        let planned = self.plan_rollback(tenant, path, to).await;
        let ((path, version), generation, swap) = self.carry_out(tenant, planned, by).await?;
        let swap_ms = swap.as_millis() as u64;
        Ok(Switched { path, version: Some(version), generation, swap_ms })
    }

    async fn plan_rollback(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
        to: Option<Version>,
    ) -> Result<(Planned, (FunctionPath, Version)), UploadError> {
        let (tenant, changing) = self.lock(tenant).await?;
        let function = self.store.function(tenant.id, path).await?;
        let function = function.ok_or_else(|| UploadError::NoFunction(path.clone()))?;
        let versions = self.store.versions(tenant.id, &function.path).await?;
        let path = function.path;
        let target = match (to, function.active) {
            (Some(version), _) => versions
                .into_iter()
                .find(|row| row.version == version)
                .ok_or(UploadError::NoVersion { path: path.clone(), version })?,
            (None, Some(active)) => versions
                .into_iter()
                .find(|row| row.version < active)
                .ok_or(UploadError::NoOlder { path: path.clone(), active })?,
            // It was removed: back comes what was active last.
            (None, None) => {
                versions.into_iter().next().ok_or_else(|| UploadError::NoFunction(path.clone()))?
            }
        };
        let version = target.version;
        let mut live = self.store.live_functions(tenant.id).await?;
        let mut changes = Vec::new();
        if function.active != Some(version) {
            self.releases.must_be_whole(&tenant, &target).await?;
            live.retain(|function| function.path != path);
            live.push(target);
            changes.push(Change::Switch { path: path.clone(), version });
        }
        count_functions(&tenant, &live)?;
        let cause = Cause::Rollback;
        Ok((Planned { tenant, changing, functions: live, changes, cause }, (path, version)))
    }

    /// Takes a function away. Its versions are kept for a while, so that it can be rolled back.
    pub async fn remove(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
        by: &Author,
    ) -> Result<Switched, UploadError> {
        let planned = self.plan_removal(tenant, path).await;
        let ((), generation, swap) = self.carry_out(tenant, planned, by).await?;
        let swap_ms = swap.as_millis() as u64;
        Ok(Switched { path: path.clone(), version: None, generation, swap_ms })
    }

    async fn plan_removal(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
    ) -> Result<(Planned, ()), UploadError> {
        let (tenant, changing) = self.lock(tenant).await?;
        let mut live = self.store.live_functions(tenant.id).await?;
        let before = live.len();
        live.retain(|function| function.path != *path);
        if live.len() == before {
            return Err(UploadError::NoFunction(path.clone()));
        }
        let changes = vec![Change::Remove { path: path.clone() }];
        let cause = Cause::Remove;
        Ok((Planned { tenant, changing, functions: live, changes, cause }, ()))
    }

    /// Sets options of a function over those of its module and its upload; what is null goes by
    /// these again.
    pub async fn set_options(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
        changes: Map<String, Value>,
        by: &Author,
    ) -> Result<Generation, UploadError> {
        let planned = self.plan_options(tenant, path, changes).await;
        let ((), generation, _) = self.carry_out(tenant, planned, by).await?;
        Ok(generation)
    }

    async fn plan_options(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
        changes: Map<String, Value>,
    ) -> Result<(Planned, ()), UploadError> {
        let (tenant, changing) = self.lock(tenant).await?;
        let mut live = self.store.live_functions(tenant.id).await?;
        let function = live.iter_mut().find(|function| function.path == *path);
        let function = function.ok_or_else(|| UploadError::NoFunction(path.clone()))?;
        let before = function.set.clone();
        function.set = before.clone().changed(changes)?;
        function.options().check(&tenant.limits())?;
        let mut changes = Vec::new();
        if function.set != before {
            self.check_options(&tenant, function).await?;
            let (path, options) = (function.path.clone(), function.set.clone());
            changes.push(Change::Set { path, options });
        }
        let cause = Cause::Options;
        Ok((Planned { tenant, changing, functions: live, changes, cause }, ()))
    }

    /// Sets limits of a tenant; what is `None` is as by default again.
    pub async fn set_limits(
        &self,
        tenant: &Tenant,
        changes: impl IntoIterator<Item = (String, Option<u64>)>,
        by: &Author,
    ) -> Result<LimitsPatch, UploadError> {
        let planned = self.plan_limits(tenant, changes).await;
        let (limits, ..) = self.carry_out(tenant, planned, by).await?;
        Ok(limits)
    }

    async fn plan_limits(
        &self,
        tenant: &Tenant,
        changes: impl IntoIterator<Item = (String, Option<u64>)>,
    ) -> Result<(Planned, LimitsPatch), UploadError> {
        let (tenant, changing) = self.lock(tenant).await?;
        let mut limits = tenant.limits.clone();
        limits.change(changes)?;
        let mut changes = Vec::new();
        if limits != tenant.limits {
            changes.push(Change::Limits(limits.clone()));
        }
        let functions = self.store.live_functions(tenant.id).await?;
        let tenant = Tenant { limits: limits.clone(), ..tenant };
        let cause = Cause::Limits;
        Ok((Planned { tenant, changing, functions, changes, cause }, limits))
    }

    /// A new worker of the same generation, in turn with changes: none of them is refused for it.
    pub async fn restart(&self, tenant: &Tenant, by: &Author) -> Result<(), UploadError> {
        let locked = self.lock(tenant).await.inspect_err(|error| log(tenant, by, error));
        let (tenant, changing) = locked?;
        let (store, by, author) = (self.store.clone(), by.clone(), by.clone());
        let (action, id) = (Action::WorkerRestart, Some(tenant.id));
        let event = Event { action, tenant: id, object: None, sides: Sides::none() };
        let (commit, mut refused) = committing(async move { store.note(by, event).await });
        let uploads = self.clone();
        to_its_end(async move {
            let _changing = changing;
            let restarted = match uploads.fleet.restart(&tenant.name, Some(commit)).await {
                Ok(()) => Ok(()),
                Err(FleetError::Swap(source)) => Err(match refused.try_recv() {
                    Ok(error) => error.into(),
                    Err(_) => UploadError::Swap { current: tenant.generation, source },
                }),
                Err(FleetError::NoTenant | FleetError::PortTaken(_)) => Err(UploadError::NoTenant),
            };
            restarted.inspect_err(|error| log(&tenant, &author, error))
        })
        .await
    }

    /// Makes a change that was decided, where it could be. Whoever waits for it, it is done to its
    /// end, and logged where it is the host's fault that it was not.
    async fn carry_out<T: Send + 'static>(
        &self,
        tenant: &Tenant,
        planned: Result<(Planned, T), UploadError>,
        by: &Author,
    ) -> Result<(T, Generation, Duration), UploadError> {
        let (uploads, tenant, by) = (self.clone(), tenant.clone(), by.clone());
        to_its_end(async move {
            let done = match planned {
                Ok((planned, what)) => {
                    let applied = uploads.apply(planned, &by).await;
                    applied.map(|(generation, swap)| (what, generation, swap))
                }
                Err(error) => Err(error),
            };
            done.inspect_err(|error| log(&tenant, &by, error))
        })
        .await
    }

    /// Puts these functions in the place of what the tenant serves. Without a change nothing is
    /// done. With one, nobody else changes the tenant before it is done. To be called where nobody
    /// can stop it.
    pub(super) async fn apply(
        &self,
        planned: Planned,
        by: &Author,
    ) -> Result<(Generation, Duration), UploadError> {
        let Planned { tenant, changing: _changing, functions, changes, cause } = planned;
        if changes.is_empty() {
            return Ok((tenant.generation, Duration::ZERO));
        }
        one_root(&functions)?;
        self.swap(&tenant, &functions, changes, cause, by).await
    }

    async fn swap(
        &self,
        tenant: &Tenant,
        functions: &[VersionRow],
        changes: Vec<Change>,
        cause: Cause,
        by: &Author,
    ) -> Result<(Generation, Duration), UploadError> {
        let generation = tenant.generation + 1;
        self.releases.write(tenant, generation, functions).await?;
        fail::moment(Point::ChangeWritten);
        let (store, new) = (
            self.store.clone(),
            NewGeneration { tenant: tenant.id, generation, cause, by: by.clone(), changes },
        );
        let (commit, mut refused) = committing(async move { store.commit_generation(new).await });
        match self.fleet.swap(&tenant.name, generation, commit).await {
            Ok(took) => {
                fail::moment(Point::ChangeCommitted);
                // Best effort: the next sweep takes what this leaves.
                if let Err(error) = self.releases.prune(tenant, generation).await {
                    error!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "prune");
                }
                fail::moment(Point::ChangeDone);
                Ok((generation, took))
            }
            Err(source) => {
                self.releases.discard(tenant, generation).await;
                Err(match refused.try_recv() {
                    Ok(error) => error.into(),
                    Err(_) => UploadError::Swap { current: tenant.generation, source },
                })
            }
        }
    }
}

/// What the store is to take before a new worker does, and why it did not.
fn committing(
    change: impl Future<Output = Result<(), StoreError>> + Send + 'static,
) -> (Commit, oneshot::Receiver<StoreError>) {
    let (tell, refused) = oneshot::channel();
    let commit = async move {
        change.await.map_err(|error| {
            let _ = tell.send(error);
            "the host's store did not take it".to_owned()
        })
    };
    (Box::pin(commit), refused)
}
