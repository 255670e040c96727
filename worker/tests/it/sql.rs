//! SQL as functions come to it: each text, its errors, and what is a call's and ends with it. A
//! worker of these tests has no state, since its birth gives it no directory: what is asked of one
//! that has is in `primary/tests/it/sql.rs`.

use serde_json::json;

use crate::harness::{Release, exec, start};

#[test]
fn a_function_whose_options_name_no_database_is_denied_each() {
    let none = r#"{"databases":["other"]}"#;
    let functions = [
        ("/two", "sql_spin_two", none),
        ("/three", "sql_spin_three", none),
        ("/batch", "sql_batches", none),
        ("/async", "wasip3_sql", none),
    ];
    let worker = exec(&Release::new(1, &functions), start(1)).accept();
    for path in ["/two", "/three", "/batch"] {
        assert_eq!(
            worker.post(path, "SELECT 1").json(),
            json!({ "error": "access-denied" }),
            "{path}"
        );
    }
    assert_eq!(worker.post("/async", "SELECT 1").text(), "Error::AccessDenied");
}

#[test]
fn without_state_it_says_so_and_calls_go_on() {
    let functions = [("/two", "sql_spin_two", "{}"), ("/echo", "echo", "{}")];
    let worker = exec(&Release::new(1, &functions), start(1)).accept();
    let said = worker.post("/two", "SELECT 1").json()["error"].as_str().unwrap().to_owned();
    assert!(said.contains("state"), "{said}");
    assert_eq!(worker.post("/echo", "").status, 200);
}
