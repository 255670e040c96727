//! What the command line writes to standard output: tables and sentences for people, the API's
//! JSON for programs.
//!
//! Everything that comes from afar may hold bytes that a terminal obeys. For people they are
//! shown escaped; in JSON they are written as JSON escapes, which mean the same.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use textwrap::core::display_width;

use super::client::Answer;
use super::error::CliError;
pub use crate::terminal::escape;
use crate::terminal::{self, Output, column, escape_json, escape_lines};

#[derive(Debug, Clone, Copy)]
pub struct Print {
    json: bool,
}

impl Print {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    pub fn json(self) -> bool {
        self.json
    }

    /// For people.
    pub fn out(self) -> Output {
        Output::new()
    }

    /// The answer as it came for programs, or what `people` makes of it.
    pub fn answer<T: DeserializeOwned>(
        self,
        answer: &Answer,
        people: impl FnOnce(T, &mut dyn Write) -> io::Result<()>,
    ) -> Result<(), CliError> {
        if self.json {
            return self.raw(&answer.text);
        }
        Ok(people(answer.parse()?, &mut self.out())?)
    }

    /// One JSON text, on its own line.
    pub fn raw(self, json: &str) -> Result<(), CliError> {
        if !json.is_empty() {
            writeln!(io::stdout(), "{}", escape_json(json))?;
        }
        Ok(())
    }

    /// A sentence for people, and nothing for programs.
    pub fn say(self, sentence: fmt::Arguments<'_>) -> Result<(), CliError> {
        if !self.json {
            writeln!(self.out(), "{sentence}")?;
        }
        Ok(())
    }
}

/// Standard output for a body of unknown making: as it is into a pipe or a file, escaped (lines
/// and tabs apart) on a terminal.
pub fn body_out() -> Box<dyn Write> {
    let out = io::stdout().lock();
    if out.is_terminal() { Box::new(Escaping { out, pending: Vec::new() }) } else { Box::new(out) }
}

struct Escaping<W> {
    out: W,
    /// The beginning of a character whose end has not come yet; at most 3 bytes.
    pending: Vec<u8>,
}

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        let text = std::mem::take(&mut self.pending);
        let mut chunks = text.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.out.write_all(escape_lines(chunk.valid()).as_bytes())?;
            let is_cut = chunks.peek().is_none()
                && matches!(std::str::from_utf8(chunk.invalid()), Err(e) if e.error_len().is_none());
            if is_cut {
                self.pending = chunk.invalid().to_vec();
            } else {
                for byte in chunk.invalid() {
                    write!(self.out, "\\x{byte:02x}")?;
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Columns, aligned where they fit. Its cells are escaped.
pub struct Table {
    head: Vec<String>,
    /// What stands above the columns.
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Between two columns.
const GAP: &str = "  ";
/// What the last column must have for its text to be read as a column.
const LAST_MIN: usize = 28;
/// Before what does not fit into a row's first line.
const NEXT: &str = "    ";

impl Table {
    pub fn new<const N: usize>(head: [&'static str; N]) -> Self {
        let head = head.map(str::to_owned).to_vec();
        let titles = head.iter().map(|title| title.to_uppercase()).collect();
        Self { head, titles, rows: Vec::new() }
    }

    /// With columns from afar, which are called as they are.
    pub fn of(head: &[String]) -> Self {
        let head: Vec<_> = head.iter().map(|title| escape(title).into_owned()).collect();
        Self { titles: head.clone(), head, rows: Vec::new() }
    }

    pub fn push(&mut self, cells: &[String]) {
        self.rows.push(cells.iter().map(|cell| escape(cell).into_owned()).collect());
    }

    pub fn row<const N: usize>(&mut self, cells: [&dyn fmt::Display; N]) {
        self.rows.push(cells.map(|cell| escape(&cell.to_string()).into_owned()).to_vec());
    }

    /// `empty` where there is no row.
    pub fn write(&self, out: &mut dyn Write, empty: &str) -> io::Result<()> {
        self.write_within(terminal::output_width(), out, empty)
    }

    /// What is wider has its last column broken between words, and where that is not enough, each
    /// row as a paragraph.
    fn write_within(
        &self,
        width: Option<usize>,
        out: &mut dyn Write,
        empty: &str,
    ) -> io::Result<()> {
        if self.rows.is_empty() {
            return writeln!(out, "{empty}");
        }
        let widths: Vec<usize> = (0..self.head.len())
            .map(|at| {
                let cells = self.rows.iter().filter_map(|row| row.get(at)).map(String::as_str);
                cells.chain([self.head[at].as_str()]).map(display_width).max().unwrap_or(0)
            })
            .collect();
        let before: usize = widths.iter().rev().skip(1).map(|width| width + GAP.len()).sum();
        let last = *widths.last().unwrap_or(&0);
        let room = match width {
            Some(width) if before + last > width => match width.checked_sub(before) {
                Some(room) if room >= LAST_MIN.min(last) => room,
                _ => return self.rows.iter().try_for_each(|row| self.paragraph(row, width, out)),
            },
            _ => last,
        };
        for row in std::iter::once(&self.titles).chain(&self.rows) {
            let (last, cells) = row.split_last().expect("a table has a column");
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(&widths) {
                let pad = " ".repeat(width.saturating_sub(display_width(cell)));
                line.extend([cell.as_str(), &pad, GAP]);
            }
            let mut lines = column(last, room).into_iter();
            line.push_str(&lines.next().unwrap_or_default());
            writeln!(out, "{}", line.trim_end())?;
            for next in lines {
                writeln!(out, "{:before$}{next}", "")?;
            }
        }
        Ok(())
    }

    /// What a row says, each value behind the name of its column but for the first.
    fn paragraph(&self, row: &[String], width: usize, out: &mut dyn Write) -> io::Result<()> {
        let parts =
            self.head.iter().zip(row).enumerate().filter_map(|(at, (title, cell))| {
                match (at, cell.as_str()) {
                    (_, "" | "-") => None,
                    (0, cell) => Some(cell.to_owned()),
                    (_, cell) => Some(format!("{title} {cell}").trim_start().to_owned()),
                }
            });
        let mut line = String::new();
        for part in parts {
            if line.trim().is_empty() {
                line.push_str(&part);
            } else if display_width(&line) + GAP.len() + display_width(&part) <= width {
                line.extend([GAP, &part]);
            } else {
                writeln!(out, "{line}")?;
                let mut lines = column(&part, width - NEXT.len());
                line = format!("{NEXT}{}", lines.pop().unwrap_or_default());
                for part in lines {
                    writeln!(out, "{NEXT}{part}")?;
                }
            }
        }
        writeln!(out, "{line}")
    }
}

/// A value, or a dash where there is none.
pub struct OrDash<T>(pub Option<T>);

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

pub fn seconds(time: Timestamp) -> impl fmt::Display {
    time.strftime("%Y-%m-%d %H:%M:%SZ")
}

pub fn milliseconds(time: Timestamp) -> impl fmt::Display {
    time.strftime("%Y-%m-%d %H:%M:%S%.3fZ")
}

pub fn bytes(bytes: u64) -> impl fmt::Display {
    indicatif::HumanBytes(bytes)
}

/// With three digits or so: `980 µs`, `12.3 ms`, `1.50 s`.
pub fn micros(micros: u64) -> String {
    let time = Duration::from_micros(micros);
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_escaped_however_it_is_cut() {
        let body = "1\t✓\u{1b}[2J\nä".as_bytes();
        for at in 0..body.len() {
            let mut writer = Escaping { out: Vec::new(), pending: Vec::new() };
            writer.write_all(&body[..at]).unwrap();
            writer.write_all(&body[at..]).unwrap();
            assert_eq!(String::from_utf8(writer.out).unwrap(), "1\t✓\\u{1b}[2J\nä");
        }
        let mut writer = Escaping { out: Vec::new(), pending: Vec::new() };
        writer.write_all(b"a\xffb\xc3").unwrap();
        assert_eq!((writer.out, writer.pending), (b"a\\xffb".to_vec(), vec![0xc3]));
    }

    fn told(table: &Table, width: Option<usize>) -> String {
        let mut out = Vec::new();
        table.write_within(width, &mut out, "none").unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["name", "n"]);
        assert_eq!(told(&table, None), "none\n");
        table.row([&"ä", &1]);
        table.row([&"long\n", &OrDash(None::<u8>)]);
        table.row([&"長い", &2]);
        let aligned = "NAME    N\nä       1\nlong\\n  -\n長い    2\n";
        assert_eq!(told(&table, None), aligned);
        assert_eq!(told(&table, Some(20)), aligned);
    }

    #[test]
    fn a_table_that_is_wider_than_the_terminal_breaks_between_words() {
        let mut table = Table::new(["check", "found"]);
        table.row([&"kernel", &"a text of some words that goes on behind the edge"]);
        assert_eq!(
            told(&table, Some(40)),
            "CHECK   FOUND\nkernel  a text of some words that goes\n        on behind the edge\n"
        );
        let mut table = Table::new(["time", "status", "", "request"]);
        table.row([&"now", &200, &"", &"0123456789abcdef01234567"]);
        table.row([&"then", &OrDash(None::<u8>), &"why not", &"r-1"]);
        assert_eq!(
            told(&table, Some(40)),
            "now  status 200\n    request 0123456789abcdef01234567\nthen  why not  request r-1\n"
        );
    }

    #[test]
    fn durations() {
        assert_eq!(
            [0, 999, 1_000, 12_340, 1_500_000].map(micros),
            ["0 µs", "999 µs", "1.0 ms", "12.3 ms", "1.50 s"]
        );
    }
}
