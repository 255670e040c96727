use std::time::Instant;

use super::super::statement::{Beyond, RESULT_MAX_BYTES, RESULT_MAX_ROWS, is_late};
use super::*;

const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
    SELECT count(*) FROM n";

fn numbers(count: usize) -> String {
    format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {count})
         SELECT i FROM n"
    )
}

#[test]
fn a_statement_without_end_is_stopped_at_its_time() {
    let db = Database::new();
    db.does("CREATE TABLE t (a)").unwrap();
    let began = Instant::now();
    let soon = late(On::Reader, Duration::from_millis(50));
    let fault = run(&db.reader, &asked(ENDLESS, &[]), &soon).unwrap_err();
    assert!(is_late(&fault) && fault.to_string().contains("longer than it may"), "{fault}");
    let change = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
        INSERT INTO t SELECT i FROM n";
    let soon = late(On::Writer, Duration::from_millis(50));
    let fault = db.within(|writer| run(writer, &asked(change, &[]), &soon)).unwrap_err();
    assert!(is_late(&fault), "{fault}");
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(db.one("SELECT count(*) FROM t"), Value::Integer(0));
}

#[test]
fn it_is_stopped_when_its_call_is_over() {
    let db = Database::new();
    let terms = soon(On::Reader);
    let gone = terms.gone.clone();
    let began = Instant::now();
    let fault = std::thread::scope(|scope| {
        let file = db.file();
        let running = scope.spawn(move || run(&open(&file), &asked(ENDLESS, &[]), &terms));
        // It has begun or is about to; both end.
        gone.set();
        running.join().unwrap().unwrap_err()
    });
    assert_eq!(fault, Fault::Interrupted);
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_result_is_bounded_in_rows_and_bytes() {
    let db = Database::new();
    assert_eq!(db.does(&numbers(RESULT_MAX_ROWS)).unwrap().rows.rows.len(), RESULT_MAX_ROWS);
    let said = db.refused(&numbers(RESULT_MAX_ROWS + 1));
    assert!(said.contains("larger than 50000 rows or 4 MiB"), "{said}");
    assert!(db.refused("SELECT zeroblob(3000000), zeroblob(1200000)").contains("larger"));
    // Many small values take room as well.
    let wide = format!("SELECT {} FROM ({})", ["i"; 100].join(","), numbers(5_000));
    assert!(db.refused(&wide).contains("larger"));
    const { assert!(RESULT_MAX_BYTES < 5_000 * 100 * 16) };
}

#[test]
fn a_result_for_people_is_cut_and_says_so() {
    let db = Database::new();
    let cut = |sql: &str, bounds: Bounds| {
        let terms = Terms { bounds, ..soon(On::Reader) };
        match run(&db.reader, &asked(sql, &[]), &terms).unwrap() {
            Ran::Done(outcome) => (outcome.rows.rows.len(), outcome.is_cut),
            ran => panic!("{ran:?}"),
        }
    };
    assert_eq!(cut(&numbers(10), bounded(10, 1 << 20, Beyond::Cut)), (10, false));
    assert_eq!(cut(&numbers(11), bounded(10, 1 << 20, Beyond::Cut)), (10, true));
    assert_eq!(cut(&numbers(11), bounded(99, 150, Beyond::Cut)), (2, true));
    // What changes rows changes all of them.
    db.does("CREATE TABLE t (a)").unwrap();
    let insert = format!("INSERT INTO t {} RETURNING a", numbers(20));
    let terms = Terms { bounds: bounded(3, 1 << 20, Beyond::Cut), ..soon(On::Writer) };
    let ran = db.within(|writer| run(writer, &asked(&insert, &[]), &terms)).unwrap();
    let Ran::Done(outcome) = ran else { panic!() };
    assert_eq!((outcome.rows.rows.len(), outcome.is_cut, outcome.changes), (3, true, 20));
    assert_eq!(db.one("SELECT count(*) FROM t"), Value::Integer(20));
}

#[test]
fn statements_have_sizes() {
    let db = Database::new();
    db.does("CREATE TABLE t (a)").unwrap();
    let long = format!("SELECT '{}'", "a".repeat(1 << 20));
    let columns = |count: usize| (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>().join(",");
    let likes = format!("SELECT 'a' LIKE '{}'", "%".repeat(257));
    let compound = vec!["SELECT 1"; 201].join(" UNION ALL ");
    for (sql, expected) in [
        (long, "or the statement more than 1"),
        (format!("CREATE TABLE u ({})", columns(1_001)), "too many columns"),
        (likes, "LIKE or GLOB pattern too complex"),
        (compound, "too many terms in compound SELECT"),
        ("SELECT ?1001".to_owned(), "variable number must be between ?1 and ?1000"),
        (format!("SELECT max({})", vec!["1"; 101].join(",")), "too many arguments"),
        ("SELECT zeroblob(4194305)".to_owned(), "would have more than 4 MiB"),
    ] {
        let said = db.refused(&sql);
        assert!(said.contains(expected), "{:.60}: {said}", sql);
    }
    db.does(&format!("CREATE TABLE u ({})", columns(1_000))).unwrap();
    let parameters = vec![Value::Integer(1); 1_000];
    let values = vec!["(?)"; 1_000].join(",");
    assert_eq!(
        db.with(&format!("INSERT INTO t VALUES {values}"), &parameters).unwrap().changes,
        1_000
    );
}

#[test]
fn triggers_do_not_go_on_for_ever() {
    let db = Database::new();
    for sql in [
        "CREATE TABLE a (n)",
        "CREATE TABLE b (n)",
        "CREATE TRIGGER ab AFTER INSERT ON a BEGIN INSERT INTO b VALUES (new.n + 1); END",
        "CREATE TRIGGER ba AFTER INSERT ON b BEGIN UPDATE a SET n = n + 1; END",
        "CREATE TRIGGER aa AFTER UPDATE ON a BEGIN INSERT INTO a VALUES (new.n + 1); END",
    ] {
        db.does(sql).unwrap();
    }
    let own = open(&db.file());
    own.pragma_update(None, "recursive_triggers", true).unwrap();
    let fault = run(&own, &asked("INSERT INTO a VALUES (1)", &[]), &soon(On::Own)).unwrap_err();
    assert!(fault.to_string().contains("triggers nested too deep"), "{fault}");
    assert_eq!(db.one("SELECT count(*) FROM a"), Value::Integer(0));
}
