//! A query string as the fields of a type: each value is a text until the type says otherwise.

use std::fmt;

use serde::de::value::{SeqDeserializer, StringDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// The text of a refusal is for the caller.
pub(crate) fn parse<T: DeserializeOwned>(query: &str) -> Result<T, String> {
    let mut parameters: Vec<(String, Vec<String>)> = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match parameters.iter_mut().find(|(known, _)| **known == name) {
            Some((_, values)) => values.push(value.into_owned()),
            None => parameters.push((name.into_owned(), vec![value.into_owned()])),
        }
    }
    T::deserialize(Parameters { left: parameters.into_iter(), current: None })
        .map_err(|Unfit(reason)| format!("the query string does not fit: {reason}"))
}

#[derive(Debug)]
struct Unfit(String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

impl de::Error for Unfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

struct Parameters {
    left: std::vec::IntoIter<(String, Vec<String>)>,
    current: Option<(String, Vec<String>)>,
}

impl<'de> Deserializer<'de> for Parameters {
    type Error = Unfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_map(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Parameters {
    type Error = Unfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unfit> {
        self.current = self.left.next();
        let Some((name, _)) = &self.current else { return Ok(None) };
        let name: StringDeserializer<Unfit> = name.clone().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unfit> {
        let (name, values) = self.current.take().expect("a key was asked for before");
        seed.deserialize(Values(values))
            .map_err(|Unfit(reason)| Unfit(format!("`{name}`: {reason}")))
    }
}

/// The values of one parameter, at least one.
struct Values(Vec<String>);

impl Values {
    fn one(self) -> Result<String, Unfit> {
        let mut values = self.0.into_iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            _ => Err(Unfit("is given more than once".to_owned())),
        }
    }
}

impl<'de> IntoDeserializer<'de, Unfit> for Values {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The kinds that a text is parsed for, each with what it must be.
macro_rules! parsed {
    ($($deserialize:ident $visit:ident $expected:literal)*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
            let value = self.one()?;
            match value.parse() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(Unfit(format!(concat!("{:?} is not ", $expected), value))),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Values {
    type Error = Unfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_string(self.one()?)
    }

    parsed! {
        deserialize_bool visit_bool "`true` or `false`"
        deserialize_i8 visit_i8 "a whole number from -128 to 127"
        deserialize_i16 visit_i16 "a whole number from -32768 to 32767"
        deserialize_i32 visit_i32 "a whole number from -2147483648 to 2147483647"
        deserialize_i64 visit_i64 "a whole number"
        deserialize_u8 visit_u8 "a whole number from 0 to 255"
        deserialize_u16 visit_u16 "a whole number from 0 to 65535"
        deserialize_u32 visit_u32 "a whole number from 0 to 4294967295"
        deserialize_u64 visit_u64 "a whole number from 0 on"
        deserialize_f32 visit_f32 "a number"
        deserialize_f64 visit_f64 "a number"
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        let each = self.0.into_iter().map(|value| Self(vec![value]));
        visitor.visit_seq(SeqDeserializer::new(each))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        visitor.visit_enum(self.one()?.into_deserializer())
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Order {
        Up,
        Down,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Limit(u8);

    #[derive(Debug, PartialEq, Deserialize)]
    struct Page {
        q: String,
        limit: Option<Limit>,
        ratio: Option<f64>,
        #[serde(default)]
        all: bool,
        #[serde(default)]
        tag: Vec<String>,
        order: Option<Order>,
    }

    #[test]
    fn texts_become_what_the_type_says() {
        let page: Page =
            parse("q=a%20b+%C3%A4&limit=7&ratio=-0.5&all=true&tag=x&tag=y&order=down&other=1")
                .unwrap();
        assert_eq!(
            page,
            Page {
                q: "a b \u{e4}".into(),
                limit: Some(Limit(7)),
                ratio: Some(-0.5),
                all: true,
                tag: vec!["x".into(), "y".into()],
                order: Some(Order::Down),
            }
        );
        let page: Page = parse("q=").unwrap();
        assert_eq!(
            (page.q, page.limit, page.tag.len(), page.order),
            (String::new(), None, 0, None)
        );
    }

    #[test]
    fn what_does_not_fit_names_its_parameter() {
        for (query, said) in [
            ("", "missing field `q`"),
            ("limit=1", "missing field `q`"),
            ("q=a&q=b", "`q`: is given more than once"),
            ("q=a&limit=300", "`limit`: \"300\" is not a whole number from 0 to 255"),
            ("q=a&limit=", "`limit`: \"\" is not a whole number from 0 to 255"),
            ("q=a&ratio=x", "`ratio`: \"x\" is not a number"),
            ("q=a&all=yes", "`all`: \"yes\" is not `true` or `false`"),
            ("q=a&order=left", "`order`: unknown variant `left`, expected `up` or `down`"),
        ] {
            let error = parse::<Page>(query).unwrap_err();
            assert_eq!(error, format!("the query string does not fit: {said}"), "{query}");
        }
    }

    #[test]
    fn nothing_is_wanted_of_a_type_without_fields() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Nothing {}
        assert_eq!(parse("a=1&b"), Ok(Nothing {}));
    }
}
