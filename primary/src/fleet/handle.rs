//! How one tenant's supervisor is reached: what it is asked goes into its inbox, and what anybody may
//! know lies open.

use std::sync::Arc;

use tokio::sync::watch;

use super::inbox::Inbox;
use super::links::Links;
use super::status::WorkerStatus;

/// How to reach a supervisor.
#[derive(Clone)]
pub struct Handle {
    pub inbox: Inbox,
    pub snapshot: watch::Receiver<Snapshot>,
}

/// What others may know without asking.
#[derive(Clone)]
pub struct Snapshot {
    pub status: WorkerStatus,
    pub links: Option<Arc<Links>>,
}
