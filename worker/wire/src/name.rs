//! Names that become part of addresses. They never become paths of the host's file system.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name was refused. The text is fit for the caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NameError {
    #[error(
        "a tenant's name is 1 to 63 characters of a-z, 0-9 and '-', and begins with a letter or digit"
    )]
    Tenant,
    #[error(
        "a function's path is 1 to 8 segments of letters, digits, '_', '.' and '-', each beginning with a letter, digit or '_', 256 bytes in all"
    )]
    Function,
    #[error(
        "the name of a setting is 1 to 128 characters: letters, digits, '_', '-' and '.', and nothing else"
    )]
    Setting,
    #[error(
        "the name of a store or database is 1 to 64 characters of A-Z, a-z, 0-9, '_', '.' and '-'"
    )]
    Kept,
}

/// A key-value store or a database of a tenant's: `[A-Za-z0-9_.-]{1,64}`, told apart by case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeptName(String);

impl KeptName {
    pub const BYTES_MAX: usize = 64;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeptName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let valid = (1..=Self::BYTES_MAX).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if valid { Ok(Self(name.to_owned())) } else { Err(NameError::Kept) }
    }
}

/// A tenant: `[a-z0-9][a-z0-9-]{0,62}`, so that it is also a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantName(String);

impl TenantName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tenant that a host name means: what stands before `.localhost` or the domain, with or
    /// without a port or a last dot, in any case. `None` where the name is no tenant's address; an
    /// error where it is one that no tenant can have.
    pub fn of_host(host: &str, domain: Option<&str>) -> Option<Result<Self, NameError>> {
        let name = host_name(host);
        [Some("localhost"), domain].into_iter().flatten().find_map(|domain| {
            let label = name.strip_suffix(&domain.to_ascii_lowercase())?.strip_suffix('.')?;
            Some(label.parse())
        })
    }
}

/// A host as it is compared: lower-case, without its port and without the dot that ends a name
/// which is complete (RFC 1034, section 3.1).
pub fn host_name(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

impl FromStr for TenantName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let valid = (1..=63).contains(&name.len())
            && label(name.as_bytes()[0])
            && name.bytes().all(|b| label(b) || b == b'-');
        if valid { Ok(Self(name.to_owned())) } else { Err(NameError::Tenant) }
    }
}

/// A function's path below its tenant's address, with its leading slash: `/dir/hello`.
///
/// 1 to 8 segments of `[A-Za-z0-9_][A-Za-z0-9_.-]*`, 256 bytes in all. `$` is the platform's.
/// Two paths that differ only in case are one function: compare [`FunctionPath::folded`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionPath(String);

impl FunctionPath {
    pub const SEGMENTS_MAX: usize = 8;
    pub const BYTES_MAX: usize = 256;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as `dir/name`, the form that the API and people use.
    pub fn relative(&self) -> &str {
        &self.0[1..]
    }

    /// The form that is unique within a tenant.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// `name` inside `dir`; at the root where there is no directory.
    pub fn within(dir: Option<&FunctionPath>, name: &str) -> Result<Self, NameError> {
        if name.contains('/') {
            return Err(NameError::Function);
        }
        let dir = dir.map_or("", FunctionPath::as_str);
        format!("{dir}/{name}").parse()
    }
}

impl FromStr for FunctionPath {
    type Err = NameError;

    /// Takes `/dir/name` and `dir/name`, and nothing encoded.
    fn from_str(path: &str) -> Result<Self, NameError> {
        let relative = path.strip_prefix('/').unwrap_or(path);
        let head = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let segment = |s: &str| {
            !s.is_empty()
                && head(s.as_bytes()[0])
                && s.bytes().all(|b| head(b) || b == b'.' || b == b'-')
        };
        let valid = relative.len() < Self::BYTES_MAX
            && relative.split('/').count() <= Self::SEGMENTS_MAX
            && relative.split('/').all(segment);
        if valid { Ok(Self(format!("/{relative}"))) } else { Err(NameError::Function) }
    }
}

/// What a function asks its configuration and secrets by: 1 to 128 of `[A-Za-z0-9_.-]`, told apart
/// by case. One set of names for every interface that asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SettingName(String);

impl SettingName {
    pub const BYTES_MAX: usize = 128;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_valid(name: &str) -> bool {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        (1..=Self::BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
    }
}

impl FromStr for SettingName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        if Self::is_valid(name) { Ok(Self(name.to_owned())) } else { Err(NameError::Setting) }
    }
}

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}
text!(TenantName);
text!(FunctionPath);
text!(SettingName);
text!(KeptName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_that_are_taken() {
        for (given, path) in [
            ("hello", "/hello"),
            ("/hello", "/hello"),
            ("a/b/c/d/e/f/g/h", "/a/b/c/d/e/f/g/h"),
            ("_x", "/_x"),
            ("v1.2-rc", "/v1.2-rc"),
            ("a..b", "/a..b"),
        ] {
            assert_eq!(given.parse::<FunctionPath>().map(String::from), Ok(path.to_owned()));
        }
    }

    #[test]
    fn paths_that_are_refused() {
        let long = "a".repeat(256);
        for given in [
            "",
            "/",
            "//a",
            "a/",
            "a//b",
            "..",
            "../a",
            "a/../b",
            ".a",
            "-a",
            "a/.b",
            "$upload",
            "a/$upload",
            "a\\b",
            "a\0b",
            "%2e%2e",
            "a%2fb",
            "ä",
            "a b",
            "a/b/c/d/e/f/g/h/i",
            &long,
        ] {
            assert_eq!(given.parse::<FunctionPath>(), Err(NameError::Function), "{given:?}");
        }
    }

    #[test]
    fn tenants() {
        for good in ["a", "0", "acme", "acme-2", &"a".repeat(63)] {
            assert_eq!(good.parse::<TenantName>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "A", "a_b", "a.b", "a/b", "ä", &"a".repeat(64)] {
            assert_eq!(bad.parse::<TenantName>(), Err(NameError::Tenant), "{bad:?}");
        }
    }

    #[test]
    fn settings() {
        for good in ["a", "DATABASE_URL", "smtp.host", "x-y", "0", ".", &"a".repeat(128)] {
            assert_eq!(good.parse::<SettingName>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", " a", "a b", "a=b", "a/b", "ä", "a\0", "a\n", &"a".repeat(129)] {
            assert_eq!(bad.parse::<SettingName>(), Err(NameError::Setting), "{bad:?}");
        }
    }

    #[test]
    fn stores_and_databases() {
        for good in ["a", "Carts", "..", "a.b-c_D9", &"a".repeat(64)] {
            assert_eq!(good.parse::<KeptName>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "a/b", "a b", "ä", "a\0", "*", &"a".repeat(65)] {
            assert_eq!(bad.parse::<KeptName>(), Err(NameError::Kept), "{bad:?}");
        }
    }

    #[test]
    fn a_name_within_a_directory_has_no_slash() {
        let dir = "jobs".parse().ok();
        assert_eq!(
            FunctionPath::within(dir.as_ref(), "a").map(String::from),
            Ok("/jobs/a".to_owned())
        );
        assert_eq!(FunctionPath::within(None, "a").map(String::from), Ok("/a".to_owned()));
        assert_eq!(FunctionPath::within(dir.as_ref(), "../a"), Err(NameError::Function));
        assert_eq!(FunctionPath::within(dir.as_ref(), "b/a"), Err(NameError::Function));
    }

    proptest! {
        #[test]
        fn no_path_climbs_and_every_path_survives_a_round_trip(text in "\\PC{0,40}") {
            if let Ok(path) = text.parse::<FunctionPath>() {
                prop_assert!(path.as_str().split('/').all(|s| s != ".." && s != "."));
                prop_assert_eq!(path.as_str().parse::<FunctionPath>(), Ok(path.clone()));
                prop_assert_eq!(path.relative().parse::<FunctionPath>(), Ok(path.clone()));
            }
        }
    }
}
