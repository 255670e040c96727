//! `/tenants/{tenant}/limits`: what a tenant may have, and what it has of that now.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use hearth_wire::{Limit, Limits, LimitsPatch, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Admin, AtTenant};
use super::error::Refusal;
use super::openapi::TenantParam;
use super::request::JsonBody;
use crate::generations::Generations;
use crate::invoke::Calls;
use crate::store::{Store, Tenant};
use crate::upload::Uploads;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Limit)]
pub struct LimitInfo {
    #[schema(example = "calls_running")]
    pub name: String,
    #[schema(example = "calls")]
    pub unit: String,
    /// What is bounded.
    pub about: String,
    pub value: u64,
    /// Whether the value was set for this tenant.
    pub set: bool,
    pub default: u64,
    pub min: u64,
    pub max: u64,
    /// What there is of it at this moment; null where that cannot be said in a number.
    pub used: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitList {
    pub limits: Vec<LimitInfo>,
}

/// Limits by name; null is the default again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitChanges {
    #[schema(example = json!({"calls_running": 16, "rate_per_second": 100}))]
    pub limits: BTreeMap<String, Option<u64>>,
}

async fn list(
    tenant: &Tenant,
    set: &LimitsPatch,
    store: &Store,
    generations: &Generations,
    calls: &Calls,
) -> Result<LimitList, Refusal> {
    let limits = set.resolve();
    let usage = calls.usage(&tenant.name).await;
    let functions = store.own_functions(tenant.id).await?.live.len() as u64;
    let disk = generations.disk_use(tenant).await?;
    let used = |name: &str| match name {
        "calls_running" => Some(usage.calls_running),
        "calls_waiting" => Some(usage.calls_waiting),
        "connections" => Some(usage.connections),
        "functions" => Some(functions),
        "disk_bytes" => Some(disk),
        _ => None,
    };
    let limits = Limits::TABLE.iter().map(|limit| {
        let Limit { name, unit, about, default, min, max } = *limit;
        LimitInfo {
            name: name.to_owned(),
            unit: unit.to_owned(),
            about: about.to_owned(),
            value: limits.get(name).expect("every limit of the table has a value"),
            set: set.is_set(name),
            default,
            min,
            max,
            used: used(name),
        }
    });
    Ok(LimitList { limits: limits.collect() })
}

/// What the tenant may have, and what it has of that now
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/limits", operation_id = "list_limits", tag = "tenants",
    params(TenantParam),
    responses((status = 200, description = "All limits", body = LimitList)),
)]
pub async fn list_limits(
    at: AtTenant,
    State(store): State<Store>,
    State(generations): State<Generations>,
    State(calls): State<Calls>,
) -> Result<Json<LimitList>, Refusal> {
    let (tenant, _) = at.permit(Scope::Deploy)?;
    Ok(Json(list(&tenant, &tenant.limits, &store, &generations, &calls).await?))
}

/// Set limits of a tenant
///
/// All of them or none. Answered once a worker goes by them.
#[utoipa::path(
    patch, path = "/api/v1/tenants/{tenant}/limits", operation_id = "set_limits", tag = "tenants",
    params(TenantParam), request_body = LimitChanges,
    responses((status = 200, description = "All limits", body = LimitList)),
)]
pub async fn set_limits(
    Admin(caller): Admin,
    at: AtTenant,
    State(store): State<Store>,
    State(generations): State<Generations>,
    State(calls): State<Calls>,
    State(uploads): State<Uploads>,
    JsonBody(LimitChanges { limits }): JsonBody<LimitChanges>,
) -> Result<Json<LimitList>, Refusal> {
    let (tenant, _) = at.permit(Scope::Admin)?;
    let set = uploads.set_limits(&tenant, limits, &caller.author).await?;
    Ok(Json(list(&tenant, &set, &store, &generations, &calls).await?))
}
