//! Which engines there are, and which of them is for what. They share a configuration but for the
//! component model's concurrency, which costs each call of the host something, so that who cannot
//! use it has an engine without.

use wasmtime::Engine;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// Without concurrency: what WASI 0.2 needs. It compiles, loads and links nothing else.
    Plain,
    /// With it, for whatever imports, exports or uses something asynchronous.
    Concurrent,
}

impl EngineKind {
    pub const ALL: [Self; 2] = [Self::Plain, Self::Concurrent];

    pub fn has_concurrency(self) -> bool {
        matches!(self, Self::Concurrent)
    }

    pub fn of(engine: &Engine) -> Self {
        if engine.get_concurrency_support() { Self::Concurrent } else { Self::Plain }
    }
}
