//! What the command line writes to standard output: tables and sentences for people, the API's
//! JSON for programs.
//!
//! Everything that comes from afar may hold bytes that a terminal obeys. For people they are
//! shown escaped; in JSON they are written as JSON escapes, which mean the same.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::CliError;
use super::client::Answer;

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

    pub fn out(self) -> io::StdoutLock<'static> {
        io::stdout().lock()
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
            writeln!(self.out(), "{}", escape_json(json))?;
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

/// What a terminal would obey, or could be fooled by.
fn is_active(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Remote text in one line, for people.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_except(text, &['\t'])
}

fn escape_except<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let active = |c: char| is_active(c) && !kept.contains(&c);
    if !text.contains(active) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if active(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// In JSON such a character can only stand within a string.
fn escape_json(json: &str) -> Cow<'_, str> {
    let active = |c: char| is_active(c) && !matches!(c, '\n' | '\r' | '\t');
    if !json.contains(active) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if active(c) {
            write!(escaped, "\\u{:04x}", u32::from(c)).expect("a String takes everything");
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
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
            self.out.write_all(escape_except(chunk.valid(), &['\n', '\t']).as_bytes())?;
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

/// Columns, aligned. Its cells are escaped.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_uppercase).to_vec()] }
    }

    pub fn row<const N: usize>(&mut self, cells: [&dyn fmt::Display; N]) {
        self.rows.push(cells.map(|cell| escape(&cell.to_string()).into_owned()).to_vec());
    }

    /// `empty` where there is no row.
    pub fn write(&self, out: &mut dyn Write, empty: &str) -> io::Result<()> {
        if self.rows.len() == 1 {
            return writeln!(out, "{empty}");
        }
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:<width$}  ").expect("a String takes everything");
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
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
    fn what_a_terminal_would_obey_is_escaped() {
        for (text, shown) in [
            ("plain ä\t✓", "plain ä\t✓"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\r\nb", "a\\r\\nb"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("x\u{202e}y", "x\\u{202e}y"),
        ] {
            assert_eq!(escape(text), shown);
        }
    }

    #[test]
    fn json_stays_the_same_json() {
        let json = "{\n\t\"a\": \"\u{9b}31m \u{202e}\\u001b\"}";
        let escaped = escape_json(json);
        assert!(!escaped.contains(['\u{9b}', '\u{202e}']), "{escaped}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&escaped), value(json));
    }

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

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["name", "n"]);
        table.row([&"ä", &1]);
        table.row([&"long\n", &OrDash(None::<u8>)]);
        let mut out = Vec::new();
        table.write(&mut out, "none").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME    N\nä       1\nlong\\n  -\n");
        let mut out = Vec::new();
        Table::new(["name"]).write(&mut out, "none").unwrap();
        assert_eq!(out, b"none\n");
    }

    #[test]
    fn durations() {
        assert_eq!(
            [0, 999, 1_000, 12_340, 1_500_000].map(micros),
            ["0 µs", "999 µs", "1.0 ms", "12.3 ms", "1.50 s"]
        );
    }
}
