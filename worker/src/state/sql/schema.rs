//! What a schema must not come to be: with a name that is the platform's, or with an index, a trigger or a foreign key on the tables in which a
//! virtual table keeps itself. SQLite lets them be made, or only some, and writing there then has a
//! statement's journal of its own: FTS5 writes within each savepoint of such a one, which is another,
//! until the stack is at its end.

use rusqlite::Connection;

use super::guard;

const UNSOUND: &str = "WITH
    things (schema, type, name, tbl_name, sql) AS (
        SELECT 'main', type, name, tbl_name, sql FROM sqlite_schema
        UNION ALL SELECT 'temp', type, name, tbl_name, sql FROM sqlite_temp_schema)
    SELECT 1 FROM pragma_table_list AS kept WHERE kept.type = 'shadow' AND (
        EXISTS (SELECT 1 FROM things
            WHERE things.type IN ('index', 'trigger') AND things.sql IS NOT NULL
            AND things.tbl_name = kept.name COLLATE NOCASE)
        OR EXISTS (SELECT 1 FROM things, pragma_foreign_key_list(things.name, things.schema) AS refers
            WHERE things.type = 'table' AND refers.\"table\" = kept.name COLLATE NOCASE))
    LIMIT 1";

const ON_SHADOWS: &str =
    "an index, trigger or foreign key on what a virtual table keeps is not available";

/// SQLite does not ask about the name that a table is given instead of its own.
const PLATFORMS: &str = "SELECT count(*) FROM (
    SELECT name FROM sqlite_schema UNION ALL SELECT name FROM sqlite_temp_schema)
    WHERE name LIKE '\\_hearth\\_%' ESCAPE '\\'";

const PLATFORMS_NAME: &str = "names that begin with _hearth_ are the platform's";

/// Runs a statement that changes the schema, and takes back what it did where that is of this kind:
/// then the error says why.
pub fn keep_sound<T, E: From<rusqlite::Error>>(
    connection: &Connection,
    run: impl FnOnce() -> Result<T, E>,
    unsound: impl FnOnce(&'static str) -> E,
) -> Result<T, E> {
    let platforms = || -> rusqlite::Result<i64> {
        guard::aside(|| connection.query_row(PLATFORMS, [], |row| row.get(0)))
    };
    guard::aside(|| connection.execute_batch("SAVEPOINT _hearth_schema"))?;
    let before = platforms();
    let ran = run().and_then(|ran| {
        if guard::aside(|| connection.prepare(UNSOUND)?.exists([]))? {
            return Err(unsound(ON_SHADOWS));
        }
        if platforms()? > before? {
            return Err(unsound(PLATFORMS_NAME));
        }
        Ok(ran)
    });
    // Where the whole transaction was ended there is none.
    let end = match ran {
        Ok(_) => "RELEASE _hearth_schema",
        Err(_) => "ROLLBACK TO _hearth_schema; RELEASE _hearth_schema",
    };
    match guard::aside(|| connection.execute_batch(end)) {
        Err(error) if ran.is_ok() => Err(error.into()),
        _ => ran,
    }
}
