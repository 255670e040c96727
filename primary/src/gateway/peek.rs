//! Whether a connection at the front door may be handed over, by the first head on it. Pure:
//! bytes in, a verdict out, and nothing but that first head is looked at.
//!
//! Only what is plain may: HTTP/1.1, to a tenant by host name, straight from its client. A proxy
//! pools connections over hosts, so any sign of one keeps the connection here; so does anything
//! that the worker would not answer as the front door does.

use hearth_connection::credentials;
use hearth_wire::TenantName;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use httparse::{EMPTY_HEADER, Header, Request, Status};

use crate::names::{Named, Names};

/// A head that is longer, or has more fields, is none of the plain ones.
pub const HEAD_MAX_BYTES: usize = 8 << 10;
const HEADERS_MAX: usize = 64;
/// What proxies add, and what changes the protocol.
const TELLING: [&str; 4] = ["forwarded", "via", "x-real-ip", "upgrade"];
const X_FORWARDED: &str = "x-forwarded-";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peek {
    /// The head has not come whole.
    Incomplete,
    /// It may go to this tenant, if there is one, and if these tokens are not the host's own.
    Tenant(TenantName, Vec<String>),
    Unusual,
}

pub fn peek(bytes: &[u8], names: &Names) -> Peek {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) if bytes.len() < HEAD_MAX_BYTES => return Peek::Incomplete,
        Ok(Status::Partial) | Err(_) => return Peek::Unusual,
    }
    let Some(tenant) = tenant(&request, names) else { return Peek::Unusual };
    match tokens(&request) {
        Some(tokens) => Peek::Tenant(tenant, tokens),
        None => Peek::Unusual,
    }
}

/// Whatever it carries as a token, by whomever it is to be checked.
fn tokens(request: &Request<'_, '_>) -> Option<Vec<String>> {
    let mut credentials = HeaderMap::new();
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case(AUTHORIZATION.as_str()) {
            credentials.append(AUTHORIZATION, HeaderValue::from_bytes(header.value).ok()?);
        }
    }
    Some(credentials::candidates(&credentials))
}

fn tenant(request: &Request<'_, '_>, names: &Names) -> Option<TenantName> {
    let is = |header: &Header<'_>, name: &str| header.name.eq_ignore_ascii_case(name);
    let tells = |header: &Header<'_>| {
        let start = header.name.as_bytes().get(..X_FORWARDED.len());
        TELLING.iter().any(|name| is(header, name))
            || start.is_some_and(|start| start.eq_ignore_ascii_case(X_FORWARDED.as_bytes()))
    };
    let path = request.path?.split('?').next()?;
    let plain = request.version == Some(1)
        && path.starts_with('/')
        // Behind it is nothing that a server is meant to see; who parses it takes it off.
        && !path.contains('#')
        && !path.ends_with("/$upload")
        && !request.headers.iter().any(tells);
    let mut hosts = request.headers.iter().filter(|header| is(header, "host"));
    let (host, other) = (hosts.next()?, hosts.next());
    let host = std::str::from_utf8(host.value).ok()?;
    let Named::Tenant(tenant) = names.find(host) else { return None };
    (plain && other.is_none()).then_some(tenant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn acme() -> Peek {
        Peek::Tenant("acme".parse().unwrap(), vec![])
    }

    fn peek(bytes: &[u8], domain: Option<&str>) -> Peek {
        super::peek(bytes, &Names::new(domain.map(str::to_owned), vec![]))
    }

    #[test]
    fn the_tokens_that_it_carries_are_told() {
        let head = "GET /a HTTP/1.1\r\nhost: acme.localhost\r\nauthorization: Bearer one\r\n\
                    Authorization: Basic eDp0d28=\r\n\r\n";
        let tokens = ["Bearer", "one", "Basic", "eDp0d28=", "two"].map(str::to_owned);
        assert_eq!(
            peek(head.as_bytes(), None),
            Peek::Tenant("acme".parse().unwrap(), tokens.into())
        );
    }

    #[test]
    fn the_platforms_own_names_are_not_a_tenants() {
        let names = Names::new(Some("example.org".into()), vec!["acme.example.org".into()]);
        let head = |host| format!("GET /a HTTP/1.1\r\nhost: {host}\r\n\r\n");
        assert_eq!(super::peek(head("acme.example.org").as_bytes(), &names), Peek::Unusual);
        assert_eq!(super::peek(head("acme.localhost").as_bytes(), &names), acme());
    }

    #[test]
    fn what_is_plain_goes_to_its_tenant() {
        for head in [
            "POST /hello HTTP/1.1\r\nhost: acme.localhost:3400\r\n\r\n",
            "GET /$health?x=/$upload HTTP/1.1\r\nHost: ACME.example.org\r\n\r\n",
            "POST /a HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\nabc",
            "POST /a HTTP/1.1\r\nhost: acme.localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(peek(head.as_bytes(), Some("example.org")), acme(), "{head}");
            for cut in 0..head.find("\r\n\r\n").unwrap() + 4 {
                assert_eq!(
                    peek(&head.as_bytes()[..cut], None),
                    Peek::Incomplete,
                    "{cut} of {head}"
                );
            }
        }
    }

    #[test]
    fn whatever_else_stays() {
        for (line, fields) in [
            ("POST /hello HTTP/1.0", "host: acme.localhost"),
            ("POST /hello HTTP/1.1", "host: localhost"),
            ("POST /hello HTTP/1.1", "host: 127.0.0.1:3400"),
            ("POST /t/acme/hello HTTP/1.1", "host: localhost"),
            ("POST /hello HTTP/1.1", "host: -x.localhost"),
            ("POST /hello HTTP/1.1", "accept: a"),
            ("POST /hello HTTP/1.1", "host: acme.localhost\r\nhost: acme.localhost"),
            ("POST http://acme.localhost/hello HTTP/1.1", "host: acme.localhost"),
            ("OPTIONS * HTTP/1.1", "host: acme.localhost"),
            ("CONNECT acme.localhost:80 HTTP/1.1", "host: acme.localhost"),
            ("POST /$upload HTTP/1.1", "host: acme.localhost"),
            ("POST /jobs/$upload?x HTTP/1.1", "host: acme.localhost"),
            ("POST /jobs/$upload#x HTTP/1.1", "host: acme.localhost"),
            ("POST /hello HTTP/1.1", "host: acme.localhost\r\nForwarded: for=1.2.3.4"),
            ("POST /hello HTTP/1.1", "X-Forwarded-For: 1.2.3.4\r\nhost: acme.localhost"),
            ("POST /hello HTTP/1.1", "x-forwarded-proto: https\r\nhost: acme.localhost"),
            ("POST /hello HTTP/1.1", "via: 1.1 cache\r\nhost: acme.localhost"),
            ("POST /hello HTTP/1.1", "x-real-ip: 1.2.3.4\r\nhost: acme.localhost"),
            (
                "GET /hello HTTP/1.1",
                "host: acme.localhost\r\nconnection: upgrade\r\nupgrade: websocket",
            ),
            ("PRI * HTTP/2.0", "host: acme.localhost"),
            ("nonsense", "host: acme.localhost"),
            ("POST /hello HTTP/1.1", "host: acme.localhost\r\nbad header: x"),
        ] {
            let head = format!("{line}\r\n{fields}\r\n\r\n");
            assert_eq!(peek(head.as_bytes(), None), Peek::Unusual, "{head}");
        }
        let long = format!("POST /hello HTTP/1.1\r\nx: {}", "x".repeat(HEAD_MAX_BYTES));
        assert_eq!(peek(long.as_bytes(), None), Peek::Unusual);
    }

    proptest! {
        /// What goes to a worker, the worker reads as we did: no more of a head is needed.
        #[test]
        fn nothing_changes_with_what_comes_after(bytes in "[ -~\r\n]{0,200}", more in "[ -~\r\n]{0,50}") {
            let whole = format!("POST /x HTTP/1.1\r\nhost: acme.localhost\r\n{bytes}");
            let seen = peek(whole.as_bytes(), None);
            if seen != Peek::Incomplete {
                prop_assert_eq!(peek(format!("{whole}{more}").as_bytes(), None), seen);
            }
        }
    }
}
