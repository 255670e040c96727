//! What a function may import, said twice on purpose: as names, for a refusal that names what is
//! not offered, and as the linker that compiler and worker both link with, so that a component
//! that was taken cannot fail to link later. What brings types alone links without either.
//!
//! Rights are not given here. A store decides what a call may do with what it imported; the
//! filesystem and the sockets are linked since the runtimes of Go and Python import them, and
//! no store of ours opens a directory or a socket.

use wasmtime::Engine;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi::WasiView;
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre as IncomingHandler;
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, WasiHttpView};

/// A component that is linked and answers HTTP, as WASI 0.2 or 0.3 says it.
pub type Handler<T> = ProxyPre<T>;

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("an import does not fit what is offered")]
    Import(#[source] wasmtime::Error),
    #[error("neither wasi:http/incoming-handler@0.2 nor wasi:http/handler@0.3 is exported")]
    NoHandler,
}

/// How near an import is to what may be there, the furthest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offer {
    /// Nothing of its package is.
    NoPackage,
    NoInterface,
    /// The interface is, and in another version.
    OtherVersion,
    Offered,
}

impl Offer {
    /// Of an import by its whole name (`wasi:cli/stdout@0.2.6`).
    pub fn of(import: &str) -> Self {
        let (name, version) = import.rsplit_once('@').unwrap_or((import, ""));
        let (package, interface) = name.split_once('/').unwrap_or((name, ""));
        match package {
            "wasi:cli" | "wasi:clocks" | "wasi:random" | "wasi:io" | "wasi:filesystem"
            | "wasi:sockets" => {}
            "wasi:http" if ["types", "outgoing-handler", "client"].contains(&interface) => {}
            "wasi:http" => return Self::NoInterface,
            _ => return Self::NoPackage,
        }
        let patch = version.strip_prefix("0.2.").or_else(|| version.strip_prefix("0.3."));
        let released = patch
            .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()));
        match (interface, released) {
            ("", _) => Self::NoInterface,
            (_, false) => Self::OtherVersion,
            (_, true) => Self::Offered,
        }
    }
}

/// Whether an import may be there, by its whole name.
pub fn is_offered(import: &str) -> bool {
    Offer::of(import) == Offer::Offered
}

pub fn linker<T>(engine: &Engine) -> wasmtime::Result<Linker<T>>
where
    T: WasiView + WasiHttpView + 'static,
{
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    Ok(linker)
}

pub fn prepare<T>(linker: &Linker<T>, component: &Component) -> Result<Handler<T>, LinkError>
where
    T: WasiView + WasiHttpView + 'static,
{
    let linked = linker.instantiate_pre(component).map_err(LinkError::Import)?;
    if let Ok(handler) = IncomingHandler::new(linked.clone()) {
        return Ok(ProxyPre::P2(handler));
    }
    ServicePre::new(linked).map(ProxyPre::P3).map_err(|_| LinkError::NoHandler)
}

/// Answers every request that a function makes with `HTTP-request-denied`.
pub struct DeniedRequests;

type Sending = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Answer = Result<(http::Response<WasiBody>, Sending), Error>;

impl WasiHttpHooks for DeniedRequests {
    fn send_request(
        &mut self,
        _: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Sending,
    ) -> Box<dyn Future<Output = Answer> + Send> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered() {
        for name in [
            "wasi:cli/stdout@0.2.0",
            "wasi:io/poll@0.2.12",
            "wasi:sockets/tcp@0.2.3",
            "wasi:filesystem/preopens@0.3.0",
            "wasi:http/types@0.2.6",
            "wasi:http/outgoing-handler@0.2.6",
            "wasi:http/client@0.3.2",
        ] {
            assert!(is_offered(name), "{name}");
        }
        for name in [
            "wasi:cli/stdout",
            "wasi:cli@0.2.0",
            "wasi:cli/stdout@0.1.0",
            "wasi:cli/stdout@0.2.",
            "wasi:cli/stdout@0.3.0-rc-2025",
            "wasi:http/incoming-handler@0.2.0",
            "wasi:http/handler@0.3.0",
            "wasi:config/store@0.2.0-draft",
            "wasi:keyvalue/store@0.2.0",
            "wasi:logging/logging@0.2.0",
            "hearth:platform/sql@0.2.0",
            "fermyon:spin/sqlite@2.0.0",
            "",
        ] {
            assert!(!is_offered(name), "{name}");
        }
    }

    #[test]
    fn how_near_an_import_is() {
        for (name, offer) in [
            ("wasi:cli/stdout@0.2.0", Offer::Offered),
            ("wasi:cli/stdout@0.3.0-rc-2026-03-15", Offer::OtherVersion),
            ("wasi:cli/stdout", Offer::OtherVersion),
            ("wasi:http/handler@0.3.0", Offer::NoInterface),
            ("wasi:cli@0.2.0", Offer::NoInterface),
            ("wasi:keyvalue/store@0.2.0-draft", Offer::NoPackage),
            ("acme:db/sql@1.0.0", Offer::NoPackage),
            ("run", Offer::NoPackage),
        ] {
            assert_eq!(Offer::of(name), offer, "{name}");
        }
    }
}
