//! The document that a tenant's address gives of its functions, judged by the schema of OpenAPI.

use boon::{Compiler, Schemas};
use serde_json::{Value, json};

use super::order;
use crate::guests;
use crate::host::{Host, upload};

#[test]
fn a_tenants_document_is_openapi_3_1_with_its_schemas() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let schema = json!({
        "body": order(),
        "querystring": {
            "properties": {"page": {"type": "integer"}, "tag": {"$ref": "#/$defs/tag"}},
            "required": ["page"],
            "$defs": {"tag": {"type": "string"}},
        },
        "headers": {"properties": {"X-Trace": {"type": "string"}}},
        "response": {
            "200": {"$ref": "#/$defs/out", "$defs": {"out": {"type": "object"}}},
            "4xx": true,
            "default": {"type": "object"},
        },
    });
    let options = json!({ "methods": ["GET", "POST"], "path": "prefix", "schema": schema });
    tenant.deploy_with("order", guests::answers_with(), &options);
    let door = tenant.door();
    let itself = json!({"type": "array", "items": {"$ref": "#"}});
    let nested = json!({"schema": {"body": itself, "response": {"4xx": true}}});
    let nested = upload(
        door.request("POST", "/jobs/$upload").bearer(&tenant.token),
        &[("order.wasm", guests::answers_with())],
        Some(&nested.to_string()),
    );
    door.send(&nested).expect(200);
    for door in tenant.doors() {
        let document = door.get("/$openapi.json").expect(200).json();
        is_openapi(&document);
        let post = &document["paths"]["/order"]["post"];
        assert_eq!(
            led(&document, &post["requestBody"]["content"]["application/json"]["schema"])["required"],
            json!(["name"])
        );
        let parameters: Vec<_> = post["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| (it["name"].clone(), it["in"].clone(), it["required"] == true))
            .collect();
        assert_eq!(
            parameters,
            [
                (json!("page"), json!("query"), true),
                (json!("tag"), json!("query"), false),
                (json!("X-Trace"), json!("header"), false),
            ]
        );
        let responses: Vec<_> = post["responses"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(responses, ["200", "400", "4XX", "default"]);
        assert!(document["paths"]["/order"]["get"]["requestBody"].is_null());
        let nested = &document["paths"]["/jobs/order"]["post"]["requestBody"];
        assert_eq!(
            led(&document, &nested["content"]["application/json"]["schema"]),
            &json!({"type": "array", "items": {"$ref": "#/components/schemas/jobs.order.body"}})
        );

        let listed = door.get("/$functions").expect(200).json();
        let functions = listed["functions"].as_array().unwrap();
        let of = |path: &str| functions.iter().find(|function| function["path"] == path).unwrap();
        assert_eq!(of("/order")["options"]["schema"], schema, "{}", door.name);
        assert_eq!(
            of("/jobs/order")["options"]["schema"],
            json!({"body": itself, "response": {"4xx": true}})
        );
    }
}

/// The schema itself, where this is a reference to it.
#[track_caller]
fn led<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(to) => document.pointer(to.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    }
}

#[track_caller]
fn is_openapi(document: &Value) {
    let schema: Value = serde_json::from_str(include_str!("../openapi-3.1.schema.json")).unwrap();
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("openapi.json", schema).unwrap();
    let index = compiler.compile("openapi.json", &mut schemas).unwrap();
    if let Err(error) = schemas.validate(document, index) {
        panic!("{error:#}");
    }
    let mut left = vec![document];
    while let Some(value) = left.pop() {
        if let Some(to) = value["$ref"].as_str() {
            let pointer = to.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{to} leads nowhere");
        }
        match value {
            Value::Object(object) => left.extend(object.values()),
            Value::Array(array) => left.extend(array),
            _ => {}
        }
    }
}
