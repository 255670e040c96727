//! Keeps what it hears by key: a counter, and a value that is JSON and gone after a while.
//!
//! `curl -d '{"visitor":"Ada","page":"/"}' http://127.0.0.1:3411/kv`

use std::time::Duration;

use hearth_sdk::{Error, function, kv};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
struct Visit {
    visitor: String,
    page: String,
}

#[derive(Serialize, JsonSchema)]
struct Seen {
    /// How often this visitor came, this time as well.
    visits: i64,
    /// The page before, if that was within the last half an hour.
    before: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Session {
    page: String,
}

const SESSION: Duration = Duration::from_secs(30 * 60);

/// Counts the visits of each visitor, and remembers the last page for half an hour.
#[function]
fn kv(visit: Visit) -> Result<Seen, Error> {
    let store = kv::Store::open("visits")?;
    let visits = store.increment(&format!("count/{}", visit.visitor), 1)?;
    let key = format!("session/{}", visit.visitor);
    let before: Option<Session> = store.get_json(&key)?;
    let session = serde_json::to_vec(&Session { page: visit.page })?;
    store.set_expiring(&key, session, SESSION)?;
    Ok(Seen { visits, before: before.map(|session| session.page) })
}
