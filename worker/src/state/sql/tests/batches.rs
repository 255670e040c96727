use hearth_host::sql::{BatchError, Done, Statement};

use super::super::batch::{Batch, STATEMENTS_MAX};
use super::*;

fn statement(sql: &str, rows: impl Into<Option<u64>>) -> Statement {
    Statement { sql: sql.to_owned(), parameters: Vec::new(), rows: rows.into() }
}

fn batch(db: &Database, statements: &[Statement]) -> Result<Vec<Done>, BatchError> {
    let batch = Batch::new(statements.to_vec())?;
    let mut refused = None;
    let done = db.within(|connection| {
        batch.run(connection, soon(On::Writer)).map_err(|it| {
            refused = Some(it.error);
            it.fault
        })
    });
    done.map_err(|_| refused.unwrap())
}

fn accounts() -> Database {
    let db = Database::new();
    db.does("CREATE TABLE accounts (name TEXT PRIMARY KEY, cents INTEGER CHECK (cents >= 0))")
        .unwrap();
    db.does("INSERT INTO accounts VALUES ('ada', 100), ('bob', 0)").unwrap();
    db
}

#[test]
fn all_of_it_counts_and_each_says_what_it_did() {
    let db = accounts();
    let done = batch(
        &db,
        &[
            statement("UPDATE accounts SET cents = cents - 30 WHERE name = 'ada'", 1),
            statement(
                "UPDATE accounts SET cents = cents + 30 WHERE name = 'bob' RETURNING cents",
                1,
            ),
            statement("INSERT INTO accounts VALUES ('eve', 0)", None),
            statement("SELECT name, changes(), last_insert_rowid() FROM accounts ORDER BY name", 0),
            statement("CREATE TABLE later (a)", 0),
        ],
    )
    .unwrap();
    let counts: Vec<_> = done.iter().map(|it| (it.changes, it.last_insert_rowid)).collect();
    assert_eq!(counts, [(1, 0), (1, 0), (1, 3), (0, 3), (0, 3)]);
    assert_eq!(done[1].rows.columns, ["cents"]);
    assert_eq!(done[1].rows.rows, [[Value::Integer(30)]]);
    assert_eq!(done[3].rows.rows.len(), 3);
    assert_eq!(done[3].rows.rows[0], [text("ada"), Value::Integer(1), Value::Integer(3)]);
    assert_eq!(db.one("SELECT sum(cents) FROM accounts"), Value::Integer(100));
    assert_eq!(batch(&db, &[]).unwrap(), []);
}

#[test]
fn it_is_refused_whole_with_the_place_and_why() {
    let db = accounts();
    let take = statement("UPDATE accounts SET cents = cents - 30 WHERE name = 'ada'", 1);
    let refused = |last: Statement| batch(&db, &[take.clone(), last]).unwrap_err();
    for (sql, rows, expected) in [
        ("UPDATE accounts SET cents = 1 WHERE name = 'zoe'", 1, 0),
        ("UPDATE accounts SET cents = 1", 1, 2),
        ("SELECT 1", 1, 0),
    ] {
        let error = BatchError::Rows { place: 1, expected: rows, changed: expected };
        assert_eq!(refused(statement(sql, rows)), error, "{sql}");
    }
    for (sql, why) in [
        ("UPDATE accounts SET cents = -1", "CHECK constraint failed: cents >= 0"),
        ("INSERT OR ROLLBACK INTO accounts VALUES ('ada', 1)", "UNIQUE constraint failed"),
        ("SELECT * FROM nowhere", "no such table: nowhere"),
        ("BEGIN", "a batch is a transaction itself"),
        ("COMMIT", "a batch is a transaction itself"),
        ("SAVEPOINT a", "a batch is a transaction itself"),
        ("CREATE TEMP TABLE t (a)", "a batch is a transaction itself"),
        ("ATTACH 'x' AS y", "cannot be attached"),
    ] {
        match refused(statement(sql, None)) {
            BatchError::Refused { place: 1, reason } => assert!(reason.contains(why), "{reason}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
    assert_eq!(db.one("SELECT cents FROM accounts WHERE name = 'ada'"), Value::Integer(100));
}

#[test]
fn it_is_bounded_as_a_whole() {
    let db = accounts();
    let many = vec![statement("SELECT 1", None); STATEMENTS_MAX];
    assert_eq!(batch(&db, &many).unwrap().len(), STATEMENTS_MAX);
    let more = vec![statement("SELECT 1", None); STATEMENTS_MAX + 1];
    let BatchError::Failed(said) = batch(&db, &more).unwrap_err() else { panic!() };
    assert!(said.contains("at most 1000 statements, and this one has 1001"), "{said}");
    let large = vec![statement("SELECT zeroblob(1500000)", None); 3];
    match batch(&db, &large).unwrap_err() {
        BatchError::Refused { place: 2, reason } => assert!(reason.contains("larger"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
