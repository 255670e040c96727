//! A value of SQL in JSON: null, numbers and text as themselves, a blob as `{"base64": "…"}`. JSON
//! has no number without end, which SQLite has: `{"real": "Infinity"}` and `{"real": "-Infinity"}`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const BLOB: &str = "base64";
const REAL: &str = "real";
const INFINITY: &str = "Infinity";
const MINUS_INFINITY: &str = "-Infinity";

#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    Null,
    Integer(i64),
    /// SQLite has none that is not a number.
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

impl Serialize for SqlValue {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let one = |to: S, key: &str, value: &str| {
            let mut map = to.serialize_map(Some(1))?;
            map.serialize_entry(key, value)?;
            map.end()
        };
        match self {
            Self::Null => to.serialize_unit(),
            Self::Integer(number) => to.serialize_i64(*number),
            Self::Real(number) if *number == f64::INFINITY => one(to, REAL, INFINITY),
            Self::Real(number) if *number == f64::NEG_INFINITY => one(to, REAL, MINUS_INFINITY),
            Self::Real(number) => to.serialize_f64(*number),
            Self::Text(text) => to.serialize_str(text),
            Self::Blob(bytes) => one(to, BLOB, &STANDARD.encode(bytes)),
        }
    }
}

impl<'de> Deserialize<'de> for SqlValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Read)
    }
}

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = SqlValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a number, text, true, false or {\"base64\": \"…\"}")
    }

    fn visit_unit<E: Error>(self) -> Result<SqlValue, E> {
        Ok(SqlValue::Null)
    }

    /// SQLite has none of its own.
    fn visit_bool<E: Error>(self, truth: bool) -> Result<SqlValue, E> {
        Ok(SqlValue::Integer(truth.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<SqlValue, E> {
        Ok(SqlValue::Integer(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<SqlValue, E> {
        let number = i64::try_from(number);
        number.map(SqlValue::Integer).map_err(|_| E::custom("an integer is at most 2^63-1"))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<SqlValue, E> {
        Ok(SqlValue::Real(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SqlValue, E> {
        Ok(SqlValue::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<SqlValue, E> {
        Ok(SqlValue::Text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SqlValue, A::Error> {
        let entry = map.next_entry::<String, String>()?;
        let value = match entry.as_ref().map(|(key, value)| (&**key, &**value)) {
            Some((BLOB, text)) => {
                let bytes = STANDARD.decode(text);
                SqlValue::Blob(bytes.map_err(|_| A::Error::custom("`base64` is not valid base64"))?)
            }
            Some((REAL, INFINITY)) => SqlValue::Real(f64::INFINITY),
            Some((REAL, MINUS_INFINITY)) => SqlValue::Real(f64::NEG_INFINITY),
            Some(_) | None => {
                return Err(A::Error::custom("an object here is {\"base64\": \"…\"}"));
            }
        };
        match map.next_key::<String>()? {
            None => Ok(value),
            Some(_) => Err(A::Error::custom("an object here is {\"base64\": \"…\"} alone")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_in_json_and_back() {
        for (value, json) in [
            (SqlValue::Null, "null"),
            (SqlValue::Integer(i64::MIN), "-9223372036854775808"),
            (SqlValue::Integer(7), "7"),
            (SqlValue::Real(7.0), "7.0"),
            (SqlValue::Real(0.1), "0.1"),
            (SqlValue::Real(f64::INFINITY), r#"{"real":"Infinity"}"#),
            (SqlValue::Real(f64::NEG_INFINITY), r#"{"real":"-Infinity"}"#),
            (SqlValue::Text("a \"b\"".into()), r#""a \"b\"""#),
            (SqlValue::Blob(vec![0, 255]), r#"{"base64":"AP8="}"#),
            (SqlValue::Blob(vec![]), r#"{"base64":""}"#),
        ] {
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
            assert_eq!(serde_json::from_str::<SqlValue>(json).unwrap(), value);
        }
        assert_eq!(serde_json::from_str::<SqlValue>("true").unwrap(), SqlValue::Integer(1));
    }

    #[test]
    fn what_is_none() {
        for (json, said) in [
            ("9223372036854775808", "at most 2^63-1"),
            ("[1]", "expected null, a number"),
            ("{}", "an object here is"),
            (r#"{"base64":"?"}"#, "not valid base64"),
            (r#"{"base64":1}"#, "expected a string"),
            (r#"{"base64":"","more":""}"#, "alone"),
            (r#"{"real":"NaN"}"#, "an object here is"),
        ] {
            let error = serde_json::from_str::<SqlValue>(json).unwrap_err().to_string();
            assert!(error.contains(said), "{json}: {error}");
        }
    }
}
