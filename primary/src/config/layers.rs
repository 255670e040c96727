//! What is written in the environment and in a file, as texts with their source. A name that nobody
//! knows is refused here.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::environment::is_foreign;
use super::settings::{Given, Key, Layer};
use super::{ConfigError, FILE_BYTES_MAX, PREFIX, Source};
use crate::files;

pub fn environment_layer(environment: &BTreeMap<String, String>) -> Result<Layer, ConfigError> {
    let mut layer = Layer::new();
    for (name, text) in environment.range(PREFIX.to_owned()..) {
        if !name.starts_with(PREFIX) {
            break;
        }
        let from = Source::Environment(name.clone());
        match Key::of_variable(name) {
            Some(key) => {
                layer.insert(key, Given { texts: vec![text.clone()], from });
            }
            None if is_foreign(name, text) => {}
            None => return Err(ConfigError::UnknownKey { key: name.clone(), from }),
        }
    }
    Ok(layer)
}

pub fn file_layer(text: &str, path: &Path) -> Result<Layer, ConfigError> {
    let table: toml::Table = toml::from_str(text)
        .map_err(|source| ConfigError::Toml { path: path.to_owned(), source: Box::new(source) })?;
    let mut layer = Layer::new();
    for (name, value) in table {
        let from = Source::File(path.to_owned());
        let Some(key) = Key::of_name(&name) else {
            return Err(ConfigError::UnknownKey { key: name, from });
        };
        let texts = match &value {
            toml::Value::String(text) => Some(vec![text.clone()]),
            toml::Value::Integer(number) => Some(vec![number.to_string()]),
            toml::Value::Array(items) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Table(_) => None,
        };
        let Some(texts) = texts else {
            let given = Given { texts: Vec::new(), from };
            let expected = "a text, a whole number, or a list of texts";
            return Err(given.refused(key, expected, value.type_str()));
        };
        layer.insert(key, Given { texts, from });
    }
    Ok(layer)
}

pub fn read(path: &Path) -> Result<String, ConfigError> {
    read_bounded(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

/// Of what decides whose the host is.
pub fn read_guarded(path: &Path) -> Result<String, ConfigError> {
    let text = read(path)?;
    match files::everybodys(path) {
        Some(path) => Err(ConfigError::Everybodys { path }),
        None => Ok(text),
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let bytes = std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 1 MiB"));
    }
    Ok(text)
}
