use super::*;

#[test]
fn values_go_in_and_come_out_as_they_are() {
    let db = Database::new();
    db.does("CREATE TABLE t (id INTEGER PRIMARY KEY, v)").unwrap();
    let values = [
        Value::Null,
        Value::Integer(i64::MIN),
        Value::Integer(i64::MAX),
        Value::Real(-0.1),
        Value::Real(f64::INFINITY),
        text(""),
        text("Zoë's\0 \u{1F600}"),
        Value::Blob(Vec::new()),
        Value::Blob(vec![0, 255, 39]),
    ];
    for value in &values {
        let outcome = db.with("INSERT INTO t (v) VALUES (?)", std::slice::from_ref(value)).unwrap();
        assert_eq!((outcome.changes, outcome.rows.rows.len()), (1, 0));
    }
    let found = db.does("SELECT v, typeof(v) AS kind FROM t ORDER BY id").unwrap().rows;
    assert_eq!(found.columns, ["v", "kind"]);
    let kinds = ["null", "integer", "integer", "real", "real", "text", "text", "blob", "blob"];
    let rows: Vec<_> = values.iter().zip(kinds).map(|(v, k)| vec![v.clone(), text(k)]).collect();
    assert_eq!(found.rows, rows);
    // What SQLite keeps as another value says so.
    assert_eq!(db.with("SELECT ?", &[Value::Real(f64::NAN)]).unwrap().rows.rows, [[Value::Null]]);
    let torn = db.refused("SELECT CAST(x'ff' AS TEXT) AS torn");
    assert!(torn.contains("\"torn\"") && torn.contains("UTF-8"), "{torn}");
}

#[test]
fn what_a_connection_was_told_last_is_its_own() {
    let db = Database::new();
    db.does("CREATE TABLE t (id INTEGER PRIMARY KEY, v)").unwrap();
    let counted = |sql: &str, counts: Counts| match db.run(sql, &[], counts).unwrap() {
        Ran::Done(outcome) => outcome,
        ran => panic!("{ran:?}"),
    };
    let ask = "SELECT last_insert_rowid(), changes(), total_changes()";
    let told = |counts: Counts| counted(ask, counts).rows.rows.remove(0);
    let numbers = |numbers: [i64; 3]| numbers.map(Value::Integer).to_vec();

    let (mut one, mut two) = (Counts::default(), Counts::default());
    assert_eq!(told(one), numbers([0, 0, 0]));
    one = counted("INSERT INTO t VALUES (7, 'a'), (9, 'b')", one).counts;
    two = counted("INSERT INTO t VALUES (40, 'c')", two).counts;
    assert_eq!(told(one), numbers([9, 2, 2]));
    assert_eq!(told(two), numbers([40, 1, 1]));
    // What changes no rows leaves it, and what could have sets it.
    one = counted("CREATE INDEX i ON t (v)", one).counts;
    one = counted("PRAGMA user_version = 3", one).counts;
    assert_eq!(told(one), numbers([9, 2, 2]));
    one = counted("DELETE FROM t WHERE id = 1", one).counts;
    assert_eq!(told(one), numbers([9, 0, 2]));
    two = counted("WITH n AS (SELECT 40 AS id) UPDATE t SET v = 'd' WHERE id IN n", two).counts;
    assert_eq!(told(two), numbers([40, 1, 2]));
    // Where it is used, it is the guest's own on the connection of everybody.
    one = counted("INSERT INTO t (v) VALUES (last_insert_rowid() || ' ' || changes())", one).counts;
    assert_eq!(db.one("SELECT v FROM t WHERE id = 41"), text("9 0"));
    assert_eq!(told(one), numbers([41, 1, 3]));
}

#[test]
fn a_trigger_sees_the_row_that_was_inserted_last() {
    let db = Database::new();
    db.does("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
    db.does("CREATE TABLE log (row)").unwrap();
    db.does(
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN
            INSERT INTO log VALUES (last_insert_rowid());
         END",
    )
    .unwrap();
    let outcome = db.does("INSERT INTO t VALUES (31)").unwrap();
    assert_eq!((outcome.changes, outcome.counts.last_insert_rowid), (1, 31));
    assert_eq!(outcome.counts.total_changes, 2);
    assert_eq!(db.one("SELECT row FROM log"), Value::Integer(31));
}

#[test]
fn returning_brings_rows_and_counts_them() {
    let db = Database::new();
    db.does("CREATE TABLE t (id INTEGER PRIMARY KEY, v)").unwrap();
    let outcome = db.does("INSERT INTO t (v) VALUES ('a'), ('b') RETURNING id, v").unwrap();
    assert_eq!(outcome.rows.columns, ["id", "v"]);
    assert_eq!(outcome.rows.rows, [[Value::Integer(1), text("a")], [Value::Integer(2), text("b")]]);
    assert_eq!((outcome.changes, outcome.counts.last_insert_rowid), (2, 2));
    assert_eq!(db.does("EXPLAIN DELETE FROM t").unwrap().changes, 0);
    assert_eq!(db.one("SELECT count(*) FROM t"), Value::Integer(2));
}

#[test]
fn what_is_wrong_with_a_statement_is_said() {
    let db = Database::new();
    db.does("CREATE TABLE t (id INTEGER PRIMARY KEY, v NOT NULL)").unwrap();
    for (sql, expected) in [
        ("", "there is no statement"),
        ("-- nothing", "there is no statement"),
        ("SELEC 1", "near \"SELEC\": syntax error"),
        ("SELECT * FROM missing", "no such table: missing"),
        ("SELECT 1; SELECT 2", "more than one statement"),
        ("INSERT INTO t VALUES (1, NULL)", "NOT NULL constraint failed: t.v"),
        ("SELECT ?", "the statement has 1 parameters, and 0 were given"),
        ("INSERT INTO t VALUES (1, ?2)", "has 2 parameters, and 0 were given"),
    ] {
        let said = db.refused(sql);
        assert!(said.contains(expected), "{sql}: {said}");
        assert!(!said.contains(" at offset"), "{said}");
    }
    let many = db.with("SELECT 1", &[Value::Null]).unwrap_err().to_string();
    assert_eq!(many, "the statement has 0 parameters, and 1 were given");
    assert_eq!(db.one("SELECT count(*) FROM t"), Value::Integer(0));
}

#[test]
fn what_a_connection_keeps_is_for_one_of_its_own() {
    let db = Database::new();
    for sql in [
        "BEGIN",
        "SAVEPOINT a",
        "COMMIT",
        "ROLLBACK",
        "RELEASE a",
        "CREATE TEMP TABLE t (a)",
        "CREATE TEMPORARY VIEW v AS SELECT 1",
        "CREATE TABLE temp.t (a)",
        "CREATE VIRTUAL TABLE temp.f USING fts5(a)",
        "PRAGMA foreign_keys = off",
        "PRAGMA defer_foreign_keys = 1",
    ] {
        for on in [On::Reader, On::Writer] {
            let connection = if on == On::Reader { &db.reader } else { &db.writer };
            let ran = run(connection, &asked(sql, &[]), &soon(on)).unwrap();
            assert_eq!(ran, Ran::WantsItsOwn, "{sql} {on:?}");
            assert!(connection.is_autocommit());
        }
    }
    // On one's own they do what they say, and a change waits for its lock.
    let own = open(&db.file());
    let on = |sql: &str, on| run(&own, &asked(sql, &[]), &soon(on)).unwrap();
    assert!(matches!(on("BEGIN", On::OwnReading), Ran::Done(_)));
    assert_eq!(on("CREATE TABLE t (a)", On::OwnReading), Ran::WantsToWrite);
    assert!(matches!(on("CREATE TEMP TABLE u (a)", On::Own), Ran::Done(_)));
    assert!(matches!(on("COMMIT", On::OwnReading), Ran::Done(_)));
    assert_eq!(on("BEGIN IMMEDIATE", On::OwnReading), Ran::WantsToWrite);
    assert!(matches!(on("PRAGMA foreign_keys = off", On::Own), Ran::Done(_)));
}
