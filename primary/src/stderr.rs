//! What jailed processes say on standard error: each has a pipe of its own there and nothing of the
//! host's. What comes is strangers' text: it is read at a pace, cut, escaped, named by whose pipe it
//! came on, and bounded. It goes to the host's log, and to no tenant's.
//!
//! [`Words`] is pure. A process lives for long or asks for a pipe that somebody reads meanwhile
//! ([`listen`]), or its last words are read at its end ([`Speaker::tell_last`]).

use std::fmt;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use hearth_wire::TenantName;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tracing::warn;

/// What is shown of one line.
const LINE_MAX_BYTES: usize = 400;
/// A panic with its trace is told whole; who says more than this is told of now and then.
const LINES_AT_ONCE: u32 = 24;
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Read at once, and the pause behind it: whoever writes without end is read at half a megabyte a
/// second, and waits.
const BUFFER: usize = 1 << 10;
const PAUSE: Duration = Duration::from_millis(2);
/// What is read of a process that has ended. A pipe holds no more.
const LAST_WORDS_BYTES: u64 = 64 << 10;

/// Whose pipe it is.
#[derive(Debug, Clone)]
pub struct Speaker {
    process: &'static str,
    tenant: Option<TenantName>,
}

impl Speaker {
    pub fn worker(tenant: TenantName) -> Self {
        Self { process: "worker", tenant: Some(tenant) }
    }

    pub fn zygote() -> Self {
        Self { process: "zygote", tenant: None }
    }

    pub fn compiler() -> Self {
        Self { process: "compiler", tenant: None }
    }

    pub fn tree() -> Self {
        Self { process: "tree", tenant: None }
    }

    fn tell(&self, lines: impl IntoIterator<Item = Line>) {
        let Self { process, tenant } = self;
        let tenant = tenant.as_ref().map(tracing::field::display);
        for Line { text, left_out } in lines {
            warn!(process, tenant, left_out, said = %Quoted(&text), "a jailed process says");
        }
    }

    /// Of a process that has ended, whatever it has said. Waits for nothing.
    pub fn tell_last(&self, pipe: &PipeReader) {
        self.tell(last_words(pipe));
    }
}

/// One line for people.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    text: String,
    /// Lines before it that were too many to be told.
    left_out: Option<u64>,
}

/// In quotes, so that it is seen where it ends, and with nothing that a terminal obeys.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

/// Lines out of bytes.
struct Words {
    line: Vec<u8>,
    /// Of the line that is being read, and is long enough to be told.
    is_cut: bool,
    room: u32,
    since: Instant,
    left_out: u64,
}

impl Words {
    fn new(now: Instant) -> Self {
        Self { line: Vec::new(), is_cut: false, room: LINES_AT_ONCE, since: now, left_out: 0 }
    }

    fn hear(&mut self, bytes: &[u8], now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                lines.extend(self.end_line(now));
            } else if self.line.len() < LINE_MAX_BYTES {
                self.line.push(byte);
            } else {
                self.is_cut = true;
            }
        }
        lines
    }

    /// At the end of a line, or of all.
    fn end_line(&mut self, now: Instant) -> Option<Line> {
        let line = std::mem::take(&mut self.line);
        let is_cut = std::mem::take(&mut self.is_cut);
        if line.is_empty() {
            return None;
        }
        if !self.has_room(now) {
            self.left_out += 1;
            return None;
        }
        let mut text = String::from_utf8_lossy(&line).into_owned();
        if is_cut {
            text.push('…');
        }
        let left_out = std::mem::take(&mut self.left_out);
        Some(Line { text, left_out: (left_out > 0).then_some(left_out) })
    }

    fn has_room(&mut self, now: Instant) -> bool {
        let periods = now.saturating_duration_since(self.since).as_secs() / LINE_EVERY.as_secs();
        if periods > 0 {
            self.room =
                LINES_AT_ONCE.min(self.room.saturating_add(periods.try_into().unwrap_or(u32::MAX)));
            self.since = now;
        }
        let has = self.room > 0;
        self.room = self.room.saturating_sub(1);
        has
    }
}

/// The writing end of a pipe for a process that is about to start. What it says is told until its
/// end. Within a runtime.
pub fn listen(speaker: Speaker) -> io::Result<OwnedFd> {
    let (ours, theirs) = io::pipe()?;
    tokio::spawn(relay(ours, speaker));
    Ok(theirs.into())
}

/// Until nobody holds the writing end any more.
pub async fn relay(pipe: PipeReader, speaker: Speaker) {
    let mut pipe = match Receiver::from_owned_fd(pipe.into()) {
        Ok(pipe) => pipe,
        Err(error) => {
            let process = speaker.process;
            warn!(process, error = &error as &dyn std::error::Error, "its errors are not read");
            return;
        }
    };
    let mut words = Words::new(Instant::now());
    let mut buffer = [0; BUFFER];
    // An error is an end as well: a pipe has none that goes away.
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        speaker.tell(words.hear(&buffer[..read], Instant::now()));
        tokio::time::sleep(PAUSE).await;
    }
    speaker.tell(words.end_line(Instant::now()));
}

fn last_words(pipe: &PipeReader) -> Vec<Line> {
    let mut said = Vec::new();
    if let Ok(flags) = fcntl_getfl(pipe.as_fd())
        && fcntl_setfl(pipe.as_fd(), flags | OFlags::NONBLOCK).is_ok()
    {
        // What came before an error is there all the same.
        let _ = pipe.take(LAST_WORDS_BYTES).read_to_end(&mut said);
    }
    let now = Instant::now();
    let mut words = Words::new(now);
    let mut lines = words.hear(&said, now);
    lines.extend(words.end_line(now));
    lines
}

/// The same for an error's text.
pub fn quote_last(pipe: &PipeReader) -> Option<String> {
    let lines = last_words(pipe);
    let quoted: Vec<_> = lines.iter().map(|line| Quoted(&line.text).to_string()).collect();
    (!quoted.is_empty()).then(|| quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn texts(lines: Vec<Line>) -> Vec<String> {
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_are_whole_cut_and_bounded() {
        let start = Instant::now();
        let mut words = Words::new(start);
        assert_eq!(texts(words.hear(b"one\ntw", start)), ["one"]);
        assert_eq!(texts(words.hear(b"o\n\n\nthree", start)), ["two"]);
        assert_eq!(words.end_line(start).unwrap().text, "three");
        assert_eq!(words.end_line(start), None);

        let long = texts(words.hear(&[b"x".repeat(100_000), b"\n".to_vec()].concat(), start));
        assert_eq!(long, ["x".repeat(LINE_MAX_BYTES) + "…"]);

        let told = words.hear(&b"again\n".repeat(1_000), start).len();
        assert_eq!(told, LINES_AT_ONCE as usize - 4);
        let later = words.hear(b"later\n", start + LINE_EVERY);
        assert_eq!(later, [Line { text: "later".to_owned(), left_out: Some(1_004 - 24) }]);
        let much_later = words.hear(&b"again\n".repeat(1_000), start + 1_000 * LINE_EVERY);
        assert_eq!(much_later.len(), LINES_AT_ONCE as usize);
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_the_end_is_seen() {
        for (said, shown) in [
            ("\u{1b}[2J\u{7}", r#""\u{1b}[2J\u{7}""#),
            ("a\u{2028}b\u{202e}c\rd", r#""a\u{2028}b\u{202e}c\rd""#),
            (r#"x" tenant=other said="y"#, r#""x\" tenant=other said=\"y""#),
        ] {
            assert_eq!(Quoted(said).to_string(), shown);
        }
    }

    #[test]
    fn last_words_are_had_without_waiting() {
        let (ours, mut theirs) = io::pipe().unwrap();
        assert_eq!(quote_last(&ours), None, "its other end is open, and nothing came");
        theirs.write_all(b"first\nsecond").unwrap();
        assert_eq!(quote_last(&ours).unwrap(), r#""first", "second""#);
        drop(theirs);
        assert_eq!(quote_last(&ours), None);
    }
}
