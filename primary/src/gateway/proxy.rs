//! What happens to a request and its answer on their way through the front door: hop-by-hop
//! headers end here, forwarding headers are made or believed, and by path the browser is told to
//! treat the answer as a stranger's. Bodies and trailers pass as they are.

use std::net::IpAddr;

use hearth_connection::{asks_to_close, end_hop, end_request_hop};
use hearth_wire::header::{FORWARDED_PREFIX, RESERVED_PREFIX};
use http::header::{
    CONNECTION, CONTENT_SECURITY_POLICY, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName,
    HeaderValue, SET_COOKIE, TE,
};
use http::{Request, Version};

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_HOST: &str = "x-forwarded-host";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
/// No name of a host is longer, with its port. What is added to a head has a bound.
const HOST_MAX_BYTES: usize = 262;
/// Since answers by path share the dashboard's origin.
const SANDBOX: &str = "sandbox allow-scripts allow-forms";

/// Whether the peer's own word on where a request comes from is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Trusted(IpAddr),
    Stranger(IpAddr),
}

/// Prepares a request's headers for a worker. `prefix` is what was taken off the path.
pub fn request_headers(headers: &mut HeaderMap, peer: Peer, prefix: Option<&str>) {
    end_request_hop(headers);
    let reserved: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(RESERVED_PREFIX)).cloned().collect();
    for name in reserved {
        headers.remove(name);
    }
    headers.remove(FORWARDED_PREFIX);
    let from = match peer {
        Peer::Trusted(ip) => {
            let told =
                headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
            let mut from: Vec<String> = told.map(str::to_owned).collect();
            from.push(ip.to_string());
            from.join(", ")
        }
        Peer::Stranger(ip) => {
            headers.remove(FORWARDED);
            let told: Vec<HeaderName> = headers
                .keys()
                .filter(|name| name.as_str().starts_with("x-forwarded-"))
                .cloned()
                .collect();
            for name in told {
                headers.remove(name);
            }
            ip.to_string()
        }
    };
    headers.insert(FORWARDED_FOR, value(&from));
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(FORWARDED_HOST)
        && let Some(host) = headers.get(HOST).filter(|host| host.len() <= HOST_MAX_BYTES).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
    if let Some(prefix) = prefix {
        headers.remove(COOKIE);
        headers.insert(FORWARDED_PREFIX, value(prefix));
    }
}

/// What a request is on its way to a worker, whatever it was on its way here.
pub fn to_worker<B>(request: &mut Request<B>, host: &str) {
    // The worker sends trailers to whoever can take them; whether the caller can is for the
    // connection to the caller to see.
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    // Each hop has its own version: a link is kept, however old the caller's protocol is.
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().entry(HOST).or_insert_with(|| value(host));
}

/// Prepares a worker's answer for the caller.
pub fn response_headers(headers: &mut HeaderMap, by_path: bool) {
    // A link ends where nobody reads the rest of the request. Nor is it read here, then.
    let ends = asks_to_close(Version::HTTP_11, headers);
    end_hop(headers);
    if ends {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if by_path {
        headers.remove(SET_COOKIE);
        headers.remove("clear-site-data");
        headers.remove("service-worker-allowed");
        // Beside the function's own policy, if it has one: a browser enforces both.
        headers.append(CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("addresses and paths of a parsed request are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    fn after(
        pairs: &[(&'static str, &'static str)],
        change: impl FnOnce(&mut HeaderMap),
    ) -> Vec<(String, String)> {
        let mut headers = headers(pairs);
        change(&mut headers);
        let text =
            |(n, v): (&HeaderName, &HeaderValue)| (n.to_string(), v.to_str().unwrap().to_owned());
        let mut pairs: Vec<_> = headers.iter().map(text).collect();
        pairs.sort();
        pairs
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
    }

    #[test]
    fn a_strangers_claims_are_dropped() {
        let sent = [
            ("host", "acme.localhost"),
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/t/other"),
            ("x-hearth-caller", "admin"),
            ("cookie", "a=b"),
        ];
        assert_eq!(
            after(&sent, |h| request_headers(h, Peer::Stranger(IP), None)),
            pairs(&[
                ("cookie", "a=b"),
                ("host", "acme.localhost"),
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-host", "acme.localhost"),
                ("x-forwarded-proto", "http"),
            ])
        );
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_joins_the_list() {
        let sent = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-hearth-caller", "x"),
        ];
        assert_eq!(
            after(&sent, |h| request_headers(h, Peer::Trusted(IP), None)),
            pairs(&[("x-forwarded-for", "10.0.0.1, 192.0.2.7"), ("x-forwarded-proto", "https")])
        );
    }

    #[test]
    fn hops_end_here() {
        let sent = [
            ("connection", "close, x-private, Host, content-length"),
            ("x-private", "1"),
            ("host", "h"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic x"),
            ("x-public", "2"),
        ];
        assert_eq!(
            after(&sent, |h| request_headers(h, Peer::Stranger(IP), None)),
            pairs(&[
                ("content-length", "3"),
                ("host", "h"),
                ("te", "trailers"),
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-host", "h"),
                ("x-forwarded-proto", "http"),
                ("x-public", "2"),
            ])
        );
    }

    #[test]
    fn by_path_cookies_stay_out_both_ways() {
        let sent = [("cookie", "session=1")];
        assert_eq!(
            after(&sent, |h| request_headers(h, Peer::Stranger(IP), Some("/t/acme"))),
            pairs(&[
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-prefix", "/t/acme"),
                ("x-forwarded-proto", "http"),
            ])
        );
        let answered = [
            ("set-cookie", "session=2"),
            ("clear-site-data", "*"),
            ("service-worker-allowed", "/"),
            ("trailer", "x-sum"),
        ];
        assert_eq!(
            after(&answered, |h| response_headers(h, true)),
            pairs(&[("content-security-policy", SANDBOX), ("trailer", "x-sum")])
        );
        assert_eq!(after(&answered, |h| response_headers(h, false)).len(), 4);
    }

    #[test]
    fn a_link_that_ends_is_an_end_for_the_caller_too() {
        for (connection, left) in
            [("close, x-private", vec![("connection", "close")]), ("keep-alive, x-private", vec![])]
        {
            let answered = [("connection", connection), ("x-private", "1")];
            for by_path in [false, true] {
                let mut headers = headers(&answered);
                response_headers(&mut headers, by_path);
                // As by path, where this happens twice.
                response_headers(&mut headers, false);
                headers.remove(CONTENT_SECURITY_POLICY);
                let found = after(&[], |h| *h = headers);
                assert_eq!(found, pairs(&left), "{connection} {by_path}");
            }
        }
    }
}
