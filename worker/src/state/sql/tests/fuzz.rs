//! Random statements of a grammar, good ones and hostile ones, from a seed: whatever they do to their
//! own database, they harm nothing else. `SOAK` makes them ten thousand; `SEED` says where to begin.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;

const SHORT: usize = 400;
const LONG: usize = 10_000;

/// The same numbers from the same seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most as u64).unwrap()
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

/// Writes a statement of the grammar.
struct Writer {
    random: Random,
    depth: usize,
}

impl Writer {
    fn name(&mut self) -> String {
        const NAMES: &[&str] = &[
            "a",
            "b",
            "t",
            "t1",
            "u",
            "f",
            "box",
            "v",
            "sqlite_schema",
            "sqlite_sequence",
            "f_data",
            "temp.t",
            "main.t",
            "_hearth_x",
            "pragma_database_list",
            "pragma_table_list",
            "rowid",
            "sqlite_stat1",
            "\"odd name\"",
            "[x]",
            "json_each",
            "sqlite_temp_schema",
            "box_node",
        ];
        self.random.pick(NAMES).to_owned()
    }

    fn literal(&mut self) -> String {
        const LITERALS: &[&str] = &[
            "NULL",
            "0",
            "1",
            "-1",
            "9223372036854775807",
            "-9223372036854775808",
            "1e308",
            "''",
            "'a'",
            "'../../kv.db'",
            "x''",
            "x'00ff'",
            "zeroblob(9)",
            "zeroblob(5000000)",
            "?",
            "?1",
            "'file:/etc/passwd'",
            "randomblob(100)",
            "'%_%'",
            "9e999",
            "CURRENT_TIMESTAMP",
        ];
        self.random.pick(LITERALS).to_owned()
    }

    fn expression(&mut self) -> String {
        self.depth += 1;
        let written =
            match if self.depth > 6 { self.random.below(3) } else { self.random.below(12) } {
                0 | 1 => self.literal(),
                2 => self.name(),
                3 | 4 => {
                    let sign = self.random.pick(&[
                        "+",
                        "-",
                        "*",
                        "/",
                        "%",
                        "||",
                        "=",
                        "<>",
                        "<",
                        "AND",
                        "OR",
                        "IS",
                        "LIKE",
                        "GLOB",
                        "MATCH",
                        "<<",
                        "&",
                        "COLLATE nocase =",
                        "->>",
                        "IN (1, 2) =",
                    ]);
                    format!("({} {sign} {})", self.expression(), self.expression())
                }
                5..=7 => {
                    let function = self.random.pick(&[
                        "abs",
                        "length",
                        "hex",
                        "max",
                        "printf",
                        "load_extension",
                        "fts3_tokenizer",
                        "changes",
                        "last_insert_rowid",
                        "json",
                        "json_extract",
                        "replace",
                        "substr",
                        "group_concat",
                        "count",
                        "sum",
                        "randomblob",
                        "zeroblob",
                        "quote",
                        "char",
                        "highlight",
                        "rtreecheck",
                        "sqlite_version",
                        "unistr",
                        "likelihood",
                        "readfile",
                        "writefile",
                        "edit",
                        "sqlite_compileoption_get",
                        "date",
                        "strftime",
                        "fts5",
                    ]);
                    let count = self.random.below(4);
                    let given: Vec<_> = (0..count).map(|_| self.expression()).collect();
                    format!("{function}({})", given.join(", "))
                }
                8 => format!("(SELECT {} FROM {})", self.expression(), self.name()),
                9 => format!("CASE WHEN {} THEN {} END", self.expression(), self.expression()),
                10 => format!(
                    "CAST({} AS {})",
                    self.expression(),
                    self.random.pick(&["TEXT", "BLOB", "INT"])
                ),
                _ => format!("NOT EXISTS ({})", self.select()),
            };
        self.depth -= 1;
        written
    }

    fn select(&mut self) -> String {
        self.depth += 1;
        let mut sql = match self.random.below(4) {
            0 => format!(
                "WITH RECURSIVE {n}(a) AS (SELECT 1 UNION {all} SELECT {e} FROM {n} {limit}) ",
                n = self.random.pick(&["c", "t", "d"]),
                all = self.random.pick(&["", "ALL"]),
                e = self.expression(),
                limit = self.random.pick(&["LIMIT 50", "LIMIT 50", ""]),
            ),
            _ => String::new(),
        };
        sql += &format!("SELECT {} FROM {}", self.expression(), self.name());
        if self.random.below(3) == 0 {
            sql += &format!(" JOIN {} ON {}", self.name(), self.expression());
        }
        if self.random.below(2) == 0 {
            sql += &format!(" WHERE {}", self.expression());
        }
        if self.random.below(4) == 0 {
            sql += &format!(" GROUP BY {} ORDER BY {}", self.expression(), self.expression());
        }
        if self.depth < 3 && self.random.below(5) == 0 {
            sql += &format!(
                " {} {}",
                self.random.pick(&["UNION", "EXCEPT", "UNION ALL"]),
                self.select()
            );
        }
        self.depth -= 1;
        sql
    }

    fn statement(&mut self) -> String {
        match self.random.below(24) {
            0..=3 => self.select(),
            4..=6 => {
                let how =
                    self.random.pick(&["", "OR REPLACE", "OR ROLLBACK", "OR FAIL", "OR IGNORE"]);
                let name = self.name();
                match self.random.below(3) {
                    0 => format!("INSERT {how} INTO {name} {}", self.select()),
                    1 => format!("INSERT {how} INTO {name} DEFAULT VALUES RETURNING *"),
                    _ => format!(
                        "INSERT {how} INTO {name} VALUES ({}, {})",
                        self.expression(),
                        self.expression()
                    ),
                }
            }
            7 | 8 => format!(
                "UPDATE {} SET a = {} WHERE {}",
                self.name(),
                self.expression(),
                self.expression()
            ),
            9 => format!("DELETE FROM {} WHERE {}", self.name(), self.expression()),
            10 | 11 => {
                let kind = self.random.pick(&["TABLE", "TEMP TABLE", "TABLE IF NOT EXISTS"]);
                let end = self.random.pick(&["", "STRICT", "WITHOUT ROWID"]);
                let check = self.expression();
                format!(
                    "CREATE {kind} {} (a PRIMARY KEY, b DEFAULT 1 CHECK ({check})) {end}",
                    self.name()
                )
            }
            12 => format!("CREATE TABLE {} AS {}", self.name(), self.select()),
            13 => format!(
                "CREATE INDEX i{} ON {} ({})",
                self.random.below(4),
                self.name(),
                self.expression()
            ),
            14 => format!(
                "CREATE {} v AS {}",
                self.random.pick(&["VIEW", "TEMP VIEW"]),
                self.select()
            ),
            15 => format!(
                "CREATE {} r AFTER {} ON {} BEGIN {}; {}; END",
                self.random.pick(&["TRIGGER", "TEMP TRIGGER"]),
                self.random.pick(&["INSERT", "UPDATE", "DELETE"]),
                self.name(),
                self.select(),
                self.select(),
            ),
            16 => format!(
                "CREATE VIRTUAL TABLE {} USING {}",
                self.name(),
                self.random.pick(&[
                    "fts5(a, b)",
                    "rtree(id, a, b)",
                    "fts4(a)",
                    "fts5(a, content='t')",
                    "dbstat",
                    "fts5vocab(f, row)",
                    "fts3tokenize('porter')",
                    "csv('x')",
                    "fts5(a, tokenize='trigram')",
                ])
            ),
            17 => format!(
                "DROP {} {}",
                self.random.pick(&["TABLE", "VIEW", "INDEX", "TRIGGER"]),
                self.name()
            ),
            18 => format!(
                "ALTER TABLE {} {}",
                self.name(),
                self.random.pick(&[
                    "RENAME TO u",
                    "ADD COLUMN c",
                    "DROP COLUMN b",
                    "RENAME a TO z"
                ])
            ),
            19 | 20 => {
                let pragma = self.random.pick(&[
                    "writable_schema",
                    "journal_mode",
                    "user_version",
                    "table_info",
                    "temp_store",
                    "temp_store_directory",
                    "integrity_check",
                    "foreign_keys",
                    "page_size",
                    "key",
                    "wal_checkpoint",
                    "locking_mode",
                    "database_list",
                    "mmap_size",
                    "max_page_count",
                    "incremental_vacuum",
                    "optimize",
                    "shrink_memory",
                    "threads",
                    "secure_delete",
                    "hard_heap_limit",
                    "recursive_triggers",
                    "schema_version",
                    "application_id",
                ]);
                let value = self.random.pick(&["", " = 1", " = 0", "(t)", " = 'delete'", " = off"]);
                format!("PRAGMA {pragma}{value}")
            }
            21 => self
                .random
                .pick(&[
                    "BEGIN",
                    "BEGIN IMMEDIATE",
                    "COMMIT",
                    "ROLLBACK",
                    "SAVEPOINT a",
                    "RELEASE a",
                    "ROLLBACK TO a",
                    "END",
                ])
                .to_owned(),
            22 => self
                .random
                .pick(&[
                    "ATTACH '../neighbour/kv.db' AS n",
                    "ATTACH 'kv.db' AS n",
                    "VACUUM",
                    "VACUUM INTO '../neighbour/x.db'",
                    "DETACH main",
                    "ANALYZE",
                    "REINDEX",
                    "EXPLAIN ATTACH 'x' AS y",
                    "REINDEX t",
                    "ANALYZE t",
                ])
                .to_owned(),
            _ => self.noise(),
        }
    }

    /// A statement that was torn and mended at random.
    fn noise(&mut self) -> String {
        let sql = if self.depth > 2 { "SELECT 1".to_owned() } else { self.select() };
        let mut letters: Vec<char> = sql.chars().collect();
        for _ in 0..=self.random.below(4) {
            let at = self.random.below(letters.len());
            match self.random.below(3) {
                0 => letters[at] = ['\'', '"', ';', '(', ')', '\0', '[', '-'][self.random.below(8)],
                1 => letters.truncate(at.max(1)),
                _ => letters.insert(at, ' '),
            }
        }
        letters.into_iter().collect()
    }
}

/// What most statements are about.
const BEGINNING: &[&str] = &[
    "CREATE TABLE t (a PRIMARY KEY, b)",
    "CREATE TABLE u (a INTEGER PRIMARY KEY AUTOINCREMENT, b)",
    "CREATE VIRTUAL TABLE f USING fts5(a, b)",
    "CREATE VIRTUAL TABLE box USING rtree(id, a, b)",
    "INSERT INTO t VALUES (1, 'a'), ('b', x'00')",
    "INSERT INTO f VALUES ('one', 'two')",
];

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(directory: &Path) -> Files {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|it| it.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

#[test]
fn row_33_random_statements_harm_nothing_but_their_database() {
    let count = if std::env::var_os("SOAK").is_some() { LONG } else { SHORT };
    let seed = std::env::var_os("SEED").and_then(|seed| seed.to_str()?.parse().ok()).unwrap_or(7);
    println!("seed {seed}");
    let root = tempfile::tempdir().unwrap();
    let [own, beside] = ["own", "neighbour"].map(|name| root.path().join(name));
    std::fs::create_dir(&own).unwrap();
    std::fs::create_dir(&beside).unwrap();
    for directory in [&own, &beside] {
        let stores = Connection::open(directory.join("kv.db")).unwrap();
        stores.execute_batch("CREATE TABLE entries (a); INSERT INTO entries VALUES (1)").unwrap();
    }
    std::fs::write(own.join("turn"), "").unwrap();
    let before = (files(&own), files(&beside));

    let file = own.join("1.db");
    let writer = open(&file);
    writer.execute_batch("CREATE TABLE _hearth_x (a); INSERT INTO _hearth_x VALUES (1)").unwrap();
    let reader = open(&file);
    reader.pragma_update(None, "query_only", true).unwrap();
    let mut guest = open(&file);
    let platforms = || -> i64 {
        let sum = "SELECT sum(a) + count(*) FROM _hearth_x";
        writer.query_row(sum, [], |row| row.get(0)).unwrap()
    };

    for sql in BEGINNING {
        run(&writer, &asked(sql, &[]), &soon(On::Own)).unwrap();
    }
    let mut grammar = Writer { random: Random::new(seed), depth: 0 };
    let (mut done, mut refused) = (0, 0);
    for number in 0..count {
        let sql = grammar.statement();
        let asked = asked(&sql, &[]);
        let time = Duration::from_millis(30);
        let on_its_own = |guest: &Connection| run(guest, &asked, &late(On::Own, time));
        // As a session tries them, each on the connection where it belongs.
        let ran = if !guest.is_autocommit() {
            on_its_own(&guest)
        } else {
            match run(&reader, &asked, &late(On::Reader, time)) {
                Ok(Ran::WantsToWrite) => {
                    writer.execute_batch("BEGIN IMMEDIATE; SAVEPOINT a").unwrap();
                    let ran = run(&writer, &asked, &late(On::Writer, time));
                    if !writer.is_autocommit() {
                        let end = if ran.is_ok() { "RELEASE a; COMMIT" } else { "ROLLBACK" };
                        writer.execute_batch(end).unwrap();
                    }
                    ran
                }
                ran => ran,
            }
        };
        let ran = match ran {
            Ok(Ran::WantsItsOwn) => on_its_own(&guest),
            ran => ran,
        };
        match ran {
            Ok(_) => done += 1,
            Err(fault) => {
                refused += 1;
                let said = fault.to_string();
                assert!(!said.contains(&*root.path().to_string_lossy()), "{number} {sql}: {said}");
            }
        }
        assert!(writer.is_autocommit() && reader.is_autocommit(), "{number} {sql}");
        // Its transaction is over after a while, and what it set with it.
        if number % 5 == 4 {
            guest = open(&file);
        }
        if number % 50 == 49 {
            assert_eq!(platforms(), 2, "{number} {sql}");
        }
    }
    println!("{done} were done and {refused} refused");
    assert!(done > count / 20 && refused > count / 20, "the grammar says nothing");

    // The service answers, its database is sound, and nothing else was touched.
    drop(guest);
    let sound = run(&writer, &asked("PRAGMA integrity_check", &[]), &soon(On::Own)).unwrap();
    let Ran::Done(sound) = sound else { panic!() };
    assert_eq!(sound.rows.rows, [[text("ok")]]);
    assert_eq!(platforms(), 2);
    drop((writer, reader));
    let mut after = (files(&own), files(&beside));
    after.0.retain(|path, _| !path.file_name().unwrap().to_str().unwrap().starts_with("1.db"));
    assert_eq!(after, before);
}
