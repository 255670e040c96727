//! The management API: every route, and the OpenAPI document that is made from them. The command
//! line and whatever comes later use nothing else.
//!
//! Says who may do what (`auth.rs`) and what things look like from outside; doing them is for the
//! store, the fleet, uploads, the gateway and provisioning. The front door decides which requests
//! come here; tenants' own addresses are not served here.

pub mod auth;
pub mod error;
pub mod functions;
pub mod health;
pub mod logs;
pub mod openapi;
mod pages;
mod request;
pub mod tenants;
pub mod tokens;
mod worker;

use axum::extract::FromRef;
use axum::routing::get;
use axum::{Extension, Router, middleware};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::fleet::Fleet;
use crate::gateway::Gateway;
use crate::logs::Logs;
use crate::provision::Provision;
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::upload::Uploads;

/// What stands behind the API. Each handler takes the one or two parts that it needs.
#[derive(Clone)]
pub struct Api {
    pub store: Store,
    pub fleet: Fleet,
    pub uploads: Uploads,
    pub gateway: Gateway,
    pub provision: Provision,
    pub logs: Logs,
    pub telemetry: Telemetry,
    /// Cancelled when the host goes down: it is not ready any more.
    pub stop: CancellationToken,
}

#[derive(Clone)]
struct State {
    api: Api,
    grants: tokens::Grants,
}

/// Whether the host is going down.
#[derive(Clone)]
struct Stopping(CancellationToken);

macro_rules! parts {
    ($($part:ident: $type:ty),+ $(,)?) => {
        $(impl FromRef<State> for $type {
            fn from_ref(state: &State) -> Self {
                state.api.$part.clone()
            }
        })+
    };
}
parts! {
    store: Store,
    fleet: Fleet,
    uploads: Uploads,
    gateway: Gateway,
    provision: Provision,
    logs: Logs,
    telemetry: Telemetry,
}

impl FromRef<State> for Stopping {
    fn from_ref(state: &State) -> Self {
        Self(state.api.stop.clone())
    }
}

impl FromRef<State> for tokens::Grants {
    fn from_ref(state: &State) -> Self {
        state.grants.clone()
    }
}

pub fn router(api: Api) -> Router {
    let grants = tokens::Grants::new(api.store.clone(), api.fleet.clone());
    let (router, mut document) = described().split_for_parts();
    openapi::add_problems(&mut document);
    router
        .route("/", get(pages::front))
        .route("/api/docs", get(pages::to_reader))
        .route("/api/docs/", get(pages::reader_index))
        .route("/api/docs/{*file}", get(pages::reader))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(Extension(openapi::Rendered::new(&document)))
        .layer(middleware::from_fn(error::identify))
        .with_state(State { api, grants })
}

/// Every route that the document lists.
fn described() -> OpenApiRouter<State> {
    OpenApiRouter::with_openapi(openapi::blank())
        .routes(routes!(auth::whoami))
        .routes(routes!(tenants::create_tenant, tenants::list_tenants))
        .routes(routes!(tenants::get_tenant, tenants::delete_tenant))
        .routes(routes!(functions::list_functions, functions::upload))
        .routes(routes!(functions::get_function, functions::remove_function))
        .routes(routes!(functions::list_versions))
        .routes(routes!(functions::rollback))
        .routes(routes!(functions::invoke))
        .routes(routes!(functions::list_generations))
        .routes(routes!(worker::get_worker))
        .routes(routes!(worker::start_worker))
        .routes(routes!(worker::stop_worker))
        .routes(routes!(worker::restart_worker))
        .routes(routes!(tokens::create_token, tokens::list_tokens))
        .routes(routes!(tokens::delete_token))
        .routes(routes!(tokens::create_admin_token, tokens::list_admin_tokens))
        .routes(routes!(tokens::delete_admin_token))
        .routes(routes!(logs::list_lines))
        .routes(routes!(logs::list_calls))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi::openapi))
}
