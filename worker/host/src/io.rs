//! `wasi:io`: the streams and pollables of the other interfaces, which are in an instance's table.

use wasmtime::component::{HasData, ResourceTable};

use crate::Guest;

pub(crate) struct Io;

impl HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

pub(crate) fn view(guest: &mut Guest) -> &mut ResourceTable {
    &mut guest.table
}
