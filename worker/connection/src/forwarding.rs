//! What a head says of where its request comes from, and who is believed on it: nobody but the
//! operator's own proxies, and they only in the headers that the operator has named. A proxy sets
//! some and passes the others on as a stranger sent them.

use std::net::IpAddr;

use hearth_wire::header;
use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};

pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED: &str = "x-forwarded-";
const X_REAL_IP: &str = "x-real-ip";
/// No name of a host is longer, with its port. What is added to a head has a bound.
const HOST_MAX_BYTES: usize = 262;
const PROTOCOLS: [&str; 2] = ["http", "https"];

/// Whether a header says where a request comes from, or which address it was sent to.
pub fn is_forwarding(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is_real_ip = name.len() == X_REAL_IP.len() && header::begins(name, X_REAL_IP);
    name == FORWARDED.as_str() || header::begins(name, X_FORWARDED) || is_real_ip
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word<'a> {
    /// A proxy of the operator's, believed in these headers.
    Believed(IpAddr, &'a [HeaderName]),
    Stranger(IpAddr),
}

impl Word<'_> {
    pub fn ip(&self) -> IpAddr {
        match self {
            Self::Believed(ip, _) | Self::Stranger(ip) => *ip,
        }
    }

    fn is_believed(&self, name: &HeaderName) -> bool {
        match self {
            Self::Believed(_, headers) => headers.contains(name),
            Self::Stranger(_) => false,
        }
    }
}

/// What a function is told of where its request comes from, at whatever address it came: by whom it
/// was sent, the last of them at the other end of this connection; by which protocol, to which host.
/// What this peer is not believed in is taken off.
pub fn tell(headers: &mut HeaderMap, peer: Word<'_>) {
    let doubted: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_forwarding(name) && !peer.is_believed(name))
        .cloned()
        .collect();
    for name in doubted {
        headers.remove(name);
    }
    let told = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let mut senders: Vec<String> = told.map(str::to_owned).collect();
    senders.push(peer.ip().to_string());
    let senders = HeaderValue::from_str(&senders.join(", "));
    headers.insert(FORWARDED_FOR, senders.expect("all of it was visible ASCII"));
    if !has_protocol(headers) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(FORWARDED_HOST)
        && let Some(host) = headers.get(HOST).filter(|host| host.len() <= HOST_MAX_BYTES).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// Whether a request says by which protocol it was sent, and that is one: a proxy may pass on
/// anything. Several proxies may have said so one after the other.
fn has_protocol(headers: &HeaderMap) -> bool {
    let is_one = |word: &str| PROTOCOLS.iter().any(|one| word.trim().eq_ignore_ascii_case(one));
    let mut told = headers.get_all(FORWARDED_PROTO).iter().peekable();
    told.peek().is_some()
        && told.all(|value| value.to_str().is_ok_and(|value| value.split(',').all(is_one)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_believed_in_what_was_named_and_a_stranger_in_nothing() {
        let ip: IpAddr = "192.0.2.7".parse().unwrap();
        let named = [FORWARDED_FOR, FORWARDED_PROTO];
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
            (
                Word::Stranger(ip),
                vec![("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "http"), sent[7]],
            ),
            (
                Word::Believed(ip, &[]),
                vec![("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "http"), sent[7]],
            ),
            (
                Word::Believed(ip, &named),
                vec![("x-forwarded-for", "1.2.3.4, 192.0.2.7"), sent[5], sent[7]],
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.append(name, HeaderValue::from_static(value));
            }
            tell(&mut headers, peer);
            let mut found: Vec<_> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                .collect();
            found.sort_unstable();
            assert_eq!(found, left, "{peer:?}");
        }
    }

    #[test]
    fn a_function_is_told_a_protocol_and_a_host_whatever_a_proxy_says() {
        let peer = Word::Believed("192.0.2.7".parse().unwrap(), &[FORWARDED_PROTO]);
        let told = |protocols: &[&'static str], host: &str| {
            let mut headers = HeaderMap::new();
            for protocol in protocols {
                headers.append(FORWARDED_PROTO, HeaderValue::from_static(protocol));
            }
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
            tell(&mut headers, peer);
            let protocols = headers.get_all(FORWARDED_PROTO).iter();
            let protocols: Vec<_> = protocols.map(|it| it.to_str().unwrap().to_owned()).collect();
            (protocols.join("; "), headers.get(FORWARDED_HOST).map(|it| it.len()))
        };
        for (sent, protocols) in [
            (&[][..], "http"),
            (&["https"][..], "https"),
            (&["HTTPS"][..], "HTTPS"),
            (&["https, http"][..], "https, http"),
            (&["https", "http"][..], "https; http"),
            (&["banana"][..], "http"),
            (&[""][..], "http"),
            (&["https,"][..], "http"),
            (&["https", "banana"][..], "http"),
        ] {
            assert_eq!(told(sent, "a.example"), (protocols.to_owned(), Some(9)), "{sent:?}");
        }
        assert_eq!(told(&[], &"h".repeat(262)).1, Some(262));
        assert_eq!(told(&[], &"h".repeat(263)).1, None);
    }
}
