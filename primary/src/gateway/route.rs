//! Whom a request at the front door is for. Pure: host, path and the configured domain in, a
//! target out.

use hearth_wire::TenantName;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target<'a> {
    /// Hearth itself: the API, the dashboard, health.
    Platform,
    /// A tenant, by host name.
    Host(TenantName),
    /// A tenant, by path: what was taken off, and what is left.
    Path { tenant: TenantName, prefix: &'a str, rest: &'a str },
    /// Named like a tenant's address, and no tenant can have that name.
    Nobody,
}

/// `host` is the request's `Host` or the authority of its target; `path` as it was sent.
pub fn route<'a>(host: Option<&str>, path: &'a str, domain: Option<&str>) -> Target<'a> {
    if let Some(tenant) = host.and_then(|host| TenantName::of_host(host, domain)) {
        return tenant.map_or(Target::Nobody, Target::Host);
    }
    let Some(below) = path.strip_prefix("/t/") else { return Target::Platform };
    let name = below.split('/').next().expect("a split has a first part");
    let (prefix, rest) = path.split_at("/t/".len() + name.len());
    match name.parse() {
        Ok(tenant) => {
            Target::Path { tenant, prefix, rest: if rest.is_empty() { "/" } else { rest } }
        }
        Err(_) => Target::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tenant(name: &str) -> TenantName {
        name.parse().unwrap()
    }

    #[test]
    fn by_host_name() {
        for (host, target) in [
            ("acme.localhost:3400", Target::Host(tenant("acme"))),
            ("ACME.localhost", Target::Host(tenant("acme"))),
            ("acme.example.org", Target::Host(tenant("acme"))),
            ("acme.Example.org:80", Target::Host(tenant("acme"))),
            ("localhost:3400", Target::Platform),
            ("example.org", Target::Platform),
            ("127.0.0.1:3400", Target::Platform),
            ("[::1]:3400", Target::Platform),
            ("acme.elsewhere.net", Target::Platform),
            ("a.b.localhost", Target::Nobody),
            (".localhost", Target::Nobody),
            ("acme..localhost", Target::Nobody),
            ("-acme.localhost", Target::Nobody),
            ("acme.localhost.", Target::Platform),
            ("", Target::Platform),
        ] {
            assert_eq!(route(Some(host), "/hello", Some("example.org")), target, "{host}");
        }
        assert_eq!(route(None, "/hello", None), Target::Platform);
        assert_eq!(route(Some("acme.example.org"), "/", None), Target::Platform);
    }

    #[test]
    fn by_path() {
        let by_path = |prefix: &'static str, rest: &'static str| Target::Path {
            tenant: tenant("acme"),
            prefix,
            rest,
        };
        for (path, target) in [
            ("/t/acme/hello", by_path("/t/acme", "/hello")),
            ("/t/acme/a/b", by_path("/t/acme", "/a/b")),
            ("/t/acme/", by_path("/t/acme", "/")),
            ("/t/acme", by_path("/t/acme", "/")),
            ("/t/acme//x", by_path("/t/acme", "//x")),
            ("/t/acme/t/other", by_path("/t/acme", "/t/other")),
            ("/t/", Target::Nobody),
            ("/t/ACME/x", Target::Nobody),
            ("/t/../x", Target::Nobody),
            ("/t/%61cme/x", Target::Nobody),
            ("/t", Target::Platform),
            ("/tt/acme", Target::Platform),
            ("/api/v1/tenants", Target::Platform),
        ] {
            assert_eq!(route(Some("127.0.0.1:3400"), path, None), target, "{path}");
        }
    }

    #[test]
    fn the_host_goes_before_the_path() {
        let target = route(Some("acme.localhost"), "/t/other/x", None);
        assert_eq!(target, Target::Host(tenant("acme")));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(host in "\\PC{0,30}", path in "/\\PC{0,30}", domain in "[a-z.]{0,10}") {
            if let Target::Path { prefix, rest, .. } = route(Some(&host), &path, Some(&domain)) {
                prop_assert!(rest.starts_with('/'));
                prop_assert!(path.starts_with(prefix));
            }
        }
    }
}
