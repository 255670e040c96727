//! What stands around an instance and knows nothing of it: clocks, random numbers, and where its
//! log goes. Dear to make, so the next instance gets it, and with it the seed of its insecure
//! random numbers, which says nothing of the call before.

use wasmtime_wasi::cli::StdoutStream;
use wasmtime_wasi::{Rng, WasiCtx};

use crate::logging::{Deaf, Listener, Log};
use crate::{cli, clocks, random, sockets};

pub struct Surroundings {
    pub(crate) wasi: WasiCtx,
    pub(crate) log: Log,
}

impl Surroundings {
    pub fn new(
        stdout: impl StdoutStream + 'static,
        stderr: impl StdoutStream + 'static,
        listener: impl Listener + 'static,
        generator: impl Rng + Clone + Send + 'static,
    ) -> Self {
        let mut wasi = WasiCtx::builder();
        cli::set(&mut wasi, stdout, stderr);
        clocks::set(&mut wasi);
        random::set(&mut wasi, generator);
        random::bound(&mut wasi);
        sockets::deny(&mut wasi);
        Self { wasi: wasi.build(), log: Log::new(listener) }
    }

    /// Where nobody listens, and numbers are the process's own.
    pub(crate) fn denied() -> Self {
        let mut wasi = WasiCtx::builder();
        clocks::set(&mut wasi);
        random::bound(&mut wasi);
        sockets::deny(&mut wasi);
        Self { wasi: wasi.build(), log: Log::new(Deaf) }
    }
}
