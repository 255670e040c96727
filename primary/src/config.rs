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
use std::path::{Path, PathBuf};
use std::time::Duration;

use hearth_connection::forwarding::FORWARDED_FOR;
use http::HeaderName;
use ipnet::IpNet;

mod addresses;
mod client;
mod environment;

use crate::files;
use crate::isolation::Level;
use crate::upload::{Intake, Places};
pub use client::{Client, ClientArgs, Login, LoginError, ProxyWritten, UserDirectories};
use environment::{environment, is_foreign, variable};

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

/// The options of `hearth up`. Texts all of them: they are parsed where those of the environment
/// and of the file are.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct UpArgs {
    /// A file of settings, in TOML: the options' names are its keys
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where everything is kept that Hearth keeps [default: ./hearth-data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// The front door: API and gateway [default: 127.0.0.1:3400]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// The address of the tenants' own ports [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    tenant_bind: Option<String>,
    /// Which ports tenants get [default: 3411-13410]
    #[arg(long, value_name = "A-B")]
    tenant_ports: Option<String>,
    /// How long a removed tenant's port and name are nobody's [default: 7d]
    #[arg(long, value_name = "DURATION")]
    rest: Option<String>,
    /// Tenants are found at TENANT.DOMAIN too, besides TENANT.localhost
    #[arg(long)]
    domain: Option<String>,
    /// A file with the admin token, in place of one made at the first start
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<String>,
    /// A name by which clients reach the API, besides `localhost`, the domain and addresses; may be
    /// given again
    #[arg(long, value_name = "HOST")]
    name: Vec<String>,
    /// Proxies of your own: they are believed on who their callers are; may be given again
    #[arg(long, value_name = "CIDR")]
    trusted_proxy: Vec<String>,
    /// The headers in which they are, each of which the proxy must set itself; may be given again
    /// [default: x-forwarded-for, x-forwarded-proto]
    #[arg(long, value_name = "HEADER")]
    trusted_header: Vec<String>,
    /// How many connections at the front door one client address may have (of IPv6, a network of 64
    /// bits); trusted proxies may have any number [default: 256]
    #[arg(long, value_name = "N")]
    connections_per_address: Option<String>,
    /// A worker without a call for this long ends [default: 60s]
    #[arg(long, value_name = "DURATION")]
    idle: Option<String>,
    /// Refuse to start below this level of isolation: A, B or C; `auto` takes what the machine
    /// offers and says what that is [default: auto]
    #[arg(long, value_name = "LEVEL")]
    isolation: Option<String>,
    /// The user ids that tenants are given, where the host runs as root
    /// [default: 1900000000-1900065535]
    #[arg(long, value_name = "FIRST-LAST")]
    users: Option<String>,
    /// `never`: the front door proxies every request, and gives no connection to a worker
    /// [default: auto]
    #[arg(long, value_name = "WHEN")]
    handover: Option<String>,
    /// Uploads at once, of all tenants [default: 32]
    #[arg(long, value_name = "N")]
    uploads: Option<String>,
    /// Uploads at once of one tenant [default: 8]
    #[arg(long, value_name = "N")]
    uploads_per_tenant: Option<String>,
    /// An upload that has not come and been compiled within this time is refused [default: 10m]
    #[arg(long, value_name = "DURATION")]
    upload_time: Option<String>,
    /// MiB of the disk that uploads leave free, so that other changes can be kept [default: 64]
    #[arg(long, value_name = "MB")]
    disk_reserve: Option<String>,
    /// Write one line of JSON to this descriptor once it serves
    #[arg(long, value_name = "N")]
    ready_fd: Option<String>,
    /// How to write its own log: text, json, or auto [default: auto]
    #[arg(long, value_name = "FORMAT")]
    log: Option<String>,
    /// What to write to its own log, as in `info,hearth=debug` [default: info]
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
    /// Where the tests of crashes say what is to fail
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "DIR", hide = true)]
    fail_points: Option<PathBuf>,
}

impl UpArgs {
    fn into_layer(self) -> Layer {
        let Self {
            config: _,
            data,
            listen,
            tenant_bind,
            tenant_ports,
            rest,
            domain,
            admin_token_file,
            name,
            trusted_proxy,
            trusted_header,
            connections_per_address,
            idle,
            isolation,
            users,
            handover,
            uploads,
            uploads_per_tenant,
            upload_time,
            disk_reserve,
            ready_fd,
            log,
            log_filter,
            #[cfg(debug_assertions)]
                fail_points: _,
        } = self;
        let mut layer = Layer::new();
        for (key, text) in [
            (Key::Data, data),
            (Key::Listen, listen),
            (Key::TenantBind, tenant_bind),
            (Key::TenantPorts, tenant_ports),
            (Key::Rest, rest),
            (Key::Domain, domain),
            (Key::AdminTokenFile, admin_token_file),
            (Key::ConnectionsPerAddress, connections_per_address),
            (Key::Idle, idle),
            (Key::Isolation, isolation),
            (Key::Users, users),
            (Key::Handover, handover),
            (Key::Uploads, uploads),
            (Key::UploadsPerTenant, uploads_per_tenant),
            (Key::UploadTime, upload_time),
            (Key::DiskReserve, disk_reserve),
            (Key::ReadyFd, ready_fd),
            (Key::Log, log),
            (Key::LogFilter, log_filter),
        ] {
            if let Some(text) = text {
                layer.insert(key, Given { texts: vec![text], from: Source::Option(key.name()) });
            }
        }
        for (key, texts) in [
            (Key::Name, name),
            (Key::TrustedProxy, trusted_proxy),
            (Key::TrustedHeader, trusted_header),
        ] {
            if !texts.is_empty() {
                layer.insert(key, Given { texts, from: Source::Option(key.name()) });
            }
        }
        layer
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Data,
    Listen,
    TenantBind,
    TenantPorts,
    Rest,
    Domain,
    AdminTokenFile,
    Name,
    TrustedProxy,
    TrustedHeader,
    ConnectionsPerAddress,
    Idle,
    Isolation,
    Users,
    Handover,
    Uploads,
    UploadsPerTenant,
    UploadTime,
    DiskReserve,
    ReadyFd,
    Log,
    LogFilter,
}

impl Key {
    const ALL: [Self; 22] = [
        Self::Data,
        Self::Listen,
        Self::TenantBind,
        Self::TenantPorts,
        Self::Rest,
        Self::Domain,
        Self::AdminTokenFile,
        Self::Name,
        Self::TrustedProxy,
        Self::TrustedHeader,
        Self::ConnectionsPerAddress,
        Self::Idle,
        Self::Isolation,
        Self::Users,
        Self::Handover,
        Self::Uploads,
        Self::UploadsPerTenant,
        Self::UploadTime,
        Self::DiskReserve,
        Self::ReadyFd,
        Self::Log,
        Self::LogFilter,
    ];

    /// As an option and in the file.
    fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Listen => "listen",
            Self::TenantBind => "tenant-bind",
            Self::TenantPorts => "tenant-ports",
            Self::Rest => "rest",
            Self::Domain => "domain",
            Self::AdminTokenFile => "admin-token-file",
            Self::Name => "name",
            Self::TrustedProxy => "trusted-proxy",
            Self::TrustedHeader => "trusted-header",
            Self::ConnectionsPerAddress => "connections-per-address",
            Self::Idle => "idle",
            Self::Isolation => "isolation",
            Self::Users => "users",
            Self::Handover => "handover",
            Self::Uploads => "uploads",
            Self::UploadsPerTenant => "uploads-per-tenant",
            Self::UploadTime => "upload-time",
            Self::DiskReserve => "disk-reserve",
            Self::ReadyFd => "ready-fd",
            Self::Log => "log",
            Self::LogFilter => "log-filter",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    /// In the environment: `HEARTH_TENANT_BIND`.
    fn variable(self) -> String {
        format!("{PREFIX}{}", self.name().to_ascii_uppercase().replace('-', "_"))
    }

    fn of_variable(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.variable() == name)
    }
}

/// As they are written there.
fn known_keys(from: &Source) -> String {
    match from {
        Source::Environment(_) => Key::ALL.map(Key::variable).join(", "),
        Source::Option(_) | Source::File(_) => Key::ALL.map(Key::name).join(", "),
    }
}

#[derive(Debug, Clone)]
struct Given {
    texts: Vec<String>,
    from: Source,
}

type Layer = BTreeMap<Key, Given>;

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

fn environment_layer(environment: &BTreeMap<String, String>) -> Result<Layer, ConfigError> {
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

fn file_layer(text: &str, path: &Path) -> Result<Layer, ConfigError> {
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

fn read(path: &Path) -> Result<String, ConfigError> {
    read_bounded(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

/// Of what decides whose the host is.
fn read_guarded(path: &Path) -> Result<String, ConfigError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn resolve(
        args: UpArgs,
        environment: &[(&str, &str)],
        file: Option<&str>,
    ) -> Result<Config, String> {
        let file = file.map(|text| (text.to_owned(), PathBuf::from("h.toml")));
        Written::of(args, &variables(environment), file)
            .and_then(Written::resolve)
            .map_err(|error| error.to_string())
    }

    fn defaults() -> Config {
        Config {
            data: "./hearth-data".into(),
            listen: "127.0.0.1:3400".parse().unwrap(),
            tenant_bind: "127.0.0.1".parse().unwrap(),
            tenant_ports: 3411..=13410,
            rest: Duration::from_secs(7 * 86_400),
            domain: None,
            admin_token: None,
            names: vec![],
            trusted_proxies: vec![],
            trusted_headers: vec![FORWARDED_FOR, HeaderName::from_static("x-forwarded-proto")],
            connections_per_address: 256,
            idle: Duration::from_secs(60),
            isolation: Level::D,
            users: USERS_DEFAULT,
            handover: Handover::Auto,
            intake: Intake {
                places: Places { most: 32, most_of_one: 8 },
                time: Duration::from_secs(600),
            },
            disk_reserve_mb: 64,
            ready_fd: None,
            log_format: LogFormat::Auto,
            log_filter: "info".into(),
            notify_socket: None,
            #[cfg(debug_assertions)]
            fail_points: None,
        }
    }

    /// Each key with three values that are good, and what the configuration says of each.
    const KEYS: [(&str, [&str; 3], [&str; 3]); 22] = [
        ("data", ["/a", "/b", "c"], ["data=/a ", "data=/b ", "data=c "]),
        (
            "listen",
            ["0.0.0.0:1", "[::1]:2", "127.0.0.1:0"],
            ["listen=0.0.0.0:1 ", "listen=[::1]:2 ", "listen=127.0.0.1:0 "],
        ),
        (
            "tenant-bind",
            ["0.0.0.0", "::1", "10.0.0.1"],
            ["tenant-bind=0.0.0.0 ", "tenant-bind=::1 ", "tenant-bind=10.0.0.1 "],
        ),
        (
            "tenant-ports",
            ["1-2", "5-5", "1024 - 65535"],
            ["tenant-ports=1-2 ", "tenant-ports=5-5 ", "tenant-ports=1024-65535 "],
        ),
        ("rest", ["0s", "12h", "30days"], [" rest=0s ", " rest=12h ", " rest=30days "]),
        (
            "name",
            ["a.example", "B,c.", "hearth"],
            [" name=a.example ", " name=b name=c ", " name=hearth "],
        ),
        (
            "trusted-header",
            ["forwarded", "X-Forwarded-For, x-real-ip", "x-forwarded-ours"],
            [
                " trusted-header=forwarded ",
                " trusted-header=x-forwarded-for trusted-header=x-real-ip ",
                " trusted-header=x-forwarded-ours ",
            ],
        ),
        (
            "domain",
            ["a.example", "B.example", "c"],
            [" domain=a.example ", " domain=b.example ", " domain=c "],
        ),
        (
            "admin-token-file",
            ["/a", "/b", "/c"],
            [" admin-token=/a ", " admin-token=/b ", " admin-token=/c "],
        ),
        (
            "trusted-proxy",
            ["10.0.0.0/8", "192.0.2.1", "::1,fe80::/10"],
            [
                " trusted-proxy=10.0.0.0/8 ",
                " trusted-proxy=192.0.2.1/32 ",
                " trusted-proxy=::1/128 trusted-proxy=fe80::/10 ",
            ],
        ),
        (
            "connections-per-address",
            ["1", "256", "4294967295"],
            [
                " connections-per-address=1 ",
                " connections-per-address=256 ",
                " connections-per-address=4294967295 ",
            ],
        ),
        ("idle", ["10ms", "5m", "1h 5s"], [" idle=10ms ", " idle=5m ", " idle=1h 5s "]),
        ("isolation", ["A", "auto", "C"], [" isolation=A ", " isolation=auto ", " isolation=C "]),
        (
            "users",
            ["1000-2000", "70000-70001", "5000-4294967294"],
            [" users=1000-2000 ", " users=70000-70001 ", " users=5000-4294967294 "],
        ),
        (
            "handover",
            ["never", "auto", "never"],
            [" handover=never ", " handover=auto ", " handover=never "],
        ),
        ("uploads", ["1", "64", "1000"], [" uploads=1 ", " uploads=64 ", " uploads=1000 "]),
        (
            "uploads-per-tenant",
            ["1", "2", "1000"],
            [" uploads-per-tenant=1 ", " uploads-per-tenant=2 ", " uploads-per-tenant=1000 "],
        ),
        (
            "upload-time",
            ["1s", "5m", "1h"],
            [" upload-time=1s ", " upload-time=5m ", " upload-time=1h "],
        ),
        (
            "disk-reserve",
            ["0", "1", "1048576"],
            [" disk-reserve=0 ", " disk-reserve=1 ", " disk-reserve=1048576 "],
        ),
        ("ready-fd", ["1", "3", "10"], [" ready-fd=1 ", " ready-fd=3 ", " ready-fd=10 "]),
        ("log", ["text", "json", "auto"], [" log=text ", " log=json ", " log=auto "]),
        (
            "log-filter",
            ["warn", "info,hearth=debug", "off"],
            [" log-filter=warn", " log-filter=info,hearth=debug", " log-filter=off"],
        ),
    ];

    fn args(key: &str, text: &str) -> UpArgs {
        use clap::{Args, FromArgMatches};
        let command = UpArgs::augment_args(clap::Command::new("up"));
        let matches = command.get_matches_from(["up", &format!("--{key}={text}")]);
        UpArgs::from_arg_matches(&matches).unwrap()
    }

    fn variable_of(key: &str) -> String {
        format!("HEARTH_{}", key.to_uppercase().replace('-', "_"))
    }

    #[test]
    fn nothing_written_is_the_defaults_of_the_contract() {
        assert_eq!(resolve(UpArgs::default(), &[], None), Ok(defaults()));
    }

    #[test]
    fn an_option_goes_over_the_environment_goes_over_the_file() {
        for (key, [by_option, by_variable, by_file], [option, variable, file]) in KEYS {
            let name = variable_of(key);
            let toml = format!("{key} = {by_file:?}");
            let environment = [(name.as_str(), by_variable)];
            for (config, said) in [
                (resolve(args(key, by_option), &environment, Some(&toml)), option),
                (resolve(args(key, by_option), &[], Some(&toml)), option),
                (resolve(args(key, by_option), &environment, None), option),
                (resolve(UpArgs::default(), &environment, Some(&toml)), variable),
                (resolve(UpArgs::default(), &environment, None), variable),
                (resolve(UpArgs::default(), &[], Some(&toml)), file),
            ] {
                let config = format!("{} ", config.unwrap());
                assert!(config.contains(said), "{key}: {config}");
            }
        }
    }

    #[test]
    fn every_key_can_be_written_in_three_ways() {
        let known: Vec<_> = KEYS.iter().map(|(key, ..)| *key).collect();
        for key in Key::ALL.map(Key::name) {
            assert!(known.contains(&key), "{key} has no row in KEYS");
        }
    }

    #[test]
    fn a_bad_value_names_its_key_and_its_source() {
        for (key, text, said) in [
            ("data", "", "must be a directory, not ``"),
            ("listen", "3400", "must be an address and a port, like 127.0.0.1:3400, not `3400`"),
            ("listen", "localhost:3400", "must be an address and a port"),
            ("tenant-bind", "127.0.0.1:80", "must be an IP address"),
            ("tenant-ports", "5-4", "must be a range of ports, like 3411-13410, not `5-4`"),
            ("tenant-ports", "0-4", "must be a range of ports"),
            ("tenant-ports", "1-65536", "must be a range of ports"),
            ("tenant-ports", "3411", "must be a range of ports"),
            ("rest", "7", "must be a duration, like 7d or 12h, not `7`"),
            ("rest", "101years", "must be a duration"),
            ("name", "a.example:80", "must be names of this host without a port"),
            ("name", "a.localhost", "and none below localhost, not `a.localhost`"),
            ("name", "*.example", "must be names"),
            ("name", "", "must be names"),
            ("trusted-header", "host", "must be forwarded, x-real-ip, or headers"),
            ("trusted-header", "x-forwarded-for,", "must be forwarded"),
            ("domain", "-a.example", "must be a domain"),
            ("domain", "a..example", "must be a domain"),
            ("domain", "a.example:80", "must be a domain"),
            ("admin-token-file", "", "must be a file"),
            ("trusted-proxy", "10.0.0.0/33", "must be networks"),
            ("trusted-proxy", "::1,all", "like 10.0.0.0/8 or 192.0.2.1, not `all`"),
            ("connections-per-address", "0", "must be a whole number, from 1, not `0`"),
            ("connections-per-address", "many", "must be a whole number, from 1"),
            ("idle", "60", "must be a duration of at least 10ms, like 60s or 5m, not `60`"),
            ("idle", "9ms", "must be a duration of at least 10ms"),
            ("isolation", "D", "must be one of auto, A, B, C, not `D`"),
            ("isolation", "b", "must be one of auto, A, B, C, not `b`"),
            ("users", "70000", "must be two user ids from 1000 on"),
            ("users", "0-70000", "must be two user ids from 1000 on"),
            ("users", "70000-70000", "must be two user ids from 1000 on"),
            ("handover", "always", "must be one of auto, never, not `always`"),
            ("uploads", "0", "must be a number from 1 to 1000"),
            ("uploads-per-tenant", "1001", "must be a number from 1 to 1000"),
            ("upload-time", "999ms", "must be a duration of at least 1s, like 10m, not `999ms`"),
            ("disk-reserve", "1.5", "must be MiB, from 0 to 1048576"),
            ("ready-fd", "0", "must be the number of an open descriptor, from 1"),
            ("log", "xml", "must be one of text, json, auto, not `xml`"),
            ("log-filter", "hearth=loud", "must be levels"),
        ] {
            let name = variable_of(key);
            let toml = format!("{key} = {text:?}");
            for (result, from) in [
                (resolve(args(key, text), &[], None), format!("option --{key}")),
                (resolve(UpArgs::default(), &[(&name, text)], None), format!("environment {name}")),
                (resolve(UpArgs::default(), &[], Some(&toml)), "in h.toml".to_owned()),
            ] {
                let error = result.unwrap_err();
                assert!(error.starts_with(&format!("`{key}` ({from}) ")), "{error}");
                assert!(error.contains(said), "{error}");
            }
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_in_the_file() {
        for (toml, said) in [
            ("idle = 60", "`idle` (in h.toml) must be a duration"),
            ("idle = true", "`idle` (in h.toml) must be a text, a whole number"),
            (
                "idle = [\"1s\", \"2s\"]",
                "`idle` (in h.toml) must be a duration of at least 10ms, like 60s or 5m, not `1s, 2s`",
            ),
            ("trusted-proxy = [1]", "`trusted-proxy` (in h.toml) must be a text"),
            ("[listen]", "`listen` (in h.toml) must be a text"),
            ("idle", "h.toml is no TOML"),
        ] {
            let error = resolve(UpArgs::default(), &[], Some(toml)).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
        let config = resolve(
            UpArgs::default(),
            &[],
            Some("ready-fd = 3\ntrusted-proxy = [\"10.0.0.0/8\", \"::1\"]"),
        );
        let expected = Config {
            ready_fd: Some(3),
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            ..defaults()
        };
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn a_key_that_nobody_knows_is_named() {
        let error = resolve(UpArgs::default(), &[("HEARTH_IDEL", "60s")], None).unwrap_err();
        assert!(
            error.starts_with(
                "`HEARTH_IDEL` (environment HEARTH_IDEL) is no setting; there are HEARTH_DATA, HEARTH_LISTEN"
            ),
            "{error}"
        );
        for name in ["tenant_bind", "config", "admin-token", "DATA"] {
            let toml = format!("{name} = \"x\"");
            let error = resolve(UpArgs::default(), &[], Some(&toml)).unwrap_err();
            assert!(error.starts_with(&format!("`{name}` (in h.toml) is no setting")), "{error}");
        }
    }

    #[test]
    fn the_environment_of_the_client_and_of_kubernetes_is_left_alone() {
        let environment = [
            ("HEARTH_URL", "x"),
            ("HEARTH_TOKEN", "x"),
            ("HEARTH_TENANT", "x"),
            ("HEARTH_CA_FILE", "x"),
            ("HEARTH_CONFIG", "x"),
            ("HEARTH_WEB_SERVICE_HOST", "10.0.0.1"),
            ("HEARTH_WEB_PORT", "tcp://10.0.0.1:3400"),
            ("HEARTHSTONE", "x"),
        ];
        assert_eq!(resolve(UpArgs::default(), &environment, None), Ok(defaults()));
    }

    #[test]
    fn where_the_admin_token_comes_from() {
        let admin_token = |args, environment: &[_], file| {
            resolve(args, environment, file).map(|config| config.admin_token)
        };
        let token = ("HEARTH_ADMIN_TOKEN", "secret");
        let file = Some("admin-token-file = \"/file\"");
        let option = || args("admin-token-file", "/option");
        let from = |path: &str| Ok(Some(AdminToken::File(path.into())));
        assert_eq!(admin_token(option(), &[token], file), from("/option"));
        assert_eq!(
            admin_token(UpArgs::default(), &[token], file),
            Ok(Some(AdminToken::Environment))
        );
        assert_eq!(admin_token(UpArgs::default(), &[], file), from("/file"));
        let both = [token, ("HEARTH_ADMIN_TOKEN_FILE", "/environment")];
        assert!(admin_token(UpArgs::default(), &both, None).is_err());
    }

    #[test]
    fn what_can_be_an_admin_token() {
        let good = "0123456789abcdef";
        assert_eq!(admin_token(&format!(" {good}\n")).as_deref(), Some(good));
        let long = "x".repeat(513);
        for bad in
            ["", "short", "0123456789 abcdef", "0123456789\nabcdef", "0123456789abcdéf", &long]
        {
            assert_eq!(admin_token(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let config =
            resolve(UpArgs::default(), &[("HEARTH_ADMIN_TOKEN", "hunter2-hunter2-hunter2")], None)
                .unwrap();
        assert!(!format!("{config} {config:?}").contains("hunter2"));
        let secrets = Secrets { admin_token: Some("hunter2".to_owned()) };
        assert_eq!(format!("{secrets:?}"), "Secrets(…)");
    }
}
