//! The OpenAPI 3.1 document's own parts: what it says of the whole API, and how the parsed types
//! of `hearth-wire` look in it.
//!
//! `wire` knows nothing of OpenAPI. The schemas here are made from its constants and variants, not
//! beside them, and a test compares what is written by hand with what is really sent. Operations
//! and bodies describe themselves beside their handlers; nothing here lists routes.

use std::borrow::Cow;

use axum::Extension;
use axum::body::Bytes;
use axum::response::IntoResponse;
use hearth_wire::{
    Code, HandlerKind, LogLevel, LogStream, OPTIONS, OptionKind, OptionsPatch, Origin, Outcome,
    PROBLEM_JSON, Place, Scope,
};
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::Number;
use utoipa::OpenApi as _;
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::schema::{ArrayBuilder, Object, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response, ResponseBuilder};

use crate::store::Action;

/// `[a-z0-9][a-z0-9-]{0,62}`
pub fn tenant_name() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .pattern(Some("^[a-z0-9][a-z0-9-]{0,62}$"))
        .examples(["demo"])
        .build()
}

pub fn function_path() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .description(Some("1 to 8 segments; paths that differ only in case are one path."))
        .pattern(Some("^(/[A-Za-z0-9_][A-Za-z0-9_.-]*){1,8}$"))
        .max_length(Some(hearth_wire::FunctionPath::BYTES_MAX))
        .examples(["/jobs/nightly"])
        .build()
}

pub fn sha256() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .description(Some("The SHA-256 of the module, unpacked."))
        .pattern(Some("^[0-9a-f]{64}$"))
        .build()
}

/// A number or a text, each with its own bounds.
fn number_or_text(also: Option<Type>) -> ObjectBuilder {
    let types = [Some(Type::Integer), Some(Type::String), also];
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter(types.into_iter().flatten()))
        .minimum(Some(1))
        .maximum(Some(u32::MAX))
}

const FUNCTION_VERSION: &str =
    "The number of a version that was uploaded, or the build's version where it comes with Hearth.";

pub fn function_version() -> Object {
    let schema = number_or_text(None).pattern(Some("^[0-9][0-9A-Za-z.+-]*$"));
    schema.description(Some(FUNCTION_VERSION)).build()
}

pub fn function_version_or_null() -> Object {
    let schema = number_or_text(Some(Type::Null)).pattern(Some("^[0-9][0-9A-Za-z.+-]*$"));
    schema.description(Some(FUNCTION_VERSION)).build()
}

pub fn wanted_or_null() -> Object {
    let said = "A version's number, or `bundled` for what comes with Hearth.";
    number_or_text(Some(Type::Null)).pattern(Some("^bundled$")).description(Some(said)).build()
}

pub fn tenant_name_or_null() -> Object {
    or_null(tenant_name())
}

pub fn or_null(mut object: Object) -> Object {
    object.schema_type = SchemaType::from_iter([Type::String, Type::Null]);
    object
}

/// A schema that is a closed list of words, read off the variants of a type in `wire`.
macro_rules! words {
    ($(#[$doc:meta])* $schema:ident as $name:literal: $($word:expr),+ $(,)?) => {
        $(#[$doc])*
        pub struct $schema;

        impl utoipa::PartialSchema for $schema {
            fn schema() -> RefOr<Schema> {
                let words = [$(word(&$word)),+];
                ObjectBuilder::new()
                    .schema_type(SchemaType::Type(Type::String))
                    .enum_values(Some(words))
                    .into()
            }
        }

        impl utoipa::ToSchema for $schema {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }
        }
    };
}

fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => unreachable!("a variant without data is sent as a word, not as {other:?}"),
    }
}

words!(ScopeSchema as "Scope": Scope::Admin, Scope::Owner, Scope::Deploy, Scope::Invoke, Scope::Report);
words!(HandlerKindSchema as "HandlerKind": HandlerKind::IncomingHandler, HandlerKind::Handler);
words!(LogStreamSchema as "LogStream": LogStream::Stdout, LogStream::Stderr, LogStream::Host);
words!(
    LogLevelSchema as "LogLevel":
    LogLevel::Trace, LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error,
    LogLevel::Critical,
);
words!(PlaceSchema as "Place": Place::Body, Place::Querystring, Place::Headers);
words!(
    OutcomeSchema as "Outcome":
    Outcome::Answered, Outcome::Trapped, Outcome::MemoryLimit, Outcome::Timeout,
    Outcome::NoResponse, Outcome::ResponseInvalid, Outcome::Refused, Outcome::Abandoned,
    Outcome::Stopped,
);
words!(OriginSchema as "Origin": Origin::Outside, Origin::Api, Origin::Trigger, Origin::Internal);
words!(
    CodeSchema as "Code":
    Code::BadRequest, Code::InvalidPath, Code::InvalidModule, Code::SchemaViolation, Code::Unauthenticated,
    Code::Forbidden, Code::NotFound, Code::MethodNotAllowed, Code::Conflict, Code::TooLarge,
    Code::UnsupportedMediaType, Code::HeadersTooLarge, Code::RequestTimeout, Code::Misdirected,
    Code::TooManyRequests, Code::FunctionTrapped, Code::FunctionNoResponse,
    Code::ResponseInvalid, Code::MemoryLimit, Code::Timeout, Code::StorageFull, Code::Internal,
    Code::ModuleDamaged, Code::WorkerUnavailable,
);

/// What was done to change something.
pub struct ActionSchema;

impl utoipa::PartialSchema for ActionSchema {
    fn schema() -> RefOr<Schema> {
        let words = Action::ALL.iter().map(|action| action.as_str());
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .enum_values(Some(words))
            .into()
    }
}

impl utoipa::ToSchema for ActionSchema {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Action")
    }
}

/// A function's options, complete: as their table has them.
pub struct OptionsSchema;

/// Those that one layer says.
pub struct OptionsPatchSchema;

impl utoipa::PartialSchema for OptionsSchema {
    fn schema() -> RefOr<Schema> {
        let mut options = options("A function's options, complete.");
        for row in OPTIONS {
            options = options.required(row.name);
        }
        options.into()
    }
}

impl utoipa::ToSchema for OptionsSchema {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Options")
    }
}

impl utoipa::PartialSchema for OptionsPatchSchema {
    fn schema() -> RefOr<Schema> {
        options("What one place says of a function's options.").into()
    }
}

impl utoipa::ToSchema for OptionsPatchSchema {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("OptionsPatch")
    }
}

fn options(about: &str) -> ObjectBuilder {
    let defaults = serde_json::to_value(OptionsPatch::default().resolve());
    let defaults = defaults.expect("options are plain data");
    let object = ObjectBuilder::new().schema_type(Type::Object).description(Some(about));
    OPTIONS.iter().fold(object, |object, row| {
        let of = |kind| ObjectBuilder::new().schema_type(kind);
        let among = |words: &[&'static str]| of(Type::String).enum_values(Some(words.to_vec()));
        let (about, default) = (Some(row.about), Some(defaults[row.name].clone()));
        let one = |value: ObjectBuilder| -> Schema {
            value.description(about).default(default.clone()).into()
        };
        let list = |items: ObjectBuilder| -> Schema {
            let list = ArrayBuilder::new().items(items);
            list.description(about).default(default.clone()).into()
        };
        let value = match row.kind {
            OptionKind::Word(words) => one(among(words)),
            OptionKind::Words(words) => list(among(words)),
            OptionKind::Whole { min, max } => {
                let [min, max] = [min, max].map(|bound| Some(Number::UInt(bound as usize)));
                one(of(Type::Integer).minimum(min).maximum(max))
            }
            OptionKind::Truth => one(of(Type::Boolean)),
            OptionKind::Text => one(of(Type::String)),
            OptionKind::Origins => list(of(Type::String).examples(["https://app.example"])),
            OptionKind::Names => list(of(Type::String).examples(["carts"])),
            OptionKind::Schemas => {
                one(of(Type::Object).examples([serde_json::json!({"body": {"type": "object"}})]))
            }
        };
        object.property(row.name, value)
    })
}

// Never made: how `hearth_wire::Violation` looks.
/// Where a request breaks its schema.
#[derive(utoipa::ToSchema)]
#[schema(as = Violation)]
#[expect(dead_code, reason = "read by the derive only")]
pub struct ViolationSchema {
    #[schema(value_type = PlaceSchema)]
    r#in: (),
    /// A JSON pointer into the body, or into the object that query or headers make.
    pointer: String,
    message: String,
}

// Never made: how `hearth_wire::Problem` looks.
/// Why a request was refused (RFC 9457).
#[derive(utoipa::ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "read by the derive only")]
pub struct ProblemSchema {
    r#type: String,
    title: String,
    status: u16,
    /// What to do about it.
    detail: String,
    #[schema(value_type = CodeSchema)]
    code: (),
    /// Of a `schema_violation`: where and why.
    #[schema(required = false)]
    errors: Vec<ViolationSchema>,
    /// Of an `invalid_module` whose imports are not offered: all of these. Of an upload that may
    /// import nothing new: what it would import.
    #[schema(required = false)]
    imports: Vec<String>,
    /// The answer's `x-request-id`.
    #[schema(required = false)]
    request_id: String,
}

/// The `{tenant}` of an address.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "read by the derive only")]
pub struct TenantParam {
    #[param(pattern = "^[a-z0-9][a-z0-9-]{0,62}$", example = "demo")]
    tenant: String,
}

/// The `{tenant}` and `{path}` of an address.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "read by the derive only")]
pub struct FunctionParams {
    #[param(pattern = "^[a-z0-9][a-z0-9-]{0,62}$", example = "demo")]
    tenant: String,
    /// The function's path without its first slash, percent-encoded as one segment.
    #[param(example = "jobs%2Fnightly")]
    path: String,
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Hearth",
        description = "Manages a Hearth host: tenants, their functions and versions, configuration and secrets, what functions keep, tokens, workers, log lines and calls.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(ProblemSchema)),
    security(("bearer" = [])),
    tags(
        (name = "tenants"),
        (name = "functions"),
        (name = "worker"),
        (name = "settings", description = "What tenants tell their functions: configuration and secrets."),
        (name = "state", description = "What functions keep: key-value stores and databases."),
        (name = "tokens"),
        (name = "logs", description = "What functions wrote, and how their calls went."),
        (name = "audit", description = "Who changed what."),
        (name = "host", description = "The host's own state, and this document."),
    ),
)]
struct Document;

/// The document without its routes.
pub fn blank() -> OpenApi {
    let mut document = Document::openapi();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of the host (scope admin) or of one tenant."))
        .build();
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("bearer", SecurityScheme::Http(bearer));
    document
}

/// Adds the problems that follow from an operation's shape, so that no handler repeats them.
pub fn add_problems(document: &mut OpenApi) {
    for (address, item) in &mut document.paths.paths {
        let operations =
            [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            let mut add = |code: Code| {
                let status = code.status().as_u16().to_string();
                let responses = &mut operation.responses.responses;
                responses.entry(status).or_insert_with(|| problem(code.title()).into());
            };
            if operation.security.is_none() {
                add(Code::Unauthenticated);
                add(Code::Forbidden);
            }
            if address.contains('{') {
                add(Code::NotFound);
            }
            if operation.request_body.is_some() {
                add(Code::BadRequest);
                add(Code::TooLarge);
                add(Code::UnsupportedMediaType);
            }
            if operation.parameters.iter().flatten().any(|parameter| match parameter {
                RefOr::T(parameter) => parameter.parameter_in == ParameterIn::Query,
                RefOr::Ref(_) => false,
            }) {
                add(Code::BadRequest);
            }
            let other = problem("Any other refusal").into();
            operation.responses.responses.entry("default".to_owned()).or_insert(other);
        }
    }
}

fn problem(description: &str) -> Response {
    let body = Content::new(Some(Ref::from_schema_name("Problem")));
    ResponseBuilder::new().description(description).content(PROBLEM_JSON, body).build()
}

/// The document as it is sent: one for all who read it, at whatever pace.
#[derive(Clone)]
pub struct Rendered(Bytes);

impl Rendered {
    pub fn new(document: &OpenApi) -> Self {
        Self(serde_json::to_vec(document).expect("a document is plain data").into())
    }
}

/// This document
#[utoipa::path(
    get, path = "/api/openapi.json", operation_id = "openapi", tag = "host", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Object)),
)]
pub async fn openapi(Extension(document): Extension<Rendered>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], document.0)
}

#[cfg(test)]
pub mod tests {
    use hearth_wire::{Problem, RequestId, Violation};
    use serde_json::Value;
    use utoipa::PartialSchema;

    use super::*;

    pub fn properties(schema: RefOr<Schema>) -> Vec<String> {
        let schema = serde_json::to_value(schema).unwrap();
        let Value::Object(properties) = &schema["properties"] else { panic!("{schema}") };
        properties.keys().cloned().collect()
    }

    pub fn keys(sent: impl Serialize) -> Vec<String> {
        let Value::Object(sent) = serde_json::to_value(sent).unwrap() else { panic!() };
        sent.keys().cloned().collect()
    }

    #[test]
    fn options_are_described_as_they_are_sent() {
        let sent = keys(OptionsPatch::default().resolve());
        assert_eq!(properties(OptionsSchema::schema()), sent);
        assert_eq!(properties(OptionsPatchSchema::schema()), sent);
        let schema = serde_json::to_value(OptionsSchema::schema()).unwrap();
        let required = schema["required"].as_array().unwrap();
        assert_eq!(required.len(), sent.len());
        assert!(sent.iter().all(|name| required.contains(&name.as_str().into())), "{schema}");
        let timeout = &schema["properties"]["timeout_ms"];
        assert_eq!((&timeout["minimum"], &timeout["maximum"]), (&1.into(), &300_000.into()));
        assert_eq!(timeout["default"], 30_000);
        let of_auth: Vec<_> = schema["properties"]["auth"]["enum"].as_array().unwrap().clone();
        assert!(of_auth.contains(&"invoke".into()) && !of_auth.contains(&"admin".into()));
    }

    /// What is described is what is taken, tried by a validator that is not ours.
    #[test]
    fn options_are_taken_as_they_are_described() {
        let mut schemas = boon::Schemas::new();
        let mut compiler = boon::Compiler::new();
        let schema = serde_json::to_value(OptionsPatchSchema::schema()).unwrap();
        compiler.add_resource("options.json", schema).unwrap();
        let index = compiler.compile("options.json", &mut schemas).unwrap();
        for (option, taken) in [
            (r#"{}"#, true),
            (r#"{"methods":["GET"],"reuse":10000,"auth":"owner","cors":["*"]}"#, true),
            (r#"{"reuse":10001}"#, false),
            (r#"{"timeout_ms":0}"#, false),
            (r#"{"methods":["TRACE"]}"#, false),
            (r#"{"path":"below"}"#, false),
            (r#"{"strip_prefix":1}"#, false),
            (r#"{"description":1}"#, false),
        ] {
            let value = serde_json::from_str(option).unwrap();
            assert_eq!(schemas.validate(&value, index).is_ok(), taken, "{option}");
            assert_eq!(OptionsPatch::parse(option).is_ok(), taken, "{option}");
        }
    }

    #[test]
    fn problems_are_described_as_they_are_sent() {
        let errors = vec![violation()];
        let problem = Problem::new(Code::SchemaViolation, "");
        let imports = vec![String::new()];
        let problem =
            Problem { errors, imports, ..problem }.of_request(RequestId::from_random([0; 16]));
        assert_eq!(properties(ProblemSchema::schema()), keys(problem));
    }

    fn violation() -> Violation {
        Violation { place: Place::Body, pointer: String::new(), message: String::new() }
    }

    #[test]
    fn violations_are_described_as_they_are_sent() {
        assert_eq!(properties(ViolationSchema::schema()), keys(violation()));
    }

    #[test]
    fn every_action_is_listed() {
        let schema = serde_json::to_value(ActionSchema::schema()).unwrap();
        let words: Vec<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
        assert_eq!(schema["enum"], serde_json::to_value(words).unwrap());
    }

    #[test]
    fn every_scope_is_listed() {
        let schema = serde_json::to_value(ScopeSchema::schema()).unwrap();
        assert_eq!(schema["enum"], serde_json::to_value(Scope::ALL).unwrap());
    }
}
