//! What the management API asks of the tenant's state, at addresses that are nobody else's. What is
//! done is [`crate::state`]'s; here it is said in HTTP, stores in [`kv`] and databases in [`sql`].

mod exchange;
mod kv;
mod sql;

use std::sync::Arc;

use hearth_connection::{Answer, Received};
use hearth_wire::{StateAddress, StateError};
use http::Request;
use http_body_util::BodyExt;

use crate::refusal::Refusal;
use crate::serving::Serving;

pub async fn answer(
    serving: &Arc<Serving>,
    address: Result<StateAddress, StateError>,
    request: Request<Received>,
) -> Result<Answer, Refusal> {
    // None of them is a call; yet the worker is not idle meanwhile.
    let counted = serving.doing.activity.begin();
    let (head, body) = request.into_parts();
    let answer = match address? {
        StateAddress::Stores => kv::stores(serving, &head).await,
        StateAddress::Store(store) => kv::store(serving, store, &head).await,
        StateAddress::Entry { store, key } => kv::entry(serving, store, key, &head, body).await,
        StateAddress::Databases => sql::databases(serving, &head).await,
        StateAddress::Database(database) => sql::execute(serving, database, &head, body).await,
        StateAddress::Import(database) => sql::import(serving, database, &head, body).await,
        StateAddress::Export(database) => sql::export(serving, database, &head).await,
    }?;
    Ok(answer.map(|body| {
        let counted_until_then = move |error| {
            let _ = &counted;
            error
        };
        body.map_err(counted_until_then).boxed_unsync()
    }))
}
