//! Why a guest's call failed, as its owner is told.

use wasmtime::{Error, Trap, WasmtimeBug};

/// The innermost cause. The outer ones name our own calls.
pub fn reason(error: &Error) -> String {
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return trap.to_string();
    }
    let cause = error.root_cause();
    match cause.downcast_ref::<WasmtimeBug>() {
        // What follows is for those who make the engine, and says where it was built.
        Some(bug) => {
            let said = bug.to_string();
            let said = said.lines().next().unwrap_or_default();
            format!("it met a mistake of the engine's ({})", said.trim_start_matches("BUG: "))
        }
        None => cause.to_string(),
    }
}
