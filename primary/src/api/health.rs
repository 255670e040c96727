//! The host's own state: for load balancers, for Prometheus.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::{ConnectInfo, FromRef, FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use hearth_wire::Code;
use http::header::{CONTENT_TYPE, FORWARDED, HOST, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::auth::Admin;
use super::error::Refusal;
use crate::fleet::Fleet;
use crate::generations::Generations;
use crate::store::Store;
use crate::telemetry::Telemetry;

/// Whether the host is going down.
#[derive(Clone)]
pub struct Stopping(pub CancellationToken);

/// What a store that works never takes, and less than whoever asks is used to wait.
const STORE_DEADLINE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    pub version: String,
}

impl Health {
    fn ok() -> Json<Self> {
        Json(Self { status: "ok".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
    }
}

/// Whether the host runs
#[utoipa::path(
    get, path = "/healthz", operation_id = "healthz", tag = "host", security(()),
    responses((status = 200, description = "It does", body = Health)),
)]
pub async fn healthz() -> Json<Health> {
    Health::ok()
}

/// Whether the host takes requests
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "host", security(()),
    responses(
        (status = 200, description = "It does", body = Health),
        (status = 503, description = "It is going down, or its store does not answer", body = super::openapi::ProblemSchema, content_type = "application/problem+json"),
    ),
)]
pub async fn readyz(
    State(Stopping(stopping)): State<Stopping>,
    State(store): State<Store>,
) -> Result<Json<Health>, Refusal> {
    if stopping.is_cancelled() {
        return Err(Refusal::new(Code::WorkerUnavailable, "the host is going down"));
    }
    let asked = tokio::time::timeout(STORE_DEADLINE, store.has_admin_token());
    match asked.await {
        Ok(Ok(_)) => Ok(Health::ok()),
        Ok(Err(_)) | Err(_) => {
            Err(Refusal::new(Code::WorkerUnavailable, "the host's store does not answer"))
        }
    }
}

/// The host's figures, for Prometheus
///
/// For an admin's token, and without one for whoever asks from this machine directly.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "host",
    security((), ("bearer" = [])),
    responses(
        (status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain; version=0.0.4"),
        (status = 401, description = "From elsewhere an admin's token is needed", body = super::openapi::ProblemSchema, content_type = "application/problem+json"),
    ),
)]
pub async fn metrics(
    _scraper: Scraper,
    State(telemetry): State<Telemetry>,
    State(fleet): State<Fleet>,
    State(generations): State<Generations>,
) -> Response {
    fleet.gauge();
    generations.gauge();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry.render()).into_response()
}

/// Whoever may read the figures.
pub struct Scraper;

impl<S: Sync> FromRequestParts<S> for Scraper
where
    Store: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
        if is_local(peer, &parts.headers) {
            return Ok(Self);
        }
        Admin::from_request_parts(parts, state).await.map(|_| Self)
    }
}

const FORWARDING: [HeaderName; 5] = [
    FORWARDED,
    VIA,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-real-ip"),
];

/// Asked from this machine, through no proxy. The host name is looked at since a page from
/// elsewhere can have a browser on this machine ask in its own name (DNS rebinding).
fn is_local(peer: Option<SocketAddr>, headers: &HeaderMap) -> bool {
    let local_name = headers.get(HOST).and_then(|host| host.to_str().ok()).is_some_and(|host| {
        let name = host.rsplit_once(':').map_or(host, |(name, port)| {
            if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host }
        });
        let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        name == "localhost" || address.is_ok_and(|address| address.is_loopback())
    });
    peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
        && local_name
        && FORWARDING.iter().all(|name| !headers.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_local() {
        let local = Some("127.0.0.1:9".parse().unwrap());
        let mapped = Some("[::ffff:127.0.0.1]:9".parse().unwrap());
        let far = Some("192.0.2.1:9".parse().unwrap());
        for (peer, host, proxied, expected) in [
            (local, "127.0.0.1:3400", false, true),
            (local, "localhost", false, true),
            (local, "[::1]:3400", false, true),
            (mapped, "localhost:3400", false, true),
            (local, "localhost:3400", true, false),
            (local, "hearth.example:3400", false, false),
            (local, "localhost.example", false, false),
            (far, "localhost:3400", false, false),
            (None, "localhost:3400", false, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            if proxied {
                headers.insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
            }
            assert_eq!(is_local(peer, &headers), expected, "{peer:?} {host} {proxied}");
        }
    }

    #[test]
    fn a_call_without_a_host_is_not_local() {
        assert!(!is_local(Some("127.0.0.1:9".parse().unwrap()), &HeaderMap::new()));
    }

    #[test]
    fn every_way_of_forwarding_counts() {
        for name in FORWARDING {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "localhost".parse().unwrap());
            headers.insert(name.clone(), "x".parse().unwrap());
            assert!(!is_local(Some("127.0.0.1:9".parse().unwrap()), &headers), "{name}");
        }
    }
}
