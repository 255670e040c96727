//! Both engines, each with all that functions can import of it, as every worker is born with them.
//!
//! Which one a function needs is told by its artifact's fingerprint. They are built in the zygote:
//! to build one after the fork would take longer than to inherit it, and would take of the memory
//! that bounds its tenant. How many calls run at once, and what they may have, is bounded over
//! both of them by [`crate::limits`] and [`crate::instance`].

use std::fs::File;

use hearth_engine::{EngineKind, LoadError, Purpose};
use hearth_host::{Handler, LinkError, Linkers};
use hearth_wire::Fingerprint;
use wasmtime::Engine;

/// One of them.
struct Built {
    engine: Engine,
    linkers: Linkers,
}

pub struct Engines {
    plain: Built,
    concurrent: Built,
}

/// Why there is no handler of an artifact.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    #[error("it was made by the engine {0}, which this build does not have")]
    Stranger(Fingerprint),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("it does not link")]
    Link(#[from] LinkError),
}

impl Engines {
    pub fn build() -> wasmtime::Result<Self> {
        Ok(Self {
            plain: Built::new(EngineKind::Plain)?,
            concurrent: Built::new(EngineKind::Concurrent)?,
        })
    }

    /// Loads an artifact into the engine that made it.
    pub fn load(&self, artifact: &File, made_by: Fingerprint) -> Result<Handler, HandlerError> {
        let Built { engine, linkers } = match EngineKind::made(made_by) {
            Some(EngineKind::Plain) => &self.plain,
            Some(EngineKind::Concurrent) => &self.concurrent,
            None => return Err(HandlerError::Stranger(made_by)),
        };
        let component = hearth_engine::load(engine, artifact)?;
        Ok(hearth_host::prepare(linkers, &component)?)
    }

    /// How many instances there are now.
    pub fn instances(&self) -> u64 {
        let metrics =
            [&self.plain, &self.concurrent].map(|built| built.engine.pooling_allocator_metrics());
        metrics.into_iter().flatten().map(|pool| pool.component_instances()).sum()
    }
}

impl Built {
    fn new(kind: EngineKind) -> wasmtime::Result<Self> {
        let engine = hearth_engine::engine(kind, Purpose::Run)?;
        let linkers = hearth_host::linkers(&engine)?;
        Ok(Self { engine, linkers })
    }
}
