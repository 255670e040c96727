//! What is said between the primary and one worker, from before its birth until its end: says what
//! is to be said, has [`Conversation`] judge what is heard, and tells the supervisor of both.
//!
//! Owns the control socket. What follows from a message is the supervisor's to decide; reports go
//! to the logs, and asks for uplinks are answered here, since neither changes the tenant's state.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hearth_wire::uplink::Kind;
use hearth_wire::{Channel, EXIT_STARVED, ExitStatus, FromWorker, Outcome, ToWorker};
use rustix::net::sockopt;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tracing::warn;

use super::conversation::{Conversation, Nonsense};
use super::inbox::{Command, Inbox};
use super::lifecycle::WorkerId;
use super::links::Outgoing;
use super::shared::Shared;
use super::uplinks::{self, Uplink};
use super::zygote;
use crate::patience::LAST_LOOK;
use crate::store::Tenant;

/// Between two questions whether a worker lives, and how long it may take to answer. It has one
/// thread, which nothing of ours keeps for more than some milliseconds, and a busy machine for
/// seconds at most.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long a dead worker's last words may take to read, and how long one may live on that does
/// not speak to us any more.
const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(2);

/// What is said between the primary and one worker.
pub struct Talk {
    channel: Channel,
    conversation: Mutex<Conversation>,
    uplinks: uplinks::Places,
}

impl Talk {
    /// With a worker that has been told something before its birth.
    pub fn new(channel: Channel, conversation: Conversation) -> Self {
        let conversation = Mutex::new(conversation);
        Self { channel, conversation, uplinks: uplinks::Places::new() }
    }

    fn conversation(&self) -> MutexGuard<'_, Conversation> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(
        &self,
        message: &ToWorker,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), hearth_wire::SocketError> {
        // Before it can have heard it.
        self.conversation().told(message);
        self.channel.send(message, fds).await
    }

    /// The next thing that it says; `None` at the end of the conversation.
    async fn hear(&self) -> Result<Option<(FromWorker, Vec<OwnedFd>)>, Nonsense> {
        let Some((message, fds)) =
            self.channel.recv::<FromWorker>().await.map_err(Nonsense::Garbage)?
        else {
            return Ok(None);
        };
        for fd in &fds {
            // The last close of a socket can be made to wait. What is no socket has no such thing.
            let _ = sockopt::set_socket_linger(fd, None);
        }
        let pause = {
            let mut conversation = self.conversation();
            conversation.said(&message, fds.len())?;
            conversation.pause(Instant::now())
        };
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        Ok(Some((message, fds)))
    }
}

/// Speaks with one worker until its end, and then tells of that: whatever it had to say is said
/// by then.
pub async fn accompany(
    talk: Talk,
    to_send: mpsc::Receiver<Outgoing>,
    worker: WorkerId,
    (pidfd, status): (Arc<AsyncFd<OwnedFd>>, zygote::Status),
    tenant: Tenant,
    inbox: Inbox,
    shared: Arc<Shared>,
) {
    let mut ended = std::pin::pin!(zygote::exit_of(&pidfd, status));
    let mut talking = std::pin::pin!(converse(&talk, to_send, worker, &tenant, &inbox, &shared));
    let ends = |nonsense: Nonsense| {
        if !matches!(nonsense, Nonsense::Silent(_)) {
            count_nonsense(&tenant);
        }
        warn!(tenant = %tenant.name, worker = worker.0, error = &nonsense as &dyn std::error::Error, "ending a worker that broke the protocol");
        zygote::kill(&pidfd);
        nonsense.to_string()
    };
    let explain = |status| {
        let killed = matches!(status, Some(ExitStatus::Signal(9)));
        let cgroups = shared.cgroups.as_ref().filter(|_| killed);
        let starved = cgroups.and_then(|cgroups| cgroups.starved(&tenant.name));
        if starved.is_some() {
            let labels = [("tenant", tenant.name.to_string())];
            metrics::counter!("hearth_out_of_memory_total", &labels).increment(1);
        }
        explain(status, starved)
    };
    let reason = tokio::select! {
        status = &mut ended => match tokio::time::timeout(LAST_WORDS_DEADLINE, talking).await {
            Ok(Err(nonsense)) => ends(nonsense),
            Ok(Ok(())) | Err(_) => explain(status),
        },
        talked = &mut talking => match talked {
            Ok(()) => match tokio::time::timeout(LAST_WORDS_DEADLINE, &mut ended).await {
                Ok(status) => explain(status),
                Err(_) => {
                    warn!(tenant = %tenant.name, worker = worker.0, "ending a worker that does not speak");
                    zygote::kill(&pidfd);
                    explain(ended.await)
                }
            },
            Err(nonsense) => {
                let reason = ends(nonsense);
                ended.await;
                reason
            }
        },
    };
    let _ = inbox.send(Box::new(Command::Exited(worker, reason))).await;
}

/// How a worker ended, for its owner. `starved` is how many bytes its tenant's processes may have,
/// where the kernel ended it for that.
fn explain(status: Option<ExitStatus>, starved: Option<u64>) -> String {
    match (status, starved) {
        (Some(ExitStatus::Code(0)), _) => "ended".to_owned(),
        (Some(ExitStatus::Signal(9)), Some(memory_bytes)) => format!(
            "out of memory: its processes had all of the {} MiB that the tenant may have \
             (total_memory_mb), and the kernel ended it",
            memory_bytes >> 20
        ),
        (Some(ExitStatus::Signal(9)), None) => {
            "killed by signal 9: by the kernel for want of memory, or by somebody".to_owned()
        }
        (Some(ExitStatus::Signal(31)), _) => {
            "sandbox violation: a forbidden system call".to_owned()
        }
        (Some(ExitStatus::Signal(signal)), _) => format!("killed by signal {signal}"),
        (Some(ExitStatus::Code(code)), _) if code == i32::from(EXIT_STARVED) => {
            "out of memory: it had all that it may have of the tenant's total_memory_mb".to_owned()
        }
        (Some(ExitStatus::Code(code)), _) => format!("exited with code {code}"),
        (None, _) => "ended, its status unknown".to_owned(),
    }
}

/// Tells a worker what is to be told, and sorts what it says, until it says no more.
async fn converse(
    talk: &Talk,
    mut to_send: mpsc::Receiver<Outgoing>,
    worker: WorkerId,
    tenant: &Tenant,
    inbox: &Inbox,
    shared: &Shared,
) -> Result<(), Nonsense> {
    let speaking = async {
        while let Some((message, fds)) = to_send.recv().await {
            let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
            if talk.tell(&message, &fds).await.is_err() {
                break;
            }
        }
        // Its end shows where it is listened to.
        std::future::pending().await
    };
    let listening = async {
        while let Some((message, fds)) = talk.hear().await? {
            let command = match message {
                FromWorker::Report(report) => {
                    count(tenant, &report);
                    shared.logs.take(&tenant.name, report);
                    continue;
                }
                FromWorker::WantUplink { kind } => {
                    if let Err(error) = open_uplink(talk, (worker, kind), tenant, shared).await {
                        let (kind, error) = (kind.as_str(), &error as &dyn std::error::Error);
                        warn!(tenant = %tenant.name, worker = worker.0, kind, error, "no uplink");
                    }
                    continue;
                }
                FromWorker::Pass(passing) => {
                    Command::PassedOn(worker, fds.into_iter().zip(passing).collect())
                }
                message => Command::FromWorker(worker, message),
            };
            if inbox.send(Box::new(command)).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    tokio::select! {
        listened = listening => listened,
        () = speaking => Ok(()),
        silent = watch_over(talk) => Err(silent),
    }
}

/// Asks for a sign of life every now and then, until none comes: a guest that is stuck in a call of
/// the host holds up its worker's one thread, and no epoch ends that.
async fn watch_over(talk: &Talk) -> Nonsense {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if talk.tell(&ToWorker::AreYouAlive, &[]).await.is_err() {
            // Its end shows where it is listened to.
            return std::future::pending().await;
        }
        for patience in [SILENCE_MAX, LAST_LOOK] {
            tokio::time::sleep(patience).await;
            if !talk.conversation().is_silent() {
                break;
            }
        }
        if talk.conversation().is_silent() {
            return Nonsense::Silent(SILENCE_MAX);
        }
    }
}

async fn open_uplink(
    talk: &Talk,
    (worker, kind): (WorkerId, Kind),
    tenant: &Tenant,
    shared: &Shared,
) -> Result<(), hearth_wire::SocketError> {
    // Whoever waits for one more than there may be is told so by its worker, in time.
    let Some(place) = talk.uplinks.take(kind) else { return Ok(()) };
    let (stream, far) = UnixStream::pair()?;
    let far = OwnedFd::from(far.into_std()?);
    talk.tell(&ToWorker::Uplink { kind }, &[far.as_fd()]).await?;
    let uplink = Uplink { tenant: tenant.clone(), worker, kind, stream, place };
    // Whoever serves it is gone only when the host stops.
    let _ = shared.uplinks.send(uplink).await;
    Ok(())
}

pub fn count_nonsense(tenant: &Tenant) {
    let tenant = tenant.name.to_string();
    metrics::counter!("hearth_workers_ended_for_nonsense_total", "tenant" => tenant).increment(1);
}

fn count(tenant: &Tenant, report: &hearth_wire::Report) {
    if report.calls.is_empty() {
        return;
    }
    let seconds = metrics::histogram!("hearth_call_seconds");
    let mut outcomes = Outcome::ALL.map(|outcome| (outcome, 0));
    for call in &report.calls {
        seconds.record(Duration::from_micros(call.duration_us).as_secs_f64());
        for (counted, number) in &mut outcomes {
            *number += u64::from(*counted == call.outcome);
        }
    }
    for (outcome, number) in outcomes.into_iter().filter(|(_, number)| *number > 0) {
        let labels =
            [("tenant", tenant.name.to_string()), ("outcome", outcome.as_str().to_owned())];
        metrics::counter!("hearth_calls_total", &labels).increment(number);
    }
}
