//! What a head says of where its request comes from, and who is believed on it: nobody but the
//! operator's own proxies, and they only in the headers that the operator has named. A proxy sets
//! some and passes the others on as a stranger sent them.

use std::net::IpAddr;

use hearth_wire::header;
use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED: &str = "x-forwarded-";
const X_REAL_IP: &str = "x-real-ip";

/// Whether a header says where a request comes from, or which address it was sent to.
pub fn is_forwarding(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is_real_ip = name.len() == X_REAL_IP.len() && header::begins(name, X_REAL_IP);
    name == FORWARDED.as_str() || header::begins(name, X_FORWARDED) || is_real_ip
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer<'a> {
    /// A proxy of the operator's, believed in these headers.
    Trusted(IpAddr, &'a [HeaderName]),
    Stranger(IpAddr),
}

impl Peer<'_> {
    pub fn ip(&self) -> IpAddr {
        match self {
            Self::Trusted(ip, _) | Self::Stranger(ip) => *ip,
        }
    }

    fn is_believed(&self, name: &HeaderName) -> bool {
        match self {
            Self::Trusted(_, headers) => headers.contains(name),
            Self::Stranger(_) => false,
        }
    }
}

/// Takes off what this peer is not believed in. Who sent the request is told in any case.
pub fn believe(headers: &mut HeaderMap, peer: Peer<'_>) {
    let doubted: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_forwarding(name) && !peer.is_believed(name))
        .cloned()
        .collect();
    for name in doubted {
        headers.remove(name);
    }
    headers.entry(FORWARDED_FOR).or_insert_with(|| {
        HeaderValue::from_str(&peer.ip().to_string()).expect("an address is visible ASCII")
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_believed_in_what_was_named_and_a_stranger_in_nothing() {
        let ip: IpAddr = "192.0.2.7".parse().unwrap();
        let named = [FORWARDED_FOR, HeaderName::from_static("x-forwarded-proto")];
        let sent = [
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "forged"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/x"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-whatever-comes", "x"),
            ("x-other", "kept"),
            ("x-real-ip", "1.2.3.4"),
            ("x_forwarded_for", "1.2.3.4"),
            ("x-forwarded_proto", "https"),
            ("x_real_ip", "1.2.3.4"),
        ];
        for (peer, left) in [
            (Peer::Stranger(ip), vec![("x-forwarded-for", "192.0.2.7"), sent[7]]),
            (Peer::Trusted(ip, &[]), vec![("x-forwarded-for", "192.0.2.7"), sent[7]]),
            (Peer::Trusted(ip, &named), vec![sent[1], sent[5], sent[7]]),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.append(name, HeaderValue::from_static(value));
            }
            believe(&mut headers, peer);
            let mut found: Vec<_> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                .collect();
            found.sort_unstable();
            assert_eq!(found, left, "{peer:?}");
        }
    }
}
