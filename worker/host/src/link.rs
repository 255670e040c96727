//! A component and the list: what it imports is linked, and it is found to answer HTTP.

use wasmtime::component::{Component, Instance, InstancePre, Linker};
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre as IncomingHandler;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::{Guest, INTERFACES, Interface, Link, Version, elsewhere, offer};

/// A component that is linked and answers HTTP, as WASI 0.2 or 0.3 says it.
pub type Handler = ProxyPre<Guest>;

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("an import does not fit what is offered")]
    Import(#[source] wasmtime::Error),
    #[error(
        "the import `{0}` needs the component model's concurrency, which this engine does not have"
    )]
    Concurrency(String),
    #[error("neither wasi:http/incoming-handler@0.2 nor wasi:http/handler@0.3 is exported")]
    NoHandler,
}

/// All that an engine can link, in each of the texts that it is known by. Made once, since it takes
/// longer than to link.
pub struct Linkers {
    first: Linker<Guest>,
    /// The same, but for interfaces that are two texts: by the other of them.
    other: Linker<Guest>,
}

impl Linkers {
    /// Of a component, by those texts that fit it. The other text, and what it imports of other
    /// hosts, is looked at only where it does not link without.
    fn instantiate_pre(&self, component: &Component) -> wasmtime::Result<InstancePre<Guest>> {
        linked(&self.first, component).or_else(|error| match is_ambiguous(component) {
            true => linked(&self.other, component).map_err(|_| error),
            false => Err(error),
        })
    }

    pub fn engine(&self) -> &Engine {
        self.first.engine()
    }
}

/// Whether it imports anything that is two texts.
fn is_ambiguous(component: &Component) -> bool {
    let (engine, ty) = (component.engine(), component.component_type());
    let mut names = ty.imports(engine).map(|(name, _)| name);
    names.any(|name| offer::find(name).is_some_and(|version| version.other.is_some()))
}

pub fn linkers(engine: &Engine) -> wasmtime::Result<Linkers> {
    let first = link(engine, INTERFACES, |version| version.link)?;
    let other = link(engine, INTERFACES, |version| version.other.unwrap_or(version.link))?;
    Ok(Linkers { first, other })
}

fn link(
    engine: &Engine,
    interfaces: &[Interface],
    text: fn(&Version) -> Link,
) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    let versions = interfaces.iter().flat_map(|interface| interface.versions);
    for version in versions {
        if engine.get_concurrency_support() || !version.needs_concurrency {
            text(version)(&mut linker)?;
        }
    }
    Ok(linker)
}

/// All of an instance that can be made before there is one.
pub fn prepare(linkers: &Linkers, component: &Component) -> Result<Handler, LinkError> {
    let linked = linkers.instantiate_pre(component).map_err(|error| missing(component, error))?;
    if let Ok(handler) = IncomingHandler::new(linked.clone()) {
        return Ok(ProxyPre::P2(handler));
    }
    // Where there is no concurrency it would be linked and could not be called.
    if !linkers.engine().get_concurrency_support() {
        return Err(LinkError::NoHandler);
    }
    ServicePre::new(linked).map(ProxyPre::P3).map_err(|_| LinkError::NoHandler)
}

/// With functions that fail in the place of what it imports of other hosts, where it needs that.
fn linked(linker: &Linker<Guest>, component: &Component) -> wasmtime::Result<InstancePre<Guest>> {
    linker.instantiate_pre(component).or_else(|error| {
        match elsewhere::with_traps(linker, component)? {
            Some(linker) => linker.instantiate_pre(component),
            None => Err(error),
        }
    })
}

/// An instance of one, for whoever asks it something else than a call.
pub async fn instantiate(
    handler: &Handler,
    store: &mut Store<Guest>,
) -> wasmtime::Result<Instance> {
    match handler {
        ProxyPre::P2(handler) => handler.instance_pre().instantiate_async(store).await,
        ProxyPre::P3(handler) => handler.instance_pre().instantiate_async(store).await,
    }
}

/// Why a component does not link. Asked only then, since each wake waits for what is linked.
fn missing(component: &Component, error: wasmtime::Error) -> LinkError {
    let (engine, ty) = (component.engine(), component.component_type());
    let mut names = ty.imports(engine).map(|(name, _)| name);
    let is_other_engines =
        |name: &&str| !engine.get_concurrency_support() && offer::needs_concurrency(name);
    match names.find(is_other_engines) {
        Some(name) => LinkError::Concurrency(name.to_owned()),
        None => LinkError::Import(error),
    }
}

/// The engine that it was linked for.
pub fn engine(handler: &Handler) -> &Engine {
    match handler {
        ProxyPre::P2(handler) => handler.engine(),
        ProxyPre::P3(handler) => handler.engine(),
    }
}

/// The same once more: what is linked is shared.
pub fn share(handler: &Handler) -> Handler {
    match handler {
        ProxyPre::P2(handler) => ProxyPre::P2(handler.clone()),
        ProxyPre::P3(handler) => ProxyPre::P3(handler.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_engine::{EngineKind, Purpose};
    use std::collections::BTreeSet;

    /// Whether something has this name, exactly. What had none has one afterwards.
    fn is_taken(linker: &mut Linker<Guest>, name: &str) -> bool {
        linker.root().func_wrap(name, |_, (): ()| Ok(())).is_err()
    }

    /// Every name with every version that any has, and what WASI has and this does not.
    fn candidates() -> Vec<String> {
        const OTHERS: [&str; 8] = [
            "wasi:cli/run",
            "wasi:cli/imports",
            "wasi:clocks/timezone",
            "wasi:filesystem/imports",
            "wasi:http/handler",
            "wasi:http/incoming-handler",
            "wasi:keyvalue/watcher",
            "wasi:sockets/imports",
        ];
        let names = INTERFACES.iter().map(|interface| interface.name).chain(OTHERS);
        let versions = INTERFACES.iter().flat_map(|interface| interface.versions);
        let numbers: BTreeSet<_> = versions.map(|version| version.number).collect();
        names.flat_map(|name| numbers.iter().map(move |n| format!("{name}@{n}"))).collect()
    }

    #[test]
    fn each_row_links_what_it_says_and_nothing_else() {
        let engine = hearth_engine::engine(EngineKind::Concurrent, Purpose::Run).unwrap();
        let (candidates, mut all) = (candidates(), linkers(&engine).unwrap().first);
        let mut listed = BTreeSet::new();
        for interface in INTERFACES {
            for version in interface.versions {
                let name = format!("{}@{}", interface.name, version.number);
                let mut alone = Linker::new(&engine);
                (version.link)(&mut alone).unwrap();
                let taken = candidates.iter().filter(|name| is_taken(&mut alone, name));
                assert_eq!(taken.collect::<Vec<_>>(), [&name]);
                assert!(listed.insert(name.clone()), "{name} is in the list twice");
            }
        }
        let linked = candidates.into_iter().filter(|name| is_taken(&mut all, name));
        assert_eq!(linked.collect::<BTreeSet<_>>(), listed);
    }

    #[test]
    fn an_engine_without_concurrency_links_what_does_not_need_it() {
        let engine = hearth_engine::engine(EngineKind::Plain, Purpose::Run).unwrap();
        let mut linker = linkers(&engine).unwrap().first;
        let mut refused = 0;
        for interface in INTERFACES {
            for version in interface.versions {
                let name = format!("{}@{}", interface.name, version.number);
                assert_eq!(is_taken(&mut linker, &name), !version.needs_concurrency, "{name}");
                if let Err(error) = (version.link)(&mut Linker::new(&engine)) {
                    assert!(version.needs_concurrency, "{name}: {error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "no engine would refuse any of them");
    }
}
