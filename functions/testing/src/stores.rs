//! What the guests of key-value share: they do one after another what the query says,
//! `?default,set,a,1;default,get,a` (a store, what is done there, and with what), and answer a line
//! for each. So a test asks the same of every text.

use crate::{Out, Request, respond, target};

/// One text of key-value.
pub trait Text {
    type Store;

    fn open(name: &str) -> Result<Self::Store, String>;
    fn get(store: &Self::Store, key: &str) -> Result<Option<Vec<u8>>, String>;
    fn set(store: &Self::Store, key: &str, value: &[u8]) -> Result<(), String>;
    fn delete(store: &Self::Store, key: &str) -> Result<(), String>;
    fn exists(store: &Self::Store, key: &str) -> Result<bool, String>;
    /// All of them, however many calls that takes.
    fn keys(store: &Self::Store) -> Result<Vec<String>, String>;

    /// What not every text has.
    fn more(_store: &Self::Store, what: &[&str]) -> Result<String, String> {
        Err(format!("{what:?} is not of this text"))
    }
}

pub fn commands(target: &str) -> Vec<Vec<String>> {
    let (_, query) = target.split_once('?').unwrap_or_default();
    let words = |command: &str| command.split(',').map(str::to_owned).collect();
    query.split(';').map(words).collect()
}

/// Printable bytes as they are; others as numbers.
pub fn shown(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if text.bytes().all(|b| b.is_ascii_graphic()) => text.to_owned(),
        _ => format!("{value:?}"),
    }
}

pub fn some(value: Option<Vec<u8>>) -> String {
    value.map_or("none".to_owned(), |value| shown(&value))
}

/// A value as a query says it: so many bytes, with `*` before their number.
pub fn value(word: &str) -> Vec<u8> {
    match word.strip_prefix('*') {
        Some(bytes) => vec![b'x'; bytes.parse().unwrap()],
        None => word.as_bytes().to_vec(),
    }
}

fn run<T: Text>(command: &[String]) -> Result<String, String> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let [store, what @ ..] = &words[..] else { return Err("nothing is asked".to_owned()) };
    let store = T::open(store)?;
    match what {
        [] => Ok("open".to_owned()),
        ["get", key] => T::get(&store, key).map(some),
        ["length", key] => {
            T::get(&store, key).map(|value| value.unwrap_or_default().len().to_string())
        }
        ["set", key, given] => T::set(&store, key, &value(given)).map(|()| "set".to_owned()),
        ["delete", key] => T::delete(&store, key).map(|()| "deleted".to_owned()),
        ["exists", key] => T::exists(&store, key).map(|exists| exists.to_string()),
        ["keys"] => T::keys(&store).map(|mut keys| {
            keys.sort();
            keys.join(" ")
        }),
        more => T::more(&store, more),
    }
}

pub fn answer<T: Text>(request: &Request, out: Out) {
    let lines = commands(&target(request))
        .into_iter()
        .map(|command| run::<T>(&command).unwrap_or_else(|error| format!("error: {error}")));
    let lines: Vec<_> = lines.collect();
    respond(out, 200, &[], lines.join("\n").as_bytes());
}
