//! What one call's instance sees of the world: its own log, its own clocks and random numbers,
//! an HTTP client that is told no, and nothing else. No directory, no socket, no environment.
//!
//! Owns the state in a call's store. How the call goes is [`crate::call`]'s.

pub mod http;
pub mod log;

use std::convert::Infallible;

use hearth_engine::DeniedRequests;
use rand_core::TryRng;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::limits::MemoryLimit;
use log::GuestLog;

/// Resources that one call may hold at once.
const RESOURCES_MAX: usize = 10_000;
/// What one call of `get-random-bytes` may ask for.
const RANDOM_MAX_BYTES: u64 = 64 << 10;
/// What one call of the host may copy out of the guest at once.
pub const HOSTCALL_BYTES: usize = 16 << 20;

pub struct Guest {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    requests: DeniedRequests,
    pub memory: MemoryLimit,
}

impl Guest {
    pub fn new(stdout: GuestLog, stderr: GuestLog, memory_bytes: usize) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let mut seed = [0; 16];
        fill(&mut seed);
        let mut wasi = WasiCtx::builder();
        wasi.stdout(stdout)
            .stderr(stderr)
            // The default generators are seeded from the thread's, and a thread's state is copied
            // by a fork: two tenants could then draw the same numbers.
            .secure_random(Kernel)
            .insecure_random(Kernel)
            .insecure_random_seed(u128::from_ne_bytes(seed))
            .max_random_size(RANDOM_MAX_BYTES)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        Self {
            table,
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            requests: DeniedRequests,
            memory: MemoryLimit::new(memory_bytes),
        }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.requests }
    }
}

/// The kernel's random numbers, which no fork repeats.
struct Kernel;

pub fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the kernel gives random numbers once it has booted");
}

impl TryRng for Kernel {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        fill(&mut bytes);
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        fill(&mut bytes);
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        fill(bytes);
        Ok(())
    }
}
