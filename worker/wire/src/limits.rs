//! The platform's bounds that more than one process must agree on.

use std::time::Duration;

/// A tenant's functions in one generation.
pub const FUNCTIONS_MAX: usize = 100;
/// Tokens of one tenant; all of them are told to its worker in one message.
pub const TOKENS_MAX: usize = 200;
/// Versions kept of one function.
pub const VERSIONS_KEPT: u32 = 20;

/// One upload's body, as sent.
pub const UPLOAD_MAX_BYTES: u64 = 32 << 20;
/// One module, unpacked.
pub const MODULE_MAX_BYTES: u64 = 128 << 20;
/// The widest window that a zstd frame may ask for, as a power of two: 8 MiB.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// An `options` part, or what a module declares.
pub const OPTIONS_MAX_BYTES: usize = 256 << 10;

/// A call's wall time, milliseconds.
pub const TIMEOUT_MS_DEFAULT: u32 = 30_000;
pub const TIMEOUT_MS_MAX: u32 = 300_000;
/// An instance's linear memory, MiB.
pub const MEMORY_MB_DEFAULT: u32 = 64;
pub const MEMORY_MB_MAX: u32 = 256;
/// A request's body, bytes.
pub const BODY_DEFAULT_BYTES: u64 = 10 << 20;
pub const BODY_MAX_BYTES: u64 = 100 << 20;

/// Calls of one tenant that run at once, and that wait for their turn.
pub const CALLS_RUNNING_MAX: usize = 64;
pub const CALLS_WAITING_MAX: usize = 256;
/// Connections of one tenant that its worker serves at once.
pub const CONNECTIONS_MAX: usize = 1_000;

/// The bytes of a connection that were read and not parsed: a request's head, and what came
/// with it in one read.
pub const HEAD_MAX_BYTES: usize = 32 << 10;
pub const READ_MAX_BYTES: usize = 16 << 10;
pub const UNREAD_MAX_BYTES: usize = HEAD_MAX_BYTES + READ_MAX_BYTES;
/// From a head's first byte to its last.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Of a connection, without a byte before the first request or between two.
pub const SILENCE_MAX: Duration = Duration::from_secs(75);

/// One log line; what is longer is cut.
pub const LOG_LINE_MAX_BYTES: usize = 8 << 10;
