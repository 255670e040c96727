//! What the platform answers by itself at a tenant's addresses: `$health`, `$functions`,
//! `$openapi.json`, and `$upload`, which streams to the primary unread.
//!
//! None of them but `$upload` is a call. Where they are found is [`crate::route`]'s.

use std::sync::Arc;

use hearth_wire::{Code, FunctionPath, Manifest, ManifestFunction, PathMatch};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use serde_json::{Map, Value, json};

use crate::connection::Received;
use crate::route::Builtin;
use crate::serve::{Answer, Refusal, Tenant, full, method_refused};

pub async fn answer(
    tenant: &Arc<Tenant>,
    builtin: Builtin,
    request: Request<Received>,
) -> Result<Answer, Refusal> {
    let manifest = &tenant.generation.manifest;
    match builtin {
        Builtin::Health => {
            reads(request.method())?;
            Ok(json_answer(&json!({"status": "ok", "generation": manifest.generation})))
        }
        Builtin::Functions => {
            reads(request.method())?;
            Ok(json_answer(&functions(manifest)))
        }
        Builtin::OpenApi => {
            reads(request.method())?;
            Ok(json_answer(&openapi(manifest)))
        }
        Builtin::Upload { dir } => {
            if request.method() != Method::POST {
                return Err(method_refused("POST"));
            }
            upload(tenant, dir.as_ref(), request).await
        }
    }
}

fn reads(method: &Method) -> Result<(), Refusal> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(method_refused("GET, HEAD")),
    }
}

async fn upload(
    tenant: &Arc<Tenant>,
    dir: Option<&FunctionPath>,
    request: Request<Received>,
) -> Result<Answer, Refusal> {
    // The swap that it causes drains this very worker, which waits for it.
    let counted = tenant.activity.begin();
    let path = format!("{}/$upload", dir.map_or("", FunctionPath::as_str));
    let answered = tenant.door.request(&path, request, counted).await;
    answered.map_err(|error| {
        let detail = "the upload could not be handed to the host; try again";
        eprintln!("hearth-worker: an upload did not go through the door: {error}");
        Refusal::new(Code::WorkerUnavailable, detail)
    })
}

fn json_answer(value: &Value) -> Answer {
    let mut answer = Response::new(full(value.to_string()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn functions(manifest: &Manifest) -> Value {
    let functions: Vec<_> = manifest
        .functions
        .iter()
        .map(|function| {
            let ManifestFunction { path, version, sha256, kind: _, options } = function;
            json!({
                "path": path,
                "version": version,
                "sha256": sha256,
                "methods": options.methods,
                "options": options,
            })
        })
        .collect();
    json!({
        "tenant": manifest.tenant,
        "generation": manifest.generation,
        "functions": functions,
    })
}

fn openapi(manifest: &Manifest) -> Value {
    let mut paths = Map::new();
    for function in &manifest.functions {
        let operations: Map<_, _> = function
            .options
            .methods
            .iter()
            .map(|method| (method.to_lowercase(), operation(function, method)))
            .collect();
        if function.options.path == PathMatch::Prefix {
            let mut below = operations.clone();
            for operation in below.values_mut() {
                let id = operation["operationId"].as_str().map(|id| format!("{id}-below"));
                operation["operationId"] = json!(id);
            }
            below.insert(
                "parameters".to_owned(),
                json!([{
                    "name": "rest",
                    "in": "path",
                    "required": true,
                    "description": "whatever is below the function's path, slashes included",
                    "schema": {"type": "string"},
                }]),
            );
            paths.insert(format!("{}/{{rest}}", function.path), Value::Object(below));
        }
        paths.insert(function.path.to_string(), Value::Object(operations));
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": manifest.tenant, "version": manifest.generation.to_string()},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    })
}

fn operation(function: &ManifestFunction, method: &str) -> Value {
    let mut operation = json!({
        "operationId": format!("{}-{}", method.to_lowercase(), function.path.relative()),
        "responses": {
            "default": {"description": "the function's answer, or a problem of the platform"},
        },
    });
    if !function.options.description.is_empty() {
        operation["description"] = json!(function.options.description);
    }
    if ["POST", "PUT", "PATCH"].contains(&method) {
        operation["requestBody"] = json!({"content": {"*/*": {}}});
    }
    if function.options.auth != hearth_wire::Auth::Public {
        operation["security"] = json!([{"token": []}]);
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_wire::{HandlerKind, ModuleDigest, OptionsPatch};

    fn manifest() -> Manifest {
        let options =
            r#"{"methods":["GET","POST"],"path":"prefix","auth":"invoke","description":"d"}"#;
        Manifest {
            tenant: "demo".parse().unwrap(),
            generation: 3,
            engine: "e".to_owned(),
            functions: vec![ManifestFunction {
                path: "/jobs/nightly".parse().unwrap(),
                version: 2,
                sha256: ModuleDigest::new([0; 32]),
                kind: HandlerKind::IncomingHandler,
                options: OptionsPatch::parse(options).unwrap().resolve(),
            }],
        }
    }

    #[test]
    fn functions_are_listed_with_their_options() {
        let listed = functions(&manifest());
        let function = &listed["functions"][0];
        assert_eq!(listed["generation"], 3);
        assert_eq!(function["path"], "/jobs/nightly");
        assert_eq!(function["version"], 2);
        assert_eq!(function["sha256"], "0".repeat(64));
        assert_eq!(function["methods"], json!(["GET", "POST"]));
        assert_eq!(function["options"]["auth"], "invoke");
    }

    #[test]
    fn the_document_has_each_method_of_each_path() {
        let document = openapi(&manifest());
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.keys().collect::<Vec<_>>(), ["/jobs/nightly", "/jobs/nightly/{rest}"]);
        let post = &paths["/jobs/nightly"]["post"];
        assert_eq!(post["description"], "d");
        assert_eq!(post["security"], json!([{"token": []}]));
        assert!(post["requestBody"].is_object());
        assert!(paths["/jobs/nightly"]["get"]["requestBody"].is_null());
        assert!(paths["/jobs/nightly/{rest}"]["parameters"].is_array());
    }
}
