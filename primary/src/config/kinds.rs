//! The kinds of values that settings have: how one is read, what is said of one that cannot be read,
//! and how it is written.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

type Read<T> = Box<dyn Fn(&str) -> Option<T>>;
type Show<T> = Box<dyn Fn(&T) -> String>;

pub struct Kind<T> {
    /// What a value must be.
    pub expected: String,
    pub read: Read<T>,
    pub show: Show<T>,
}

impl<T: 'static> Kind<T> {
    fn new(
        expected: impl Into<String>,
        read: impl Fn(&str) -> Option<T> + 'static,
        show: impl Fn(&T) -> String + 'static,
    ) -> Self {
        Self { expected: expected.into(), read: Box::new(read), show: Box::new(show) }
    }
}

/// What a type reads by itself.
pub fn parsed<T: FromStr + Display + 'static>(expected: &str) -> Kind<T> {
    checked(expected, |text| text.parse().ok())
}

/// What is read by a rule of its own.
pub fn checked<T: Display + 'static>(
    expected: &str,
    read: impl Fn(&str) -> Option<T> + 'static,
) -> Kind<T> {
    Kind::new(expected, read, T::to_string)
}

pub fn path(expected: &str) -> Kind<PathBuf> {
    let read = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
    Kind::new(expected, read, |path| path.display().to_string())
}

/// A whole number within its bounds, with what it counts before them.
pub fn whole<N: FromStr + Display + PartialOrd + 'static>(
    what: &str,
    bounds: RangeInclusive<N>,
) -> Kind<N> {
    let expected = format!("{what} from {} to {}", bounds.start(), bounds.end());
    let read = move |text: &str| text.parse().ok().filter(|number| bounds.contains(number));
    Kind::new(expected, read, N::to_string)
}

/// A time within its bounds, with examples of how it is written.
pub fn duration(bounds: RangeInclusive<Duration>, like: &str) -> Kind<Duration> {
    let least = match *bounds.start() {
        Duration::ZERO => String::new(),
        least => format!(" of at least {}", humantime::format_duration(least)),
    };
    let read = move |text: &str| {
        humantime::parse_duration(text).ok().filter(|duration| bounds.contains(duration))
    };
    let show = |duration: &Duration| humantime::format_duration(*duration).to_string();
    Kind::new(format!("a duration{least}, like {like}"), read, show)
}

/// The first and the last of some numbers.
pub fn span<N: FromStr + Display + PartialOrd + 'static>(
    expected: &str,
    is_good: impl Fn(&RangeInclusive<N>) -> bool + 'static,
) -> Kind<RangeInclusive<N>> {
    let read = move |text: &str| {
        let (first, last) = text.split_once('-')?;
        let span = first.trim().parse().ok()?..=last.trim().parse().ok()?;
        (!span.is_empty() && is_good(&span)).then_some(span)
    };
    Kind::new(expected, read, |span| format!("{}-{}", span.start(), span.end()))
}

/// One of some words.
pub fn word<T: Copy + PartialEq + 'static>(words: &'static [(&'static str, T)]) -> Kind<T> {
    let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    let read = |text: &str| words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    let show = |value: &T| {
        let found = words.iter().find(|(_, meant)| meant == value);
        found.map_or_else(String::new, |(word, _)| (*word).to_owned())
    };
    Kind::new(format!("one of {}", all.join(", ")), read, show)
}

/// The longest that any duration here can be: beyond it nothing is waited for.
pub const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);
