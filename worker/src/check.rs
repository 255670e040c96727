//! Requests and answers against a function's schemas, and what a violation comes to. What a schema
//! means is `hearth-schema`'s; how a body is held for it, [`crate::held`]'s.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_schema::{Checks, Extent};
use hearth_wire::{Answers, Code, Problem, Violation};
use http::{HeaderMap, Method};
use tokio::sync::Notify;

use crate::held::Places;
use crate::refusal::Refusal;

/// Checked beside the other calls' work and not before it.
const LONG_BYTES: usize = 256 << 10;
/// Of a check beside the others. Nothing can stop it but the worker's end.
const DEADLINE: Duration = Duration::from_secs(10);
/// Of them at once.
pub const THREADS: usize = 4;

/// The room for bodies that are being checked, each way.
pub struct Room {
    requests: Places,
    answers: Places,
    stuck: Notify,
}

impl Room {
    pub fn new() -> Self {
        Self { requests: Places::new(), answers: Places::new(), stuck: Notify::new() }
    }

    /// Resolves when a check has not come to its end in time: a schema that leads back to itself
    /// and a value that was made for it can take for ever.
    pub async fn stuck(&self) {
        self.stuck.notified().await;
    }

    pub fn requests(&self) -> &Places {
        &self.requests
    }

    pub fn answers(&self) -> &Places {
        &self.answers
    }
}

/// A request's body. Where a method has none as a rule, none is fine.
pub async fn request(
    room: &Room,
    checks: &Arc<Checks>,
    method: &Method,
    body: &Bytes,
) -> Result<(), Refusal> {
    let rare = !matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    if rare && body.is_empty() {
        return Ok(());
    }
    match beside(room, checks, body, |checks, body| checks.body(body)).await {
        Ok(found) => found.map_err(|errors| violation("body", errors)),
        Err(Stuck) => {
            let detail = format!(
                "the body could not be checked against its schema within {} s",
                DEADLINE.as_secs()
            );
            Err(Refusal::new(Code::Timeout, detail))
        }
    }
}

pub fn head(checks: &Checks, query: Option<&str>, headers: &HeaderMap) -> Result<(), Refusal> {
    checks.head(query, headers).map_err(|errors| violation("query or headers", errors))
}

fn violation(of: &str, errors: Vec<Violation>) -> Refusal {
    let first = errors.first().map(|first| format!(": at {:?}: {}", first.pointer, first.message));
    let detail =
        format!("the request's {of} is not what this function takes{}", first.unwrap_or_default());
    Problem { errors, ..Problem::new(Code::SchemaViolation, detail) }.into()
}

/// An answer's body. What is wrong is for the function's log.
pub async fn answer(
    room: &Room,
    checks: &Arc<Checks>,
    answers: Answers,
    body: &Bytes,
) -> Result<(), String> {
    let schema = String::from(answers);
    match beside(room, checks, body, move |checks, body| checks.response(answers, body)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err((pointer, message))) => {
            Err(format!("the answer breaks `schema.response.{schema}` at {pointer:?}: {message}"))
        }
        Err(Stuck) => Err(format!(
            "the answer could not be checked against `schema.response.{schema}` within {} s",
            DEADLINE.as_secs()
        )),
    }
}

struct Stuck;

/// A check that may be long is not done on the thread that serves everybody.
async fn beside<T: Send + 'static>(
    room: &Room,
    checks: &Arc<Checks>,
    body: &Bytes,
    check: impl FnOnce(&Checks, &[u8]) -> T + Send + 'static,
) -> Result<T, Stuck> {
    if body.len() < LONG_BYTES && checks.extent() == Extent::Plain {
        return Ok(check(checks, body));
    }
    let (checks, body) = (Arc::clone(checks), body.clone());
    let checking = tokio::task::spawn_blocking(move || check(&checks, &body));
    match tokio::time::timeout(DEADLINE, checking).await {
        Ok(checked) => Ok(checked.expect("a check does not panic, and the runtime outlives it")),
        Err(_) => {
            room.stuck.notify_one();
            Err(Stuck)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn a_method_without_a_body_may_have_none() {
        block_on(async {
            let schemas = serde_json::json!({"body": {"type": "object"}});
            let schemas = hearth_wire::Schemas::from_value(schemas).unwrap();
            let checks = Arc::new(Checks::compile(&schemas).unwrap());
            let room = Room::new();
            let code = |checked: Result<(), Refusal>| checked.err().map(|refusal| refusal.code());
            let violation = Some(Code::SchemaViolation);
            for (method, body, expected) in [
                (Method::POST, "", violation),
                (Method::GET, "", None),
                (Method::GET, "1", violation),
                (Method::POST, "{}", None),
            ] {
                let checked = request(&room, &checks, &method, &Bytes::from(body)).await;
                assert_eq!(code(checked), expected, "{method} {body:?}");
            }
            let large = Bytes::from(vec![b' '; LONG_BYTES]);
            assert_eq!(code(request(&room, &checks, &Method::POST, &large).await), violation);
        });
    }
}
