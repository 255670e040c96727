//! Rows as they came, and as a type of the function's own: its fields are the columns.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::value::Value;

/// The rows of a query, each with a value for every column.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    columns: Arc<[String]>,
    rows: Vec<Vec<Value>>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Value>,
}

/// A row that is not of the type that was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadError(String);

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a row is not of the type that was wanted: {}", self.0)
    }
}

impl std::error::Error for ReadError {}

impl serde::de::Error for ReadError {
    fn custom<T: fmt::Display>(said: T) -> Self {
        Self(said.to_string())
    }
}

impl Rows {
    pub(super) fn new(columns: Vec<String>, rows: Vec<Vec<Value>>) -> Self {
        Self { columns: columns.into(), rows }
    }

    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Each as a `T`: a struct whose fields are columns, a tuple or a list of all of them, or a
    /// value where there is one column. What is null is an [`Option`], a blob is [`Value::Blob`] to
    /// [`Row::get`] and bytes to a type that reads bytes.
    pub fn read<T: DeserializeOwned>(self) -> Result<Vec<T>, ReadError> {
        self.into_iter().map(Row::read).collect()
    }

    /// The first of them, where there is any.
    pub fn first<T: DeserializeOwned>(self) -> Result<Option<T>, ReadError> {
        self.into_iter().next().map(Row::read).transpose()
    }
}

impl IntoIterator for Rows {
    type Item = Row;
    type IntoIter = RowIter;

    fn into_iter(self) -> RowIter {
        RowIter { columns: self.columns, rows: self.rows.into_iter() }
    }
}

/// Rows one by one.
pub struct RowIter {
    columns: Arc<[String]>,
    rows: std::vec::IntoIter<Vec<Value>>,
}

impl Iterator for RowIter {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let values = self.rows.next()?;
        Some(Row { columns: Arc::clone(&self.columns), values })
    }
}

impl Row {
    /// The value of a column.
    pub fn get(&self, column: &str) -> Option<&Value> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.values.get(at)
    }

    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// As [`Rows::read`] does it.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, ReadError> {
        T::deserialize(Reader(self))
    }
}

struct Reader(Row);

impl Reader {
    /// Of a row with one column.
    fn only(self) -> Result<Cell, ReadError> {
        let Row { columns, mut values } = self.0;
        match (values.pop(), values.is_empty()) {
            (Some(value), true) => Ok(Cell(value)),
            _ => Err(ReadError(format!("it has {} columns, and one was wanted", columns.len()))),
        }
    }
}

macro_rules! only {
    ($($method:ident)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            self.only()?.$method(visitor)
        }
    )+};
}

impl<'de> Deserializer<'de> for Reader {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let names = self.0.columns.iter().cloned();
        let cells = self.0.values.into_iter().map(Cell);
        visitor.visit_map(MapDeserializer::new(names.zip(cells)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_seq(SeqDeserializer::new(self.0.values.into_iter().map(Cell)))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.only()?.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.only()?.deserialize_any(visitor)
    }

    only! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32
        deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_option deserialize_unit deserialize_identifier
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }
}

struct Cell(Value);

impl<'de> IntoDeserializer<'de, ReadError> for Cell {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Cell {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Integer(number) => visitor.visit_i64(number),
            Value::Real(number) => visitor.visit_f64(number),
            Value::Text(text) => visitor.visit_string(text),
            Value::Blob(bytes) => visitor.visit_byte_buf(bytes),
        }
    }

    /// SQLite has none of its own.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0 {
            Value::Integer(number @ (0 | 1)) => visitor.visit_bool(number == 1),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    /// A blob is a list of numbers to whoever wants a list.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0 {
            Value::Blob(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.into_iter())),
            _ => self.deserialize_any(visitor),
        }
    }

    /// By its name.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match self.0 {
            Value::Text(text) => visitor.visit_enum(text.into_deserializer()),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

/// For whoever keeps values as they are.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;

        impl Visitor<'_> for Read {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of SQL")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Integer(number))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
                Ok(Value::Real(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
                Ok(Value::Blob(bytes.to_vec()))
            }
        }

        from.deserialize_any(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::params;

    #[derive(Debug, PartialEq, Deserialize)]
    struct User {
        id: i64,
        name: Option<String>,
        admin: bool,
        score: f64,
        #[serde(default)]
        kind: Kind,
        photo: Vec<u8>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        #[default]
        Person,
        Robot,
    }

    fn rows(columns: &[&str], rows: Vec<Vec<Value>>) -> Rows {
        Rows::new(columns.iter().map(|&name| name.to_owned()).collect(), rows)
    }

    #[test]
    fn a_row_is_a_struct_by_its_columns() {
        let columns = ["id", "name", "admin", "score", "kind", "photo", "more"];
        let found = rows(
            &columns,
            vec![
                params![7, "Ada", true, 1.5, "robot", vec![1_u8, 2], "x"].to_vec(),
                params![8, None::<&str>, 0, 2.0, "person", vec![0_u8; 0], 1].to_vec(),
            ],
        );
        let users: Vec<User> = found.read().unwrap();
        let ada = User {
            id: 7,
            name: Some("Ada".into()),
            admin: true,
            score: 1.5,
            kind: Kind::Robot,
            photo: vec![1, 2],
        };
        assert_eq!(users[0], ada);
        assert_eq!((users[1].name.as_ref(), &users[1].kind), (None, &Kind::Person));
    }

    #[test]
    fn a_row_is_a_tuple_or_its_only_value() {
        let pair = rows(&["a", "b"], vec![params![1, "x"].to_vec()]);
        assert_eq!(pair.clone().read::<(i64, String)>().unwrap(), [(1, "x".to_owned())]);
        assert_eq!(pair.clone().first::<Vec<Value>>().unwrap(), Some(params![1, "x"].to_vec()));
        let one = rows(&["count(*)"], vec![params![3].to_vec()]);
        assert_eq!(one.clone().first::<u32>().unwrap(), Some(3));
        assert_eq!(one.first::<Option<i64>>().unwrap(), Some(Some(3)));
        assert_eq!(rows(&["a"], vec![]).first::<i64>().unwrap(), None);
        let row = pair.into_iter().next().unwrap();
        assert_eq!((row.get("b"), row.get("c")), (Some(&Value::Text("x".into())), None));
    }

    #[test]
    fn what_does_not_fit_says_why() {
        let pair = rows(&["a", "b"], vec![params![1, "x"].to_vec()]);
        let error = pair.clone().first::<i64>().unwrap_err().to_string();
        assert!(error.contains("2 columns, and one was wanted"), "{error}");
        let error = pair.first::<User>().unwrap_err().to_string();
        assert!(error.contains("missing field `id`"), "{error}");
        let error = rows(&["a"], vec![params!["x"].to_vec()]).first::<i64>().unwrap_err();
        assert!(error.to_string().contains("expected i64"), "{error}");
    }
}
