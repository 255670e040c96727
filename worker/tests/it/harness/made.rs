//! Components that are no guests of `functions/testing`, by their names in a release: what no
//! compiler of a language would make.

use hearth_e2e::component::{self, RETURNS};

/// Interfaces of other hosts.
pub const DEMO: &str = "spin:demo/demo@3.0.0";
pub const LATER: &str = "wasi:demo/later@0.3.0-rc-2026-03-15";

pub fn made(name: &str) -> Option<Vec<u8>> {
    match name {
        "needs" => Some(component::needing(DEMO)),
        "needs_later" => Some(component::needing_later(LATER)),
        // It never calls them, and answers nothing.
        "imports_many" => {
            let one = |at| format!("spin:demo/d{at}@3.0.0");
            let import = |at| format!(r#"(import "{}" (instance (export "f" (func))))"#, one(at));
            Some(component::with(&(0..96).map(import).collect::<String>(), "", RETURNS))
        }
        _ => None,
    }
}
