//! A tenant's databases through functions that know nothing of Hearth, and what stays when workers
//! come and go.

use std::time::Instant;

use serde_json::{Value, json};

use crate::guests;
use crate::host::{Host, Tenant};
use crate::processes::{eventually, is_alive};

fn rows(tenant: &Tenant, path: &str, lines: &[&str]) -> Vec<Value> {
    let answer = tenant.post(path, &lines.join("\n")).expect(200).json();
    answer.as_array().unwrap_or_else(|| panic!("{answer}")).clone()
}

fn deploy(tenant: &Tenant) {
    tenant.deploy("two", guests::sql_spin_two());
    tenant.deploy("three", guests::sql_spin_three());
    tenant.deploy("batch", guests::sql_batches());
    tenant.deploy("async", guests::wasip3_sql());
}

#[test]
fn each_text_shows_what_another_one_stored() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    deploy(&tenant);
    let made = rows(
        &tenant,
        "/two",
        &[
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v)",
            "INSERT INTO t (v) VALUES ('a'), (1.5), (x'00ff'), (NULL) RETURNING id",
            "SELECT v FROM t ORDER BY id",
            "SELECT * FROM missing",
        ],
    );
    assert_eq!(made[1]["rows"], json!([[1], [2], [3], [4]]));
    assert_eq!(
        made[2],
        json!({ "columns": ["v"], "rows": [["a"], [1.5], [{ "blob": [0, 255] }], [null]] })
    );
    assert_eq!(made[3], json!({ "error": "no such table: missing" }));

    let three =
        rows(&tenant, "/three", &["DELETE FROM t WHERE id = 4", "INSERT INTO t VALUES (9, 'b')"]);
    assert_eq!((&three[0]["changes"], &three[1]["last"]), (&json!(1), &json!(9)));

    let batch =
        "1|UPDATE t SET v = 'c' WHERE id = 9\n2|DELETE FROM t WHERE id IN (1, 2) RETURNING id";
    let done = tenant.post("/batch", batch).expect(200).json();
    assert_eq!((&done[0]["changes"], &done[1]["rows"]), (&json!(1), &json!([[1], [2]])), "{done}");
    let refused = tenant.post("/batch", "DELETE FROM t\n1|DELETE FROM t").expect(200).json();
    assert_eq!(refused, json!({ "place": 1, "expected": 1, "changed": 0 }));

    let said = tenant.post("/async", "SELECT id, v FROM t\nSELEC 1").expect(200).text();
    assert_eq!(
        said,
        "id v: 3 [0, 255], 9 c\nError::Io(\"near \\\"SELEC\\\": syntax error\")\nlast 0, changes 0"
    );
}

#[test]
fn what_a_connection_keeps_ends_with_its_call() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    deploy(&tenant);
    rows(&tenant, "/three", &["CREATE TABLE t (a)"]);
    let open = [
        "BEGIN",
        "INSERT INTO t VALUES (1)",
        "CREATE TEMP TABLE mine (a)",
        "SELECT count(*) FROM t",
    ];
    let within = rows(&tenant, "/three", &open);
    assert_eq!((&within[1]["changes"], &within[3]["rows"]), (&json!(1), &json!([[1]])));
    let after = rows(
        &tenant,
        "/three",
        &["SELECT count(*) FROM t", "SELECT * FROM mine", "INSERT INTO t VALUES (2)"],
    );
    assert_eq!(after[0]["rows"], json!([[0]]));
    assert_eq!(after[1]["error"], "no such table: mine");
    assert_eq!((&after[2]["changes"], &after[2]["last"]), (&json!(1), &json!(1)));
}

/// Row 2 of the matrix of attacks: an endless query is a loop within a call of the host.
#[test]
fn row_2_a_query_without_end_stops_with_its_call() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let options = json!({ "timeout_ms": 500 });
    tenant.deploy_with("two", guests::sql_spin_two(), &options);
    tenant.deploy("three", guests::sql_spin_three());
    let endless =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    for _ in 0..3 {
        tenant.post("/two", endless).expect_problem(504, "timeout");
    }
    // Both readers are free again.
    let began = Instant::now();
    rows(&tenant, "/three", &["SELECT 1"]);
    assert!(began.elapsed().as_secs() < 3);
    let said = rows(&tenant, "/three", &[endless]);
    assert!(said[0]["error"].as_str().unwrap().contains("longer than it may"), "{said:?}");
}

/// What is kept for a function until it reads it counts as its memory.
#[test]
fn results_that_are_not_read_are_bounded() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("async", guests::wasip3_sql());
    let said = tenant.post("/async", "hold 10 SELECT zeroblob(3000000)").expect(200);
    assert!(said.text().starts_with("held 10"), "{}", said.text());
    let worker = host.workers(&tenant)[0];
    let many = "hold 400 SELECT zeroblob(3000000)";
    tenant.post("/async", many).expect_problem(500, "memory_limit");
    tenant.post("/async", "SELECT 1").expect(200);
    assert_eq!(host.workers(&tenant), [worker]);
}

/// SQLite looks at the clock between two steps, and one step can be a function on long texts.
#[test]
fn what_cannot_be_stopped_ends_its_worker_and_says_why() {
    let host = Host::start();
    let [tenant, beside] = ["demo", "beside"].map(|name| host.tenant(name));
    tenant.deploy_with("three", guests::sql_spin_three(), &json!({ "timeout_ms": 1_000 }));
    rows(&tenant, "/three", &["CREATE TABLE t (a)"]);
    let worker = host.workers(&tenant)[0];
    let endless = "INSERT INTO t SELECT instr(zeroblob(3000000), zeroblob(1500000) || x'01')";
    tenant.post("/three", endless).expect_problem(504, "timeout");
    beside.post("/hello", "{}").expect(200);
    eventually("its end", || (!is_alive(worker)).then_some(()));
    let is_told = || host.log().contains("that cannot be stopped");
    eventually("the reason in the log", || is_told().then_some(()));
    let said = eventually("another worker", || {
        let answer = tenant.post("/three", "INSERT INTO t VALUES (1)");
        (answer.status == 200).then_some(answer)
    });
    assert!(!said.text().contains("error"), "{}", said.text());
}

/// Row 31: nothing of another tenant's is named by a database's name.
#[test]
fn row_31_databases_of_one_name_never_meet() {
    let host = Host::start();
    let [one, two] = ["one", "two"].map(|name| host.tenant(name));
    for (tenant, secret) in [(&one, "first"), (&two, "second")] {
        deploy(tenant);
        let insert = format!("INSERT INTO t VALUES ('{secret}')");
        rows(tenant, "/three", &["CREATE TABLE t (a)", &insert]);
    }
    for (tenant, secret) in [(&one, "first"), (&two, "second")] {
        let found = rows(tenant, "/three", &["SELECT a FROM t"]);
        assert_eq!(found[0]["rows"], json!([[secret]]));
        for name in ["..", "../two", "1.db", "%2e%2e", "two", ""] {
            let answer = tenant
                .post(&format!("/three?database={name}"), "SELECT a FROM t")
                .expect(200)
                .json();
            let said = answer.to_string();
            assert!(
                said.contains("no such table") || said.contains("no-such-database"),
                "{name}: {said}"
            );
        }
    }
}

#[test]
fn databases_are_those_of_the_options() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("two", guests::sql_spin_two(), &json!({ "databases": ["orders"] }));
    assert_eq!(
        tenant.post("/two", "SELECT 1").expect(200).json(),
        json!({ "error": "access-denied" })
    );
    let orders = tenant.post("/two?database=orders", "SELECT 1").expect(200).json();
    assert_eq!(orders[0]["rows"], json!([[1]]));
    let other = tenant.post("/two?database=Orders", "SELECT 1").expect(200).json();
    assert_eq!(other, json!({ "error": "access-denied" }));
}

/// Rows 44 and 159 of the checklist: what was acknowledged is there when the host was killed.
#[test]
fn row_159_what_was_answered_survives_a_kill() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    deploy(&tenant);
    rows(&tenant, "/three", &["CREATE TABLE t (a)"]);
    for round in 0..3 {
        let insert = format!("INSERT INTO t VALUES ({round})");
        rows(&tenant, "/three", &[&insert]);
        rows(&tenant, "/three", &["BEGIN", "INSERT INTO t VALUES (99)"]);
        host.kill_and_start_again();
    }
    let tenant = tenant.on(&host);
    let found = rows(&tenant, "/two", &["SELECT group_concat(a) FROM t", "PRAGMA integrity_check"]);
    assert_eq!((&found[0]["rows"], &found[1]["rows"]), (&json!([["0,1,2"]]), &json!([["ok"]])));
}

/// Row 33, of a worker behind its walls: what leads out of a database is refused there as well.
#[test]
fn row_33_nothing_leads_out_of_a_database() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    deploy(&tenant);
    let lines = [
        "ATTACH 'kv.db' AS other",
        "SELECT load_extension('x')",
        "PRAGMA writable_schema = 1",
        "PRAGMA temp_store_directory = '/tmp'",
        "VACUUM INTO 'copy.db'",
        "CREATE VIRTUAL TABLE f USING fts4(a)",
        "SELECT zeroblob(1073741824)",
        "PRAGMA max_page_count = 1000000",
        "PRAGMA database_list",
    ];
    for (line, answer) in lines.iter().zip(rows(&tenant, "/two", &lines)) {
        let said = answer["error"].as_str().unwrap_or_else(|| panic!("{line}: {answer}"));
        assert!(!said.contains('/'), "{line}: {said}");
    }
    let works = [
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        "INSERT INTO f VALUES ('here')",
        "SELECT a FROM f WHERE f MATCH 'here'",
    ];
    assert_eq!(rows(&tenant, "/two", &works)[2]["rows"], json!([["here"]]));
}

#[test]
fn a_statement_that_wants_all_memory_is_refused_and_the_worker_lives() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    deploy(&tenant);
    let sorted = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300)
        SELECT count(*) FROM (SELECT randomblob(1000000) AS b FROM n ORDER BY b)"
        .replace('\n', " ");
    let worker = host.workers(&tenant);
    let said = rows(&tenant, "/two", &[&sorted, "SELECT 1"]);
    assert!(said[0]["error"].as_str().unwrap().contains("more memory"), "{said:?}");
    assert_eq!(said[1]["rows"], json!([[1]]));
    assert_eq!(host.workers(&tenant).len(), worker.len());
}
