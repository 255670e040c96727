//! The store of one instance: its bounds, and what may stay in it when it serves another call.

use std::any::TypeId;

use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store};

use crate::{Guest, INTERFACES};

/// Resources that one call may hold at once.
const RESOURCES_MAX: usize = 10_000;
/// And those that an instance may hold between two.
const RESOURCES_KEPT_MAX: usize = 64;
/// What one call of the host may copy out of the guest at once.
const HOSTCALL_BYTES: usize = 16 << 20;

pub(crate) fn table() -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(RESOURCES_MAX);
    table
}

pub fn store(engine: &Engine, guest: Guest) -> Store<Guest> {
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.memory);
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    // Of what the engine keeps of an instance as it keeps resources: its handles, and the tasks,
    // streams and futures of WASI 0.3.
    store.set_max_component_handles(RESOURCES_MAX);
    if let Some(table) = store.concurrent_resource_table() {
        table.set_max_capacity(RESOURCES_MAX);
    }
    store
}

/// Whether an instance could serve another call: it holds nothing but what the list says may stay,
/// and little of that. What the engine keeps of WASI 0.3, tasks, streams and futures, is named
/// nowhere, since each is a call's.
pub fn is_settled(store: &mut Store<Guest>) -> bool {
    holds_little(&mut store.data_mut().table)
        && store.concurrent_resource_table().is_none_or(holds_little)
}

fn holds_little(table: &mut ResourceTable) -> bool {
    let mut held = 0;
    table.iter_mut().all(|resource| {
        held += 1;
        held <= RESOURCES_KEPT_MAX && may_stay((*resource).type_id())
    })
}

fn may_stay(resource: TypeId) -> bool {
    INTERFACES.iter().any(|interface| interface.may_stay.contains(&resource))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_engine::{EngineKind, Purpose};
    use wasmtime_wasi_http::{FieldMap, RequestOptions};

    fn empty(kind: EngineKind) -> Store<Guest> {
        let engine = hearth_engine::engine(kind, Purpose::Run).unwrap();
        store(&engine, Guest::denied(1 << 20))
    }

    /// The same in both engines.
    fn settles_with<T: Send + 'static>(mut resource: impl FnMut() -> T) -> bool {
        let [plain, concurrent] = EngineKind::ALL.map(|kind| {
            let mut store = empty(kind);
            let held = store.data_mut().table.push(resource()).unwrap();
            let settled = is_settled(&mut store);
            store.data_mut().table.delete(held).unwrap();
            assert!(is_settled(&mut store), "what is gone does not count");
            settled
        });
        assert_eq!(plain, concurrent);
        plain
    }

    #[test]
    fn a_resource_that_nobody_named_forbids_reuse() {
        struct Bucket;
        for kind in EngineKind::ALL {
            assert!(is_settled(&mut empty(kind)));
        }
        assert!(!settles_with(|| Bucket));
        assert!(!settles_with(|| Box::new(FieldMap::default())));
    }

    #[test]
    fn what_is_named_may_stay() {
        assert!(settles_with(FieldMap::default));
        assert!(settles_with(RequestOptions::default));
    }

    #[test]
    fn little_of_it_may() {
        for kind in EngineKind::ALL {
            let mut store = empty(kind);
            for _ in 0..RESOURCES_KEPT_MAX {
                store.data_mut().table.push(FieldMap::default()).unwrap();
            }
            assert!(is_settled(&mut store));
            store.data_mut().table.push(FieldMap::default()).unwrap();
            assert!(!is_settled(&mut store));
        }
    }
}
