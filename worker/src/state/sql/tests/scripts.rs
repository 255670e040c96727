use super::super::script::{Imported, export, import};
use super::*;

fn text_of(db: &Connection) -> String {
    let mut text = String::new();
    let is_whole = export(db, &mut |piece| {
        text.push_str(&piece);
        true
    });
    assert!(is_whole.unwrap());
    text
}

fn take_in(db: &Database, script: &str) -> Result<Imported, Fault> {
    db.within(|connection| import(connection, script, &soon(On::Writer)))
}

#[test]
fn what_is_exported_is_the_same_when_it_is_imported() {
    let db = Database::new();
    for sql in [
        "CREATE TABLE child (id INTEGER PRIMARY KEY, parent REFERENCES parent, \"odd \"\"name\" TEXT,
            twice AS (id * 2))",
        "CREATE TABLE parent (id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
        "CREATE TABLE plain (a, b, PRIMARY KEY (a)) WITHOUT ROWID",
        "CREATE INDEX by_v ON parent (v)",
        "CREATE VIEW both AS SELECT * FROM parent JOIN child ON child.parent = parent.id",
        "CREATE TRIGGER r AFTER DELETE ON parent BEGIN DELETE FROM plain; SELECT 1; END",
        "CREATE TRIGGER instead INSTEAD OF INSERT ON both BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE docs USING fts5(title, body)",
        "CREATE VIRTUAL TABLE words USING fts5vocab(docs, row)",
        "CREATE VIRTUAL TABLE outside USING fts5(v, content='parent', content_rowid='id')",
        "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1)",
        "INSERT INTO parent (id, v) VALUES (5, NULL), (6, 0.1), (7, 1e300), (8, 9e999), (9, 3.0)",
        "INSERT INTO parent (v) VALUES (x'00ff'), ('it''s; -- \n'), (CAST(x'610062' AS TEXT))",
        "INSERT INTO child VALUES (1, 5, 'a'), (2, NULL, 'Zoë')",
        "INSERT INTO plain VALUES ('k', 1)",
        "INSERT INTO docs (rowid, title, body) VALUES (70, 'one', 'the quick fox')",
        "INSERT INTO boxes VALUES (1, 0.5, 2)",
        "DELETE FROM parent WHERE id = 9",
        "PRAGMA user_version = 12",
        "PRAGMA application_id = 34",
    ] {
        db.does(sql).unwrap_or_else(|fault| panic!("{sql}: {fault}"));
    }
    let exported = text_of(&db.reader);
    let other = Database::new();
    let imported = take_in(&other, &exported).unwrap_or_else(|fault| panic!("{fault}\n{exported}"));
    assert!(imported.statements > 20 && imported.changes >= 12, "{imported:?}");
    assert_eq!(text_of(&other.reader), exported);
    assert_eq!(other.one("SELECT seq FROM sqlite_sequence"), Value::Integer(12));
    assert_eq!(other.one("SELECT rowid FROM docs WHERE docs MATCH 'quick'"), Value::Integer(70));
    assert_eq!(other.one("SELECT id FROM boxes WHERE x0 > 0.4"), Value::Integer(1));
    assert_eq!(other.one("PRAGMA user_version"), Value::Integer(12));
    assert_eq!(other.one("PRAGMA application_id"), Value::Integer(34));
    assert_eq!(other.one("PRAGMA integrity_check"), text("ok"));
}

#[test]
fn a_script_is_one_transaction_whatever_it_says() {
    let db = Database::new();
    let script = "PRAGMA foreign_keys=OFF;\nBEGIN;\nCREATE TABLE t (a REFERENCES u (b));
        INSERT INTO t VALUES (1);\nCOMMIT;\nCREATE TABLE u (b PRIMARY KEY);\n";
    let said = take_in(&db, script).unwrap_err().to_string();
    assert_eq!(said, "a row of t refers to one that is not there");
    let whole = format!("{script}INSERT INTO u VALUES (1);");
    assert_eq!(take_in(&db, &whole).unwrap(), Imported { statements: 4, changes: 2 });
    assert_eq!(db.one("PRAGMA foreign_keys"), Value::Integer(1));

    for (script, expected) in [
        ("INSERT INTO t VALUES (1);\n\n  SELECT * FROM nowhere;", "line 3: no such table: nowhere"),
        ("INSERT INTO t VALUES (1); ATTACH 'x' AS y;", "line 1: another file cannot be attached"),
        ("\nSAVEPOINT a;", "line 2: a script has no temporary table"),
        ("INSERT INTO t VALUES (1); PRAGMA writable_schema=ON;", "line 1: PRAGMA writable_schema"),
    ] {
        let said = take_in(&db, script).unwrap_err().to_string();
        assert!(said.starts_with(expected), "{said}");
    }
    assert_eq!(db.one("SELECT count(*) FROM t"), Value::Integer(1));
}

#[test]
fn a_long_line_is_taken_from_a_script_alone() {
    let db = Database::new();
    let long = format!("CREATE TABLE t AS SELECT x'{}' AS a", "00".repeat(2 << 20));
    assert!(db.refused(&long).contains("or the statement more than 1"));
    take_in(&db, &long).unwrap();
    assert_eq!(db.one("SELECT length(a) FROM t"), Value::Integer(2 << 20));
    assert!(db.refused(&long).contains("or the statement more than 1"));
    let exported = text_of(&db.reader);
    take_in(&Database::new(), &exported).unwrap();
}

#[test]
fn an_export_ends_when_it_is_not_taken() {
    let db = Database::new();
    db.does("CREATE TABLE t (a)").unwrap();
    db.does(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000)
         INSERT INTO t SELECT 'some text' || i FROM n",
    )
    .unwrap();
    let mut pieces = 0;
    let is_whole = export(&db.reader, &mut |_| {
        pieces += 1;
        pieces < 2
    });
    assert_eq!((is_whole.unwrap(), pieces), (false, 2));
}
