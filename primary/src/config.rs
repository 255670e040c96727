//! What an operator can set, and the only place that reads the environment.
//!
//! ```text
//! hearth up:      options > HEARTH_… > the file of --config > defaults
//!                 Written (texts, each with its source) ── resolve ──► Config (complete, valid)
//! hearth …:       options > HEARTH_URL, HEARTH_TOKEN, HEARTH_TENANT > what `hearth login` stored
//! ```
//!
//! A key that nobody knows, or a value that is none, ends the start with an error that names the
//! key, where it was written and what is expected. Applies nothing: that is for the parts that get
//! their share of [`Config`]. Secrets are never part of it; [`Config::read_secrets`] fetches them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use hearth_connection::forwarding::FORWARDED_FOR;
use http::HeaderName;
use ipnet::IpNet;

mod addresses;
mod client;
mod environment;
mod layers;
mod settings;

use crate::isolation::Level;
use crate::upload::{Intake, Places};
pub use client::{Client, ClientArgs, Login, LoginError, ProxyWritten, UserDirectories, is_local};
use environment::{environment, variable};
use layers::{environment_layer, file_layer, read_guarded};
pub use settings::UpArgs;
use settings::{Given, Key, Layer, known_keys};

const PREFIX: &str = "HEARTH_";
const DATA_DEFAULT: &str = "./hearth-data";
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3400);
const TENANT_BIND_DEFAULT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const TENANT_PORTS_DEFAULT: RangeInclusive<u16> = 3411..=13410;
/// Where systemd's own list of ranges has nobody.
const USERS_DEFAULT: RangeInclusive<u32> = 1_900_000_000..=1_900_065_535;
/// As long as browsers that come by now and then need to forget what was there.
const REST_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3_600);
/// What every proxy of the guide sets itself.
const TRUSTED_HEADERS_DEFAULT: [HeaderName; 2] =
    [FORWARDED_FOR, HeaderName::from_static("x-forwarded-proto")];
const IDLE_DEFAULT: Duration = Duration::from_secs(60);
const LOG_FILTER_DEFAULT: &str = "info";
/// More than a browser, a program or an office behind one address has that waits for nothing: at the
/// front door, where connections to tenants by host name are not kept.
const CONNECTIONS_PER_ADDRESS_DEFAULT: u32 = 256;
/// Each takes some of the host's memory and up to 32 MiB of its disk while it comes.
const UPLOADS_DEFAULT: usize = 32;
const UPLOADS_PER_TENANT_DEFAULT: usize = 8;
const UPLOADS_MAX: usize = 1_000;
/// Enough for the largest one over a line of half a megabit, and for what is slow to compile.
const UPLOAD_TIME_DEFAULT: Duration = Duration::from_secs(600);
const UPLOAD_TIME_MIN: Duration = Duration::from_secs(1);
/// MiB. The store's journal is a few of them.
const DISK_RESERVE_DEFAULT: u64 = 64;
const DISK_RESERVE_MAX: u64 = 1 << 20;

/// An idle time below this would end workers between two requests of one page.
const IDLE_MIN: Duration = Duration::from_millis(10);
/// A token that somebody made up must still be hard to guess.
const ADMIN_TOKEN_BYTES: RangeInclusive<usize> = 16..=512;
/// A configuration or token file that is larger is some other file.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("`{key}` ({from}) is no setting; there are {known}", known = known_keys(from))]
    UnknownKey { key: String, from: Source },
    #[error("`{key}` ({from}) must be {expected}, not `{value}`")]
    Value { key: &'static str, from: Source, value: String, expected: &'static str },
    #[error("HEARTH_ADMIN_TOKEN and HEARTH_ADMIN_TOKEN_FILE exclude each other; set one")]
    TwoAdminTokens,
    #[error("the token in {from} must be one line of 16 to 512 visible ASCII characters")]
    AdminToken { from: AdminToken },
    #[error("{} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "the login that is stored in {} cannot be read; store it again: hearth login ADDRESS (or set HEARTH_URL and HEARTH_TOKEN)",
        path.display()
    )]
    StoredLogin { path: PathBuf, source: io::Error },
    #[error(
        "everybody on this machine may change {}, and with that take over the host; forbid it: chmod o-w {}",
        path.display(), path.display()
    )]
    Everybodys { path: PathBuf },
    #[error("{} is no TOML", path.display())]
    Toml { path: PathBuf, source: Box<toml::de::Error> },
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `--idle`
    Option(&'static str),
    /// `HEARTH_IDLE`
    Environment(String),
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(key) => write!(f, "option --{key}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "in {}", path.display()),
        }
    }
}

/// Settings as they were written, and nothing resolved yet.
#[derive(Debug)]
pub struct Written {
    /// The strongest first.
    layers: [Layer; 3],
    token_in_environment: bool,
    notify_socket: Option<PathBuf>,
    #[cfg(debug_assertions)]
    fail_points: Option<PathBuf>,
}

impl Written {
    /// Reads the environment, and the file if one is named.
    pub fn gather(args: UpArgs) -> Result<Self, ConfigError> {
        let environment = environment();
        let path =
            args.config.clone().or_else(|| environment.get("HEARTH_CONFIG").map(PathBuf::from));
        let file = match path {
            Some(path) => Some((read_guarded(&path)?, path)),
            None => None,
        };
        Self::of(args, &environment, file)
    }

    fn of(
        args: UpArgs,
        environment: &BTreeMap<String, String>,
        file: Option<(String, PathBuf)>,
    ) -> Result<Self, ConfigError> {
        let file = match file {
            Some((text, path)) => file_layer(&text, &path)?,
            None => Layer::new(),
        };
        let token_in_environment = environment.contains_key("HEARTH_ADMIN_TOKEN");
        if token_in_environment && environment.contains_key("HEARTH_ADMIN_TOKEN_FILE") {
            return Err(ConfigError::TwoAdminTokens);
        }
        Ok(Self {
            #[cfg(debug_assertions)]
            fail_points: args.fail_points.clone(),
            layers: [args.into_layer(), environment_layer(environment)?, file],
            token_in_environment,
            notify_socket: environment.get("NOTIFY_SOCKET").map(PathBuf::from),
        })
    }

    /// Whether anything says where to listen, rather than the default.
    pub fn says_listen(&self) -> bool {
        self.given(Key::Listen).is_some()
    }

    pub fn resolve(self) -> Result<Config, ConfigError> {
        Ok(Config {
            data: self
                .one(Key::Data, "a directory", |text| {
                    (!text.is_empty()).then(|| PathBuf::from(text))
                })?
                .unwrap_or_else(|| PathBuf::from(DATA_DEFAULT)),
            listen: self
                .one(Key::Listen, "an address and a port, like 127.0.0.1:3400", parsed)?
                .unwrap_or(LISTEN_DEFAULT),
            tenant_bind: self
                .one(Key::TenantBind, "an IP address, like 127.0.0.1", parsed)?
                .unwrap_or(TENANT_BIND_DEFAULT),
            tenant_ports: self
                .one(Key::TenantPorts, "a range of ports, like 3411-13410", ports)?
                .unwrap_or(TENANT_PORTS_DEFAULT),
            rest: self
                .one(Key::Rest, "a duration, like 7d or 12h", addresses::rest)?
                .unwrap_or(REST_DEFAULT),
            domain: self.one(Key::Domain, "a domain, like apps.example.org", addresses::domain)?,
            admin_token: self.admin_token()?,
            names: self
                .list(
                    Key::Name,
                    "names of this host without a port, like hearth.example.org, and none below localhost",
                    addresses::name,
                )?
                .unwrap_or_default(),
            trusted_proxies: self
                .list(
                    Key::TrustedProxy,
                    "networks, like 10.0.0.0/8 or 192.0.2.1",
                    addresses::network,
                )?
                .unwrap_or_default(),
            trusted_headers: self
                .list(
                    Key::TrustedHeader,
                    "forwarded, x-real-ip, or headers that begin with x-forwarded-",
                    addresses::forwarding_header,
                )?
                .unwrap_or_else(|| TRUSTED_HEADERS_DEFAULT.to_vec()),
            connections_per_address: self
                .one(Key::ConnectionsPerAddress, "a whole number, from 1", |text| {
                    parsed(text).filter(|connections| *connections > 0)
                })?
                .unwrap_or(CONNECTIONS_PER_ADDRESS_DEFAULT),
            idle: self
                .one(Key::Idle, "a duration of at least 10ms, like 60s or 5m", idle)?
                .unwrap_or(IDLE_DEFAULT),
            isolation: self
                .one(Key::Isolation, "one of auto, A, B, C", least_level)?
                .unwrap_or(Level::D),
            users: self
                .one(Key::Users, "two user ids from 1000 on, like 1900000000-1900065535", users)?
                .unwrap_or(USERS_DEFAULT),
            handover: self.handover()?,
            intake: self.intake()?,
            disk_reserve_mb: self
                .one(Key::DiskReserve, "MiB, from 0 to 1048576", |text| {
                    parsed(text).filter(|mb| *mb <= DISK_RESERVE_MAX)
                })?
                .unwrap_or(DISK_RESERVE_DEFAULT),
            ready_fd: self.one(
                Key::ReadyFd,
                "the number of an open descriptor, from 1",
                |text| parsed(text).filter(|fd| *fd > 0),
            )?,
            log_format: self
                .one(Key::Log, "one of text, json, auto", LogFormat::parse)?
                .unwrap_or(LogFormat::Auto),
            log_filter: self
                .one(Key::LogFilter, "levels, like info or info,hearth=debug", log_filter)?
                .unwrap_or_else(|| LOG_FILTER_DEFAULT.to_owned()),
            notify_socket: self.notify_socket,
            #[cfg(debug_assertions)]
            fail_points: self.fail_points,
        })
    }

    fn given(&self, key: Key) -> Option<&Given> {
        self.layers.iter().find_map(|layer| layer.get(&key))
    }

    fn one<T>(
        &self,
        key: Key,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(given) = self.given(key) else { return Ok(None) };
        let value = match given.texts.as_slice() {
            [text] => parse(text),
            _ => None,
        };
        value.map(Some).ok_or_else(|| given.refused(key, expected, &given.texts.join(", ")))
    }

    fn handover(&self) -> Result<Handover, ConfigError> {
        let handover = self.one(Key::Handover, "one of auto, never", |text| match text {
            "auto" => Some(Handover::Auto),
            "never" => Some(Handover::Never),
            _ => None,
        })?;
        Ok(handover.unwrap_or(Handover::Auto))
    }

    fn intake(&self) -> Result<Intake, ConfigError> {
        let number = |key| {
            self.one(key, "a number from 1 to 1000", |text| {
                parsed(text).filter(|number| (1..=UPLOADS_MAX).contains(number))
            })
        };
        let time = self.one(Key::UploadTime, "a duration of at least 1s, like 10m", |text| {
            humantime::parse_duration(text).ok().filter(|time| *time >= UPLOAD_TIME_MIN)
        })?;
        let most_of_one = number(Key::UploadsPerTenant)?.unwrap_or(UPLOADS_PER_TENANT_DEFAULT);
        let most = number(Key::Uploads)?.unwrap_or(UPLOADS_DEFAULT);
        let places = Places { most, most_of_one };
        Ok(Intake { places, time: time.unwrap_or(UPLOAD_TIME_DEFAULT) })
    }

    fn admin_token(&self) -> Result<Option<AdminToken>, ConfigError> {
        let file = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        let from_option = self.layers[0].contains_key(&Key::AdminTokenFile);
        if self.token_in_environment && !from_option {
            return Ok(Some(AdminToken::Environment));
        }
        Ok(self.one(Key::AdminTokenFile, "a file", file)?.map(AdminToken::File))
    }

    /// What may be given again, or as one text with commas.
    fn list<T>(
        &self,
        key: Key,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<Vec<T>>, ConfigError> {
        let Some(given) = self.given(key) else { return Ok(None) };
        let texts = given.texts.iter().flat_map(|text| text.split(',')).map(str::trim);
        let parsed =
            texts.map(|text| parse(text).ok_or_else(|| given.refused(key, expected, text)));
        parsed.collect::<Result<_, _>>().map(Some)
    }
}

impl Given {
    fn refused(&self, key: Key, expected: &'static str, value: &str) -> ConfigError {
        ConfigError::Value {
            key: key.name(),
            from: self.from.clone(),
            value: value.to_owned(),
            expected,
        }
    }
}

fn parsed<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    let ports = parsed(first.trim())?..=parsed(last.trim())?;
    (!ports.is_empty() && *ports.start() > 0).then_some(ports)
}

fn idle(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|idle| *idle >= IDLE_MIN)
}

fn least_level(text: &str) -> Option<Level> {
    match text {
        "auto" => Some(Level::D),
        text => Level::parse(text).filter(|level| *level > Level::D),
    }
}

fn users(text: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = text.split_once('-')?;
    let users = parsed(first.trim())?..=parsed(last.trim())?;
    // Below are people and services, and the last number means nobody.
    (users.start() < users.end() && *users.start() >= 1_000 && *users.end() < u32::MAX)
        .then_some(users)
}

fn log_filter(text: &str) -> Option<String> {
    tracing_subscriber::EnvFilter::builder().parse(text).ok().map(|_| text.to_owned())
}

/// How Hearth's own log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
    /// Text on a terminal, JSON otherwise.
    Auto,
}

impl LogFormat {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            "auto" => Some(Self::Auto),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Auto => "auto",
        }
    }
}

/// Where the admin token comes from, when it is not made at the first start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminToken {
    /// HEARTH_ADMIN_TOKEN
    Environment,
    File(PathBuf),
}

impl fmt::Display for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("HEARTH_ADMIN_TOKEN"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Whether a connection at the front door may become its tenant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// Where its first request allows it.
    Auto,
    Never,
}

impl Handover {
    fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Never => "never",
        }
    }
}

/// Everything that `hearth up` was told, complete and valid. Prints itself without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub data: PathBuf,
    pub listen: SocketAddr,
    pub tenant_bind: IpAddr,
    pub tenant_ports: RangeInclusive<u16>,
    /// Of ports and names that tenants have left.
    pub rest: Duration,
    /// Lower-case; tenants are at `TENANT.localhost` in any case.
    pub domain: Option<String>,
    pub admin_token: Option<AdminToken>,
    /// Of the platform, lower-case, besides the domain, `localhost` and addresses.
    pub names: Vec<String>,
    pub trusted_proxies: Vec<IpNet>,
    pub trusted_headers: Vec<HeaderName>,
    /// At the front door, of one client.
    pub connections_per_address: u32,
    pub idle: Duration,
    /// The least that is good enough.
    pub isolation: Level,
    /// The first is the compiler's, the others are tenants'.
    pub users: RangeInclusive<u32>,
    pub handover: Handover,
    pub intake: Intake,
    pub disk_reserve_mb: u64,
    pub ready_fd: Option<i32>,
    pub log_format: LogFormat,
    /// Valid for `tracing_subscriber::EnvFilter`.
    pub log_filter: String,
    /// Where systemd wants to be told that Hearth serves.
    pub notify_socket: Option<PathBuf>,
    /// Where the tests of crashes say what is to fail.
    #[cfg(debug_assertions)]
    pub fail_points: Option<PathBuf>,
}

impl Config {
    /// To be called once no other process that could inherit them is started from here any more.
    pub fn read_secrets(&self) -> Result<Secrets, ConfigError> {
        let Some(from) = &self.admin_token else { return Ok(Secrets { admin_token: None }) };
        let text = match from {
            AdminToken::Environment => variable("HEARTH_ADMIN_TOKEN").unwrap_or_default(),
            AdminToken::File(path) => read_guarded(path)?,
        };
        admin_token(&text)
            .map(|token| Secrets { admin_token: Some(token) })
            .ok_or_else(|| ConfigError::AdminToken { from: from.clone() })
    }
}

fn admin_token(text: &str) -> Option<String> {
    let token = text.trim();
    let valid =
        ADMIN_TOKEN_BYTES.contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
    valid.then(|| token.to_owned())
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            data,
            listen,
            tenant_bind,
            tenant_ports,
            rest,
            domain,
            admin_token,
            names,
            trusted_proxies,
            trusted_headers,
            connections_per_address,
            idle,
            isolation,
            users,
            handover,
            intake: Intake { places, time },
            disk_reserve_mb,
            ready_fd,
            log_format,
            log_filter,
            notify_socket: _,
            #[cfg(debug_assertions)]
                fail_points: _,
        } = self;
        write!(f, "data={} listen={listen} tenant-bind={tenant_bind}", data.display())?;
        write!(f, " tenant-ports={}-{}", tenant_ports.start(), tenant_ports.end())?;
        write!(f, " rest={}", humantime::format_duration(*rest))?;
        if let Some(domain) = domain {
            write!(f, " domain={domain}")?;
        }
        if let Some(from) = admin_token {
            write!(f, " admin-token={from}")?;
        }
        for name in names {
            write!(f, " name={name}")?;
        }
        for network in trusted_proxies {
            write!(f, " trusted-proxy={network}")?;
        }
        for header in trusted_headers {
            write!(f, " trusted-header={header}")?;
        }
        write!(f, " connections-per-address={connections_per_address}")?;
        write!(f, " idle={}", humantime::format_duration(*idle))?;
        match isolation {
            Level::D => write!(f, " isolation=auto")?,
            least => write!(f, " isolation={least}")?,
        }
        write!(f, " users={}-{}", users.start(), users.end())?;
        write!(f, " handover={}", handover.as_str())?;
        write!(f, " uploads={} uploads-per-tenant={}", places.most, places.most_of_one)?;
        write!(f, " upload-time={}", humantime::format_duration(*time))?;
        write!(f, " disk-reserve={disk_reserve_mb}")?;
        if let Some(fd) = ready_fd {
            write!(f, " ready-fd={fd}")?;
        }
        write!(f, " log={} log-filter={log_filter}", log_format.as_str())
    }
}

/// What must not be printed, and is not kept longer than needed.
pub struct Secrets {
    pub admin_token: Option<String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

#[cfg(test)]
mod tests;
