//! `/audit`: who changed what. The host's admin sees all of it, a tenant's owner what was changed
//! of that tenant, by whomever.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use hearth_wire::{Scope, TenantName};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::auth::{Caller, permit_here, scope_covers};
use super::error::Refusal;
use super::held::HeldBy;
use super::openapi::{ActionSchema, tenant_name_or_null};
use super::request::{self, Params};
use crate::actor::Actor;
use crate::store::{Action, AuditPage as Found, AuditQuery, AuditRow, Store, Whose};

const LIMIT_DEFAULT: usize = 100;

/// By what a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    Token,
    /// The host itself: its first start, its settings.
    Host,
    /// The command line, while no host ran.
    CommandLine,
}

/// Who made a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Actor)]
pub struct ActorInfo {
    pub kind: ActorKind,
    /// The token's, which no other is ever given; null where it was no token.
    pub id: Option<i64>,
    /// What the token was called then.
    pub name: String,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    pub id: u64,
    pub time: Timestamp,
    pub actor: ActorInfo,
    /// The tenant that was changed, which may be no more; null for the host itself.
    #[schema(schema_with = tenant_name_or_null)]
    pub tenant: Option<TenantName>,
    #[schema(value_type = ActionSchema)]
    pub action: String,
    /// What of it: a function's path, a token's id, the name of a store or a database. Null where that is no one thing.
    pub object: Option<String>,
    /// What was other before the change. What is large is left out: `{"left_out_bytes": 20000}` is
    /// in its place.
    #[schema(value_type = Option<Object>)]
    pub before: Option<Map<String, Value>>,
    /// The same after it.
    #[schema(value_type = Option<Object>)]
    pub after: Option<Map<String, Value>>,
    /// The `x-request-id` of the request that asked for it.
    pub request_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// Oldest first.
    pub entries: Vec<AuditEntry>,
    /// The `before` of the page of older ones, where there could be any.
    pub next: Option<u64>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditParams {
    /// Only changes of this tenant; for an admin also of earlier ones of that name.
    #[param(value_type = Option<String>)]
    tenant: Option<TenantName>,
    /// Only changes of this kind.
    #[serde(default, deserialize_with = "action")]
    #[param(value_type = Option<ActionSchema>)]
    action: Option<Action>,
    /// Only changes with smaller ids.
    before: Option<u64>,
    /// The newest so many: 100, if it is missing. A page has fewer where these are large, and says
    /// with `next` how it goes on.
    #[param(maximum = 1_000)]
    limit: Option<usize>,
}

fn action<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Action>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn entry(row: AuditRow) -> AuditEntry {
    let AuditRow { id, at, actor, tenant, action, object, before, after, request_id } = row;
    let (kind, token) = match actor {
        Actor::Token { id, .. } => (ActorKind::Token, Some(id)),
        Actor::Host => (ActorKind::Host, None),
        Actor::CommandLine => (ActorKind::CommandLine, None),
    };
    AuditEntry {
        id,
        time: at,
        actor: ActorInfo { kind, id: token, name: actor.name().to_owned() },
        tenant,
        action: action.as_str().to_owned(),
        object,
        before,
        after,
        request_id: request_id.map(|id| id.to_string()),
    }
}

/// Who changed what
///
/// For the host's admin all of it; for a tenant's owner what was changed of that tenant.
#[utoipa::path(
    get, path = "/api/v1/audit", operation_id = "list_audit", tag = "audit", params(AuditParams),
    responses((status = 200, description = "A page of changes", body = AuditPage)),
)]
pub async fn list_audit(
    caller: Caller,
    Params(params): Params<AuditParams>,
    State(store): State<Store>,
) -> Result<Response, Refusal> {
    let AuditParams { tenant: named, action, before, limit } = params;
    scope_covers(&caller, Scope::Owner)?;
    let limit = request::limit(limit, LIMIT_DEFAULT)?;
    let own = caller.own_tenant(&store).await?;
    let whose = match (&own, named) {
        (None, None) => Whose::Everybodys,
        (None, Some(name)) => Whose::Named(name),
        (Some(own), named) => {
            if named.is_some_and(|name| name != own.name) {
                // Whether there is one is not this caller's to know.
                permit_here(&caller, None)?;
            }
            Whose::Tenant(own.id)
        }
    };
    let Found { rows, more } = store.audit(AuditQuery { whose, action, before, limit }).await?;
    let next = rows.first().filter(|_| more).map(|oldest| oldest.id);
    let page = Json(AuditPage { entries: rows.into_iter().map(entry).collect(), next });
    Ok(match own {
        Some(own) => (Extension(HeldBy(own.name)), page).into_response(),
        None => page.into_response(),
    })
}
