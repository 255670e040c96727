//! What a function's schemas mean: JSON Schema, draft 2020-12, compiled once and asked for each
//! request and answer. The compiler's jail tries them before they are kept; the worker uses them.
//!
//! Regular expressions are of the engine that takes time in proportion to the text, so those
//! that look around or back are refused. Nothing is fetched: a schema refers to itself or to
//! the drafts' own. `format` is an annotation, as the draft has it.
//!
//! A body that two readers would read differently is refused: what was checked is what is called.
//!
//! Owns no body and no answer: how much is read, how long a check may take, and what a violation
//! comes to, is its caller's.

mod extent;
mod fields;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod numbers;

use std::collections::BTreeMap;
use std::fmt;

use hearth_wire::{Answers, Place, Schema, Schemas, Violation, json};
use http::HeaderMap;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;

pub use extent::Extent;
use fields::Fields;
use numbers::{Grain, TooPrecise, other_reading};

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
    body: Option<Judge>,
    querystring: Option<Fields>,
    headers: Option<Fields>,
    response: BTreeMap<Answers, Judge>,
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
            checks.body = Some(Judge::new("body", parsed("body", schema)?)?);
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
            checks.response.insert(*answers, Judge::new(&place, schema)?);
        }
        Ok(checks)
    }

    /// What every compiled schema leans on, made once: the drafts' own schemas, some 0.6 MB, and
    /// what is asked of the machine for the first expression. For a process that forks, so that
    /// its children share it, and that may open no file later.
    pub fn prepare() {
        let name = serde_json::json!({"type": "string", "pattern": "^[a-z]+$"});
        let body = serde_json::json!({"properties": {"name": name}, "required": ["name"]});
        let schemas = serde_json::json!({ "body": body });
        let schemas = Schemas::from_value(schemas).expect("these are schemas");
        let checks = Self::compile(&schemas).expect("they can be used");
        checks.body(br#"{"name":"a"}"#).expect("a value that fits");
    }

    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// A body of no bytes is `null`.
    pub fn body(&self, bytes: &[u8]) -> Result<(), Vec<Violation>> {
        let Some(judge) = &self.body else { return Ok(()) };
        judge.text(bytes).map_err(|found| placed(Place::Body, found))
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
        let Some(judge) = self.response.get(&answers) else { return Ok(()) };
        judge.text(bytes).map_err(|found| {
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

impl Found {
    fn of_all(message: impl fmt::Display) -> Self {
        Self { pointer: String::new(), message: message.to_string() }
    }
}

impl From<TooPrecise> for Found {
    fn from(refused: TooPrecise) -> Self {
        Self::of_all(refused)
    }
}

/// One schema, compiled.
#[derive(Debug)]
struct Judge {
    validator: Validator,
    grain: Grain,
}

impl Judge {
    fn new(place: &str, schema: Value) -> Result<Self, SchemaError> {
        let grain = Grain::of(&schema);
        Ok(Self { validator: validator(place, schema)?, grain })
    }

    /// Of JSON as it was sent, in every reading that it has.
    fn text(&self, bytes: &[u8]) -> Result<(), Vec<Found>> {
        let text = if bytes.is_empty() { b"null" } else { bytes };
        let value = json::parse(text).map_err(|error| {
            vec![match error.is_data() {
                true => Found::of_all(error),
                false => Found::of_all(format_args!("this is not valid JSON: {error}")),
            }]
        })?;
        let all = bytes.len() <= ALL_TOLD_MAX_BYTES;
        self.value(&value, all).map_err(|found| match bytes.is_empty() {
            true => vec![Found::of_all("there is no body")],
            false => found,
        })?;
        match other_reading(text, self.grain).map_err(|refused| vec![refused.into()])? {
            Some(value) => self.value(&value, all),
            None => Ok(()),
        }
    }

    fn value(&self, value: &Value, all: bool) -> Result<(), Vec<Found>> {
        match self.validator.is_valid(value) {
            true => Ok(()),
            false => Err(violations(&self.validator, value, all)),
        }
    }
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
    json::parse(schema.as_str().as_bytes())
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
    use serde_json::json;

    use super::{ALL_TOLD_MAX_BYTES, Draft2020, MESSAGE_MAX_BYTES, VIOLATIONS_MAX};
    use super::{Answers, Checks, Place, Schemas, Value, Violation};

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
        assert!(broken[0].message.starts_with("this is not valid JSON: "), "{broken:?}");
        assert_eq!(checks.body(b"").unwrap_err()[0].message, "there is no body");
    }

    #[test]
    fn a_body_that_two_readers_read_differently_is_refused() {
        let owner = json!({"properties": {"auth": {"const": "owner"}, "at": {"type": "integer"}}});
        let checks = checks(json!({"body": owner, "response": {"200": owner}})).unwrap();
        for twice in [
            r#"{"auth":"public","auth":"owner"}"#,
            r#"{"auth":"public","\u0061uth":"owner"}"#,
            r#"{"more":[{"a":1,"a":1}]}"#,
        ] {
            let found = checks.body(twice.as_bytes()).unwrap_err();
            assert!(found[0].message.contains("stands twice in one object"), "{found:?}");
            assert!(checks.response(Answers::Status(200), twice.as_bytes()).is_err(), "{twice}");
        }
        let reserved = br#"{"at":{"$serde_json::private::RawValue":"5"}}"#;
        let found = checks.body(reserved).unwrap_err();
        assert!(found[0].message.starts_with("a key may not begin with"), "{found:?}");
        assert_eq!(checks.body(br#"{"auth":"owner","at":5}"#), Ok(()));
    }

    /// Each schema, what it takes and what it does not.
    #[test]
    fn a_number_is_judged_as_every_reader_reads_it() {
        let near = "10.00000000000000000001";
        for (schema, fine, refused) in [
            (
                json!({"maximum": 10}),
                &["10", "10.0", "1e1", "9.99999999999999999999"][..],
                &[near][..],
            ),
            (json!({"exclusiveMaximum": 10}), &["9.5"], &["10", near, "9.99999999999999999999"]),
            (json!({"minimum": 10}), &["10", near], &["9.99999999999999999999", "1e-400"]),
            (json!({"exclusiveMinimum": 10}), &["10.000000000000002"], &["10", near]),
            (json!({"exclusiveMinimum": 0}), &["5e-324"], &["0", "1e-400", "-1e-999999999"]),
            (
                json!({"type": "integer"}),
                &["10", "10.0", "1e300", "9007199254740993", "18446744073709551615"],
                &[near, "1.5", "12345678901234567.5", "1.00000000000000000001e300"],
            ),
            (
                json!({"multipleOf": 0.01}),
                &["0.07", "4.35"],
                &["0.0700000000000000000001", "0.071"],
            ),
            (json!({"multipleOf": 2}), &["4", "9007199254740994"], &["3", "9007199254740993"]),
            (json!({"multipleOf": 0.5}), &["2.5"], &["2251799813685248.6000000000000001"]),
            (json!({"const": 10}), &["10", "10.0", "100e-1"], &[near, "10.5"]),
            (json!({"enum": [10, 0.1]}), &["10", "0.1", "0.10"], &[near, "0.10000000000000001"]),
            (json!({"not": {"const": 10}}), &["11"], &["10", near]),
            (
                json!({"maximum": 9007199254740992_u64}),
                &["9007199254740992"],
                &["9007199254740993"],
            ),
            (
                json!({"minimum": 9007199254740993_u64}),
                &["9007199254740994"],
                &["9007199254740993"],
            ),
            (
                json!({"uniqueItems": true}),
                &["[1,1.5]"],
                &["[1,1.0]", "[1,1.00000000000000000001]", "[9007199254740992,9007199254740993]"],
            ),
            (json!(true), &["0.10000000000000001", "[1e22]"], &["18446744073709551617", "1e400"]),
        ] {
            let checks = checks(json!({"body": schema, "response": {"200": schema}})).unwrap();
            let judged = |text: &str| {
                let body = checks.body(text.as_bytes()).is_ok();
                let answer = checks.response(Answers::Status(200), text.as_bytes()).is_ok();
                assert_eq!(body, answer, "{text} for {schema}");
                body
            };
            for text in fine {
                assert!(judged(text), "{text} for {schema}");
            }
            for text in refused {
                assert!(!judged(text), "{text} for {schema}");
            }
        }
    }

    /// What numbers there may be in the largest body: some of the longest, or very many.
    #[test]
    fn numbers_of_any_length_take_time_in_proportion_to_them() {
        let checks =
            checks(json!({"body": {"items": {"multipleOf": 0.01, "maximum": 5}}})).unwrap();
        let begun = std::time::Instant::now();
        let long = format!("[0.01{}1,1e-{}]", "0".repeat(2 << 20), "9".repeat(2 << 20));
        assert!(checks.body(long.as_bytes()).is_err());
        let many = format!("[{}1]", "0.01e-300000000,".repeat(100_000));
        let _ = checks.body(many.as_bytes());
        assert!(begun.elapsed() < std::time::Duration::from_secs(60));
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
