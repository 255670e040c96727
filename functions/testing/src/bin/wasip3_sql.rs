//! Runs the statements of its body, one a line, by the asynchronous functions of Spin's interface of
//! today, on WASI 0.3, and answers with one line for each: its rows, or the error. `hold N SQL` runs
//! a statement so many times and reads nothing of what came.

use wasip3::http::types::{ErrorCode, Request, Response};
use wasip3::http_compat::{self, http_into_wasi_response};
use wasip3::wit_future;

wasip3::http::service::export!(Guest);

mod bindings {
    wit_bindgen::generate!({
        path: "../../sdk/wit/spin-sqlite/sqlite.wit",
        inline: "
            package testing:guest;
            world guest { import spin:sqlite/sqlite@3.1.0; }
        ",
        world: "testing:guest/guest",
        generate_all,
    });
}

use bindings::spin::sqlite::sqlite::{Connection, Error, Value};

struct Guest;

impl wasip3::exports::http::handler::Guest for Guest {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let (read, result) = wit_future::new(|| Ok(()));
        let (body, _) = Request::consume_body(request, result);
        let lines = String::from_utf8(body.collect().await).unwrap();
        drop(read);
        let said = match Connection::open_async("default".to_owned()).await {
            Err(error) => format!("{error:?}"),
            Ok(connection) => {
                let mut said = Vec::new();
                for line in lines.lines() {
                    said.push(run(&connection, line).await.unwrap_or_else(|it| format!("{it:?}")));
                }
                let last = connection.last_insert_rowid_async().await;
                let changes = connection.changes_async().await;
                said.push(format!("last {last}, changes {changes}"));
                said.join("\n")
            }
        };
        http_into_wasi_response(http_compat::Response::new(said))
    }
}

async fn run(connection: &Connection, line: &str) -> Result<String, Error> {
    if let Some((times, sql)) = line.strip_prefix("hold ").and_then(|it| it.split_once(' ')) {
        let mut held = Vec::new();
        for _ in 0..times.parse().unwrap() {
            held.push(connection.execute_async(sql.to_owned(), Vec::new()).await?);
        }
        return Ok(format!("held {}", held.len()));
    }
    let (columns, rows, end) = connection.execute_async(line.to_owned(), Vec::new()).await?;
    let rows = rows.collect().await;
    end.await?;
    let rows = rows.iter().map(|row| {
        let values = row.values.iter().map(|value| match value {
            Value::Null => "null".to_owned(),
            Value::Integer(number) => number.to_string(),
            Value::Real(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            Value::Blob(bytes) => format!("{bytes:?}"),
        });
        values.collect::<Vec<_>>().join(" ")
    });
    Ok(format!("{}: {}", columns.join(" "), rows.collect::<Vec<_>>().join(", ")))
}

fn main() {}
