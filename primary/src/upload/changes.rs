//! How what a tenant serves becomes something else: what the functions are then, for every change
//! that brings no module (rollback, removal, other options, other limits, a new worker); and for
//! these and for uploads, the steps to the generation that serves.

use std::time::Duration;

use hearth_wire::{FunctionPath, FunctionVersion, GenerationNumber, LimitsPatch, Setting, Wanted};
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tracing::error;

use super::Uploads;
use super::answers::Switched;
use super::error::UploadError;
use super::history;
use super::plan::{Planned, count_functions, log, one_root};
use crate::actor::Author;
use crate::fail::{self, Point};
use crate::fleet::{Commit, FleetError};
use crate::generations;
use crate::patience::to_its_end;
use crate::store::{
    Action, Cause, Change, Event, FunctionRow, NewGeneration, OwnFunctions, Sides, Tenant,
};

impl Uploads {
    /// Makes another version of a function the active one, or the one that is bundled; without a word
    /// which, the one before.
    pub async fn rollback(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
        to: Option<Wanted>,
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
        to: Option<Wanted>,
    ) -> Result<(Planned, (FunctionPath, FunctionVersion)), UploadError> {
        let (tenant, changing) = self.lock(tenant).await?;
        let bundle = self.generations.bundle().clone();
        let (row, bundled) = (self.store.function(tenant.id, path).await?, bundle.find(path));
        let versions = self.store.versions(tenant.id, path).await?;
        // As it is written where it is kept.
        let path = match (&row, &bundled) {
            (Some(row), _) => row.path.clone(),
            (None, Some(bundled)) => bundled.path.clone(),
            (None, None) => return Err(UploadError::NoFunction(path.clone())),
        };
        let numbers: Vec<_> = versions.iter().map(|row| row.version).collect();
        let to = history::before(&path, row.as_ref(), &numbers, bundled.is_some(), to)?;
        let mut own = self.store.own_functions(tenant.id).await?;
        let mut changes = Vec::new();
        let version = match to {
            Wanted::Own(version) => {
                let target = versions.into_iter().find(|row| row.version == version);
                let missing = || UploadError::NoVersion { path: path.clone(), version };
                let target = target.ok_or_else(missing)?;
                if row.as_ref().and_then(|row| row.active) != Some(version) {
                    self.generations.must_be_whole(&tenant, &target.clone().into()).await?;
                    own.activate(target);
                    changes.push(Change::Switch { path: path.clone(), version });
                }
                version.into()
            }
            Wanted::Bundled => {
                if row.as_ref().is_some_and(|row| row.active.is_some() || row.hidden_at.is_some()) {
                    own.bring_back(&path, row.map(|row| row.set).unwrap_or_default());
                    changes.push(Change::Bundled { path: path.clone() });
                }
                bundle.version()
            }
        };
        count_functions(&tenant, &own)?;
        let cause = Cause::Rollback;
        Ok((Planned { tenant, changing, own, changes, cause }, (path, version)))
    }

    /// Takes a function away. Its versions are kept for a while, so that it can be rolled back. What
    /// is bundled at its path serves again; that itself is taken away for all builds to come.
    pub async fn remove(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
        by: &Author,
    ) -> Result<Switched, UploadError> {
        let planned = self.plan_removal(tenant, path).await;
        let ((path, version), generation, swap) = self.carry_out(tenant, planned, by).await?;
        let swap_ms = swap.as_millis() as u64;
        Ok(Switched { path, version, generation, swap_ms })
    }

    /// With what serves at that path then.
    async fn plan_removal(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
    ) -> Result<(Planned, (FunctionPath, Option<FunctionVersion>)), UploadError> {
        let (tenant, changing) = self.lock(tenant).await?;
        let bundle = self.generations.bundle().clone();
        let mut own = self.store.own_functions(tenant.id).await?;
        let served = bundle.beneath(&own);
        let found = generations::one(&served, path);
        let function = found.ok_or_else(|| UploadError::NoFunction(path.clone()))?;
        let path = function.path.clone();
        let change = match function.is_bundled() {
            true => {
                own.over.set.remove(&path);
                own.over.removed.insert(path.clone());
                Change::Hide { path: path.clone() }
            }
            false => {
                let row = self.store.function(tenant.id, &path).await?;
                own.live.retain(|row| row.path != path);
                match row {
                    Some(FunctionRow { hidden_at: None, set, .. }) => own.bring_back(&path, set),
                    _ => drop(own.over.removed.insert(path.clone())),
                }
                Change::Remove { path: path.clone() }
            }
        };
        let left = bundle.beneath(&own);
        let left = generations::one(&left, &path).map(|function| function.version.clone());
        let cause = Cause::Remove;
        Ok((Planned { tenant, changing, own, changes: vec![change], cause }, (path, left)))
    }

    /// Sets options of a function over those of its module and its upload; what is null goes by
    /// these again.
    pub async fn set_options(
        &self,
        tenant: &Tenant,
        path: &FunctionPath,
        changes: Map<String, Value>,
        by: &Author,
    ) -> Result<GenerationNumber, UploadError> {
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
        let mut own = self.store.own_functions(tenant.id).await?;
        let served = self.generations.bundle().beneath(&own);
        let found = generations::one(&served, path).cloned();
        let mut function = found.ok_or_else(|| UploadError::NoFunction(path.clone()))?;
        let before = function.set.clone();
        function.set = before.clone().changed(changes)?;
        function.options().check(&tenant.limits())?;
        let mut changes = Vec::new();
        if function.set != before {
            self.check_options(&tenant, &function).await?;
            let (path, options) = (function.path.clone(), function.set.clone());
            own.set(&path, options.clone());
            changes.push(Change::Set { path, options });
        }
        let cause = Cause::Options;
        Ok((Planned { tenant, changing, own, changes, cause }, ()))
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
        let own = self.store.own_functions(tenant.id).await?;
        let tenant = Tenant { limits: limits.clone(), ..tenant };
        let cause = Cause::Limits;
        Ok((Planned { tenant, changing, own, changes, cause }, limits))
    }

    /// A new worker of the same generation, in turn with changes: none of them is refused for it.
    pub async fn restart(&self, tenant: &Tenant, by: &Author) -> Result<(), UploadError> {
        let locked = self.lock(tenant).await.inspect_err(|error| log(tenant, by, error));
        let (tenant, changing) = locked?;
        let (store, by, author) = (self.store.clone(), by.clone(), by.clone());
        let (action, id) = (Action::WorkerRestart, Some(tenant.id));
        let event = Event { action, tenant: id, object: None, sides: Sides::none() };
        let noted = async move { store.note(by, event).await };
        let uploads = self.clone();
        to_its_end(async move {
            let _changing = changing;
            let restarted = uploads.restart_with(&tenant, noted, None).await;
            restarted.inspect_err(|error| log(&tenant, &author, error))
        })
        .await
    }

    /// A new worker of the same generation, which serves once the store has taken a change. It is told
    /// these settings, or those that are kept.
    pub(super) async fn restart_with<E: Into<UploadError> + Send + 'static>(
        &self,
        tenant: &Tenant,
        change: impl Future<Output = Result<(), E>> + Send + 'static,
        settings: Option<Vec<Setting>>,
    ) -> Result<(), UploadError> {
        let (commit, mut refused) = committing(change);
        match self.fleet.restart(&tenant.name, Some(commit), settings).await {
            Ok(()) => Ok(()),
            Err(FleetError::Swap(source)) => Err(match refused.try_recv() {
                Ok(error) => error.into(),
                Err(_) => UploadError::Swap { current: tenant.generation, source },
            }),
            Err(FleetError::NoTenant | FleetError::Unbound(_)) => Err(UploadError::NoTenant),
        }
    }

    /// Makes a change that was decided, where it could be. Whoever waits for it, it is done to its
    /// end, and logged where it is the host's fault that it was not.
    pub(super) async fn carry_out<T: Send + 'static>(
        &self,
        tenant: &Tenant,
        planned: Result<(Planned, T), UploadError>,
        by: &Author,
    ) -> Result<(T, GenerationNumber, Duration), UploadError> {
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
    ) -> Result<(GenerationNumber, Duration), UploadError> {
        let Planned { tenant, changing: _changing, own, changes, cause } = planned;
        if changes.is_empty() {
            return Ok((tenant.generation, Duration::ZERO));
        }
        one_root(&self.generations.bundle().beneath(&own))?;
        self.swap(&tenant, &own, changes, cause, by).await
    }

    async fn swap(
        &self,
        tenant: &Tenant,
        own: &OwnFunctions,
        changes: Vec<Change>,
        cause: Cause,
        by: &Author,
    ) -> Result<(GenerationNumber, Duration), UploadError> {
        let generation = tenant.generation.next();
        self.generations.write(tenant, generation, own).await?;
        fail::moment(Point::ChangeWritten);
        let (store, new) = (
            self.store.clone(),
            NewGeneration {
                tenant: tenant.id,
                generation,
                cause,
                by: by.clone(),
                bundle: self.generations.bundle().mounts.clone(),
                changes,
            },
        );
        let (commit, mut refused) = committing(async move { store.commit_generation(new).await });
        match self.fleet.swap(&tenant.name, generation, commit).await {
            Ok(took) => {
                fail::moment(Point::ChangeCommitted);
                // Best effort: the next sweep takes what this leaves.
                if let Err(error) = self.generations.prune(tenant, generation).await {
                    error!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "earlier generations could not be removed");
                }
                fail::moment(Point::ChangeDone);
                Ok((generation, took))
            }
            Err(source) => {
                self.generations.discard(tenant, generation).await;
                Err(match refused.try_recv() {
                    Ok(error) => error.into(),
                    Err(_) => UploadError::Swap { current: tenant.generation, source },
                })
            }
        }
    }
}

/// What the store is to take before a new worker does, and why it did not.
fn committing<E: Send + 'static>(
    change: impl Future<Output = Result<(), E>> + Send + 'static,
) -> (Commit, oneshot::Receiver<E>) {
    let (tell, refused) = oneshot::channel();
    let commit = async move {
        change.await.map_err(|error| {
            let _ = tell.send(error);
            "the host's store did not take it".to_owned()
        })
    };
    (Box::pin(commit), refused)
}
