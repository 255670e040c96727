//! Hearth's own log. What functions write is another one.

use super::kinds::{checked, word};
use super::settings::settings;

settings! {
    /// Hearth's own log.
    Log in "log":
    /// How to write its own log: text, json, or auto
    one format: LogFormat, "log" "format" "FORMAT" = "auto", word(FORMATS);
    /// What to write to its own log, as in `info,hearth=debug`
    one filter: String, "log-filter" "filter" "FILTER" = "info",
        checked("levels, like info or info,hearth=debug", read_filter);
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
    /// Text on a terminal, JSON otherwise.
    Auto,
}

const FORMATS: &[(&str, LogFormat)] =
    &[("text", LogFormat::Text), ("json", LogFormat::Json), ("auto", LogFormat::Auto)];

/// Valid for `tracing_subscriber::EnvFilter`.
fn read_filter(text: &str) -> Option<String> {
    tracing_subscriber::EnvFilter::builder().parse(text).ok().map(|_| text.to_owned())
}

#[cfg(test)]
pub mod examples {
    use crate::config::settings::{Bad, Good};

    pub const GOOD: &[Good] = &[
        ("log", ["text", "json", "auto"], [" log=text ", " log=json ", " log=auto "]),
        (
            "log-filter",
            ["warn", "info,hearth=debug", "off"],
            [" log-filter=warn ", " log-filter=info,hearth=debug ", " log-filter=off "],
        ),
    ];

    pub const BAD: &[Bad] = &[
        ("log", "xml", "must be one of text, json, auto, not `xml`"),
        ("log-filter", "hearth=loud", "must be levels"),
    ];
}
