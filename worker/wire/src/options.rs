//! A function's options: what its module declares, and over that what was said at upload.
//!
//! [`OptionsPatch`] is what somebody wrote (each key may be missing); [`Options`] is what it
//! comes to. Only this file knows the keys.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::limits;
use crate::token::Scope;

/// Why options were refused. The text names the key and is fit for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("options are no JSON: {0}")]
    Json(String),
    #[error("options must be a JSON object, like {{\"methods\":[\"GET\",\"POST\"]}}")]
    NoObject,
    #[error("`{0}` is no option; there are {known}", known = KEYS.join(", "))]
    UnknownKey(String),
    #[error("the option `{0}` is not supported by this version of Hearth")]
    NotSupported(&'static str),
    #[error("the option `{key}` must be {expected}")]
    Value { key: &'static str, expected: String },
}

const KEYS: [&str; 7] =
    ["methods", "path", "auth", "timeout_ms", "memory_mb", "max_body", "description"];
/// Keys of the contract that this version does not serve yet: refused by name, so that nobody
/// believes that a schema is checked or an origin allowed.
const KEYS_TO_COME: [&str; 6] = ["schema", "cors", "reuse", "schedule", "websocket", "batch"];

/// Which requests below a function's path are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathMatch {
    #[default]
    Exact,
    /// Everything below the path too, by whole segments.
    Prefix,
}

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Auth {
    #[default]
    Public,
    /// A token of the tenant that covers this scope.
    Scope(Scope),
}

impl fmt::Display for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("public"),
            Self::Scope(scope) => scope.fmt(f),
        }
    }
}

impl TryFrom<String> for Auth {
    type Error = &'static str;

    /// Admin is refused: an admin token is never accepted on a tenant's addresses.
    fn try_from(text: String) -> Result<Self, &'static str> {
        match text.as_str() {
            "public" => Ok(Self::Public),
            scope => match scope.parse() {
                Ok(Scope::Admin) | Err(_) => Err("one of public, owner, deploy, invoke, report"),
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
    pub auth: Option<Auth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl OptionsPatch {
    pub fn parse(json: &str) -> Result<Self, OptionsError> {
        match serde_json::from_str(json).map_err(|e| OptionsError::Json(e.to_string()))? {
            Value::Object(object) => Self::from_object(object),
            _ => Err(OptionsError::NoObject),
        }
    }

    pub fn from_object(object: Map<String, Value>) -> Result<Self, OptionsError> {
        let mut patch = Self::default();
        for (key, value) in object {
            match key.as_str() {
                "methods" => patch.methods = Some(methods(value)?),
                "path" => patch.path = Some(parsed("path", "\"exact\" or \"prefix\"", value)?),
                "auth" => {
                    let expected = "one of public, owner, deploy, invoke, report";
                    patch.auth = Some(parsed("auth", expected, value)?);
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
                other => {
                    return Err(match KEYS_TO_COME.into_iter().find(|known| *known == other) {
                        Some(known) => OptionsError::NotSupported(known),
                        None => OptionsError::UnknownKey(other.to_owned()),
                    });
                }
            }
        }
        Ok(patch)
    }

    /// These options, and those of `base` where these say nothing.
    pub fn over(self, base: Self) -> Self {
        Self {
            methods: self.methods.or(base.methods),
            path: self.path.or(base.path),
            auth: self.auth.or(base.auth),
            timeout_ms: self.timeout_ms.or(base.timeout_ms),
            memory_mb: self.memory_mb.or(base.memory_mb),
            max_body: self.max_body.or(base.max_body),
            description: self.description.or(base.description),
        }
    }

    pub fn resolve(self) -> Options {
        Options {
            methods: self.methods.unwrap_or_else(|| vec!["POST".to_owned()]),
            path: self.path.unwrap_or_default(),
            auth: self.auth.unwrap_or_default(),
            timeout_ms: self.timeout_ms.unwrap_or(limits::TIMEOUT_MS_DEFAULT),
            memory_mb: self.memory_mb.unwrap_or(limits::MEMORY_MB_DEFAULT),
            max_body: self.max_body.unwrap_or(limits::BODY_DEFAULT_BYTES),
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
    pub auth: Auth,
    pub timeout_ms: u32,
    pub memory_mb: u32,
    pub max_body: u64,
    pub description: String,
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
                auth: Auth::Public,
                timeout_ms: 30_000,
                memory_mb: 64,
                max_body: 10 << 20,
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
            ("{", "options are no JSON: "),
            ("[]", "options must be a JSON object"),
            (r#"{"metods":[]}"#, "`metods` is no option; there are methods, path"),
            (r#"{"schema":{}}"#, "the option `schema` is not supported"),
            (r#"{"websocket":true}"#, "the option `websocket` is not supported"),
            (r#"{"methods":[]}"#, "the option `methods` must be a list"),
            (r#"{"methods":["TRACE"]}"#, "the option `methods` must be a list"),
            (r#"{"methods":"GET"}"#, "the option `methods` must be a list"),
            (r#"{"path":"regex"}"#, "the option `path` must be \"exact\""),
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
        let patch =
            OptionsPatch::parse(r#"{"path":"prefix","auth":"owner","max_body":1}"#).unwrap();
        let json = serde_json::to_string(&patch).unwrap();
        assert_eq!(OptionsPatch::parse(&json), Ok(patch));
    }
}
