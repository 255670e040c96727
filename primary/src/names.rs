//! By which names this host is known: whom a name leads to. A web page can make a browser ask any
//! name of its own, with this host's address behind it; what is asked under a name that the
//! operator has not given is answered by nobody.

use std::net::Ipv6Addr;

use hearth_wire::{TenantName, host_name};

const LOCALHOST: &str = "localhost";

/// Whom a request's host names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    Platform,
    Tenant(TenantName),
    /// An address that no tenant can have, below one that tenants are at.
    Nobody,
    /// A name that is none of this host's.
    Stranger,
}

/// The names that the operator has given, beside those that every host has.
#[derive(Debug, Clone, Default)]
pub struct Names {
    domain: Option<String>,
    platform: Vec<String>,
}

impl Names {
    /// Lower-case, without ports.
    pub fn new(domain: Option<String>, platform: Vec<String>) -> Self {
        Self { domain, platform }
    }

    /// One that the operator has given to the platform is not a tenant's, whatever is below it.
    pub fn find(&self, host: &str) -> Named {
        let name = host_name(host);
        if self.is_platforms(&name) {
            return Named::Platform;
        }
        match TenantName::of_host(host, self.domain.as_deref()) {
            Some(Ok(tenant)) => Named::Tenant(tenant),
            Some(Err(_)) => Named::Nobody,
            None => Named::Stranger,
        }
    }

    /// The domain below which this tenant has a name of its own.
    pub fn domain_of(&self, tenant: &TenantName) -> Option<&str> {
        let domain = self.domain.as_deref()?;
        let is_its_own = !self.platform.contains(&format!("{tenant}.{domain}"));
        is_its_own.then_some(domain)
    }

    fn is_platforms(&self, name: &str) -> bool {
        name == LOCALHOST
            || Some(name) == self.domain.as_deref()
            || self.platform.iter().any(|own| own == name)
            || is_address(name)
    }
}

/// In any spelling: what ends in a number is no name to anybody (URL Standard, "ends in a number
/// checker").
fn is_address(name: &str) -> bool {
    let six = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let last = name.rsplit('.').next().unwrap_or(name);
    let digits = last.strip_prefix("0x").unwrap_or(last);
    let is_number = match digits.len() < last.len() {
        true => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        false => !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()),
    };
    is_number || six.is_some_and(|six| six.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Named {
        Named::Tenant(name.parse().unwrap())
    }

    #[test]
    fn whom_a_name_leads_to() {
        let names =
            Names::new(Some("example.org".into()), vec!["hearth.example.org".into(), "box".into()]);
        for (host, named) in [
            ("127.0.0.1:3400", Named::Platform),
            ("127.0.0.1", Named::Platform),
            ("127.1:3400", Named::Platform),
            ("0x7f000001", Named::Platform),
            ("2130706433", Named::Platform),
            ("1.example", Named::Stranger),
            ("0xg", Named::Stranger),
            ("[::1]:3400", Named::Platform),
            ("[::1]", Named::Platform),
            ("[fe80::1]", Named::Platform),
            ("localhost", Named::Platform),
            ("LocalHost.:3400", Named::Platform),
            ("example.org", Named::Platform),
            ("EXAMPLE.org.:80", Named::Platform),
            ("hearth.example.org", Named::Platform),
            ("box:3400", Named::Platform),
            ("acme.localhost", tenant("acme")),
            ("acme.localhost.", tenant("acme")),
            ("ACME.localhost.:3400", tenant("acme")),
            ("acme.example.org", tenant("acme")),
            ("acme.example.org.", tenant("acme")),
            ("hearth.localhost", tenant("hearth")),
            ("a.b.localhost", Named::Nobody),
            (".localhost", Named::Nobody),
            ("acme..localhost", Named::Nobody),
            ("a.hearth.example.org", Named::Nobody),
            ("-acme.localhost", Named::Nobody),
            ("r\u{435}d.localhost", Named::Nobody),
            ("red_.localhost", Named::Nobody),
            ("evil.example", Named::Stranger),
            ("red_localhost", Named::Stranger),
            ("acme.localhost..", Named::Stranger),
            ("acme.localhost.evil.example", Named::Stranger),
            ("notexample.org", Named::Stranger),
            ("a.box", Named::Stranger),
            ("127.0.0.1.evil.example", Named::Stranger),
            ("[::1]evil.example", Named::Stranger),
            ("::1", Named::Stranger),
            ("user@localhost", Named::Stranger),
            ("localhost:x", Named::Stranger),
            (":3400", Named::Stranger),
            ("", Named::Stranger),
        ] {
            assert_eq!(names.find(host), named, "{host:?}");
        }
        let without = Names::default();
        assert_eq!(without.find("acme.example.org"), Named::Stranger);
        assert_eq!(without.find("example.org"), Named::Stranger);
    }

    #[test]
    fn a_tenant_whose_name_is_the_platforms_has_none_there() {
        let names = Names::new(Some("example.org".into()), vec!["hearth.example.org".into()]);
        assert_eq!(names.domain_of(&"acme".parse().unwrap()), Some("example.org"));
        assert_eq!(names.domain_of(&"hearth".parse().unwrap()), None);
    }
}
