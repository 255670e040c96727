//! Whether a component's instance can serve more than one call, which its author asked for and
//! not every toolchain's can: two calls to one instance, in a throw-away store without rights.
//!
//! Only a head is asked of each call, whatever it says: without its rights a function may well
//! answer that it failed. One that fails at the first call, which it does not expect, tells
//! nothing of the second: a failure ends its instance anyway.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hearth_host::{Guest, Handler};
use http_body_util::{BodyExt, Full};
use tokio::sync::oneshot;
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::handler::Proxy;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{WasiBody, WasiHttpView, p3};

use crate::options::{Unanswered, Watchdog, ask};

#[derive(Debug, thiserror::Error)]
#[error(
    "an instance of this component cannot serve more than one call, so the option `reuse` must be \
     left out: of two calls to one instance, the second {problem}"
)]
pub struct Refusal {
    problem: String,
}

/// Calls one instance twice, with `POST /` and an empty JSON object.
pub fn probe(engine: &Engine, watchdog: &Watchdog, handler: &Handler) -> Result<(), Refusal> {
    let mut is_second = false;
    let asked = ask(engine, watchdog, async |store: &mut Store<Guest>| {
        let proxy = handler.instantiate_async(&mut *store).await?;
        for second in [false, true] {
            is_second = second;
            if !answers(store, &proxy).await? {
                return Ok(false);
            }
        }
        Ok(true)
    });
    let problem = match asked {
        _ if !is_second => return Ok(()),
        Ok(true) => return Ok(()),
        Ok(false) => "gave no response".to_owned(),
        Err(Unanswered::Late) => "did not end within a second".to_owned(),
        Err(Unanswered::Failed(reason)) => format!("failed: {reason}"),
    };
    Err(Refusal { problem })
}

/// Whether one call makes a head and comes to its end.
async fn answers(store: &mut Store<Guest>, proxy: &Proxy) -> wasmtime::Result<bool> {
    match proxy {
        Proxy::P2(proxy) => {
            let (head, made) = oneshot::channel();
            let has_answered = Arc::new(AtomicBool::new(false));
            let noted = Arc::clone(&has_answered);
            let request = store.data_mut().http().new_incoming_request(Scheme::Http, request()?)?;
            let out = store.data_mut().http().new_response_outparam_from_callback(move |said| {
                if let Ok(response) = said {
                    noted.store(true, Ordering::Relaxed);
                    // Fails where the call has ended, and nobody reads the body.
                    let _ = head.send(response);
                }
            })?;
            // A guest that fails, or says nothing, may leave its head and its body unended.
            let reading = async {
                if let Ok(response) = made.await {
                    forget(response.into_body()).await;
                }
                std::future::pending::<Infallible>().await
            };
            let handler = proxy.wasi_http_incoming_handler();
            tokio::select! {
                biased;
                called = handler.call_handle(store, request, out) => {
                    called.map(|()| has_answered.load(Ordering::Relaxed))
                }
                never = reading => match never {},
            }
        }
        Proxy::P3(service) => {
            let view = store.data_mut().http();
            let (request, sent) = p3::Request::from_http(view.hooks, request()?);
            let answering = async |accessor: &wasmtime::component::Accessor<Guest>| {
                let Ok(response) = service.handle(accessor, request).await? else {
                    return wasmtime::Result::Ok(false);
                };
                let response = accessor.with(|store| response.into_http(store, sent))?;
                forget(response.into_body()).await;
                Ok(true)
            };
            store.run_concurrent(answering).await?
        }
    }
}

fn request() -> wasmtime::Result<http::Request<WasiBody>> {
    let body = Full::new(Bytes::from_static(b"{}")).map_err(|never| match never {});
    let request = http::Request::post("/")
        .header(http::header::HOST, "localhost")
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::CONTENT_LENGTH, 2)
        .body(body.boxed_unsync())?;
    Ok(request)
}

/// Reads a body to its end, so that its guest gets to its own.
async fn forget(mut body: WasiBody) {
    while let Some(Ok(_)) = body.frame().await {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect;
    use hearth_engine::{EngineKind, Purpose};
    use std::fs::File;
    use std::io::Write;
    use std::path::Path;

    /// What is said of a guest of `functions/testing`, in the engine that it is run by, and, where
    /// that is the one without concurrency, in the other as well; `cargo xtask test` builds them
    /// first.
    fn probed(guest: &str) -> Result<(), String> {
        let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/wasm32-wasip2");
        let module = guests.join(format!("release/{guest}.wasm"));
        let module = std::fs::read(&module).unwrap_or_else(|_| panic!("{guest} is not built"));
        let kind = inspect::engine(&module, &inspect::imports(&module).unwrap().all);
        let said = probed_in(kind, &module);
        if !kind.has_concurrency() {
            assert_eq!(probed_in(EngineKind::Concurrent, &module), said, "{guest}");
        }
        said
    }

    fn probed_in(kind: EngineKind, module: &[u8]) -> Result<(), String> {
        let compiler = hearth_engine::engine(kind, Purpose::Compile).unwrap();
        let mut artifact = tempfile::NamedTempFile::new().unwrap();
        artifact.write_all(&compiler.precompile_component(module).unwrap()).unwrap();
        let engine = hearth_engine::engine(kind, Purpose::Run).unwrap();
        let component =
            hearth_engine::load(&engine, &File::open(artifact.path()).unwrap()).unwrap();
        let linkers = hearth_host::linkers(&engine).unwrap();
        let handler = hearth_host::prepare(&linkers, &component).unwrap();
        let watchdog = Watchdog::start().unwrap();
        probe(&engine, &watchdog, &handler).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn what_answers_twice_can_be_reused() {
        for guest in ["version_one", "wstd_hello", "wasip3_hello", "prints"] {
            assert_eq!(probed(guest), Ok(()), "{guest}");
        }
    }

    #[test]
    fn what_answers_once_is_refused_with_what_went_wrong() {
        let refused = probed("answers_once").unwrap_err();
        assert!(refused.contains("the option `reuse` must be left out"), "{refused}");
        assert!(refused.contains("the second failed: wasm"), "{refused}");
    }

    #[test]
    fn what_fails_at_the_first_call_tells_nothing_of_a_second() {
        for guest in ["traps", "no_response", "loops", "answers"] {
            assert_eq!(probed(guest), Ok(()), "{guest}");
        }
    }
}
