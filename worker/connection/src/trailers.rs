//! What may not be said behind a request's body, since it was due in front of it (RFC 9110, section
//! 6.5.1): by then it is decided who calls, and some servers put trailers among the headers.

use hearth_wire::header;
use http::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, PROXY_AUTHORIZATION};

use crate::forwarding::is_forwarding;

/// Takes it off.
pub fn end_trailers(trailers: &mut HeaderMap) {
    let late: Vec<HeaderName> = trailers.keys().filter(|name| is_late(name)).cloned().collect();
    for name in late {
        trailers.remove(name);
    }
}

fn is_late(name: &HeaderName) -> bool {
    header::is_reserved(name.as_str())
        || is_forwarding(name)
        || [AUTHORIZATION, COOKIE, HOST, PROXY_AUTHORIZATION].contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_calls_is_not_said_behind_a_body() {
        let mut trailers = HeaderMap::new();
        for name in [
            "x-hearth-trigger",
            "x-hearth-caller",
            "x_hearth_scope",
            "x-forwarded-for",
            "forwarded",
            "authorization",
            "cookie",
            "host",
            "x-sum",
            "ce-id",
        ] {
            trailers.append(name, "x".parse().unwrap());
            trailers.append(name, "y".parse().unwrap());
        }
        end_trailers(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["ce-id", "x-sum"]);
    }
}
