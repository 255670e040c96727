//! `/tenants/{tenant}/logs` and `…/calls`: paged, and as a stream of events with `?follow`.
//!
//! A stream ends when the host stops, when the tenant goes, and after an hour at the latest; with its
//! token it ends by `lease.rs`. Whoever follows comes back with `Last-Event-ID`, and is told of what
//! was missed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream;
use hearth_wire::{
    Code, FunctionPath, FunctionVersion, LogLevel, LogStream, Origin, Outcome, Scope,
};
use http::HeaderMap;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};
use utoipa::ToSchema;

use super::auth::AtTenant;
use super::error::Refusal;
use super::lease::Events;
use super::openapi::{
    LogLevelSchema, LogStreamSchema, OriginSchema, OutcomeSchema, TenantParam, function_path,
    function_version,
};
use super::request::{Params, limit};
use crate::fleet::Fleet;
use crate::logs::{Call, Entry, Filter, Followed, Kept, Line, Logs, News, Page, Query, Since};
use crate::store::Tenant;

const LIMIT_DEFAULT: usize = 100;
const STREAM_MAX: Duration = Duration::from_secs(3_600);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What a function wrote, or Hearth said of a call of it. Also the data of an event `line`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = LogLine)]
pub struct LineInfo {
    pub id: u64,
    pub time: Timestamp,
    #[schema(schema_with = function_path)]
    pub function: FunctionPath,
    #[schema(schema_with = function_version)]
    pub version: FunctionVersion,
    pub request_id: String,
    #[schema(value_type = LogStreamSchema)]
    pub stream: LogStream,
    /// How much it matters, where the function said so (`wasi:logging`); null of any other line.
    #[schema(value_type = Option<LogLevelSchema>)]
    pub level: Option<LogLevel>,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinePage {
    /// Oldest first.
    pub lines: Vec<LineInfo>,
    /// The `before` of the page of older ones, where there could be any.
    pub next: Option<u64>,
}

/// One call. Also the data of an event `call`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Call)]
pub struct CallInfo {
    pub id: u64,
    /// When its head was read.
    pub time: Timestamp,
    #[schema(schema_with = function_path)]
    pub function: FunctionPath,
    #[schema(schema_with = function_version)]
    pub version: FunctionVersion,
    /// Where it came from: `outside` (at any of the tenant's addresses), `api`, `trigger`, or
    /// `internal` (another function of the tenant). Null for calls from before this was kept.
    #[schema(value_type = Option<OriginSchema>)]
    pub origin: Option<Origin>,
    pub request_id: String,
    pub method: String,
    pub status: u16,
    #[schema(value_type = OutcomeSchema)]
    pub outcome: Outcome,
    pub duration_us: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// For a call that woke its worker: from being noticed to being served.
    pub cold_us: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallPage {
    /// Oldest first.
    pub calls: Vec<CallInfo>,
    /// The `before` of the page of older ones, where there could be any.
    pub next: Option<u64>,
}

/// The data of an event `missed`: a follower was too slow for this many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Missed {
    pub missed: u64,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LineParams {
    /// Only lines of this function.
    #[param(value_type = Option<String>)]
    path: Option<FunctionPath>,
    /// Only lines of this call.
    request_id: Option<String>,
    /// Only lines of this stream.
    #[param(value_type = Option<LogStreamSchema>)]
    stream: Option<LogStream>,
    /// Only lines with smaller ids.
    before: Option<u64>,
    /// The newest so many: 100, or with `follow` none, if it is missing. A page has fewer where
    /// these are large, and says with `next` how it goes on.
    #[param(maximum = 1_000)]
    limit: Option<usize>,
    /// Answer with a stream of events.
    #[serde(default, deserialize_with = "flag")]
    #[param(value_type = Option<bool>)]
    follow: bool,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct CallParams {
    /// Only calls of this function.
    #[param(value_type = Option<String>)]
    path: Option<FunctionPath>,
    /// Only the call of this request id.
    request_id: Option<String>,
    /// Only calls with smaller ids.
    before: Option<u64>,
    /// The newest so many: 100, or with `follow` none, if it is missing. A page has fewer where
    /// these are large, and says with `next` how it goes on.
    #[param(maximum = 1_000)]
    limit: Option<usize>,
    /// Answer with a stream of events.
    #[serde(default, deserialize_with = "flag")]
    #[param(value_type = Option<bool>)]
    follow: bool,
}

/// `?follow` means the same as `?follow=true`.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(serde::de::Error::custom("`follow` is true or false")),
    }
}

/// A record as a body and as an event.
trait Told: Kept {
    /// The name of its events.
    const EVENT: &str;

    type Body: Serialize;

    fn body(entry: Entry<Self>) -> Self::Body;
}

impl Told for Line {
    const EVENT: &str = "line";

    type Body = LineInfo;

    fn body(Entry { id, record }: Entry<Self>) -> LineInfo {
        let Line { time_ms, function, version, request_id, stream, level, text } = record;
        LineInfo { id, time: time(time_ms), function, version, request_id, stream, level, text }
    }
}

impl Told for Call {
    const EVENT: &str = "call";

    type Body = CallInfo;

    fn body(Entry { id, record }: Entry<Self>) -> CallInfo {
        let Call {
            time_ms,
            function,
            version,
            origin,
            request_id,
            method,
            status,
            outcome,
            duration_us,
            request_bytes,
            response_bytes,
            cold_us,
        } = record;
        CallInfo {
            id,
            time: time(time_ms),
            function,
            version,
            origin,
            request_id,
            method,
            status,
            outcome,
            duration_us,
            request_bytes,
            response_bytes,
            cold_us,
        }
    }
}

/// A worker that lies about the time is shown as the epoch.
fn time(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// So that whoever was answered before finds what their call wrote.
async fn settle(fleet: &Fleet, logs: &Logs, tenant: &Tenant, query: &Query) {
    // Older ones are written.
    if query.before.is_none() {
        fleet.report(&tenant.name).await;
        logs.settle().await;
    }
}

/// The bodies of a page, and where the one before it ends.
async fn page<T: Told>(
    logs: &Logs,
    tenant: &Tenant,
    query: Query,
) -> Result<(Vec<T::Body>, Option<u64>), Refusal> {
    let Page { entries, more, missed: _, unreadable: _ } =
        logs.page::<T>(&tenant.name, query).await?;
    let next = entries.first().filter(|_| more).map(|oldest| oldest.id);
    Ok((entries.into_iter().map(T::body).collect(), next))
}

/// Log lines of a tenant's functions
///
/// With `follow`: events `line` (with the line's id, and it as JSON) and `missed`, and `ended` with a
/// problem where the token is removed or expires.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/logs", operation_id = "list_lines", tag = "logs",
    params(TenantParam, LineParams, ("last-event-id" = Option<u64>, Header, description = "With `follow`: goes on after this line")),
    responses((status = 200, description = "A page, or with `follow` a stream of events", content(
        (LinePage = "application/json"),
        (String = "text/event-stream"),
    ))),
)]
pub async fn list_lines(
    at: AtTenant,
    Params(params): Params<LineParams>,
    headers: HeaderMap,
    State(fleet): State<Fleet>,
    State(logs): State<Logs>,
) -> Result<Response, Refusal> {
    let (tenant, _) = at.permit(Scope::Deploy)?;
    let LineParams { path, request_id, stream, before, limit: given, follow: following } = params;
    let filter = Filter { path, request_id, stream };
    if following {
        let since = since(&headers, given)?;
        return follow::<Line>(&logs, &tenant, since, filter).await;
    }
    let query = Query { filter, before, limit: limit(given, LIMIT_DEFAULT)?, ..Query::default() };
    settle(&fleet, &logs, &tenant, &query).await;
    let (lines, next) = page::<Line>(&logs, &tenant, query).await?;
    Ok(Json(LinePage { lines, next }).into_response())
}

/// How calls of a tenant's functions went
///
/// With `follow`: events `call` (with the call's id, and it as JSON) and `missed`, and `ended` with a
/// problem where the token is removed or expires.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/calls", operation_id = "list_calls", tag = "logs",
    params(TenantParam, CallParams, ("last-event-id" = Option<u64>, Header, description = "With `follow`: goes on after this call")),
    responses((status = 200, description = "A page, or with `follow` a stream of events", content(
        (CallPage = "application/json"),
        (String = "text/event-stream"),
    ))),
)]
pub async fn list_calls(
    at: AtTenant,
    Params(params): Params<CallParams>,
    headers: HeaderMap,
    State(fleet): State<Fleet>,
    State(logs): State<Logs>,
) -> Result<Response, Refusal> {
    let (tenant, _) = at.permit(Scope::Deploy)?;
    let CallParams { path, request_id, before, limit: given, follow: following } = params;
    let filter = Filter { path, request_id, stream: None };
    if following {
        let since = since(&headers, given)?;
        return follow::<Call>(&logs, &tenant, since, filter).await;
    }
    let query = Query { filter, before, limit: limit(given, LIMIT_DEFAULT)?, ..Query::default() };
    settle(&fleet, &logs, &tenant, &query).await;
    let (calls, next) = page::<Call>(&logs, &tenant, query).await?;
    Ok(Json(CallPage { calls, next }).into_response())
}

fn since(headers: &HeaderMap, given: Option<usize>) -> Result<Since, Refusal> {
    match headers.get("last-event-id") {
        None => Ok(Since::Last(limit(given, 0)?)),
        Some(id) => match id.to_str().map(str::parse) {
            Ok(Ok(id)) => Ok(Since::After(id)),
            _ => Err(Refusal::new(Code::BadRequest, "`Last-Event-ID` is a number")),
        },
    }
}

/// A stream of events on its way.
struct Stream<T: Told> {
    filter: Filter,
    /// What goes out before anything is waited for.
    ready: VecDeque<Event>,
    news: tokio::sync::broadcast::Receiver<News<T>>,
    until: Instant,
}

async fn follow<T: Told>(
    logs: &Logs,
    tenant: &Tenant,
    since: Since,
    filter: Filter,
) -> Result<Response, Refusal> {
    let Followed { past, news } = logs.follow::<T>(&tenant.name, since, filter.clone()).await?;
    let mut ready = VecDeque::new();
    if past.missed > 0 {
        ready.push_back(missed(past.missed));
    }
    ready.extend(past.entries.into_iter().map(event));
    let until = Instant::now() + STREAM_MAX;
    let state = Stream { filter, ready, news, until };
    let events = stream::unfold(state, |mut state| async {
        let event = state.next().await?;
        Some((Ok::<_, Infallible>(event), state))
    });
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    Ok((Extension(Events), events).into_response())
}

impl<T: Told> Stream<T> {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let news = tokio::select! {
                news = self.news.recv() => news,
                () = sleep_until(self.until) => return None,
            };
            match news {
                Ok(News::Entry(entry)) if entry.record.matches(&self.filter) => {
                    return Some(event(Entry::clone(&entry)));
                }
                Ok(News::Entry(_)) => {}
                Ok(News::Dropped(count)) | Err(RecvError::Lagged(count)) => {
                    return Some(missed(count));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn event<T: Told>(entry: Entry<T>) -> Event {
    let id = entry.id.to_string();
    let data = serde_json::to_string(&T::body(entry)).expect("a record is plain data");
    Event::default().event(T::EVENT).id(id).data(data)
}

fn missed(missed: u64) -> Event {
    let data = serde_json::to_string(&Missed { missed }).expect("a number is plain data");
    Event::default().event("missed").data(data)
}

#[cfg(test)]
mod tests {
    use axum::body;
    use hearth_wire::{GenerationNumber, LogLine, Report};
    use jiff::Timestamp;

    use super::*;
    use crate::logs::PAGE_MAX;
    use crate::store::TenantId;

    fn line(text: &str) -> LogLine {
        LogLine {
            time_ms: 1_700_000_000_123,
            function: "/a".parse().unwrap(),
            version: 3.into(),
            request_id: "r-1".into(),
            stream: LogStream::Stdout,
            level: None,
            text: text.into(),
        }
    }

    fn report(texts: &[&str]) -> Report {
        Report { lines: texts.iter().map(|text| line(text)).collect(), ..Report::default() }
    }

    fn scratch() -> (tempfile::TempDir, Logs, Tenant) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("tenants/acme")).unwrap();
        let logs = Logs::open(directory.path(), 8).unwrap();
        let tenant = Tenant {
            id: TenantId(1),
            name: "acme".parse().unwrap(),
            port: 4_000,
            generation: GenerationNumber(1),
            limits: Default::default(),
            uid: None,
            created_at: Timestamp::UNIX_EPOCH,
        };
        (directory, logs, tenant)
    }

    #[tokio::test]
    async fn pages_lead_to_older_ones() {
        let (_directory, logs, tenant) = scratch();
        logs.take(&tenant.name, report(&["one", "two", "three"]));
        logs.close().await;
        let page = async |before, limit| {
            let query = Query { before, limit, ..Query::default() };
            let (lines, next) = page::<Line>(&logs, &tenant, query).await.unwrap();
            let texts: Vec<String> = lines.into_iter().map(|line| line.text).collect();
            (texts.join(" "), next)
        };
        assert_eq!(page(None, 2).await, ("two three".into(), Some(2)));
        assert_eq!(page(Some(2), 2).await, ("one".into(), None));
        assert_eq!(page(None, 3).await, ("one two three".into(), None));
        assert_eq!(page(Some(1), 3).await, (String::new(), None));
    }

    #[tokio::test]
    async fn a_stream_of_events_as_it_is_written() {
        let (_directory, logs, tenant) = scratch();
        logs.take(&tenant.name, report(&["one", "two\nlines"]));
        let response =
            follow::<Line>(&logs, &tenant, Since::Last(1), Filter::default()).await.unwrap();
        logs.take(&tenant.name, Report { lines_dropped: 7, ..report(&["three"]) });
        logs.end_follows().await;
        let body = body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let data = |id: u64, text: &str| {
            format!(
                "event: line\nid: {id}\ndata: {{\"id\":{id},\"time\":\"2023-11-14T22:13:20.123Z\",\
                 \"function\":\"/a\",\"version\":3,\"request_id\":\"r-1\",\"stream\":\"stdout\",\
                 \"level\":null,\"text\":\"{text}\"}}\n\n"
            )
        };
        let missed = "event: missed\ndata: {\"missed\":7}\n\n";
        let expected = data(2, "two\\nlines") + &data(3, "three") + missed;
        assert_eq!(String::from_utf8(body.into()).unwrap(), expected);
    }

    #[tokio::test]
    async fn a_follower_who_comes_back_is_told_what_is_gone() {
        let (_directory, logs, tenant) = scratch();
        let texts: Vec<String> = (0..PAGE_MAX + 5).map(|n| n.to_string()).collect();
        logs.take(&tenant.name, report(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
        let response =
            follow::<Line>(&logs, &tenant, Since::After(2), Filter::default()).await.unwrap();
        logs.end_follows().await;
        let body = body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let body = String::from_utf8(body.into()).unwrap();
        assert!(
            body.starts_with("event: missed\ndata: {\"missed\":3}\n\nevent: line\nid: 6\n"),
            "{body}"
        );
    }

    #[test]
    fn parameters() {
        let parse = |query: &str| {
            let uri: http::Uri = format!("/?{query}").parse().unwrap();
            axum::extract::Query::<LineParams>::try_from_uri(&uri).map(|params| params.0.follow)
        };
        for (query, follow) in
            [("", false), ("follow", true), ("follow=true", true), ("follow=0", false)]
        {
            assert_eq!(parse(query).unwrap(), follow, "{query}");
        }
        for query in ["follow=maybe", "limits=1", "path=..", "stream=stdin", "before=-1"] {
            assert!(parse(query).is_err(), "{query}");
        }
        assert_eq!(limit(None, 7).unwrap(), 7);
        assert_eq!(limit(Some(PAGE_MAX), 7).unwrap(), PAGE_MAX);
        for given in [0, PAGE_MAX + 1] {
            assert_eq!(limit(Some(given), 7).unwrap_err().into_problem().code, Code::BadRequest);
        }
    }
}
