//! What people read, be it from anywhere: nothing in it that a terminal obeys, and lines that end
//! between two words.
//!
//! Knows which characters are shown escaped, and how lines are broken; who writes what is for
//! others. A command that is printed for somebody to run again is indented, and stays in one
//! line.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};

use console::Term;
use textwrap::{Options, WordSeparator, WordSplitter, core::display_width};

/// Wider lines are hard to read as prose.
const PROSE_MAX: usize = 100;
/// Of whoever reads help through something that is no terminal.
const HELP: usize = 80;
/// Narrower than this nothing can be laid out.
const LEAST: usize = 20;
/// Before what goes on of a record in its next line.
const HANGING: &str = "    ";

/// What a terminal would obey, or could be fooled by: controls, the separators of lines and
/// paragraphs, what turns the direction of writing, and what is there and not seen.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Text from afar in one line.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_except(text, &['\t'])
}

/// The same of text that has lines of its own.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_except(text, &['\n', '\t'])
}

/// The same of text that was given colours here, by sequences that begin with an escape.
pub fn escape_coloured(text: &str) -> Cow<'_, str> {
    escape_except(text, &['\n', '\t', '\u{1b}'])
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
pub fn escape_json(json: &str) -> Cow<'_, str> {
    let active = |c: char| is_active(c) && !matches!(c, '\n' | '\r' | '\t');
    if !json.contains(active) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if active(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(escaped, "\\u{unit:04x}").expect("a String takes everything");
            }
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// How wide standard output is, where it is a terminal.
pub fn output_width() -> Option<usize> {
    width(&Term::stdout(), io::stdout().is_terminal())
}

/// How wide standard error is, where it is a terminal.
pub fn error_width() -> Option<usize> {
    width(&Term::stderr(), io::stderr().is_terminal())
}

fn width(terminal: &Term, is_terminal: bool) -> Option<usize> {
    let (_, columns) = terminal.size_checked().filter(|_| is_terminal)?;
    Some(usize::from(columns)).filter(|columns| *columns >= LEAST)
}

/// A text's lines, each broken between words where it is wider. What is indented stays as it is:
/// it is to be copied, or was laid out.
pub fn prose(text: &str, width: Option<usize>) -> Cow<'_, str> {
    let Some(width) = width.map(|width| width.min(PROSE_MAX)) else { return Cow::Borrowed(text) };
    if text.lines().all(|line| display_width(line) <= width) {
        return Cow::Borrowed(text);
    }
    let lines = text.split('\n').map(|line| match line.starts_with([' ', '\t']) {
        true => line.to_owned(),
        false => broken(line, width, ""),
    });
    Cow::Owned(lines.collect::<Vec<_>>().join("\n"))
}

/// A line of a log, whose next lines are seen to be the same record's.
pub fn record(line: &str, width: Option<usize>) -> Cow<'_, str> {
    match width {
        Some(width) if display_width(line) > width => Cow::Owned(broken(line, width, HANGING)),
        _ => Cow::Borrowed(line),
    }
}

/// Help: what explains an option stays beside it.
pub fn help(text: &str, width: Option<usize>) -> String {
    let width = width.unwrap_or(HELP).min(PROSE_MAX);
    let lines = text.split('\n').map(|line| match display_width(line) > width {
        true => broken(line, width, &" ".repeat(hanging(line, width))),
        false => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Where the second column of a line begins, or its text.
fn hanging(line: &str, width: usize) -> usize {
    let text = line.trim_start_matches(' ');
    let indent = line.len() - text.len();
    let Some(gap) = text.find("  ") else { return indent };
    let second = text[gap..].trim_start_matches(' ');
    let column = display_width(line) - display_width(second);
    if indent == 0 || column > width / 2 { indent } else { column }
}

fn broken(line: &str, width: usize, next: &str) -> String {
    textwrap::fill(line, options(width).subsequent_indent(next))
}

/// A cell's lines in a column that is so wide.
pub fn column(text: &str, width: usize) -> Vec<String> {
    textwrap::wrap(text, options(width)).into_iter().map(Cow::into_owned).collect()
}

/// A word that is wider than all of it is the terminal's to break: it may be a token or a path.
fn options(width: usize) -> Options<'static> {
    Options::new(width)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation)
        .word_separator(WordSeparator::AsciiSpace)
}

/// A word as a shell takes it.
pub fn shell_word(text: &str) -> Cow<'_, str> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+=:@%,".contains(&b);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

/// Says something to whoever started this program, on standard error. Nobody may be there to hear
/// it, or its disk may be full: that is no reason to end.
pub fn complain(sentence: fmt::Arguments<'_>) {
    mutter(&format!("hearth: {sentence}\n"));
}

/// The same of a question, whose answer is typed behind it.
pub fn ask(question: fmt::Arguments<'_>) {
    mutter(&question.to_string());
}

/// The same of a text that says whose it is.
pub fn mutter(text: &str) {
    let text = escape_lines(text);
    let _ = io::stderr().write_all(prose(&text, error_width()).as_bytes());
}

/// Standard output for people: line by line, escaped, and broken between words on a terminal.
pub struct Output {
    out: io::StdoutLock<'static>,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    width: Option<usize>,
}

impl Output {
    pub fn new() -> Self {
        Self { out: io::stdout().lock(), begun: Vec::new(), width: output_width() }
    }

    fn pass_on(&mut self, up_to: usize) -> io::Result<()> {
        let text: Vec<u8> = self.begun.drain(..up_to).collect();
        let text = String::from_utf8_lossy(&text);
        let text = escape_lines(&text);
        self.out.write_all(prose(&text, self.width).as_bytes())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(bytes);
        if let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') {
            self.pass_on(end + 1)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on(self.begun.len())?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind, and what is shown of it.
    const ACTIVE: [(char, &str); 9] = [
        ('\u{1b}', "\\u{1b}"),
        ('\u{9b}', "\\u{9b}"),
        ('\u{7f}', "\\u{7f}"),
        ('\u{200f}', "\\u{200f}"),
        ('\u{2028}', "\\u{2028}"),
        ('\u{2029}', "\\u{2029}"),
        ('\u{202e}', "\\u{202e}"),
        ('\u{2066}', "\\u{2066}"),
        ('\u{e0041}', "\\u{e0041}"),
    ];

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(escape("plain ä\t✓"), "plain ä\t✓");
        assert_eq!(escape("a\r\nb"), "a\\r\\nb");
        assert_eq!(escape_lines("a\r\nb"), "a\\r\nb");
        for (c, shown) in ACTIVE {
            let text = format!("x{c}y");
            for escaped in [escape(&text), escape_lines(&text)] {
                assert_eq!(escaped, format!("x{shown}y"));
            }
        }
        assert_eq!(escape_coloured("\u{1b}[1mx\u{2028}"), "\u{1b}[1mx\\u{2028}");
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        for (c, _) in ACTIVE.into_iter().filter(|(c, _)| u32::from(*c) >= 0x20) {
            let json = format!("{{\n\t\"a\": \"{c}31m \\u001b\"}}");
            let escaped = escape_json(&json);
            assert!(!escaped.contains(c), "{escaped}");
            assert_eq!(value(&escaped), value(&json));
        }
    }

    #[test]
    fn lines_end_between_words() {
        let text = "A sentence that is longer than the terminal.\n  a command that is to be copied as it is\n";
        assert_eq!(prose(text, None), text);
        assert_eq!(
            prose(text, Some(20)),
            "A sentence that is\nlonger than the\nterminal.\n  a command that is to be copied as it is\n"
        );
        assert_eq!(
            prose("a_word_that_is_wider_than_it all", Some(20)),
            "a_word_that_is_wider_than_it\nall"
        );
        assert_eq!(record("one two three four five", Some(20)), "one two three four\n    five");
        assert_eq!(record("one two three four five", None), "one two three four five");
    }

    #[test]
    fn help_stays_in_its_column() {
        let text = "      --url <URL>  The front door of a host";
        assert_eq!(
            help(text, Some(40)),
            "      --url <URL>  The front door of a\n                   host"
        );
        assert_eq!(help("A text of many words", Some(20)), "A text of many words");
        assert!(help(&"word ".repeat(40), None).lines().all(|line| line.len() <= HELP));
    }

    #[test]
    fn words_of_a_shell() {
        for (text, word) in [
            ("/etc/hearth/admin-token", "/etc/hearth/admin-token"),
            ("/home/a b/x", "'/home/a b/x'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(text), word);
        }
    }
}
