//! What handlers read of a request besides who sent it: bodies, queries and path segments. Each
//! is parsed whole or refused with the sentence of whoever parsed it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::body::{self, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use hearth_wire::{Code, FunctionPath, Problem, SqlAsked, json, limits};
use http::HeaderMap;
use http::request::Parts;
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;

use super::error::Refusal;
use crate::logs::PAGE_MAX;
use crate::patience::within;

/// A JSON body, and one that holds a function's options.
const BODY_MAX: usize = 64 << 10;
const OPTIONS_MAX: usize = limits::OPTIONS_MAX_BYTES + (1 << 10);
/// One with settings: all that a tenant may have, as JSON may write it.
const SETTINGS_MAX: usize = 4 * limits::SETTINGS_MAX_BYTES;
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// How much of a list is asked for.
pub fn limit(given: Option<usize>, otherwise: usize) -> Result<usize, Refusal> {
    match given {
        None => Ok(otherwise),
        Some(limit @ 1..=PAGE_MAX) => Ok(limit),
        Some(_) => Err(Refusal::new(Code::BadRequest, format!("`limit` is from 1 to {PAGE_MAX}"))),
    }
}

/// A JSON body, whatever content type it says.
pub struct JsonBody<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        parse(&read(request, BODY_MAX).await?).map(Self)
    }
}

/// The same, as long as options may be.
pub struct OptionsBody<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for OptionsBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        parse(&read(request, OPTIONS_MAX).await?).map(Self)
    }
}

/// The same, as long as a tenant's settings may be.
pub struct SettingsBody<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for SettingsBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let body = read(request, SETTINGS_MAX).await?;
        json::from_slice(&body).map(Self).map_err(|error| {
            let mut said = error.to_string();
            // What stands in the place of something else may be a secret, and is not repeated.
            if said.starts_with("invalid ")
                && let Some((_, expected)) = said.rsplit_once(", expected ")
            {
                said = format!("a value is not of its type: expected {expected}");
            }
            unread(said)
        })
    }
}

/// One statement of SQL with its values.
pub struct StatementBody(pub(crate) SqlAsked);

impl<S: Sync> FromRequest<S> for StatementBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        parse(&read(request, SqlAsked::BYTES_MAX).await?).map(Self)
    }
}

/// The same where it may be missing, or null.
pub struct OptionalBody<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let body = read(request, BODY_MAX).await?;
        let given: Option<T> = if body.is_empty() { None } else { parse(&body)? };
        Ok(Self(given.unwrap_or_default()))
    }
}

async fn read(request: Request, most: usize) -> Result<Bytes, Refusal> {
    refuse_packed(request.headers())?;
    let reading = body::to_bytes(request.into_body(), most);
    match within(BODY_DEADLINE, reading).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if error.source().is_some_and(|cause| cause.is::<LengthLimitError>()) => {
            let detail = format!("a body may have {} KiB here", most >> 10);
            Err(Refusal::new(Code::TooLarge, detail))
        }
        Ok(Err(_)) => Err(Refusal::new(Code::BadRequest, "the body broke off")),
        Err(_) => Err(Refusal::new(Code::BadRequest, "the body took too long to arrive")),
    }
}

/// Bodies are read as they are sent.
pub fn refuse_packed(headers: &HeaderMap) -> Result<(), Refusal> {
    Problem::of_coding(headers).map_or(Ok(()), |refused| Err(refused.into()))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    json::from_slice(body).map_err(unread)
}

fn unread(why: impl fmt::Display) -> Refusal {
    Refusal::new(Code::BadRequest, format!("the body: {why}"))
}

/// The query, with unknown keys refused by the type.
pub struct Params<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Query(params) = Query::try_from_uri(&parts.uri).map_err(|refused| {
            let said = refused.source().map_or_else(|| refused.to_string(), ToString::to_string);
            Refusal::new(Code::BadRequest, format!("the query: {said}"))
        })?;
        Ok(Self(params))
    }
}

/// The segments that the route names, as text.
pub async fn segments<T: DeserializeOwned + Send>(parts: &mut Parts) -> Result<T, Refusal> {
    match Path::from_request_parts(parts, &()).await {
        Ok(Path(segments)) => Ok(segments),
        Err(refused) => Err(Refusal::new(Code::InvalidPath, refused.body_text())),
    }
}

/// The function that the address names: its path percent-encoded as one segment.
pub struct Named(pub(crate) FunctionPath);

impl<S: Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        #[derive(serde::Deserialize)]
        struct Segments {
            path: String,
        }
        let Segments { path } = segments(parts).await?;
        match path.parse() {
            Ok(path) => Ok(Self(path)),
            Err(error) => Err(Refusal::new(Code::InvalidPath, error.to_string())),
        }
    }
}

/// The token that the address names.
pub struct TokenId(pub(crate) i64);

impl<S: Sync> FromRequestParts<S> for TokenId {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        #[derive(serde::Deserialize)]
        struct Segments {
            id: i64,
        }
        let Segments { id } = segments(parts).await?;
        Ok(Self(id))
    }
}
