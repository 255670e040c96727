//! JSON that comes from outside, read in the one way in which everybody reads it.
//!
//! Of some texts two readers make two things. Where a key stands twice in one object, some take its
//! first value and some its last; and there are keys by which serde_json's own types tell each other
//! what they are, which it obeys in any text. Such texts are refused here, so that what was checked is
//! what is read later, be it by a guest or by another part of the platform.
//!
//! What readers make of a number, `hearth-schema` knows.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Error, Map, Number, Value};

/// With which the keys begin that mean something to serde_json.
const RESERVED: &str = "$serde_json::private::";

/// The value of a whole text.
pub fn parse(text: &[u8]) -> Result<Value, Error> {
    parse_numbers(text, &mut |number| number)
}

/// The same, with something else in the place of each number. They come as they stand in the text.
pub fn parse_numbers(
    text: &[u8],
    number: &mut dyn FnMut(Number) -> Number,
) -> Result<Value, Error> {
    let mut text = serde_json::Deserializer::from_slice(text);
    let value = Reader { number }.deserialize(&mut text)?;
    text.end()?;
    Ok(value)
}

/// A whole text as a type of its own. What is in it that is untyped is unambiguous as well.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    parse(text)?;
    serde_json::from_slice(text)
}

struct Reader<'a> {
    number: &'a mut dyn FnMut(Number) -> Number,
}

impl Reader<'_> {
    fn again(&mut self) -> Reader<'_> {
        Reader { number: &mut *self.number }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number((self.number)(value.into())))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number((self.number)(value.into())))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Value::Number((self.number)(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self.again())? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if key.starts_with(RESERVED) {
                return Err(A::Error::custom(format_args!(
                    "a key may not begin with {RESERVED:?}"
                )));
            }
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!(
                    "the key {} stands twice in one object",
                    cut(&key)
                )));
            }
            let value = entries.next_value_seed(self.again())?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// As much of a key as is needed to find it.
fn cut(key: &str) -> String {
    const SHOWN_MAX_BYTES: usize = 64;
    match key.len() > SHOWN_MAX_BYTES {
        true => format!("{:?}…", &key[..key.floor_char_boundary(SHOWN_MAX_BYTES)]),
        false => format!("{key:?}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn refused(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_text_that_two_readers_read_differently_is_refused() {
        for (text, key) in [
            (r#"{"a":1,"a":1}"#, r#""a""#),
            (r#"{"a":1,"b":{"c":1,"c":2}}"#, r#""c""#),
            (r#"[{"a":1},{"a":1,"b":2,"a":3}]"#, r#""a""#),
            (r#"{"a":1,"\u0061":2}"#, r#""a""#),
            (r#"{"":1,"":2}"#, r#""""#),
        ] {
            let said = refused(text);
            let expected = format!("the key {key} stands twice in one object at line 1 column ");
            assert!(said.starts_with(&expected), "{text}: {said}");
        }
        let long = "x".repeat(1_000);
        assert!(refused(&format!(r#"{{"{long}":1,"{long}":2}}"#)).len() < 200);
        for key in ["RawValue", "Number"] {
            let said = refused(&format!(r#"[{{"$serde_json::private::{key}":"5"}}]"#));
            assert!(said.starts_with("a key may not begin with "), "{said}");
        }
        for broken in ["", "{", "{} {}", "{'a':1}", "[1,]", "\u{feff}1", "1e400", r#""\ud800""#] {
            assert!(parse(broken.as_bytes()).is_err(), "{broken}");
        }
        assert!(parse("[".repeat(10_000).as_bytes()).is_err());
        assert!(parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn the_same_key_in_two_objects_is_fine() {
        let text = r#" {"a":{"a":[{"a":null},{"a":true}]},"A":-1.5e3} "#;
        let value = json!({"a": {"a": [{"a": null}, {"a": true}]}, "A": -1500.0});
        assert_eq!(parse(text.as_bytes()).unwrap(), value);
    }

    #[test]
    fn a_type_is_read_from_an_unambiguous_text_alone() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Changes {
            options: Map<String, Value>,
        }
        let fine = from_slice::<Changes>(br#"{"options":{"auth":"owner"}}"#).unwrap();
        assert_eq!(fine.options["auth"], "owner");
        for text in [
            r#"{"options":{"auth":"owner","auth":"public"}}"#,
            r#"{"options":{"$serde_json::private::RawValue":"{\"auth\":\"public\"}"}}"#,
            r#"{"options":{"auth":{"$serde_json::private::RawValue":"\"public\""}}}"#,
        ] {
            assert!(from_slice::<Changes>(text.as_bytes()).is_err(), "{text}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("JSON has no others", |it| it.is_finite())
                .prop_map(Value::from),
            ".{0,8}".prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
                prop::collection::btree_map(".{0,4}", inner, 0..8)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_unambiguous_is_read_as_serde_json_reads_it(value in values()) {
            let text = serde_json::to_vec_pretty(&value).unwrap();
            // Not the value itself: serde_json may read the last digit of a float differently.
            let read: Value = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(parse(&text).unwrap(), read);
        }
    }
}
