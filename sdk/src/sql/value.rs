//! A value of SQL, what it is made from, and how the interfaces write it.

use super::bindings::fermyon::spin::sqlite;
use super::bindings::hearth::platform::sql as platform;

/// A value of a row, or for the `?` of a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

macro_rules! from {
    ($($variant:ident: $($type:ty),+;)+) => {$($(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )+)+};
}

from! {
    Integer: bool, i8, i16, i32, i64, u8, u16, u32;
    Real: f32, f64;
    Text: &str, String;
    Blob: &[u8], Vec<u8>;
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl<T> From<Option<T>> for Value
where
    Value: From<T>,
{
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Self::from)
    }
}

macro_rules! same {
    ($($theirs:ident),+) => {$(
        impl From<Value> for $theirs::Value {
            fn from(value: Value) -> Self {
                match value {
                    Value::Null => Self::Null,
                    Value::Integer(number) => Self::Integer(number),
                    Value::Real(number) => Self::Real(number),
                    Value::Text(text) => Self::Text(text),
                    Value::Blob(bytes) => Self::Blob(bytes),
                }
            }
        }

        impl From<$theirs::Value> for Value {
            fn from(value: $theirs::Value) -> Self {
                match value {
                    $theirs::Value::Null => Self::Null,
                    $theirs::Value::Integer(number) => Self::Integer(number),
                    $theirs::Value::Real(number) => Self::Real(number),
                    $theirs::Value::Text(text) => Self::Text(text),
                    $theirs::Value::Blob(bytes) => Self::Blob(bytes),
                }
            }
        }
    )+};
}

same!(sqlite, platform);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::params;

    #[test]
    fn what_values_are_made_from() {
        let text = String::from("b");
        assert_eq!(
            params![1_u8, -2_i64, true, 0.5_f32, "a", &text, text.clone(), vec![1_u8], None::<i32>],
            [
                Value::Integer(1),
                Value::Integer(-2),
                Value::Integer(1),
                Value::Real(0.5),
                Value::Text("a".into()),
                Value::Text("b".into()),
                Value::Text("b".into()),
                Value::Blob(vec![1]),
                Value::Null,
            ]
        );
        assert_eq!(params![Some("a")], [Value::Text("a".into())]);
        let none: [Value; 0] = params![];
        assert!(none.is_empty());
    }

    #[test]
    fn a_value_survives_either_interface() {
        for value in params![7, 1.5, "a", vec![0_u8], None::<i64>] {
            assert_eq!(Value::from(sqlite::Value::from(value.clone())), value);
            assert_eq!(Value::from(platform::Value::from(value.clone())), value);
        }
    }
}
