//! The configuration of the two engines, so that what the compiler makes is what workers load: the
//! engines themselves ([`EngineKind`]), the fingerprint that ties an artifact to one of them, the
//! loading of an artifact, and (in [`mod@reason`]) why a call failed.
//!
//! Owns no process and no call; what a function may import is `hearth_host`'s. Whether an artifact
//! may be trusted is the primary's to know: it checks the artifact's keyed digest before any
//! process is given it.

mod fingerprint;
mod kind;
mod reason;

use std::fs::File;
use std::os::fd::AsRawFd;

use wasmtime::component::Component;
use wasmtime::{Config, Enabled, Engine, PoolingAllocationConfig};

pub use fingerprint::{fingerprint, fingerprints};
pub use kind::EngineKind;
pub use reason::reason;

/// Raised with every change below that changes what the compiler makes or a worker loads.
const REVISION: &str = "3";

/// Calls that run at once, each with an instance of its own: of both engines together, which is for
/// whoever calls to see to.
pub const INSTANCES: u32 = 64;
/// What the dynamically linked parts of a Python or Go function come to, with room.
const CORE_INSTANCES_PER_COMPONENT: u32 = 48;
const MEMORIES_PER_COMPONENT: u32 = 4;
const TABLES_PER_COMPONENT: u32 = 8;
const TABLE_ELEMENTS: usize = 32 << 10;
/// The largest `memory_mb` that a function can ask for.
const MEMORY_MAX_BYTES: usize = 256 << 20;
/// Of an instance's memory, what stays mapped and is reset in place rather than given back.
const MEMORY_RESIDENT_BYTES: usize = 1 << 20;
const RESIDENT_BYTES: usize = 64 << 10;
/// Reserved and guarded so that loads and stores need no check of their bounds.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;
const MEMORY_GUARD_BYTES: u64 = 32 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Loads artifacts and calls them. Holds no compiler.
    Run,
    #[cfg(feature = "compiler")]
    Compile,
}

pub fn engine(kind: EngineKind, purpose: Purpose) -> wasmtime::Result<Engine> {
    Engine::new(&config(kind, purpose))
}

/// Whether the kernel resets an instance's memory page by page (Linux 6.7 on).
pub fn pagemap_scan_available() -> bool {
    PoolingAllocationConfig::is_pagemap_scan_available()
}

fn config(kind: EngineKind, purpose: Purpose) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        .native_unwind_info(false)
        .wasm_component_model(true)
        .wasm_component_model_async(kind.has_concurrency())
        .concurrency_support(kind.has_concurrency())
        .wasm_memory64(false)
        .shared_memory(false)
        // Not the types alone: code that tells one function's type from another calls what is
        // only built with the `gc` feature, and what is not there aborts the process.
        .gc_support(false)
        .wasm_gc(false)
        .memory_init_cow(true)
        .memory_may_move(false)
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .guard_before_linear_memory(false);
    #[cfg(feature = "compiler")]
    config.enable_compiler(purpose == Purpose::Compile);
    match purpose {
        Purpose::Run => {
            config.allocation_strategy(pool(kind));
        }
        #[cfg(feature = "compiler")]
        Purpose::Compile => {}
    }
    config
}

fn pool(kind: EngineKind) -> PoolingAllocationConfig {
    let stacks = match kind {
        EngineKind::Plain => INSTANCES,
        // A call of WASI 0.3 may have several tasks on stacks of their own.
        EngineKind::Concurrent => INSTANCES * 2,
    };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES)
        .total_core_instances(INSTANCES * CORE_INSTANCES_PER_COMPONENT)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .total_memories(INSTANCES * 2)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .total_tables(INSTANCES * TABLES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .table_elements(TABLE_ELEMENTS)
        // Two mappings each, which every fork copies.
        .total_stacks(stacks)
        .max_memory_size(MEMORY_MAX_BYTES)
        .linear_memory_keep_resident(MEMORY_RESIDENT_BYTES)
        .table_keep_resident(RESIDENT_BYTES)
        .async_stack_keep_resident(RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    pool
}

#[derive(Debug, thiserror::Error)]
#[error("the artifact does not load")]
pub struct LoadError(#[source] wasmtime::Error);

/// Maps an artifact and makes its copy-on-write image, so that a call later maps nothing that
/// is executable.
///
/// Loading an artifact is as good as running it. The descriptors that are given to a worker name
/// files that only the primary can write, whose keyed digest it has checked this boot.
pub fn load(engine: &Engine, artifact: &File) -> Result<Component, LoadError> {
    let path = format!("/proc/self/fd/{}", artifact.as_raw_fd());
    #[expect(unsafe_code, reason = "an artifact is native code")]
    // SAFETY: the file was made by this engine's compiler and is never changed afterwards, which
    // is what the primary vouches for with the descriptor.
    let component = unsafe { Component::deserialize_file(engine, path) };
    initialize(component)
}

/// The same of an artifact in memory, for a process that may open no file: the compiler, of what
/// it has just made or what the primary has checked.
pub fn load_bytes(engine: &Engine, artifact: &[u8]) -> Result<Component, LoadError> {
    #[expect(unsafe_code, reason = "an artifact is native code")]
    // SAFETY: as above; the bytes are copied.
    let component = unsafe { Component::deserialize(engine, artifact) };
    initialize(component)
}

fn initialize(component: wasmtime::Result<Component>) -> Result<Component, LoadError> {
    let component = component.map_err(LoadError)?;
    component.initialize_copy_on_write_image().map_err(LoadError)?;
    Ok(component)
}
