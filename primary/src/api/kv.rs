//! `/tenants/{tenant}/kv`: a tenant's key-value stores, as its worker has them.

use axum::extract::{Request, State};
use axum::response::Response;
use hearth_wire::{Scope, StateAddress};
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde::Deserialize;

use super::auth::AtTenant;
use super::error::Refusal;
use super::openapi::{ProblemSchema, TenantParam};
use super::request::{Params, refuse_packed};
use super::state::{
    Asked, AtKey, BYTES, Change, InStore, JSON, PageParams, ask, change, expires_query, page,
};
use crate::invoke::Calls;
use crate::store::{Action, Store};

// Never made: how `hearth_wire::StateNamed` looks.
#[derive(utoipa::ToSchema)]
#[schema(as = StateNamed)]
#[expect(dead_code, reason = "read by the derive only")]
pub struct NamedSchema {
    #[schema(example = "default")]
    name: String,
}

// Never made: how `hearth_wire::StoreList` looks.
#[derive(utoipa::ToSchema)]
#[schema(as = StoreList)]
#[expect(dead_code, reason = "read by the derive only")]
pub struct StoreListSchema {
    /// By name.
    #[schema(value_type = Vec<NamedSchema>)]
    stores: (),
    /// The `after` of the next page, where there could be one.
    next: Option<String>,
}

// Never made: how `hearth_wire::KeyList` looks.
#[derive(utoipa::ToSchema)]
#[schema(as = KeyList)]
#[expect(dead_code, reason = "read by the derive only")]
pub struct KeyListSchema {
    /// In the order of their bytes. What has expired is not among them.
    keys: Vec<String>,
    /// The `after` of the next page, where there could be one.
    next: Option<String>,
}

/// The `{tenant}` and `{store}` of an address.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "read by the derive only")]
pub struct StoreParams {
    #[param(pattern = "^[a-z0-9][a-z0-9-]{0,62}$", example = "demo")]
    tenant: String,
    #[param(pattern = "^[A-Za-z0-9_.-]{1,64}$", example = "default")]
    store: String,
}

/// The `{tenant}`, `{store}` and `{key}` of an address.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "read by the derive only")]
pub struct KeyParams {
    #[param(pattern = "^[a-z0-9][a-z0-9-]{0,62}$", example = "demo")]
    tenant: String,
    #[param(pattern = "^[A-Za-z0-9_.-]{1,64}$", example = "default")]
    store: String,
    /// Any text, percent-encoded as one segment.
    #[param(example = "users%2F7")]
    key: String,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct KeysParams {
    /// At most so many: 100, if it is missing.
    #[param(maximum = 1_000)]
    limit: Option<usize>,
    /// Only keys behind this one: the `next` of the page before.
    after: Option<String>,
    /// Only keys that begin so.
    prefix: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SetParams {
    /// When it is gone again; never, if it is missing.
    #[param(value_type = Option<String>, example = "2030-01-01T00:00:00Z")]
    expires_at: Option<Timestamp>,
}

/// The stores that the tenant has
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/kv", operation_id = "list_stores", tag = "state",
    params(TenantParam, PageParams),
    responses((status = 200, description = "A page of stores", body = StoreListSchema)),
)]
pub async fn list_stores(
    at: AtTenant,
    Params(params): Params<PageParams>,
    State(calls): State<Calls>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (tenant, _) = at.permit(Scope::Owner)?;
    let asked = Asked::page(StateAddress::Stores, &params.page()?);
    ask(&calls, &tenant, &headers, asked, JSON).await
}

/// The keys of a store
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/kv/{store}", operation_id = "list_keys", tag = "state",
    params(StoreParams, KeysParams),
    responses((status = 200, description = "A page of keys", body = KeyListSchema)),
)]
pub async fn list_keys(
    at: AtTenant,
    InStore(store): InStore,
    Params(KeysParams { limit, after, prefix }): Params<KeysParams>,
    State(calls): State<Calls>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (tenant, _) = at.permit(Scope::Owner)?;
    let asked = Asked::page(StateAddress::Store(store), &page(limit, after, prefix)?);
    ask(&calls, &tenant, &headers, asked, JSON).await
}

/// Remove a store with all that is in it
#[utoipa::path(
    delete, path = "/api/v1/tenants/{tenant}/kv/{store}", operation_id = "remove_store",
    tag = "state", params(StoreParams),
    responses((status = 204, description = "It is gone")),
)]
pub async fn remove_store(
    at: AtTenant,
    InStore(name): InStore,
    State(calls): State<Calls>,
    State(store): State<Store>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    let address = StateAddress::Store(name.clone());
    let asked = Asked { method: Method::DELETE, ..Asked::get(address) };
    let told = Change { action: Action::KvRemoveStore, object: name, by: caller.author };
    change(calls, store, tenant, headers, asked, told).await
}

/// The value of a key
///
/// As the bytes that were stored. The header `x-hearth-expires` says when it is gone, where it will
/// be.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/kv/{store}/{key}", operation_id = "get_key",
    tag = "state", params(KeyParams),
    responses((status = 200, description = "The value", body = Vec<u8>, content_type = "application/octet-stream")),
)]
pub async fn get_key(
    at: AtTenant,
    AtKey(store, key): AtKey,
    State(calls): State<Calls>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (tenant, _) = at.permit(Scope::Owner)?;
    let asked = Asked::get(StateAddress::Entry { store, key });
    ask(&calls, &tenant, &headers, asked, BYTES).await
}

/// Set the value of a key
///
/// The body is the value, whatever content type it says. Answered once it is durable.
#[utoipa::path(
    put, path = "/api/v1/tenants/{tenant}/kv/{store}/{key}", operation_id = "set_key",
    tag = "state", params(KeyParams, SetParams),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 204, description = "It is there"),
        (status = 507, description = "The tenant has as much on disk as it may", body = ProblemSchema, content_type = "application/problem+json"),
    ),
)]
pub async fn set_key(
    at: AtTenant,
    AtKey(name, key): AtKey,
    Params(SetParams { expires_at }): Params<SetParams>,
    State(calls): State<Calls>,
    State(store): State<Store>,
    request: Request,
) -> Result<Response, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    refuse_packed(request.headers())?;
    let (head, body) = request.into_parts();
    let asked = Asked {
        method: Method::PUT,
        address: StateAddress::Entry { store: name.clone(), key },
        query: expires_query(expires_at),
        body,
    };
    let told = Change { action: Action::KvSet, object: name, by: caller.author };
    change(calls, store, tenant, head.headers, asked, told).await
}

/// Remove a key
#[utoipa::path(
    delete, path = "/api/v1/tenants/{tenant}/kv/{store}/{key}", operation_id = "remove_key",
    tag = "state", params(KeyParams),
    responses((status = 204, description = "It is gone, or was not there")),
)]
pub async fn remove_key(
    at: AtTenant,
    AtKey(name, key): AtKey,
    State(calls): State<Calls>,
    State(store): State<Store>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    let address = StateAddress::Entry { store: name.clone(), key };
    let asked = Asked { method: Method::DELETE, ..Asked::get(address) };
    let told = Change { action: Action::KvRemove, object: name, by: caller.author };
    change(calls, store, tenant, headers, asked, told).await
}

#[cfg(test)]
mod tests {
    use hearth_wire::{KeyList, StateNamed, StoreList};
    use utoipa::PartialSchema;

    use super::super::openapi::tests::{keys, properties};
    use super::*;

    #[test]
    fn lists_are_described_as_they_are_sent() {
        let next = Some(String::new());
        let stores = StoreList { stores: vec![], next: next.clone() };
        assert_eq!(properties(StoreListSchema::schema()), keys(stores));
        assert_eq!(properties(KeyListSchema::schema()), keys(KeyList { keys: vec![], next }));
        let named = StateNamed { name: String::new() };
        assert_eq!(properties(NamedSchema::schema()), keys(named));
    }
}
