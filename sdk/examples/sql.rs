//! Keeps a list in a database: what is added is there with the answer, and rows are read as a type
//! of the function's own.
//!
//! `curl -d '{"add":"milk"}' http://127.0.0.1:3411/sql`

use hearth_sdk::{Error, function, sql};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
struct Change {
    /// What to add to the list.
    add: Option<String>,
    /// Which one to take off it, by its number.
    done: Option<i64>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Item {
    id: i64,
    text: String,
}

#[derive(Serialize, JsonSchema)]
struct List {
    items: Vec<Item>,
}

/// Adds to a list or takes off it, and answers what is on it then.
#[function]
fn sql(change: Change) -> Result<List, Error> {
    let database = sql::Database::open("default")?;
    let table = "create table if not exists items (id integer primary key, text text not null)";
    // All of it or nothing.
    let mut batch = vec![sql::Statement::new(table, &[])];
    if let Some(text) = &change.add {
        let insert = "insert into items (text) values (?)";
        batch.push(sql::Statement::new(insert, &sql::params![text]));
    }
    if let Some(id) = change.done {
        let delete = "delete from items where id = ?";
        batch.push(sql::Statement::new(delete, &sql::params![id]).changing(1));
    }
    match database.batch(&batch) {
        Ok(_) => {}
        Err(sql::Error::Rows { .. }) => return Err(Error::new(404, "there is no such item")),
        Err(error) => return Err(error.into()),
    }
    Ok(List { items: database.query("select id, text from items order by id", &[])?.read()? })
}
