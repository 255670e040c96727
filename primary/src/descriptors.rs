//! How many descriptors this process may have, and how they are shared out: every connection, every
//! tenant's socket and every open file is one. What is counted in advance runs out nowhere, so that
//! whoever connects without end has the places of the front door at most, and workers, uploads and
//! the store find what they need.
//!
//! Says how much each part may have. That they keep to it is theirs.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::terminal::complain;

/// With fewer there would be next to none left for connections.
pub const LEAST: u64 = 256;
/// The host's own: the store, the zygote, its log, modules that are taken in and compiled.
const OWN: u64 = 96;
/// A tenant's socket and, while its worker lives, what leads to that: its control socket, its
/// process, and the pipe of its errors.
pub const EACH_TENANT: u64 = 4;
/// The most that is reckoned with, whatever the system allows.
const MOST: u64 = 1 << 20;
/// Beyond these more descriptors are more memory, and nobody is served the better.
const FRONT_MAX: u64 = 10_000;
const TURNED_MAX: u64 = 1_000;
const JOURNALS_MAX: u64 = 128;

/// Who may have how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Connections at the front door. Each may have one more, on to a worker.
    pub front: usize,
    /// Connections that are with no worker.
    pub parked: usize,
    /// Connections that are told that their tenant's worker does not come.
    pub turned: usize,
    /// Connections to one worker at once, which has as many as the host or fewer.
    pub links: usize,
    /// Connections to all workers that nobody uses at the moment.
    pub idle_links: usize,
    /// Tenants whose two journals are held open.
    pub journals: usize,
    /// Tenants that there can be beside all that, each with a worker.
    pub tenants: u64,
}

impl Shares {
    /// `None` where there are too few for anything.
    pub fn of(descriptors: u64) -> Option<Self> {
        let shared = descriptors.min(MOST).checked_sub(OWN)?;
        if descriptors < LEAST {
            return None;
        }
        let front = (shared / 4).min(FRONT_MAX);
        let parked = shared / 8;
        let idle_links = shared / 32;
        let turned = (shared / 64).min(TURNED_MAX);
        let journals = (shared / 64).min(JOURNALS_MAX);
        let taken = 2 * front + parked + turned + idle_links + 2 * journals;
        let count = |share: u64| usize::try_from(share).unwrap_or(usize::MAX);
        Some(Self {
            front: count(front),
            parked: count(parked),
            turned: count(turned),
            links: count(descriptors / 8),
            idle_links: count(idle_links),
            journals: count(journals),
            tenants: (shared - taken) / EACH_TENANT,
        })
    }

    /// Whether somebody should be told that there could be more.
    pub fn are_few(&self) -> bool {
        (self.front as u64) < FRONT_MAX / 10
    }
}

/// Takes as many as the system lets this process have, and tells how many those are.
pub fn raise() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(errno) = setrlimit(Resource::Nofile, limit) {
        // Then there are fewer, which everything goes by.
        complain(format_args!("the limit of open files could not be raised: {errno}"));
    }
    getrlimit(Resource::Nofile).current.unwrap_or(MOST)
}

/// Whether the kernel had no descriptor left, or no memory. It is nobody's fault who asks, and may
/// be otherwise in a moment.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::AGAIN)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_never_given_than_there_is() {
        for descriptors in (LEAST..5_000).chain([20_000, 524_288, 1 << 20, u64::MAX]) {
            let shares = Shares::of(descriptors).unwrap();
            let Shares { front, parked, turned, links, idle_links, journals, tenants } = shares;
            let counted = 2 * front + parked + turned + idle_links + 2 * journals;
            let taken = OWN + counted as u64 + tenants * EACH_TENANT;
            assert!(taken <= descriptors, "{descriptors}: {shares:?}");
            let each = [front, parked, turned, links, idle_links, journals];
            let least = each.into_iter().min().unwrap();
            assert!(least > 0 && tenants >= 10, "{descriptors}: {shares:?}");
        }
        assert_eq!(Shares::of(LEAST - 1), None);
        assert_eq!(Shares::of(0), None);
    }

    #[test]
    fn who_has_enough_is_told_nothing() {
        assert!(Shares::of(512).unwrap().are_few());
        assert!(!Shares::of(20_000).unwrap().are_few());
        assert_eq!(Shares::of(524_288).unwrap().front, 10_000);
    }
}
