//! The one way into a tenant's worker for a call that the host itself sends there: what admits it,
//! a worker that is woken for it, a link of its origin.
//!
//! ```text
//!  connections that the front door keeps ─► gateway ──────────── send ─┐
//!  the API's invoke; triggers and functions to come ─► invoke ── send ─┴─► link ─► worker
//! ```
//!
//! What no connection brought goes through [`Calls::invoke`], which alone says who or what calls:
//! no header of the request's own does. A request that no worker has seen is offered to the next
//! one; one that a worker may have seen is not. Whether the function is for this caller is decided
//! in the worker, by the origin that the link proves.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use hearth_connection::{Pacing, caller};
use hearth_wire::{Code, Origin, RequestId, Scope, TenantName, Usage, header};
use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Uri, Version};
use tokio_util::sync::CancellationToken;
use tracing::error_span;

use crate::fault::{Fault, Logged, Verdict};
use crate::fleet::{CallError, Cause, Fleet, LinkError, Unavailable, Unbound};
use crate::gateway::proxy;
use crate::patience::within;
use crate::problem;
use crate::refusal::request_id;

/// How long a call waits for a worker.
const WAKE_DEADLINE: Duration = Duration::from_secs(30);
/// Between two offers of a request to workers that were just leaving.
const AGAIN: Duration = Duration::from_millis(10);
const OFFERS_MAX: u32 = 50;
/// What a worker says of itself: three numbers.
const USAGE_MAX_BYTES: usize = 1 << 10;
const USAGE_DEADLINE: Duration = Duration::from_secs(2);
/// The host that a function sees which nobody called by a name.
const NAMELESS: &str = "localhost";
/// When to come again where calls have ended, or a worker has been started, by then.
const SOON: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("there is no tenant {0}")]
    NoTenant(TenantName),
    /// As those are told who may know it.
    #[error(
        "this tenant is not served for now: {unbound}; {}, then `hearth worker start --tenant {tenant}`",
        unbound.remedy()
    )]
    Unbound { tenant: TenantName, unbound: Unbound, retry_after: Duration },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the worker was not ready in time")]
    Late,
}

/// What of a worker is asked for: any that is started answers for the state.
#[derive(Debug, Clone, Copy)]
enum Reach {
    Functions,
    State,
}

/// Calls on their way to workers.
#[derive(Clone)]
pub struct Calls {
    fleet: Fleet,
    stop: CancellationToken,
}

/// A call that no connection brought.
pub struct Call<'a> {
    pub tenant: &'a TenantName,
    pub origin: Origin,
    /// Who or what calls: a token, a trigger or a function, by its name.
    pub by: &'a str,
    /// That of the token, where it is one.
    pub scope: Option<Scope>,
    /// To the function's own path. Of its headers those are passed on that are not the platform's
    /// to set.
    pub request: Request<Body>,
}

impl Call<'_> {
    /// The request as the worker is to have it.
    fn prepared(self) -> Request<Body> {
        let Self { tenant: _, origin, by, scope, mut request } = self;
        proxy::call_headers(request.headers_mut());
        caller::tell(request.headers_mut(), origin, by, scope);
        proxy::to_worker(&mut request, NAMELESS);
        request
    }
}

impl Calls {
    /// None is sent any more once `stop` is cancelled.
    pub fn new(fleet: Fleet, stop: CancellationToken) -> Self {
        Self { fleet, stop }
    }

    /// Calls a function for whoever the host vouches for.
    pub async fn invoke(&self, call: Call<'_>) -> Response {
        let (tenant, origin) = (call.tenant, call.origin);
        self.send(tenant, origin, call.prepared()).await
    }

    /// Sends a call to its tenant's worker, or says why there is none for it. Its headers are as
    /// the worker is to have them.
    pub async fn send(
        &self,
        tenant: &TenantName,
        origin: Origin,
        request: Request<Body>,
    ) -> Response {
        self.deliver(tenant, origin, Reach::Functions, request).await
    }

    async fn deliver(
        &self,
        tenant: &TenantName,
        origin: Origin,
        reach: Reach,
        mut request: Request<Body>,
    ) -> Response {
        let id = name_request(request.headers_mut());
        if self.stop.is_cancelled() {
            return problem::answer(&Unavailable::stopping(), &id);
        }
        match self.offer(tenant, origin, reach, request).await {
            Ok(mut response) => {
                *response.version_mut() = Version::HTTP_11;
                proxy::response_headers(response.headers_mut());
                response
            }
            Err(error) => {
                let span = error_span!("call", %tenant, request_id = %id);
                span.in_scope(|| problem::answer(&error, &id))
            }
        }
    }

    /// Asks the tenant's worker for something of its state, for whoever the API has let. Its headers
    /// are as the worker is to have them.
    pub async fn state(&self, tenant: &TenantName, mut request: Request<Body>) -> Response {
        proxy::to_worker(&mut request, NAMELESS);
        self.deliver(tenant, Origin::Api, Reach::State, request).await
    }

    /// What the tenant's worker has of its limits now: nothing where it is asleep, or too busy
    /// to say.
    pub async fn usage(&self, tenant: &TenantName) -> Usage {
        let Some(links) = self.fleet.links_awake(tenant) else { return Usage::default() };
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static(Usage::PATH);
        request.headers_mut().insert(HOST, HeaderValue::from_static(NAMELESS));
        let asked = async {
            let answer = links.call(Origin::Api, request).await.ok()?;
            let answer = axum::body::to_bytes(answer.into_body(), USAGE_MAX_BYTES).await.ok()?;
            serde_json::from_slice(&answer).ok()
        };
        tokio::time::timeout(USAGE_DEADLINE, asked).await.ok().flatten().unwrap_or_default()
    }

    async fn offer(
        &self,
        tenant: &TenantName,
        origin: Origin,
        reach: Reach,
        mut request: Request<Body>,
    ) -> Result<Response, SendError> {
        if let Some(pacing) = request.extensions_mut().remove::<Pacing>() {
            pacing.leave_to_next_hop();
        }
        let mut offers = 0;
        loop {
            let links = async {
                match reach {
                    Reach::Functions => self.fleet.links(tenant).await,
                    Reach::State => self.fleet.links_for_state(tenant).await,
                }
            };
            let links = within(WAKE_DEADLINE, links);
            let links = match links.await.map_err(|_| SendError::Late)? {
                Ok(links) => links,
                Err(CallError::NoTenant) => return Err(SendError::NoTenant(tenant.clone())),
                Err(CallError::Unavailable(Unavailable {
                    retry_after,
                    cause: Cause::Unbound(unbound),
                    ..
                })) if origin.may_know_why() => {
                    let tenant = tenant.clone();
                    return Err(SendError::Unbound { tenant, unbound, retry_after });
                }
                Err(CallError::Unavailable(unavailable)) => return Err(unavailable.into()),
            };
            match links.call(origin, request).await {
                Ok(response) => return Ok(response.map(Body::new)),
                Err(LinkError::Closed(unsent)) if offers < OFFERS_MAX => request = *unsent,
                Err(error) => return Err(error.into()),
            }
            offers += 1;
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Makes sure that a request has an id before it is passed on.
fn name_request(headers: &mut HeaderMap) -> RequestId {
    let id = request_id(headers);
    let value = HeaderValue::from_str(id.as_str()).expect("it is visible ASCII");
    headers.insert(HeaderName::from_static(header::REQUEST_ID), value);
    id
}

/// Of the host a caller hears what concerns a caller.
impl Fault for SendError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::NoTenant(_) => Verdict::caller(Code::NotFound, self),
            Self::Unbound { retry_after, .. } => Verdict::host(Code::WorkerUnavailable, self)
                .again_after(*retry_after)
                .logged(Logged::No),
            Self::Unavailable(unavailable) => unavailable.verdict(),
            Self::Link(LinkError::Busy) => {
                let told = "the tenant has as many calls running and waiting as it may";
                Verdict::limit(Code::TooManyRequests, told).again_after(SOON)
            }
            Self::Link(LinkError::Lost(_) | LinkError::Closed(_) | LinkError::Io(_))
            | Self::Late => {
                let told = "the worker ended before it answered; whether the call ran is not known";
                Verdict::function(Code::WorkerUnavailable, told)
                    .again_after(SOON)
                    .logged(Logged::Warning)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    /// All that somebody could try, and what is theirs to say.
    fn request() -> Request<Body> {
        let mut request = Request::post("/jobs/nightly?a=1").body(Body::empty()).unwrap();
        for (name, value) in [
            ("accept", "text/plain"),
            ("accept-language", "de"),
            ("ce-id", "7"),
            ("ce-type", "forged"),
            ("content-type", "application/json"),
            ("if-none-match", "\"x\""),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("x-mine", "one"),
            ("x-mine", "two"),
            ("x-request-id", "r-1"),
            ("x-hearth-caller", "forged"),
            ("x-hearth-scope", "owner"),
            ("x-hearth-trigger", "forged"),
            ("x-hearth-trigger", "again"),
            ("x_hearth_trigger", "forged"),
            ("x-hearth-origin", "trigger"),
            ("authorization", "Bearer hearth_somebodys"),
            ("authorization", "Bearer other"),
            ("connection", "keep-alive, x-internal, x-hearth-scope"),
            ("x-internal", "1"),
            ("keep-alive", "timeout=5"),
            ("cookie", "session=1"),
            ("forwarded", "for=1.2.3.4"),
            ("host", "hearth.example.org"),
            ("origin", "https://hearth.example.org"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x_forwarded_proto", "https"),
            ("x-real-ip", "1.2.3.4"),
        ] {
            request.headers_mut().append(name, value.parse().unwrap());
        }
        request
    }

    #[test]
    fn a_call_has_all_its_headers_but_those_that_are_the_platforms() {
        let acme: TenantName = "acme".parse().unwrap();
        let own = [
            "accept-language: de",
            "accept: text/plain",
            "ce-id: 7",
            "ce-type: forged",
            "content-type: application/json",
            "host: localhost",
            "if-none-match: \"x\"",
            "te: trailers",
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ];
        let after = ["x-mine: one", "x-mine: two", "x-request-id: r-1"];
        for (origin, scope, told) in [
            (
                Origin::Api,
                Some(Scope::Invoke),
                &["x-hearth-caller: me", "x-hearth-scope: invoke"][..],
            ),
            (Origin::Trigger, None, &["x-hearth-trigger: me"]),
            (Origin::Internal, None, &["x-hearth-caller: me"]),
        ] {
            let call = Call { tenant: &acme, origin, by: "me", scope, request: request() };
            let prepared = call.prepared();
            assert_eq!(prepared.method(), Method::POST);
            assert_eq!(prepared.uri(), "/jobs/nightly?a=1");
            let text = |(name, value): (&HeaderName, &HeaderValue)| {
                format!("{name}: {}", value.to_str().unwrap())
            };
            let mut found: Vec<_> = prepared.headers().iter().map(text).collect();
            found.sort_unstable();
            assert_eq!(found, [&own[..], told, &after[..]].concat(), "{origin:?}");
            // The worker takes the host at its word, and finds nothing more to take off.
            let mut believed = prepared.headers().clone();
            caller::withhold(&mut believed, origin);
            assert_eq!(&believed, prepared.headers(), "{origin:?}");
        }
    }

    #[test]
    fn whoever_is_turned_away_is_told_when_to_come_again() {
        let acme: TenantName = "acme".parse().unwrap();
        let id = RequestId::from_random([0; 16]);
        let unavailable = Unavailable {
            retry_after: Duration::from_millis(1_200),
            cause: Cause::Ended,
            reason: "it is its owner's".to_owned(),
        };
        for (error, status, after) in [
            (SendError::NoTenant(acme), 404, None),
            (SendError::Unavailable(unavailable), 503, Some("2")),
            (SendError::Link(LinkError::Busy), 429, Some("1")),
            (SendError::Late, 503, Some("1")),
        ] {
            let response = problem::answer(&error, &id);
            assert_eq!(response.status(), status);
            let told = response.headers().get("retry-after");
            assert_eq!(told.map(|told| told.to_str().unwrap()), after, "{status}");
        }
    }
}
