//! A function's options: what its module declares, and over that what was said at upload.
//!
//! [`OptionsPatch`] is what somebody wrote (each key may be missing); [`Options`] is what it
//! comes to. Only this file knows the keys.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cors::Cors;
use crate::json;
use crate::limits::{self, Limits};
use crate::schema::Schemas;
use crate::token::Scope;

/// Why options were refused. The text names the key and is fit for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("the options cannot be read: {0}")]
    Json(String),
    #[error("options must be a JSON object, like {{\"methods\":[\"GET\",\"POST\"]}}")]
    NoObject,
    #[error("`{0}` is no option; there are {known}", known = KEYS.join(", "))]
    UnknownKey(String),
    #[error("the option `{0}` is not supported by this version of Hearth")]
    NotSupported(&'static str),
    #[error("the option `{key}` must be {expected}")]
    Value { key: &'static str, expected: String },
    #[error("the option `{key}` asks for {asked}, and this tenant's limit is {limit}")]
    AboveLimit { key: &'static str, asked: u64, limit: u64 },
    #[error(
        "`max_body` is {0} bytes, and a body with a schema may have {most}: lower one or leave out the other",
        most = limits::CHECKED_BODY_MAX_BYTES
    )]
    CheckedBody(u64),
}

const KEYS: [&str; 11] = [
    "methods",
    "path",
    "strip_prefix",
    "auth",
    "cors",
    "schema",
    "timeout_ms",
    "memory_mb",
    "max_body",
    "reuse",
    "description",
];
/// Keys of the contract that this version does not serve yet: refused by name, so that nobody
/// believes that a schedule is kept or a socket opened.
const KEYS_TO_COME: [&str; 3] = ["schedule", "websocket", "batch"];

/// Which requests beside those at a function's path are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathMatch {
    #[default]
    Exact,
    /// Everything below the path too, by whole segments.
    Prefix,
    /// That, and whatever no other function of the tenant takes, `/` included.
    Root,
}

impl PathMatch {
    /// Whether what is below its path is the function's too.
    pub fn takes_below(self) -> bool {
        match self {
            Self::Exact => false,
            Self::Prefix | Self::Root => true,
        }
    }
}

const AUTHS: &str = "one of public, owner, deploy, invoke, report, internal";

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Auth {
    #[default]
    Public,
    /// A token of the tenant that covers this scope.
    Scope(Scope),
    /// The platform alone: triggers, the tenant's own functions, and its owner through the API.
    Internal,
}

impl fmt::Display for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("public"),
            Self::Scope(scope) => scope.fmt(f),
            Self::Internal => f.write_str("internal"),
        }
    }
}

impl TryFrom<String> for Auth {
    type Error = &'static str;

    /// Admin is refused: an admin token is never accepted on a tenant's addresses.
    fn try_from(text: String) -> Result<Self, &'static str> {
        match text.as_str() {
            "public" => Ok(Self::Public),
            "internal" => Ok(Self::Internal),
            scope => match scope.parse() {
                Ok(Scope::Admin) | Err(_) => Err(AUTHS),
                Ok(scope) => Ok(Self::Scope(scope)),
            },
        }
    }
}

impl From<Auth> for String {
    fn from(auth: Auth) -> String {
        auth.to_string()
    }
}

/// Options as written, by a module or at an upload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionsPatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    #[serde(default, skip_serializing_if = "Schemas::is_empty")]
    pub schema: Schemas,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl OptionsPatch {
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        match json::parse(text.as_bytes()).map_err(|e| OptionsError::Json(e.to_string()))? {
            Value::Object(object) => Self::from_object(object),
            _ => Err(OptionsError::NoObject),
        }
    }

    pub fn from_object(object: Map<String, Value>) -> Result<Self, OptionsError> {
        let mut patch = Self::default();
        for (key, value) in object {
            match key.as_str() {
                "methods" => patch.methods = Some(methods(value)?),
                "path" => {
                    let expected = "\"exact\", \"prefix\" or \"root\"";
                    patch.path = Some(parsed("path", expected, value)?);
                }
                "strip_prefix" => {
                    patch.strip_prefix = Some(parsed("strip_prefix", "true or false", value)?);
                }
                "auth" => {
                    patch.auth = Some(parsed("auth", AUTHS, value)?);
                }
                "cors" => {
                    let expected =
                        "a list of origins, such as [\"https://app.example\"], or \"*\" for any";
                    patch.cors = Some(parsed("cors", expected, value)?);
                }
                "schema" => patch.schema = Schemas::from_value(value)?,
                "reuse" => {
                    let max = limits::REUSE_MAX.into();
                    patch.reuse = Some(whole("reuse", max, &value)? as u32);
                }
                "timeout_ms" => {
                    let max = limits::TIMEOUT_MS_MAX.into();
                    patch.timeout_ms = Some(whole("timeout_ms", max, &value)? as u32);
                }
                "memory_mb" => {
                    let max = limits::MEMORY_MB_MAX.into();
                    patch.memory_mb = Some(whole("memory_mb", max, &value)? as u32);
                }
                "max_body" => {
                    patch.max_body = Some(whole("max_body", limits::BODY_MAX_BYTES, &value)?)
                }
                "description" => {
                    patch.description = Some(parsed("description", "a text", value)?);
                }
                other => return Err(unknown(other)),
            }
        }
        Ok(patch)
    }

    /// These options, and those of `base` where these say nothing. Each schema is an option.
    pub fn over(self, base: Self) -> Self {
        Self {
            methods: self.methods.or(base.methods),
            path: self.path.or(base.path),
            strip_prefix: self.strip_prefix.or(base.strip_prefix),
            auth: self.auth.or(base.auth),
            cors: self.cors.or(base.cors),
            schema: self.schema.over(base.schema),
            timeout_ms: self.timeout_ms.or(base.timeout_ms),
            memory_mb: self.memory_mb.or(base.memory_mb),
            max_body: self.max_body.or(base.max_body),
            reuse: self.reuse.or(base.reuse),
            description: self.description.or(base.description),
        }
    }

    /// With these set as well, or taken away where they are null. Each schema is an option.
    pub fn changed(self, changes: Map<String, Value>) -> Result<Self, OptionsError> {
        for (key, value) in &changes {
            match (key.as_str(), value) {
                ("schema", Value::Object(schemas)) => Schemas::check_places(schemas)?,
                (key, _) if KEYS.contains(&key) => {}
                (key, _) => return Err(unknown(key)),
            }
        }
        let Value::Object(mut options) = serde_json::to_value(self).expect("it is plain data")
        else {
            return Err(OptionsError::NoObject);
        };
        merge(&mut options, changes, &[&["schema"], &["schema", "response"]], &[]);
        Self::from_object(options)
    }

    /// Refuses what goes beyond the tenant's limits, or does not go together.
    pub fn check(&self, limits: &Limits) -> Result<(), OptionsError> {
        for (key, asked, limit) in [
            ("timeout_ms", self.timeout_ms.map(u64::from), limits.timeout_ms),
            ("memory_mb", self.memory_mb.map(u64::from), limits.memory_mb),
            ("max_body", self.max_body, limits.max_body),
        ] {
            if let Some(asked) = asked.filter(|&asked| asked > limit) {
                return Err(OptionsError::AboveLimit { key, asked, limit });
            }
        }
        match self.max_body {
            Some(most) if self.schema.body.is_some() && most > limits::CHECKED_BODY_MAX_BYTES => {
                Err(OptionsError::CheckedBody(most))
            }
            _ => Ok(()),
        }
    }

    pub fn resolve(self) -> Options {
        Options {
            methods: self.methods.unwrap_or_else(|| vec!["POST".to_owned()]),
            path: self.path.unwrap_or_default(),
            strip_prefix: self.strip_prefix.unwrap_or_default(),
            auth: self.auth.unwrap_or_default(),
            cors: self.cors.unwrap_or_default(),
            schema: self.schema,
            timeout_ms: self.timeout_ms.unwrap_or(limits::TIMEOUT_MS_DEFAULT),
            memory_mb: self.memory_mb.unwrap_or(limits::MEMORY_MB_DEFAULT),
            max_body: self.max_body.unwrap_or(limits::BODY_DEFAULT_BYTES),
            reuse: self.reuse.unwrap_or(1),
            description: self.description.unwrap_or_default(),
        }
    }
}

/// A function's options, complete. `timeout_ms` in milliseconds, `memory_mb` in MiB, `max_body`
/// in bytes, each between 1 and its bound in [`limits`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Upper-case method names, at least one.
    pub methods: Vec<String>,
    pub path: PathMatch,
    /// Whether the guest sees what follows the function's own path in the place of all of it.
    pub strip_prefix: bool,
    pub auth: Auth,
    pub cors: Cors,
    pub schema: Schemas,
    pub timeout_ms: u32,
    pub memory_mb: u32,
    pub max_body: u64,
    /// Calls that one instance may serve, one after the other.
    pub reuse: u32,
    pub description: String,
}

impl Options {
    /// No more than the tenant's limits, which may have been lowered since these were written.
    pub fn within(mut self, limits: &Limits) -> Self {
        let at_most = |asked: u32, limit: u64| u32::try_from(limit).map_or(asked, |l| asked.min(l));
        self.timeout_ms = at_most(self.timeout_ms, limits.timeout_ms);
        self.memory_mb = at_most(self.memory_mb, limits.memory_mb);
        self.max_body = self.max_body.min(limits.max_body);
        self
    }
}

fn unknown(key: &str) -> OptionsError {
    match KEYS_TO_COME.into_iter().find(|known| *known == key) {
        Some(known) => OptionsError::NotSupported(known),
        None => OptionsError::UnknownKey(key.to_owned()),
    }
}

/// Lays one object over another (RFC 7396), but only these objects in it are gone into: all
/// other values are whole.
fn merge(
    base: &mut Map<String, Value>,
    changes: Map<String, Value>,
    open: &[&[&str]],
    at: &[&str],
) {
    for (key, value) in changes {
        let place = [at, &[key.as_str()]].concat();
        match value {
            Value::Null => drop(base.remove(&key)),
            Value::Object(changes) if open.contains(&place.as_slice()) => {
                let below = base.entry(&key).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(below) = below {
                    merge(below, changes, open, &place);
                }
            }
            value => drop(base.insert(key.clone(), value)),
        }
    }
}

fn parsed<T: serde::de::DeserializeOwned>(
    key: &'static str,
    expected: &str,
    value: Value,
) -> Result<T, OptionsError> {
    serde_json::from_value(value)
        .map_err(|_| OptionsError::Value { key, expected: expected.to_owned() })
}

fn whole(key: &'static str, max: u64, value: &Value) -> Result<u64, OptionsError> {
    value.as_u64().filter(|number| (1..=max).contains(number)).ok_or_else(|| OptionsError::Value {
        key,
        expected: format!("a whole number from 1 to {max}"),
    })
}

/// The methods that reach a guest. CONNECT and TRACE are the platform's to refuse.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

fn methods(value: Value) -> Result<Vec<String>, OptionsError> {
    let refused = || OptionsError::Value {
        key: "methods",
        expected: format!("a list of at least one of {}", METHODS.join(", ")),
    };
    let mut methods: Vec<String> = serde_json::from_value(value).map_err(|_| refused())?;
    methods.sort();
    methods.dedup();
    let valid = !methods.is_empty() && methods.iter().all(|m| METHODS.contains(&m.as_str()));
    if valid { Ok(methods) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_contract() {
        assert_eq!(
            OptionsPatch::default().resolve(),
            Options {
                methods: vec!["POST".into()],
                path: PathMatch::Exact,
                strip_prefix: false,
                auth: Auth::Public,
                cors: Cors::default(),
                schema: Schemas::default(),
                timeout_ms: 30_000,
                memory_mb: 64,
                max_body: 10 << 20,
                reuse: 1,
                description: String::new(),
            }
        );
    }

    #[test]
    fn an_upload_speaks_over_the_module() {
        let module = OptionsPatch::parse(r#"{"methods":["GET"],"auth":"invoke"}"#).unwrap();
        let upload = OptionsPatch::parse(r#"{"auth":"public","timeout_ms":5}"#).unwrap();
        let both = upload.over(module).resolve();
        assert_eq!(
            (both.methods, both.auth, both.timeout_ms),
            (vec!["GET".into()], Auth::Public, 5)
        );
    }

    #[test]
    fn refusals_name_the_key() {
        for (json, said) in [
            ("{", "the options cannot be read: "),
            (
                r#"{"auth":"owner","auth":"public"}"#,
                "the options cannot be read: the key \"auth\" stands twice in one object",
            ),
            (
                r#"{"schema":{"body":{"properties":{"a":{},"a":true}}}}"#,
                "the options cannot be read: the key \"a\" stands twice in one object",
            ),
            ("[]", "options must be a JSON object"),
            (r#"{"metods":[]}"#, "`metods` is no option; there are methods, path"),
            (r#"{"schema":[]}"#, "the option `schema` must be an object"),
            (r#"{"schema":{"boddy":{}}}"#, "the option `schema` must be an object"),
            (r#"{"schema":{"body":1}}"#, "the option `schema` must be an object"),
            (r#"{"schema":{"response":{"20":{}}}}"#, "the option `schema` must be an object"),
            (r#"{"schedule":"* * * * *"}"#, "the option `schedule` is not supported"),
            (r#"{"cors":"app.example"}"#, "the option `cors` must be a list of origins"),
            (r#"{"cors":["https://app.example/"]}"#, "the option `cors` must be a list"),
            (r#"{"reuse":10001}"#, "the option `reuse` must be a whole number from 1 to 10000"),
            (r#"{"websocket":true}"#, "the option `websocket` is not supported"),
            (r#"{"methods":[]}"#, "the option `methods` must be a list"),
            (r#"{"methods":["TRACE"]}"#, "the option `methods` must be a list"),
            (r#"{"methods":"GET"}"#, "the option `methods` must be a list"),
            (r#"{"path":"regex"}"#, "the option `path` must be \"exact\", \"prefix\" or \"root\""),
            (r#"{"path":"Root"}"#, "the option `path` must be \"exact\""),
            (r#"{"strip_prefix":"yes"}"#, "the option `strip_prefix` must be true or false"),
            (r#"{"auth":"admin"}"#, "the option `auth` must be one of"),
            (
                r#"{"timeout_ms":0}"#,
                "the option `timeout_ms` must be a whole number from 1 to 300000",
            ),
            (r#"{"timeout_ms":1.5}"#, "the option `timeout_ms` must be a whole number"),
            (r#"{"memory_mb":257}"#, "the option `memory_mb` must be a whole number from 1 to 256"),
            (r#"{"description":1}"#, "the option `description` must be a text"),
        ] {
            let error = OptionsPatch::parse(json).unwrap_err().to_string();
            assert!(error.starts_with(said), "{json}: {error}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let patch = OptionsPatch::parse(
            r#"{"path":"root","strip_prefix":true,"auth":"owner","max_body":1,"cors":["https://a.example"],"reuse":7,
                "schema":{"body":{"type":"object"},"response":{"200":true,"4xx":{"type":"null"}}}}"#,
        )
        .unwrap();
        let json = serde_json::to_string(&patch).unwrap();
        assert_eq!(OptionsPatch::parse(&json), Ok(patch));
    }

    #[test]
    fn each_schema_is_laid_over_by_itself() {
        let module = r#"{"schema":{"body":{"a":1},"response":{"200":true,"500":true}}}"#;
        let upload = r#"{"schema":{"querystring":true,"response":{"200":false}}}"#;
        let both = OptionsPatch::parse(upload).unwrap().over(OptionsPatch::parse(module).unwrap());
        assert_eq!(
            serde_json::to_string(&both).unwrap(),
            r#"{"schema":{"body":{"a":1},"querystring":true,"response":{"200":false,"500":true}}}"#
        );
    }

    #[test]
    fn a_change_takes_away_what_is_null() {
        let change = |options: &str, changes: &str| {
            let changes = serde_json::from_str(changes).unwrap();
            let changed = OptionsPatch::parse(options).unwrap().changed(changes);
            changed.map(|options| serde_json::to_string(&options).unwrap())
        };
        for (options, changes, result) in [
            (r#"{"auth":"owner"}"#, r#"{"reuse":2}"#, r#"{"auth":"owner","reuse":2}"#),
            (r#"{"auth":"owner","reuse":2}"#, r#"{"auth":null}"#, r#"{"reuse":2}"#),
            (
                r#"{"schema":{"body":{"a":1},"response":{"200":true,"500":true}}}"#,
                r#"{"schema":{"body":{"b":null},"response":{"200":null}}}"#,
                r#"{"schema":{"body":{"b":null},"response":{"500":true}}}"#,
            ),
            (r#"{"schema":{"body":{"a":1}}}"#, r#"{"schema":{"body":null}}"#, "{}"),
            (r#"{"schema":{"body":{"a":1}}}"#, r#"{"schema":null}"#, "{}"),
        ] {
            assert_eq!(change(options, changes).as_deref(), Ok(result), "{options} {changes}");
        }
        for wrong in [
            r#"{"nix":1}"#,
            r#"{"nix":null}"#,
            r#"{"batch":null}"#,
            r#"{"schema":{"boddy":null}}"#,
            r#"{"schema":{"response":{"20":null}}}"#,
        ] {
            assert!(change("{}", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_tenants_limits_bound_what_is_asked_for_and_what_was() {
        let limits = Limits { memory_mb: 32, ..Limits::default() };
        let asks = |json: &str| OptionsPatch::parse(json).unwrap().check(&limits);
        assert_eq!(asks(r#"{"memory_mb":32}"#), Ok(()));
        assert_eq!(
            asks(r#"{"memory_mb":33}"#).unwrap_err().to_string(),
            "the option `memory_mb` asks for 33, and this tenant's limit is 32"
        );
        let checked = |bytes: u64| {
            asks(&format!(r#"{{"max_body":{bytes},"schema":{{"body":true}}}}"#)).is_ok()
        };
        assert!(checked(limits::CHECKED_BODY_MAX_BYTES));
        assert!(!checked(limits::CHECKED_BODY_MAX_BYTES + 1));
        let options = OptionsPatch::default().resolve().within(&limits);
        assert_eq!((options.memory_mb, options.timeout_ms), (32, 30_000));
    }
}
