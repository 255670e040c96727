//! `wasi:sockets`: to make a socket, to connect it and to look up a name are each denied.

use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::sockets::WasiSocketsCtxView;

use crate::Guest;

pub(crate) fn view(guest: &mut Guest) -> WasiSocketsCtxView<'_> {
    WasiSocketsCtxView { ctx: guest.surroundings.wasi.sockets(), table: &mut guest.table }
}

pub(crate) fn deny(wasi: &mut WasiCtxBuilder) {
    wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
}
