//! The management API: every route, and the OpenAPI document that is made from them. The command
//! line and whatever comes later use nothing else.
//!
//! Says who may do what (`auth.rs`) and what things look like from outside; doing them is for the
//! store, the fleet, uploads, calls and provisioning. The front door decides which requests
//! come here; tenants' own addresses are not served here.

pub mod audit;
pub mod auth;
pub mod backup;
pub mod error;
pub mod functions;
pub mod generations;
pub mod health;
mod held;
mod kv;
pub mod lease;
pub mod limits;
pub mod logs;
pub mod openapi;
mod pages;
mod request;
pub mod settings;
mod sql;
mod state;
pub mod tenants;
pub mod tokens;
mod worker;

use axum::extract::FromRef;
use axum::routing::get;
use axum::{Extension, Router, middleware};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::backup::Backups;
use crate::fleet::Fleet;
use crate::generations::Generations;
use crate::invoke::Calls;
use crate::logs::Logs;
use crate::provision::Provision;
use crate::settings::Settings;
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::token_push::TokenPush;
use crate::upload::Uploads;

/// What stands behind the API. Each handler takes the one or two parts that it needs.
#[derive(Clone)]
pub struct Api {
    pub store: Store,
    pub fleet: Fleet,
    pub uploads: Uploads,
    pub calls: Calls,
    pub generations: Generations,
    pub provision: Provision,
    pub settings: Settings,
    pub logs: Logs,
    pub telemetry: Telemetry,
    pub backups: Backups,
    /// Cancelled when the host goes down: it is not ready any more.
    pub stop: CancellationToken,
}

#[derive(Clone)]
struct State {
    api: Api,
    push: TokenPush,
}

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
    calls: Calls,
    generations: Generations,
    provision: Provision,
    settings: Settings,
    logs: Logs,
    telemetry: Telemetry,
    backups: Backups,
}

impl FromRef<State> for health::Stopping {
    fn from_ref(state: &State) -> Self {
        Self(state.api.stop.clone())
    }
}

impl FromRef<State> for TokenPush {
    fn from_ref(state: &State) -> Self {
        state.push.clone()
    }
}

pub fn router(api: Api) -> Router {
    let push = TokenPush::new(api.store.clone(), api.fleet.clone());
    let (router, document) = routes();
    router
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(Extension(openapi::Rendered::new(&document)))
        .layer(middleware::from_fn(error::identify))
        .with_state(State { api, push })
}

/// Everything that is served here, and the document of it.
fn routes() -> (Router<State>, OpenApi) {
    let (router, mut document) = described().split_for_parts();
    openapi::add_problems(&mut document);
    let router = router
        .route("/", get(pages::front))
        .route("/api/docs", get(pages::to_reader))
        .route("/api/docs/", get(pages::reader_index))
        .route("/api/docs/{*file}", get(pages::reader));
    (router, document)
}

/// Everything but the pages for people.
fn described() -> OpenApiRouter<State> {
    OpenApiRouter::with_openapi(openapi::blank())
        .routes(routes!(auth::whoami))
        .routes(routes!(tenants::create_tenant, tenants::list_tenants))
        .routes(routes!(tenants::get_tenant, tenants::delete_tenant))
        .routes(routes!(functions::list_functions, functions::upload))
        .routes(routes!(
            functions::get_function,
            functions::set_options,
            functions::remove_function
        ))
        .routes(routes!(functions::list_versions))
        .routes(routes!(functions::rollback))
        .routes(routes!(generations::list_generations))
        .routes(routes!(generations::return_to_generation))
        .routes(routes!(limits::list_limits, limits::set_limits))
        .routes(routes!(settings::list_config, settings::set_config))
        .routes(routes!(settings::list_secrets, settings::set_secrets))
        .routes(routes!(settings::rekey_secrets))
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
        .routes(routes!(audit::list_audit))
        .routes(routes!(backup::restore))
        .routes(routes!(health::metrics))
        .route_layer(middleware::from_fn_with_state(held::Held::default(), held::bound))
        // Those that follow answer with next to nothing, or with what the primary does not hold.
        .routes(routes!(functions::invoke))
        .routes(routes!(backup::backup))
        .routes(routes!(backup::backup_tenant))
        .routes(routes!(kv::list_stores))
        .routes(routes!(kv::list_keys, kv::remove_store))
        .routes(routes!(kv::get_key, kv::set_key, kv::remove_key))
        .routes(routes!(sql::list_databases))
        .routes(routes!(sql::execute_sql))
        .routes(routes!(sql::import_sql))
        .routes(routes!(sql::export_sql))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(openapi::openapi))
        .route_layer(middleware::from_fn(lease::hold))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    const OPERATIONS: &str = "\
GET    /api/openapi.json openapi
GET    /api/v1/audit list_audit
GET    /api/v1/backup backup
POST   /api/v1/restore restore
POST   /api/v1/secrets/rekey rekey_secrets
GET    /api/v1/tenants list_tenants
POST   /api/v1/tenants create_tenant
GET    /api/v1/tenants/{tenant} get_tenant
DELETE /api/v1/tenants/{tenant} delete_tenant
GET    /api/v1/tenants/{tenant}/backup backup_tenant
GET    /api/v1/tenants/{tenant}/calls list_calls
GET    /api/v1/tenants/{tenant}/config list_config
PATCH  /api/v1/tenants/{tenant}/config set_config
GET    /api/v1/tenants/{tenant}/functions list_functions
POST   /api/v1/tenants/{tenant}/functions upload
GET    /api/v1/tenants/{tenant}/functions/{path} get_function
PATCH  /api/v1/tenants/{tenant}/functions/{path} set_options
DELETE /api/v1/tenants/{tenant}/functions/{path} remove_function
POST   /api/v1/tenants/{tenant}/functions/{path}/invoke invoke
POST   /api/v1/tenants/{tenant}/functions/{path}/rollback rollback
GET    /api/v1/tenants/{tenant}/functions/{path}/versions list_versions
GET    /api/v1/tenants/{tenant}/generations list_generations
GET    /api/v1/tenants/{tenant}/kv list_stores
GET    /api/v1/tenants/{tenant}/kv/{store} list_keys
DELETE /api/v1/tenants/{tenant}/kv/{store} remove_store
GET    /api/v1/tenants/{tenant}/kv/{store}/{key} get_key
PUT    /api/v1/tenants/{tenant}/kv/{store}/{key} set_key
DELETE /api/v1/tenants/{tenant}/kv/{store}/{key} remove_key
GET    /api/v1/tenants/{tenant}/limits list_limits
PATCH  /api/v1/tenants/{tenant}/limits set_limits
GET    /api/v1/tenants/{tenant}/logs list_lines
POST   /api/v1/tenants/{tenant}/rollback return_to_generation
GET    /api/v1/tenants/{tenant}/secrets list_secrets
PATCH  /api/v1/tenants/{tenant}/secrets set_secrets
GET    /api/v1/tenants/{tenant}/sql list_databases
POST   /api/v1/tenants/{tenant}/sql/{database} execute_sql
GET    /api/v1/tenants/{tenant}/sql/{database}/export export_sql
POST   /api/v1/tenants/{tenant}/sql/{database}/import import_sql
GET    /api/v1/tenants/{tenant}/tokens list_tokens
POST   /api/v1/tenants/{tenant}/tokens create_token
DELETE /api/v1/tenants/{tenant}/tokens/{id} delete_token
GET    /api/v1/tenants/{tenant}/worker get_worker
POST   /api/v1/tenants/{tenant}/worker/restart restart_worker
POST   /api/v1/tenants/{tenant}/worker/start start_worker
POST   /api/v1/tenants/{tenant}/worker/stop stop_worker
GET    /api/v1/tokens list_admin_tokens
POST   /api/v1/tokens create_admin_token
DELETE /api/v1/tokens/{id} delete_admin_token
GET    /api/v1/whoami whoami
GET    /healthz healthz
GET    /metrics metrics
GET    /readyz readyz
";
    const PAGES: [&str; 4] = ["/", "/api/docs", "/api/docs/", "/api/docs/{*file}"];

    fn document() -> Value {
        serde_json::to_value(routes().1).unwrap()
    }

    fn operations(document: &Value) -> Vec<(String, String, Value)> {
        let mut operations = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in ["get", "post", "put", "patch", "delete"] {
                if let Some(operation) = item.get(method) {
                    operations.push((method.to_uppercase(), path.clone(), operation.clone()));
                }
            }
        }
        operations
    }

    #[test]
    fn the_document_lists_these_operations() {
        let listed: String = operations(&document())
            .iter()
            .map(|(method, path, operation)| {
                format!("{method:<6} {path} {}\n", operation["operationId"].as_str().unwrap())
            })
            .collect();
        assert_eq!(listed, OPERATIONS);
    }

    /// The router shows its paths to `Debug` only.
    #[test]
    fn the_router_serves_what_the_document_lists_and_the_pages() {
        let shown = format!("{:?}", routes().0);
        let served: BTreeSet<&str> = shown
            .split('"')
            .filter(|piece| piece.starts_with('/') && !piece.contains("__private"))
            .collect();
        let document = document();
        let listed = document["paths"].as_object().unwrap().keys().map(String::as_str);
        assert_eq!(served, listed.chain(PAGES).collect::<BTreeSet<_>>());
    }

    #[test]
    fn every_operation_is_summed_up_and_says_how_it_refuses() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
        for (method, path, operation) in operations(&document) {
            let place = format!("{method} {path}");
            let summary = operation["summary"].as_str().unwrap_or_default();
            assert!(!summary.is_empty() && !summary.ends_with('.'), "{place}: {summary:?}");
            let responses = operation["responses"].as_object().unwrap();
            let problem = |status: &str| {
                let schema = "#/components/schemas/Problem";
                let response = &responses[status]["content"]["application/problem+json"];
                assert_eq!(response["schema"]["$ref"], schema, "{place}: {status}");
            };
            if operation.get("security").is_none() {
                problem("401");
                problem("403");
            }
            if path.contains('{') {
                problem("404");
            }
            let named = path.matches('{').count();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let described = parameters
                .filter(|parameter| parameter["in"] == "path" && parameter["required"] == true)
                .count();
            assert_eq!(described, named, "{place}: parameters in the path");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(object) => {
                    found.extend(object.get("$ref").and_then(Value::as_str));
                    object.values().for_each(|value| references(value, found));
                }
                Value::Array(array) => array.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}
