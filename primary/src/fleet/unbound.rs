//! Why a tenant's port is not had, as those are told who can do something about it.

use std::io;
use std::net::IpAddr;

use rustix::io::Errno;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unbound {
    #[error("port {0} is used by another program")]
    Taken(u16),
    #[error("the host's user may not bind port {0}")]
    Forbidden(u16),
    #[error("port {0} cannot be bound, since this machine does not have the address {1}")]
    NoAddress(u16, IpAddr),
    #[error("port {0} could not be bound")]
    Failed(u16),
}

impl Unbound {
    pub fn of(error: &io::Error, ip: IpAddr, port: u16) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::Taken(port),
            io::ErrorKind::PermissionDenied => Self::Forbidden(port),
            io::ErrorKind::AddrNotAvailable => Self::NoAddress(port, ip),
            // Of a machine without IPv6, say.
            _ if Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT) => {
                Self::NoAddress(port, ip)
            }
            _ => Self::Failed(port),
        }
    }

    /// For logs, and in front of the sentence for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Taken(_) => "port_taken",
            Self::Forbidden(_) => "port_forbidden",
            Self::NoAddress(..) => "port_without_address",
            Self::Failed(_) => "port_not_bound",
        }
    }

    /// What the host's operator can do.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Taken(_) => "free it",
            Self::Forbidden(_) => {
                "start the host with the right to bind it (CAP_NET_BIND_SERVICE for ports below 1024)"
            }
            Self::NoAddress(..) => "start the host with a `tenant-bind` that this machine has",
            Self::Failed(_) => "the host's log says why",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::fleet::sockets::bind;

    #[test]
    fn what_went_wrong_is_told_apart() {
        let ip = Ipv4Addr::LOCALHOST.into();
        let listener = bind(ip, 0).unwrap();
        let bound: std::net::SocketAddr =
            rustix::net::getsockname(&listener).unwrap().try_into().unwrap();
        let port = bound.port();
        let told = |ip, port| Unbound::of(&bind(ip, port).unwrap_err(), ip, port);
        assert_eq!(told(ip, port), Unbound::Taken(port));
        // An address of nobody's, which documents are written with.
        let elsewhere = Ipv4Addr::new(192, 0, 2, 1).into();
        assert_eq!(told(elsewhere, port), Unbound::NoAddress(port, elsewhere));
        for (errno, expected) in [
            (Errno::ACCESS, Unbound::Forbidden(80)),
            (Errno::PERM, Unbound::Forbidden(80)),
            (Errno::AFNOSUPPORT, Unbound::NoAddress(80, ip)),
            (Errno::MFILE, Unbound::Failed(80)),
        ] {
            assert_eq!(Unbound::of(&errno.into(), ip, 80), expected, "{errno}");
        }
    }
}
