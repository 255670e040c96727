//! `wasi:http`, but for the handler, which a function exports: requests and answers, and the
//! requests that a function makes itself.

use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::Guest;

/// What a function can have written of its answer before anybody has taken anything of it: as much
/// as may leave in one piece, in the pieces of 4 KiB in which libraries write, and no more than
/// 320 KiB in the largest there are.
const WRITTEN_AHEAD: usize = 4;
const PIECE_MAX_BYTES: usize = 64 << 10;

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

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        WRITTEN_AHEAD
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        PIECE_MAX_BYTES
    }
}
