//! What the journals keep: a line that was written, a call that ended. What a worker reports is
//! another thing, and becomes one of these when it is taken, so that messages may change and what
//! is on disk is read all the same.
//!
//! A record is an object of JSON. One that an older host wrote has fewer fields: what came later is
//! an `Option`. One of a newer host may have more, which are passed over. No field changes its
//! meaning, and none goes that was not an `Option`.

use std::borrow::Cow;

use hearth_wire::{
    CallRecord, FunctionPath, FunctionVersion, LogLevel, LogLine, LogStream, Origin, Outcome,
};
use serde::{Deserialize, Deserializer, Serialize};

use super::record::{Filter, Record};

/// A line of a function's, or of Hearth about a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since the epoch.
    pub time_ms: i64,
    pub function: FunctionPath,
    pub version: FunctionVersion,
    pub request_id: String,
    pub stream: LogStream,
    /// `None` of what has none, which is most, and in what a host wrote that knew of none.
    #[serde(default, deserialize_with = "known_level", skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    pub text: String,
}

/// A call that came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// When its head was read: milliseconds since the epoch.
    pub time_ms: i64,
    pub function: FunctionPath,
    pub version: FunctionVersion,
    /// `None` in what was written before there were origins, or by a host that has more of them.
    #[serde(default, deserialize_with = "known")]
    pub origin: Option<Origin>,
    pub request_id: String,
    pub method: String,
    pub status: u16,
    pub outcome: Outcome,
    pub duration_us: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub cold_us: Option<u64>,
}

fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Origin>, D::Error> {
    let word = Option::<Cow<'de, str>>::deserialize(deserializer)?;
    Ok(Origin::ALL.into_iter().find(|origin| word.as_deref() == Some(origin.as_str())))
}

fn known_level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<LogLevel>, D::Error> {
    let word = Option::<Cow<'de, str>>::deserialize(deserializer)?;
    Ok(LogLevel::ALL.into_iter().find(|level| word.as_deref() == Some(level.as_str())))
}

impl From<LogLine> for Line {
    fn from(line: LogLine) -> Self {
        let LogLine { time_ms, function, version, request_id, stream, level, text } = line;
        Self { time_ms, function, version, request_id, stream, level, text }
    }
}

impl From<CallRecord> for Call {
    fn from(call: CallRecord) -> Self {
        let CallRecord {
            time_ms,
            function,
            version,
            origin,
            request_id,
            method,
            status,
            outcome,
            duration_us,
            request_bytes,
            response_bytes,
            cold_us,
        } = call;
        Self {
            time_ms,
            function,
            version,
            origin: Some(origin),
            request_id,
            method,
            status,
            outcome,
            duration_us,
            request_bytes,
            response_bytes,
            cold_us,
        }
    }
}

impl Record for Line {
    const KIND: &str = "lines";
    const ONE: &str = "line";

    fn matches(&self, filter: &Filter) -> bool {
        filter.takes(&self.function, &self.request_id)
            && filter.stream.is_none_or(|stream| stream == self.stream)
    }
}

impl Record for Call {
    const KIND: &str = "calls";
    const ONE: &str = "call";

    fn matches(&self, filter: &Filter) -> bool {
        filter.takes(&self.function, &self.request_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first Hearth that kept any wrote them, before a call had an origin.
    const LINE: &str = r#"{"time_ms":1700000000123,"function":"/Jobs/a","version":3,"request_id":"r-1","stream":"host","text":"it \"failed\""}"#;
    const CALL: &str = r#"{"time_ms":1700000000123,"function":"/jobs/a","version":3,"request_id":"r-1","method":"POST","status":499,"outcome":"abandoned","duration_us":1500,"request_bytes":14,"response_bytes":26,"cold_us":null}"#;
    const WOKE: &str = r#"{"time_ms":1700000000124,"function":"/a","version":1,"request_id":"r-2","method":"GET","status":200,"outcome":"answered","duration_us":1,"request_bytes":0,"response_bytes":0,"cold_us":2300}"#;
    /// As this one does.
    const CALL_NOW: &str = r#"{"time_ms":1700000000123,"function":"/jobs/a","version":3,"origin":"outside","request_id":"r-1","method":"POST","status":499,"outcome":"abandoned","duration_us":1500,"request_bytes":14,"response_bytes":26,"cold_us":null}"#;

    fn call() -> CallRecord {
        CallRecord {
            time_ms: 1_700_000_000_123,
            function: "/jobs/a".parse().unwrap(),
            version: 3.into(),
            origin: Origin::Outside,
            request_id: "r-1".into(),
            method: "POST".into(),
            status: 499,
            outcome: Outcome::Abandoned,
            duration_us: 1_500,
            request_bytes: 14,
            response_bytes: 26,
            cold_us: None,
        }
    }

    fn line() -> LogLine {
        LogLine {
            time_ms: 1_700_000_000_123,
            function: "/Jobs/a".parse().unwrap(),
            version: 3.into(),
            request_id: "r-1".into(),
            stream: LogStream::Host,
            level: None,
            text: "it \"failed\"".into(),
        }
    }

    fn read<T: Record>(text: &str) -> T {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_was_ever_written_is_read() {
        assert_eq!(read::<Line>(LINE), Line::from(line()));
        assert_eq!(read::<Call>(CALL), Call { origin: None, ..call().into() });
        assert_eq!(read::<Call>(WOKE).cold_us, Some(2_300));
        assert_eq!(read::<Call>(CALL_NOW), call().into());
        for level in LogLevel::ALL {
            let word = format!(r#""host","level":"{}""#, level.as_str());
            let levelled = LINE.replace(r#""host""#, &word);
            let line = Line { level: Some(level), ..line().into() };
            assert_eq!(read::<Line>(&levelled), line);
            assert_eq!(serde_json::to_string(&line).unwrap(), levelled);
        }
        for outcome in Outcome::ALL {
            let text = CALL.replace("abandoned", outcome.as_str());
            assert_eq!(read::<Call>(&text).outcome, outcome);
        }
        for origin in Origin::ALL {
            let text = CALL_NOW.replace("outside", origin.as_str());
            assert_eq!(read::<Call>(&text).origin, Some(origin));
        }
    }

    /// A host that is replaced by an older one again leaves more than that one knows.
    #[test]
    fn what_a_later_host_adds_is_passed_over() {
        let later = |text: &str| text.replacen('{', r#"{"added":[1,{"a":null}],"#, 1);
        assert_eq!(read::<Line>(&later(LINE)), line().into());
        assert_eq!(read::<Call>(&later(CALL_NOW)), call().into());
        let another = LINE.replace(r#""host""#, r#""host","level":"loud""#);
        assert_eq!(read::<Line>(&another), line().into());
        let another = CALL_NOW.replace("outside", "pigeon");
        assert_eq!(read::<Call>(&another), Call { origin: None, ..call().into() });
    }

    #[test]
    fn what_is_written_is_what_the_next_host_reads() {
        assert_eq!(serde_json::to_string(&Line::from(line())).unwrap(), LINE);
        assert_eq!(serde_json::to_string(&Call::from(call())).unwrap(), CALL_NOW);
    }
}
