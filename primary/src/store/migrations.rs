//! The tables of the store: each file of `migrations/` brings them one step further, and is never
//! changed afterwards.

use super::database::Schema;

pub(super) static SCHEMA: Schema = Schema {
    name: "store",
    read_only: "hearth_store_read_only",
    steps: &[
        include_str!("migrations/0001_start.sql"),
        include_str!("migrations/0002_options_and_limits.sql"),
        include_str!("migrations/0003_users.sql"),
        include_str!("migrations/0004_resting.sql"),
        include_str!("migrations/0005_audit.sql"),
        include_str!("migrations/0006_bundle.sql"),
        include_str!("migrations/0007_settings.sql"),
        include_str!("migrations/0008_past.sql"),
    ],
};

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::store::database::migrate;

    /// A store as it was before the step of that number.
    fn before(step: usize) -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.pragma_update(None, "foreign_keys", true).unwrap();
        for sql in &SCHEMA.steps[..step - 1] {
            db.execute_batch(sql).unwrap();
        }
        db.pragma_update(None, "user_version", step as i64 - 1).unwrap();
        db
    }

    #[test]
    fn what_was_only_given_to_a_tenant_goes_and_what_it_changed_stays() {
        let mut db = before(6);
        let tenants =
            ["plain", "set", "removed", "own", "back", "gone", "old", "forgotten", "half"];
        for (number, name) in tenants.iter().enumerate() {
            let generation = i64::from(*name != "half");
            db.execute(
                "INSERT INTO tenants (name, port, generation, created_at) VALUES (?, ?, ?, 5)",
                (name, 4_000 + number as i64, generation),
            )
            .unwrap();
        }
        // Its name, options, active version, when it was removed, and whether each version is bundled.
        type Row<'a> = (&'a str, &'a str, &'a str, Option<i64>, Option<i64>, &'a [(i64, bool)]);
        let given: &[Row<'_>] = &[
            ("plain", "/hello", "{}", Some(1), None, &[(1, true)]),
            ("plain", "/a", "{}", Some(1), None, &[(1, false)]),
            ("set", "/Hello", r#"{"auth":"owner"}"#, Some(1), None, &[(1, true)]),
            ("removed", "/hello", "{}", None, Some(7), &[(1, true)]),
            ("own", "/hello", "{}", Some(2), None, &[(1, true), (2, false)]),
            ("back", "/hello", "{}", Some(1), None, &[(1, true), (2, false)]),
            ("gone", "/hello", "{}", None, Some(7), &[(1, true), (2, false)]),
            // So many that the bundled one is no longer kept.
            ("old", "/hello", "{}", None, Some(7), &[(8, false), (9, false)]),
            ("old", "/a", "{}", None, Some(7), &[(1, false)]),
        ];
        for (tenant, path, options, active, removed, versions) in given {
            let latest = versions.iter().map(|(version, _)| *version).max();
            db.execute_batch("BEGIN").unwrap();
            db.execute(
                "INSERT INTO functions (tenant, path, folded, latest, active, removed_at, options)
                 VALUES ((SELECT id FROM tenants WHERE name = ?1), ?2, lower(?2), ?3, ?4, ?5, ?6)",
                (tenant, path, latest, active, removed, options),
            )
            .unwrap();
            let id = db.last_insert_rowid();
            for (version, bundled) in *versions {
                db.execute(
                    "INSERT INTO versions VALUES (?, ?, printf('%064d', 1), 9, 8, 'handler', '[]', '{}',
                         ?, 3, 'ci', '{}')",
                    (id, version, bundled),
                )
                .unwrap();
            }
            db.execute_batch("COMMIT").unwrap();
        }
        migrate(&mut db, &SCHEMA).unwrap();

        let sql = "SELECT name || ' ' || path || ' ' || latest || ' ' || ifnull(active, '-') || ' '
                 || ifnull(removed_at, '-') || ' ' || ifnull(hidden_at, '-') || ' ' || options || ' '
                 || ifnull((SELECT group_concat(version) FROM versions WHERE function = functions.id), '-')
             FROM functions JOIN tenants ON tenants.id = tenant ORDER BY tenants.id, path";
        let mut told = db.prepare(sql).unwrap();
        let told = told.query_map([], |row| row.get::<_, String>(0)).unwrap();
        let told: Vec<_> = told.map(Result::unwrap).collect();
        assert_eq!(
            told,
            [
                "plain /a 1 1 - - {} 1",
                r#"set /Hello 1 - - - {"auth":"owner"} -"#,
                "removed /hello 1 - - 7 {} -",
                "own /hello 2 2 - - {} 2",
                "back /hello 2 - - - {} 2",
                "gone /hello 2 - 7 7 {} 2",
                "old /a 1 - 7 - {} 1",
                "old /hello 9 - 7 7 {} 8,9",
                "forgotten /hello 0 - - 5 {} -",
            ]
        );
        assert!(!db.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap());
        // What goes still takes what is its own along, and what serves cannot be taken away.
        db.execute("DELETE FROM functions WHERE path = '/Hello'", []).unwrap();
        db.execute("DELETE FROM tenants WHERE name = 'own'", []).unwrap();
        assert!(db.execute("DELETE FROM versions WHERE version = 1", []).is_err());
        let left: i64 =
            db.query_row("SELECT count(*) FROM versions", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 6);
    }
}
