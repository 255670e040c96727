//! The environment: the only place that reads it, and whose each variable below `HEARTH_` is.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Begins the names of all of the host's.
pub const PREFIX: &str = "HEARTH_";
/// Names below HEARTH_ that are not settings of the host.
pub const OTHERS: [&str; 6] = [
    "HEARTH_CONFIG",
    "HEARTH_ADMIN_TOKEN",
    "HEARTH_URL",
    "HEARTH_TOKEN",
    "HEARTH_TENANT",
    "HEARTH_CA_FILE",
];

/// A value that is no UTF-8 is read with its bad bytes replaced, and refused as what it is then.
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the environment")]
pub fn variable(name: &str) -> Option<String> {
    match std::env::var(name) {
        Ok(text) => Some(text),
        Err(std::env::VarError::NotPresent) => None,
        Err(std::env::VarError::NotUnicode(text)) => Some(text.to_string_lossy().into_owned()),
    }
}

/// The variables that settings are read from, or that must be refused.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .map(|(name, text)| {
            (name.to_string_lossy().into_owned(), text.to_string_lossy().into_owned())
        })
        .filter(|(name, _)| name.starts_with(PREFIX) || name == "NOTIFY_SOCKET")
        .collect()
}

/// Whether a variable below `HEARTH_` that is no setting is none of the host's either.
pub fn is_foreign(name: &str, text: &str) -> bool {
    OTHERS.contains(&name) || is_of_a_service(name, text)
}

/// What Kubernetes puts into each container for a service whose name begins with `hearth`, be that
/// `hearth` or `hearth-web`, and containers that are linked. Told by name and value, so that a
/// setting which is spelt like one of these stays an error.
fn is_of_a_service(name: &str, text: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    // HEARTH, and what else the service is called, come before that.
    let after = |at: usize| words.get(at..).unwrap_or_default();
    (1..words.len()).any(|at| match after(at) {
        ["SERVICE", "HOST"] => text.parse::<IpAddr>().is_ok(),
        ["SERVICE", "PORT", ..] => is_port(text),
        ["PORT"] => is_address(text),
        ["PORT", port, "TCP" | "UDP" | "SCTP", rest @ ..] if is_port(port) => match rest {
            [] => is_address(text),
            ["PROTO"] => matches!(text, "tcp" | "udp" | "sctp"),
            ["PORT"] => is_port(text),
            ["ADDR"] => text.parse::<IpAddr>().is_ok(),
            _ => false,
        },
        _ => false,
    })
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

/// As in `tcp://10.0.0.1:3400`.
fn is_address(text: &str) -> bool {
    let Some((protocol, address)) = text.split_once("://") else { return false };
    let port = address.rsplit_once(':').map(|(_, port)| port);
    matches!(protocol, "tcp" | "udp" | "sctp") && port.is_some_and(is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_service_s_is_none_of_the_host_s() {
        for service in ["HEARTH", "HEARTH_WEB", "HEARTH_2"] {
            for (name, text) in [
                ("SERVICE_HOST", "10.0.0.1"),
                ("SERVICE_HOST", "fd00::1"),
                ("SERVICE_PORT", "3400"),
                ("SERVICE_PORT_HTTP_API", "3400"),
                ("PORT", "tcp://10.0.0.1:3400"),
                ("PORT", "udp://[fd00::1]:53"),
                ("PORT_3400_TCP", "tcp://10.0.0.1:3400"),
                ("PORT_3400_TCP_PROTO", "tcp"),
                ("PORT_3400_TCP_PORT", "3400"),
                ("PORT_3400_TCP_ADDR", "10.0.0.1"),
            ] {
                assert!(is_foreign(&format!("{service}_{name}"), text), "{service}_{name}={text}");
            }
        }
    }

    #[test]
    fn a_misspelt_setting_is_the_host_s() {
        for (name, text) in [
            ("HEARTH_PORT", "3400"),
            ("HEARTH_TENANT_PORT", "3411-13410"),
            ("HEARTH_SERVICE_HOST", "localhost:3400"),
            ("HEARTH_SERVICE_PORT", "many"),
            ("HEARTH_IDEL", "60s"),
            ("HEARTH_LISTEN_PORT", "127.0.0.1:3400"),
            ("HEARTH_PORT_X_TCP", "tcp://10.0.0.1:3400"),
        ] {
            assert!(!is_foreign(name, text), "{name}={text}");
        }
    }
}
