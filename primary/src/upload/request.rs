//! An upload as a request at an address of its tenant, whoever brings it: the front door, a worker's
//! uplink, a port whose tenant is turned away. Who may, and what it is answered; the API has an
//! address, and errors, of its own.

use axum::body::Body;
use axum::response::Response;
use hearth_connection::guard;
use hearth_wire::uplink::UploadDir;
use hearth_wire::{Code, Problem, Scope, header};
use http::Request;
use http::header::{CONTENT_TYPE, HeaderValue};

use super::Uploads;
use crate::api::auth;
use crate::api::lease::Coming;
use crate::fault::Fault;
use crate::problem;
use crate::refusal::{refuse, request_id};
use crate::store::{Store, Tenant};

#[derive(Clone)]
pub struct UploadRequests {
    pub store: Store,
    pub uploads: Uploads,
}

impl UploadRequests {
    pub async fn answer(
        &self,
        tenant: &Tenant,
        dir: UploadDir,
        request: Request<Body>,
    ) -> Response {
        let id = request_id(request.headers());
        let dir = match dir {
            Ok(dir) => dir,
            Err(problem) => return refuse(problem, None, &id),
        };
        let authenticated = auth::authenticate(&self.store, request.headers(), id.clone()).await;
        let (caller, mut lease) = match authenticated {
            // An admin's token is never taken at a tenant's address.
            Ok((caller, lease))
                if caller.tenant == Some(tenant.id) && caller.scope.covers(Scope::Deploy) =>
            {
                (caller, lease)
            }
            Ok(_) => {
                let detail = "this token may not deploy here; it takes one of this tenant with the scope deploy";
                return refuse(Problem::new(Code::Forbidden, detail), None, &id);
            }
            Err(problem) => return refuse(problem, None, &id),
        };
        let (parts, body) = request.into_parts();
        let (body, coming) = Coming::of(body);
        let received = self.uploads.receive(tenant, dir, &parts.headers, body, &caller.author);
        let received = match lease.over(&coming, received).await {
            Ok(received) => received,
            Err(ended) => return refuse(ended.problem(), None, &id),
        };
        match received {
            Ok(uploaded) => {
                let body = serde_json::to_vec(&uploaded).expect("it is plain data");
                let mut response = Response::new(Body::from(body));
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                guard(headers);
                let id = HeaderValue::from_str(id.as_str()).expect("it is visible ASCII");
                headers.insert(header::REQUEST_ID, id);
                response
            }
            Err(error) => {
                // Logged where it was carried out.
                refuse(problem::of(&error), error.verdict().retry_after, &id)
            }
        }
    }
}
