//! That what is refused by name and what does not link are the same, judged with components: those
//! of each toolchain among the tests' guests, and some that were written for it.

use std::path::Path;

use hearth_engine::Purpose;
use hearth_host::{LinkError, is_offered, linker, prepare};
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wasmtime::{Config, Engine};

use crate::inspect;

/// Compiles here, as it is: nothing is called.
fn engine() -> Engine {
    hearth_engine::engine(Purpose::Compile).unwrap()
}

/// Whether all that a component imports is there.
fn links(engine: &Engine, module: &[u8]) -> bool {
    let component = Component::new(engine, module).unwrap();
    match prepare(&linker(engine).unwrap(), &component) {
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
            assert_eq!(linked, is_offered(&name), "{name}");
        }
    }
}

#[test]
fn an_engine_without_concurrency_says_what_needs_it() {
    let name = "wasi:clocks/monotonic-clock@0.3.1";
    let module = importing(name, r#"(export "now" (func (result u64)))"#);
    assert!(links(&engine(), &module));

    let mut config = Config::new();
    config.concurrency_support(false);
    let engine = Engine::new(&config).unwrap();
    let component = Component::new(&engine, &module).unwrap();
    let refused = prepare(&linker(&engine).unwrap(), &component).err().unwrap();
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
