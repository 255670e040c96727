//! A function's options: what its module declares, and over that what was said at upload.
//!
//! [`OptionsPatch`] is what somebody wrote (each key may be missing); [`Options`] is what it
//! comes to. Both are made from the table in `hearth-options`; this file knows what a value of
//! each kind is, and what a layer does to the one below it, but no option by name.

use std::fmt;

use hearth_options::{Kind, Row, TO_COME, Unknown};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::allowed::Allowed;
use crate::cors::Cors;
use crate::json;
use crate::limits::{self, Limits};
use crate::schema::{SchemaPlaceError, Schemas};
use crate::token::Scope;

/// Why options were refused. The text names the key and is fit for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("the options cannot be read: {0}")]
    Json(String),
    #[error("options must be a JSON object, like {{\"methods\":[\"GET\",\"POST\"]}}")]
    NoObject,
    #[error("{0}")]
    Unknown(Unknown),
    #[error("the option `{0}` is not supported by this version of Hearth")]
    NotSupported(&'static str),
    #[error("the option `{key}` must be {expected}")]
    Value { key: &'static str, expected: String },
    #[error(transparent)]
    Schemas(#[from] SchemaPlaceError),
    #[error("the option `{key}` asks for {asked}, and this tenant's limit is {limit}")]
    AboveLimit { key: &'static str, asked: u64, limit: u64 },
    #[error(
        "`max_body` is {0} bytes, and a body with a schema may have {most}: lower one or leave out the other",
        most = limits::CHECKED_BODY_MAX_BYTES
    )]
    CheckedBody(u64),
}

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
                Ok(Scope::Admin) | Err(_) => Err("not a word for who may call"),
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

/// What one layer says of an option.
trait Layer {
    fn is_silent(&self) -> bool;
    fn over(self, base: Self) -> Self;
}

impl<T> Layer for Option<T> {
    fn is_silent(&self) -> bool {
        self.is_none()
    }

    fn over(self, base: Self) -> Self {
        self.or(base)
    }
}

impl Layer for Schemas {
    fn is_silent(&self) -> bool {
        self.is_empty()
    }

    fn over(self, base: Self) -> Self {
        self.over(base)
    }
}

/// How an option is held by a layer, and what is done with it there: by the last column of its row.
#[rustfmt::skip]
macro_rules! layer {
    (parts type $type:ty) => { $type };
    ($whole:ident type $type:ty) => { Option<$type> };
    (parts read $type:ty, $row:expr, $value:expr) => { <$type>::from_value($value)? };
    ($whole:ident read $type:ty, $row:expr, $value:expr) => { Some(read::<$type>($row, $value)?) };
    (parts check $type:ty, $value:expr) => { Ok(<$type>::check_places($value)?) };
    ($whole:ident check $type:ty, $value:expr) => { Ok(()) };
    (parts open $type:ty, $place:expr) => { <$type>::is_open($place) };
    ($whole:ident open $type:ty, $place:expr) => { false };
    (parts resolve $value:expr, $default:expr) => { $value.over($default) };
    ($whole:ident resolve $value:expr, $default:expr) => { $value.unwrap_or_else(|| $default) };
    (limited asked $value:expr, $limits:ident.$name:ident) => {
        $value.map(|asked| (u64::from(asked), $limits.$name))
    };
    ($free:ident asked $value:expr, $limits:ident.$name:ident) => { None };
    (limited bound $value:expr, $limits:ident.$name:ident) => { at_most($value, $limits.$name) };
    ($free:ident bound $value:expr, $limits:ident.$name:ident) => { $value };
}

macro_rules! define {
    ($(
        $(#[doc = $about:literal])+
        $name:ident: $type:ty = $default:expr, $kind:expr, $layer:ident;
    )+) => {
        /// Options as written, by a module or at an upload.
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct OptionsPatch {
            $(
                $(#[doc = $about])+
                #[serde(default, skip_serializing_if = "Layer::is_silent")]
                pub $name: layer!($layer type $type),
            )+
        }

        /// A function's options, complete.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Options {
            $($(#[doc = $about])+ pub $name: $type,)+
        }

        impl OptionsPatch {
            fn set(&mut self, row: &'static Row, value: Value) -> Result<(), OptionsError> {
                match row.name {
                    $(stringify!($name) => self.$name = layer!($layer read $type, row, value),)+
                    name => unreachable!("`{name}` is of the table"),
                }
                Ok(())
            }

            /// What a function's layers come to: what its module declares, over that what came with
            /// it, and over both what was set since.
            pub fn of_layers(declared: &Self, given: &Self, set: &Self) -> Self {
                set.clone().over(given.clone().over(declared.clone()))
            }

            /// The same for a function that would be the root where another one is: what is below
            /// its path stays its own.
            pub fn without_root(self) -> Self {
                Self { path: Some(PathMatch::Prefix), ..self }
            }

            /// These options, and those of `base` where these say nothing.
            pub fn over(self, base: Self) -> Self {
                Self { $($name: self.$name.over(base.$name)),+ }
            }

            pub fn resolve(self) -> Options {
                Options { $($name: layer!($layer resolve self.$name, $default)),+ }
            }

            /// What goes beyond the tenant's limit of its name: what is asked for, and the limit.
            fn beyond(&self, limits: &Limits) -> Option<(&'static str, u64, u64)> {
                let asked: [(&str, Option<(u64, u64)>); _] = [
                    $((stringify!($name), layer!($layer asked self.$name, limits.$name))),+
                ];
                asked.into_iter().find_map(|(key, asked)| {
                    asked.filter(|(asked, limit)| asked > limit).map(|(asked, limit)| (key, asked, limit))
                })
            }
        }

        impl Options {
            /// No more than the tenant's limits, which may have been lowered since these were written.
            pub fn within(self, limits: &Limits) -> Self {
                Self { $($name: layer!($layer bound self.$name, limits.$name)),+ }
            }
        }

        /// Whether this can be of the option of that name, as far as it is told by its parts alone.
        fn check_parts(name: &str, value: &Value) -> Result<(), OptionsError> {
            match name {
                $(stringify!($name) => layer!($layer check $type, value),)+
                _ => Ok(()),
            }
        }

        /// Whether what is at this place in the option is laid over by its parts.
        fn is_open(name: &str, place: &[&str]) -> bool {
            match name {
                $(stringify!($name) => layer!($layer open $type, place),)+
                _ => false,
            }
        }
    };
}

hearth_options::options!(define);

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
            patch.set(row(&key)?, value)?;
        }
        Ok(patch)
    }

    /// With these set as well, or taken away where they are null. What is laid over by its parts is
    /// changed by its parts.
    pub fn changed(self, changes: Map<String, Value>) -> Result<Self, OptionsError> {
        for (key, value) in &changes {
            check_parts(row(key)?.name, value)?;
        }
        let Value::Object(mut options) = serde_json::to_value(self).expect("it is plain data")
        else {
            return Err(OptionsError::NoObject);
        };
        merge(&mut options, changes, &[]);
        Self::from_object(options)
    }

    /// Refuses what goes beyond the tenant's limits, or does not go together.
    pub fn check(&self, limits: &Limits) -> Result<(), OptionsError> {
        if let Some((key, asked, limit)) = self.beyond(limits) {
            return Err(OptionsError::AboveLimit { key, asked, limit });
        }
        match self.max_body {
            Some(most) if self.schema.body.is_some() && most > limits::CHECKED_BODY_MAX_BYTES => {
                Err(OptionsError::CheckedBody(most))
            }
            _ => Ok(()),
        }
    }
}

fn at_most<N: Ord + TryFrom<u64>>(asked: N, limit: u64) -> N {
    match N::try_from(limit) {
        Ok(limit) => asked.min(limit),
        // It is more than such a number can be.
        Err(_) => asked,
    }
}

fn row(key: &str) -> Result<&'static Row, OptionsError> {
    match hearth_options::find(key) {
        Some(row) => Ok(row),
        None => Err(match TO_COME.iter().find(|known| **known == key) {
            Some(known) => OptionsError::NotSupported(known),
            None => OptionsError::Unknown(hearth_options::unknown(key)),
        }),
    }
}

/// Lays one object over another (RFC 7396), but only what is open in it is gone into: all other
/// values are whole.
fn merge(base: &mut Map<String, Value>, changes: Map<String, Value>, at: &[&str]) {
    for (key, value) in changes {
        let place = [at, &[key.as_str()]].concat();
        match value {
            Value::Null => drop(base.remove(&key)),
            Value::Object(changes) if is_open(place[0], &place[1..]) => {
                let below = base.entry(&key).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(below) = below {
                    merge(below, changes, &place);
                }
            }
            value => drop(base.insert(key.clone(), value)),
        }
    }
}

/// A value of the row's kind, as the type that holds it.
fn read<T: DeserializeOwned>(row: &'static Row, mut value: Value) -> Result<T, OptionsError> {
    let refused = || OptionsError::Value { key: row.name, expected: row.kind.expected() };
    if !is_of(row.kind, &mut value) {
        return Err(refused());
    }
    serde_json::from_value(value).map_err(|_| refused())
}

/// As far as the table says. What has an order that says nothing is put in order.
fn is_of(kind: Kind, value: &mut Value) -> bool {
    let is_word =
        |value: &Value, words: &[&str]| value.as_str().is_some_and(|w| words.contains(&w));
    match (kind, value) {
        (Kind::Word(words), value) => is_word(value, words),
        (Kind::Words(words), Value::Array(given)) => {
            given.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            given.dedup();
            !given.is_empty() && given.iter().all(|word| is_word(word, words))
        }
        (Kind::Words(_), _) => false,
        (Kind::Whole { min, max }, value) => {
            value.as_u64().is_some_and(|number| (min..=max).contains(&number))
        }
        (Kind::Truth, value) => value.is_boolean(),
        (Kind::Text, value) => value.is_string(),
        (Kind::Origins | Kind::Names | Kind::Schemas, _) => true,
    }
}

#[cfg(test)]
mod tests;
