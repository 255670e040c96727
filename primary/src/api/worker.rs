//! `/tenants/{tenant}/worker`: what it is doing, and telling it to start, stop or start anew.

use axum::Json;
use axum::extract::State;
use hearth_wire::{Code, Scope};

use super::auth::AtTenant;
use super::error::Refusal;
use super::openapi::TenantParam;
use crate::actor::Author;
use crate::fleet::{Fleet, WorkerStatus};
use crate::patience::to_its_end;
use crate::store::{Action, Event, Sides, Store, StoreError, Tenant};
use crate::upload::Uploads;

fn status(fleet: &Fleet, tenant: &Tenant) -> Result<Json<WorkerStatus>, Refusal> {
    match fleet.status(&tenant.name) {
        Some(status) => Ok(Json(status)),
        None => Err(Refusal::new(Code::NotFound, "this tenant is being removed")),
    }
}

/// Before the worker is told: a host that dies in between has ended it as well.
async fn note(
    store: &Store,
    tenant: &Tenant,
    action: Action,
    by: Author,
) -> Result<(), StoreError> {
    let tenant = Some(tenant.id);
    store.note(by, Event { action, tenant, object: None, sides: Sides::none() }).await
}

/// The worker's state and figures
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/worker", operation_id = "get_worker", tag = "worker",
    params(TenantParam),
    responses((status = 200, description = "Its state", body = WorkerStatus)),
)]
pub async fn get_worker(
    at: AtTenant,
    State(fleet): State<Fleet>,
) -> Result<Json<WorkerStatus>, Refusal> {
    let (tenant, _) = at.permit(Scope::Owner)?;
    status(&fleet, &tenant)
}

/// Start a worker now, whatever happened before
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant}/worker/start", operation_id = "start_worker",
    tag = "worker", params(TenantParam),
    responses((status = 200, description = "Its state after that", body = WorkerStatus)),
)]
pub async fn start_worker(
    at: AtTenant,
    State(fleet): State<Fleet>,
    State(store): State<Store>,
) -> Result<Json<WorkerStatus>, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    to_its_end(async move {
        // What can fail comes first, so that nothing is noted that was not done.
        fleet.listen(&tenant.name).await?;
        note(&store, &tenant, Action::WorkerStart, caller.author).await?;
        fleet.start(&tenant.name).await?;
        status(&fleet, &tenant)
    })
    .await
}

/// Stop the worker; the next call starts one
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant}/worker/stop", operation_id = "stop_worker",
    tag = "worker", params(TenantParam),
    responses((status = 200, description = "Its state after that", body = WorkerStatus)),
)]
pub async fn stop_worker(
    at: AtTenant,
    State(fleet): State<Fleet>,
    State(store): State<Store>,
) -> Result<Json<WorkerStatus>, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    to_its_end(async move {
        note(&store, &tenant, Action::WorkerStop, caller.author).await?;
        fleet.stop(&tenant.name).await?;
        status(&fleet, &tenant)
    })
    .await
}

/// A new worker in the place of the old one, without a gap
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant}/worker/restart", operation_id = "restart_worker",
    tag = "worker", params(TenantParam),
    responses((status = 200, description = "Its state after that", body = WorkerStatus)),
)]
pub async fn restart_worker(
    at: AtTenant,
    State(fleet): State<Fleet>,
    State(uploads): State<Uploads>,
) -> Result<Json<WorkerStatus>, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    uploads.restart(&tenant, &caller.author).await?;
    status(&fleet, &tenant)
}
