//! `/$sql`: the tenant's databases: one statement, a text of many, and a database as such a text.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hearth_connection::{Answer, BoxError, Received};
use hearth_host::sql::Value;
use hearth_wire::{
    Code, DatabaseList, KeptName, SqlAnswered, SqlAsked, SqlImported, SqlValue, StateNamed,
};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, mpsc};

use super::exchange::{SOON, json, only, page_of_names, paged, parsed, text};
use crate::refusal::Refusal;
use crate::serving::Serving;
use crate::state::sql::{Asked, Beyond, Bounds, Outcome, SCRIPT_MAX_BYTES};
use crate::state::{DatabaseFile, Fault, State};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// It is there without being made by anybody.
const DEFAULT: &str = "default";
/// A text is held whole.
static IMPORTS: Semaphore = Semaphore::const_new(1);

pub async fn databases(serving: &Serving, head: &Parts) -> Result<Answer, Refusal> {
    only(head, &Method::GET)?;
    let (limit, after) = page_of_names(head)?;
    let found = serving.state.databases(after, limit + 1).await?;
    let (names, next) = paged(found, limit, KeptName::to_string);
    let databases = names.into_iter().map(|name| StateNamed { name: name.into() });
    Ok(json(&DatabaseList { databases: databases.collect(), next }))
}

pub async fn execute(
    serving: &Serving,
    name: KeptName,
    head: &Parts,
    body: Received,
) -> Result<Answer, Refusal> {
    only(head, &Method::POST)?;
    let SqlAsked { statement, parameters } =
        parsed(serving, head, body, SqlAsked::BYTES_MAX).await?;
    let database = match name.as_str() {
        DEFAULT => serving.state.database(&name).await?,
        _ => find(&serving.state, &name).await?,
    };
    let parameters = parameters.into_iter().map(given).collect();
    let asked = Asked { sql: statement, parameters };
    let bounds = Bounds { beyond: Beyond::Cut, ..Bounds::default() };
    let Outcome { rows, is_cut, changes, counts } =
        serving.sql.query(database, asked, bounds).await?;
    let row = |row: Vec<Value>| row.into_iter().map(told).collect();
    Ok(json(&SqlAnswered {
        columns: rows.columns,
        rows: rows.rows.into_iter().map(row).collect(),
        changes,
        last_insert_rowid: counts.last_insert_rowid,
        truncated: is_cut,
    }))
}

pub async fn import(
    serving: &Serving,
    name: KeptName,
    head: &Parts,
    body: Received,
) -> Result<Answer, Refusal> {
    only(head, &Method::POST)?;
    let _place = IMPORTS.try_acquire().map_err(|_| {
        let detail = "another import of this tenant is under way; one at a time is carried out";
        Refusal::new(Code::TooManyRequests, detail).with(RETRY_AFTER, SOON)
    })?;
    let script = text(body, SCRIPT_MAX_BYTES).await?;
    let database = serving.state.database(&name).await?;
    let imported = serving.sql.import(database, script).await?;
    Ok(json(&SqlImported { statements: imported.statements }))
}

pub async fn export(serving: &Serving, name: KeptName, head: &Parts) -> Result<Answer, Refusal> {
    only(head, &Method::GET)?;
    let database = find(&serving.state, &name).await?;
    let mut rest = serving.sql.export(database);
    // What cannot begin is refused.
    let first = rest.recv().await.transpose()?;
    let mut answer = Response::new(Export { first, rest }.boxed_unsync());
    answer.headers_mut().insert(CONTENT_TYPE, TEXT);
    Ok(answer)
}

async fn find(state: &State, name: &KeptName) -> Result<DatabaseFile, Refusal> {
    let found = state.find_database(name).await?;
    found.ok_or_else(|| Refusal::new(Code::NotFound, format!("there is no database {name}")))
}

/// A text that is made while it is sent. Where it fails on its way, it breaks off.
struct Export {
    first: Option<String>,
    rest: mpsc::Receiver<Result<String, Fault>>,
}

impl Body for Export {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let piece = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => ready!(self.rest.poll_recv(cx)),
        };
        Poll::Ready(piece.map(|piece| match piece {
            Ok(piece) => Ok(Frame::data(piece.into())),
            Err(fault) => Err(fault.into()),
        }))
    }
}

fn given(value: SqlValue) -> Value {
    match value {
        SqlValue::Null => Value::Null,
        SqlValue::Integer(number) => Value::Integer(number),
        SqlValue::Real(number) => Value::Real(number),
        SqlValue::Text(text) => Value::Text(text),
        SqlValue::Blob(bytes) => Value::Blob(bytes),
    }
}

fn told(value: Value) -> SqlValue {
    match value {
        Value::Null => SqlValue::Null,
        Value::Integer(number) => SqlValue::Integer(number),
        Value::Real(number) => SqlValue::Real(number),
        Value::Text(text) => SqlValue::Text(text),
        Value::Blob(bytes) => SqlValue::Blob(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_export_that_fails_breaks_off() {
        let (pieces, rest) = mpsc::channel(4);
        pieces.send(Ok("b".to_owned())).await.unwrap();
        pieces.send(Err(Fault::Disk)).await.unwrap();
        let mut export = Export { first: Some("a".to_owned()), rest };
        for piece in ["a", "b"] {
            let frame = export.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
        }
        assert!(export.frame().await.unwrap().is_err());
    }
}
