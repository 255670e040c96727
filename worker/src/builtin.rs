//! What the platform answers by itself at a tenant's addresses: `$health`, `$functions`,
//! `$openapi.json`, and `$upload`, which streams to the primary unread. To the management API
//! alone it tells what is in use, and answers for the tenant's state ([`state`]).
//!
//! None of them but `$upload` is a call. Functions that no outsider may call are not listed for
//! one. Where they are found is [`hearth_wire::Routes`]'s; the OpenAPI document is made in
//! [`openapi`].

mod openapi;
pub mod state;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hearth_connection::{Answer, Received};
use hearth_wire::uplink::Service;
use hearth_wire::{
    Auth, Builtin, Code, FunctionPath, Manifest, ManifestFunction, Origin, Problem, Usage, complain,
};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::{Value, json};

use crate::refusal::{Refusal, full, method_refused};
use crate::serving::Serving;
use crate::uplink::UplinkError;

pub async fn answer(
    serving: &Arc<Serving>,
    origin: Origin,
    builtin: Builtin,
    request: Request<Received>,
) -> Result<Answer, Refusal> {
    let manifest = &serving.generation.manifest;
    match builtin {
        Builtin::Health => {
            reads(request.method())?;
            Ok(json_answer(&json!({"status": "ok", "generation": manifest.generation})))
        }
        Builtin::Functions => {
            reads(request.method())?;
            Ok(json_answer(&functions(manifest, origin)))
        }
        Builtin::OpenApi => {
            reads(request.method())?;
            Ok(json_answer(&openapi::document(manifest, seen(manifest, origin))))
        }
        Builtin::Usage => {
            reads(request.method())?;
            let (running, waiting) = serving.room.permits.in_use();
            Ok(json_answer(&Usage {
                calls_running: running as u64,
                calls_waiting: waiting as u64,
                connections: serving.room.connections.load(Ordering::Relaxed) as u64,
            }))
        }
        Builtin::Upload { dir } => {
            if request.method() != Method::POST {
                return Err(method_refused("POST"));
            }
            upload(serving, dir, request).await
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
    serving: &Arc<Serving>,
    dir: Option<FunctionPath>,
    request: Request<Received>,
) -> Result<Answer, Refusal> {
    // The swap that it causes drains this very worker, which waits for it.
    let counted = serving.doing.uploads.begin();
    let answered = serving.uplinks.request(&Service::Upload { dir }, request).await;
    let answer = answered.map_err(|error| {
        if let UplinkError::BrokenBody = error {
            return Refusal::new(Code::BadRequest, Problem::BROKEN_BODY);
        }
        let detail = "the upload could not be handed to the host; try again";
        complain(format_args!("hearth-worker: an upload did not reach the host: {error}"));
        Refusal::new(Code::WorkerUnavailable, detail)
    })?;
    // Its last byte is the end of the upload.
    Ok(answer.map(|body| {
        let counted_until_then = move |error| {
            let _ = &counted;
            error
        };
        body.map_err(counted_until_then).boxed_unsync()
    }))
}

fn json_answer(value: &impl Serialize) -> Answer {
    let json = serde_json::to_vec(value).expect("it is plain data");
    let mut answer = Response::new(full(json));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Those that are listed for whoever asks: an internal one is nothing that an outsider could call.
fn seen(manifest: &Manifest, origin: Origin) -> impl Iterator<Item = &ManifestFunction> {
    let is_seen = move |function: &&ManifestFunction| {
        function.options.auth != Auth::Internal || origin.sees_internal()
    };
    manifest.functions.iter().filter(is_seen)
}

fn functions(manifest: &Manifest, origin: Origin) -> Value {
    let functions: Vec<_> = seen(manifest, origin)
        .map(|function| {
            let ManifestFunction { path, version, sha256, kind: _, options, engine: _ } = function;
            json!({
                "path": path,
                "version": version,
                "bundled": version.is_bundled(),
                "sha256": sha256,
                "methods": options.methods,
                "options": options,
                "damaged": function.is_damaged(),
            })
        })
        .collect();
    json!({
        "tenant": manifest.tenant,
        "generation": manifest.generation,
        "functions": functions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_wire::{Fingerprint, GenerationNumber, HandlerKind, ModuleDigest, OptionsPatch};

    fn manifest() -> Manifest {
        let options =
            r#"{"methods":["GET","POST"],"path":"prefix","auth":"invoke","description":"d"}"#;
        Manifest {
            tenant: "demo".parse().unwrap(),
            generation: GenerationNumber(3),
            limits: hearth_wire::Limits::default(),
            bundle: hearth_wire::Bundle::default().digest,
            over: hearth_wire::Over::default(),
            functions: vec![ManifestFunction {
                path: "/jobs/nightly".parse().unwrap(),
                version: 2.into(),
                sha256: ModuleDigest::new([0; 32]),
                kind: HandlerKind::IncomingHandler,
                options: OptionsPatch::parse(options).unwrap().resolve(),
                engine: Some(Fingerprint::new([0; 8])),
            }],
        }
    }

    #[test]
    fn functions_are_listed_with_their_options() {
        let listed = functions(&manifest(), Origin::Outside);
        let function = &listed["functions"][0];
        assert_eq!(listed["generation"], 3);
        assert_eq!(function["path"], "/jobs/nightly");
        assert_eq!(function["version"], 2);
        assert_eq!(function["bundled"], false);
        assert_eq!(function["sha256"], "0".repeat(64));
        assert_eq!(function["methods"], json!(["GET", "POST"]));
        assert_eq!(function["options"]["auth"], "invoke");
    }

    #[test]
    fn an_internal_function_is_no_outsiders_to_know() {
        let mut manifest = manifest();
        let mut hidden = manifest.functions[0].clone();
        hidden.path = "/jobs/hidden".parse().unwrap();
        hidden.options.auth = Auth::Internal;
        manifest.functions.push(hidden);
        for origin in Origin::ALL {
            let number = if origin.sees_internal() { 2 } else { 1 };
            let listed = functions(&manifest, origin);
            assert_eq!(listed["functions"].as_array().unwrap().len(), number, "{origin:?}");
            let document = openapi::document(&manifest, seen(&manifest, origin)).to_string();
            assert_eq!(document.contains("/jobs/hidden"), origin.sees_internal(), "{origin:?}");
            assert!(document.contains("/jobs/nightly"), "{origin:?}");
        }
    }
}
