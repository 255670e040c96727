//! What answers of the management API take of the primary's memory until they are read. A list is
//! made whole, and a client may read it as slowly as it likes on as many connections as it likes:
//! what one tenant's answers hold together has a bound, beyond which the next one is refused.
//!
//! Answers that are the program's own, or come in pieces, are not counted: they hold nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{self, Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hearth_wire::{Code, TenantName};

use super::error::Refusal;

/// What is smaller is as good as nothing.
const SMALL_BYTES: u64 = 32 << 10;
/// Of one owner at once. An answer that is larger by itself goes alone.
const MOST_BYTES: u64 = 4 << 20;

/// Whose answers are counted together, so that nobody's readers are in another's way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owner {
    Tenant(String),
    /// The admin's.
    Host,
    /// Who reads figures on this machine needs no token.
    Figures,
}

impl Owner {
    fn of(path: &str) -> Self {
        let tenant = path.strip_prefix("/api/v1/tenants/").and_then(|rest| rest.split('/').next());
        match tenant {
            Some(tenant) => Self::Tenant(tenant.to_owned()),
            None if path == "/metrics" => Self::Figures,
            None => Self::Host,
        }
    }
}

/// Says in an answer whose it is, where its address names no tenant.
#[derive(Debug, Clone)]
pub struct HeldBy(pub TenantName);

/// Bytes of each owner that has any.
#[derive(Clone, Default)]
pub struct Held(Arc<Mutex<HashMap<Owner, u64>>>);

/// An answer, as long as anybody holds some of it.
struct Answer {
    bytes: Bytes,
    held: Held,
    owner: Owner,
}

impl Held {
    fn owners(&self) -> MutexGuard<'_, HashMap<Owner, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, owner: Owner, bytes: Bytes) -> Option<Bytes> {
        let size = bytes.len() as u64;
        {
            let mut owners = self.owners();
            let held = owners.entry(owner.clone()).or_insert(0);
            if *held > 0 && *held + size > MOST_BYTES {
                return None;
            }
            *held += size;
        }
        Some(Bytes::from_owner(Answer { bytes, held: self.clone(), owner }))
    }
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut owners = self.held.owners();
        if let Some(held) = owners.get_mut(&self.owner) {
            *held -= self.bytes.len() as u64;
            if *held == 0 {
                owners.remove(&self.owner);
            }
        }
    }
}

/// Around each operation that makes its answer whole.
pub async fn bound(State(held): State<Held>, request: Request, next: Next) -> Response {
    let owner = Owner::of(request.uri().path());
    let (mut parts, body) = next.run(request).await.into_parts();
    let of_answer = parts.extensions.remove::<HeldBy>();
    let owner = of_answer.map_or(owner, |HeldBy(tenant)| Owner::Tenant(tenant.to_string()));
    if body.size_hint().exact().is_none_or(|size| size < SMALL_BYTES) {
        return Response::from_parts(parts, body);
    }
    // It is there already: this waits for nothing and copies nothing.
    let Ok(bytes) = body::to_bytes(body, usize::MAX).await else {
        return Refusal::new(Code::Internal, "the answer could not be made").into_response();
    };
    match held.take(owner, bytes) {
        Some(bytes) => Response::from_parts(parts, Body::from(bytes)),
        None => {
            let detail =
                "earlier answers to requests like this are still being read; read them first";
            Refusal::new(Code::TooManyRequests, detail).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use axum::{Extension, Router, middleware};
    use tower::ServiceExt;

    use super::*;

    /// An address that names no tenant can answer one, who reads at his own expense.
    #[tokio::test]
    async fn an_answer_says_whose_it_is() {
        let held = Held::default();
        let large = || async {
            (Extension(HeldBy("demo".parse().unwrap())), "x".repeat(SMALL_BYTES as usize))
        };
        let router = Router::new()
            .route("/api/v1/audit", get(large))
            .route_layer(middleware::from_fn_with_state(held.clone(), bound));
        let request = Request::get("/api/v1/audit").body(Body::empty()).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        assert_eq!(held.owners().keys().collect::<Vec<_>>(), [&Owner::Tenant("demo".to_owned())]);
        drop(answer);
        assert!(held.owners().is_empty());
    }

    fn bytes(size: u64) -> Bytes {
        vec![0; size as usize].into()
    }

    #[test]
    fn what_is_held_is_bounded_for_each_owner_and_given_back_with_its_last_byte() {
        let held = Held::default();
        let take = |path: &str, size| held.take(Owner::of(path), bytes(size));
        let mut first = take("/api/v1/tenants/a/logs", MOST_BYTES - 1).unwrap();
        assert!(take("/api/v1/tenants/a/calls", 2).is_none());
        for other in ["/api/v1/tenants/b/logs", "/api/v1/tenants", "/metrics"] {
            drop(take(other, MOST_BYTES + 1).unwrap_or_else(|| panic!("{other}")));
        }
        // As whoever writes it to the socket has it: in parts.
        let rest = first.split_off(10);
        drop(first);
        assert!(take("/api/v1/tenants/a/calls", 2).is_none());
        drop(rest);
        let alone = take("/api/v1/tenants/a/calls", 2 * MOST_BYTES).unwrap();
        assert!(take("/api/v1/tenants/a/calls", 1).is_none());
        drop(alone);
        assert!(held.owners().is_empty());
    }
}
