//! Settings as a table: how each is written as an option, in the environment and in the file, what
//! it is where nothing is written, and what its value may be.
//!
//! ```text
//! config/NOUN.rs: settings! { … }   one row a setting ──► its field, option, variable, key of the file,
//!                                                         help, line of docs/settings.md, listing
//! config/sections.rs: sections! { … }   one line a noun ──► the sub-struct of Config, its section
//! ```
//!
//! A value is a text until its noun resolves it, whichever layer it is from. What kinds of values
//! there are is in `kinds.rs`.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction};

use super::environment::PREFIX;
use super::error::{ConfigError, Source};
use super::kinds::Kind;

fn variable_of(name: &str) -> String {
    format!("{PREFIX}{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// As an option, at the top of the file and, in capitals, in the environment.
    pub name: &'static str,
    /// Where it stands in the file if it does not stand at its top; empty where it always does.
    pub section: &'static str,
    /// Its name there.
    pub key: &'static str,
    /// A name that it had, and that is still taken for it in every place.
    pub once: Option<&'static str>,
    pub value_name: &'static str,
    /// For people: one sentence without its full stop.
    pub about: &'static str,
    pub default: Option<&'static str>,
    /// Whether it may be given again, or as one text with commas.
    pub many: bool,
    /// What a value must be.
    pub expected: fn() -> String,
}

impl Row {
    /// In the environment: `HEARTH_TENANT_BIND`.
    pub fn variable(&self) -> String {
        variable_of(self.name)
    }

    /// Whether it is written so in the environment.
    pub fn is_variable(&self, variable: &str) -> bool {
        let names = [Some(self.name), self.once].into_iter().flatten();
        names.map(variable_of).any(|name| name == variable)
    }

    /// Whether it is written so in its section.
    pub fn is_key(&self, key: &str) -> bool {
        self.key == key || self.once == Some(key)
    }

    /// Whether it is called so, anywhere else.
    pub fn is_name(&self, name: &str) -> bool {
        self.name == name || self.once == Some(name)
    }

    /// In its section: `tenants.bind`.
    pub fn in_section(&self) -> String {
        match self.section {
            "" => self.name.to_owned(),
            section => format!("{section}.{}", self.key),
        }
    }

    pub fn argument(&self) -> Arg {
        let help = match self.default {
            Some(default) => format!("{} [default: {default}]", self.about),
            None => self.about.to_owned(),
        };
        let action = if self.many { ArgAction::Append } else { ArgAction::Set };
        let argument = Arg::new(self.name).long(self.name).value_name(self.value_name);
        argument.aliases(self.once).help(help).action(action)
    }
}

/// A setting, a value of it by option, by variable and in the file, and what the configuration
/// says of each.
#[cfg(test)]
pub type Good = (&'static str, [&'static str; 3], [&'static str; 3]);
/// A setting, a value that is not valid, and what is said of it.
#[cfg(test)]
pub type Bad = (&'static str, &'static str, &'static str);

/// A noun that has settings.
pub trait Section: Sized {
    /// As it is written in the file, in brackets; empty for what stands at its top.
    const NAME: &'static str;
    const ABOUT: &'static str;
    const ROWS: &'static [Row];

    fn resolve(layers: &Layers) -> Result<Self, ConfigError>;

    /// What is in force, as it would be written.
    fn list(&self) -> Vec<(&'static str, String)>;
}

/// A noun's settings. A row is
///
/// ```text
/// /// What it says, without a full stop
/// one field: Type, "name" "key in its section" "VALUE" = "default", kind of its values;
/// ```
///
/// `one` has a default, `maybe` none and is an option then, `many` is a list. What had another name
/// says so behind its default: `(once "old")`.
macro_rules! settings {
    (
        $(#[doc = $doc:literal])+
        $name:ident in $section:literal:
        $(
            $(#[doc = $about:literal])+
            $shape:ident $field:ident: $type:ty, $long:literal $key:literal $value:literal
            $(= $default:literal)? $((once $once:literal))?, $kind:expr;
        )+
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $about])+ pub $field: $crate::config::settings::settings!(@type $shape $type),)+
        }

        impl $crate::config::settings::Section for $name {
            const NAME: &'static str = $section;
            const ABOUT: &'static str = concat!($($doc),+).trim_ascii_start();
            const ROWS: &'static [$crate::config::settings::Row] = &[
                $($crate::config::settings::Row {
                    name: $long,
                    section: $section,
                    key: $key,
                    once: $crate::config::settings::settings!(@default $($once)?),
                    value_name: $value,
                    about: concat!($($about),+).trim_ascii_start(),
                    default: $crate::config::settings::settings!(@default $($default)?),
                    many: $crate::config::settings::settings!(@many $shape),
                    expected: || {
                        let kind: $crate::config::kinds::Kind<$type> = $kind;
                        kind.expected
                    },
                },)+
            ];

            fn resolve(
                layers: &$crate::config::settings::Layers,
            ) -> Result<Self, $crate::config::ConfigError> {
                Ok(Self {$(
                    $field: layers.$shape(
                        $long,
                        $crate::config::settings::settings!(@default $($default)?),
                        $kind,
                    )?,
                )+})
            }

            fn list(&self) -> Vec<(&'static str, String)> {
                let mut list = Vec::new();
                $(
                    let kind: $crate::config::kinds::Kind<$type> = $kind;
                    let values = $crate::config::settings::settings!(@values $shape self.$field);
                    list.extend(values.map(|value| ($long, (kind.show)(value))));
                )+
                list
            }
        }
    };
    (@type one $type:ty) => { $type };
    (@type maybe $type:ty) => { Option<$type> };
    (@type many $type:ty) => { Vec<$type> };
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
    (@many many) => { true };
    (@many $other:ident) => { false };
    (@values one $field:expr) => { std::iter::once(&$field) };
    (@values $other:ident $field:expr) => { $field.iter() };
}

pub(crate) use settings;

/// What was written of one setting in one place.
#[derive(Debug, Clone)]
pub struct Given {
    pub texts: Vec<String>,
    /// As it was written there.
    pub key: String,
    pub from: Source,
}

impl Given {
    pub fn refused(&self, expected: String, value: &str) -> ConfigError {
        let (key, from) = (self.key.clone(), self.from.clone());
        ConfigError::Value { key, from, value: value.to_owned(), expected }
    }

    fn read<T>(&self, kind: Kind<T>) -> Result<T, ConfigError> {
        let value = match self.texts.as_slice() {
            [text] => (kind.read)(text),
            _ => None,
        };
        value.ok_or_else(|| self.refused(kind.expected, &self.texts.join(", ")))
    }

    fn read_all<T>(&self, kind: Kind<T>) -> Result<Vec<T>, ConfigError> {
        let texts = self.texts.iter().flat_map(|text| items(text));
        texts
            .map(|text| (kind.read)(text).ok_or_else(|| self.refused(kind.expected.clone(), text)))
            .collect()
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// By the settings' names.
pub type Layer = BTreeMap<&'static str, Given>;

/// The strongest first: options, environment, file.
#[derive(Debug)]
pub struct Layers(pub [Layer; 3]);

impl Layers {
    pub fn given(&self, name: &str) -> Option<&Given> {
        self.0.iter().find_map(|layer| layer.get(name))
    }

    pub fn is_by_option(&self, name: &str) -> bool {
        self.0[0].contains_key(name)
    }

    pub fn one<T>(
        &self,
        name: &str,
        default: Option<&str>,
        kind: Kind<T>,
    ) -> Result<T, ConfigError> {
        match self.given(name) {
            Some(given) => given.read(kind),
            None => {
                let value = default.and_then(|text| (kind.read)(text));
                Ok(value.expect("a setting without a default is declared as `maybe`"))
            }
        }
    }

    pub fn maybe<T>(
        &self,
        name: &str,
        _default: Option<&str>,
        kind: Kind<T>,
    ) -> Result<Option<T>, ConfigError> {
        self.given(name).map(|given| given.read(kind)).transpose()
    }

    pub fn many<T>(
        &self,
        name: &str,
        default: Option<&str>,
        kind: Kind<T>,
    ) -> Result<Vec<T>, ConfigError> {
        match self.given(name) {
            Some(given) => given.read_all(kind),
            None => Ok(default.into_iter().flat_map(items).filter_map(kind.read).collect()),
        }
    }
}
