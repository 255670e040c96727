//! `/backup`: everything that the host keeps, as one file; `/tenants/{tenant}/backup`: one tenant.
//! `/restore`: tenants out of either.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hearth_wire::{Code, Scope, TenantName};
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Admin, AtTenant};
use super::error::Refusal;
use super::openapi::{TenantParam, tenant_name};
use super::request::{Params, refuse_packed};
use crate::backup::{Backups, Stream};
use crate::provision::Provision;
use crate::sealing::Key;
use crate::settings::Settings;
use crate::store::{Store, Taking};

/// A backup of the whole host
///
/// A tar, compressed with zstd. It is whole only if its last file is `manifest.json`, with which
/// all others agree; `hearth backup` checks that.
#[utoipa::path(
    get, path = "/api/v1/backup", operation_id = "backup", tag = "host",
    responses(
        (status = 200, description = "The backup, as it is made", body = Vec<u8>, content_type = "application/zstd"),
        (status = 409, description = "Another one is being made", body = super::openapi::ProblemSchema, content_type = "application/problem+json"),
    ),
)]
pub async fn backup(
    Admin(caller): Admin,
    State(backups): State<Backups>,
) -> Result<Response, Refusal> {
    Ok(file("hearth", backups.begin(&caller.author).await?))
}

/// A backup of one tenant
///
/// Of the same form, with that tenant and nothing of anybody else's or of the host's. `hearth restore`
/// takes it as it takes a whole one.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/backup", operation_id = "backup_tenant", tag = "tenants",
    params(TenantParam),
    responses(
        (status = 200, description = "The backup, as it is made", body = Vec<u8>, content_type = "application/zstd"),
    ),
)]
pub async fn backup_tenant(
    at: AtTenant,
    State(backups): State<Backups>,
) -> Result<Response, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    let chunks = backups.begin_one(&tenant, &caller.author).await?;
    Ok(file(tenant.name.as_str(), chunks))
}

fn file(name: &str, chunks: Stream) -> Response {
    let made_at = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let headers = [
        (CONTENT_TYPE, "application/zstd".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}-{made_at}.tar.zst\"")),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    let body = stream::unfold(chunks, |mut chunks| async { Some((chunks.recv().await?, chunks)) });
    (headers, Body::from_stream(body)).into_response()
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RestoreParams {
    /// Only this tenant.
    #[param(value_type = Option<String>)]
    tenant: Option<TenantName>,
    /// Leave secrets out, as where their key is lost.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    without_secrets: bool,
}

/// The key that the backup's secrets are sealed with, in base64, where that is not this host's.
pub const SECRETS_KEY: &str = "x-hearth-secrets-key";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoredTenants {
    pub restored: Vec<RestoredTenant>,
    /// Tenants of the backup that are here, and stay as they are.
    #[schema(value_type = Vec<String>)]
    pub kept: Vec<TenantName>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoredTenant {
    #[schema(schema_with = tenant_name)]
    pub name: TenantName,
    /// The one that it had, or another where something else has that.
    pub port: u16,
    pub url: String,
}

/// Bring tenants back out of a backup
///
/// Those that are not here, or the one that is named; a tenant that is here is never changed.
/// The backup is checked as a whole before anything of it is put to use.
#[utoipa::path(
    post, path = "/api/v1/restore", operation_id = "restore", tag = "host",
    params(
        RestoreParams,
        ("x-hearth-secrets-key" = Option<String>, Header, description = "The key that the backup's secrets are sealed with, in base64, where that is not this host's"),
    ),
    request_body(content = Vec<u8>, content_type = "application/zstd"),
    responses(
        (status = 200, description = "They serve", body = RestoredTenants),
        (status = 400, description = "It is not a complete backup", body = super::openapi::ProblemSchema, content_type = "application/problem+json"),
        (status = 409, description = "The tenant that is named is here, its secrets are sealed with a key that is not, or another backup is on its way", body = super::openapi::ProblemSchema, content_type = "application/problem+json"),
    ),
)]
pub async fn restore(
    Admin(caller): Admin,
    Params(RestoreParams { tenant, without_secrets }): Params<RestoreParams>,
    State(backups): State<Backups>,
    State(provision): State<Provision>,
    State(store): State<Store>,
    State(settings): State<Settings>,
    request: Request,
) -> Result<Json<RestoredTenants>, Refusal> {
    refuse_packed(request.headers())?;
    let key = request.headers().get(SECRETS_KEY).map(|key| {
        let refused = "the key of secrets must be 32 bytes in base64";
        Key::parse(key.as_bytes()).ok_or_else(|| Refusal::new(Code::BadRequest, refused))
    });
    let key = key.transpose()?;
    let staged = backups.stage(request.into_body()).await?;
    let here: Vec<_> = store.tenants().await?.into_iter().map(|tenant| tenant.name).collect();
    let (kept, wanted): (Vec<_>, Vec<_>) = match tenant {
        Some(tenant) => (Vec::new(), vec![tenant]),
        None => staged.contents.tenants.keys().cloned().partition(|name| here.contains(name)),
    };
    let has_secrets = wanted.iter().any(|name| staged.contents.secrets.contains_key(name));
    let secrets = match has_secrets && !without_secrets {
        true => settings.taking(key).await?,
        false => Taking::Without,
    };
    let tenants = provision.take_over(&staged, &wanted, secrets, &caller.author).await?;
    let restored = tenants.into_iter().map(|tenant| {
        let url = provision.url(&tenant);
        RestoredTenant { name: tenant.name, port: tenant.port, url }
    });
    Ok(Json(RestoredTenants { restored: restored.collect(), kept }))
}
