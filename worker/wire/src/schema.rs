//! A function's schemas as its options hold them: JSON, bounded and in its place. What they mean
//! is `hearth-schema`'s, which the compiler's jail tries before they are kept.

use std::collections::BTreeMap;

use hearth_options::Kind;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// Why something is not a function's schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the option `schema` must be {}", Kind::Schemas.expected())]
pub struct SchemaPlaceError;

/// One JSON Schema, unread: a worker that starts has a hundred of them, and needs few.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema(Box<RawValue>);

impl Schema {
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Schema {}

/// For which answers a schema is: a status, a class of them, or all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Answers {
    Status(u16),
    /// The first of three digits.
    Class(u16),
    Others,
}

impl TryFrom<String> for Answers {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        match text.as_str() {
            "default" => Ok(Self::Others),
            "2xx" | "3xx" | "4xx" | "5xx" => Ok(Self::Class(u16::from(text.as_bytes()[0] - b'0'))),
            status if status.len() == 3 && digits(status) => match status.parse() {
                Ok(status @ 200..600) => Ok(Self::Status(status)),
                _ => Err("no status"),
            },
            _ => Err("no status"),
        }
    }
}

impl From<Answers> for String {
    fn from(answers: Answers) -> Self {
        match answers {
            Answers::Status(status) => status.to_string(),
            Answers::Class(class) => format!("{class}xx"),
            Answers::Others => "default".to_owned(),
        }
    }
}

/// Where each is used. Empty by default: nothing is looked at then.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schemas {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Schema>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub querystring: Option<Schema>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Schema>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub response: BTreeMap<Answers, Schema>,
}

impl Schemas {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The one for an answer of this status: its own before its class's, that before the others'.
    pub fn response(&self, status: u16) -> Option<(Answers, &Schema)> {
        [Answers::Status(status), Answers::Class(status / 100), Answers::Others]
            .into_iter()
            .find_map(|answers| Some((answers, self.response.get(&answers)?)))
    }

    /// Whether schemas, or nulls in the place of some, are where schemas can be.
    pub(crate) fn check_places(value: &Value) -> Result<(), SchemaPlaceError> {
        let Value::Object(places) = value else { return Ok(()) };
        let is_answers = |status: &String| Answers::try_from(status.clone()).is_ok();
        let known = places.iter().all(|(place, value)| match (place.as_str(), value) {
            ("response", Value::Object(response)) => response.keys().all(is_answers),
            (place, _) => ["body", "querystring", "headers", "response"].contains(&place),
        });
        if known { Ok(()) } else { Err(SchemaPlaceError) }
    }

    /// Whether schemas are told apart there, each by its key.
    pub(crate) fn is_open(place: &[&str]) -> bool {
        matches!(place, [] | ["response"])
    }

    pub fn from_value(value: Value) -> Result<Self, SchemaPlaceError> {
        // A list would do for serde as well.
        let object = value.is_object().then_some(value).ok_or(SchemaPlaceError)?;
        let schemas: Self = serde_json::from_value(object).map_err(|_| SchemaPlaceError)?;
        let begins = |schema: &Schema| matches!(schema.as_str().as_bytes()[0], b'{' | b't' | b'f');
        if schemas.all().all(begins) { Ok(schemas) } else { Err(SchemaPlaceError) }
    }

    fn all(&self) -> impl Iterator<Item = &Schema> {
        [&self.body, &self.querystring, &self.headers]
            .into_iter()
            .flatten()
            .chain(self.response.values())
    }

    /// These, and those of `base` where there is none here.
    pub(crate) fn over(self, base: Self) -> Self {
        let mut response = base.response;
        response.extend(self.response);
        Self {
            body: self.body.or(base.body),
            querystring: self.querystring.or(base.querystring),
            headers: self.headers.or(base.headers),
            response,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answers_schema_is_the_most_exact_one() {
        let schemas = serde_json::json!({"response": {"200": {}, "2xx": true, "default": false}});
        let schemas = Schemas::from_value(schemas).unwrap();
        let found = |status| schemas.response(status).map(|(_, schema)| schema.as_str());
        assert_eq!([found(200), found(201), found(500)], [Some("{}"), Some("true"), Some("false")]);
        assert_eq!(Schemas::default().response(200), None);
    }
}
