//! One call: a guest that runs at once, and goes on in a task of its own if it has not ended then;
//! its head handed out as soon as it is made, and the one place that says how a call ended.
//!
//! ```text
//! call() ── poll, spawn ──► run(): instance, guest ── head ──► call() ──► ResponseBody
//!    │                        │ ends by itself, its deadline, or because its caller went
//!    └── Ledger ◄─────────────┘ the call's record, told when nothing of the call is left
//! ```
//!
//! Who may call what is decided before this, and what a failure is answered with after it, in
//! [`crate::serve`]. What is known of it is in [`crate::ledger`]; instances are made and kept in [`crate::instance`].

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hearth_connection::{end_hop, has_content};
use hearth_engine::reason;
use hearth_host::{Guest, Unavailable};
use hearth_wire::{LogStream, Outcome};
use http::header::HOST;
use http::uri::{self, Authority};
use http::{Request, Response};
use http_body_util::BodyExt;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::handler::Proxy;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{WasiBody, WasiHttpView, p3};

use crate::finish::Time;
use crate::host::http::ResponseBody;
use crate::instance::{Instance, Instances};
use crate::ledger::{Abandon, Failure, Ledger};
use crate::limits::Permit;
use crate::meeting::Head;
use crate::serving::Serving;

/// Of an answer's head. With what the platform adds it is what the gateway takes.
const FIELDS_MAX: usize = 90;
/// How long a head waits for what comes behind it. A function that fails right after it is told as
/// what it is then, as long as nothing was sent; and nobody notices that a stream begins so much
/// later.
const HEAD_HELD: Duration = Duration::from_millis(20);
/// What is said of a call in its log.
const STOPPED: &str = "the function was stopped: its worker was replaced or told to stop, and had \
                       no more time for it";

/// Calls a function.
pub async fn call(
    serving: &Arc<Serving>,
    function: usize,
    request: Request<WasiBody>,
    permit: Permit,
    ledger: Arc<Ledger>,
) -> Result<Response<ResponseBody>, Failure> {
    let method = request.method().clone();
    let mut abandon = Abandon::armed(Arc::clone(&ledger));
    serving.doing.calls.begin();
    let ending = Ending { serving: Arc::clone(serving), ledger };
    // Most end at their first poll, and need no task. In a box, since a task is moved several times
    // before it is where it stays.
    let mut running = Box::pin(run(ending, function, request, permit));
    if poll_fn(|cx| Poll::Ready(running.as_mut().poll(cx))).await.is_pending() {
        tokio::spawn(running);
    }

    let response = match poll_fn(|cx| abandon.ledger().poll_head(cx)).await? {
        Head::Response(response) => response,
        Head::Refused(said) => {
            abandon.ledger().end(Outcome::NoResponse);
            return Err(Failure::NoResponse(Some(said)));
        }
    };
    let (mut head, mut body) = response.into_parts();
    end_hop(&mut head.headers);
    let status = head.status;
    if status.is_informational() {
        // Not sent on: it would say that the answer is still to come.
        abandon.ledger().end(Outcome::NoResponse);
        return Err(Failure::NoResponse(Some(format!("the status {}", status.as_u16()))));
    }
    if head.headers.len() > FIELDS_MAX {
        abandon.ledger().end(Outcome::NoResponse);
        let said = format!("an answer with more than {FIELDS_MAX} header fields");
        return Err(Failure::NoResponse(Some(said)));
    }
    if !has_content(&method, status) {
        // Nobody reads this body, and a guest must not fail for that.
        while let Some(Ok(_)) = body.frame().await {}
        if abandon.ledger().has_failed() {
            return Err(abandon.ledger().failure());
        }
        abandon.disarm();
        return Ok(Response::from_parts(head, ResponseBody::none(abandon)));
    }
    let length = head.headers.get(http::header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let body = ResponseBody::begun(body, length, abandon, tokio::time::sleep(HEAD_HELD)).await?;
    Ok(Response::from_parts(head, body))
}

/// Held by the guest's task to its very end.
struct Ending {
    serving: Arc<Serving>,
    ledger: Arc<Ledger>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.ledger.guest_ended();
        self.serving.doing.calls.end();
    }
}

/// How the guest's task came to its end.
enum End {
    Returned,
    Failed(wasmtime::Error),
    Late,
    /// The worker's time is up.
    Stopped,
    Abandoned,
}

async fn run(ending: Ending, function: usize, request: Request<WasiBody>, permit: Permit) {
    let Ending { serving, ledger } = &ending;
    let options = &serving.generation.manifest.functions[function].options;
    let deadline = Instant::now() + Duration::from_millis(options.timeout_ms.into());

    let instances = &serving.doing.instances;
    let _ticking = serving.doing.ticker.run();
    let mut instance = Instance::take(instances, function, &ledger.log);
    let end = {
        let mut guest = pin!(drive(&mut instance, instances, request, ledger));
        let mut given_up = pin!(given_up(serving, ledger, deadline));
        let mut has_begun = false;
        poll_fn(|cx| {
            let goes_on = std::mem::replace(&mut has_begun, true);
            // One that ends at once costs no timer, since nothing else was looked at.
            if !goes_on && let Poll::Ready(returned) = guest.as_mut().poll(cx) {
                return Poll::Ready(End::of(returned));
            }
            // Later that comes first: a guest without end would have its slice of time before.
            match given_up.as_mut().poll(cx) {
                Poll::Ready(end) => Poll::Ready(end),
                Poll::Pending if goes_on => guest.as_mut().poll(cx).map(End::of),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    };
    // However it ended then, that was for want of a caller.
    let end = if ledger.is_abandoned() { End::Abandoned } else { end };
    let has_returned = matches!(end, End::Returned);
    let head_made = ledger.head_was_made();
    if let End::Failed(error) = &end
        && let Some(Unavailable { interface, .. }) = error.downcast_ref()
    {
        ledger.lacks(interface);
    }
    let (outcome, reason) = judge(end, head_made, instance.memory_was_reached());
    // Before the instance, whose end ends the answer's body as well.
    ledger.end(outcome);
    // And the instance before the reason, since the guest's last words may be in it.
    match outcome {
        Outcome::Answered if has_returned => instance.give_back(instances),
        _ => instance.end(instances),
    }
    if let Some(reason) = reason {
        ledger.log.line(LogStream::Host, reason);
    }
    drop(permit);
}

impl End {
    fn of(returned: wasmtime::Result<()>) -> Self {
        match returned {
            Ok(()) => Self::Returned,
            Err(error) => Self::Failed(error),
        }
    }
}

/// Why a guest is not let go on.
async fn given_up(serving: &Serving, ledger: &Ledger, deadline: Instant) -> End {
    let _aim = serving.doing.ticker.aim(deadline);
    tokio::select! {
        biased;
        // Before the next one, since whoever waits for the answer goes then as well.
        () = serving.doing.finish.comes(Time::Up) => End::Stopped,
        () = poll_fn(|cx| ledger.poll_abandoned(cx)) => End::Abandoned,
        () = until(deadline) => End::Late,
    }
}

/// As the clock itself says, besides the runtime's: behind a guest's slice of time that one was not
/// looked at.
async fn until(deadline: Instant) {
    let mut timer = pin!(tokio::time::sleep_until(deadline.into()));
    poll_fn(|cx| match Instant::now() < deadline {
        true => timer.as_mut().poll(cx),
        false => Poll::Ready(()),
    })
    .await;
}

/// How the call ended, and what is said of it in its log.
fn judge(end: End, head_made: bool, memory_was_reached: bool) -> (Outcome, Option<String>) {
    match end {
        End::Returned if head_made => (Outcome::Answered, None),
        End::Returned => {
            (Outcome::NoResponse, Some("the function returned without a response".to_owned()))
        }
        End::Late => {
            (Outcome::Timeout, Some("the function was stopped: its time was up".to_owned()))
        }
        End::Stopped => (Outcome::Stopped, Some(STOPPED.to_owned())),
        End::Abandoned => (Outcome::Abandoned, None),
        End::Failed(error) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(0)) if head_made => (Outcome::Answered, None),
            Some(I32Exit(status)) => {
                (Outcome::Trapped, Some(format!("the function ended itself with status {status}")))
            }
            None if memory_was_reached => {
                let said =
                    format!("the function needed more memory than it may have: {}", reason(&error));
                (Outcome::MemoryLimit, Some(said))
            }
            None => (Outcome::Trapped, Some(format!("the function failed: {}", reason(&error)))),
        },
    }
}

async fn drive(
    instance: &mut Instance,
    instances: &Instances,
    request: Request<WasiBody>,
    ledger: &Arc<Ledger>,
) -> wasmtime::Result<()> {
    let (store, proxy) = instance.ready(instances, &ledger.log).await?;
    match proxy {
        Proxy::P2(proxy) => {
            let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
            let noted = Arc::clone(ledger);
            let out = store.data_mut().http().new_response_outparam_from_callback(move |said| {
                noted.give(match said {
                    Ok(response) => Head::Response(response),
                    Err(code) => Head::Refused(noted.log.reporter.clean(code.to_string())),
                });
            })?;
            ledger.guest_began();
            proxy.wasi_http_incoming_handler().call_handle(store, request, out).await
        }
        Proxy::P3(service) => {
            let view = store.data_mut().http();
            let host = request.headers().get(HOST);
            let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
            let (mut request, sent) = p3::Request::from_http(view.hooks, request);
            // As 0.2 has them, where a request's line has a path alone. Guests make an address of
            // the two, which has both or none.
            if let Some(authority) = authority {
                request.scheme = Some(uri::Scheme::HTTP);
                request.authority = Some(authority);
            }
            ledger.guest_began();
            let answered = async |accessor: &wasmtime::component::Accessor<Guest>| {
                let said = match service.handle(accessor, request).await? {
                    Ok(response) => {
                        Head::Response(accessor.with(|store| response.into_http(store, sent))?)
                    }
                    Err(code) => Head::Refused(ledger.log.reporter.clean(code.to_string())),
                };
                ledger.give(said);
                // The guest goes on writing its body, in tasks of its own.
                poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                wasmtime::Result::Ok(())
            };
            store.run_concurrent(answered).await?
        }
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::Trap;

    use super::*;

    #[test]
    fn how_a_call_ended() {
        let trap = || End::Failed(Trap::UnreachableCodeReached.into());
        let exit = |status| End::Failed(I32Exit(status).into());
        let lacking = || {
            let (interface, function) = ("spin:redis/redis@3.0.0".to_owned(), "open".to_owned());
            End::Failed(Unavailable { interface, function }.into())
        };
        for (end, head_made, memory, outcome, said) in [
            (End::Returned, true, false, Outcome::Answered, None),
            (End::Returned, true, true, Outcome::Answered, None),
            (End::Returned, false, false, Outcome::NoResponse, Some("without a response")),
            (End::Late, true, false, Outcome::Timeout, Some("time was up")),
            (End::Late, false, true, Outcome::Timeout, Some("time was up")),
            (End::Stopped, true, false, Outcome::Stopped, Some("no more time")),
            (End::Stopped, false, true, Outcome::Stopped, Some("no more time")),
            (End::Abandoned, true, false, Outcome::Abandoned, None),
            (trap(), false, false, Outcome::Trapped, Some("unreachable")),
            (trap(), true, false, Outcome::Trapped, Some("unreachable")),
            (trap(), false, true, Outcome::MemoryLimit, Some("more memory")),
            (exit(0), true, false, Outcome::Answered, None),
            (exit(0), false, false, Outcome::Trapped, Some("status 0")),
            (exit(7), true, false, Outcome::Trapped, Some("status 7")),
            (lacking(), false, false, Outcome::Trapped, Some("`open` of `spin:redis/redis@3.0.0`")),
        ] {
            let (was, reason) = judge(end, head_made, memory);
            assert_eq!(was, outcome);
            match (said, &reason) {
                (None, None) => {}
                (Some(said), Some(reason)) => assert!(reason.contains(said), "{reason}"),
                _ => panic!("{reason:?}"),
            }
        }
    }
}
