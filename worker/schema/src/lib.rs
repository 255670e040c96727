//! What a function's schemas mean: JSON Schema, draft 2020-12, compiled once and asked for each
//! request and answer. The compiler's jail tries them before they are kept; the worker uses them.
//!
//! Regular expressions are of the engine that takes time in proportion to the text, so those
//! that look around or back are refused. Nothing is fetched: a schema refers to itself or to
//! the drafts' own. `format` is an annotation, as the draft has it.
//!
//! Owns no body and no answer: how much is read, how long a check may take, and what a violation
//! comes to, is its caller's.

mod extent;
mod fields;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;

use std::collections::BTreeMap;
use std::fmt;

use hearth_wire::{Answers, Place, Schema, Schemas, Violation};
use http::HeaderMap;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Value, json};

pub use extent::Extent;
use fields::Fields;

/// Told of one request.
const VIOLATIONS_MAX: usize = 20;
/// Of a larger body the first violation is told alone: all are found before any is told, and
/// there may be one for each byte.
const ALL_TOLD_MAX_BYTES: usize = 16 << 10;
const MESSAGE_MAX_BYTES: usize = 300;
/// Of a regular expression once it is compiled.
const PATTERN_MAX_BYTES: usize = 1 << 20;

/// Why a schema cannot be used. Fit for its author.
#[derive(Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// `body`, `response.200`.
    place: String,
    reason: String,
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the option `schema.{}` cannot be used: {}", self.place, self.reason)
    }
}

impl std::error::Error for SchemaError {}

/// A function's schemas, compiled.
#[derive(Debug, Default)]
pub struct Checks {
    body: Option<Validator>,
    querystring: Option<Fields>,
    headers: Option<Fields>,
    response: BTreeMap<Answers, Validator>,
    /// The largest of all of them.
    extent: Extent,
}

impl Checks {
    pub fn compile(schemas: &Schemas) -> Result<Self, SchemaError> {
        let Schemas { body, querystring, headers, response } = schemas;
        let mut checks = Self::default();
        let mut parsed = |place: &str, schema: &Schema| {
            let schema = parse(place, schema)?;
            let extent = Extent::of(&schema).map_err(|refused| SchemaError {
                place: place.to_owned(),
                reason: refused.to_string(),
            })?;
            checks.extent = checks.extent.max(extent);
            Ok(schema)
        };
        if let Some(schema) = body {
            checks.body = Some(validator("body", parsed("body", schema)?)?);
        }
        if let Some(schema) = querystring {
            let schema = parsed("querystring", schema)?;
            checks.querystring = Some(Fields::of_query("querystring", schema)?);
        }
        if let Some(schema) = headers {
            let schema = parsed("headers", schema)?;
            checks.headers = Some(Fields::of_headers("headers", schema)?);
        }
        for (answers, schema) in response {
            let place = format!("response.{}", String::from(*answers));
            let schema = parsed(&place, schema)?;
            checks.response.insert(*answers, validator(&place, schema)?);
        }
        Ok(checks)
    }

    /// What every compiled schema leans on, made once: the drafts' own schemas, some 0.6 MB, and
    /// what is asked of the machine for the first expression. For a process that forks, so that
    /// its children share it, and that may open no file later.
    pub fn prepare() {
        let name = json!({"type": "string", "pattern": "^[a-z]+$"});
        let schemas = json!({"body": {"properties": {"name": name}, "required": ["name"]}});
        let schemas = Schemas::from_value(schemas).expect("these are schemas");
        let checks = Self::compile(&schemas).expect("they can be used");
        checks.body(br#"{"name":"a"}"#).expect("a value that fits");
    }

    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// A body of no bytes is `null`.
    pub fn body(&self, bytes: &[u8]) -> Result<(), Vec<Violation>> {
        let Some(validator) = &self.body else { return Ok(()) };
        check(validator, bytes).map_err(|found| placed(Place::Body, found))
    }

    /// Query, as it stands in the address, and headers. All violations of both.
    pub fn head(&self, query: Option<&str>, headers: &HeaderMap) -> Result<(), Vec<Violation>> {
        let mut violations = Vec::new();
        if let Some(fields) = &self.querystring {
            let found = fields.check_query(query.unwrap_or_default());
            violations.extend(placed(Place::Querystring, found));
        }
        if let Some(fields) = &self.headers {
            violations.extend(placed(Place::Headers, fields.check_headers(headers)));
        }
        violations.truncate(VIOLATIONS_MAX);
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }

    /// Where an answer breaks the schema that is meant for it: a pointer and a reason.
    pub fn response(&self, answers: Answers, bytes: &[u8]) -> Result<(), (String, String)> {
        let Some(validator) = self.response.get(&answers) else { return Ok(()) };
        check(validator, bytes).map_err(|found| {
            let Found { pointer, message } = found.into_iter().next().expect("it was refused");
            (pointer, message)
        })
    }
}

/// A violation that does not say yet in which part of the request it is.
struct Found {
    pointer: String,
    message: String,
}

fn placed(place: Place, found: Vec<Found>) -> Vec<Violation> {
    found
        .into_iter()
        .map(|Found { pointer, message }| Violation { place, pointer, message })
        .collect()
}

fn check(validator: &Validator, bytes: &[u8]) -> Result<(), Vec<Found>> {
    let text = if bytes.is_empty() { b"null" } else { bytes };
    let value: Value = serde_json::from_slice(text).map_err(|error| {
        vec![Found { pointer: String::new(), message: format!("this is no JSON: {error}") }]
    })?;
    if validator.is_valid(&value) {
        return Ok(());
    }
    let mut found = violations(validator, &value, bytes.len() <= ALL_TOLD_MAX_BYTES);
    if bytes.is_empty() {
        found = vec![Found { pointer: String::new(), message: "there is no body".to_owned() }];
    }
    Err(found)
}

/// At least one, of a value that was refused.
fn violations(validator: &Validator, value: &Value, all: bool) -> Vec<Found> {
    let found = |error: ValidationError<'_>| {
        let error = innermost(&error);
        let mut message = error.masked().to_string();
        if message.len() > MESSAGE_MAX_BYTES {
            message.truncate(message.floor_char_boundary(MESSAGE_MAX_BYTES));
            message.push('…');
        }
        Found { pointer: error.instance_path().to_string(), message }
    };
    if all {
        validator.iter_errors(value).take(VIOLATIONS_MAX).map(found).collect()
    } else {
        validator.validate(value).err().into_iter().map(found).collect()
    }
}

/// Where one of several schemas would do, what kept the value from the one that it came closest
/// to: the violation that is deepest in it.
fn innermost<'a, 'b>(error: &'a ValidationError<'b>) -> &'a ValidationError<'b> {
    let depth = |error: &ValidationError<'_>| error.instance_path().as_str().matches('/').count();
    match error.kind() {
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            let inner = context.iter().flatten().map(|error| innermost(error));
            let deepest = inner.max_by_key(|error| depth(error));
            deepest.filter(|inner| depth(inner) > depth(error)).unwrap_or(error)
        }
        _ => error,
    }
}

fn parse(place: &str, schema: &Schema) -> Result<Value, SchemaError> {
    serde_json::from_str(schema.as_str())
        .map_err(|error| SchemaError { place: place.to_owned(), reason: error.to_string() })
}

fn validator(place: &str, schema: Value) -> Result<Validator, SchemaError> {
    let refused = |reason| SchemaError { place: place.to_owned(), reason };
    match schema.get("$schema").map(Value::as_str) {
        None => {}
        Some(Some(draft)) if draft.trim_end_matches('#') == Draft2020::URI => {}
        Some(_) => return Err(refused(format!("its `$schema` is not {}", Draft2020::URI))),
    }
    let built = jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_MAX_BYTES))
        .offline()
        .build(&schema);
    built.map_err(|error| {
        let (reason, at) = (error.masked().to_string(), error.instance_path().to_string());
        refused(if at.is_empty() { reason } else { format!("at {at}: {reason}") })
    })
}

struct Draft2020;

impl Draft2020 {
    const URI: &str = "https://json-schema.org/draft/2020-12/schema";
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checks(schemas: Value) -> Result<Checks, String> {
        let schemas = Schemas::from_value(schemas).unwrap();
        Checks::compile(&schemas).map_err(|error| error.to_string())
    }

    fn pointers(result: Result<(), Vec<Violation>>) -> Vec<String> {
        result.err().into_iter().flatten().map(|violation| violation.pointer).collect()
    }

    #[test]
    fn a_body_is_checked_and_every_violation_has_its_pointer() {
        let checks = checks(json!({"body": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "tags": {"items": {"type": "string"}}},
        }}))
        .unwrap();
        assert_eq!(checks.body(br#"{"name":"a","tags":["b"]}"#), Ok(()));
        assert_eq!(pointers(checks.body(br#"{"name":1,"tags":["b",2]}"#)), ["/name", "/tags/1"]);
        let missing = checks.body(b"{}").unwrap_err();
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].message, "\"name\" is a required property");
        assert_eq!((missing[0].place, missing[0].pointer.as_str()), (Place::Body, ""));
        let broken = checks.body(b"{").unwrap_err();
        assert!(broken[0].message.starts_with("this is no JSON: "), "{broken:?}");
        assert_eq!(checks.body(b"").unwrap_err()[0].message, "there is no body");
    }

    #[test]
    fn of_several_schemas_the_closest_one_says_where() {
        let person =
            json!({"properties": {"name": {"type": ["string", "null"]}}, "type": "object"});
        let checks = checks(json!({"body": {"anyOf": [person, {"type": "null"}]}})).unwrap();
        assert_eq!(pointers(checks.body(br#"{"name":5}"#)), ["/name"]);
        let neither = checks.body(b"5").unwrap_err();
        assert_eq!(neither[0].pointer, "");
        assert!(neither[0].message.contains("anyOf"), "{neither:?}");
    }

    #[test]
    fn no_body_is_null() {
        let checks = checks(json!({"body": {"type": ["object", "null"]}})).unwrap();
        assert_eq!(checks.body(b""), Ok(()));
    }

    #[test]
    fn of_many_violations_few_are_told_and_of_a_large_body_the_first() {
        let checks = checks(json!({"body": {"items": {"type": "string"}}})).unwrap();
        let body = |length: usize| serde_json::to_vec(&vec![0; length]).unwrap();
        assert_eq!(pointers(checks.body(&body(100))).len(), VIOLATIONS_MAX);
        assert_eq!(pointers(checks.body(&body(ALL_TOLD_MAX_BYTES))), ["/0"]);
    }

    #[test]
    fn an_answer_is_checked_by_the_schema_for_it() {
        let checks = checks(json!({"response": {"200": {"type": "object"}, "4xx": true}})).unwrap();
        assert_eq!(checks.response(Answers::Status(200), b"{}"), Ok(()));
        assert_eq!(checks.response(Answers::Class(4), b"[]"), Ok(()));
        assert_eq!(checks.response(Answers::Others, b"anything"), Ok(()));
        let (pointer, message) = checks.response(Answers::Status(200), b"[]").unwrap_err();
        assert_eq!((pointer.as_str(), message.as_str()), ("", "value is not of type \"object\""));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (schema, said) in [
            (json!({"type": "strng"}), "at /type: "),
            (json!({"pattern": "(?=a)b"}), "at /pattern: "),
            (json!({"pattern": "(a)\\1"}), "at /pattern: "),
            (json!({"$ref": "https://example.com/other.json"}), ""),
            (json!({"$ref": "#/$defs/nix"}), ""),
            (json!({"$schema": "http://json-schema.org/draft-07/schema#"}), "its `$schema` is not"),
        ] {
            let error = checks(json!({"response": {"200": schema}})).unwrap_err();
            let said = format!("the option `schema.response.200` cannot be used: {said}");
            assert!(error.starts_with(&said), "{schema}: {error}");
        }
        let named = json!({"$schema": Draft2020::URI, "$ref": Draft2020::URI});
        assert!(checks(json!({"body": named})).is_ok());
    }

    /// What keeps a backtracking engine busy for longer than anybody lives.
    #[test]
    fn a_pattern_takes_time_in_proportion_to_the_text() {
        let checks = checks(json!({"body": {"pattern": "^(a+)+$"}})).unwrap();
        let text = format!("\"{}!\"", "a".repeat(100_000));
        assert_eq!(pointers(checks.body(text.as_bytes())), [""]);
    }

    #[test]
    fn a_long_message_is_cut() {
        let names: Vec<_> = (0..200).map(|n| format!("name-{n}")).collect();
        let checks = checks(json!({"body": {"enum": names}})).unwrap();
        let violations = checks.body(b"1").unwrap_err();
        assert!(violations[0].message.len() <= MESSAGE_MAX_BYTES + '…'.len_utf8());
    }
}
