//! `/tenants/{tenant}/tokens` and, for the host's own, `/tokens`. A change is answered once every
//! live worker of the tenant goes by it.

use axum::Json;
use axum::extract::State;
use hearth_wire::{Code, Scope};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Admin, AtTenant};
use super::error::Refusal;
use super::openapi::{ScopeSchema, TenantParam};
use super::request::{JsonBody, TokenId};
use crate::actor::Author;
use crate::store::{Store, TenantId, TokenRow, is_token_name};
use crate::token_push::TokenPush;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenNew {
    /// For people, and for functions that ask who called: 1 to 64 printable ASCII characters,
    /// without spaces at its ends.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    #[schema(value_type = ScopeSchema)]
    pub scope: Scope,
    /// Missing: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenMade {
    pub id: i64,
    pub name: String,
    #[schema(value_type = ScopeSchema)]
    pub scope: Scope,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// The token itself. It is shown this once.
    pub token: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenInfo {
    pub id: i64,
    pub name: String,
    #[schema(value_type = ScopeSchema)]
    pub scope: Scope,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    pub tokens: Vec<TokenInfo>,
}

#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "read by the derive only")]
struct TenantTokenParams {
    #[param(pattern = "^[a-z0-9][a-z0-9-]{0,62}$", example = "demo")]
    tenant: String,
    id: i64,
}

fn info(row: TokenRow) -> TokenInfo {
    let TokenRow { id, tenant: _, name, scope, created_at, expires_at } = row;
    TokenInfo { id, name, scope, created_at, expires_at }
}

/// What is asked for, checked; `host` tells whether the token would be the host's own.
fn check(new: TokenNew, host: bool, now: Timestamp) -> Result<TokenNew, Refusal> {
    let refused = |detail| Err(Refusal::new(Code::BadRequest, detail));
    let TokenNew { name, scope, expires_at } = &new;
    if !is_token_name(name) {
        return refused("a token's name is 1 to 64 printable ASCII characters");
    }
    match (host, scope) {
        (true, Scope::Owner | Scope::Deploy | Scope::Invoke | Scope::Report) => {
            return refused("the host's tokens have the scope admin");
        }
        (false, Scope::Admin) => {
            return refused("a tenant's token has one of the scopes owner, deploy, invoke, report");
        }
        (true, Scope::Admin)
        | (false, Scope::Owner | Scope::Deploy | Scope::Invoke | Scope::Report) => {}
    }
    if expires_at.is_some_and(|at| at <= now) {
        return refused("`expires_at` is in the past");
    }
    Ok(new)
}

async fn create(
    store: &Store,
    tenant: Option<TenantId>,
    new: TokenNew,
    by: Author,
) -> Result<(StatusCode, Json<TokenMade>), Refusal> {
    let TokenNew { name, scope, expires_at } = check(new, tenant.is_none(), Timestamp::now())?;
    let (row, token) = store.create_token(tenant, name, scope, expires_at, by).await?;
    let TokenInfo { id, name, scope, created_at, expires_at } = info(row);
    let made = TokenMade { id, name, scope, created_at, expires_at, token };
    Ok((StatusCode::CREATED, Json(made)))
}

async fn delete(
    store: &Store,
    tenant: Option<TenantId>,
    id: i64,
    by: Author,
) -> Result<(), Refusal> {
    if store.delete_token(tenant, id, by).await? {
        Ok(())
    } else {
        Err(Refusal::new(Code::NotFound, format!("there is no token {id}")))
    }
}

/// Make a token of a tenant
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant}/tokens", operation_id = "create_token", tag = "tokens",
    params(TenantParam), request_body = TokenNew,
    responses(
        (status = 201, description = "The token, shown this once", body = TokenMade),
        (status = 409, description = "There are too many", body = super::openapi::ProblemSchema, content_type = "application/problem+json"),
    ),
)]
pub async fn create_token(
    at: AtTenant,
    State(store): State<Store>,
    State(push): State<TokenPush>,
    JsonBody(new): JsonBody<TokenNew>,
) -> Result<(StatusCode, Json<TokenMade>), Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    let made = create(&store, Some(tenant.id), new, caller.author).await?;
    push.push(&tenant).await?;
    Ok(made)
}

/// The tokens of a tenant
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/tokens", operation_id = "list_tokens", tag = "tokens",
    params(TenantParam),
    responses((status = 200, description = "Oldest first", body = TokenList)),
)]
pub async fn list_tokens(
    at: AtTenant,
    State(store): State<Store>,
) -> Result<Json<TokenList>, Refusal> {
    let (tenant, _) = at.permit(Scope::Owner)?;
    let rows = store.tokens(Some(tenant.id)).await?;
    Ok(Json(TokenList { tokens: rows.into_iter().map(info).collect() }))
}

/// Revoke a token of a tenant
#[utoipa::path(
    delete, path = "/api/v1/tenants/{tenant}/tokens/{id}", operation_id = "delete_token",
    tag = "tokens", params(TenantTokenParams),
    responses((status = 204, description = "It is refused everywhere")),
)]
pub async fn delete_token(
    at: AtTenant,
    TokenId(id): TokenId,
    State(store): State<Store>,
    State(push): State<TokenPush>,
) -> Result<StatusCode, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    delete(&store, Some(tenant.id), id, caller.author).await?;
    push.push(&tenant).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Make a token of the host
#[utoipa::path(
    post, path = "/api/v1/tokens", operation_id = "create_admin_token", tag = "tokens",
    request_body = TokenNew,
    responses((status = 201, description = "The token, shown this once", body = TokenMade)),
)]
pub async fn create_admin_token(
    Admin(caller): Admin,
    State(store): State<Store>,
    JsonBody(new): JsonBody<TokenNew>,
) -> Result<(StatusCode, Json<TokenMade>), Refusal> {
    create(&store, None, new, caller.author).await
}

/// The tokens of the host
#[utoipa::path(
    get, path = "/api/v1/tokens", operation_id = "list_admin_tokens", tag = "tokens",
    responses((status = 200, description = "Oldest first", body = TokenList)),
)]
pub async fn list_admin_tokens(
    _admin: Admin,
    State(store): State<Store>,
) -> Result<Json<TokenList>, Refusal> {
    let rows = store.tokens(None).await?;
    Ok(Json(TokenList { tokens: rows.into_iter().map(info).collect() }))
}

/// Revoke a token of the host
#[utoipa::path(
    delete, path = "/api/v1/tokens/{id}", operation_id = "delete_admin_token", tag = "tokens",
    params(("id" = i64, Path)),
    responses((status = 204, description = "It is refused everywhere")),
)]
pub async fn delete_admin_token(
    Admin(caller): Admin,
    TokenId(id): TokenId,
    State(store): State<Store>,
) -> Result<StatusCode, Refusal> {
    delete(&store, None, id, caller.author).await?;
    Ok(StatusCode::NO_CONTENT)
}
