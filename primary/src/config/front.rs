//! The front door: where it is, by which names it answers, whom it believes, and how much one client
//! may have of it.

use std::net::{IpAddr, SocketAddr};

use hearth_connection::forwarding;
use http::HeaderName;
use ipnet::IpNet;

use super::kinds::{checked, parsed, whole, word};
use super::settings::settings;

settings! {
    /// The front door: the API and the gateway to all tenants.
    Front in "front":
    /// The front door: API and gateway
    one listen: SocketAddr, "listen" "listen" "ADDR" = "127.0.0.1:3400",
        parsed("an address and a port, like 127.0.0.1:3400");
    /// Tenants are found at TENANT.DOMAIN too, besides TENANT.localhost
    maybe domain: String, "domain" "domain" "DOMAIN",
        checked("a domain, like apps.example.org", read_domain);
    /// A name by which clients reach the API, besides `localhost`, the domain and addresses; may be
    /// given again
    many names: String, "name" "name" "HOST", checked(
        "names of this host without a port, like hearth.example.org, and none below localhost",
        read_name,
    );
    /// Proxies of your own: they are believed on who their callers are; may be given again
    many trusted_proxies: IpNet, "trusted-proxy" "trusted-proxy" "CIDR",
        checked("networks, like 10.0.0.0/8 or 192.0.2.1", read_network);
    /// The headers in which they are, each of which the proxy must set itself, in place of the
    /// default ones; does nothing without a trusted proxy; may be given again
    many trusted_headers: HeaderName, "trusted-header" "trusted-header" "HEADER"
        = "x-forwarded-for, x-forwarded-proto", checked(
            "forwarded, x-real-ip, or headers that begin with x-forwarded-",
            read_forwarding_header,
        );
    /// How many connections at the front door one client address may have (of IPv6, a network of 64
    /// bits); trusted proxies may have any number
    one connections_per_address: u32, "connections-per-address" "connections-per-address" "N"
        = "256", whole("a whole number,", 1..=u32::MAX);
    /// `never`: the front door proxies every request, and gives no connection to a worker
    one handover: Handover, "handover" "handover" "WHEN" = "auto", word(WHEN);
}

/// As long as no others are named.
const TRUSTED_HEADERS_DEFAULT: [HeaderName; 2] =
    [forwarding::FORWARDED_FOR, forwarding::FORWARDED_PROTO];

impl Front {
    /// Headers were chosen, and there is no proxy to be believed in them.
    pub fn names_headers_of_nobody(&self) -> bool {
        self.trusted_proxies.is_empty() && self.trusted_headers != TRUSTED_HEADERS_DEFAULT
    }
}

/// Whether a connection at the front door may become its tenant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// Where its first request allows it.
    Auto,
    Never,
}

const WHEN: &[(&str, Handover)] = &[("auto", Handover::Auto), ("never", Handover::Never)];

/// In lower case; tenants are at `TENANT.localhost` in any case.
fn read_domain(text: &str) -> Option<String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (text.len() <= 253 && text.split('.').all(label)).then(|| text.to_ascii_lowercase())
}

/// What is below `localhost` is a tenant's.
fn read_name(text: &str) -> Option<String> {
    let name = read_domain(text.strip_suffix('.').unwrap_or(text))?;
    (!name.ends_with(".localhost")).then_some(name)
}

fn read_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn read_forwarding_header(text: &str) -> Option<HeaderName> {
    text.parse().ok().filter(forwarding::is_forwarding)
}

#[cfg(test)]
pub mod examples {
    use crate::config::settings::{Bad, Good};

    pub const GOOD: &[Good] = &[
        (
            "listen",
            ["0.0.0.0:1", "[::1]:2", "127.0.0.1:0"],
            ["listen=0.0.0.0:1 ", "listen=[::1]:2 ", "listen=127.0.0.1:0 "],
        ),
        (
            "domain",
            ["a.example", "B.example", "c"],
            [" domain=a.example ", " domain=b.example ", " domain=c "],
        ),
        (
            "name",
            ["a.example", "B,c.", "hearth"],
            [" name=a.example ", " name=b name=c ", " name=hearth "],
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
            "trusted-header",
            ["forwarded", "X-Forwarded-For, x-real-ip", "x-forwarded-ours"],
            [
                " trusted-header=forwarded ",
                " trusted-header=x-forwarded-for trusted-header=x-real-ip ",
                " trusted-header=x-forwarded-ours ",
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
        (
            "handover",
            ["never", "auto", "never"],
            [" handover=never ", " handover=auto ", " handover=never "],
        ),
    ];

    pub const BAD: &[Bad] = &[
        ("listen", "3400", "must be an address and a port, like 127.0.0.1:3400, not `3400`"),
        ("listen", "localhost:3400", "must be an address and a port"),
        ("domain", "-a.example", "must be a domain"),
        ("domain", "a..example", "must be a domain"),
        ("domain", "a.example:80", "must be a domain"),
        ("name", "a.example:80", "must be names of this host without a port"),
        ("name", "a.localhost", "and none below localhost, not `a.localhost`"),
        ("name", "*.example", "must be names"),
        ("name", "", "must be names"),
        ("trusted-proxy", "10.0.0.0/33", "must be networks"),
        ("trusted-proxy", "::1,all", "like 10.0.0.0/8 or 192.0.2.1, not `all`"),
        ("trusted-header", "host", "must be forwarded, x-real-ip, or headers"),
        ("trusted-header", "x-forwarded-for,", "must be forwarded"),
        ("connections-per-address", "0", "must be a whole number, from 1 to 4294967295, not `0`"),
        ("connections-per-address", "many", "must be a whole number, from 1"),
        ("handover", "always", "must be one of auto, never, not `always`"),
    ];
}
