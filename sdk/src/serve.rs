//! One call: the function's arguments from the request, and its answer to the caller.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasip2::http::types::{IncomingRequest, ResponseOutparam};

use crate::Error;
use crate::response::{Returned, refuse};

/// `WAITS` says that the function is asynchronous.
pub fn serve<const WAITS: bool, R, Shape>(
    request: IncomingRequest,
    out: ResponseOutparam,
    function: impl AsyncFnOnce(&IncomingRequest) -> Result<R, Error>,
) where
    R: Returned<Shape>,
{
    let call = async {
        match function(&request).await {
            Ok(returned) => returned.send(out).await,
            Err(error) => refuse(out, error),
        }
    };
    // The runtime costs more than a small function does, so only who waits has it.
    if WAITS || R::STREAMS { wstd::runtime::block_on(call) } else { at_once(call) }
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a plain function has nothing to wait for"),
    }
}
