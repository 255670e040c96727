//! Who is at the other end of a connection, and what that peer may say of a request: which headers
//! are believed, which of them end there, and for which tenant it is. Pure.

use std::net::IpAddr;

use hearth_connection::{Side, caller, end_request_hop, forwarding};
use hearth_wire::{Code, Entry, Origin, TenantName, header as hearth};
use http::Request;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::refusal::{Refusal, header_value};

pub const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static(hearth::FORWARDED_PREFIX);

/// The operator's own proxies, and the headers in which they are believed.
#[derive(Debug, Clone, Default)]
pub struct Trusted {
    pub networks: Vec<IpNet>,
    pub headers: Vec<HeaderName>,
}

impl Trusted {
    fn peer(&self, ip: IpAddr) -> forwarding::Word<'_> {
        let ip = ip.to_canonical();
        match self.networks.iter().any(|network| network.contains(&ip)) {
            true => forwarding::Word::Believed(ip, &self.headers),
            false => forwarding::Word::Stranger(ip),
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Tcp(IpAddr, Entry),
    /// The primary, on behalf of somebody.
    Link(Origin),
}

impl Peer {
    /// Where the calls on the connection come from.
    pub fn origin(self) -> Origin {
        match self {
            Self::Tcp(..) => Origin::Outside,
            Self::Link(origin) => origin,
        }
    }

    pub fn side(self) -> Side {
        match self {
            Self::Tcp(..) => Side::Outside,
            Self::Link(_) => Side::Primary,
        }
    }

    /// Takes off what this peer may not say, and what it says of its connection alone.
    pub fn believe(self, headers: &mut HeaderMap, trusted: &Trusted) {
        if let Self::Tcp(..) = self {
            end_request_hop(headers);
        }
        caller::withhold(headers, self.origin());
        // Of what came by a link, the host has said whom it believes.
        if let Self::Tcp(ip, _) = self {
            forwarding::tell(headers, trusted.peer(ip));
        }
    }

    /// A connection that came in at the front door is here because its first request named this
    /// tenant. One that names another is not for us to answer, nor to pass on.
    pub fn leads_to<B>(
        self,
        request: &Request<B>,
        tenant: &TenantName,
        domain: Option<&str>,
    ) -> Result<(), Refusal> {
        let Self::Tcp(_, Entry::Front) = self else { return Ok(()) };
        let named = request.uri().authority().map(|authority| authority.as_str());
        let named = named.or_else(|| request.headers().get(HOST)?.to_str().ok());
        if named.and_then(|host| TenantName::of_host(host, domain)) == Some(Ok(tenant.clone())) {
            return Ok(());
        }
        let detail = format!("this connection leads to {tenant} alone; open another one");
        let refusal = Refusal::new(Code::Misdirected, detail);
        Err(refusal.with(CONNECTION, HeaderValue::from_static("close")))
    }
}

/// A request without its host, as HTTP/1.0 has them, gets the tenant's name.
pub fn complete(headers: &mut HeaderMap, tenant: &TenantName) {
    headers.entry(HOST).or_insert_with(|| header_value(&format!("{tenant}.localhost")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_peer_may_say() {
        let sent = [
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-hearth-caller", "me"),
            ("x-hearth-scope", "owner"),
            ("x-hearth-trigger", "nightly"),
            ("x-hearth-other", "x"),
            ("x_hearth_trigger", "x"),
            ("x-other", "kept"),
        ];
        let trusted = Trusted {
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            headers: vec![forwarding::FORWARDED_FOR, forwarding::FORWARDED_PROTO],
        };
        let tcp = |ip: &str| Peer::Tcp(ip.parse().unwrap(), Entry::Port);
        let front = Peer::Tcp("192.0.2.7".parse().unwrap(), Entry::Front);
        let kept = |headers: &[(&str, &str)]| -> Vec<(String, String)> {
            headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let [forwarded, of, proto, caller, scope, trigger, _, _, other] = sent;
        let stranger =
            kept(&[("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "http"), other]);
        let proxied = kept(&[("x-forwarded-for", "1.2.3.4, 10.1.1.1"), proto, other]);
        for (peer, left) in [
            (tcp("192.0.2.7"), stranger.clone()),
            (tcp("::ffff:192.0.2.7"), stranger.clone()),
            (tcp("::ffff:10.1.1.1"), proxied.clone()),
            (front, stranger),
            (tcp("10.1.1.1"), proxied),
            (Peer::Link(Origin::Outside), kept(&[forwarded, of, proto, other])),
            (Peer::Link(Origin::Api), kept(&[forwarded, of, proto, caller, scope, other])),
            (Peer::Link(Origin::Trigger), kept(&[forwarded, of, proto, trigger, other])),
            (Peer::Link(Origin::Internal), kept(&[forwarded, of, proto, caller, other])),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.append(name, value.parse().unwrap());
            }
            peer.believe(&mut headers, &trusted);
            let mut found: Vec<_> = headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect();
            found.sort();
            assert_eq!(found, left, "{peer:?}");
        }
    }
}
