//! `/tenants/{tenant}/functions`: what a tenant serves, and each function's versions.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use hearth_wire::{
    Code, FunctionPath, FunctionVersion, HandlerKind, Limits, ModuleDigest, Options, OptionsPatch,
    Origin, Scope, Wanted,
};
use http::{HeaderMap, Method, Uri};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::auth::AtTenant;
use super::error::Refusal;
use super::openapi::{
    FunctionParams, HandlerKindSchema, OptionsPatchSchema, OptionsSchema, TenantParam,
    function_path, function_version, function_version_or_null, sha256, wanted_or_null,
};
use super::request::{Named, OptionalBody, OptionsBody, Params};
use crate::gateway::proxy;
use crate::generations::{self, Generations, Served};
use crate::invoke::{Call, Calls};
use crate::store::{Store, Tenant};
use crate::upload::{Switched, Uploaded, Uploads};

/// A function, as its active version is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Function)]
pub struct FunctionInfo {
    #[schema(schema_with = function_path)]
    pub path: FunctionPath,
    #[schema(schema_with = function_version)]
    pub version: FunctionVersion,
    #[schema(schema_with = sha256)]
    pub sha256: ModuleDigest,
    /// Bytes of the module, unpacked.
    pub size: u64,
    /// Bytes that it takes on disk.
    pub stored: u64,
    #[schema(value_type = HandlerKindSchema)]
    pub kind: HandlerKind,
    pub imports: Vec<String>,
    #[schema(value_type = OptionsSchema)]
    pub options: Options,
    pub layers: OptionLayers,
    /// Comes with Hearth, and was not uploaded: a new build of Hearth brings its own.
    pub bundled: bool,
    /// The host's disk has changed its module: it is out of service until that is uploaded again.
    pub damaged: bool,
    /// Null where it comes with Hearth.
    pub created_at: Option<Timestamp>,
}

/// Where a function's options come from; each goes over the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OptionLayers {
    /// By the module.
    #[schema(value_type = OptionsPatchSchema)]
    pub declared: OptionsPatch,
    /// With the upload of the active version, or by Hearth where it comes with it.
    #[schema(value_type = OptionsPatchSchema)]
    pub uploaded: OptionsPatch,
    /// Since then, whichever version is active.
    #[schema(value_type = OptionsPatchSchema)]
    pub set: OptionsPatch,
}

/// What is set goes over what module and upload say; null takes it away again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OptionChanges {
    #[schema(value_type = Object, example = json!({"auth": "invoke", "timeout_ms": null}))]
    pub options: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FunctionList {
    pub functions: Vec<FunctionInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Version)]
pub struct VersionInfo {
    #[schema(schema_with = function_version)]
    pub version: FunctionVersion,
    #[schema(schema_with = sha256)]
    pub sha256: ModuleDigest,
    pub size: u64,
    pub stored: u64,
    pub active: bool,
    /// Comes with Hearth.
    pub bundled: bool,
    /// The host's disk has changed its module.
    pub damaged: bool,
    #[schema(value_type = OptionsSchema)]
    pub options: Options,
    /// Null where it comes with Hearth.
    pub created_at: Option<Timestamp>,
    pub created_by: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionList {
    #[schema(schema_with = function_path)]
    pub path: FunctionPath,
    /// Null where the function was removed; its versions are kept for a while.
    #[schema(schema_with = function_version_or_null)]
    pub active: Option<FunctionVersion>,
    /// Newest first; what comes with Hearth last.
    pub versions: Vec<VersionInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Where it is missing, the version before the active one, or what was removed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = wanted_or_null)]
    pub version: Option<Wanted>,
}

/// An upload, as `multipart/form-data`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive only")]
struct UploadForm {
    /// One or more parts, each with a file name `NAME.wasm` or `NAME.wasm.zst`.
    #[schema(value_type = Vec<String>, format = Binary)]
    file: (),
    /// JSON: the options of the one file, or an object from file name to options.
    options: Option<String>,
    /// `true` refuses, with 409, what imports more than what serves at its path now: where nothing
    /// does, whatever it imports.
    same_imports: Option<bool>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct UploadParams {
    /// The directory below which the functions are put.
    #[param(example = "jobs")]
    dir: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct InvokeParams {
    /// The method that the function is called with; POST if it is missing.
    #[param(example = "GET")]
    method: Option<String>,
    /// What follows the function's path in the call's address: a path below it, a query, or both.
    #[param(example = "/items/3?page=2")]
    below: Option<String>,
}

fn function(served: Served, limits: &Limits, generations: &Generations) -> FunctionInfo {
    let options = served.options().resolve().within(limits);
    let damaged = is_damaged(&served, generations);
    let bundled = served.is_bundled();
    let Served {
        path,
        version,
        sha256,
        size,
        stored,
        kind,
        imports,
        declared,
        uploaded,
        set,
        yields: _,
        created_at,
        created_by: _,
    } = served;
    FunctionInfo {
        path,
        version,
        sha256,
        size,
        stored,
        kind,
        imports,
        options,
        layers: OptionLayers { declared, uploaded, set },
        bundled,
        damaged,
        created_at,
    }
}

fn version(
    served: Served,
    active: Option<&FunctionVersion>,
    limits: &Limits,
    generations: &Generations,
) -> VersionInfo {
    let options = served.options().resolve().within(limits);
    let damaged = is_damaged(&served, generations);
    let bundled = served.is_bundled();
    let Served {
        path: _,
        version,
        sha256,
        size,
        stored,
        kind: _,
        imports: _,
        declared: _,
        uploaded: _,
        set: _,
        yields: _,
        created_at,
        created_by,
    } = served;
    VersionInfo {
        active: active == Some(&version),
        version,
        sha256,
        size,
        stored,
        bundled,
        damaged,
        options,
        created_at,
        created_by,
    }
}

/// What comes with Hearth is made from Hearth itself at each start.
fn is_damaged(served: &Served, generations: &Generations) -> bool {
    !served.is_bundled() && generations.is_damaged(served.sha256)
}

fn no_function(path: &FunctionPath) -> Refusal {
    Refusal::new(Code::NotFound, format!("there is no function at {path}"))
}

/// What the tenant serves
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/functions", operation_id = "list_functions",
    tag = "functions", params(TenantParam),
    responses((status = 200, description = "By path", body = FunctionList)),
)]
pub async fn list_functions(
    at: AtTenant,
    State(store): State<Store>,
    State(generations): State<Generations>,
) -> Result<Json<FunctionList>, Refusal> {
    let (tenant, _) = at.permit(Scope::Deploy)?;
    let (served, limits) = (serves(&store, &generations, &tenant).await?, tenant.limits());
    let functions = served.into_iter().map(|it| function(it, &limits, &generations)).collect();
    Ok(Json(FunctionList { functions }))
}

/// Upload functions
///
/// All of them go live together, or none does. Answered once they serve.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant}/functions", operation_id = "upload", tag = "functions",
    params(TenantParam, UploadParams),
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "The new generation serves", body = Uploaded)),
)]
pub async fn upload(
    at: AtTenant,
    Params(UploadParams { dir }): Params<UploadParams>,
    State(uploads): State<Uploads>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Uploaded>, Refusal> {
    let (tenant, caller) = at.permit(Scope::Deploy)?;
    let dir = dir.map(|dir| dir.parse()).transpose();
    let dir = dir.map_err(|error: hearth_wire::NameError| {
        Refusal::new(Code::InvalidPath, error.to_string())
    })?;
    Ok(Json(uploads.receive(&tenant, dir, &headers, body, &caller.author).await?))
}

/// One function, as its active version is
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/functions/{path}", operation_id = "get_function",
    tag = "functions", params(FunctionParams),
    responses((status = 200, description = "The function", body = FunctionInfo)),
)]
pub async fn get_function(
    at: AtTenant,
    Named(path): Named,
    State(store): State<Store>,
    State(generations): State<Generations>,
) -> Result<Json<FunctionInfo>, Refusal> {
    let (tenant, _) = at.permit(Scope::Deploy)?;
    active((&store, &generations), &tenant, &path).await.map(Json)
}

/// What the tenant serves: its own over what comes with this build.
async fn serves(
    store: &Store,
    generations: &Generations,
    tenant: &Tenant,
) -> Result<Vec<Served>, Refusal> {
    Ok(generations.bundle().beneath(&store.own_functions(tenant.id).await?))
}

/// Names that differ in case alone are of one function.
async fn active(
    (store, generations): (&Store, &Generations),
    tenant: &Tenant,
    path: &FunctionPath,
) -> Result<FunctionInfo, Refusal> {
    let served = serves(store, generations, tenant).await?;
    let found = generations::one(&served, path).ok_or_else(|| no_function(path))?;
    Ok(function(found.clone(), &tenant.limits(), generations))
}

/// Set options of a function
///
/// They go over what its module and its upload say, and stay through uploads and rollbacks.
/// Answered once they are in force.
#[utoipa::path(
    patch, path = "/api/v1/tenants/{tenant}/functions/{path}", operation_id = "set_options",
    tag = "functions", params(FunctionParams), request_body = OptionChanges,
    responses((status = 200, description = "The function", body = FunctionInfo)),
)]
pub async fn set_options(
    at: AtTenant,
    Named(path): Named,
    State(store): State<Store>,
    State(generations): State<Generations>,
    State(uploads): State<Uploads>,
    OptionsBody(OptionChanges { options }): OptionsBody<OptionChanges>,
) -> Result<Json<FunctionInfo>, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    uploads.set_options(&tenant, &path, options, &caller.author).await?;
    active((&store, &generations), &tenant, &path).await.map(Json)
}

/// Take a function away
///
/// For the tenant's owner. Its versions are kept for a while, so that it can be rolled back. Where
/// Hearth brings a function at that path, that serves again; to remove that one lasts, until it is
/// rolled back to.
#[utoipa::path(
    delete, path = "/api/v1/tenants/{tenant}/functions/{path}", operation_id = "remove_function",
    tag = "functions", params(FunctionParams),
    responses((status = 200, description = "The generation without it serves", body = Switched)),
)]
pub async fn remove_function(
    at: AtTenant,
    Named(path): Named,
    State(uploads): State<Uploads>,
) -> Result<Json<Switched>, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    Ok(Json(uploads.remove(&tenant, &path, &caller.author).await?))
}

/// The versions of a function that are kept
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/functions/{path}/versions",
    operation_id = "list_versions", tag = "functions", params(FunctionParams),
    responses((status = 200, description = "Newest first", body = VersionList)),
)]
pub async fn list_versions(
    at: AtTenant,
    Named(path): Named,
    State(store): State<Store>,
    State(generations): State<Generations>,
) -> Result<Json<VersionList>, Refusal> {
    let (tenant, _) = at.permit(Scope::Deploy)?;
    let (row, limits) = (store.function(tenant.id, &path).await?, tenant.limits());
    let served = serves(&store, &generations, &tenant).await?;
    let active = generations::one(&served, &path).map(|function| &function.version);
    let bundled = generations.bundle().find(&path);
    let kept = match (&row, &bundled) {
        (Some(row), _) => row.path.clone(),
        (None, Some(bundled)) => bundled.path.clone(),
        (None, None) => return Err(no_function(&path)),
    };
    // What was set goes over each of them.
    let bundled = bundled
        .map(|bundled| Served { set: row.map(|row| row.set).unwrap_or_default(), ..bundled });
    let own = store.versions(tenant.id, &path).await?.into_iter().map(Served::from);
    let versions = own.chain(bundled).map(|it| version(it, active, &limits, &generations));
    Ok(Json(VersionList { path: kept, versions: versions.collect(), active: active.cloned() }))
}

/// Make another version the active one
///
/// Or what comes with Hearth, with `"version": "bundled"`, which takes back that it was removed as
/// well.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant}/functions/{path}/rollback", operation_id = "rollback",
    tag = "functions", params(FunctionParams), request_body = Option<Rollback>,
    responses((status = 200, description = "The generation with it serves", body = Switched)),
)]
pub async fn rollback(
    at: AtTenant,
    Named(path): Named,
    State(uploads): State<Uploads>,
    OptionalBody(Rollback { version }): OptionalBody<Rollback>,
) -> Result<Json<Switched>, Refusal> {
    let (tenant, caller) = at.permit(Scope::Deploy)?;
    Ok(Json(uploads.rollback(&tenant, &path, version, &caller.author).await?))
}

/// Call a function
///
/// With all headers of the request that are not the API's own, such as `authorization` and
/// `cookie`; the function is told the token's name and scope. A function whose option `auth` asks
/// for a scope needs a token that covers it here as well, and one with `internal` the owner's.
/// What it answers comes back as it is, but for headers that speak for this origin.
/// The path is a function's own, or below that of one whose `path` is `prefix` or `root`.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant}/functions/{path}/invoke", operation_id = "invoke",
    tag = "functions", params(FunctionParams, InvokeParams),
    request_body(description = "Whatever the function takes", content_type = "*/*"),
    responses((status = "default", description = "What the function answered, or a problem")),
)]
pub async fn invoke(
    at: AtTenant,
    Named(path): Named,
    Params(InvokeParams { method, below }): Params<InvokeParams>,
    State(store): State<Store>,
    State(generations): State<Generations>,
    State(calls): State<Calls>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let (tenant, caller) = at.permit(Scope::Invoke)?;
    *request.method_mut() = match method.as_deref() {
        None => Method::POST,
        // With its answer there would be a connection to hand on.
        Some("CONNECT") => return Err(no_method()),
        Some(method) => method.parse().map_err(|_| no_method())?,
    };
    let path = called(serves(&store, &generations, &tenant).await?, path)?;
    *request.uri_mut() = address(&path, below.as_deref().unwrap_or_default())?;
    let call = Call {
        tenant: &tenant.name,
        origin: Origin::Api,
        by: caller.name(),
        scope: Some(caller.scope),
        request,
    };
    // It answers on the platform's own origin, like an answer by path.
    Ok(proxy::foreign(calls.invoke(call).await))
}

fn address(path: &FunctionPath, below: &str) -> Result<Uri, Refusal> {
    // What is read of an address ends at a `#`, without a word.
    let follows = below.is_empty() || (below.starts_with(['/', '?']) && !below.contains('#'));
    let follows = follows && below.is_ascii();
    let address = follows.then(|| format!("{path}{below}").parse().ok()).flatten();
    address.ok_or_else(|| {
        let detail = "`below` is not what can follow a function's path: it begins with `/` or `?`, \
                      and is percent-encoded as in an address";
        Refusal::new(Code::BadRequest, detail)
    })
}

fn no_method() -> Refusal {
    Refusal::new(Code::BadRequest, "`method` is not a method that a function can be called with")
}

/// What is called by this name. Whoever names a function means that one, and not what answers where
/// there is no other.
fn called(served: Vec<Served>, path: FunctionPath) -> Result<FunctionPath, Refusal> {
    if let Some(function) = generations::one(&served, &path) {
        return Ok(function.path.clone());
    }
    let is_above = |function: &Served| {
        let below = path.as_str().strip_prefix(function.path.as_str());
        below.is_some_and(|rest| rest.starts_with('/'))
            && function.options().resolve().path.takes_below()
    };
    if served.iter().any(is_above) { Ok(path) } else { Err(no_function(&path)) }
}
