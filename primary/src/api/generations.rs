//! `/tenants/{tenant}/generations` and `…/rollback`: what a tenant has served, and how it serves that
//! again.

use axum::Json;
use axum::extract::State;
use hearth_wire::{FunctionPath, GenerationNumber, Scope, Version};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::AtTenant;
use super::error::Refusal;
use super::openapi::{TenantParam, function_path};
use super::request::{self, JsonBody, Params};
use crate::store::{ChangedFunction, GenerationPage as Found, GenerationRow, Store};
use crate::upload::{Returned, Uploads};

const LIMIT_DEFAULT: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Generation)]
pub struct GenerationInfo {
    #[schema(value_type = u64)]
    pub generation: GenerationNumber,
    /// What made it: `created`, `upload`, `rollback`, `remove`, `options` or `limits`.
    pub cause: String,
    /// The name that the token had which was used; the audit has its id.
    pub by: String,
    pub created_at: Timestamp,
    pub current: bool,
    /// Whether a rollback to it is possible: all that it served is still kept.
    pub whole: bool,
    /// The functions that it changed, by path.
    pub changed: Vec<GenerationFunction>,
}

/// A function that a generation changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GenerationFunction {
    #[schema(schema_with = function_path)]
    pub path: FunctionPath,
    /// The version that served from then on; null where none of the tenant's own did.
    pub version: Option<Version>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GenerationPage {
    /// Newest first.
    pub generations: Vec<GenerationInfo>,
    /// The `before` of the page of older ones, where there are any.
    pub next: Option<u64>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct GenerationParams {
    /// Only generations with smaller numbers.
    before: Option<u64>,
    /// The newest so many: 100, if it is missing.
    #[param(maximum = 1_000)]
    limit: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Return {
    /// Which one serves again.
    #[schema(value_type = u64)]
    pub generation: GenerationNumber,
}

/// The generations that the tenant has had
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/generations", operation_id = "list_generations",
    tag = "functions", params(TenantParam, GenerationParams),
    responses((status = 200, description = "A page of generations", body = GenerationPage)),
)]
pub async fn list_generations(
    at: AtTenant,
    Params(params): Params<GenerationParams>,
    State(store): State<Store>,
) -> Result<Json<GenerationPage>, Refusal> {
    let GenerationParams { before, limit } = params;
    let (tenant, _) = at.permit(Scope::Deploy)?;
    let limit = request::limit(limit, LIMIT_DEFAULT)?;
    let before = before.map(GenerationNumber);
    let Found { rows, more } = store.generations(tenant.id, before, limit).await?;
    let next = rows.last().filter(|_| more).map(|oldest| oldest.generation.0);
    let generations = rows.into_iter().map(|row| {
        let GenerationRow { generation, cause, by, created_at, whole, changed } = row;
        let current = tenant.generation == generation;
        let changed = changed
            .into_iter()
            .map(|ChangedFunction { path, version }| GenerationFunction { path, version })
            .collect();
        GenerationInfo { generation, cause, by, created_at, current, whole, changed }
    });
    Ok(Json(GenerationPage { generations: generations.collect(), next }))
}

/// Serve what an earlier generation served
///
/// For the tenant's owner. All its functions and what was set for them come back as a new
/// generation, or nothing does. Configuration, secrets and limits stay as they are, and what comes
/// with Hearth is this build's. A generation of which a version is no longer kept cannot come back.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant}/rollback", operation_id = "return_to_generation",
    tag = "functions", params(TenantParam), request_body = Return,
    responses((status = 200, description = "The generation with them serves", body = Returned)),
)]
pub async fn return_to_generation(
    at: AtTenant,
    State(uploads): State<Uploads>,
    JsonBody(Return { generation }): JsonBody<Return>,
) -> Result<Json<Returned>, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    Ok(Json(uploads.return_to(&tenant, generation, &caller.author).await?))
}
