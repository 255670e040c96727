//! Everything that two processes of Hearth say to each other.
//!
//! ```text
//! primary ── ToZygote ──► zygote       Bundle carries [bundle, artifacts…],
//!                                          Fork carries what it names
//!         ◄─ FromZygote ──             Forked carries [pidfd]
//! zygote ─── ToSpare ──► spare         Serve carries what Fork does
//!         ◄─ FromSpare ──
//! primary ── ToWorker ──► worker       Link and Uplink carry one end of a stream socket,
//!         ◄─ FromWorker ──             Pass, either way, the connections that it names
//! primary ── CompileRequest ──► compile    Compile carries [module, artifact, declared],
//!                                          Check [options, artifact], both namespaces to join
//!         ◄─ CompileReply ──
//! ```
//!
//! Both programs come from one build. The first message each way carries [`VERSION`] all the
//! same, since an operator can replace one file and not the other.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::bundle::FunctionVersion;
use crate::digest::{Fingerprint, ModuleDigest};
use crate::function::HandlerKind;
use crate::given::Given;
use crate::manifest::GenerationNumber;
use crate::moment::Moment;
use crate::name::{FunctionPath, TenantName};
use crate::origin::Origin;
use crate::setting::Setting;
use crate::socket::{FDS_MAX, FRAME_MAX};
use crate::token::TokenGrant;
use crate::uplink::Kind;

/// Raised with every change of a message.
pub const VERSION: u32 = 16;

/// How a process ends that asked for more memory than it may have.
pub const EXIT_STARVED: u8 = 32;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToZygote {
    Hello {
        version: u32,
    },
    /// What comes with this build, which every later fork then holds already: with the bundle as
    /// JSON, and the artifact of each of these modules, which that engine made, however often it is
    /// mounted. Said before the first fork. From then on so many spare children are kept at most.
    Bundle {
        modules: Vec<(ModuleDigest, Fingerprint)>,
        spares: u8,
    },
    /// With what the worker is given, by names in the order of the descriptors.
    Fork {
        ticket: u64,
        cell: Cell,
        given: Vec<Given>,
    },
    /// Tries from within a worker's walls what they must not allow. Answered by `Tried`.
    Try {
        uid: Option<u32>,
        birth: Birth,
    },
    /// Answered by `Alive`: a zygote that cannot answer forks nothing either.
    AreYouAlive,
}

/// How a zygote comes by a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Birth {
    /// Forked when it is wanted.
    Forked,
    /// Forked before, as nobody's, and given to a tenant then.
    Spare,
}

/// What a spare child is told, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToSpare {
    /// To become the worker of whoever that cell is for, with what is given for that.
    Serve { cell: Cell, given: Vec<Given> },
    /// To try, from within a worker's walls, one of the things that they must not allow.
    Try { attempt: u32, cell: Cell },
}

/// What a spare child says to its zygote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromSpare {
    /// It waits to be given to somebody.
    Warm,
    /// It could not run what it was to run, and ends. Neither could another.
    Unfit { reason: String },
    /// It has what it was given, and has looked at nothing of it yet. It says nothing after this.
    Taken,
}

/// What is particular about one worker's walls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cell {
    /// The user and group that it becomes.
    pub uid: Option<u32>,
    /// Private memory that it may write to, beyond what it is born with, where no cgroup bounds all
    /// of it.
    pub data_bytes: Option<u64>,
}

/// Which walls stand around a zygote and its workers, besides the filter of system calls, without
/// which there is no zygote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walls {
    /// Why there are no namespaces of their own, where there are none.
    pub namespaces: Result<(), String>,
    /// Whether each worker can have a user of its own.
    pub uids: bool,
    /// The version of the kernel's Landlock.
    pub landlock: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromZygote {
    Hello {
        version: u32,
        /// Of its engines: artifacts that they made are the ones it loads.
        engines: Vec<Fingerprint>,
        /// Whether the kernel resets an instance's memory page by page (Linux 6.7 on).
        pagemap_scan: bool,
        walls: Walls,
    },
    /// What was tried, and those of it that were not kept in. Nothing was, where spare children
    /// were to try it and none can be had.
    Tried {
        attempts: u32,
        escapes: Vec<String>,
    },
    /// The modules that could not be loaded, and why. What is mounted of them is out of service.
    Bundled {
        failed: Vec<(ModuleDigest, String)>,
    },
    /// With a pidfd, opened before the child could be reaped.
    Forked {
        ticket: u64,
        pid: i32,
    },
    ForkFailed {
        ticket: u64,
        reason: String,
    },
    Exited {
        pid: i32,
        status: ExitStatus,
    },
    Alive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// First of all.
    Start(Start),
    /// A part of its tenant's settings; [`Start::settings`] says how many there are. All of them come
    /// right behind that, and a worker reads nothing else before.
    Settings(Vec<Setting>),
    /// What it is to go by, in place of what it was told before on the same subject. Answered by
    /// `Applied`, with the serial number of this. What is there before it is ready is told first.
    Told {
        serial: u64,
        what: What,
    },
    Accept,
    /// Take no new connection and no further request, finish what runs, and pass on every
    /// connection that is between two. Answered by `Quiesced` once nothing new is taken; the
    /// worker exits when its last connection is gone.
    Quiesce,
    /// The same, with nobody left to pass connections on to: they are closed politely.
    Close,
    /// The answer to `Leaving`: the primary watches the listener again, and takes connections.
    Leave,
    /// Connections from outside that have something to say. Answered by `Passed` before a byte
    /// of them is read.
    Pass(Vec<Passing>),
    /// The last `Pass` has arrived; the next one may come.
    Passed,
    /// With a stream socket that speaks HTTP/1.1 like a connection from outside, and on which each
    /// call is of this origin.
    Link(Origin),
    /// With a stream socket that speaks HTTP/2 to the primary. The answer to `WantUplink`.
    Uplink {
        kind: Kind,
    },
    /// Answered by `Alive`: a worker that cannot answer is stuck.
    AreYouAlive,
    /// How long calls may still run, with each word that asks for an end, and before it; said
    /// again where there is less time. Calls that run then are given up and answered, and soon
    /// after that what is left is cut. `CallsDone` says where uploads are all that is left.
    Finish(Respite),
    /// Somebody is about to read what its calls wrote. Answered by `Reported`, behind everything
    /// that there is to report.
    Report {
        serial: u64,
    },
}

/// What a worker is told of its tenant, the newest in place of what was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// All tokens of the tenant.
    Tokens(Vec<TokenGrant>),
}

/// What something that is told is about. Each has serial numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    Tokens,
}

impl What {
    pub fn subject(&self) -> Subject {
        match self {
            Self::Tokens(_) => Subject::Tokens,
        }
    }
}

impl Subject {
    pub const ALL: [Self; 1] = [Self::Tokens];

    /// As it is written in sentences.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
        }
    }
}

/// A time to finish in. It begins at a moment that both know, so that a worker which hears of it
/// late does not take it for longer than it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Respite {
    pub since: Moment,
    pub within: Duration,
}

impl Respite {
    pub fn now(within: Duration) -> Self {
        Self { since: Moment::now(), within }
    }

    pub fn end(self) -> Instant {
        self.since.instant() + self.within
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub version: u32,
    pub tenant: TenantName,
    pub generation: GenerationNumber,
    pub serves: Serves,
    /// A worker without a call for this long says `Leaving`.
    pub idle: Duration,
    /// When the connection or call that woke the tenant was seen. `None` where a swap started
    /// the worker.
    pub woken_at: Option<Moment>,
    /// Networks of peers that are believed on where a request comes from, as CIDR.
    pub trusted_proxies: Vec<String>,
    /// The headers in which they are.
    pub trusted_headers: Vec<String>,
    /// Below which tenants have names of their own, besides `localhost`.
    pub domain: Option<String>,
    /// In how many parts the tenant's settings follow. They stay what they are for its life: other
    /// ones are another worker's.
    pub settings: u32,
    /// How many bytes of disk its tenant's state may take. Nothing of it is had where no directory for
    /// one was given, or where the walls do not allow any.
    pub state_bytes: u64,
}

/// What a worker is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Serves {
    /// The functions of its generation, and what its tenant keeps.
    Functions,
    /// What its tenant keeps alone: none of its functions is loaded.
    State,
}

/// A connection from outside that is between two requests, on its way to another process. Its
/// descriptor comes with the message, at the same place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passing {
    /// What was read of it and not parsed, at most [`crate::limits::UNREAD_MAX_BYTES`].
    pub unread: Vec<u8>,
    /// Since when it waits: for the rest of a head that has begun, else for the next one.
    pub since: Moment,
    pub entry: Entry,
}

impl Passing {
    /// Connections in one message.
    pub const MOST: usize = FDS_MAX;
    /// A moment, an entry and the length of what is unread.
    const REST_BYTES: usize = 16;

    /// How many of these go into one message, given what is unread of each: at least one.
    pub fn batch(unread: impl IntoIterator<Item = usize>) -> usize {
        let mut room = FRAME_MAX - Self::REST_BYTES;
        let fits = unread.into_iter().take(Self::MOST).take_while(|unread| {
            let left = room.checked_sub(unread + Self::REST_BYTES);
            room = left.unwrap_or(room);
            left.is_some()
        });
        fits.count()
    }
}

/// Where a connection from outside came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The tenant's own port.
    Port,
    /// The front door: each of its requests must name the tenant.
    Front,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// Everything is loaded; nothing is accepted yet.
    Ready {
        version: u32,
        load_us: u64,
        /// What putting up its walls took of its start.
        walls_us: u64,
    },
    /// This generation cannot be served; the worker exits.
    Refused {
        reason: String,
    },
    Accepting,
    Quiesced,
    /// No call for the idle time, and nothing is accepted any more.
    Leaving,
    Applied {
        serial: u64,
        what: Subject,
    },
    /// Those that it has of this kind are full or broken, or there is none. Answered by `Uplink`
    /// while it may have more of them.
    WantUplink {
        kind: Kind,
    },
    /// Connections that are not this worker's any more. Answered by `Passed`.
    Pass(Vec<Passing>),
    /// The last `Pass` has arrived, and nothing of it has been read yet.
    Passed,
    Report(Report),
    Alive,
    /// It made a system call that its walls forbid, by its number, and ends. Its last words.
    Forbidden {
        call: u32,
    },
    /// It was told to finish, and of all that it had only uploads are left, which are on their way
    /// to the host. Not said where nothing is left: then it exits.
    CallsDone,
    /// What there was to report when it was told to is reported.
    Reported {
        serial: u64,
    },
}

/// What a worker has to tell about its calls, in batches below [`crate::FRAME_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    pub lines: Vec<LogLine>,
    pub calls: Vec<CallRecord>,
    /// Lines that were dropped because guests wrote faster than they could be taken.
    pub lines_dropped: u64,
    /// Call records that were dropped for the same reason.
    pub calls_dropped: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Milliseconds since the epoch.
    pub time_ms: i64,
    pub function: FunctionPath,
    pub version: FunctionVersion,
    pub request_id: String,
    pub stream: LogStream,
    /// How much it matters, where the function said so.
    pub level: Option<LogLevel>,
    /// Without its line end; at most [`crate::limits::LOG_LINE_MAX_BYTES`].
    pub text: String,
}

impl Report {
    /// Lines and records in one of them: what is small is many in a frame, and large in memory.
    pub const ITEMS_MAX: usize = 512;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    Stdout,
    Stderr,
    /// Said by Hearth of this call: a trap's reason, a limit that was met.
    Host,
}

/// As `wasi:logging` has them, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

impl LogLevel {
    pub const ALL: [Self; 6] =
        [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Critical];

    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// One call that reached a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// When its head was read: milliseconds since the epoch.
    pub time_ms: i64,
    pub function: FunctionPath,
    pub version: FunctionVersion,
    pub origin: Origin,
    pub request_id: String,
    /// At most [`CallRecord::METHOD_MAX_BYTES`] of it.
    pub method: String,
    /// What the caller got.
    pub status: u16,
    pub outcome: Outcome,
    /// From its head read to its last byte handed on, microseconds.
    pub duration_us: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// For a call that woke its worker: from being noticed to being served, microseconds.
    pub cold_us: Option<u64>,
}

impl CallRecord {
    /// Longer than every method that there is. A caller may send one as long as a head.
    pub const METHOD_MAX_BYTES: usize = 32;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The function answered, whatever its status.
    Answered,
    Trapped,
    MemoryLimit,
    Timeout,
    NoResponse,
    /// It answered what its own schema does not allow, and the caller was not given it.
    ResponseInvalid,
    /// The platform refused the call before the function started.
    Refused,
    /// The caller went away first.
    Abandoned,
    /// Its worker came to its end and had no more time for it.
    Stopped,
}

impl Outcome {
    pub const ALL: [Self; 9] = [
        Self::Answered,
        Self::Trapped,
        Self::MemoryLimit,
        Self::Timeout,
        Self::NoResponse,
        Self::ResponseInvalid,
        Self::Refused,
        Self::Abandoned,
        Self::Stopped,
    ];

    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Trapped => "trapped",
            Self::MemoryLimit => "memory_limit",
            Self::Timeout => "timeout",
            Self::NoResponse => "no_response",
            Self::ResponseInvalid => "response_invalid",
            Self::Refused => "refused",
            Self::Abandoned => "abandoned",
            Self::Stopped => "stopped",
        }
    }
}

/// What the compiler is started for. It answers once and exits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileRequest {
    pub version: u32,
    /// The engines that load artifacts; the compiler refuses to have others.
    pub engines: Vec<Fingerprint>,
    pub job: CompileJob,
    /// The user and group that it becomes before it looks at its files.
    pub uid: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompileJob {
    /// With the module (unpacked, read from its start) and two empty files: one takes the
    /// artifact, the other the options that the module declares, if it declares any.
    Compile,
    /// With a function's complete options as JSON, and its artifact, which that engine made: whether
    /// the schemas are schemas, and whether an instance can be reused if that is asked for.
    Check { engine: Fingerprint },
}

impl CompileJob {
    /// How many come with it. What follows are the namespaces that it goes to, in that order.
    pub fn files(self) -> usize {
        match self {
            Self::Compile => 3,
            Self::Check { engine: _ } => 2,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompileReply {
    Compiled {
        /// The one of its engines that made the artifact.
        engine: Fingerprint,
        kind: HandlerKind,
        /// As the component names them, sorted.
        imports: Vec<String>,
        /// Of these, the interfaces of other hosts that are not offered, sorted.
        unavailable: Vec<String>,
        artifact_bytes: u64,
    },
    Checked,
    Refused(Diagnosis),
    /// Ours, such as a mixed installation.
    Failed {
        reason: String,
    },
    /// It made a system call that its walls forbid, and ends.
    Forbidden {
        call: u32,
    },
    /// There is no room for the artifact.
    Full,
}

/// Why a module cannot be a function, or not with these options. Fit for its author.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    pub detail: String,
    /// Of one that imports what is not offered: all of that, what matters most first.
    pub imports: Vec<String>,
}

#[cfg(test)]
mod golden;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::UNREAD_MAX_BYTES;

    fn passing(unread: usize) -> Passing {
        let since = Moment::now();
        Passing { unread: vec![0xff; unread], since, entry: Entry::Front }
    }

    #[test]
    fn an_outcome_is_one_word_everywhere() {
        for outcome in Outcome::ALL {
            let word = serde_json::to_value(outcome).unwrap();
            assert_eq!(word, outcome.as_str());
        }
    }

    #[test]
    fn a_batch_fits_one_message() {
        for unread in [&[0; 100][..], &[UNREAD_MAX_BYTES; 3], &[0, 40_000, 20_000, 9_000, 1], &[]] {
            let batch = Passing::batch(unread.iter().copied());
            assert_eq!(batch == 0, unread.is_empty());
            let batch: Vec<_> = unread[..batch].iter().copied().map(passing).collect();
            let bytes = postcard::to_allocvec(&ToWorker::Pass(batch)).unwrap();
            assert!(bytes.len() <= FRAME_MAX, "{}", bytes.len());
        }
        assert_eq!(Passing::batch([0; 100]), Passing::MOST);
        assert_eq!(Passing::batch([40_000, 20_000, 9_000]), 2);
    }
}
