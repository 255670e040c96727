//! Who calls, and whether they may.
//!
//! A token of the host (admin) may do everything. A tenant's token may do what its scope covers,
//! for its own tenant; of any other name it learns nothing, not even whether there is such a
//! tenant. What a token's scope lets a caller of a function do is checked by the worker.

use axum::Json;
use axum::extract::{FromRef, FromRequestParts, State};
use hearth_connection::credentials;
use hearth_wire::{Code, Problem, RequestId, Scope, TenantName, TokenDigest};
use http::HeaderMap;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::Refusal;
use super::lease::{self, Lease};
use super::openapi::{ScopeSchema, tenant_name_or_null};
use super::request::segments;
use crate::actor::{Actor, Author};
use crate::problem;
use crate::refusal::request_id;
use crate::store::{Store, StoreError, Tenant, TenantId, TokenRow};

/// Whose token came with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub author: Author,
    pub scope: Scope,
    /// `None`: the host's.
    pub tenant: Option<TenantId>,
}

impl Caller {
    /// The token's.
    pub fn name(&self) -> &str {
        self.author.actor.name()
    }

    /// `None` for a token of the host.
    pub(super) async fn own_tenant(&self, store: &Store) -> Result<Option<Tenant>, StoreError> {
        let Some(id) = self.tenant else { return Ok(None) };
        // A tenant's tokens go with it, so that this was removed in between.
        store.tenant_by_id(id).await?.ok_or(StoreError::Missing("tenant")).map(Some)
    }
}

/// Whoever the headers' token belongs to, as the author of what this request asks for, and how long
/// that holds; nobody without one is let further.
pub async fn authenticate(
    store: &Store,
    headers: &HeaderMap,
    request_id: RequestId,
) -> Result<(Caller, Lease), Problem> {
    let Some(token) = credentials::token(headers) else {
        let detail = "send a token: `Authorization: Bearer TOKEN`";
        return Err(Problem::new(Code::Unauthenticated, detail));
    };
    // Before it is looked for, so that its end is missed in no case.
    let removed = store.removed();
    match store.token_by_digest(TokenDigest::of(&token)).await {
        Ok(Some(TokenRow { id, tenant, name, scope, expires_at, .. })) => {
            let author = Author { actor: Actor::Token { id, name }, request_id: Some(request_id) };
            Ok((Caller { author, scope, tenant }, Lease::new(id, expires_at, removed)))
        }
        Ok(None) => {
            let detail = "this token is not known here, was revoked or has expired";
            Err(Problem::new(Code::Unauthenticated, detail))
        }
        Err(error) => Err(problem::tell(&error)),
    }
}

/// The whole rule. `tenant` is the one that the address names, if there is one.
fn permit(caller: &Caller, tenant: Option<&Tenant>, needed: Scope) -> Result<(), Refusal> {
    permit_here(caller, tenant)?;
    scope_covers(caller, needed)
}

pub(super) fn permit_here(caller: &Caller, tenant: Option<&Tenant>) -> Result<(), Refusal> {
    match (caller.tenant, tenant) {
        (None, None) => Err(Refusal::new(Code::NotFound, "there is no such tenant")),
        (None, Some(_)) => Ok(()),
        (Some(own), Some(tenant)) if own == tenant.id => Ok(()),
        (Some(_), _) => Err(Refusal::new(Code::Forbidden, "this token is another tenant's")),
    }
}

pub(super) fn scope_covers(caller: &Caller, needed: Scope) -> Result<(), Refusal> {
    if caller.scope.covers(needed) {
        return Ok(());
    }
    let detail = format!("this needs the scope {needed}; this token's scope is {}", caller.scope);
    Err(Refusal::new(Code::Forbidden, detail))
}

impl<S: Sync> FromRequestParts<S> for Caller
where
    Store: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        // That which every request is given on its way in.
        let id = request_id(&parts.headers);
        let (caller, lease) = authenticate(&Store::from_ref(state), &parts.headers, id).await?;
        lease::give(parts, lease);
        Ok(caller)
    }
}

/// A caller with a token of the host.
pub struct Admin(pub(crate) Caller);

impl<S: Sync> FromRequestParts<S> for Admin
where
    Store: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let caller = Caller::from_request_parts(parts, state).await?;
        scope_covers(&caller, Scope::Admin)?;
        Ok(Self(caller))
    }
}

/// A caller and the tenant that the address names, which is given out only to those who may.
pub struct AtTenant {
    caller: Caller,
    tenant: Option<Tenant>,
}

impl AtTenant {
    /// Refused without a token whose scope covers `needed`.
    pub fn permit(self, needed: Scope) -> Result<(Tenant, Caller), Refusal> {
        permit(&self.caller, self.tenant.as_ref(), needed)?;
        let tenant = self.tenant.expect("nobody is permitted without a tenant");
        Ok((tenant, self.caller))
    }
}

impl<S: Sync> FromRequestParts<S> for AtTenant
where
    Store: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Segments {
            tenant: String,
        }
        let caller = Caller::from_request_parts(parts, state).await?;
        let Segments { tenant } = segments(parts).await?;
        let tenant = match tenant.parse::<TenantName>() {
            Ok(name) => Store::from_ref(state).tenant(&name).await?,
            Err(_) => None,
        };
        // Before anything of the request is parsed, a stranger learns that it is one.
        permit_here(&caller, tenant.as_ref())?;
        Ok(Self { caller, tenant })
    }
}

/// Whom the token that was sent belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// The token's name.
    pub name: String,
    #[schema(value_type = ScopeSchema)]
    pub scope: Scope,
    /// Null for a token of the host.
    #[schema(schema_with = tenant_name_or_null)]
    pub tenant: Option<TenantName>,
}

/// Whom this token belongs to
#[utoipa::path(
    get, path = "/api/v1/whoami", operation_id = "whoami", tag = "tokens",
    responses((status = 200, description = "The token's name, scope and tenant", body = Whoami)),
)]
pub async fn whoami(caller: Caller, State(store): State<Store>) -> Result<Json<Whoami>, Refusal> {
    let tenant = caller.own_tenant(&store).await?.map(|tenant| tenant.name);
    Ok(Json(Whoami { name: caller.name().to_owned(), scope: caller.scope, tenant }))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::AUTHORIZATION;
    use jiff::Timestamp;

    use hearth_wire::GenerationNumber;

    use super::*;

    fn headers(authorization: &str) -> HeaderMap {
        let value = HeaderValue::from_str(authorization).unwrap();
        HeaderMap::from_iter([(AUTHORIZATION, value)])
    }

    fn tenant(id: i64) -> Tenant {
        Tenant {
            id: TenantId(id),
            name: format!("t{id}").parse().unwrap(),
            port: 4_000,
            generation: GenerationNumber(1),
            limits: Default::default(),
            uid: None,
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    /// Every scope, for one's own tenant, another's and none, whatever is needed.
    #[test]
    fn who_may_do_what() {
        use Scope::{Admin, Deploy, Invoke, Owner, Report};
        let own = tenant(1);
        let other = tenant(2);
        for (scope, covered) in [
            (Admin, &[Admin, Owner, Deploy, Invoke, Report][..]),
            (Owner, &[Owner, Deploy, Invoke, Report]),
            (Deploy, &[Deploy]),
            (Invoke, &[Invoke]),
            (Report, &[Report]),
        ] {
            let tenant = (scope != Admin).then_some(own.id);
            let caller = Caller { author: Author::host(), scope, tenant };
            for needed in Scope::ALL {
                let told = |tenant: Option<&Tenant>| {
                    permit(&caller, tenant, needed).err().map(|refused| refused.into_problem().code)
                };
                let place = format!("{scope} for {needed}");
                let refused = (!covered.contains(&needed)).then_some(Code::Forbidden);
                assert_eq!(told(Some(&own)), refused, "{place}");
                let (of_another, of_none) = match scope {
                    Admin => (None, Some(Code::NotFound)),
                    Owner | Deploy | Invoke | Report => {
                        (Some(Code::Forbidden), Some(Code::Forbidden))
                    }
                };
                assert_eq!(told(Some(&other)), of_another, "{place}, another tenant");
                assert_eq!(told(None), of_none, "{place}, no tenant");
            }
        }
    }

    #[test]
    fn another_tenant_and_none_look_the_same() {
        let (author, scope) = (Author::host(), Scope::Owner);
        let caller = Caller { author, scope, tenant: Some(TenantId(1)) };
        let [other, none] = [Some(tenant(2)), None].map(|tenant| {
            permit(&caller, tenant.as_ref(), Scope::Owner).unwrap_err().into_problem()
        });
        assert_eq!(other, none);
    }

    #[tokio::test]
    async fn only_a_live_token_is_somebody_s() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (row, token) = store
            .create_token(None, "ops".into(), Scope::Admin, None, Author::host())
            .await
            .unwrap();
        let id = || RequestId::from_random([7; 16]);
        let given = headers(&format!("Bearer {token}"));
        let (caller, _) = authenticate(&store, &given, id()).await.unwrap();
        let actor = Actor::Token { id: row.id, name: "ops".into() };
        let author = Author { actor, request_id: Some(id()) };
        assert_eq!(caller, Caller { author, scope: Scope::Admin, tenant: None });

        store.delete_token(None, row.id, Author::host()).await.unwrap();
        for headers in [given, headers("Bearer hearth_x"), HeaderMap::new()] {
            let refused = authenticate(&store, &headers, id()).await.err().unwrap();
            assert_eq!(refused.code, Code::Unauthenticated);
        }
        store.close().await;
        let given = headers("Bearer hearth_x");
        let refused = authenticate(&store, &given, id()).await.err().unwrap();
        assert_eq!(refused.code, Code::WorkerUnavailable);
    }
}
