//! How what is asked of a tenant's state is read, and what is answered, in either kind of it.

use bytes::Bytes;
use hearth_connection::{Answer, Received};
use hearth_wire::{Code, KeptName, NameError, Page, Problem, StateError};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::held::{self, HoldError};
use crate::refusal::{Refusal, full, method_refused};
use crate::serving::Serving;
use crate::state::Fault;

/// When to come again.
pub const SOON: HeaderValue = HeaderValue::from_static("1");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub fn json(value: &impl Serialize) -> Answer {
    let mut answer = Response::new(full(serde_json::to_vec(value).expect("it is plain data")));
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// Whether it is asked with this method.
pub fn only(head: &Parts, method: &Method) -> Result<(), Refusal> {
    match head.method == method {
        true => Ok(()),
        false => Err(method_refused(method.as_str())),
    }
}

/// Which part of a list is asked for.
pub fn page(head: &Parts) -> Result<Page, Refusal> {
    Ok(Page::parse(head.uri.query())?)
}

/// That of a list of names, and behind which one it begins.
pub fn page_of_names(head: &Parts) -> Result<(usize, Option<KeptName>), Refusal> {
    let Page { limit, after, prefix } = page(head)?;
    if prefix.is_some() {
        return Err(StateError::Query("prefix".to_owned()).into());
    }
    let after = after.map(|after| after.parse()).transpose();
    Ok((limit, after.map_err(|error: NameError| StateError::from(error))?))
}

/// So many of what was asked for with one more, and the last of them where there are more.
pub fn paged<T>(
    mut all: Vec<T>,
    limit: usize,
    name: impl Fn(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let has_more = all.len() > limit;
    all.truncate(limit);
    let next = all.last().filter(|_| has_more).map(name);
    (all, next)
}

pub fn no_content() -> Answer {
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// A body as JSON.
pub async fn parsed<T: DeserializeOwned>(
    serving: &Serving,
    head: &Parts,
    body: Received,
    most: usize,
) -> Result<T, Refusal> {
    let held = hold(serving, head, body, most).await?;
    hearth_wire::json::from_slice(&held.bytes)
        .map_err(|error| Refusal::new(Code::BadRequest, format!("the body: {error}")))
}

/// A body, whole.
pub async fn hold(
    serving: &Serving,
    head: &Parts,
    body: Received,
    most: usize,
) -> Result<held::Held, Refusal> {
    let places = serving.room.checks.requests();
    held::hold(body, &head.headers, most as u64, places).await.map_err(|error| match error {
        HoldError::TooLarge => too_large(most),
        HoldError::Body(_) => broken(),
    })
}

fn too_large(most: usize) -> Refusal {
    let most = match most >> 20 {
        0 => format!("{} KiB", most >> 10),
        mib => format!("{mib} MiB"),
    };
    Refusal::new(Code::TooLarge, format!("a body may have {most} here"))
}

fn broken() -> Refusal {
    Refusal::new(Code::BadRequest, Problem::BROKEN_BODY)
}

/// A body that is text, held whole.
pub async fn text<B>(body: B, most: usize) -> Result<String, Refusal>
where
    B: Body<Data = Bytes>,
{
    let mut body = std::pin::pin!(body);
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| broken())?.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(too_large(most));
        }
        bytes.extend_from_slice(&data);
    }
    String::from_utf8(bytes)
        .map_err(|_| Refusal::new(Code::BadRequest, "the body is not text in UTF-8"))
}

impl From<StateError> for Refusal {
    fn from(error: StateError) -> Self {
        Self::new(Code::BadRequest, error.to_string())
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let code = match fault {
            Fault::Name(_)
            | Fault::NotACounter
            | Fault::Overflow
            | Fault::TooManyAtOnce { .. }
            | Fault::Sql { .. } => Code::BadRequest,
            Fault::TooLarge { .. } => Code::TooLarge,
            Fault::NoStore => Code::NotFound,
            Fault::NoState => Code::Conflict,
            Fault::TooMany { .. } | Fault::Full | Fault::ReadOnly | Fault::Disk => {
                Code::StorageFull
            }
            Fault::Busy => Code::TooManyRequests,
            Fault::Memory => Code::MemoryLimit,
            Fault::Interrupted => Code::Timeout,
            Fault::Closed => Code::WorkerUnavailable,
            Fault::Damaged(_) | Fault::TooNew | Fault::Broken => Code::Internal,
        };
        let refusal = Self::new(code, fault.to_string());
        match code {
            Code::TooManyRequests | Code::WorkerUnavailable => refusal.with(RETRY_AFTER, SOON),
            _ => refusal,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Full;

    use super::*;

    #[test]
    fn a_list_says_whether_there_is_more() {
        let name = |number: &u32| number.to_string();
        assert_eq!(paged(vec![1, 2, 3], 2, name), (vec![1, 2], Some("2".to_owned())));
        assert_eq!(paged(vec![1, 2], 2, name), (vec![1, 2], None));
        assert_eq!(paged(vec![], 2, name), (vec![], None));
    }

    #[test]
    fn names_have_no_prefix() {
        let of = |query: &str| {
            let request = http::Request::get(format!("/$kv?{query}")).body(()).unwrap();
            page_of_names(&request.into_parts().0)
                .map(|(limit, after)| (limit, after.map(String::from)))
        };
        assert_eq!(of("limit=5&after=a.b").unwrap(), (5, Some("a.b".to_owned())));
        for wrong in ["prefix=a", "after=a/b", "limit=0"] {
            assert_eq!(of(wrong).unwrap_err().code(), Code::BadRequest, "{wrong}");
        }
    }

    #[test]
    fn each_fault_has_a_code() {
        let sql = Fault::Sql { code: 1, message: "no such table: a".to_owned() };
        for (fault, code) in [
            (sql, Code::BadRequest),
            (Fault::Full, Code::StorageFull),
            (Fault::TooLarge { what: "value", most: 7 }, Code::TooLarge),
            (Fault::Busy, Code::TooManyRequests),
            (Fault::NoState, Code::Conflict),
        ] {
            assert_eq!(Refusal::from(fault).code(), code);
        }
    }

    #[tokio::test]
    async fn a_text_has_bounds() {
        let of = async |bytes: &'static [u8]| {
            let body = Full::<Bytes>::new(bytes.into()).map_err(|never: Infallible| match never {});
            text(body, 4).await.map_err(|refusal| refusal.code())
        };
        assert_eq!(of(b"abcd").await.unwrap(), "abcd");
        assert_eq!(of(b"abcde").await, Err(Code::TooLarge));
        assert_eq!(of(b"\xff").await, Err(Code::BadRequest));
    }
}
