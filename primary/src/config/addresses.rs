//! What settings say of addresses: domains, names, networks, and how long those that were somebody's
//! are nobody's.

use std::net::IpAddr;
use std::time::Duration;

use hearth_connection::forwarding;
use http::HeaderName;
use ipnet::IpNet;

use super::parsed;

/// Beyond it nothing is waited for.
const REST_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

pub fn domain(text: &str) -> Option<String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (text.len() <= 253 && text.split('.').all(label)).then(|| text.to_ascii_lowercase())
}

/// What is below `localhost` is a tenant's.
pub fn name(text: &str) -> Option<String> {
    let name = domain(text.strip_suffix('.').unwrap_or(text))?;
    (!name.ends_with(".localhost")).then_some(name)
}

pub fn network(text: &str) -> Option<IpNet> {
    parsed(text).or_else(|| parsed::<IpAddr>(text).map(IpNet::from))
}

pub fn forwarding_header(text: &str) -> Option<HeaderName> {
    parsed(text).filter(forwarding::is_forwarding)
}

pub fn rest(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|rest| *rest <= REST_MAX)
}
