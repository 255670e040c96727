//! Interfaces of other hosts: a component may import them although they are not offered, since
//! the toolchains of those hosts import all that there is, whether it is called or not. Each is
//! linked to functions that end the call with the interface's name.
//!
//! Owns which these are, and what is linked in their place. What is offered is never touched.

use wasmtime::Engine;
use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Component, Linker, LinkerInstance, ResourceType};

use crate::{Guest, is_offered};

/// How the names of these begin, and the only version that is meant, where it is one.
const ELSEWHERE: &[(&str, Option<&str>)] =
    &[("spin:", None), ("fermyon:spin/", None), ("wasi:", Some("0.3.0-rc-2026-03-15"))];

/// Of a whole name; longer than any that there is. It is told to whoever called.
const NAME_MAX_BYTES: usize = 200;

/// What a call ends with that needed one of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it called `{function}` of `{interface}`, an interface that Hearth does not offer")]
pub struct Unavailable {
    /// By its whole name.
    pub interface: String,
    pub function: String,
}

/// Whether an import of this name is taken and is not offered.
pub fn is_elsewhere(import: &str) -> bool {
    let (name, version) = match import.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (import, None),
    };
    let fits = |(begins, only): &(&str, Option<&str>)| {
        name.strip_prefix(begins).is_some_and(|rest| !rest.is_empty())
            && (only.is_none() || *only == version)
    };
    import.len() <= NAME_MAX_BYTES && !is_offered(import) && ELSEWHERE.iter().any(fits)
}

/// What stands for each resource of theirs. No guest ever holds one: every function fails.
struct Nothing;

/// The same linker with all of them that a component imports. `None` where it imports none.
pub(crate) fn with_traps(
    linker: &Linker<Guest>,
    component: &Component,
) -> wasmtime::Result<Option<Linker<Guest>>> {
    let (engine, ty) = (component.engine(), component.component_type());
    if !ty.imports(engine).any(|(name, _)| is_elsewhere(name)) {
        return Ok(None);
    }
    let mut linker = linker.clone();
    let mut known = Vec::new();
    for (name, import) in ty.imports(engine) {
        let ComponentItem::ComponentInstance(interface) = import.ty else { continue };
        if is_elsewhere(name) {
            trap(&mut linker.instance(name)?, name, &interface, engine, &mut known)?;
        } else {
            known.extend(resources(&interface, engine));
        }
    }
    Ok(Some(linker))
}

fn trap(
    linker: &mut LinkerInstance<'_, Guest>,
    interface: &str,
    imported: &ComponentInstance,
    engine: &Engine,
    known: &mut Vec<ResourceType>,
) -> wasmtime::Result<()> {
    for (name, export) in imported.exports(engine) {
        match export.ty {
            ComponentItem::ComponentFunc(function) => {
                let told =
                    Unavailable { interface: interface.to_owned(), function: name.to_owned() };
                if !function.async_() {
                    linker.func_new(name, move |_, _, _, _| Err(told.clone().into()))?;
                } else if engine.get_concurrency_support() {
                    linker.func_new_concurrent(name, move |_, _, _, _| {
                        let told = told.clone();
                        Box::pin(async move { Err(told.into()) })
                    })?;
                }
            }
            // One that came with an import before this one is that import's, and found there.
            ComponentItem::Resource(resource) if !known.contains(&resource) => {
                known.push(resource);
                linker.resource(name, ResourceType::host::<Nothing>(), |_, _| Ok(()))?;
            }
            ComponentItem::ComponentInstance(inner) => {
                trap(&mut linker.instance(name)?, interface, &inner, engine, known)?;
            }
            // Types need nothing, and of the rest no interface has any.
            _ => {}
        }
    }
    Ok(())
}

fn resources(interface: &ComponentInstance, engine: &Engine) -> Vec<ResourceType> {
    let mut found = Vec::new();
    for (_, export) in interface.exports(engine) {
        match export.ty {
            ComponentItem::Resource(resource) => found.push(resource),
            ComponentItem::ComponentInstance(inner) => found.extend(resources(&inner, engine)),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_are_taken_without_being_offered() {
        for name in [
            "spin:redis/redis@3.0.0",
            "spin:anything/at-all",
            "fermyon:spin/llm@2.0.0",
            "fermyon:spin/http",
            "wasi:cli/run@0.3.0-rc-2026-03-15",
            "wasi:http/types@0.3.0-rc-2026-03-15",
        ] {
            assert!(is_elsewhere(name), "{name}");
        }
        for name in [
            "wasi:cli/stdout@0.2.0",
            "wasi:http/types@0.3.0",
            "wasi:cli/run@0.2.0",
            "wasi:cli/stdout@0.3.0-rc-2026-03-16",
            "wasi:cli/stdout@0.3.0-rc-2026-03-15+x",
            "fermyon:other/x@2.0.0",
            "fermyon:spin-x/y@2.0.0",
            "spin",
            "spin:",
            "acme:spin/redis@1.0.0",
            "example:blobs/store@1.2.0",
            &format!("spin:{}", "a".repeat(NAME_MAX_BYTES)),
            "",
        ] {
            assert!(!is_elsewhere(name), "{name}");
        }
    }
}
