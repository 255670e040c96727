//! Whom the command line talks to, and as whom: options, then `HEARTH_URL`, `HEARTH_TOKEN` and
//! `HEARTH_TENANT`, then what `hearth login` stored.
//!
//! A stored token goes to the address that it was stored for and to no other. Owns the file that
//! logins are stored in; asks nobody whether a token is good.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hearth_wire::TenantName;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Source, read, read_bounded, variable};

const URL_DEFAULT: &str = "http://127.0.0.1:3400";

#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ClientArgs {
    /// The host's front door [default: HEARTH_URL, the stored login, or http://127.0.0.1:3400]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// A file with the token [default: HEARTH_TOKEN, or the stored login]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The tenant [default: HEARTH_TENANT, the token's own, or the only one there is]
    #[arg(long, global = true, value_name = "NAME")]
    pub tenant: Option<String>,
}

/// Whom to talk to, complete and valid.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    /// Without a `/` at its end.
    pub url: String,
    pub token: Option<String>,
    pub tenant: Option<TenantName>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, token: _, tenant } = self;
        f.debug_struct("Client").field("url", url).field("tenant", tenant).finish_non_exhaustive()
    }
}

impl Client {
    pub fn gather(args: &ClientArgs) -> Result<Self, ConfigError> {
        Self::of(args, variable, Login::stored()?)
    }

    fn of(
        args: &ClientArgs,
        variable: impl Fn(&str) -> Option<String>,
        stored: Option<Login>,
    ) -> Result<Self, ConfigError> {
        // Set to nothing is how a shell unsets for one command.
        let variable = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
        let either = |option: &Option<String>, key, name: &str| match option {
            Some(text) => Some((text.clone(), Source::Option(key))),
            None => Some((variable(name)?, Source::Environment(name.to_owned()))),
        };
        let url = match either(&args.url, "url", "HEARTH_URL") {
            Some((text, from)) => url(&text).ok_or(ConfigError::Value {
                key: "url",
                from,
                value: text,
                expected: "an address, like http://127.0.0.1:3400",
            })?,
            None => stored.as_ref().map_or_else(|| URL_DEFAULT.to_owned(), |it| it.url.clone()),
        };
        let tenant = match either(&args.tenant, "tenant", "HEARTH_TENANT") {
            Some((text, from)) => Some(text.parse().map_err(|_| ConfigError::Value {
                key: "tenant",
                from,
                value: text,
                expected: "a tenant's name, like demo",
            })?),
            None => None,
        };
        let token = match &args.token_file {
            Some(path) => Some(token(&read(path)?, Source::File(path.clone()))?),
            None => match variable("HEARTH_TOKEN") {
                Some(text) => Some(token(&text, Source::Environment("HEARTH_TOKEN".to_owned()))?),
                None => stored.filter(|login| login.url == url).map(|login| login.token),
            },
        };
        Ok(Self { url, token, tenant })
    }
}

/// The origin (and path, where Hearth is mounted below one), without a `/` at its end.
fn url(text: &str) -> Option<String> {
    let url: http::Uri = text.trim().parse().ok()?;
    let valid = matches!(url.scheme_str(), Some("http" | "https"))
        && url.host().is_some_and(|host| !host.is_empty())
        && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        && url.query().is_none();
    valid.then(|| text.trim().trim_end_matches('/').to_owned())
}

/// What goes into a header, without the line end that every file has.
fn token(text: &str, from: Source) -> Result<String, ConfigError> {
    let token = text.trim();
    if !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(token.to_owned());
    }
    Err(ConfigError::Value { key: "token", from, value: "…".to_owned(), expected: "one token" })
}

#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("`{0}` is no address; it must be like http://127.0.0.1:3400")]
    Url(String),
    #[error("that is no token: it must be one line of visible ASCII characters")]
    Token,
    #[error("HOME is not set, so there is no place for what is this user's")]
    NoHome,
    #[error("{} cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// What `hearth login` stores, for its user alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    url: String,
    token: String,
}

impl Login {
    pub fn new(address: &str, text: &str) -> Result<Self, LoginError> {
        let url = url(address).ok_or_else(|| LoginError::Url(address.to_owned()))?;
        let token = token(text, Source::Option("token")).map_err(|_| LoginError::Token)?;
        Ok(Self { url, token })
    }

    pub fn client(&self) -> Client {
        Client { url: self.url.clone(), token: Some(self.token.clone()), tenant: None }
    }

    fn stored() -> Result<Option<Self>, ConfigError> {
        Self::path().map_or(Ok(None), |path| Self::read(&path))
    }

    fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        let text = match read_bounded(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        };
        let login = serde_json::from_str(&text).map_err(io::Error::from);
        login.map(Some).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
    }

    /// Stores it in place of the one before, and says where.
    pub fn store(&self) -> Result<PathBuf, LoginError> {
        let path = Self::path().ok_or(LoginError::NoHome)?;
        self.write(&path).map_err(|source| LoginError::Write { path: path.clone(), source })?;
        Ok(path)
    }

    #[expect(clippy::disallowed_methods, reason = "a client's file, and none of the host's")]
    fn write(&self, path: &Path) -> io::Result<()> {
        let dir = path.parent().expect("the path of a file in a directory");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // A temporary file is made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.persist(path)?;
        Ok(())
    }

    fn path() -> Option<PathBuf> {
        Some(user_directory("XDG_CONFIG_HOME", ".config")?.join("hearth").join("login.json"))
    }
}

/// Where programs keep what is this user's.
pub struct UserDirectories {
    pub config: PathBuf,
    pub data: PathBuf,
}

impl UserDirectories {
    pub fn find() -> Result<Self, LoginError> {
        let config = user_directory("XDG_CONFIG_HOME", ".config").ok_or(LoginError::NoHome)?;
        let data = user_directory("XDG_DATA_HOME", ".local/share").ok_or(LoginError::NoHome)?;
        Ok(Self { config, data })
    }
}

fn user_directory(name: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(name).or_else(|| absolute("HOME").map(|home| home.join(below_home)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn login() -> Login {
        Login::new("http://stored:1/", "stored-token\n").unwrap()
    }

    fn gather(args: ClientArgs, environment: &[(&str, &str)], stored: Option<Login>) -> Client {
        let variable = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned())
        };
        Client::of(&args, variable, stored).unwrap()
    }

    fn at(url: &str) -> ClientArgs {
        ClientArgs { url: Some(url.to_owned()), ..ClientArgs::default() }
    }

    #[test]
    fn precedence() {
        let client = |url: &str, token: Option<&str>| Client {
            url: url.to_owned(),
            token: token.map(str::to_owned),
            tenant: None,
        };
        let by_variables = [("HEARTH_URL", "http://variable:1"), ("HEARTH_TOKEN", "variable")];
        for (args, environment, stored, expected) in [
            (ClientArgs::default(), &[][..], None, client("http://127.0.0.1:3400", None)),
            (
                ClientArgs::default(),
                &[],
                Some(login()),
                client("http://stored:1", Some("stored-token")),
            ),
            (
                ClientArgs::default(),
                &by_variables,
                Some(login()),
                client("http://variable:1", Some("variable")),
            ),
            (
                at("https://option/"),
                &by_variables,
                Some(login()),
                client("https://option", Some("variable")),
            ),
            (
                ClientArgs::default(),
                &by_variables[1..],
                Some(login()),
                client("http://stored:1", Some("variable")),
            ),
            (
                ClientArgs::default(),
                &[("HEARTH_URL", "")],
                Some(login()),
                client("http://stored:1", Some("stored-token")),
            ),
        ] {
            assert_eq!(gather(args, environment, stored), expected);
        }
    }

    #[test]
    fn a_stored_token_goes_nowhere_else() {
        assert_eq!(gather(at("http://other:1"), &[], Some(login())).token, None);
        assert!(gather(at("http://stored:1"), &[], Some(login())).token.is_some());
    }

    #[test]
    fn the_tenant_by_option_and_by_variable() {
        let environment = [("HEARTH_TENANT", "b")];
        let args = ClientArgs { tenant: Some("a".to_owned()), ..ClientArgs::default() };
        assert_eq!(gather(args, &environment, None).tenant, "a".parse().ok());
        assert_eq!(gather(ClientArgs::default(), &environment, None).tenant, "b".parse().ok());
    }

    #[test]
    fn bad_values_are_named() {
        for (args, said) in [
            (at("localhost:3400"), "`url` (option --url) must be an address"),
            (at("ftp://a"), "`url` (option --url) must be an address"),
            (at("http://user:pass@a"), "`url` (option --url) must be an address"),
            (
                ClientArgs { tenant: Some("A".to_owned()), ..ClientArgs::default() },
                "`tenant` (option --tenant) must be a tenant's name, like demo, not `A`",
            ),
        ] {
            let error = Client::of(&args, |_| None, None).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }

    #[test]
    fn a_login_is_stored_for_its_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth/login.json");
        assert!(Login::read(&path).unwrap().is_none());
        login().write(&path).unwrap();
        login().write(&path).unwrap();
        assert!(Login::read(&path).unwrap() == Some(login()));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{:?}", login().client()).contains("stored-token"));
    }
}
