//! `wasi:random`: whatever its name says, all of it comes from the generator that the surroundings
//! were made with.

use wasmtime_wasi::random::WasiRandomCtx;
use wasmtime_wasi::{Rng, WasiCtxBuilder};

use crate::Guest;

/// What one call of `get-random-bytes` may ask for.
const MAX_BYTES: u64 = 64 << 10;

pub(crate) fn view(guest: &mut Guest) -> &mut WasiRandomCtx {
    guest.surroundings.wasi.random()
}

/// The default generators are seeded from the thread's, and a thread's state is copied by a fork:
/// two tenants could then draw the same numbers.
pub(crate) fn set(wasi: &mut WasiCtxBuilder, mut generator: impl Rng + Clone + Send + 'static) {
    let seed = u128::from(generator.next_u64()) << 64 | u128::from(generator.next_u64());
    wasi.insecure_random_seed(seed).secure_random(generator.clone()).insecure_random(generator);
}

pub(crate) fn bound(wasi: &mut WasiCtxBuilder) {
    wasi.max_random_size(MAX_BYTES);
}
