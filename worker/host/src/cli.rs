//! `wasi:cli`: what a function says goes to whoever made its surroundings. It is given no
//! argument, no variable, no input and no terminal.

use wasmtime::component::HasData;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::cli::{StdoutStream, WasiCliCtxView};
use wasmtime_wasi::p3::bindings::cli::types;

use crate::Guest;

pub(crate) fn view(guest: &mut Guest) -> WasiCliCtxView<'_> {
    WasiCliCtxView { ctx: guest.surroundings.wasi.cli(), table: &mut guest.table }
}

pub(crate) fn set(
    wasi: &mut WasiCtxBuilder,
    stdout: impl StdoutStream + 'static,
    stderr: impl StdoutStream + 'static,
) {
    wasi.stdout(stdout).stderr(stderr);
}

/// Of `wasi:cli/types`, which has nothing that could be called.
pub(crate) struct Types;

impl HasData for Types {
    type Data<'a> = Self;
}

impl types::Host for Types {}
