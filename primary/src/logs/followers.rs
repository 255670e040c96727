//! Who is told of records as they come: a broadcast for each tenant and kind, which drops what a
//! follower is too slow for and tells it so.

use std::collections::HashMap;
use std::sync::Arc;

use hearth_wire::TenantName;
use tokio::sync::broadcast;

use super::record::Entry;
use super::records::{Call, Line};

/// Records that a follower may be behind before it misses some.
pub const BEHIND_MAX: usize = 256;
/// Followers of one tenant's lines, and of its calls.
pub const FOLLOWERS_MAX: usize = 32;

/// What a follower is sent.
#[derive(Debug, Clone)]
pub enum News<T> {
    Entry(Arc<Entry<T>>),
    /// So many were dropped before they could be kept.
    Dropped(u64),
}

pub type Feed<T> = broadcast::Sender<News<T>>;

/// One tenant's followers.
pub struct Feeds {
    pub lines: Feed<Line>,
    pub calls: Feed<Call>,
}

impl Feeds {
    pub fn new() -> Self {
        Self {
            lines: broadcast::Sender::new(BEHIND_MAX),
            calls: broadcast::Sender::new(BEHIND_MAX),
        }
    }

    pub fn deserted(&self) -> bool {
        self.lines.receiver_count() == 0 && self.calls.receiver_count() == 0
    }
}

pub enum Followers {
    /// By tenant, where there are any.
    Served(HashMap<TenantName, Feeds>),
    /// The host is going down.
    Ended,
}

impl Followers {
    pub fn feeds(&mut self) -> Option<&mut HashMap<TenantName, Feeds>> {
        match self {
            Self::Served(feeds) => Some(feeds),
            Self::Ended => None,
        }
    }
}
