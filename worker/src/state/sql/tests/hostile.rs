use super::*;

/// In a row of its own directory nothing else came to be.
fn assert_alone(db: &Database) {
    let names = std::fs::read_dir(db.directory.path()).unwrap();
    let mut names: Vec<_> =
        names.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["1.db", "1.db-shm", "1.db-wal"]);
}

#[test]
fn row_33_attach_and_detach() {
    let db = Database::new();
    let other = db.directory.path().join("kv.db");
    for sql in [
        format!("ATTACH '{}' AS other", other.display()),
        "ATTACH DATABASE ':memory:' AS other".to_owned(),
        "ATTACH '' AS other".to_owned(),
        "/* a */ attach 'file:x?mode=memory' as other".to_owned(),
        "EXPLAIN ATTACH 'x' AS other".to_owned(),
        "DETACH main".to_owned(),
    ] {
        let said = db.refused(&sql);
        assert!(said.contains("cannot be attached"), "{sql}: {said}");
        assert!(!said.contains(&*db.directory.path().to_string_lossy()), "{said}");
    }
    assert_alone(&db);
}

#[test]
fn row_33_load_extension() {
    let db = Database::new();
    for sql in ["SELECT load_extension('x')", "SELECT load_extension('x', 'y')"] {
        assert_eq!(db.refused(sql), "the function load_extension is not available");
    }
    db.does("CREATE VIEW v AS SELECT 'x' AS a").unwrap();
    assert!(!db.refused("CREATE TABLE t (a CHECK (load_extension(a)))").is_empty());
    assert!(db.refused("SELECT a FROM v WHERE load_extension(a)").contains("load_extension"));
}

#[test]
fn row_33_pragma_writable_schema_and_temp_store_directory() {
    let db = Database::new();
    db.does("CREATE TABLE t (a)").unwrap();
    for sql in [
        "PRAGMA writable_schema = ON",
        "PRAGMA writable_schema = RESET",
        "PRAGMA main.writable_schema = 1",
        "PRAGMA temp_store_directory = '/tmp'",
        "PRAGMA data_store_directory = '/tmp'",
        "PRAGMA temp_store = file",
        "PRAGMA journal_mode = off",
        "PRAGMA locking_mode = exclusive",
        "PRAGMA synchronous = off",
        "PRAGMA trusted_schema = on",
        "PRAGMA cell_size_check = off",
        "PRAGMA mmap_size = 1",
        "PRAGMA hard_heap_limit = 0",
        "PRAGMA cache_size = 1000000",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA query_only = off",
        "PRAGMA database_list",
        "PRAGMA auto_vacuum = full",
        "SELECT * FROM pragma_database_list",
    ] {
        let said = db.refused(sql);
        assert!(said.contains("is not available") || said.contains("not set"), "{sql}: {said}");
        assert!(!said.contains(&*db.directory.path().to_string_lossy()), "{said}");
    }
    for sql in [
        "UPDATE sqlite_schema SET sql = 'x'",
        "INSERT INTO sqlite_master VALUES ('table', 'u', 'u', 0, 'CREATE TABLE u (a)')",
        "DELETE FROM sqlite_schema",
        "DROP TABLE sqlite_schema",
    ] {
        db.refused(sql);
    }
    assert_eq!(db.one("SELECT count(*) FROM sqlite_schema"), Value::Integer(1));
    // What only tells is there.
    for sql in [
        "PRAGMA table_info(t)",
        "PRAGMA table_list",
        "SELECT name FROM pragma_table_xinfo('t')",
        "PRAGMA index_list(t)",
        "PRAGMA foreign_key_list(t)",
        "PRAGMA foreign_keys",
        "PRAGMA quick_check",
        "PRAGMA user_version = 3",
        "PRAGMA user_version",
        "PRAGMA foreign_keys = ON",
    ] {
        db.does(sql).unwrap_or_else(|fault| panic!("{sql}: {fault}"));
    }
}

#[test]
fn row_33_vacuum_into() {
    let db = Database::new();
    let other = db.directory.path().join("copy.db");
    for sql in [
        format!("VACUUM INTO '{}'", other.display()),
        "VACUUM main INTO 'copy.db'".to_owned(),
        "VACUUM".to_owned(),
    ] {
        assert!(db.refused(&sql).contains("VACUUM is not available"), "{sql}");
    }
    // And where the first word did not say it.
    let writer = open(&db.file());
    let (error, said) = guard::during(
        guard::Running {
            holder: super::super::authorizer::Holder::Guest,
            counts: Counts::default(),
            until: guard::within(STATEMENT_MAX),
            gone: Gone::default(),
            changes: false,
        },
        || writer.execute_batch("VACUUM INTO 'copy.db'").unwrap_err(),
    );
    assert!(said.refused.is_some(), "{error}");
    assert_alone(&db);
}

#[test]
fn row_33_full_text_and_rtree_abuse() {
    let db = Database::new();
    for sql in [
        "CREATE VIRTUAL TABLE f USING fts3(a)",
        "CREATE VIRTUAL TABLE f USING fts4(a)",
        "CREATE VIRTUAL TABLE f USING fts3tokenize('simple')",
        "CREATE VIRTUAL TABLE f USING dbstat",
        "CREATE VIRTUAL TABLE f USING zipfile('/etc/passwd')",
        "CREATE VIRTUAL TABLE f USING csv(filename='/etc/passwd')",
    ] {
        let said = db.refused(sql);
        assert!(said.contains("is not available"), "{sql}: {said}");
    }
    assert!(db.refused("SELECT fts3_tokenizer('simple')").contains("not available"));
    assert!(db.refused("SELECT fts3_tokenizer('simple', x'00')").contains("not available"));
    // What they are for works.
    for sql in [
        "CREATE VIRTUAL TABLE f USING fts5(a, b)",
        "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1)",
        "INSERT INTO f VALUES ('one', 'the quick brown fox'), ('two', 'lazy dogs')",
        "INSERT INTO boxes VALUES (1, 0, 5), (2, 7, 9)",
        "INSERT INTO f (f) VALUES ('optimize')",
        "INSERT INTO f (f) VALUES ('integrity-check')",
    ] {
        db.does(sql).unwrap_or_else(|fault| panic!("{sql}: {fault}"));
    }
    let found = "SELECT highlight(f, 1, '<', '>') FROM f WHERE f MATCH 'fox OR cat' ORDER BY rank";
    assert_eq!(db.one(found), text("the quick brown <fox>"));
    assert_eq!(db.one("SELECT id FROM boxes WHERE x0 > 6"), Value::Integer(2));
    // What they keep is not to be written past them.
    for sql in [
        "INSERT INTO f_data VALUES (1, zeroblob(99))",
        "UPDATE f_data SET block = x'ff'",
        "DELETE FROM f_idx",
        "UPDATE boxes_node SET data = x'00'",
        "DROP TABLE f_content",
    ] {
        db.refused(sql);
    }
    assert!(db.refused("SELECT * FROM f WHERE f MATCH '\"'").contains("unterminated"));
}

/// With one of these FTS5 would write within its own savepoint without end.
#[test]
fn row_33_what_a_virtual_table_keeps_has_no_index_and_nothing_refers_to_it() {
    let db = Database::new();
    let kept = "on what a virtual table keeps is not available";
    db.does("CREATE TABLE early (a REFERENCES f_data (id) ON DELETE CASCADE)").unwrap();
    assert!(db.refused("CREATE VIRTUAL TABLE f USING fts5(a)").contains(kept));
    db.does("DROP TABLE early").unwrap();
    db.does("CREATE VIRTUAL TABLE f USING fts5(a)").unwrap();
    for sql in [
        "CREATE INDEX i ON f_data (block)",
        "CREATE UNIQUE INDEX i ON F_DATA (id + 1)",
        "CREATE INDEX i ON f_content (c0) WHERE c0 > 1",
        "CREATE TABLE late (a REFERENCES f_data (id))",
        "CREATE TABLE late (a, FOREIGN KEY (a) REFERENCES f_docsize (id) ON UPDATE SET NULL)",
        "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1); CREATE INDEX i ON boxes_node (data)",
    ] {
        db.refused(sql);
    }
    assert!(db.refused("CREATE INDEX i ON f_data (block)").contains(kept));
    db.does("CREATE TABLE f_notes (a)").unwrap();
    db.does("CREATE INDEX notes ON f_notes (a)").unwrap();
    for _ in 0..3 {
        db.does("INSERT INTO f VALUES ('some words')").unwrap();
    }
    assert_eq!(db.one("SELECT count(*) FROM f WHERE f MATCH 'words'"), Value::Integer(3));
    // Also where it is one's own, and temporary.
    let own = open(&db.file());
    let on = |sql: &str| run(&own, &asked(sql, &[]), &soon(On::Own));
    on("CREATE VIRTUAL TABLE temp.g USING fts5(a)").unwrap();
    assert!(on("CREATE INDEX temp.i ON g_data (block)").is_err());
    assert!(own.is_autocommit());
    on("BEGIN").unwrap();
    assert!(on("CREATE INDEX i ON f_data (block)").is_err());
    assert!(!own.is_autocommit());
    on("INSERT INTO f VALUES ('more words')").unwrap();
    on("COMMIT").unwrap();
}

#[test]
fn row_33_a_blob_of_1_gb() {
    let db = Database::new();
    db.does("CREATE TABLE t (a)").unwrap();
    for sql in [
        "SELECT zeroblob(1073741824)",
        "SELECT length(randomblob(1073741824))",
        "INSERT INTO t VALUES (zeroblob(1073741824))",
        "SELECT printf('%1073741824d', 1)",
        "SELECT replace(hex(zeroblob(2000000)), '0', 'aaaaaaaaaa')",
        "SELECT group_concat(a, '') FROM (SELECT hex(zeroblob(2000000)) AS a
            UNION ALL SELECT hex(zeroblob(2000000)))",
    ] {
        let said = db.refused(sql);
        assert!(said.contains("would have more than 4 MiB"), "{sql}: {said}");
    }
    assert_eq!(db.one("SELECT count(*) FROM t"), Value::Integer(0));
}

#[test]
fn row_33_deep_expression() {
    let db = Database::new();
    let sums = format!("SELECT {}", vec!["1"; 5_000].join("+"));
    let brackets = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let selects = format!("SELECT {}1{}", "(SELECT ".repeat(1_000), ")".repeat(1_000));
    let calls = format!("SELECT {}1{}", "abs(".repeat(5_000), ")".repeat(5_000));
    let json = format!("SELECT json('{}{}')", "[".repeat(100_000), "]".repeat(100_000));
    let like = format!("SELECT 1 {}", "LIKE 1 ".repeat(5_000));
    for sql in [sums, brackets, selects, calls, json, like] {
        let said = db.refused(&sql);
        assert!(!said.is_empty() && said.len() < 200, "{:.40}: {said}", sql);
    }
    for depth in 0..60 {
        let view = match depth {
            0 => "CREATE VIEW v0 AS SELECT 1 AS a".to_owned(),
            _ => format!("CREATE VIEW v{depth} AS SELECT a + 1 AS a FROM v{}", depth - 1),
        };
        db.does(&view).unwrap();
    }
    let _ = db.run("SELECT * FROM v59", &[], Counts::default());
    assert_eq!(db.one("SELECT 1"), Value::Integer(1));
}

#[test]
fn row_33_max_page_count() {
    let db = Database::new();
    db.does("CREATE TABLE t (a)").unwrap();
    assert!(db.refused("PRAGMA max_page_count = 1000000").contains("not available"));
    // As the tenant's share is held.
    db.writer.query_row("PRAGMA max_page_count = 20", [], |_| Ok(())).unwrap();
    let full = loop {
        match db.does("INSERT INTO t VALUES (zeroblob(4000))") {
            Ok(_) => {}
            Err(fault) => break fault,
        }
    };
    assert_eq!(full, Fault::Full);
    // Reading goes on, and room that is made is room again.
    let Value::Integer(kept) = db.one("SELECT count(*) FROM t") else { panic!() };
    assert!(kept > 5, "{kept}");
    db.does("DELETE FROM t").unwrap();
    db.does("INSERT INTO t VALUES (zeroblob(4000))").unwrap();
}

#[test]
fn row_33_names_of_the_platforms() {
    let db = Database::new();
    for sql in [
        "CREATE TABLE _hearth_x (a)",
        "CREATE TABLE \"_HEARTH_x\" (a)",
        "CREATE VIEW _hearth_v AS SELECT 1",
        "CREATE VIRTUAL TABLE _hearth_f USING fts5(a)",
    ] {
        assert!(db.refused(sql).contains("are the platform's"), "{sql}");
    }
    db.writer
        .execute_batch("CREATE TABLE _hearth_x (a); INSERT INTO _hearth_x VALUES (1)")
        .unwrap();
    db.does("CREATE TABLE own (a)").unwrap();
    for sql in [
        "SELECT * FROM _hearth_x",
        "DROP TABLE _hearth_x",
        "UPDATE _hearth_x SET a = 2",
        "ALTER TABLE _hearth_x RENAME TO mine",
        "CREATE TRIGGER r AFTER INSERT ON _hearth_x BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE f USING fts5(a, content='_hearth_x')",
    ] {
        if !sql.contains("content=") {
            assert!(db.refused(sql).contains("are the platform's"), "{sql}");
        } else {
            let _ = db.run(sql, &[], Counts::default());
            db.refused("SELECT a FROM f");
        }
    }
    let renames = asked("ALTER TABLE own RENAME TO _hearth_y", &[]);
    let said = run(&db.writer, &renames, &soon(On::Own)).unwrap_err().to_string();
    assert!(said.contains("are the platform's"), "{said}");
    db.does("INSERT INTO own VALUES (1)").unwrap();
    let kept = db.writer.query_row("SELECT a FROM _hearth_x", [], |row| row.get::<_, i64>(0));
    assert_eq!(kept.unwrap(), 1);
}

/// What a worker that was taken over may leave in a file, for whoever opens it.
#[test]
fn row_34_a_hostile_file_is_only_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("1.db");
    let plain = Connection::open(&file).unwrap();
    plain
        .execute_batch(
            "CREATE TABLE t (a);
             INSERT INTO t VALUES (1);
             CREATE VIEW v AS SELECT load_extension('x') AS a FROM t;
             CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT load_extension('x'); END;
             CREATE VIEW w AS SELECT * FROM pragma_database_list;",
        )
        .unwrap();
    let ask = |sql: &str| {
        let connection = open_as_found(&file)?;
        run(&connection, &asked(sql, &[]), &soon(On::Own))
    };
    for sql in ["SELECT * FROM v", "INSERT INTO t VALUES (2)", "SELECT * FROM w"] {
        assert!(ask(sql).is_err(), "{sql}");
    }
    assert!(ask("SELECT * FROM t").is_ok());
    plain
        .execute_batch(
            "PRAGMA writable_schema = ON;
             INSERT INTO sqlite_schema VALUES ('table', 'odd', 'odd', 999999, 'CREATE TABLE odd (a)');
             INSERT INTO sqlite_schema VALUES ('index', 'x', 't', 2, 'CREATE INDEX x ON t (a)');",
        )
        .unwrap();
    drop(plain);
    let clean = std::fs::read(&file).unwrap();
    assert!(ask("SELECT * FROM odd").is_err());
    // Wherever a bit is turned, there is an answer or an error.
    let mut random = fuzz::Random::new(34);
    for _ in 0..200 {
        let mut bytes = clean.clone();
        for _ in 0..=random.below(8) {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        std::fs::write(&file, bytes).unwrap();
        for sql in
            ["SELECT * FROM t", "PRAGMA integrity_check", "DELETE FROM t", "SELECT * FROM odd"]
        {
            let _ = ask(sql);
        }
        let _ = std::fs::remove_file(directory.path().join("1.db-wal"));
        let _ = std::fs::remove_file(directory.path().join("1.db-shm"));
    }
}

fn open_as_found(file: &Path) -> Result<Connection, Fault> {
    let mut connection = Connection::open(file)?;
    guard::set_up(&mut connection, || false)?;
    Ok(connection)
}
