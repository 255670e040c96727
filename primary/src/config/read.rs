//! What is written in the environment and in a file, as texts with their source. A name that nobody
//! knows is refused here, and so is a setting that one file has by both of its names.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use toml::Value;

use super::environment::{PREFIX, is_foreign};
use super::error::{ConfigError, Source};
use super::settings::{Given, Layer, Row};
use super::table;
use crate::files;

/// A configuration or token file that is larger is some other file.
const FILE_BYTES_MAX: u64 = 1 << 20;

pub fn environment_layer(environment: &BTreeMap<String, String>) -> Result<Layer, ConfigError> {
    let mut layer = Layer::new();
    for (name, text) in environment.range(PREFIX.to_owned()..) {
        if !name.starts_with(PREFIX) {
            break;
        }
        match table::of_variable(name) {
            Some(row) => {
                let (texts, key) = (vec![text.clone()], row.name.to_owned());
                let from = Source::Environment(name.clone());
                let given = Given { texts, key, from };
                if let Some(before) = layer.insert(row.name, given) {
                    let (one, other) = (row.variable(), name.clone());
                    return Err(ConfigError::Twice { one, other, from: before.from });
                }
            }
            None if is_foreign(name, text) => {}
            None => return Err(ConfigError::Unknown(table::unknown_variable(name))),
        }
    }
    Ok(layer)
}

pub fn file_layer(text: &str, path: &Path) -> Result<Layer, ConfigError> {
    let table: toml::Table = toml::from_str(text)
        .map_err(|source| ConfigError::Toml { path: path.to_owned(), source: Box::new(source) })?;
    let mut file = File { path, layer: Layer::new() };
    for (name, value) in table {
        match (table::section(&name), table::of_name(&name), value) {
            (Some(rows), _, Value::Table(table)) => file.take_section(&name, rows, table)?,
            (_, Some(row), value) => file.take(row, name, &value)?,
            (Some(_), None, value) => {
                let given = file.given(Vec::new(), name.clone());
                let expected = format!("a section, written [{name}], with its settings below it");
                return Err(given.refused(expected, value.type_str()));
            }
            (None, None, Value::Table(_)) => {
                let unknown = table::unknown_section(&name, &file.place());
                return Err(ConfigError::Unknown(unknown));
            }
            (None, None, _) => {
                return Err(ConfigError::Unknown(table::unknown_name(&name, &file.place())));
            }
        }
    }
    Ok(file.layer)
}

struct File<'a> {
    path: &'a Path,
    layer: Layer,
}

impl File<'_> {
    fn take_section(
        &mut self,
        name: &str,
        rows: &'static [Row],
        table: toml::Table,
    ) -> Result<(), ConfigError> {
        for (key, value) in table {
            let Some(row) = rows.iter().find(|row| row.is_key(&key)) else {
                let unknown = table::unknown_key(name, &key, rows, &self.place());
                return Err(ConfigError::Unknown(unknown));
            };
            let key = if key == row.key { row.in_section() } else { format!("{name}.{key}") };
            self.take(row, key, &value)?;
        }
        Ok(())
    }

    fn take(&mut self, row: &'static Row, key: String, value: &Value) -> Result<(), ConfigError> {
        let texts = match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Integer(number) => Some(vec![number.to_string()]),
            Value::Array(items) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Table(_) => None,
        };
        let Some(texts) = texts else {
            return Err(self.given(Vec::new(), key).refused((row.expected)(), value.type_str()));
        };
        let given = self.given(texts, key);
        match self.layer.insert(row.name, given) {
            None => Ok(()),
            Some(Given { key: one, from, .. }) => {
                let other = self.layer[row.name].key.clone();
                Err(ConfigError::Twice { one, other, from })
            }
        }
    }

    fn given(&self, texts: Vec<String>, key: String) -> Given {
        Given { texts, key, from: Source::File(self.path.to_owned()) }
    }

    fn place(&self) -> String {
        format!(" in {}", self.path.display())
    }
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
