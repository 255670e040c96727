//! `/tenants`: making, listing and removing tenants.

use axum::Json;
use axum::extract::State;
use hearth_wire::{Code, GenerationNumber, Scope, TenantName};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Admin, AtTenant};
use super::error::Refusal;
use super::openapi::{TenantParam, tenant_name};
use super::request::JsonBody;
use crate::fleet::{Fleet, WorkerStatus};
use crate::provision::Provision;
use crate::store::{Store, Tenant};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantNew {
    #[schema(schema_with = tenant_name)]
    pub name: TenantName,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantMade {
    #[schema(schema_with = tenant_name)]
    pub name: TenantName,
    pub port: u16,
    pub url: String,
    /// The owner's token. It is shown this once.
    pub token: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Tenant)]
pub struct TenantInfo {
    #[schema(schema_with = tenant_name)]
    pub name: TenantName,
    pub port: u16,
    pub url: String,
    #[schema(value_type = u64)]
    pub generation: GenerationNumber,
    pub created_at: Timestamp,
    pub worker: WorkerStatus,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TenantList {
    pub tenants: Vec<TenantInfo>,
}

fn info(tenant: Tenant, fleet: &Fleet, provision: &Provision) -> Option<TenantInfo> {
    // None where it is being removed.
    let worker = fleet.status(&tenant.name)?;
    let url = provision.url(&tenant);
    let Tenant { id: _, name, port, generation, limits: _, uid: _, created_at } = tenant;
    Some(TenantInfo { name, port, url, generation, created_at, worker })
}

/// Make a tenant
///
/// It has the bundled functions and its own port at once.
#[utoipa::path(
    post, path = "/api/v1/tenants", operation_id = "create_tenant", tag = "tenants",
    request_body = TenantNew,
    responses(
        (status = 201, description = "It is there; the owner's token is shown this once", body = TenantMade),
        (status = 409, description = "The name is taken, or was until lately", body = super::openapi::ProblemSchema, content_type = "application/problem+json"),
    ),
)]
pub async fn create_tenant(
    Admin(caller): Admin,
    State(provision): State<Provision>,
    JsonBody(TenantNew { name }): JsonBody<TenantNew>,
) -> Result<(StatusCode, Json<TenantMade>), Refusal> {
    let (tenant, token) = provision.create(name, &caller.author).await?;
    let url = provision.url(&tenant);
    let made = TenantMade { name: tenant.name, port: tenant.port, url, token };
    Ok((StatusCode::CREATED, Json(made)))
}

/// All tenants, with the state of their workers
#[utoipa::path(
    get, path = "/api/v1/tenants", operation_id = "list_tenants", tag = "tenants",
    responses((status = 200, description = "By name", body = TenantList)),
)]
pub async fn list_tenants(
    _admin: Admin,
    State(store): State<Store>,
    State(fleet): State<Fleet>,
    State(provision): State<Provision>,
) -> Result<Json<TenantList>, Refusal> {
    let tenants = store.tenants().await?;
    let tenants = tenants.into_iter().filter_map(|tenant| info(tenant, &fleet, &provision));
    Ok(Json(TenantList { tenants: tenants.collect() }))
}

/// One tenant, with the state of its worker
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}", operation_id = "get_tenant", tag = "tenants",
    params(TenantParam),
    responses((status = 200, description = "The tenant", body = TenantInfo)),
)]
pub async fn get_tenant(
    at: AtTenant,
    State(fleet): State<Fleet>,
    State(provision): State<Provision>,
) -> Result<Json<TenantInfo>, Refusal> {
    let (tenant, _) = at.permit(Scope::Owner)?;
    match info(tenant, &fleet, &provision) {
        Some(tenant) => Ok(Json(tenant)),
        None => Err(Refusal::new(Code::NotFound, "this tenant is being removed")),
    }
}

/// Remove a tenant with all that it has
#[utoipa::path(
    delete, path = "/api/v1/tenants/{tenant}", operation_id = "delete_tenant", tag = "tenants",
    params(TenantParam),
    responses((status = 204, description = "It is gone; its port and its name are nobody's for a while")),
)]
pub async fn delete_tenant(
    at: AtTenant,
    State(provision): State<Provision>,
) -> Result<StatusCode, Refusal> {
    let (tenant, caller) = at.permit(Scope::Admin)?;
    provision.delete(&tenant, &caller.author).await?;
    Ok(StatusCode::NO_CONTENT)
}
