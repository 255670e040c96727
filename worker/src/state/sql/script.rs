//! A database as a text of SQL, and back. Both go within one transaction of somebody else's.
//!
//! What a text cannot say is said in it: the rows of a full-text table that keeps none.

use std::fmt::Write as _;

use hearth_host::sql::Value;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;

use super::guard;
use super::statement::{Asked, On, Outcome, Ran, Terms, refused, run, said};
use super::text::{Part, parts};
use crate::state::Fault;

/// Of a script.
pub const SCRIPT_MAX_BYTES: usize = 32 << 20;
/// Of a text that is handed on at once.
const PIECE_BYTES: usize = 64 << 10;
const BEFORE: &str = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n";
const BEHIND: &str = "COMMIT;\n";

/// What a script did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imported {
    pub statements: u64,
    /// Rows.
    pub changes: u64,
}

/// Runs a script, where nothing may come between and all of it is taken back if it fails. What it says
/// of transactions and of foreign keys is left out: it is one transaction, and a row may refer to one
/// that comes later.
pub fn import(connection: &Connection, script: &str, terms: &Terms) -> Result<Imported, Fault> {
    let eased = Eased::ease(connection)?;
    let imported = run_all(connection, script, terms)?;
    drop(eased);
    let asked = Asked {
        sql: "SELECT \"table\" FROM pragma_foreign_key_check LIMIT 1".to_owned(),
        parameters: Vec::new(),
    };
    match run(connection, &asked, terms)? {
        Ran::Done(Outcome { rows, .. }) if rows.rows.is_empty() => Ok(imported),
        Ran::Done(Outcome { rows, .. }) => match rows.rows.first().and_then(|row| row.first()) {
            Some(Value::Text(table)) => {
                Err(said(&format!("a row of {table} refers to one that is not there")))
            }
            _ => Err(said("a row refers to one that is not there")),
        },
        Ran::WantsToWrite | Ran::WantsItsOwn => Err(Fault::Broken),
    }
}

/// A connection that takes long statements and looks at no foreign keys, until this is dropped.
struct Eased<'a>(&'a Connection);

impl<'a> Eased<'a> {
    fn ease(connection: &'a Connection) -> rusqlite::Result<Self> {
        let eased = Self(connection);
        guard::allow_long(connection, true)?;
        // The pragma would do nothing within a transaction.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
        Ok(eased)
    }
}

impl Drop for Eased<'_> {
    fn drop(&mut self) {
        // Neither fails on a connection that is open.
        let _ = guard::allow_long(self.0, false);
        let _ = self.0.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true);
    }
}

fn run_all(connection: &Connection, script: &str, terms: &Terms) -> Result<Imported, Fault> {
    let mut terms = terms.clone();
    terms.on = On::Writer;
    let mut imported = Imported::default();
    for part in parts(script) {
        let Part::Statement(sql) = part else { continue };
        let asked = Asked { sql: sql.to_owned(), parameters: Vec::new() };
        let ran = match run(connection, &asked, &terms) {
            Ok(Ran::WantsToWrite | Ran::WantsItsOwn) => Err(refused(
                "a script has no temporary table, savepoint or setting of a connection",
            )),
            Ok(Ran::Done(outcome)) => Ok(outcome),
            Err(fault) => Err(fault),
        };
        let outcome = ran.map_err(|fault| at(line_of(script, sql), fault))?;
        imported.statements += 1;
        imported.changes += outcome.changes;
        terms.counts = outcome.counts;
    }
    Ok(imported)
}

/// Where a statement of a script begins.
fn line_of(script: &str, sql: &str) -> usize {
    let blanks = sql.len() - sql.trim_start().len();
    let begin = (sql.as_ptr() as usize).saturating_sub(script.as_ptr() as usize) + blanks;
    1 + script.as_bytes()[..begin].iter().filter(|byte| **byte == b'\n').count()
}

fn at(line: usize, fault: Fault) -> Fault {
    match fault {
        Fault::Sql { code, message } => {
            Fault::Sql { code, message: format!("line {line}: {message}") }
        }
        fault => fault,
    }
}

/// Hands a database on as a text, piece by piece, until the taker wants no more. Whether that was all
/// of it.
pub fn export(
    connection: &Connection,
    take: &mut dyn FnMut(String) -> bool,
) -> rusqlite::Result<bool> {
    let mut text = Text { text: BEFORE.to_owned(), take, is_wanted: true };
    for name in ["user_version", "application_id"] {
        let value: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
        if value != 0 {
            text.line(&format!("PRAGMA {name}={value};"));
        }
    }
    let mut tables = connection.prepare(
        "SELECT m.name, l.type, m.sql FROM sqlite_schema m JOIN pragma_table_list l
            ON l.schema = 'main' AND l.name = m.name
         WHERE m.type = 'table' AND l.type IN ('table', 'virtual')
            AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND m.sql IS NOT NULL
         ORDER BY l.type, m.rowid",
    )?;
    let rows = tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for row in rows {
        let (name, kind, sql): (String, String, String) = row?;
        text.line(&format!("{sql};"));
        match kind.as_str() {
            "virtual" => virtual_rows(connection, &name, &sql, &mut text)?,
            _ => table_rows(connection, &name, "", &mut text)?,
        }
        if !text.is_wanted {
            return Ok(false);
        }
    }
    sequences(connection, &mut text)?;
    let mut others = connection.prepare(
        "SELECT sql FROM sqlite_schema WHERE type IN ('index', 'trigger', 'view')
            AND sql IS NOT NULL
         ORDER BY CASE type WHEN 'index' THEN 1 WHEN 'view' THEN 2 ELSE 3 END, rowid",
    )?;
    for sql in others.query_map([], |row| row.get::<_, String>(0))? {
        text.line(&format!("{};", sql?));
    }
    text.text.push_str(BEHIND);
    text.hand_on();
    Ok(text.is_wanted)
}

/// A text that grows, and is handed on.
struct Text<'a> {
    text: String,
    take: &'a mut dyn FnMut(String) -> bool,
    is_wanted: bool,
}

impl Text<'_> {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        if self.text.len() >= PIECE_BYTES {
            self.hand_on();
        }
    }

    fn hand_on(&mut self) {
        let piece = std::mem::take(&mut self.text);
        self.is_wanted = self.is_wanted && (self.take)(piece);
    }
}

/// The columns that are stored, quoted.
fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut columns =
        connection.prepare("SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0")?;
    columns.query_map([table], |row| Ok(quoted(&row.get::<_, String>(0)?)))?.collect()
}

fn table_rows(
    connection: &Connection,
    name: &str,
    before: &str,
    text: &mut Text<'_>,
) -> rusqlite::Result<()> {
    let columns = columns(connection, name)?;
    let (table, all) = (quoted(name), format!("{before}{}", columns.join(",")));
    let mut statement = connection.prepare(&format!("SELECT {all} FROM {table}"))?;
    let count = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut values = String::new();
        for at in 0..count {
            values.push(if at == 0 { '(' } else { ',' });
            literal(row.get_ref(at)?, &mut values);
        }
        text.line(&format!("INSERT INTO {table}({all}) VALUES{values});"));
        if !text.is_wanted {
            return Ok(());
        }
    }
    Ok(())
}

fn virtual_rows(
    connection: &Connection,
    name: &str,
    sql: &str,
    text: &mut Text<'_>,
) -> rusqlite::Result<()> {
    let lower = sql.to_ascii_lowercase();
    if lower.contains("fts5vocab") {
        return Ok(());
    }
    if !lower.contains("fts5") {
        return table_rows(connection, name, "", text);
    }
    let kept = connection
        .prepare("SELECT 1 FROM sqlite_schema WHERE name = ? || '_content'")?
        .exists([name])?;
    let table = quoted(name);
    let bare: String = lower.chars().filter(|c| !c.is_whitespace()).collect();
    if kept {
        table_rows(connection, name, "rowid,", text)
    } else if bare.contains("content=''") || bare.contains("content=\"\"") {
        text.line(&format!("-- {table} keeps none of its rows, which are therefore not here."));
        Ok(())
    } else {
        text.line(&format!("INSERT INTO {table}({table}) VALUES('rebuild');"));
        Ok(())
    }
}

/// From where tables with AUTOINCREMENT count on.
fn sequences(connection: &Connection, text: &mut Text<'_>) -> rusqlite::Result<()> {
    let is_there = "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'";
    if !connection.prepare(is_there)?.exists([])? {
        return Ok(());
    }
    text.line("DELETE FROM sqlite_sequence;");
    table_rows(connection, "sqlite_sequence", "", text)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(value: ValueRef<'_>, into: &mut String) {
    let hex = |bytes: &[u8], into: &mut String| {
        into.push_str("X'");
        for byte in bytes {
            let _ = write!(into, "{byte:02X}");
        }
        into.push('\'');
    };
    match value {
        ValueRef::Null => into.push_str("NULL"),
        ValueRef::Integer(number) => {
            let _ = write!(into, "{number}");
        }
        ValueRef::Real(number) if number.is_infinite() => {
            into.push_str(if number > 0.0 { "9e999" } else { "-9e999" });
        }
        // The shortest that reads as the same number, and never as a whole one.
        ValueRef::Real(number) => {
            let _ = write!(into, "{number:?}");
        }
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) if !text.contains('\0') => {
                into.push('\'');
                into.push_str(&text.replace('\'', "''"));
                into.push('\'');
            }
            _ => {
                into.push_str("CAST(");
                hex(text, into);
                into.push_str(" AS TEXT)");
            }
        },
        ValueRef::Blob(bytes) => hex(bytes, into),
    }
}
