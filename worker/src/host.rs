//! What one call's instance sees of the world: its own log, its own clocks and random numbers,
//! an HTTP client that is told no, and nothing else. No directory, no socket, no environment.
//!
//! Owns the state in an instance's store. How the call goes is [`crate::call`]'s.

pub mod http;
pub mod log;
mod random;

use std::sync::Arc;

use hearth_engine::{Calendar, DeniedRequests};
use hearth_wire::LogStream;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::body::{HostFutureTrailers, HostIncomingBody, HostOutgoingBody};
use wasmtime_wasi_http::p2::types::{
    HostIncomingRequest, HostOutgoingResponse, HostResponseOutparam,
};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::limits::MemoryLimit;
use crate::report::CallLog;
use log::GuestLog;
use random::Kernel;

pub use random::fill;

/// Resources that one call may hold at once.
pub const RESOURCES_MAX: usize = 10_000;
/// And those that an instance may hold between two.
const RESOURCES_KEPT_MAX: usize = 64;
/// What one call of `get-random-bytes` may ask for.
const RANDOM_MAX_BYTES: u64 = 64 << 10;
/// What one call of the host may copy out of the guest at once.
pub const HOSTCALL_BYTES: usize = 16 << 20;

/// What stands around an instance and knows nothing of it: clocks, random numbers, and where its
/// log goes. Dear to make, so the next instance gets it, and with it the seed of its insecure
/// random numbers, which says nothing of the call before.
pub struct Outside {
    wasi: WasiCtx,
    log: GuestLog,
}

impl Outside {
    pub fn new() -> Self {
        let log = GuestLog::default();
        let mut seed = [0; 16];
        fill(&mut seed);
        let mut wasi = WasiCtx::builder();
        wasi.wall_clock(Calendar)
            .stdout(log.stream(LogStream::Stdout))
            .stderr(log.stream(LogStream::Stderr))
            // The default generators are seeded from the thread's, and a thread's state is copied
            // by a fork: two tenants could then draw the same numbers.
            .secure_random(Kernel)
            .insecure_random(Kernel)
            .insecure_random_seed(u128::from_ne_bytes(seed))
            .max_random_size(RANDOM_MAX_BYTES)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        Self { wasi: wasi.build(), log }
    }
}

pub struct Guest {
    table: ResourceTable,
    outside: Outside,
    http: WasiHttpCtx,
    requests: DeniedRequests,
    pub memory: MemoryLimit,
}

impl Guest {
    pub fn new(outside: Outside, memory_bytes: usize) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Self {
            table,
            outside,
            http: WasiHttpCtx::new(),
            requests: DeniedRequests,
            memory: MemoryLimit::new(memory_bytes),
        }
    }

    /// From here on what it says is that call's.
    pub fn begin(&mut self, log: Arc<CallLog>) {
        self.outside.log.begin(log);
        self.memory.begin();
    }

    /// Its last words of this call are said, and from here on it speaks for none.
    pub fn end(&mut self) {
        self.outside.log.end();
    }

    /// Whether it could serve another call: it holds nothing of the last one's request or answer,
    /// which would stay open as long as it is held, and little of anything else.
    pub fn is_settled(&mut self) -> bool {
        let mut held = 0;
        self.table.iter_mut().all(|entry| {
            held += 1;
            held <= RESOURCES_KEPT_MAX
                && !(entry.is::<HostIncomingRequest>()
                    || entry.is::<HostIncomingBody>()
                    || entry.is::<HostFutureTrailers>()
                    || entry.is::<HostResponseOutparam>()
                    || entry.is::<HostOutgoingResponse>()
                    || entry.is::<HostOutgoingBody>())
        })
    }

    /// What the next instance can have. The guest's resources end here.
    pub fn into_outside(self) -> Outside {
        self.outside
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.outside.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.requests }
    }
}
