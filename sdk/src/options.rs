//! The options that a function declares: what its attribute says, and the schemas of its types.
//!
//! Asked once, at upload; no call comes through here.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::kind::{Json, Raw};
use crate::request::Argument;
use crate::response::{Returned, is_nothing};
use crate::{Headers, Query, Request, Response};

/// What the attribute says; an option that it does not name is not declared.
pub struct Declared {
    pub options: &'static [(&'static str, Value)],
    pub schema: Schemas,
}

/// What an option is declared to be.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Value {
    Text(&'static str),
    Texts(&'static [&'static str]),
    Whole(u64),
    Truth(bool),
}

impl Serialize for Declared {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { options, schema } = self;
        let mut declared = serializer.serialize_map(None)?;
        for (name, value) in *options {
            declared.serialize_entry(name, value)?;
        }
        if !schema.is_empty() {
            declared.serialize_entry("schema", schema)?;
        }
        declared.end()
    }
}

impl Declared {
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("options are plain data")
    }
}

/// JSON Schemas (2020-12), each complete in itself.
#[derive(Default, Serialize)]
pub struct Schemas {
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Schema>,
    #[serde(skip_serializing_if = "Option::is_none")]
    querystring: Option<Schema>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Responses>,
}

#[derive(Serialize)]
struct Responses {
    #[serde(rename = "200")]
    ok: Schema,
}

impl Schemas {
    fn is_empty(&self) -> bool {
        self.body.is_none() && self.querystring.is_none() && self.response.is_none()
    }
}

fn schema<T: JsonSchema>(settings: SchemaSettings) -> Schema {
    settings
        .with(|settings| settings.meta_schema = None)
        .into_generator()
        .into_root_schema_for::<T>()
}

fn body<T: JsonSchema>() -> Schema {
    schema::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

/// Without references: whoever turns the texts of a query into what their properties ask for
/// then finds it at the property itself.
fn querystring<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    schema::<T>(settings.with(|settings| settings.inline_subschemas = true))
}

fn output<T: JsonSchema>() -> Schema {
    schema::<T>(SchemaSettings::draft2020_12().for_serialize())
}

/// An argument's part of the schemas.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no JSON Schema",
    note = "derive `schemars::JsonSchema` for it, or say `#[function(schema = false)]`"
)]
pub trait DescribedArgument<Kind>: Argument<Kind> {
    fn describe(schemas: &mut Schemas);
}

impl<T: DeserializeOwned + JsonSchema> DescribedArgument<Json> for T {
    fn describe(schemas: &mut Schemas) {
        schemas.body = Some(body::<T>());
    }
}

impl<T: DeserializeOwned + JsonSchema> DescribedArgument<Raw> for Query<T> {
    fn describe(schemas: &mut Schemas) {
        schemas.querystring = Some(querystring::<T>());
    }
}

impl DescribedArgument<Raw> for Headers {
    fn describe(_: &mut Schemas) {}
}

impl DescribedArgument<Raw> for Request {
    fn describe(_: &mut Schemas) {}
}

/// The answer's part of the schemas.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no JSON Schema",
    note = "derive `schemars::JsonSchema` for the output, or say `#[function(schema = \"request\")]`"
)]
pub trait DescribedReturn<Kind>: Returned<Kind> {
    fn describe(schemas: &mut Schemas);
}

impl<T: Serialize + JsonSchema> DescribedReturn<Json> for T {
    fn describe(schemas: &mut Schemas) {
        let ok = output::<T>();
        // What is answered without content has no schema.
        let is_null = ok.get("type").is_some_and(|kind| kind == "null");
        schemas.response = (!(is_nothing::<T>() && is_null)).then_some(Responses { ok });
    }
}

impl DescribedReturn<Raw> for Response {
    fn describe(_: &mut Schemas) {}
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::{Value as Declaration, *};
    use crate::__private::{describe_argument, describe_returned};

    fn nothing() -> Declared {
        Declared { options: &[], schema: Schemas::default() }
    }

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is asked for")]
    struct Input {
        name: String,
        #[serde(default)]
        parts: Vec<Part>,
    }

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is asked for")]
    struct Part {
        size: u8,
    }

    #[derive(Serialize, JsonSchema)]
    struct Output {
        greeting: String,
    }

    fn json(mut declared: Declared, describe: impl FnOnce(&mut Schemas)) -> Value {
        describe(&mut declared.schema);
        serde_json::from_str(&declared.to_json()).unwrap()
    }

    #[test]
    fn what_is_not_written_is_not_declared() {
        assert_eq!(json(nothing(), |_| {}), json!({}));
        let options = &[
            ("methods", Declaration::Texts(&["GET", "PUT"])),
            ("path", Declaration::Text("root")),
            ("strip_prefix", Declaration::Truth(true)),
            ("timeout_ms", Declaration::Whole(500)),
            ("cors", Declaration::Texts(&["https://app.example"])),
            ("description", Declaration::Text("says \"it\"")),
        ];
        let some = Declared { options, ..nothing() };
        assert_eq!(
            json(some, |_| {}),
            json!({
                "methods": ["GET", "PUT"],
                "path": "root",
                "strip_prefix": true,
                "timeout_ms": 500,
                "cors": ["https://app.example"],
                "description": "says \"it\"",
            })
        );
    }

    #[test]
    fn schemas_are_those_of_the_types_and_complete_in_themselves() {
        let options = json(nothing(), |schemas| {
            describe_argument::<Input, _>(schemas);
            describe_returned::<Output, _>(schemas);
        });
        assert_eq!(
            options,
            json!({ "schema": {
                "body": {
                    "title": "Input",
                    "type": "object",
                    "properties": {
                        "name": { "type": "string" },
                        "parts": { "type": "array", "items": { "$ref": "#/$defs/Part" } },
                    },
                    "required": ["name"],
                    "$defs": { "Part": {
                        "type": "object",
                        "properties": { "size": {
                            "type": "integer", "format": "uint8", "minimum": 0, "maximum": 255,
                        } },
                        "required": ["size"],
                    } },
                },
                "response": { "200": {
                    "title": "Output",
                    "type": "object",
                    "properties": { "greeting": { "type": "string" } },
                    "required": ["greeting"],
                } },
            } })
        );
    }

    #[test]
    fn an_optional_body_may_be_null() {
        let options = json(nothing(), describe_argument::<Option<Part>, _>);
        let body = &options["schema"]["body"];
        assert_eq!(body["anyOf"], json!([{ "$ref": "#/$defs/Part" }, { "type": "null" }]));
        assert!(body["$defs"]["Part"].is_object(), "{body}");
    }

    #[test]
    fn a_raw_request_and_a_raw_response_declare_nothing() {
        let options = json(nothing(), |schemas| {
            describe_argument::<Request, _>(schemas);
            describe_argument::<Headers, _>(schemas);
            describe_returned::<Response, _>(schemas);
        });
        assert_eq!(options, json!({}));
    }

    #[test]
    fn a_query_says_at_each_parameter_what_it_is() {
        #[derive(Deserialize, JsonSchema)]
        struct Limit(#[expect(dead_code, reason = "only its schema is asked for")] u8);

        #[derive(Deserialize, JsonSchema)]
        #[serde(rename_all = "lowercase")]
        enum Order {
            Up,
            Down,
        }

        #[derive(Deserialize, JsonSchema)]
        #[expect(dead_code, reason = "only its schema is asked for")]
        struct Page {
            limit: Option<Limit>,
            order: Option<Order>,
        }

        assert_eq!(
            json(nothing(), describe_argument::<Query<Page>, _>),
            json!({ "schema": { "querystring": {
                "title": "Page",
                "type": "object",
                "properties": {
                    "limit": {
                        "type": ["integer", "null"],
                        "format": "uint8",
                        "minimum": 0,
                        "maximum": 255,
                    },
                    "order": { "type": ["string", "null"], "enum": ["up", "down", null] },
                },
            } } })
        );
    }
}
