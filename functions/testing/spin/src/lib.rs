//! A component of Spin's, with Spin's SDK of today: an application over all that one keeps.
//!
//! `/` lists the keys, `/notes` is a table, `/settings/NAME` tells a setting, `/elsewhere` needs
//! Redis, and any other path is a key: it stores what is put there, shows it, and forgets it.
//! `functions/testing/python` has the same application.

use spin_sdk::http::body::IncomingBodyExt;
use spin_sdk::http::{IntoResponse, Method, Request, StatusCode};
use spin_sdk::http_service;
use spin_sdk::key_value::{self, Store};
use spin_sdk::sqlite::{self, Connection, Value};
use spin_sdk::{redis, variables};

type Answer = (StatusCode, String);

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT UNIQUE NOT NULL)";

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    let (head, body) = request.into_parts();
    let body = body.bytes().await?;
    let (method, path, query) = (&head.method, head.uri.path(), head.uri.query());
    let answer = match path {
        "/" => keys().await.unwrap_or_else(refused),
        "/notes" => {
            let text = String::from_utf8_lossy(&body).into_owned();
            notes(method, query, text).await.unwrap_or_else(refused)
        }
        "/elsewhere" => {
            redis::Connection::open("redis://127.0.0.1").await.map_or_else(refused, |_| done())
        }
        _ => match path.strip_prefix("/settings/") {
            Some(name) => variables::get(name).await.map_or_else(refused, says),
            None => entry(method, path, &body).await.unwrap_or_else(refused),
        },
    };
    Ok::<_, spin_sdk::http::Error>(answer)
}

async fn keys() -> Result<Answer, key_value::Error> {
    let store = Store::open_default().await?;
    let keys = store.get_keys().await.collect().await?;
    Ok(says(keys.into_iter().map(|key| key + "\n").collect()))
}

async fn entry(method: &Method, key: &str, value: &[u8]) -> Result<Answer, key_value::Error> {
    let store = Store::open_default().await?;
    Ok(match *method {
        Method::PUT => {
            store.set(key, value).await?;
            done()
        }
        Method::GET => match store.get(key).await? {
            Some(found) => says(String::from_utf8_lossy(&found).into_owned()),
            None => (StatusCode::NOT_FOUND, String::new()),
        },
        Method::HEAD if store.exists(key).await? => says(String::new()),
        Method::HEAD => (StatusCode::NOT_FOUND, String::new()),
        Method::DELETE => {
            store.delete(key).await?;
            done()
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
    })
}

/// Adds one, and says its number and how many rows that changed; or lists those from a number on.
async fn notes(
    method: &Method,
    query: Option<&str>,
    text: String,
) -> Result<Answer, sqlite::Error> {
    let connection = Connection::open_default().await?;
    connection.execute(TABLE, []).await?.result().await?;
    if *method == Method::POST {
        let statement = "INSERT INTO notes (text) VALUES (?) RETURNING id";
        let mut added = connection.execute(statement, [Value::Text(text)]).await?;
        let id = added.next().await.and_then(|row| row.get::<i64>(0));
        added.result().await?;
        let (last, changes) = (connection.last_insert_rowid().await, connection.changes().await);
        return Ok(says(format!("{} {last} {changes}", id.unwrap_or(-1))));
    }
    let least = query.and_then(|least| least.parse().ok()).unwrap_or(0);
    let statement = "SELECT id, text FROM notes WHERE id >= ? ORDER BY id";
    let found = connection.execute(statement, [Value::Integer(least)]).await?.collect().await?;
    let lines = found.iter().map(|row| {
        let (id, text): (Option<i64>, Option<&str>) = (row.get(0), row.get(1));
        format!("{} {}\n", id.unwrap_or(-1), text.unwrap_or("?"))
    });
    Ok(says(lines.collect()))
}

fn says(text: String) -> Answer {
    (StatusCode::OK, text)
}

fn done() -> Answer {
    (StatusCode::NO_CONTENT, String::new())
}

fn refused(error: impl std::error::Error) -> Answer {
    (StatusCode::BAD_REQUEST, error.to_string())
}
