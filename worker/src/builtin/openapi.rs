//! The OpenAPI 3.1 document of a tenant's functions, made from the manifest alone.
//!
//! A function's schemas become components, since what refers within a schema must lead somewhere
//! within the document. One that gives itself an `$id` is a document of its own and stays as it is.

use hearth_wire::{
    Answers, Auth, FunctionPath, Manifest, ManifestFunction, PROBLEM_JSON, PathMatch, Schema,
};
use serde_json::{Map, Value, json};

/// Values, not schemas: a `$ref` in them is the author's own.
const LITERAL: [&str; 4] = ["const", "enum", "default", "examples"];
/// Objects of schemas by names that are the author's own.
const NAMED: [&str; 5] =
    ["$defs", "definitions", "properties", "patternProperties", "dependentSchemas"];

/// Of these functions of the manifest.
pub fn document<'a>(
    manifest: &Manifest,
    functions: impl Iterator<Item = &'a ManifestFunction>,
) -> Value {
    let mut document = Document { paths: Map::new(), schemas: Map::new() };
    document.schemas.insert("problem".to_owned(), problem());
    for function in functions {
        document.add(function);
    }
    let Document { paths, schemas } = document;
    json!({
        "openapi": "3.1.0",
        "info": {"title": manifest.tenant, "version": manifest.generation.to_string()},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

struct Document {
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl Document {
    fn add(&mut self, function: &ManifestFunction) {
        let shared = Shared::of(function, &mut self.schemas);
        let methods = &function.options.methods;
        let operations: Map<_, _> = methods
            .iter()
            .map(|method| (method.to_lowercase(), shared.operation(function, method)))
            .collect();
        if function.options.path.takes_below() {
            let below = below(&operations, "below", "is below the function's path");
            self.paths.insert(format!("{}/{{rest}}", function.path), below);
        }
        if function.options.path == PathMatch::Root {
            let at_root = Value::Object(renamed(&operations, "at-root"));
            self.paths.insert("/".to_owned(), at_root);
            let rest = below(&operations, "of-the-rest", "no other function takes");
            self.paths.insert("/{rest}".to_owned(), rest);
        }
        self.paths.insert(function.path.to_string(), Value::Object(operations));
    }
}

/// The same operations at another path of theirs.
fn renamed(operations: &Map<String, Value>, suffix: &str) -> Map<String, Value> {
    let mut operations = operations.clone();
    for operation in operations.values_mut() {
        let id = operation["operationId"].as_str().map(|id| format!("{id}-{suffix}"));
        operation["operationId"] = json!(id);
    }
    operations
}

fn below(operations: &Map<String, Value>, suffix: &str, what: &str) -> Value {
    let mut below = renamed(operations, suffix);
    below.insert(
        "parameters".to_owned(),
        json!([{
            "name": "rest",
            "in": "path",
            "required": true,
            "description": format!("whatever {what}, slashes included"),
            "schema": {"type": "string"},
        }]),
    );
    Value::Object(below)
}

/// What all methods of one function have.
struct Shared {
    body: Option<Value>,
    parameters: Vec<Value>,
    responses: Map<String, Value>,
}

impl Shared {
    fn of(function: &ManifestFunction, schemas: &mut Map<String, Value>) -> Self {
        let options = &function.options;
        let mut component = |place: &str, schema: &Schema| {
            let mut name = component_name(&function.path, place);
            while schemas.contains_key(&name) {
                name.push('_');
            }
            schemas.insert(name.clone(), located(schema, &name));
            name
        };
        let body = options.schema.body.as_ref().map(|schema| reference(&component("body", schema)));
        let mut parameters = Vec::new();
        for (kind, place, schema) in [
            ("query", "querystring", &options.schema.querystring),
            ("header", "headers", &options.schema.headers),
        ] {
            if let Some(schema) = schema {
                let name = component(place, schema);
                parameters.extend(fields(kind, schema, &name));
            }
        }
        let mut responses = Map::new();
        let refused = json!({
            "description": "A problem of the platform",
            "content": {PROBLEM_JSON: {"schema": reference("problem")}},
        });
        if !options.schema.is_empty() {
            responses.insert("400".to_owned(), refused);
        }
        for (answers, schema) in &options.schema.response {
            let status = match answers {
                Answers::Class(class) => format!("{class}XX"),
                other => String::from(*other),
            };
            let name = component(&format!("response.{}", String::from(*answers)), schema);
            let content = json!({"application/json": {"schema": reference(&name)}});
            let response = json!({"description": "The function's answer", "content": content});
            responses.insert(status, response);
        }
        responses.entry("default").or_insert_with(
            || json!({"description": "the function's answer, or a problem of the platform"}),
        );
        Self { body, parameters, responses }
    }

    fn operation(&self, function: &ManifestFunction, method: &str) -> Value {
        let mut operation = json!({
            "operationId": format!("{}-{}", method.to_lowercase(), function.path.relative()),
            "responses": self.responses,
        });
        if !function.options.description.is_empty() {
            operation["description"] = json!(function.options.description);
        }
        if !self.parameters.is_empty() {
            operation["parameters"] = json!(self.parameters);
        }
        if ["POST", "PUT", "PATCH"].contains(&method) {
            operation["requestBody"] = match &self.body {
                Some(schema) => json!({"content": {"application/json": {"schema": schema}}}),
                None => json!({"content": {"*/*": {}}}),
            };
        }
        if function.options.auth != Auth::Public {
            operation["security"] = json!([{"token": []}]);
        }
        operation
    }
}

fn problem() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string"},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "in": {"enum": ["body", "querystring", "headers"]},
                        "pointer": {"type": "string"},
                        "message": {"type": "string"},
                    },
                },
            },
            "request_id": {"type": "string"},
        },
    })
}

/// Of the characters that a component's name may have. `/a/b` and `/a.b` give the same.
fn component_name(path: &FunctionPath, place: &str) -> String {
    format!("{}.{place}", path.relative().replace('/', "."))
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The parameters that an object's properties are. A property's schema is where the object's is.
fn fields(kind: &str, schema: &Schema, component: &str) -> Vec<Value> {
    let schema: Value = hearth_wire::json::parse(schema.as_str().as_bytes()).unwrap_or_default();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    properties
        .into_iter()
        .map(|(name, property)| {
            let pointer = name.replace('~', "~0").replace('/', "~1").replace('%', "%25");
            let mut field = json!({
                "name": name,
                "in": kind,
                "required": required.iter().any(|required| *required == name.as_str()),
                "schema": reference(&format!("{component}/properties/{pointer}")),
            });
            if let Some(description) = property.get("description") {
                field["description"] = description.clone();
            }
            field
        })
        .collect()
}

/// A schema whose references to itself lead to where it lies in the document.
fn located(schema: &Schema, name: &str) -> Value {
    let mut schema: Value =
        hearth_wire::json::parse(schema.as_str().as_bytes()).unwrap_or_default();
    if schema.get("$id").is_none() {
        relocate(&mut schema, &format!("#/components/schemas/{name}"));
    }
    schema
}

fn relocate(value: &mut Value, root: &str) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(to) if key == "$ref" => {
                        if let Some(rest) = to.strip_prefix('#')
                            && (rest.is_empty() || rest.starts_with('/'))
                        {
                            *to = format!("{root}{rest}");
                        }
                    }
                    Value::Object(named) if NAMED.contains(&key.as_str()) => {
                        named.values_mut().for_each(|schema| relocate(schema, root));
                    }
                    _ if LITERAL.contains(&key.as_str()) => {}
                    value => relocate(value, root),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| relocate(item, root)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_wire::{
        Fingerprint, GenerationNumber, HandlerKind, Limits, ModuleDigest, OptionsPatch,
    };

    fn manifest(options: &str) -> Manifest {
        Manifest {
            tenant: "demo".parse().unwrap(),
            generation: GenerationNumber(3),
            limits: Limits::default(),
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

    fn listed(manifest: &Manifest) -> Value {
        document(manifest, manifest.functions.iter())
    }

    #[test]
    fn the_document_has_each_method_of_each_path() {
        let document = listed(&manifest(
            r#"{"methods":["GET","POST"],"path":"prefix","auth":"invoke","description":"d"}"#,
        ));
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

    #[test]
    fn a_root_is_found_at_its_own_path_and_at_all_that_is_left() {
        let document = listed(&manifest(r#"{"path":"root"}"#));
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(
            paths.keys().collect::<Vec<_>>(),
            ["/", "/jobs/nightly", "/jobs/nightly/{rest}", "/{rest}"]
        );
        let ids: std::collections::HashSet<_> =
            paths.values().map(|path| path["post"]["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 4, "{ids:?}");
        assert!(paths["/{rest}"]["parameters"].is_array());
        assert!(paths["/"]["parameters"].is_null());
    }

    #[test]
    fn schemas_are_where_their_references_lead() {
        let document = listed(&manifest(
            r##"{"schema":{
                "body":{"$ref":"#/$defs/in","$defs":{"in":{"const":{"$ref":"#/kept"}}}},
                "querystring":{"properties":{"a/b":{"type":"integer","description":"n"}},"required":["a/b"]},
                "response":{"2xx":{"$id":"/own","$ref":"#/$defs/out","$defs":{"out":true}}}
            }}"##,
        ));
        let post = &document["paths"]["/jobs/nightly"]["post"];
        let lead = |value: &Value| {
            let to =
                value["$ref"].as_str().unwrap_or_default().strip_prefix('#').unwrap().to_owned();
            document.pointer(&to).unwrap_or_else(|| panic!("{to} leads nowhere")).clone()
        };
        let body = lead(&post["requestBody"]["content"]["application/json"]["schema"]);
        assert_eq!(lead(&body), json!({"const": {"$ref": "#/kept"}}));
        let parameter = &post["parameters"][0];
        assert_eq!(lead(&parameter["schema"]), json!({"type": "integer", "description": "n"}));
        assert_eq!(
            (&parameter["in"], &parameter["required"], &parameter["description"]),
            (&json!("query"), &json!(true), &json!("n"))
        );
        let answer = lead(&post["responses"]["2XX"]["content"]["application/json"]["schema"]);
        assert_eq!(answer["$ref"], "#/$defs/out");
        let mut named =
            json!({"properties": {"default": {"$ref": "#/$defs/a"}}, "default": {"$ref": "#"}});
        relocate(&mut named, "#/x");
        let moved =
            json!({"properties": {"default": {"$ref": "#/x/$defs/a"}}, "default": {"$ref": "#"}});
        assert_eq!(named, moved);
        lead(&post["responses"]["400"]["content"][PROBLEM_JSON]["schema"]);
    }
}
