//! Follows a stream of events (SSE) for as long as anybody looks, over broken connections.
//!
//! [`Events`] only takes lines apart; [`follow`] connects, hands on, and connects again with the
//! id of the last event that it saw, so that none is missed and none is shown twice.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use http::{Method, header};
use ureq::SendBody;

use super::client::{Call, Host};
use super::error::CliError;
use super::error::Said;
use crate::terminal::complain;

/// One event; the largest is a log line, escaped.
const EVENT_MAX_BYTES: usize = 256 << 10;
/// The host writes something now and then, if only to show that it is there.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);
const LAST_EVENT_ID: header::HeaderName = header::HeaderName::from_static("last-event-id");

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `message` where the stream does not say.
    pub kind: String,
    pub data: String,
}

/// Takes a stream apart, line by line.
#[derive(Debug, Default)]
pub struct Events {
    kind: String,
    data: Option<String>,
    last_id: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

impl Events {
    /// Takes one line without its end; an event at the empty line that ends it.
    pub fn line(&mut self, line: &str) -> Result<Option<Event>, TooLong> {
        if line.is_empty() {
            let kind = std::mem::take(&mut self.kind);
            let Some(data) = self.data.take() else { return Ok(None) };
            let kind = if kind.is_empty() { "message".to_owned() } else { kind };
            return Ok(Some(Event { kind, data }));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.last_id = Some(value.to_owned()),
            // A comment, a wish for another pause, and what is not known yet.
            _ => {}
        }
        let length = self.data.as_ref().map_or(0, String::len);
        if length > EVENT_MAX_BYTES { Err(TooLong) } else { Ok(None) }
    }

    /// What is unfinished at the end of a connection comes again with the next one.
    fn reconnect(&mut self) {
        self.kind.clear();
        self.data = None;
    }
}

/// The last event of a stream: why there is none any more.
const ENDED: &str = "ended";

/// Ends only with an error: the host's refusal, its last word, or `each`'s own.
pub fn follow(
    host: &Host,
    path: &str,
    mut each: impl FnMut(Event) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut events = Events::default();
    let mut pause = PAUSE_MIN;
    let mut was_connected = false;
    let mut is_away = false;
    loop {
        let mut headers = vec![(header::ACCEPT, "text/event-stream")];
        let last_id = events.last_id.clone();
        if let Some(id) = &last_id {
            headers.push((LAST_EVENT_ID, id));
        }
        let call = Call { headers: &headers, silence: Some(SILENCE_MAX), ..Call::default() };
        match host.call_any(Method::GET, path, SendBody::none(), &call) {
            Ok(response) if response.status().is_success() => {
                was_connected = true;
                if std::mem::take(&mut is_away) {
                    complain(format_args!("{} is back", host.url()));
                }
                if read(response.into_body().into_reader(), &mut events, &mut each)? {
                    pause = PAUSE_MIN;
                }
            }
            // What stands before a host answers in its place while it starts again.
            Ok(response) if was_connected && response.status().is_server_error() => {
                away(host, &mut is_away);
            }
            Ok(response) => return Err(host.refused(response)),
            Err(CliError::Unreachable { .. } | CliError::Broken { .. }) if was_connected => {
                away(host, &mut is_away);
            }
            Err(error) => return Err(error),
        }
        events.reconnect();
        #[expect(clippy::disallowed_methods, reason = "between two attempts nothing can happen")]
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Once for each time that it is.
fn away(host: &Host, is_away: &mut bool) {
    if !std::mem::replace(is_away, true) {
        complain(format_args!("{} does not answer; this goes on when it is back", host.url()));
    }
}

/// Whether any event came before the connection broke.
fn read(
    stream: impl Read,
    events: &mut Events,
    each: &mut impl FnMut(Event) -> Result<(), CliError>,
) -> Result<bool, CliError> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    let mut any = false;
    loop {
        line.clear();
        let bounded = &mut (&mut stream).take(EVENT_MAX_BYTES as u64);
        match bounded.read_until(b'\n', &mut line) {
            Ok(1..) if line.ends_with(b"\n") => {}
            Ok(EVENT_MAX_BYTES..) => return Err(too_long()),
            Ok(_) | Err(_) => return Ok(any),
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches('\n').trim_end_matches('\r');
        if let Some(event) = events.line(text).map_err(|TooLong| too_long())? {
            any = true;
            match event.kind.as_str() {
                ENDED => return Err(CliError::Problem(Said::of(event.data)?)),
                _ => each(event)?,
            }
        }
    }
}

fn too_long() -> CliError {
    CliError::Refused("the host sent an event that is too long to be one".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(stream: &str) -> (Vec<Event>, Option<String>) {
        let mut events = Events::default();
        let parsed = stream.lines().filter_map(|line| events.line(line).unwrap()).collect();
        (parsed, events.last_id)
    }

    fn event(kind: &str, data: &str) -> Event {
        Event { kind: kind.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_of_a_stream() {
        for (stream, expected, last_id) in [
            ("data: a\n\n", vec![event("message", "a")], None),
            ("event: line\nid: 7\ndata: {}\n\n", vec![event("line", "{}")], Some("7")),
            ("event:line\ndata:a\ndata: b\ndata\n\n", vec![event("line", "a\nb\n")], None),
            (": comment\nretry: 10\nnonsense\n\ndata: a\r\n\n", vec![event("message", "a")], None),
            (
                "id: 1\ndata: a\n\ndata: b\n\n",
                vec![event("message", "a"), event("message", "b")],
                Some("1"),
            ),
            ("event: line\n\ndata: a\n\n", vec![event("message", "a")], None),
            ("data: a\n\ndata: unfinished\n", vec![event("message", "a")], None),
        ] {
            assert_eq!(parse(stream), (expected, last_id.map(str::to_owned)), "{stream:?}");
        }
    }

    #[test]
    fn an_event_has_a_bound() {
        let mut events = Events::default();
        let line = format!("data: {}", "x".repeat(EVENT_MAX_BYTES / 2));
        assert_eq!(events.line(&line), Ok(None));
        assert_eq!(events.line(&line), Err(TooLong));
        let endless = std::io::repeat(b'x');
        let error = read(endless, &mut Events::default(), &mut |_| Ok(())).unwrap_err();
        assert!(matches!(error, CliError::Refused(_)));
    }

    #[test]
    fn the_last_word_of_a_stream_is_told() {
        let stream = "event: ended\ndata: {\"detail\":\"no more\",\"code\":\"x\"}\n\n";
        let told = read(stream.as_bytes(), &mut Events::default(), &mut |_| Ok(()));
        assert_eq!(told.unwrap_err().to_string(), "no more (x)");
    }

    #[test]
    fn a_broken_connection_leaves_nothing_half_read() {
        let mut events = Events::default();
        let mut seen = Vec::new();
        for stream in ["id: 1\ndata: a\n\nevent: x\ndata: ha", "id: 2\r\ndata: b\r\n\r\n"] {
            let any = read(stream.as_bytes(), &mut events, &mut |event| {
                seen.push(event);
                Ok(())
            });
            assert!(any.unwrap());
            events.reconnect();
        }
        assert_eq!(seen, [event("message", "a"), event("message", "b")]);
        assert_eq!(events.last_id.as_deref(), Some("2"));
    }
}
