//! What a request must be, beyond what hyper asks of it, so that nobody on its way can read it
//! otherwise than we do.

use http::header::HOST;
use http::{Request, Version};

/// Whose request it is, is said once and by one name. What is asked for has a path: a host alone is
/// what proxies are asked for (RFC 9112, 3.2.3).
pub fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    if request.uri().path().is_empty() {
        return Err("the request's target is a host and no path");
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() < Version::HTTP_11 => return Ok(()),
        (None, _) => return Err("the Host header is missing"),
        (Some(_), Some(_)) => return Err("there is more than one Host header"),
        (Some(host), None) => host.to_str().map_err(|_| "the Host header is not valid text")?,
    };
    match request.uri().authority() {
        Some(named) if !named.as_str().eq_ignore_ascii_case(host) => {
            Err("the request's target and its Host header name different hosts")
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_host_once() {
        for (target, version, hosts, fits) in [
            ("/a", Version::HTTP_11, &["h"][..], true),
            ("/a", Version::HTTP_11, &[""], true),
            ("/a", Version::HTTP_11, &[], false),
            ("/a", Version::HTTP_10, &[], true),
            ("/a", Version::HTTP_11, &["h", "h"], false),
            ("/a", Version::HTTP_10, &["h", "g"], false),
            ("http://h/a", Version::HTTP_11, &["H"], true),
            ("http://h:80/a", Version::HTTP_11, &["h"], false),
            ("http://g/a", Version::HTTP_11, &["h"], false),
            ("http://g/a", Version::HTTP_11, &[], false),
            ("http://u@h/a", Version::HTTP_11, &["h"], false),
            ("http://h", Version::HTTP_11, &["h"], true),
            ("http://h?a", Version::HTTP_11, &["h"], true),
            ("*", Version::HTTP_11, &["h"], true),
            ("h", Version::HTTP_11, &["h"], false),
            ("h:80", Version::HTTP_11, &["h:80"], false),
            ("(", Version::HTTP_10, &[], false),
        ] {
            let mut request = Request::builder().uri(target).version(version);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            let request = request.body(()).unwrap();
            assert_eq!(check(&request).is_ok(), fits, "{target} {hosts:?}");
        }
        let request = Request::builder().uri("/a").header(HOST, &b"\xff"[..]).body(()).unwrap();
        assert!(check(&request).is_err());
    }
}
