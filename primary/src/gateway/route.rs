//! Whom a request at the front door is for. Pure: host, path and this host's names in, a target
//! out.

use hearth_wire::TenantName;

use crate::names::{Named, Names};

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
    /// By a name that is not one of this host's.
    Stranger,
}

/// What whoever watches over this host asks, by whatever name: it says nothing of anybody.
const BY_ANY_NAME: [&str; 2] = ["/healthz", "/readyz"];

/// `host` is the request's `Host` or the authority of its target, which HTTP/1.0 may leave out;
/// `path` as it was sent.
pub fn route<'a>(host: Option<&str>, path: &'a str, names: &Names) -> Target<'a> {
    match host.map_or(Named::Platform, |host| names.find(host)) {
        Named::Tenant(tenant) => return Target::Host(tenant),
        Named::Nobody => return Target::Nobody,
        Named::Stranger if BY_ANY_NAME.contains(&path) => return Target::Platform,
        Named::Stranger => return Target::Stranger,
        Named::Platform => {}
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

    fn named(domain: &str) -> Names {
        Names::new(Some(domain.to_owned()), vec![])
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
            ("acme.elsewhere.net", Target::Stranger),
            ("a.b.localhost", Target::Nobody),
            (".localhost", Target::Nobody),
            ("acme..localhost", Target::Nobody),
            ("-acme.localhost", Target::Nobody),
            ("acme.localhost.", Target::Host(tenant("acme"))),
            ("", Target::Stranger),
        ] {
            assert_eq!(route(Some(host), "/hello", &named("example.org")), target, "{host}");
        }
        let none = Names::default();
        assert_eq!(route(None, "/hello", &none), Target::Platform);
        assert_eq!(route(Some("acme.example.org"), "/", &none), Target::Stranger);
    }

    #[test]
    fn only_health_is_told_by_any_name() {
        for (path, target) in [
            ("/healthz", Target::Platform),
            ("/readyz", Target::Platform),
            ("/healthz/", Target::Stranger),
            ("/metrics", Target::Stranger),
            ("/", Target::Stranger),
            ("/api/v1/whoami", Target::Stranger),
            ("/t/acme/hello", Target::Stranger),
        ] {
            assert_eq!(route(Some("evil.example"), path, &named("example.org")), target, "{path}");
        }
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
            assert_eq!(route(Some("127.0.0.1:3400"), path, &Names::default()), target, "{path}");
        }
    }

    #[test]
    fn the_host_goes_before_the_path() {
        let target = route(Some("acme.localhost"), "/t/other/x", &Names::default());
        assert_eq!(target, Target::Host(tenant("acme")));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(host in "\\PC{0,30}", path in "/\\PC{0,30}", domain in "[a-z.]{0,10}") {
            if let Target::Path { prefix, rest, .. } = route(Some(&host), &path, &named(&domain)) {
                prop_assert!(rest.starts_with('/'));
                prop_assert!(path.starts_with(prefix));
            }
        }
    }
}
