//! What happens to a request and its answer on their way through the front door: hop-by-hop
//! headers end here, forwarding headers are made or believed, and by path the browser is told to
//! treat the answer as a stranger's. Bodies and trailers pass as they are.

use hearth_connection::forwarding::{self, Word};
use hearth_connection::{asks_to_close, caller, end_hop, end_request_hop};
use hearth_wire::Origin;
use hearth_wire::header::FORWARDED_PREFIX;
use http::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONNECTION,
    CONTENT_SECURITY_POLICY, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, TE,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Request, Response, StatusCode, Version};

use super::origin;

/// Since answers by path share the dashboard's origin.
const SANDBOX: &str = "sandbox allow-scripts allow-forms";
/// What the platform itself says, which is all that a browser may hear of it on that origin: to
/// another challenge it would answer with what it has for this origin, or ask a person for it.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"hearth\"");

/// Prepares a request's headers for a worker. `prefix` is what was taken off the path.
pub fn request_headers(headers: &mut HeaderMap, peer: Word<'_>, prefix: Option<&str>) {
    end_request_hop(headers);
    caller::withhold(headers, Origin::Outside);
    headers.remove(FORWARDED_PREFIX);
    forwarding::tell(headers, peer);
    if let Some(prefix) = prefix {
        headers.remove(COOKIE);
        headers.insert(FORWARDED_PREFIX, value(prefix));
    }
}

/// Prepares the headers of a request that somebody made of the platform, and that now becomes a
/// call. What concerns that request alone stays here: whose token and cookies it came with, from
/// where, and which page asked, which is this origin's to judge and not the function's.
pub fn call_headers(headers: &mut HeaderMap) {
    end_request_hop(headers);
    caller::withhold(headers, Origin::Outside);
    let own = [
        AUTHORIZATION,
        COOKIE,
        HOST,
        ORIGIN,
        ACCESS_CONTROL_REQUEST_METHOD,
        ACCESS_CONTROL_REQUEST_HEADERS,
    ];
    let is_own = |name: &HeaderName| own.contains(name) || forwarding::is_forwarding(name);
    let taken: Vec<HeaderName> = headers.keys().filter(|name| is_own(name)).cloned().collect();
    for name in taken {
        headers.remove(name);
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
pub fn response_headers(headers: &mut HeaderMap) {
    // A link ends where nobody reads the rest of the request. Nor is it read here, then.
    let ends = asks_to_close(Version::HTTP_11, headers);
    end_hop(headers);
    if ends {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Prepares one that goes out on the platform's own origin: nothing in it is for that origin, and
/// a browser takes its page for a stranger's, and for nothing but what it says it is.
pub fn foreign<B>(mut response: Response<B>) -> Response<B> {
    let status = response.status();
    foreign_headers(response.headers_mut(), status);
    response
}

fn foreign_headers(headers: &mut HeaderMap, status: StatusCode) {
    origin::keep_own(headers);
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, CHALLENGE);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Beside the function's own policy, if it has one: a browser enforces both.
    headers.append(CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("addresses and paths of a parsed request are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_connection::forwarding::{FORWARDED_FOR, FORWARDED_PROTO};
    use std::net::{IpAddr, Ipv4Addr};

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
            after(&sent, |h| request_headers(h, Word::Stranger(IP), None)),
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
    fn a_trusted_proxy_is_believed_in_what_was_named_and_joins_the_list() {
        let sent = [
            ("forwarded", "for=10.0.0.1;host=forged"),
            ("host", "acme.localhost"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "forged"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-proto", "https"),
            ("x-hearth-caller", "x"),
        ];
        let named = [FORWARDED_FOR, FORWARDED_PROTO];
        assert_eq!(
            after(&sent, |h| request_headers(h, Word::Believed(IP, &named), None)),
            pairs(&[
                ("host", "acme.localhost"),
                ("x-forwarded-for", "10.0.0.1, 192.0.2.7"),
                ("x-forwarded-host", "acme.localhost"),
                ("x-forwarded-proto", "https"),
            ])
        );
        assert_eq!(
            after(&sent, |h| request_headers(h, Word::Believed(IP, &[]), None)),
            pairs(&[
                ("host", "acme.localhost"),
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-host", "acme.localhost"),
                ("x-forwarded-proto", "http"),
            ])
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
            after(&sent, |h| request_headers(h, Word::Stranger(IP), None)),
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
            after(&sent, |h| request_headers(h, Word::Stranger(IP), Some("/t/acme"))),
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
            ("www-authenticate", "Basic realm=\"the platform\""),
        ];
        let stranger = [
            ("content-security-policy", SANDBOX),
            ("trailer", "x-sum"),
            ("x-content-type-options", "nosniff"),
        ];
        assert_eq!(after(&answered, |h| foreign_headers(h, StatusCode::OK)), pairs(&stranger));
        let refused = after(&answered, |h| foreign_headers(h, StatusCode::UNAUTHORIZED));
        assert_eq!(refused.len(), 4);
        assert!(refused.contains(&pairs(&[("www-authenticate", "Bearer realm=\"hearth\"")])[0]));
        assert_eq!(after(&answered, response_headers).len(), 5);
    }

    #[test]
    fn a_link_that_ends_is_an_end_for_the_caller_too() {
        for (connection, left) in
            [("close, x-private", vec![("connection", "close")]), ("keep-alive, x-private", vec![])]
        {
            let answered = [("connection", connection), ("x-private", "1")];
            for by_path in [false, true] {
                let mut headers = headers(&answered);
                response_headers(&mut headers);
                if by_path {
                    foreign_headers(&mut headers, StatusCode::OK);
                    headers.remove(CONTENT_SECURITY_POLICY);
                    headers.remove(X_CONTENT_TYPE_OPTIONS);
                }
                let found = after(&[], |h| *h = headers);
                assert_eq!(found, pairs(&left), "{connection} {by_path}");
            }
        }
    }
}
