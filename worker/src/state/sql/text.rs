//! The little of a statement's text that is looked at here: its first words, which say where it is
//! tried first, and where the statements of a script end. What a statement is allowed, and whether it
//! changes anything, SQLite says itself when it has read it.

/// What a statement begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// There is nothing but blanks and comments.
    Nothing,
    /// It only reads, or sets something.
    Reads,
    /// A query or a change comes behind it.
    With,
    /// It changes rows, or fails.
    Changes,
    /// It begins a transaction, which it wants to write in at once, or not yet.
    Begins {
        at_once: bool,
    },
    /// It ends a transaction as a whole.
    Ends,
    /// It begins a savepoint.
    Saves,
    /// It ends one, or goes back to it.
    EndsSaved,
    /// It changes the schema.
    Alters,
    /// Nobody may say it.
    Refused(&'static str),
    Other,
}

/// What a script says that the one who runs it sees to himself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    Statement(&'a str),
    /// It begins or ends a transaction, or switches the checks of foreign keys, as dumps do.
    Frame,
}

const ATTACHES: &str = "another file cannot be attached to a database, or detached from it";
const VACUUMS: &str = "VACUUM is not available: a database reuses the room of what was deleted";

impl Start {
    pub fn of(sql: &str) -> Self {
        let mut words = Words { sql: sql.as_bytes(), at: 0 };
        let Some(first) = words.next() else { return Self::Nothing };
        match first.to_ascii_uppercase().as_slice() {
            b"SELECT" | b"VALUES" | b"EXPLAIN" | b"PRAGMA" => Self::Reads,
            b"WITH" => Self::With,
            b"INSERT" | b"REPLACE" | b"UPDATE" | b"DELETE" => Self::Changes,
            b"BEGIN" => {
                let second = words.next().unwrap_or_default().to_ascii_uppercase();
                Self::Begins { at_once: matches!(&*second, b"IMMEDIATE" | b"EXCLUSIVE") }
            }
            b"COMMIT" | b"END" => Self::Ends,
            b"ROLLBACK" => match words.any(|word| word.eq_ignore_ascii_case(b"TO")) {
                true => Self::EndsSaved,
                false => Self::Ends,
            },
            b"SAVEPOINT" => Self::Saves,
            b"RELEASE" => Self::EndsSaved,
            b"ATTACH" | b"DETACH" => Self::Refused(ATTACHES),
            b"VACUUM" => Self::Refused(VACUUMS),
            b"CREATE" | b"ALTER" | b"DROP" => Self::Alters,
            _ => Self::Other,
        }
    }

    /// Whether a statement that begins so, and is not a mere query, counts the rows that it changes.
    pub fn counts(self, only_reads: bool) -> bool {
        match self {
            Self::Changes => true,
            Self::With => !only_reads,
            _ => false,
        }
    }
}

/// The statements of a script, in order.
pub fn parts(script: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = script;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (statement, behind) = rest.split_at(end_of_first(rest));
            rest = behind;
            if Start::of(statement) != Start::Nothing {
                return Some(part(statement));
            }
        }
        None
    })
}

fn part(statement: &str) -> Part<'_> {
    let is_frame = match Start::of(statement) {
        Start::Begins { .. } | Start::Ends => true,
        Start::Reads => {
            let mut words = Words { sql: statement.as_bytes(), at: 0 };
            let mut is = |word: &str| {
                words.next().is_some_and(|it| it.eq_ignore_ascii_case(word.as_bytes()))
            };
            is("PRAGMA") && is("foreign_keys")
        }
        _ => false,
    };
    if is_frame { Part::Frame } else { Part::Statement(statement) }
}

/// Where in a script of many the first statement ends, behind its semicolon. As SQLite's own
/// `sqlite3_complete` finds it: within a trigger, at the semicolon behind its END.
fn end_of_first(script: &str) -> usize {
    #[derive(Clone, Copy, PartialEq)]
    enum In {
        Start,
        Explain,
        Create,
        Plain,
        Trigger,
        /// Behind a semicolon in a trigger.
        Semicolon,
        /// Behind the END of a trigger.
        End,
    }
    let bytes = script.as_bytes();
    let (mut state, mut at) = (In::Start, 0);
    while at < bytes.len() {
        let (token, end) = token(bytes, at);
        let word = &bytes[at..end];
        let is = |other: &str| word.eq_ignore_ascii_case(other.as_bytes());
        at = end;
        state = match (state, token) {
            (state, Token::Blank) => state,
            (In::Trigger | In::Semicolon, Token::Semicolon) => In::Semicolon,
            (_, Token::Semicolon) => return at,
            (In::Semicolon, Token::Word) if is("END") => In::End,
            (In::Trigger | In::Semicolon | In::End, _) => In::Trigger,
            (In::Start, Token::Word) if is("EXPLAIN") => In::Explain,
            (In::Explain, Token::Word) if is("QUERY") || is("PLAN") => In::Explain,
            (In::Start | In::Explain, Token::Word) if is("CREATE") => In::Create,
            (In::Create, Token::Word) if is("TEMP") || is("TEMPORARY") => In::Create,
            (In::Create, Token::Word) if is("TRIGGER") => In::Trigger,
            _ => In::Plain,
        };
    }
    bytes.len()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Blank,
    Semicolon,
    Word,
    Other,
}

/// The token that begins there, and where it ends.
fn token(sql: &[u8], at: usize) -> (Token, usize) {
    let rest = &sql[at..];
    let until = |found: Option<usize>| found.map_or(sql.len(), |length| at + length);
    let run = |is: fn(u8) -> bool| until(rest.iter().position(|byte| !is(*byte)));
    match rest {
        [b';', ..] => (Token::Semicolon, at + 1),
        [b'-', b'-', ..] => (Token::Blank, until(rest.iter().position(|byte| *byte == b'\n'))),
        [b'/', b'*', inner @ ..] => {
            let closed = inner.windows(2).position(|two| two == b"*/");
            (Token::Blank, until(closed.map(|length| length + 4)))
        }
        [open @ (b'\'' | b'"' | b'`' | b'['), inner @ ..] => {
            let close = if *open == b'[' { b']' } else { *open };
            let closed = inner.iter().position(|byte| *byte == close);
            (Token::Other, until(closed.map(|length| length + 2)))
        }
        [byte, ..] if is_blank(*byte) => (Token::Blank, run(is_blank)),
        [byte, ..] if is_of_a_word(*byte) => (Token::Word, run(is_of_a_word)),
        _ => (Token::Other, at + 1),
    }
}

/// As SQLite has it.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')
}

fn is_of_a_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || !byte.is_ascii()
}

/// Words alone, up to the first semicolon behind one.
struct Words<'a> {
    sql: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while self.at < self.sql.len() {
            let (token, end) = token(self.sql, self.at);
            let begin = std::mem::replace(&mut self.at, end);
            if token == Token::Word {
                return Some(&self.sql[begin..end]);
            }
            // What is quoted or a sign is no first word, and ends what is looked for. SQLite skips
            // semicolons in front.
            if token == Token::Other {
                return Some(b"");
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_statement_begins_with() {
        for (sql, start) in [
            ("", Start::Nothing),
            (" -- nothing\n ; /* at all */ ;", Start::Nothing),
            ("select 1", Start::Reads),
            ("/* a */ -- b\n\tWith x AS (SELECT 1) DELETE FROM t", Start::With),
            (";VALUES (1)", Start::Reads),
            ("insert into t values (1)", Start::Changes),
            ("Replace into t values (1)", Start::Changes),
            ("begin", Start::Begins { at_once: false }),
            ("BEGIN TRANSACTION", Start::Begins { at_once: false }),
            ("BEGIN /* now */ immediate", Start::Begins { at_once: true }),
            ("BEGIN EXCLUSIVE", Start::Begins { at_once: true }),
            ("commit", Start::Ends),
            ("END TRANSACTION", Start::Ends),
            ("ROLLBACK", Start::Ends),
            ("ROLLBACK TRANSACTION TO SAVEPOINT a", Start::EndsSaved),
            ("savepoint a", Start::Saves),
            ("release a", Start::EndsSaved),
            ("ATTACH 'a' AS b", Start::Refused(ATTACHES)),
            ("vacuum into 'a'", Start::Refused(VACUUMS)),
            ("CREATE TABLE t (a)", Start::Alters),
            ("drop view v", Start::Alters),
            ("ANALYZE", Start::Other),
            ("'select'", Start::Other),
            ("selection", Start::Other),
            ("ä", Start::Other),
        ] {
            assert_eq!(Start::of(sql), start, "{sql}");
        }
    }

    #[test]
    fn where_the_statements_of_a_script_end() {
        let script = "
            -- a dump; as others write it
            PRAGMA foreign_keys=OFF; BEGIN TRANSACTION;
            CREATE TABLE t (a DEFAULT ';', [b;b], \"c;\"); -- ;
            INSERT INTO t VALUES ('it''s; here', 1, 2);;
            CREATE TEMP TRIGGER r AFTER INSERT ON t BEGIN
                DELETE FROM t; SELECT CASE WHEN 1 THEN 2 END; END;
            COMMIT;
            SELECT 1 /* ; */";
        let parts: Vec<_> = parts(script).collect();
        assert_eq!(parts.len(), 7, "{parts:?}");
        assert_eq!([parts[0], parts[1], parts[5]], [Part::Frame; 3]);
        let text = |part: Part<'_>| match part {
            Part::Statement(text) => text.trim().to_owned(),
            Part::Frame => panic!("a frame"),
        };
        assert!(text(parts[2]).starts_with("CREATE TABLE") && text(parts[2]).ends_with("\"c;\");"));
        assert!(text(parts[3]).ends_with("'it''s; here', 1, 2);"), "{parts:?}");
        assert!(text(parts[4]).ends_with("END; END;"), "{parts:?}");
        assert!(text(parts[6]).ends_with("SELECT 1 /* ; */"));
    }

    #[test]
    fn what_is_not_closed_ends_with_the_script() {
        for script in ["SELECT 'a; b", "SELECT [a; b", "SELECT 1 /* ; ", "SELECT \"a;", "/", "'"] {
            assert_eq!(parts(script).collect::<Vec<_>>(), [Part::Statement(script)]);
        }
        assert_eq!(parts("; -- ;").count(), 0);
    }
}
