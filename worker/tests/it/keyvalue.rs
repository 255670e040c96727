//! Key-value as the compiler sees it: each text links, in the engine that it needs, and a function
//! that opens a store is denied while it is only tried.

use hearth_engine::EngineKind;
use hearth_wire::CompileReply;

use crate::harness::{CONCURRENT, check, compile, engine_of, guest};

const PLAIN: [&str; 4] = ["stores_draft2", "stores_standard", "stores_draft", "stores_spin2"];

#[test]
fn each_text_links_in_the_engine_that_it_needs() {
    for name in PLAIN {
        assert_eq!(engine_of(name), EngineKind::Plain, "{name}");
        let concurrent = format!("{name}{CONCURRENT}");
        assert_eq!(engine_of(&concurrent), EngineKind::Concurrent, "{name}");
    }
    assert_eq!(engine_of("stores_spin3"), EngineKind::Concurrent);
    let CompileReply::Compiled { imports, .. } = compile(&guest("stores_draft2")).reply else {
        panic!("it was not compiled")
    };
    for import in [
        "wasi:keyvalue/store@0.2.0-draft2",
        "wasi:keyvalue/atomics@0.2.0-draft2",
        "wasi:keyvalue/batch@0.2.0-draft2",
        "hearth:platform/keyvalue@0.1.0",
    ] {
        assert!(imports.iter().any(|it| it == import), "{import} is not in {imports:?}");
    }
}

#[test]
fn a_function_that_opens_a_store_can_be_tried_for_reuse() {
    for name in PLAIN.into_iter().chain(["stores_spin3"]) {
        let reply = check(name, r#"{"reuse":100}"#);
        assert!(matches!(reply, CompileReply::Checked), "{name}: {reply:?}");
    }
}
