//! Runs the statements of its body, one a line, on one connection of Spin's older interface, and
//! answers with what came of each: rows as lists, or the error. `?database=` names another one than
//! `default`.

use serde_json::{Value as Json, json};

testing::guest!(handle);

mod bindings {
    wit_bindgen::generate!({
        path: "../../sdk/wit/fermyon-spin/sqlite.wit",
        inline: "
            package testing:guest;
            world guest { import fermyon:spin/sqlite@2.0.0; }
        ",
        world: "testing:guest/guest",
        generate_all,
    });
}

use bindings::fermyon::spin::sqlite::{Connection, Error, QueryResult, Value};

fn handle(request: testing::Request, out: testing::Out) {
    let database = testing::text(&request, "database").unwrap_or_else(|| "default".to_owned());
    let (body, _) = testing::read(&request);
    let answer = match Connection::open(&database) {
        Err(error) => said(&error),
        Ok(connection) => {
            let lines = String::from_utf8(body).unwrap();
            let lines = lines.lines().map(|line| ran(&connection.execute(line, &[])));
            Json::Array(lines.collect())
        }
    };
    testing::respond_json(out, &answer);
}

fn ran(result: &Result<QueryResult, Error>) -> Json {
    match result {
        Err(error) => said(error),
        Ok(result) => {
            let rows = result.rows.iter().map(|row| row.values.iter().map(value).collect::<Json>());
            json!({ "columns": result.columns, "rows": rows.collect::<Json>() })
        }
    }
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

fn said(error: &Error) -> Json {
    let said = match error {
        Error::NoSuchDatabase => "no-such-database".to_owned(),
        Error::AccessDenied => "access-denied".to_owned(),
        Error::InvalidConnection => "invalid-connection".to_owned(),
        Error::DatabaseFull => "database-full".to_owned(),
        Error::Io(said) => said.clone(),
    };
    json!({ "error": said })
}
