//! `wasi:http`, but for the handler, which a function exports: requests and answers, and the
//! requests that a function makes itself.

use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::Guest;

/// What an instance has for it: bounds of its fields, and who sends what it asks for.
pub(crate) struct Sender {
    bounds: WasiHttpCtx,
    hooks: Box<dyn WasiHttpHooks>,
}

impl Sender {
    pub(crate) fn new(hooks: Box<dyn WasiHttpHooks>) -> Self {
        Self { bounds: WasiHttpCtx::new(), hooks }
    }
}

pub(crate) fn view(guest: &mut Guest) -> WasiHttpCtxView<'_> {
    let Sender { bounds, hooks } = &mut guest.http;
    WasiHttpCtxView { ctx: bounds, table: &mut guest.table, hooks: hooks.as_mut() }
}

/// For who calls a handler: the same view, as the engine's own helpers ask for it.
impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        view(self)
    }
}

/// Answers every request that a function makes with `HTTP-request-denied`.
pub(crate) struct Denied;

type Sending = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Answer = Result<(http::Response<WasiBody>, Sending), Error>;

impl WasiHttpHooks for Denied {
    fn send_request(
        &mut self,
        _: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Sending,
    ) -> Box<dyn Future<Output = Answer> + Send> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }
}
