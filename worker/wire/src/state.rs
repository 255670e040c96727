//! How the management API asks a worker for its tenant's state: the addresses, what is said of a
//! page, and the bodies. They are the API's own as well, which passes them on unread.
//!
//! Only a link of the API's origin leads to them ([`Origin::may_ask_state`]); to anybody else there
//! is nothing at these addresses. What a store or a database takes is its own to say.
//!
//! [`Origin::may_ask_state`]: crate::Origin::may_ask_state

mod value;

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::name::{KeptName, NameError};
pub use value::SqlValue;

/// What needs no escape in one segment of a path. A dot does: a segment of nothing else climbs.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

const STORES: &str = "/$kv";
const DATABASES: &str = "/$sql";
const IMPORT: &str = "import";
const EXPORT: &str = "export";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("a key is text: percent-encoded UTF-8, as one segment of the address")]
    Key,
    #[error("the query `{0}` is not understood here")]
    Query(String),
    #[error("`limit` is a number from 1 to {}", Page::LIMIT_MAX)]
    Limit,
    #[error("`expires_ms` is a number of milliseconds since 1970")]
    Expires,
}

/// What of a tenant's state a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateAddress {
    Stores,
    Store(KeptName),
    Entry { store: KeptName, key: String },
    Databases,
    Database(KeptName),
    Import(KeptName),
    Export(KeptName),
}

impl StateAddress {
    /// Whether a path is one of these, and which. A key stands in one segment, percent-encoded.
    pub fn of(path: &str) -> Option<Result<Self, StateError>> {
        let below = |root| {
            let rest: &str = path.strip_prefix(root)?;
            (rest.is_empty() || rest.starts_with('/')).then_some(rest.strip_prefix('/'))
        };
        if let Some(rest) = below(STORES) {
            return Some(match rest {
                None => Ok(Self::Stores),
                Some(rest) => Self::in_stores(rest),
            });
        }
        match below(DATABASES)? {
            None => Some(Ok(Self::Databases)),
            Some(rest) => Self::in_databases(rest),
        }
    }

    fn in_stores(rest: &str) -> Result<Self, StateError> {
        let Some((store, key)) = rest.split_once('/') else {
            return Ok(Self::Store(rest.parse()?));
        };
        if key.contains('/') {
            return Err(StateError::Key);
        }
        let key = percent_decode_str(key).decode_utf8().map_err(|_| StateError::Key)?;
        Ok(Self::Entry { store: store.parse()?, key: key.into_owned() })
    }

    fn in_databases(rest: &str) -> Option<Result<Self, StateError>> {
        Some(match rest.split_once('/') {
            None => named(rest, Self::Database),
            Some((database, IMPORT)) => named(database, Self::Import),
            Some((database, EXPORT)) => named(database, Self::Export),
            Some(_) => return None,
        })
    }
}

fn named(
    name: &str,
    address: impl FnOnce(KeptName) -> StateAddress,
) -> Result<StateAddress, StateError> {
    Ok(address(name.parse()?))
}

/// The path that a worker has it at.
impl fmt::Display for StateAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stores => f.write_str(STORES),
            Self::Store(store) => write!(f, "{STORES}/{store}"),
            Self::Entry { store, key } => {
                write!(f, "{STORES}/{store}/{}", utf8_percent_encode(key, SEGMENT))
            }
            Self::Databases => f.write_str(DATABASES),
            Self::Database(database) => write!(f, "{DATABASES}/{database}"),
            Self::Import(database) => write!(f, "{DATABASES}/{database}/{IMPORT}"),
            Self::Export(database) => write!(f, "{DATABASES}/{database}/{EXPORT}"),
        }
    }
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// At most so many.
    pub limit: usize,
    /// Only what comes behind this.
    pub after: Option<String>,
    /// Of keys: only those that begin so.
    pub prefix: Option<String>,
}

impl Page {
    pub const LIMIT_MAX: usize = 1_000;
    pub const LIMIT_DEFAULT: usize = 100;

    /// With its `?`.
    pub fn to_query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new("?".to_owned());
        query.append_pair("limit", &self.limit.to_string());
        let texts = [("after", &self.after), ("prefix", &self.prefix)];
        for (name, text) in texts {
            if let Some(text) = text {
                query.append_pair(name, text);
            }
        }
        query.finish()
    }

    pub fn parse(query: Option<&str>) -> Result<Self, StateError> {
        let mut page = Self { limit: Self::LIMIT_DEFAULT, after: None, prefix: None };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "limit" => {
                    let limit = value.parse().ok().filter(|it| (1..=Self::LIMIT_MAX).contains(it));
                    page.limit = limit.ok_or(StateError::Limit)?;
                }
                "after" => page.after = Some(value.into_owned()),
                "prefix" => page.prefix = Some(value.into_owned()),
                other => return Err(StateError::Query(other.to_owned())),
            }
        }
        Ok(page)
    }
}

/// When an entry that is written expires: milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expires(pub i64);

impl Expires {
    /// With its `?`.
    pub fn to_query(self) -> String {
        format!("?expires_ms={}", self.0)
    }

    pub fn parse(query: Option<&str>) -> Result<Option<Self>, StateError> {
        let mut expires = None;
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "expires_ms" => {
                    expires = Some(Self(value.parse().map_err(|_| StateError::Expires)?));
                }
                other => return Err(StateError::Query(other.to_owned())),
            }
        }
        Ok(expires)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreList {
    /// By name.
    pub stores: Vec<StateNamed>,
    /// The `after` of the next page, where there could be one.
    pub next: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseList {
    /// By name.
    pub databases: Vec<StateNamed>,
    /// The `after` of the next page, where there could be one.
    pub next: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateNamed {
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    /// In the order of their bytes.
    pub keys: Vec<String>,
    /// The `after` of the next page, where there could be one.
    pub next: Option<String>,
}

/// One statement, with a value for each of its `?`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlAsked {
    pub statement: String,
    #[serde(default)]
    pub parameters: Vec<SqlValue>,
}

impl SqlAsked {
    /// All of it as JSON.
    pub const BYTES_MAX: usize = 4 << 20;
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SqlAnswered {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<SqlValue>>,
    /// Rows that it has changed.
    pub changes: u64,
    pub last_insert_rowid: i64,
    /// Whether there are more rows than an answer may have.
    pub truncated: bool,
}

/// What an import has carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlImported {
    pub statements: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> KeptName {
        name.parse().unwrap()
    }

    #[test]
    fn an_address_is_read_as_it_is_written() {
        let key = |key: &str| StateAddress::Entry { store: name("s.1"), key: key.to_owned() };
        for (address, path) in [
            (StateAddress::Stores, "/$kv"),
            (StateAddress::Store(name("default")), "/$kv/default"),
            (key(""), "/$kv/s.1/"),
            (key("plain-key_1~"), "/$kv/s.1/plain-key_1~"),
            (key("a/b ä?"), "/$kv/s.1/a%2Fb%20%C3%A4%3F"),
            (key(".."), "/$kv/s.1/%2E%2E"),
            (key("\0%"), "/$kv/s.1/%00%25"),
            (StateAddress::Databases, "/$sql"),
            (StateAddress::Database(name("main")), "/$sql/main"),
            (StateAddress::Import(name("main")), "/$sql/main/import"),
            (StateAddress::Export(name("export")), "/$sql/export/export"),
        ] {
            assert_eq!(address.to_string(), path);
            assert_eq!(StateAddress::of(path), Some(Ok(address)), "{path}");
        }
    }

    #[test]
    fn what_is_no_address_of_these() {
        for other in ["/", "/$kvx", "/$sqlite", "/kv", "/$health", "/a/$kv", "/$sql/main/other"] {
            assert_eq!(StateAddress::of(other), None, "{other}");
        }
        for (path, error) in [
            ("/$kv/", StateError::Name(NameError::Kept)),
            ("/$kv/a%20b", StateError::Name(NameError::Kept)),
            ("/$kv//key", StateError::Name(NameError::Kept)),
            ("/$kv/s/a/b", StateError::Key),
            ("/$kv/s/%ff", StateError::Key),
            ("/$sql/", StateError::Name(NameError::Kept)),
            ("/$sql//import", StateError::Name(NameError::Kept)),
        ] {
            assert_eq!(StateAddress::of(path), Some(Err(error)), "{path}");
        }
    }

    #[test]
    fn a_page_is_read_as_it_is_written() {
        for page in [
            Page { limit: 1, after: None, prefix: None },
            Page { limit: 1_000, after: Some("a&b=c ä".into()), prefix: Some("%".into()) },
        ] {
            let query = page.to_query();
            assert_eq!(Page::parse(query.strip_prefix('?')), Ok(page), "{query}");
        }
        assert_eq!(Page::parse(None).map(|page| page.limit), Ok(Page::LIMIT_DEFAULT));
        for (query, error) in [
            ("limit=0", StateError::Limit),
            ("limit=1001", StateError::Limit),
            ("limit=x", StateError::Limit),
            ("befor=1", StateError::Query("befor".into())),
        ] {
            assert_eq!(Page::parse(Some(query)), Err(error), "{query}");
        }
    }

    #[test]
    fn an_expiry_is_read_as_it_is_written() {
        let expires = Expires(1_800_000_000_123);
        assert_eq!(Expires::parse(expires.to_query().strip_prefix('?')), Ok(Some(expires)));
        assert_eq!(Expires::parse(None), Ok(None));
        assert_eq!(Expires::parse(Some("expires_ms=soon")), Err(StateError::Expires));
        assert_eq!(Expires::parse(Some("ttl=1")), Err(StateError::Query("ttl".into())));
    }
}
