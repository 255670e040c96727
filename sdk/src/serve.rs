//! One call: the function's arguments from the request, and its answer to the caller.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasip2::http::types::{IncomingRequest, ResponseOutparam};

use crate::Error;
use crate::response::{Returned, refuse};

/// `WAITS` says that the function is asynchronous.
pub fn serve<const WAITS: bool, R, Kind>(
    request: IncomingRequest,
    out: ResponseOutparam,
    function: impl AsyncFnOnce(&IncomingRequest) -> Result<R, Error>,
) where
    R: Returned<Kind>,
{
    let call = async {
        match function(&request).await {
            Ok(returned) => returned.send::<WAITS>(out).await,
            Err(error) => refuse(out, error),
        }
    };
    // The runtime costs a fresh instance some of its first microsecond: only who waits has it.
    if WAITS { wstd::runtime::block_on(call) } else { at_once(call) }
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a plain function has nothing to wait for"),
    }
}
