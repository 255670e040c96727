//! What the primary, the zygote, the workers and the compiler say to each other, and the
//! types that all of them mean by it. Everything is parsed here once, at the edge, and is
//! valid from then on.
//!
//! Owns no process, no file and no policy: who may deploy is the primary's to decide, how a
//! call is answered is the worker's. Depends on nothing of ours but the table of options, which the
//! SDK has as well.

mod allowed;
mod bundle;
mod complaint;
mod cors;
mod digest;
mod function;
mod given;
mod interfaces;
pub mod json;
pub mod limits;
mod manifest;
mod message;
mod moment;
mod name;
mod options;
mod origin;
mod problem;
mod request_id;
mod route;
mod schema;
mod setting;
mod socket;
mod state;
mod token;
mod tree;
pub mod uplink;

pub use allowed::Allowed;
pub use bundle::{
    Build, BuildError, Bundle, FunctionVersion, Mount, Mounted, Over, Wanted, WantedError,
};
pub use complaint::complain;
pub use cors::Cors;
pub use digest::{BundleDigest, DigestError, Fingerprint, FingerprintError, ModuleDigest};
pub use function::{HandlerKind, Version};
pub use given::{Birthright, Given, GivenError};
pub use hearth_options::{Kind as OptionKind, OPTIONS, Unknown, nearest};
pub use interfaces::needs_state;
pub use limits::{Limit, LimitError, Limits, LimitsPatch, Usage};
pub use manifest::{GenerationNumber, Manifest, ManifestFunction};
pub use message::{
    Birth, CallRecord, Cell, CompileJob, CompileReply, CompileRequest, Diagnosis, EXIT_STARVED,
    Entry, ExitStatus, FromSpare, FromWorker, FromZygote, LogLevel, LogLine, LogStream, Outcome,
    Passing, Report, Respite, Serves, Start, Subject, ToSpare, ToWorker, ToZygote, VERSION, Walls,
    What,
};
pub use moment::Moment;
pub use name::{FunctionPath, KeptName, NameError, SettingName, TenantName, host_name};
pub use options::{Auth, Options, OptionsError, OptionsPatch, PathMatch};
pub use origin::{NotAllowed, Origin};
pub use problem::{Code, PROBLEM_JSON, Place, Problem, Violation};
pub use request_id::RequestId;
pub use route::{Builtin, Route, Routes, below};
pub use schema::{Answers, Schema, SchemaPlaceError, Schemas};
pub use setting::{Setting, SettingKind, SettingValue};
pub use socket::{
    Channel, FDS_MAX, FRAME_MAX, SocketError, encode_into, pair, parse, recv, send, watch,
};
pub use state::{
    DatabaseList, Expires, KeyList, Page, SqlAnswered, SqlAsked, SqlImported, SqlValue,
    StateAddress, StateError, StateNamed, StoreList,
};
pub use token::{Scope, ScopeError, TOKEN_PREFIX, TokenDigest, TokenGrant, is_token};
pub use tree::{
    Databases, TreeDone, TreeJob, TreePath, TreePathError, TreeReply, TreeRequest, Unsound,
};

/// Headers that Hearth gives a meaning to.
pub mod header {
    /// Kept from the caller or made; in every answer and every log line of a call.
    pub const REQUEST_ID: &str = "x-request-id";
    /// `/hello@3`, or `/hello@1.2.3` of what comes with a build: which version of which function
    /// answered.
    pub const VERSION: &str = "x-hearth-version";
    /// Who called, for the function: the name of the token that was verified.
    pub const CALLER: &str = "x-hearth-caller";
    /// The scope of that token.
    pub const SCOPE: &str = "x-hearth-scope";
    /// When the entry of a store that is answered expires: milliseconds since the epoch.
    pub const EXPIRES_MS: &str = "x-hearth-expires-ms";
    /// The same to users of the management API, as a timestamp.
    pub const EXPIRES: &str = "x-hearth-expires";
    /// Which trigger called, where one did.
    pub const TRIGGER: &str = "x-hearth-trigger";
    /// What the gateway by path took off.
    pub const FORWARDED_PREFIX: &str = "x-forwarded-prefix";

    /// Whether a header, by its name in lower case, speaks for the platform.
    pub fn is_reserved(name: &str) -> bool {
        begins(name, "x-hearth-")
    }

    /// Whether a name begins so, as applications may read it: much of what serves them takes `_`
    /// for `-`, so that what is taken off in one spelling must be in the other.
    pub fn begins(name: &str, start: &str) -> bool {
        let found = name.as_bytes().get(..start.len());
        found.is_some_and(|found| {
            let mut pairs = found.iter().zip(start.bytes());
            pairs.all(|(&found, byte)| found == byte || (found == b'_' && byte == b'-'))
        })
    }
}
