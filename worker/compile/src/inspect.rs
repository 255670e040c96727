//! What a module is, read from its outside before anything is compiled, and why it cannot be a
//! function, said so that its author knows what to do.
//!
//! Reads names only. Whether the types behind them fit is for the compiler and the linker to say.

use std::error::Error;

use hearth_engine::{LinkError, is_offered};
use wasmparser::{Encoding, Parser, Payload};

/// More than any toolchain makes; bounds what is told about a module.
const IMPORTS_MAX: usize = 200;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "this is no WebAssembly: a function is a `.wasm` file, such as `cargo build --release --target wasm32-wasip2` makes (a `.wasm.zst` is unpacked before it comes here)"
    )]
    NoWasm,
    #[error("the module is empty: nothing was built, or nothing arrived")]
    Empty,
    #[error("the module is truncated at byte {at}: build or upload it again")]
    Truncated { at: usize },
    #[error(
        "this is a core WebAssembly module; Hearth runs components: build with `--target wasm32-wasip2`, or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    #[error("this is no valid WebAssembly: {0}")]
    Malformed(String),
    #[error(
        "the import{} {} {} not offered; a function may import wasi:cli, wasi:clocks, wasi:random, wasi:io, wasi:filesystem, wasi:sockets and wasi:http of WASI 0.2 or 0.3",
        if .0.len() == 1 { "" } else { "s" },
        quoted(.0),
        if .0.len() == 1 { "is" } else { "are" }
    )]
    Imports(Vec<String>),
    #[error("the component has more than {IMPORTS_MAX} imports")]
    TooManyImports,
    #[error(
        "the component exports {} and no HTTP handler: export `wasi:http/incoming-handler` of WASI 0.2 (the world `wasi:http/proxy`) or `wasi:http/handler` of WASI 0.3",
        if .0.is_empty() { "nothing".to_owned() } else { quoted(.0) }
    )]
    NoHandler(Vec<String>),
}

fn quoted(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    if names.len() > SHOWN {
        text.push(format!("{} more", names.len() - SHOWN));
    }
    text.join(", ")
}

/// The imports of a component that may be a function, sorted.
pub fn imports(module: &[u8]) -> Result<Vec<String>, Refusal> {
    if module.is_empty() {
        return Err(Refusal::Empty);
    }
    if !module.starts_with(b"\0asm") {
        let beginning = b"\0asm".starts_with(module);
        return Err(if beginning {
            Refusal::Truncated { at: module.len() }
        } else {
            Refusal::NoWasm
        });
    }
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(Refusal::CoreModule);
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    judge(imports, exports)
}

fn judge(mut imports: Vec<String>, exports: Vec<String>) -> Result<Vec<String>, Refusal> {
    let refused: Vec<_> = imports.iter().filter(|name| !is_offered(name)).cloned().collect();
    if !refused.is_empty() {
        return Err(Refusal::Imports(refused));
    }
    if imports.len() > IMPORTS_MAX {
        return Err(Refusal::TooManyImports);
    }
    let handler = |name: &String| {
        name.starts_with("wasi:http/incoming-handler@0.2.")
            || name.starts_with("wasi:http/handler@0.3.")
    };
    if !exports.iter().any(handler) {
        return Err(Refusal::NoHandler(exports));
    }
    imports.sort();
    Ok(imports)
}

fn malformed(error: wasmparser::BinaryReaderError) -> Refusal {
    // What is missing at the end of the file reads as an unexpected end, at any depth.
    if error.message().starts_with("unexpected end") {
        Refusal::Truncated { at: error.offset() }
    } else {
        Refusal::Malformed(error.to_string())
    }
}

pub fn refused_by_compiler(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<wasmparser::BinaryReaderError>() {
        Some(error) => malformed(error.clone()).to_string(),
        None => Refusal::Malformed(root(error.as_ref())).to_string(),
    }
}

/// The artifact is ours and fresh, so what does not load is larger than a worker has room for.
pub fn refused_by_pool(error: &hearth_engine::LoadError) -> String {
    format!("the component needs more than a function may have: {}", root(error))
}

pub fn refused_by_linker(error: &LinkError) -> String {
    match error {
        LinkError::Import(cause) => {
            let chain: Vec<_> = cause.chain().map(|cause| cause.to_string()).collect();
            format!("an import does not fit what is offered: {}", chain.join(": "))
        }
        LinkError::NoHandler => {
            format!("{error}, or not with the types that these interfaces have")
        }
    }
}

fn root(error: &(dyn Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn bytes_that_are_no_component() {
        let core = b"\0asm\x01\0\0\0";
        let component = b"\0asm\x0d\0\x01\0";
        assert_eq!(imports(b""), Err(Refusal::Empty));
        assert_eq!(imports(b"PK\x03\x04"), Err(Refusal::NoWasm));
        assert_eq!(imports(b"\0as"), Err(Refusal::Truncated { at: 3 }));
        assert_eq!(imports(core), Err(Refusal::CoreModule));
        assert_eq!(imports(component), Err(Refusal::NoHandler(vec![])));
        // A custom section that says 100 bytes and has none.
        let cut = [component, &b"\0\x64"[..]].concat();
        assert!(matches!(imports(&cut), Err(Refusal::Truncated { .. })), "{:?}", imports(&cut));
    }

    #[test]
    fn imports_and_exports_are_judged_by_name() {
        let exports = || names(&["wasi:http/incoming-handler@0.2.3"]);
        let fine = names(&["wasi:io/poll@0.2.3", "wasi:cli/stdout@0.2.3"]);
        let mut sorted = fine.clone();
        sorted.sort();
        assert_eq!(judge(fine, exports()), Ok(sorted));
        assert_eq!(
            judge(names(&["wasi:io/poll@0.2.3", "acme:db/sql@1.0.0"]), exports()),
            Err(Refusal::Imports(names(&["acme:db/sql@1.0.0"])))
        );
        let command = names(&["wasi:cli/run@0.2.3"]);
        assert_eq!(judge(vec![], command.clone()), Err(Refusal::NoHandler(command)));
        assert_eq!(judge(vec![], names(&["wasi:http/handler@0.3.1"])), Ok(vec![]));
    }

    #[test]
    fn a_refusal_names_what_is_refused() {
        let refusal = Refusal::Imports(names(&["acme:db/sql@1.0.0"])).to_string();
        assert!(
            refusal.starts_with("the import `acme:db/sql@1.0.0` is not offered; "),
            "{refusal}"
        );
    }
}
