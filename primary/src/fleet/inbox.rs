//! What one tenant's supervisor is asked for, and what happened to it: everything that it hears of.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hearth_wire::{Channel, FromWorker, GenerationNumber, Passing, Setting, What};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::conversation::Conversation;
use super::error::{FleetError, SwapError, Unavailable};
use super::lifecycle::WorkerId;
use super::links::Links;
use super::parking::Connection;
use super::zygote::Forked;

pub type Commit = BoxFuture<'static, Result<(), String>>;
pub type Answer<T> = oneshot::Sender<T>;

/// In a box each: an inbox has room for 32 from its start, and most tenants sleep.
pub type Inbox = mpsc::Sender<Box<Command>>;

pub enum Command {
    /// Links into a worker that serves, starting one if need be.
    Wake(Answer<Result<Arc<Links>, Unavailable>>),
    /// The same for what the tenant keeps, of who was told that no worker serves: one that serves
    /// no function will do.
    Keep(Answer<Result<Arc<Links>, Unavailable>>),
    Swap(Next, Answer<Result<Duration, SwapError>>),
    /// The tenant's port first, where it is not had yet.
    Listen(Answer<Result<(), FleetError>>),
    Start(Answer<Result<(), FleetError>>),
    Stop(Answer<Result<(), FleetError>>),
    /// Answered when every live worker goes by this.
    Tell(What, Answer<()>),
    /// Answered when what calls wrote that were answered before is in the hands of the logs.
    Report(Answer<()>),
    /// Every live worker is killed, for this reason. What follows is as if they had ended by
    /// themselves.
    End(String),
    /// Finish what runs, then end.
    Shutdown,
    /// There is no more time for that.
    Hurry,
    /// End soon: the tenant is being removed.
    Remove,
    /// A connection from the front door that speaks. It comes back where no worker can have it.
    Give(Box<Connection>, Answer<Result<(), Box<Connection>>>),
    FromWorker(WorkerId, FromWorker),
    /// Connections that a worker is done with.
    PassedOn(WorkerId, Vec<(OwnedFd, Passing)>),
    Forked(WorkerId, Box<Result<Newborn, StartError>>),
    Exited(WorkerId, String),
    Committed(Result<(), String>),
}

/// What is to serve in the place of what does.
pub struct Next {
    pub generation: GenerationNumber,
    /// Without one: the same generation again.
    pub commit: Option<Commit>,
    /// What its worker is told, where the commit makes that of what is kept.
    pub settings: Option<Vec<Setting>>,
}

/// Why no process came of a start.
pub enum StartError {
    /// The generation cannot be had: it counts like a death, since trying again changes nothing.
    Generation(String),
    /// The tenant's secrets cannot be opened: nothing starts before somebody acts.
    Sealed(String),
    /// The zygote or the kernel, or what is missing of either; not the tenant's doing.
    Host(String),
}

/// A process that came of a start, and what it has been told.
pub struct Newborn {
    pub forked: Forked,
    pub channel: Channel,
    pub conversation: Conversation,
    /// Held until it is ready, so that few workers start at once.
    pub permit: OwnedSemaphorePermit,
}
