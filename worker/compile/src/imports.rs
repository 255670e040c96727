//! That what is refused by name and what does not link are the same, judged with components: those
//! of each toolchain among the tests' guests, and some that were written for it.

use std::path::Path;

use hearth_e2e::component;
use hearth_engine::{EngineKind, Purpose};
use hearth_host::{LinkError, is_elsewhere, is_offered, linkers, prepare};
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::inspect;
use crate::options::{self, Watchdog};

/// Compiles here, as it is: nothing is called.
fn engine() -> Engine {
    hearth_engine::engine(EngineKind::Concurrent, Purpose::Compile).unwrap()
}

/// Whether all that a component imports is there.
fn links(engine: &Engine, module: &[u8]) -> bool {
    let component = Component::new(engine, module).unwrap();
    match prepare(&linkers(engine).unwrap(), &component) {
        Ok(_) | Err(LinkError::NoHandler) => true,
        Err(LinkError::Import(_) | LinkError::Concurrency(_)) => false,
    }
}

/// A component that imports this and is no function.
fn importing(name: &str, exports: &str) -> Vec<u8> {
    wat::parse_str(format!(r#"(component (import "{name}" (instance {exports})))"#)).unwrap()
}

#[test]
fn a_toolchains_imports_are_in_the_list_where_they_link() {
    let engine = engine();
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/wasm32-wasip2/release");
    for (guest, are_there) in [
        ("version_one", true),
        ("calls_out", true),
        ("wstd_hello", true),
        ("axum_app", true),
        ("spin_app", true),
        ("wasip3_hello", true),
        ("wasip3_keeps", true),
        ("stores_draft", true),
        ("stores_draft2", true),
        ("stores_standard", true),
        ("stores_spin2", true),
        ("stores_spin3", true),
        ("imports_blobs", false),
    ] {
        let path = guests.join(format!("{guest}.wasm"));
        let module = std::fs::read(path).unwrap_or_else(|_| panic!("{guest} is not built"));
        let component = Component::new(&engine, &module).unwrap();
        let mut all = true;
        for (name, item) in component.component_type().imports(&engine) {
            // What brings types alone links under any name.
            let ComponentItem::ComponentInstance(interface) = item.ty else { panic!("{name}") };
            let mut exports = interface.exports(&engine);
            let calls = exports.any(|(_, it)| matches!(it.ty, ComponentItem::ComponentFunc(_)));
            all &= is_offered(name) || !calls;
        }
        assert_eq!(links(&engine, &module), are_there, "{guest}");
        assert_eq!(all, are_there, "{guest}");
        assert_eq!(inspect::imports(&module).is_ok(), are_there, "{guest}");
    }
}

/// The engine has a rule for versions, and the list is asked by the same.
#[test]
fn a_version_is_offered_where_it_links() {
    let engine = engine();
    let exit = r#"(export "exit" (func (param "status" (result))))"#;
    for name in ["wasi:cli/exit", "wasi:cli/run", "wasi:clocks/exit", "acme:cli/exit"] {
        for version in [
            "@0.2.0",
            "@0.2.12",
            "@0.2.99",
            "@0.2.3+made",
            "@0.2.0-rc-1",
            "@0.3.0",
            "@0.3.7",
            "@0.3.0-rc-2026-03-15",
            "@0.0.2",
            "@0.1.0",
            "@0.4.0",
            "@1.0.0",
            "@2.0.0",
            "",
        ] {
            let name = format!("{name}{version}");
            let linked = links(&engine, &importing(&name, exit));
            assert_eq!(linked, is_offered(&name) || is_elsewhere(&name), "{name}");
        }
    }
}

/// Each kind of item that an interface can have, in every engine that takes the component.
#[test]
fn what_other_hosts_have_links_whatever_is_in_it() {
    let resources = r#"(import "spin:base/base@1.0.0" (instance $base
            (export "c" (type $c (sub resource)))
            (export "[constructor]c" (func (param "name" string) (result (own $c))))
            (export "[method]c.get" (func (param "self" (borrow $c)) (result (list u8))))))
        (alias export $base "c" (type $c))"#;
    let again = r#"(import "fermyon:spin/more@2.0.0" (instance
            (alias outer 1 $c (type $outer)) (export "c" (type $c (eq $outer)))
            (export "use" (func (param "c" (own $c)) (result (result (own $c) (error string)))))))"#;
    let offered = r#"(import "wasi:io/poll@0.2.0" (instance $poll
            (export "pollable" (type (sub resource)))))
        (alias export $poll "pollable" (type $pollable))
        (import "spin:base/wait@1.0.0" (instance
            (alias outer 1 $pollable (type $outer)) (export "pollable" (type $p (eq $outer)))
            (export "subscribe" (func (result (own $p))))))"#;
    let later = r#"(import "wasi:cli/x@0.3.0-rc-2026-03-15" (instance
            (export "read" (func (result (tuple (stream u8) (future (result))))))
            (export "wait" (func async (param "for" u64)))))"#;
    for (imports, is_plain) in [
        (resources.to_owned(), true),
        (format!("{resources}{again}"), true),
        (offered.to_owned(), true),
        (r#"(import "spin:base/types@1.0.0" (instance))"#.to_owned(), true),
        (later.to_owned(), false),
        (format!("{resources}{again}{offered}{later}"), false),
    ] {
        let module = component::importing(&imports);
        for kind in EngineKind::ALL {
            let engine = hearth_engine::engine(kind, Purpose::Compile).unwrap();
            if kind.has_concurrency() || is_plain {
                assert!(links(&engine, &module), "{kind:?}: {imports}");
            }
        }
    }
    // What comes with an interface that is nobody's links no more than without.
    let strange = r#"(import "acme:db/sql@1.0.0" (instance (export "f" (func))))"#;
    assert!(!links(&engine(), &component::importing(&format!("{resources}{strange}"))));
}

/// By a component that is asked for its options, which is called as all are.
#[test]
fn what_other_hosts_have_fails_with_its_name() {
    let module = component::importing(
        r#"(import "spin:demo/demo@3.0.0" (instance $demo (export "get" (func (result u32)))))
        (core func $get (canon lower (func $demo "get")))
        (core module $options
            (import "" "get" (func $get (result i32)))
            (memory (export "m") 1)
            (func (export "get") (result i32) (call $get)))
        (core instance $options (instantiate $options
            (with "" (instance (export "get" (func $get))))))
        (func $declared (result string)
            (canon lift (core func $options "get") (memory (core memory $options "m"))))
        (instance $declares (export "get" (func $declared)))
        (export "hearth:function/options" (instance $declares))"#,
    );
    let watchdog = Watchdog::start().unwrap();
    for (kind, module) in [
        (EngineKind::Plain, module.clone()),
        (EngineKind::Concurrent, component::concurrent(&module)),
    ] {
        let imports = inspect::imports(&module).unwrap();
        assert_eq!(imports.unavailable, ["spin:demo/demo@3.0.0"]);
        assert_eq!(inspect::engine(&module, &imports.all), kind);
        let compiler = hearth_engine::engine(kind, Purpose::Compile).unwrap();
        let code = compiler.precompile_component(&module).unwrap();
        let runner = hearth_engine::engine(kind, Purpose::Run).unwrap();
        let component = hearth_engine::load_bytes(&runner, &code).unwrap();
        let handler = prepare(&linkers(&runner).unwrap(), &component).unwrap();
        let refused = options::declared(&runner, &watchdog, &handler, &component).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "`hearth:function/options` was asked for the options and failed: it called `get` of \
             `spin:demo/demo@3.0.0`, an interface that Hearth does not offer"
        );
    }
}

#[test]
fn an_engine_without_concurrency_says_what_needs_it() {
    let name = "wasi:clocks/monotonic-clock@0.3.1";
    let module = importing(name, r#"(export "now" (func (result u64)))"#);
    assert!(links(&engine(), &module));

    let engine = hearth_engine::engine(EngineKind::Plain, Purpose::Compile).unwrap();
    let component = Component::new(&engine, &module).unwrap();
    let refused = prepare(&linkers(&engine).unwrap(), &component).err().unwrap();
    assert_eq!(
        inspect::refused_by_linker(&refused),
        format!(
            "the import `{name}` needs the component model's concurrency, which this engine does \
             not have"
        )
    );
    // The same of WASI 0.2 does not need it.
    let earlier =
        importing("wasi:clocks/monotonic-clock@0.2.1", r#"(export "now" (func (result u64)))"#);
    assert!(links(&engine, &earlier));
}

/// Of all that is asynchronous in a component, wherever it is, the one engine has nothing.
#[test]
fn what_is_asynchronous_anywhere_is_the_other_engines() {
    let plain = hearth_engine::engine(EngineKind::Plain, Purpose::Compile).unwrap();
    let chosen = |module: &[u8]| inspect::engine(module, &inspect::imports(module).unwrap().all);
    for (what, kind) in [
        ("", EngineKind::Plain),
        ("(component)", EngineKind::Plain),
        (r#"(import "wasi:cli/environment@0.3.0" (instance))"#, EngineKind::Plain),
        (r#"(import "wasi:clocks/wall-clock@0.2.3" (instance))"#, EngineKind::Plain),
        ("(type (stream u8))", EngineKind::Concurrent),
        ("(type (future))", EngineKind::Concurrent),
        ("(type (func async))", EngineKind::Concurrent),
        ("(type (component (type (stream u8))))", EngineKind::Concurrent),
        ("(component (component (type (future u8))))", EngineKind::Concurrent),
        (r#"(component (import "f" (func async)))"#, EngineKind::Concurrent),
        ("(core func (canon waitable-set.new))", EngineKind::Concurrent),
        ("(core func (canon backpressure.inc))", EngineKind::Concurrent),
        ("(component (core func (canon task.cancel)))", EngineKind::Concurrent),
        ("(core func (canon subtask.drop))", EngineKind::Concurrent),
    ] {
        let module = component::importing(what);
        assert_eq!(chosen(&module), kind, "{what}");
        let taken = Component::new(&plain, &module);
        assert_eq!(taken.is_ok(), kind == EngineKind::Plain, "{what}: {:?}", taken.err());
    }
    // One that is linked by the other engine alone, whatever it takes of it.
    for name in ["wasi:clocks/monotonic-clock@0.3.1", "wasi:cli/stdout@0.3.0"] {
        let module = component::importing(&format!(r#"(import "{name}" (instance))"#));
        assert_eq!(chosen(&module), EngineKind::Concurrent, "{name}");
    }
    let nothing = r#"(func (export "handle") (param i32) (result i32) unreachable)
        (func (export "callback") (param i32 i32 i32) (result i32) unreachable)"#;
    let module = component::asynchronous("", "", nothing);
    assert_eq!(chosen(&module), EngineKind::Concurrent);
    assert!(Component::new(&plain, &module).is_err());
}

/// Those of the guests that are built on WASI 0.2 have the engine without, whatever made them.
#[test]
fn a_toolchain_has_the_engine_that_it_needs() {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/wasm32-wasip2/release");
    for (guest, kind) in [
        ("version_one", EngineKind::Plain),
        ("dirties_memory", EngineKind::Plain),
        ("wstd_hello", EngineKind::Plain),
        ("axum_app", EngineKind::Plain),
        ("spin_app", EngineKind::Plain),
        ("wasip3_hello", EngineKind::Concurrent),
        ("wasip3_keeps", EngineKind::Concurrent),
    ] {
        let path = guests.join(format!("{guest}.wasm"));
        let module = std::fs::read(path).unwrap_or_else(|_| panic!("{guest} is not built"));
        let chosen = inspect::engine(&module, &inspect::imports(&module).unwrap().all);
        assert_eq!(chosen, kind, "{guest}");
    }
}

#[test]
fn an_artifact_of_one_engine_is_none_of_the_other() {
    let module = component::importing("");
    for kind in EngineKind::ALL {
        let compiler = hearth_engine::engine(kind, Purpose::Compile).unwrap();
        let artifact = compiler.precompile_component(&module).unwrap();
        for loader in EngineKind::ALL {
            let runner = hearth_engine::engine(loader, Purpose::Run).unwrap();
            let loaded = hearth_engine::load_bytes(&runner, &artifact);
            assert_eq!(loaded.is_ok(), loader == kind, "{kind:?}, {loader:?}");
        }
    }
}
