//! `hearth kv`: what a tenant's functions keep in its key-value stores.

use std::io::{self, IsTerminal, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use hearth_wire::{KeptName, KeyList, StoreList, header as names};
use http::{Method, Response, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use ureq::{Body, SendBody};

use super::backup::bar;
use super::client::{Call, Host, PAGE_MAX, query, segment_of};
use super::consent::Consent;
use super::error::{CliError, usage};
use super::print::{Print, Table, body_out, escape, seconds};
use super::source::Source;
use super::tokens::instant;
use crate::config::ClientArgs;
use crate::terminal::{escape_json, shell_word};

/// More than a value can have.
const VALUE_MAX_BYTES: u64 = 64 << 20;
/// Keys that an export asks for at once.
const EXPORT_PAGE: &str = "1000";

#[derive(Debug, Subcommand)]
pub enum Kv {
    /// List the stores, or the keys of one
    #[command(after_help = "Example:\n  hearth kv list\n  hearth kv list default --prefix users/")]
    List {
        /// Its keys [default: the stores]
        store: Option<KeptName>,
        /// Only keys that begin so
        #[arg(long, value_name = "TEXT", requires = "store")]
        prefix: Option<String>,
        /// How many, at most [default: 100]
        #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=PAGE_MAX))]
        limit: Option<u32>,
        /// Only what comes behind this: what the last answer says of more
        #[arg(long, value_name = "NAME")]
        after: Option<String>,
    },
    /// Print the value of a key
    #[command(
        after_help = "Prints the bytes of the value as they are; on a terminal, what it would obey is escaped. With --json, the value is printed as text or in base64, with the time at which it expires.\n\nExample:\n  hearth kv get default users/7\n  hearth kv get default photo > photo.jpg"
    )]
    Get {
        /// The store, like default
        store: KeptName,
        /// The key, of up to 1 KiB
        key: String,
    },
    /// Set the value of a key
    #[command(
        after_help = "Example:\n  hearth kv set default users/7 '{\"name\":\"Ada\"}'\n  hearth kv set default photo @photo.jpg\n  hearth kv set default session-1 open --expires 30m"
    )]
    Set {
        /// The store, which is made if it is not there
        store: KeptName,
        /// The key, of up to 1 KiB
        key: String,
        /// The value: as it stands, @FILE, or - for standard input [default: -]
        #[arg(value_name = "VALUE|@FILE|-")]
        value: Option<String>,
        /// A duration from now, like 30m, or an instant, like 2030-01-01T00:00:00Z [default: never]
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
    },
    /// Remove a key, or a store with all that is in it
    #[command(
        after_help = "A key is removed without a question; a whole store is not.\n\nExample:\n  hearth kv rm default users/7\n  hearth kv rm sessions --yes"
    )]
    Rm {
        /// The store, like default
        store: KeptName,
        /// Only this key
        key: Option<String>,
        #[command(flatten)]
        consent: Consent,
    },
    /// Print all of a store, a line of JSON for each key
    #[command(
        after_help = "A line has the key, its value as text (`value`) or, where it is not text, in base64 (`base64`), and `expires_at` where it expires. What is changed meanwhile may be there or not.\n\nExample:\n  hearth kv export default > default.jsonl"
    )]
    Export {
        /// The store, like default
        store: KeptName,
    },
}

pub fn run(command: Kv, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    match command {
        Kv::List { store, prefix, limit, after } => {
            let host = Host::connect(client)?;
            list(&host, store.as_ref(), prefix.as_deref(), limit, after.as_deref(), print)
        }
        Kv::Get { store, key } => get(&Host::connect(client)?, &store, key, print),
        Kv::Set { store, key, value, expires } => {
            let expires = expires.map(|text| instant(&text, Timestamp::now())).transpose()?;
            set(client, &store, &key, value.as_deref(), expires, print)
        }
        Kv::Rm { store, key: Some(key), consent: _ } => {
            let host = Host::connect(client)?;
            let answer = host.delete(&at_key(&host, &store, &key)?)?;
            print.raw(&answer.text)?;
            print.say(format_args!("Removed {} from {store}.", escape(&key)))
        }
        Kv::Rm { store, key: None, consent } => {
            consent.given(&format!("the store {store} with all that is in it"))?;
            let host = Host::connect(client)?;
            let answer = host.delete(&host.of_tenant(&format!("/kv/{}", of(&store)))?)?;
            print.raw(&answer.text)?;
            print.say(format_args!("Removed the store {store}."))
        }
        Kv::Export { store } => export(&Host::connect(client)?, &store),
    }
}

/// A name as one segment: one of dots alone would climb.
fn of(store: &KeptName) -> String {
    segment_of(store.as_str())
}

fn at_key(host: &Host, store: &KeptName, key: &str) -> Result<String, CliError> {
    if key.is_empty() {
        return Err(usage("a key that is empty has no address"));
    }
    host.of_tenant(&format!("/kv/{}/{}", of(store), segment_of(key)))
}

fn list(
    host: &Host,
    store: Option<&KeptName>,
    prefix: Option<&str>,
    limit: Option<u32>,
    after: Option<&str>,
    print: Print,
) -> Result<(), CliError> {
    let limit = limit.map(|limit| limit.to_string());
    let query = query(&[("limit", limit.as_deref()), ("after", after), ("prefix", prefix)]);
    let Some(store) = store else {
        let answer = host.get(&host.of_tenant(&format!("/kv{query}"))?)?;
        return print.answer::<StoreList>(&answer, |StoreList { stores, next }, out| {
            let mut table = Table::new(["store"]);
            for store in stores {
                table.row([&store.name]);
            }
            table.write(out, "There is no store yet; a function makes one when it opens it.")?;
            more(out, "hearth kv list", next.as_deref())
        });
    };
    let answer = host.get(&host.of_tenant(&format!("/kv/{}{query}", of(store)))?)?;
    print.answer::<KeyList>(&answer, |KeyList { keys, next }, out| {
        if keys.is_empty() {
            writeln!(out, "There is no key that matches.")?;
        }
        for key in keys {
            writeln!(out, "{}", escape(&key))?;
        }
        let prefix = prefix.map(|prefix| format!(" --prefix {}", shell_word(prefix)));
        let command = format!("hearth kv list {store}{}", prefix.unwrap_or_default());
        more(out, &command, next.as_deref())
    })
}

/// How a list goes on, where it does.
pub(super) fn more(out: &mut dyn Write, command: &str, next: Option<&str>) -> io::Result<()> {
    match next {
        Some(next) => {
            writeln!(out, "\nMore of them:\n  {command} --after {}", shell_word(&escape(next)))
        }
        None => Ok(()),
    }
}

/// An entry, as programs have it.
#[derive(Debug, Serialize)]
struct Entry {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

impl Entry {
    fn new(key: String, bytes: Vec<u8>, expires_at: Option<String>) -> Self {
        let (value, base64) = match String::from_utf8(bytes) {
            Ok(text) => (Some(text), None),
            Err(bytes) => (None, Some(STANDARD.encode(bytes.as_bytes()))),
        };
        Self { key, value, base64, expires_at }
    }

    fn read(key: String, response: Response<Body>) -> Result<Self, CliError> {
        let expires = response.headers().get(names::EXPIRES);
        let expires = expires.and_then(|at| at.to_str().ok()).map(str::to_owned);
        let mut bytes = Vec::new();
        let body = response.into_body().into_with_config().limit(VALUE_MAX_BYTES).reader();
        let mut body = body;
        body.read_to_end(&mut bytes).map_err(CliError::Cut)?;
        Ok(Self::new(key, bytes, expires))
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("it is plain data")
    }
}

fn get(host: &Host, store: &KeptName, key: String, print: Print) -> Result<(), CliError> {
    let path = at_key(host, store, &key)?;
    let response = host.call(Method::GET, &path, SendBody::none(), &Call::default())?;
    if print.json() {
        return print.raw(&Entry::read(key, response)?.json());
    }
    let mut body = response.into_body().into_reader();
    let mut out = body_out();
    let mut chunk = vec![0; 16 << 10];
    loop {
        match body.read(&mut chunk).map_err(|error| host.cut(CliError::Cut(error)))? {
            0 => break,
            read => out.write_all(&chunk[..read])?,
        }
    }
    if io::stdout().is_terminal() {
        writeln!(out)?;
    }
    Ok(out.flush()?)
}

fn set(
    client: &ClientArgs,
    store: &KeptName,
    key: &str,
    value: Option<&str>,
    expires: Option<Timestamp>,
    print: Print,
) -> Result<(), CliError> {
    let source = match value {
        Some(value) => Source::of(value)?,
        None if io::stdin().is_terminal() => {
            return Err(usage("say the value, @FILE for a file, or - for standard input"));
        }
        None => Source::stdin(),
    };
    let host = Host::connect(client)?;
    let at = expires.map(|at| at.to_string());
    let query = query(&[("expires_at", at.as_deref())]);
    let answer = host.put(&format!("{}{query}", at_key(&host, store, key)?), source)?;
    print.raw(&answer.text)?;
    match expires {
        None => print.say(format_args!("Set {} in {store}.", escape(key))),
        Some(at) => {
            let at = seconds(at);
            print.say(format_args!("Set {} in {store}; it expires at {at}.", escape(key)))
        }
    }
}

/// Page by page, and each value by itself: there is as much in memory as one of either takes.
fn export(host: &Host, store: &KeptName) -> Result<(), CliError> {
    let base = host.of_tenant(&format!("/kv/{}", of(store)))?;
    let bar = bar("exporting", None);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut after: Option<String> = None;
    loop {
        let query = query(&[("limit", Some(EXPORT_PAGE)), ("after", after.as_deref())]);
        let KeyList { keys, next } = host.get(&format!("{base}{query}"))?.parse()?;
        // One that is empty has no address.
        for key in keys.into_iter().filter(|key| !key.is_empty()) {
            let path = format!("{base}/{}", segment_of(&key));
            let response = host.call_any(Method::GET, &path, SendBody::none(), &Call::default())?;
            match response.status() {
                // It has gone since it was listed.
                StatusCode::NOT_FOUND => continue,
                status if status.is_success() => {}
                _ => return Err(host.refused(response)),
            }
            let line = Entry::read(key, response)?.json();
            bar.inc(line.len() as u64);
            writeln!(out, "{}", escape_json(&line))?;
        }
        match next {
            // An answer that leads back would be followed for ever.
            Some(next) if after.as_ref().is_none_or(|after| *after < next) => after = Some(next),
            Some(_) | None => break,
        }
    }
    out.flush()?;
    bar.finish_and_clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_as_a_line_of_json() {
        let entry = |bytes: &[u8], expires: Option<&str>| {
            Entry::new("k\"".to_owned(), bytes.to_vec(), expires.map(str::to_owned)).json()
        };
        assert_eq!(entry(b"a\nb", None), r#"{"key":"k\"","value":"a\nb"}"#);
        assert_eq!(entry(b"", None), r#"{"key":"k\"","value":""}"#);
        assert_eq!(
            entry(b"\xff", Some("2030-01-01T00:00:00Z")),
            r#"{"key":"k\"","base64":"/w==","expires_at":"2030-01-01T00:00:00Z"}"#
        );
    }

    #[test]
    fn how_a_list_goes_on() {
        let said = |next: Option<&str>| {
            let mut out = Vec::new();
            more(&mut out, "hearth kv list default", next).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(said(None), "");
        assert_eq!(
            said(Some("it's")),
            "\nMore of them:\n  hearth kv list default --after 'it'\\''s'\n"
        );
    }
}
