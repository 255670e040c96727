//! `wasi:filesystem`: no function has a directory, so there is nothing to open.

use wasmtime_wasi::filesystem::WasiFilesystemCtxView;

use crate::Guest;

pub(crate) fn view(guest: &mut Guest) -> WasiFilesystemCtxView<'_> {
    WasiFilesystemCtxView { ctx: guest.surroundings.wasi.filesystem(), table: &mut guest.table }
}
