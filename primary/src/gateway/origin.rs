//! What a function may say on the platform's own origin, where it answers by path. A browser takes
//! some headers as the word of the whole origin, or of the host: how to get there, who may ask for
//! credentials, what to keep, whom to report to; and more of them are invented every year. So it is
//! a list of what speaks of nothing but the answer itself.

use http::header::{HeaderMap, HeaderName};

/// In order.
const OWN: [&str; 45] = [
    "accept-patch",
    "accept-post",
    "accept-ranges",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "age",
    "allow",
    "cache-control",
    "connection",
    "content-digest",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-security-policy",
    "content-type",
    "cross-origin-resource-policy",
    "date",
    "deprecation",
    "digest",
    "etag",
    "expires",
    "last-modified",
    "link",
    "location",
    "permissions-policy",
    "pragma",
    "ratelimit",
    "ratelimit-policy",
    "referrer-policy",
    "repr-digest",
    "retry-after",
    "server-timing",
    "sunset",
    "timing-allow-origin",
    "trailer",
    "vary",
    "via",
];

/// A function's own, of which no browser makes anything: but for those that browsers or proxies in
/// front of us act on all the same.
const CUSTOM: &str = "x-";
const NOT_CUSTOM: [&str; 8] = [
    "x-accel-",
    "x-dns-prefetch-control",
    "x-forwarded-",
    "x-lighttpd-",
    "x-permitted-cross-domain-policies",
    "x-reproxy-",
    "x-sendfile",
    "x-xss-protection",
];

/// Takes off what speaks for more than the answer itself.
pub fn keep_own(headers: &mut HeaderMap) {
    let others: Vec<HeaderName> =
        headers.keys().filter(|name| !is_own(name.as_str())).cloned().collect();
    for name in others {
        headers.remove(name);
    }
}

fn is_own(name: &str) -> bool {
    let is_custom =
        || name.starts_with(CUSTOM) && !NOT_CUSTOM.iter().any(|other| name.starts_with(other));
    OWN.binary_search(&name).is_ok() || is_custom()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_for_the_origin_does_not_pass() {
        assert!(OWN.is_sorted());
        for name in OWN.into_iter().chain(["x-request-id", "x-hearth-version", "x-total-count"]) {
            assert!(is_own(name), "{name}");
        }
        for name in [
            "accept-ch",
            "activate-storage-access",
            "alt-svc",
            "attribution-reporting-register-source",
            "authentication-info",
            "clear-site-data",
            "content-security-policy-report-only",
            "critical-ch",
            "cross-origin-embedder-policy",
            "cross-origin-opener-policy",
            "expect-ct",
            "nel",
            "no-vary-search",
            "observe-browsing-topics",
            "origin-agent-cluster",
            "proxy-authenticate",
            "public-key-pins",
            "refresh",
            "report-to",
            "reporting-endpoints",
            "sec-session-registration",
            "server",
            "service-worker-allowed",
            "set-cookie",
            "set-cookie2",
            "set-login",
            "sourcemap",
            "speculation-rules",
            "strict-transport-security",
            "supports-loading-mode",
            "use-as-dictionary",
            "www-authenticate",
            "x-accel-redirect",
            "x-sendfile",
            "whatever-comes-next",
        ] {
            assert!(!is_own(name), "{name}");
        }
    }
}
