//! The management API as a whole: its document, and the host's own state.

use std::collections::BTreeSet;

use boon::{Compiler, Schemas};
use serde_json::{Value, json};

use crate::guests;
use crate::host::Host;
use crate::http::Request;

/// Every route, by what the API promises; the document must know these and no others.
const ROUTES: [&str; 52] = [
    "delete /api/v1/tenants/{tenant}",
    "delete /api/v1/tenants/{tenant}/functions/{path}",
    "delete /api/v1/tenants/{tenant}/kv/{store}",
    "delete /api/v1/tenants/{tenant}/kv/{store}/{key}",
    "delete /api/v1/tenants/{tenant}/tokens/{id}",
    "delete /api/v1/tokens/{id}",
    "get /api/openapi.json",
    "get /api/v1/audit",
    "get /api/v1/backup",
    "get /api/v1/tenants",
    "get /api/v1/tenants/{tenant}",
    "get /api/v1/tenants/{tenant}/backup",
    "get /api/v1/tenants/{tenant}/calls",
    "get /api/v1/tenants/{tenant}/config",
    "get /api/v1/tenants/{tenant}/functions",
    "get /api/v1/tenants/{tenant}/functions/{path}",
    "get /api/v1/tenants/{tenant}/functions/{path}/versions",
    "get /api/v1/tenants/{tenant}/generations",
    "get /api/v1/tenants/{tenant}/kv",
    "get /api/v1/tenants/{tenant}/kv/{store}",
    "get /api/v1/tenants/{tenant}/kv/{store}/{key}",
    "get /api/v1/tenants/{tenant}/limits",
    "get /api/v1/tenants/{tenant}/logs",
    "get /api/v1/tenants/{tenant}/secrets",
    "get /api/v1/tenants/{tenant}/sql",
    "get /api/v1/tenants/{tenant}/sql/{database}/export",
    "get /api/v1/tenants/{tenant}/tokens",
    "get /api/v1/tenants/{tenant}/worker",
    "get /api/v1/tokens",
    "get /api/v1/whoami",
    "get /healthz",
    "get /metrics",
    "get /readyz",
    "patch /api/v1/tenants/{tenant}/config",
    "patch /api/v1/tenants/{tenant}/functions/{path}",
    "patch /api/v1/tenants/{tenant}/limits",
    "patch /api/v1/tenants/{tenant}/secrets",
    "post /api/v1/restore",
    "post /api/v1/secrets/rekey",
    "post /api/v1/tenants",
    "post /api/v1/tenants/{tenant}/functions",
    "post /api/v1/tenants/{tenant}/functions/{path}/invoke",
    "post /api/v1/tenants/{tenant}/functions/{path}/rollback",
    "post /api/v1/tenants/{tenant}/rollback",
    "post /api/v1/tenants/{tenant}/sql/{database}",
    "post /api/v1/tenants/{tenant}/sql/{database}/import",
    "post /api/v1/tenants/{tenant}/tokens",
    "post /api/v1/tenants/{tenant}/worker/restart",
    "post /api/v1/tenants/{tenant}/worker/start",
    "post /api/v1/tenants/{tenant}/worker/stop",
    "post /api/v1/tokens",
    "put /api/v1/tenants/{tenant}/kv/{store}/{key}",
];

fn document(host: &Host) -> Value {
    host.send(&Request::new("GET", "/api/openapi.json")).expect(200).json()
}

#[test]
fn the_document_is_openapi_3_1() {
    let host = Host::start();
    let document = document(&host);
    let schema: Value = serde_json::from_str(include_str!("openapi-3.1.schema.json")).unwrap();
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("openapi.json", schema).unwrap();
    let index = compiler.compile("openapi.json", &mut schemas).unwrap();
    if let Err(error) = schemas.validate(&document, index) {
        panic!("{error:#}");
    }
    // What that schema leaves open: schemas are JSON Schema, references lead somewhere, and each
    // operation has a name of its own.
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        let whole = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": document["components"],
            "$ref": format!("#/components/schemas/{name}"),
        });
        compiler.add_resource("schema.json", whole).unwrap();
        compiler.compile("schema.json", &mut schemas).unwrap_or_else(|e| panic!("{schema}: {e}"));
    }
    each_reference(&document, &mut |reference| {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    });
    let operations = operations(&document);
    let names: BTreeSet<_> =
        operations.iter().map(|(_, it)| it["operationId"].to_string()).collect();
    assert_eq!(names.len(), operations.len());
}

fn each_reference(value: &Value, check: &mut impl FnMut(&str)) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                check(reference);
            }
            object.values().for_each(|value| each_reference(value, check));
        }
        Value::Array(array) => array.iter().for_each(|value| each_reference(value, check)),
        _ => {}
    }
}

fn operations(document: &Value) -> Vec<(String, &Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["operationId"].is_string() {
                operations.push((format!("{method} {path}"), operation));
            }
        }
    }
    operations
}

#[test]
fn the_document_covers_every_route_and_every_route_answers() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let document = document(&host);
    let listed: BTreeSet<String> =
        operations(&document).into_iter().map(|(name, _)| name).collect();
    let expected: BTreeSet<String> = ROUTES.iter().map(|&route| route.to_owned()).collect();
    assert_eq!(listed, expected);
    for route in &listed {
        let (method, path) = route.split_once(' ').unwrap();
        let method = method.to_ascii_uppercase();
        let path = path
            .replace("{tenant}", "nobody")
            .replace("{path}", "none")
            .replace("{id}", "0")
            .replace("{store}", "none")
            .replace("{key}", "none")
            .replace("{database}", "none");
        let answer = host.send(&Request::new(&method, &path).bearer(crate::host::ADMIN_TOKEN));
        // A route that is not there has a sentence of its own.
        assert!(!answer.text().contains("nothing at this address"), "{route}: {answer:?}");
        assert_ne!(answer.status, 405, "{route}: {answer:?}");
        let documented =
            &document["paths"][route.split_once(' ').unwrap().1][method.to_ascii_lowercase()];
        let responses = documented["responses"].as_object().unwrap();
        assert!(
            responses.contains_key(&answer.status.to_string()) || responses.contains_key("default"),
            "{route} answers {} which it does not document",
            answer.status
        );
    }
    host.send(&Request::new("GET", "/api/v1/nothing")).expect_problem(404, "not_found");
    let refused = host.send(&Request::new("PUT", "/api/v1/tenants"));
    assert!(refused.header("allow").is_some_and(|allow| allow.contains("POST")), "{refused:?}");
    refused.expect_problem(405, "method_not_allowed");
    drop(tenant);
}

#[test]
fn the_document_can_be_browsed() {
    let host = Host::start();
    let mut page = host.send(&Request::new("GET", "/api/docs"));
    if let Some(to) = page.header("location") {
        page = host.send(&Request::new("GET", to));
    }
    assert!(page.expect(200).text().to_ascii_lowercase().contains("swagger"));
}

#[test]
fn bodies_look_as_the_document_says() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("prints", guests::prints());
    tenant.post("/prints", "a line\n").expect(204);
    crate::processes::eventually("a line", || {
        (!tenant.ask("/logs")["lines"].as_array().unwrap().is_empty()).then_some(())
    });
    host.send(&tenant.api("PUT", "/kv/default/a").body("b")).expect(204);
    let document = document(&host);
    for (route, path) in [
        ("/api/v1/whoami", "/whoami"),
        ("/api/v1/audit", "/audit"),
        ("/api/v1/tenants", "/tenants"),
        ("/api/v1/tenants/{tenant}", "/tenants/demo"),
        ("/api/v1/tenants/{tenant}/functions", "/tenants/demo/functions"),
        ("/api/v1/tenants/{tenant}/functions/{path}", "/tenants/demo/functions/prints"),
        (
            "/api/v1/tenants/{tenant}/functions/{path}/versions",
            "/tenants/demo/functions/hello/versions",
        ),
        ("/api/v1/tenants/{tenant}/generations", "/tenants/demo/generations"),
        ("/api/v1/tenants/{tenant}/limits", "/tenants/demo/limits"),
        ("/api/v1/tenants/{tenant}/worker", "/tenants/demo/worker"),
        ("/api/v1/tenants/{tenant}/tokens", "/tenants/demo/tokens"),
        ("/api/v1/tenants/{tenant}/logs", "/tenants/demo/logs"),
        ("/api/v1/tenants/{tenant}/calls", "/tenants/demo/calls"),
        ("/api/v1/tenants/{tenant}/kv", "/tenants/demo/kv"),
        ("/api/v1/tenants/{tenant}/kv/{store}", "/tenants/demo/kv/default"),
        ("/api/v1/tenants/{tenant}/sql", "/tenants/demo/sql"),
    ] {
        let body = host.send(&host.admin("GET", path)).expect(200).json();
        let content = &document["paths"][route]["get"]["responses"]["200"]["content"];
        let schema = &content["application/json"]["schema"];
        assert!(schema.is_object(), "{route}: {content}");
        let whole = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": document["components"],
            "allOf": [schema],
        });
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("body.json", whole).unwrap();
        let index = compiler.compile("body.json", &mut schemas).unwrap();
        if let Err(error) = schemas.validate(&body, index) {
            panic!("{route}: {error:#}\n{body}");
        }
    }
}

#[test]
fn the_host_tells_how_it_is() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.post("/hello", "{}").expect(200);
    host.send(&Request::new("GET", "/healthz")).expect(200);
    host.send(&Request::new("GET", "/readyz")).expect(200);
    let metrics = host.send(&Request::new("GET", "/metrics")).expect(200).text();
    assert!(metrics.contains("# TYPE hearth_"), "{metrics}");
    // Whoever came through something else proves who it is.
    for header in ["x-forwarded-for", "forwarded", "via"] {
        let request = Request::new("GET", "/metrics").header(header, "127.0.0.1");
        host.send(&request).expect_problem(401, "unauthenticated");
        host.send(&request.bearer(crate::host::ADMIN_TOKEN)).expect(200);
    }
    let who = host.send(&host.admin("GET", "/whoami")).expect(200).json();
    assert_eq!((&who["scope"], &who["tenant"]), (&json!("admin"), &Value::Null), "{who}");
    let who = host.send(&Request::new("GET", "/api/v1/whoami").bearer(&tenant.token)).json();
    assert_eq!((&who["scope"], &who["tenant"]), (&json!("owner"), &json!("demo")), "{who}");
}
