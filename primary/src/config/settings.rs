//! The settings that there are: how each is written as an option, in the environment and in the
//! file. What a text means is for whoever resolves it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{PREFIX, Source};

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
    /// The headers in which they are, each of which the proxy must set itself, in place of the
    /// default ones; does nothing without a trusted proxy; may be given again
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
    pub fail_points: Option<PathBuf>,
}

impl UpArgs {
    pub fn into_layer(self) -> Layer {
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
pub enum Key {
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
    pub const ALL: [Self; 22] = [
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
    pub fn name(self) -> &'static str {
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

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    /// In the environment: `HEARTH_TENANT_BIND`.
    pub fn variable(self) -> String {
        format!("{PREFIX}{}", self.name().to_ascii_uppercase().replace('-', "_"))
    }

    pub fn of_variable(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.variable() == name)
    }
}

/// As they are written there.
pub fn known_keys(from: &Source) -> String {
    match from {
        Source::Environment(_) => Key::ALL.map(Key::variable).join(", "),
        Source::Option(_) | Source::File(_) => Key::ALL.map(Key::name).join(", "),
    }
}

#[derive(Debug, Clone)]
pub struct Given {
    pub texts: Vec<String>,
    pub from: Source,
}

pub type Layer = BTreeMap<Key, Given>;
