//! Which of the interfaces that a component can import are for what its tenant keeps on disk.

/// By how they begin; what follows is a version, or which of a package's it is.
const INTERFACES: [&str; 7] = [
    "wasi:keyvalue/",
    "fermyon:spin/key-value@",
    "fermyon:spin/sqlite@",
    "spin:key-value/",
    "spin:sqlite/",
    "hearth:platform/keyvalue@",
    "hearth:platform/sql@",
];

/// Whether who imports this needs a state: where there can be none it is refused by this name.
pub fn needs_state(import: &str) -> bool {
    INTERFACES.iter().any(|interface| import.starts_with(interface))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_and_databases_need_state_and_nothing_else_does() {
        for import in [
            "wasi:keyvalue/store@0.2.0-draft2",
            "wasi:keyvalue/atomics@0.2.0-draft",
            "fermyon:spin/key-value@2.0.0",
            "fermyon:spin/sqlite@2.0.0",
            "spin:key-value/key-value@3.0.0",
            "spin:sqlite/sqlite@3.1.0",
            "hearth:platform/keyvalue@0.1.0",
            "hearth:platform/sql@0.1.0",
        ] {
            assert!(needs_state(import), "{import}");
        }
        for import in [
            "wasi:http/types@0.2.0",
            "wasi:config/store@0.2.0-draft",
            "fermyon:spin/variables@2.0.0",
            "spin:variables/variables@3.0.0",
            "hearth:platform/log@0.1.0",
        ] {
            assert!(!needs_state(import), "{import}");
        }
    }
}
