//! Whom the command line talks to, and as whom: options, then `HEARTH_URL`, `HEARTH_TOKEN`,
//! `HEARTH_TENANT` and `HEARTH_CA_FILE`, then what `hearth login` stored, which is looked at only
//! where these leave something open.
//!
//! A stored token goes to the address that it was stored for and to no other. Owns the file that
//! logins are stored in; asks nobody whether a token is good.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hearth_wire::TenantName;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::environment::variable;
use super::error::{ConfigError, Source};
use super::read::read;

const URL_DEFAULT: &str = "http://127.0.0.1:3400";
/// A stored login that is larger is none.
const LOGIN_MAX_BYTES: u64 = 64 << 10;

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
    /// Certificates of an authority to trust besides the system's, in PEM [default: HEARTH_CA_FILE,
    /// or the stored login]
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// Whom to talk to, complete and valid.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    /// Without a `/` at its end.
    pub url: String,
    pub token: Option<String>,
    pub tenant: Option<TenantName>,
    /// Whose certificates are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    pub proxy: Option<ProxyWritten>,
}

/// What the environment says of a proxy for an address like the client's.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyWritten {
    /// It may have a password in it.
    pub url: String,
    pub variable: &'static str,
    /// What is not behind it: the entries of `NO_PROXY`.
    pub except: Vec<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, token: _, tenant, ca_file: _, proxy: _ } = self;
        f.debug_struct("Client").field("url", url).field("tenant", tenant).finish_non_exhaustive()
    }
}

impl Client {
    pub fn gather(args: &ClientArgs) -> Result<Self, ConfigError> {
        Self::of(args, variable, Login::stored)
    }

    /// The address to log in at, and whose certificates to trust there. A stored login that cannot
    /// be read is as good as none, since it is about to be replaced.
    pub fn to_log_in(args: &ClientArgs) -> Result<(String, Option<PathBuf>), ConfigError> {
        let args = ClientArgs { token_file: None, ..args.clone() };
        let without_token = |name: &str| variable(name).filter(|_| name != "HEARTH_TOKEN");
        let stored = || Ok(Login::stored().unwrap_or(None));
        let client = Self::of(&args, without_token, stored)?;
        Ok((client.url, client.ca_file))
    }

    /// As nobody.
    pub fn bare(url: String, ca_file: Option<PathBuf>) -> Self {
        let proxy = proxy(&url, variable);
        Self { url, token: None, tenant: None, ca_file, proxy }
    }

    fn of(
        args: &ClientArgs,
        variable: impl Fn(&str) -> Option<String>,
        stored: impl FnOnce() -> Result<Option<Login>, ConfigError>,
    ) -> Result<Self, ConfigError> {
        // Set to nothing is how a shell unsets for one command.
        let variable = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
        let either = |option: &Option<String>, key, name: &str| match option {
            Some(text) => Some((text.clone(), Source::Option(key))),
            None => Some((variable(name)?, Source::Environment(name.to_owned()))),
        };
        let written = either(&args.url, "url", "HEARTH_URL");
        let has_token = args.token_file.is_some() || variable("HEARTH_TOKEN").is_some();
        // Who says all of it needs no login, and may have one that is damaged.
        let stored = if written.is_some() && has_token { None } else { stored()? };
        let url = match written {
            Some((text, from)) => url(&text).ok_or(ConfigError::Value {
                key: "url".to_owned(),
                from,
                value: text,
                expected: "an address, like http://127.0.0.1:3400".to_owned(),
            })?,
            None => stored.as_ref().map_or_else(|| URL_DEFAULT.to_owned(), |it| it.url.clone()),
        };
        let stored = stored.filter(|login| login.url == url);
        let ca_file = args.ca_file.clone().or_else(|| Some(variable("HEARTH_CA_FILE")?.into()));
        let ca_file = ca_file.or_else(|| stored.as_ref()?.ca_file.clone());
        let proxy = proxy(&url, variable);
        let tenant = match either(&args.tenant, "tenant", "HEARTH_TENANT") {
            Some((text, from)) => Some(text.parse().map_err(|_| ConfigError::Value {
                key: "tenant".to_owned(),
                from,
                value: text,
                expected: "a tenant's name, like demo".to_owned(),
            })?),
            None => None,
        };
        let token = match &args.token_file {
            Some(path) => Some(token(&read(path)?, Source::File(path.clone()))?),
            None => match variable("HEARTH_TOKEN") {
                Some(text) => Some(token(&text, Source::Environment("HEARTH_TOKEN".to_owned()))?),
                None => stored.map(|login| login.token),
            },
        };
        Ok(Self { url, token, tenant, ca_file, proxy })
    }
}

/// As curl reads the environment: a variable for each scheme, in small letters or large ones.
fn proxy(url: &str, variable: impl Fn(&str) -> Option<String>) -> Option<ProxyWritten> {
    const PLAIN: [&str; 4] = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
    const ENCRYPTED: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    let names = if url.starts_with("https://") { ENCRYPTED } else { PLAIN };
    let (name, url) = names.into_iter().find_map(|name| Some((name, variable(name)?)))?;
    let except = variable("no_proxy").or_else(|| variable("NO_PROXY")).unwrap_or_default();
    let except = except.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    Some(ProxyWritten { url, variable: name, except: except.map(str::to_owned).collect() })
}

/// Where the API is below the address of a host, which is what some write for that.
const API: &str = "/api/v1";

/// Whether it is this machine, however that is spelt, so that nothing passes a network.
pub fn is_local(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    match url.host() {
        // As a name of https:// and http:// is read, it may be a number: 127.1, 0x7f000001.
        Some(Host::Ipv4(ip)) => is_own(ip.into()),
        Some(Host::Ipv6(ip)) => is_own(ip.to_canonical()),
        Some(Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        None => false,
    }
}

/// To connect to no address at all is to connect to oneself.
fn is_own(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

/// The origin (and path, where Hearth is mounted below one), without a `/` at its end. Within this
/// machine nothing is encrypted, so that the scheme may be left out.
fn url(text: &str) -> Option<String> {
    let text = text.trim().trim_end_matches('/');
    let plain = format!("http://{text}");
    let text = if !text.contains("://") && is_local(&plain) { &plain } else { text };
    let text = text.strip_suffix(API).unwrap_or(text);
    let url: http::Uri = text.parse().ok()?;
    let valid = matches!(url.scheme_str(), Some("http" | "https"))
        && url.host().is_some_and(|host| !host.is_empty())
        && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        && url.query().is_none();
    valid.then(|| text.trim_end_matches('/').to_owned())
}

/// What goes into a header, without the line end that every file has.
fn token(text: &str, from: Source) -> Result<String, ConfigError> {
    let token = text.trim();
    if !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(token.to_owned());
    }
    let [key, value, expected] = ["token", "…", "one token"].map(str::to_owned);
    Err(ConfigError::Value { key, from, value, expected })
}

#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("`{0}` is not a valid address; it must be like http://127.0.0.1:3400")]
    Url(String),
    #[error("the token is not valid: it must be one line of visible ASCII characters")]
    Token,
    #[error("HOME is not set, so the login cannot be stored")]
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
}

impl Login {
    pub fn new(address: &str, text: &str, ca_file: Option<PathBuf>) -> Result<Self, LoginError> {
        let url = url(address).ok_or_else(|| LoginError::Url(address.to_owned()))?;
        let token = token(text, Source::Option("token")).map_err(|_| LoginError::Token)?;
        // What is stored is read from wherever the next command runs.
        let ca_file = ca_file.map(|path| std::path::absolute(&path).unwrap_or(path));
        Ok(Self { url, token, ca_file })
    }

    /// The token that a file has.
    pub fn read_token(file: &Path) -> Result<String, ConfigError> {
        token(&read(file)?, Source::File(file.to_owned()))
    }

    /// Whether it can be the address of a host, before anything else is looked at.
    pub fn check(address: &str) -> Result<(), LoginError> {
        url(address).map(drop).ok_or_else(|| LoginError::Url(address.to_owned()))
    }

    pub fn client(&self) -> Client {
        let Self { url, token, ca_file } = self.clone();
        Client { token: Some(token), ..Client::bare(url, ca_file) }
    }

    fn stored() -> Result<Option<Self>, ConfigError> {
        Self::path().map_or(Ok(None), |path| Self::read(&path))
    }

    fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        let login = match Self::text(path) {
            Ok(text) => serde_json::from_str(&text).map_err(io::Error::from),
            // Nothing is there, or nothing can be.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => Err(error),
        };
        login.map(Some).map_err(|source| ConfigError::StoredLogin { path: path.to_owned(), source })
    }

    /// Of a file, and of nothing that could keep its reader waiting.
    fn text(path: &Path) -> io::Result<String> {
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut text = String::new();
        file.take(LOGIN_MAX_BYTES).read_to_string(&mut text)?;
        Ok(text)
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
        Login::new("http://stored:1/", "stored-token\n", None).unwrap()
    }

    fn gather(args: ClientArgs, environment: &[(&str, &str)], stored: Option<Login>) -> Client {
        let variable = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned())
        };
        Client::of(&args, variable, || Ok(stored)).unwrap()
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
            ca_file: None,
            proxy: None,
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
    fn an_address_as_people_write_it() {
        for (written, meant) in [
            ("127.0.0.1:3400", "http://127.0.0.1:3400"),
            ("localhost:3400/", "http://localhost:3400"),
            ("[::1]:3400", "http://[::1]:3400"),
            ("http://h:3400/api/v1", "http://h:3400"),
            ("https://h/below/api/v1/ ", "https://h/below"),
        ] {
            assert_eq!(url(written).as_deref(), Some(meant), "{written}");
        }
        for wrong in ["h:3400", "hearth.lan", "192.0.2.1:3400", "", "http://", "localhost:x"] {
            assert_eq!(url(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn bad_values_are_named() {
        for (args, said) in [
            (at("hearth.lan:3400"), "`url` (option --url) must be an address"),
            (at("ftp://a"), "`url` (option --url) must be an address"),
            (at("http://user:pass@a"), "`url` (option --url) must be an address"),
            (
                ClientArgs { tenant: Some("A".to_owned()), ..ClientArgs::default() },
                "`tenant` (option --tenant) must be a tenant's name, like demo, not `A`",
            ),
        ] {
            let error = Client::of(&args, |_| None, || Ok(None)).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }

    #[test]
    fn a_stored_login_is_looked_at_where_something_is_left_open() {
        let all = [("HEARTH_URL", "http://variable:1"), ("HEARTH_TOKEN", "variable")];
        let damaged = || {
            let source = io::Error::other("damaged");
            Err(ConfigError::StoredLogin { path: "login.json".into(), source })
        };
        let client = |environment: &[(&str, &str)], args: &ClientArgs| {
            let variable = |name: &str| {
                environment.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned())
            };
            Client::of(args, variable, damaged)
        };
        assert_eq!(client(&all, &ClientArgs::default()).unwrap().url, "http://variable:1");
        assert!(client(&all[1..], &at("http://option:1")).is_ok());
        for some in [&all[..1], &all[1..], &[]] {
            let error = client(some, &ClientArgs::default()).unwrap_err().to_string();
            assert!(error.contains("login.json") && error.contains("hearth login"), "{error}");
        }
    }

    #[test]
    fn whose_certificates_are_trusted() {
        let stored = || Login::new("http://stored:1", "t", Some("/stored.pem".into())).ok();
        let trusted = |args: ClientArgs, environment: &[(&str, &str)]| {
            gather(args, environment, stored()).ca_file.map(|path| path.display().to_string())
        };
        let option = ClientArgs { ca_file: Some("/option.pem".into()), ..ClientArgs::default() };
        let variable = [("HEARTH_CA_FILE", "/variable.pem")];
        assert_eq!(trusted(option, &variable).as_deref(), Some("/option.pem"));
        assert_eq!(trusted(ClientArgs::default(), &variable).as_deref(), Some("/variable.pem"));
        assert_eq!(trusted(ClientArgs::default(), &[]).as_deref(), Some("/stored.pem"));
        assert_eq!(trusted(at("http://other:1"), &[]), None);
    }

    #[test]
    fn which_proxy_the_environment_names() {
        let environment = [
            ("HTTP_PROXY", "http://plain:1"),
            ("https_proxy", "http://encrypted:1"),
            ("NO_PROXY", "a.example, .b.example"),
        ];
        let named = |url: &str, environment: &[(&str, &str)]| {
            gather(at(url), environment, None).proxy.map(|proxy| (proxy.url, proxy.except.len()))
        };
        let plain = Some(("http://plain:1".to_owned(), 2));
        assert_eq!(named("http://h", &environment), plain);
        assert_eq!(named("https://h", &environment), Some(("http://encrypted:1".to_owned(), 2)));
        assert_eq!(named("https://h", &environment[..1]), None);
        assert_eq!(named("http://h", &[("ALL_PROXY", "x:1")]), Some(("x:1".to_owned(), 0)));
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
        for damaged in ["", "{", "[]"] {
            std::fs::write(&path, damaged).unwrap();
            let error = Login::read(&path).err().unwrap().to_string();
            assert!(error.contains("login.json"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(Login::read(&path).is_err());
        std::fs::remove_dir(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        assert!(Login::read(&path).is_err());
    }
}
