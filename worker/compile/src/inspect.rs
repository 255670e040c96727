//! What a module is, read from its outside before anything is compiled, and why it cannot be a
//! function, said so that its author knows what to do.
//!
//! Reads names, and of an import that is not offered by its name whether it brings more than
//! types. Whether the types behind the others fit is for the compiler and the linker to say.

use std::collections::{HashMap, HashSet};
use std::error::Error;

use hearth_engine::EngineKind;
use hearth_host::{LinkError, Offer, is_elsewhere, is_offered, needs_concurrency, offered};
use wasmparser::component_types::{
    ComponentAnyTypeId, ComponentEntityType, ComponentInstanceTypeId, ResourceId,
};
use wasmparser::types::Types;
use wasmparser::{Encoding, Parser, Payload, ValidPayload, Validator, WasmFeatures};

/// More than any toolchain makes; bounds what is told about a module.
const IMPORTS_MAX: usize = 200;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "this is not WebAssembly: a function is a `.wasm` file, such as `cargo build --release --target wasm32-wasip2` makes (a `.wasm.zst` is unpacked before it comes here)"
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
    #[error("this is not valid WebAssembly: {0}")]
    Malformed(String),
    #[error(
        "the import{} {} {} not offered{}; a function may import {}",
        if .0.len() == 1 { "" } else { "s" },
        quoted(.0),
        if .0.len() == 1 { "is" } else { "are" },
        if .0.len() > SHOWN { " (`hearth upload --json` lists all of them)" } else { "" },
        offered()
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

impl Refusal {
    /// The imports that it is about, all of them.
    pub fn imports(self) -> Vec<String> {
        match self {
            Self::Imports(imports) => imports,
            _ => Vec::new(),
        }
    }
}

/// Names that a sentence has room for.
const SHOWN: usize = 5;

fn quoted(names: &[String]) -> String {
    let mut text: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    if names.len() > SHOWN {
        text.push(format!("{} more", names.len() - SHOWN));
    }
    text.join(", ")
}

/// What a component that may be a function imports, sorted.
#[derive(Debug, PartialEq, Eq)]
pub struct Imports {
    pub all: Vec<String>,
    /// Of these, the interfaces of other hosts that are not offered: a call that needs one fails.
    pub unavailable: Vec<String>,
}

pub fn imports(module: &[u8]) -> Result<Imports, Refusal> {
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
    if imports.len() > IMPORTS_MAX {
        return Err(Refusal::TooManyImports);
    }
    let mut missing: Vec<_> = imports.iter().filter(|name| !is_offered(name)).cloned().collect();
    if !missing.is_empty() {
        let types_alone = types_alone(&types(module)?, &imports);
        missing.retain(|name| !types_alone.contains(name));
    }
    judge(imports, missing, exports)
}

/// What of the component model an engine without concurrency does not have.
const ASYNCHRONOUS: WasmFeatures = WasmFeatures::CM_ASYNC
    .union(WasmFeatures::CM_ASYNC_STACKFUL)
    .union(WasmFeatures::CM_MORE_ASYNC_BUILTINS)
    .union(WasmFeatures::CM_THREADING)
    .union(WasmFeatures::CM_ERROR_CONTEXT);

/// The engine for a component with these imports: the one with concurrency where anything of it is
/// asynchronous, be it what it imports, what it exports, or what it uses anywhere within.
pub fn engine(module: &[u8], imports: &[String]) -> EngineKind {
    let needs_it = imports.iter().any(|name| needs_concurrency(name))
        || validated(module, WasmFeatures::all().difference(ASYNCHRONOUS)).is_err();
    if needs_it { EngineKind::Concurrent } else { EngineKind::Plain }
}

/// By what it imports, what of that nobody links, and what it exports.
fn judge(
    mut all: Vec<String>,
    missing: Vec<String>,
    exports: Vec<String>,
) -> Result<Imports, Refusal> {
    let (mut unavailable, refused): (Vec<_>, Vec<_>) =
        missing.into_iter().partition(|name| is_elsewhere(name));
    if !refused.is_empty() {
        return Err(Refusal::Imports(weightiest_first(refused)));
    }
    let handler = |name: &String| {
        name.starts_with("wasi:http/incoming-handler@0.2.")
            || name.starts_with("wasi:http/handler@0.3.")
    };
    if !exports.iter().any(handler) {
        return Err(Refusal::NoHandler(exports));
    }
    all.sort();
    unavailable.sort();
    Ok(Imports { all, unavailable })
}

/// What is furthest from being offered comes first, and of that one of each package before a
/// second of any: a few names then tell what the component was made for.
fn weightiest_first(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    let mut of_package: HashMap<String, usize> = HashMap::new();
    let weighed = names.into_iter().map(|name| {
        let package = name.split('/').next().unwrap_or_default().to_owned();
        let nth = of_package.entry(package).or_default();
        *nth += 1;
        (Offer::of(&name), *nth, name)
    });
    let mut weighed: Vec<_> = weighed.collect();
    weighed.sort();
    weighed.into_iter().map(|(_, _, name)| name).collect()
}

/// The component's types. Nothing is refused that some engine takes.
fn types(module: &[u8]) -> Result<Types, Refusal> {
    validated(module, WasmFeatures::all())
}

/// The types of a component that is valid where there are these features. Code is not looked at.
fn validated(module: &[u8], features: WasmFeatures) -> Result<Types, Refusal> {
    let mut validator = Validator::new_with_features(features);
    let mut types = None;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.map_err(malformed)?;
        if let ValidPayload::End(of_this) = validator.payload(&payload).map_err(malformed)? {
            types = Some(of_this);
        }
    }
    types.ok_or(Refusal::Truncated { at: module.len() })
}

/// Those imports that bring nothing but types, and so link whatever they are called: no function,
/// and no resource that an import before them did not bring.
fn types_alone(types: &Types, imports: &[String]) -> HashSet<String> {
    let mut known = HashSet::new();
    let mut alone = HashSet::new();
    for name in imports {
        let Some(item) = types.component_item_for_import(name) else { continue };
        let ComponentEntityType::Instance(instance) = item.ty else { continue };
        if is_offered(name) {
            collect(types, instance, &mut known);
        } else if has_types_alone(types, instance, &known) {
            alone.insert(name.clone());
        } else if is_elsewhere(name) {
            collect(types, instance, &mut known);
        }
    }
    alone
}

fn collect(types: &Types, instance: ComponentInstanceTypeId, known: &mut HashSet<ResourceId>) {
    for item in types[instance].exports.values() {
        match item.ty {
            ComponentEntityType::Type {
                created: ComponentAnyTypeId::Resource(resource), ..
            } => {
                known.insert(resource.resource());
            }
            ComponentEntityType::Instance(inner) => collect(types, inner, known),
            _ => {}
        }
    }
}

fn has_types_alone(
    types: &Types,
    instance: ComponentInstanceTypeId,
    known: &HashSet<ResourceId>,
) -> bool {
    types[instance].exports.values().all(|item| match item.ty {
        ComponentEntityType::Type { created: ComponentAnyTypeId::Defined(_), .. } => true,
        ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(resource), .. } => {
            known.contains(&resource.resource())
        }
        _ => false,
    })
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
        LinkError::Concurrency(_) => error.to_string(),
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
    use hearth_e2e::component;

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
        let taken = |all, unavailable| Ok(Imports { all, unavailable });
        assert_eq!(judge(fine, vec![], exports()), taken(sorted, vec![]));
        let acme = names(&["acme:db/sql@1.0.0"]);
        let refused = Err(Refusal::Imports(acme.clone()));
        assert_eq!(judge(acme.clone(), acme.clone(), exports()), refused);
        let command = names(&["wasi:cli/run@0.2.3"]);
        assert_eq!(judge(vec![], vec![], command.clone()), Err(Refusal::NoHandler(command)));
        let handler = names(&["wasi:http/handler@0.3.1"]);
        assert_eq!(judge(vec![], vec![], handler), taken(vec![], vec![]));
        let spin = names(&["spin:redis/redis@3.0.0"]);
        assert_eq!(judge(spin.clone(), spin.clone(), exports()), taken(spin.clone(), spin.clone()));
        let both = [&spin[..], &acme[..]].concat();
        assert_eq!(judge(both.clone(), both, exports()), Err(Refusal::Imports(acme)));
    }

    /// What becomes of a component that answers HTTP, as far as its imports are concerned.
    fn importing(imports: &str) -> Result<Imports, Refusal> {
        self::imports(&component::importing(imports))
    }

    #[test]
    fn an_import_is_judged_by_what_it_would_link() {
        const NAME: &str = "acme:db/sql@1.0.0";
        for (what, links) in [
            ("", true),
            (r#"(export "row" (type (eq $row)))"#, true),
            (r#"(export "request" (type (eq $request)))"#, true),
            (r#"(export "row" (type (eq $row))) (export "rows" (func (result u32)))"#, false),
            (r#"(export "connection" (type (sub resource)))"#, false),
            (r#"(export "inner" (instance))"#, false),
        ] {
            let import = format!(
                r#"(type $row (list u8))
                (import "{NAME}" (instance
                    (alias outer 1 $row (type $row))
                    (alias outer 1 $request (type $request))
                    {what}))"#
            );
            match importing(&import) {
                Ok(imports) => {
                    assert!(links && imports.all.iter().any(|it| it == NAME), "{what}");
                    assert_eq!(imports.unavailable, [""; 0], "{what}");
                }
                Err(refusal) => {
                    assert!(!links, "{what}: {refusal}");
                    assert_eq!(refusal, Refusal::Imports(names(&[NAME])), "{what}");
                }
            }
        }
        // A resource stays of whom it is: one that no offered import brought is brought by none.
        let of_another = format!(
            r#"(import "acme:db/base@1.0.0" (instance $base (export "c" (type (sub resource)))))
            (alias export $base "c" (type $c))
            (import "{NAME}" (instance
                (alias outer 1 $c (type $c)) (export "c" (type (eq $c)))))"#
        );
        assert_eq!(
            importing(&of_another),
            Err(Refusal::Imports(names(&["acme:db/base@1.0.0", NAME])))
        );
        assert!(matches!(importing(r#"(import "f" (func))"#), Err(Refusal::Imports(_))));
    }

    /// What brings types alone is not missed by anybody, be the types an offered interface's or those
    /// of one that is not.
    #[test]
    fn what_other_hosts_have_is_told_where_a_call_could_miss_it() {
        let imports = importing(
            r#"(type $row (list u8))
            (import "spin:base/types@1.0.0" (instance (export "row" (type (eq $row)))))
            (import "spin:base/base@1.0.0" (instance $base
                (export "c" (type (sub resource)))
                (export "open" (func (result u32)))))
            (alias export $base "c" (type $c))
            (import "spin:base/again@1.0.0" (instance
                (alias outer 1 $c (type $c)) (export "c" (type (eq $c)))))
            (import "fermyon:spin/llm@2.0.0" (instance (export "infer" (func))))"#,
        );
        let unavailable = imports.unwrap().unavailable;
        assert_eq!(unavailable, names(&["fermyon:spin/llm@2.0.0", "spin:base/base@1.0.0"]));
    }

    #[test]
    fn what_matters_most_is_named_first() {
        let given = names(&[
            "wasi:cli/stdout@0.3.0-rc-1",
            "wasi:http/handler@0.3.0",
            "spin:mqtt/mqtt@3.0.0",
            "wasi:cli/stderr@0.3.0-rc-1",
            "spin:redis/redis@3.0.0",
            "acme:db/sql@1.0.0",
            "acme:db/more@1.0.0",
        ]);
        let ordered = weightiest_first(given);
        assert_eq!(
            ordered,
            names(&[
                "acme:db/more@1.0.0",
                "spin:mqtt/mqtt@3.0.0",
                "spin:redis/redis@3.0.0",
                "acme:db/sql@1.0.0",
                "wasi:http/handler@0.3.0",
                "wasi:cli/stderr@0.3.0-rc-1",
                "wasi:cli/stdout@0.3.0-rc-1",
            ])
        );
        let said = Refusal::Imports(ordered).to_string();
        assert!(
            said.contains("`acme:db/sql@1.0.0`, `wasi:http/handler@0.3.0`, 2 more are"),
            "{said}"
        );
        assert!(said.contains("`hearth upload --json` lists all of them"), "{said}");
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
