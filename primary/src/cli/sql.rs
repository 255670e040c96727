//! `hearth sql`: statements on a tenant's databases, and whole databases as text.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use hearth_wire::{DatabaseList, KeptName, SqlAnswered, SqlAsked, SqlImported, SqlValue};
use http::{Method, header};
use ureq::SendBody;

use super::backup::{Out, bar};
use super::client::{Call, Host, PAGE_MAX, answer, query, segment_of};
use super::error::{CliError, usage};
use super::kv::more;
use super::print::{Print, Table, bytes};
use super::source::{STDIO, Source};
use crate::config::ClientArgs;

/// The host carries out all of it before it answers.
const IMPORT: Duration = Duration::from_secs(600);
/// Between two pieces of an export.
const SILENCE: Duration = Duration::from_secs(120);
/// Of a blob, what is shown in a table.
const BLOB_SHOWN_BYTES: usize = 32;
/// What a whole export ends with.
const END: &[u8] = b"COMMIT;\n";

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Without a statement, it is read from standard input; without a database, the databases are listed. Rows are printed as a table, and with --json as the API answers them.\n\nExample:\n  hearth sql default 'select * from users limit 10'\n  hearth sql default 'update users set name = ? where id = ?' -p Ada -p 7\n  hearth sql default - < report.sql"
)]
pub struct SqlArgs {
    #[command(subcommand)]
    whole: Option<Whole>,
    /// The database, like default
    database: Option<KeptName>,
    /// One statement, or - for standard input
    #[arg(value_name = "STATEMENT|-")]
    statement: Option<String>,
    /// A value for a `?`, in their order: JSON, or else text as it stands; may be given several
    /// times
    #[arg(long = "parameter", short = 'p', value_name = "VALUE", allow_hyphen_values = true)]
    parameters: Vec<String>,
    /// Of the databases: how many, at most [default: 100]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=PAGE_MAX), conflicts_with = "database")]
    limit: Option<u32>,
    /// Of the databases: only those behind this one
    #[arg(long, value_name = "NAME", conflicts_with = "database")]
    after: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Whole {
    /// Carry out a text of statements, all of them or none
    #[command(
        after_help = "Reads what `hearth sql export` writes, and `.dump` of sqlite3. Where a statement is refused nothing is changed, and its number and line are told.\n\nExample:\n  hearth sql import default schema.sql\n  sqlite3 old.db .dump | hearth sql import default -"
    )]
    Import {
        /// The database; it is made where there is none
        database: KeptName,
        /// A text of statements, or - for standard input
        file: PathBuf,
    },
    /// Write a database as a text of statements
    #[command(
        after_help = "The database is written as it is at one moment, while functions go on. An existing file is replaced once the new one is complete.\n\nExample:\n  hearth sql export default default.sql\n  hearth sql export default | gzip > default.sql.gz"
    )]
    Export {
        /// The database, like default
        database: KeptName,
        /// Where to [default: standard output]
        file: Option<PathBuf>,
    },
}

pub fn run(args: SqlArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let SqlArgs { whole, database, statement, parameters, limit, after } = args;
    match (whole, database) {
        (Some(Whole::Import { database, file }), _) => import(&database, &file, client, print),
        (Some(Whole::Export { database, file }), _) => {
            let file = file.unwrap_or_else(|| STDIO.into());
            export(&database, &file, client, print)
        }
        (None, Some(database)) => {
            let statement = written(statement)?;
            let parameters = parameters.iter().map(|text| parameter(text)).collect();
            execute(&database, SqlAsked { statement, parameters }, client, print)
        }
        (None, None) => list(limit, after.as_deref(), client, print),
    }
}

fn list(
    limit: Option<u32>,
    after: Option<&str>,
    client: &ClientArgs,
    print: Print,
) -> Result<(), CliError> {
    let host = Host::connect(client)?;
    let limit = limit.map(|limit| limit.to_string());
    let query = query(&[("limit", limit.as_deref()), ("after", after)]);
    let answer = host.get(&host.of_tenant(&format!("/sql{query}"))?)?;
    print.answer::<DatabaseList>(&answer, |DatabaseList { databases, next }, out| {
        let mut table = Table::new(["database"]);
        for database in databases {
            table.row([&database.name]);
        }
        table.write(out, "There is no database yet; a function makes one when it opens it.")?;
        more(out, "hearth sql", next.as_deref())
    })
}

/// The statement that is meant.
fn written(statement: Option<String>) -> Result<String, CliError> {
    match statement {
        Some(statement) if statement != STDIO => return Ok(statement),
        None if io::stdin().is_terminal() => {
            return Err(usage("say the statement, or - for standard input"));
        }
        Some(_) | None => {}
    }
    let mut text = String::new();
    let most = SqlAsked::BYTES_MAX as u64;
    let read = io::stdin().lock().take(most + 1).read_to_string(&mut text);
    let named = |source| CliError::File { path: STDIO.into(), source };
    match read.map_err(named)? {
        read if read as u64 > most => Err(CliError::Refused(format!(
            "one statement has at most {} MiB; hearth sql import takes more",
            most >> 20
        ))),
        _ => Ok(text),
    }
}

/// What is no JSON is text; so is what is no value of SQL.
fn parameter(text: &str) -> SqlValue {
    serde_json::from_str(text).unwrap_or_else(|_| SqlValue::Text(text.to_owned()))
}

fn of(database: &KeptName) -> String {
    segment_of(database.as_str())
}

fn execute(
    database: &KeptName,
    asked: SqlAsked,
    client: &ClientArgs,
    print: Print,
) -> Result<(), CliError> {
    let host = Host::connect(client)?;
    let path = host.of_tenant(&format!("/sql/{}", of(database)))?;
    print.answer(&host.post(&path, Some(&asked))?, write)
}

fn write(answered: SqlAnswered, out: &mut dyn Write) -> io::Result<()> {
    let SqlAnswered { columns, rows, changes, last_insert_rowid, truncated } = answered;
    if !columns.is_empty() {
        let mut table = Table::of(&columns);
        for row in &rows {
            // Each has as many as there are columns, or it is shown as if it had.
            let mut cells: Vec<_> = row.iter().map(cell).collect();
            cells.resize(columns.len(), String::new());
            table.push(&cells);
        }
        table.write(out, "No rows.")?;
    }
    if truncated {
        writeln!(out, "\nThere are more rows than one answer has; ask for fewer, with limit.")?;
    }
    match changes {
        0 if columns.is_empty() => writeln!(out, "Done; no row was changed."),
        0 => Ok(()),
        1 => writeln!(out, "Changed 1 row; the last row id is {last_insert_rowid}."),
        changes => {
            writeln!(out, "Changed {changes} rows; the last row id is {last_insert_rowid}.")
        }
    }
}

/// As SQL writes it, but for text, which stands as it is.
fn cell(value: &SqlValue) -> String {
    match value {
        SqlValue::Null => "NULL".to_owned(),
        SqlValue::Integer(number) => number.to_string(),
        SqlValue::Real(number) => format!("{number:?}"),
        SqlValue::Text(text) => text.clone(),
        SqlValue::Blob(blob) => {
            let shown = &blob[..blob.len().min(BLOB_SHOWN_BYTES)];
            let hex: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            match blob.len() > shown.len() {
                true => format!("x'{hex}…' ({} bytes)", blob.len()),
                false => format!("x'{hex}'"),
            }
        }
    }
}

fn import(
    database: &KeptName,
    file: &Path,
    client: &ClientArgs,
    print: Print,
) -> Result<(), CliError> {
    let Source { reader, length } = Source::file(file)?;
    let host = Host::connect(client)?;
    let path = host.of_tenant(&format!("/sql/{}/import", of(database)))?;
    let bar = bar("importing", length);
    let mut reader = bar.wrap_read(reader);
    let length = length.map(|length| length.to_string());
    let mut headers = vec![(header::CONTENT_TYPE, "application/sql")];
    headers.extend(length.as_deref().map(|length| (header::CONTENT_LENGTH, length)));
    let call = Call { headers: &headers, answer: Some(IMPORT), silence: None };
    let sent = host.call(Method::POST, &path, SendBody::from_reader(&mut reader), &call);
    bar.finish_and_clear();
    print.answer::<SqlImported>(&answer(sent?)?, |SqlImported { statements }, out| {
        writeln!(out, "Imported into {database} (statements: {statements}).")
    })
}

fn export(
    database: &KeptName,
    file: &Path,
    client: &ClientArgs,
    print: Print,
) -> Result<(), CliError> {
    let host = Host::connect(client)?;
    let path = host.of_tenant(&format!("/sql/{}/export", of(database)))?;
    let call = Call { answer: Some(IMPORT), silence: Some(SILENCE), ..Call::default() };
    // A file is made only for what there is.
    let response = host.call(Method::GET, &path, SendBody::none(), &call)?;
    let mut out = Out::open(file)?;
    let bar = bar("exporting", None);
    let mut body = bar.wrap_read(response.into_body().into_reader());
    let named = |source| CliError::File { path: file.to_owned(), source };
    let (mut chunk, mut end, mut length) = (vec![0; 64 << 10], Vec::new(), 0);
    loop {
        let read = body.read(&mut chunk).map_err(|error| host.cut(CliError::Cut(error)))?;
        if read == 0 {
            break;
        }
        length += read as u64;
        ends(&mut end, &chunk[..read]);
        out.write_all(&chunk[..read]).map_err(named)?;
    }
    bar.finish_and_clear();
    if end != END {
        let source = io::Error::new(io::ErrorKind::UnexpectedEof, "its last line is missing");
        return Err(CliError::Cut(source));
    }
    out.finish().map_err(named)?;
    if file == Path::new(STDIO) {
        return Ok(());
    }
    if print.json() {
        return print.raw(&serde_json::json!({ "bytes": length }).to_string());
    }
    print.say(format_args!("Exported {database} to {} ({}).", file.display(), bytes(length)))
}

/// Keeps the last bytes of what came so far, as many as an export ends with.
fn ends(end: &mut Vec<u8>, came: &[u8]) {
    end.extend_from_slice(&came[came.len().saturating_sub(END.len())..]);
    end.drain(..end.len().saturating_sub(END.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(answered: SqlAnswered) -> String {
        let mut out = Vec::new();
        write(answered, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn answered(columns: &[&str], rows: Vec<Vec<SqlValue>>) -> SqlAnswered {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        SqlAnswered { columns, rows, changes: 0, last_insert_rowid: 0, truncated: false }
    }

    #[test]
    fn rows_are_a_table_that_no_terminal_obeys() {
        let text = |text: &str| SqlValue::Text(text.to_owned());
        let rows = vec![
            vec![SqlValue::Integer(7), text("Ada"), SqlValue::Blob(vec![0, 255])],
            vec![SqlValue::Null, text("a\n\u{1b}[31m"), SqlValue::Real(1.0)],
        ];
        assert_eq!(
            shown(answered(&["id", "Na\u{1b}me", "b"], rows)),
            "id    Na\\u{1b}me     b\n7     Ada            x'00ff'\nNULL  a\\n\\u{1b}[31m  1.0\n"
        );
        assert_eq!(shown(answered(&["a"], vec![])), "No rows.\n");
        let long = cell(&SqlValue::Blob(vec![1; 33]));
        assert!(long.ends_with("01…' (33 bytes)"), "{long}");
    }

    /// What a host sends is not what was promised.
    #[test]
    fn a_row_of_another_length_is_shown_all_the_same() {
        let rows = vec![vec![SqlValue::Integer(1), SqlValue::Integer(2)], vec![]];
        assert_eq!(shown(answered(&["a"], rows)), "a\n1\n\n");
    }

    #[test]
    fn what_was_changed_is_told() {
        let of = |changes, truncated| SqlAnswered {
            changes,
            last_insert_rowid: 9,
            truncated,
            ..answered(&[], vec![])
        };
        assert_eq!(shown(of(0, false)), "Done; no row was changed.\n");
        assert_eq!(shown(of(1, false)), "Changed 1 row; the last row id is 9.\n");
        assert_eq!(shown(of(2, false)), "Changed 2 rows; the last row id is 9.\n");
        let rows = vec![vec![SqlValue::Integer(1)]];
        let cut = SqlAnswered { truncated: true, ..answered(&["a"], rows) };
        assert!(shown(cut).contains("more rows"));
    }

    #[test]
    fn parameters_are_json_or_text() {
        for (text, value) in [
            ("7", SqlValue::Integer(7)),
            ("-1.5", SqlValue::Real(-1.5)),
            ("null", SqlValue::Null),
            ("true", SqlValue::Integer(1)),
            ("\"7\"", SqlValue::Text("7".into())),
            ("Ada", SqlValue::Text("Ada".into())),
            ("[1]", SqlValue::Text("[1]".into())),
            ("", SqlValue::Text(String::new())),
            (r#"{"base64":"AA=="}"#, SqlValue::Blob(vec![0])),
        ] {
            assert_eq!(parameter(text), value, "{text}");
        }
    }

    #[test]
    fn the_end_of_an_export_is_known_however_it_comes() {
        let text = b"INSERT INTO a VALUES(1);\nCOMMIT;\n";
        for size in 1..text.len() {
            let mut end = Vec::new();
            text.chunks(size).for_each(|chunk| ends(&mut end, chunk));
            assert_eq!(end, END, "{size}");
        }
    }
}
