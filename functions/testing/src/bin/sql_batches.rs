//! Runs its body as a batch, one statement a line, with `N|` in front where it must change N rows, and
//! answers with what came of each or why it was refused. `?database=` names another one than
//! `default`.

use serde_json::{Value as Json, json};

testing::guest!(handle);

mod bindings {
    wit_bindgen::generate!({
        path: "../../sdk/wit/platform/sql.wit",
        inline: "
            package testing:guest;
            world guest { import hearth:platform/sql@0.1.0; }
        ",
        world: "testing:guest/guest",
        generate_all,
    });
}

use bindings::hearth::platform::sql::{Error, Outcome, Statement, Value, batch};

fn handle(request: testing::Request, out: testing::Out) {
    let database = testing::text(&request, "database").unwrap_or_else(|| "default".to_owned());
    let (body, _) = testing::read(&request);
    let lines = String::from_utf8(body).unwrap();
    let statements: Vec<_> = lines.lines().map(statement).collect();
    let answer = match batch(&database, &statements) {
        Ok(outcomes) => outcomes.iter().map(outcome).collect(),
        Err(error) => said(error),
    };
    testing::respond_json(out, &answer);
}

fn statement(line: &str) -> Statement {
    let counted = line.split_once('|').and_then(|(rows, sql)| Some((rows.parse().ok()?, sql)));
    let (rows, sql) = match counted {
        Some((rows, sql)) => (Some(rows), sql),
        None => (None, line),
    };
    Statement { sql: sql.to_owned(), parameters: Vec::new(), rows }
}

fn outcome(outcome: &Outcome) -> Json {
    let rows = outcome.rows.iter().map(|row| row.iter().map(value).collect::<Json>());
    json!({
        "changes": outcome.changes,
        "last": outcome.last_insert_rowid,
        "columns": outcome.columns,
        "rows": rows.collect::<Json>(),
    })
}

fn value(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(number) => json!(number),
        Value::Real(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!({ "blob": bytes }),
    }
}

fn said(error: Error) -> Json {
    match error {
        Error::NoSuchDatabase => json!({ "error": "no-such-database" }),
        Error::AccessDenied => json!({ "error": "access-denied" }),
        Error::DatabaseFull => json!({ "error": "database-full" }),
        Error::Refused(refusal) => json!({ "place": refusal.place, "reason": refusal.reason }),
        Error::Rows(mismatch) => json!({
            "place": mismatch.place,
            "expected": mismatch.expected,
            "changed": mismatch.changed,
        }),
        Error::Other(said) => json!({ "error": said }),
    }
}
