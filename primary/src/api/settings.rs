//! `/tenants/{tenant}/config` and `/tenants/{tenant}/secrets`: what a tenant tells its functions; and
//! `/secrets/rekey`, the host's key for the latter. No answer here ever has the value of a secret.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use hearth_wire::{Scope, SettingKind, SettingName, SettingValue, TenantName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Admin, AtTenant};
use super::error::Refusal;
use super::openapi::TenantParam;
use super::request::{OptionalBody, Params, SettingsBody, limit};
use crate::fleet::Fleet;
use crate::settings::{Rekeyed, Settings};
use crate::store::{Kept, SettingRow, Store};
use crate::upload::Uploads;
use crate::upload::settings::Changed;

const PAGE: usize = 100;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SettingParams {
    /// Only names that come after this one.
    #[param(value_type = Option<String>)]
    after: Option<SettingName>,
    /// So many: 100 if it is missing.
    #[param(maximum = 1_000)]
    limit: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Config)]
pub struct ConfigInfo {
    #[schema(value_type = String)]
    pub name: SettingName,
    pub value: String,
    pub set_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigList {
    /// By name.
    pub config: Vec<ConfigInfo>,
    /// The `after` of the next page, where there is one.
    #[schema(value_type = Option<String>)]
    pub next: Option<SettingName>,
}

/// Values by name; null removes one.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigChanges {
    #[schema(value_type = BTreeMap<String, Option<String>>, example = json!({"region": "eu", "old": null}))]
    pub config: BTreeMap<SettingName, Option<SettingValue>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Secret)]
pub struct SecretInfo {
    #[schema(value_type = String)]
    pub name: SettingName,
    pub set_at: Timestamp,
    /// Whether the host's key opens it. The tenant is not served while there is one that it does not.
    pub opens: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretList {
    /// By name.
    pub secrets: Vec<SecretInfo>,
    /// The `after` of the next page, where there is one.
    #[schema(value_type = Option<String>)]
    pub next: Option<SettingName>,
}

/// Secrets by name; null removes one.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretChanges {
    #[schema(value_type = BTreeMap<String, Option<String>>, example = json!({"API_KEY": "…"}))]
    pub secrets: BTreeMap<SettingName, Option<SettingValue>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettingsChanged {
    /// What is other than it was.
    #[schema(value_type = Vec<String>)]
    pub set: Vec<SettingName>,
    #[schema(value_type = Vec<String>)]
    pub removed: Vec<SettingName>,
    /// Null where a worker serves with that; else why none does.
    pub unserved: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rekey {
    /// Forget secrets that the host's key does not open, rather than refuse.
    #[serde(default)]
    pub forget: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RekeyDone {
    /// How many secrets are sealed with the new key.
    pub secrets: u64,
    /// Tenants of which some were forgotten.
    #[schema(value_type = Vec<String>)]
    pub forgotten: Vec<TenantName>,
}

/// Those of one kind, from there on, and where the next page begins.
fn page(
    rows: Vec<SettingRow>,
    kind: SettingKind,
    SettingParams { after, limit: most }: SettingParams,
) -> Result<(Vec<SettingRow>, Option<SettingName>), Refusal> {
    let most = limit(most, PAGE)?;
    let is_meant = |row: &SettingRow| {
        row.kept.kind() == kind && after.as_ref().is_none_or(|after| row.name > *after)
    };
    let mut rows: Vec<_> = rows.into_iter().filter(is_meant).collect();
    let more = rows.len() > most;
    rows.truncate(most);
    let next = rows.last().filter(|_| more).map(|row| row.name.clone());
    Ok((rows, next))
}

fn told(changed: Changed) -> Json<SettingsChanged> {
    let Changed { set, removed, unserved } = changed;
    Json(SettingsChanged { set, removed, unserved })
}

/// The configuration of a tenant
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/config", operation_id = "list_config", tag = "settings",
    params(TenantParam, SettingParams),
    responses((status = 200, description = "By name", body = ConfigList)),
)]
pub async fn list_config(
    at: AtTenant,
    Params(params): Params<SettingParams>,
    State(store): State<Store>,
) -> Result<Json<ConfigList>, Refusal> {
    let (tenant, _) = at.permit(Scope::Deploy)?;
    let (rows, next) = page(store.settings(tenant.id).await?, SettingKind::Config, params)?;
    let config = rows.into_iter().filter_map(|row| match row.kept {
        Kept::Config(value) => Some(ConfigInfo { name: row.name, value, set_at: row.set_at }),
        Kept::Secret(_) => None,
    });
    Ok(Json(ConfigList { config: config.collect(), next }))
}

/// Set and remove configuration
///
/// All of it or nothing. Answered once a worker serves that goes by it. A name that is a secret
/// already is refused.
#[utoipa::path(
    patch, path = "/api/v1/tenants/{tenant}/config", operation_id = "set_config", tag = "settings",
    params(TenantParam), request_body = ConfigChanges,
    responses(
        (status = 200, description = "It is kept", body = SettingsChanged),
        (status = 409, description = "A name is a secret, or there would be too many", body = super::openapi::ProblemSchema, content_type = "application/problem+json"),
    ),
)]
pub async fn set_config(
    at: AtTenant,
    State(uploads): State<Uploads>,
    SettingsBody(ConfigChanges { config }): SettingsBody<ConfigChanges>,
) -> Result<Json<SettingsChanged>, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    let kind = SettingKind::Config;
    Ok(told(uploads.change_settings(&tenant, kind, config, &caller.author).await?))
}

/// The names of a tenant's secrets
///
/// Nobody can read a secret here, whatever token is shown: functions alone are told it.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/secrets", operation_id = "list_secrets",
    tag = "settings", params(TenantParam, SettingParams),
    responses((status = 200, description = "By name", body = SecretList)),
)]
pub async fn list_secrets(
    at: AtTenant,
    Params(params): Params<SettingParams>,
    State(store): State<Store>,
    State(settings): State<Settings>,
) -> Result<Json<SecretList>, Refusal> {
    let (tenant, _) = at.permit(Scope::Deploy)?;
    let key = settings.key_id().await;
    let (rows, next) = page(store.settings(tenant.id).await?, SettingKind::Secret, params)?;
    let secrets = rows.into_iter().filter_map(|row| match row.kept {
        Kept::Secret(sealed) => {
            let opens = key == Some(sealed.by);
            Some(SecretInfo { name: row.name, set_at: row.set_at, opens })
        }
        Kept::Config(_) => None,
    });
    Ok(Json(SecretList { secrets: secrets.collect(), next }))
}

/// Set and remove secrets
///
/// All of it or nothing. Answered once a worker serves that goes by it. A name that is configuration
/// already is refused.
#[utoipa::path(
    patch, path = "/api/v1/tenants/{tenant}/secrets", operation_id = "set_secrets",
    tag = "settings", params(TenantParam), request_body = SecretChanges,
    responses(
        (status = 200, description = "It is kept, sealed", body = SettingsChanged),
        (status = 409, description = "A name is configuration, or there would be too many", body = super::openapi::ProblemSchema, content_type = "application/problem+json"),
        (status = 503, description = "The host's key that seals secrets cannot be used", body = super::openapi::ProblemSchema, content_type = "application/problem+json"),
    ),
)]
pub async fn set_secrets(
    at: AtTenant,
    State(uploads): State<Uploads>,
    SettingsBody(SecretChanges { secrets }): SettingsBody<SecretChanges>,
) -> Result<Json<SettingsChanged>, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    let kind = SettingKind::Secret;
    Ok(told(uploads.change_settings(&tenant, kind, secrets, &caller.author).await?))
}

/// Make a new key and seal every secret of the host with it
///
/// Nothing is interrupted. Backups from before hold secrets that need the key from before.
#[utoipa::path(
    post, path = "/api/v1/secrets/rekey", operation_id = "rekey_secrets", tag = "settings",
    request_body = Rekey,
    responses(
        (status = 200, description = "The new key is in its file", body = RekeyDone),
        (status = 409, description = "Some secrets cannot be opened, and are not to be forgotten", body = super::openapi::ProblemSchema, content_type = "application/problem+json"),
    ),
)]
pub async fn rekey_secrets(
    Admin(caller): Admin,
    State(settings): State<Settings>,
    State(fleet): State<Fleet>,
    OptionalBody(Rekey { forget }): OptionalBody<Rekey>,
) -> Result<Json<RekeyDone>, Refusal> {
    let Rekeyed { secrets, forgotten } = settings.rekey(caller.author, forget).await?;
    for tenant in &forgotten {
        // It was not served. Where its port is another's, it still is not, and says so itself.
        let _ = fleet.start(tenant).await;
    }
    Ok(Json(RekeyDone { secrets, forgotten }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, kept: Kept) -> SettingRow {
        SettingRow { name: name.parse().unwrap(), kept, set_at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_list_comes_in_pages_and_ends() {
        let names = ["a", "b", "c", "d", "e"];
        let rows: Vec<_> =
            names.iter().map(|name| row(name, Kept::Config((*name).to_owned()))).collect();
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let params = SettingParams { after, limit: Some(2) };
            let (some, next) = page(rows.clone(), SettingKind::Config, params).unwrap();
            assert!(some.len() <= 2);
            seen.extend(some.into_iter().map(|row| row.name.to_string()));
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, names);
        let all = SettingParams { after: None, limit: None };
        let (none, next) = page(rows.clone(), SettingKind::Secret, all).unwrap();
        assert_eq!((none, next), (vec![], None));
        let whole = SettingParams { after: None, limit: Some(5) };
        assert_eq!(page(rows.clone(), SettingKind::Config, whole).unwrap().1, None);
        let none = SettingParams { after: None, limit: Some(0) };
        assert!(page(rows, SettingKind::Config, none).is_err());
    }
}
