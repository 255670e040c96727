//! `hearth logs` and `hearth calls`: the last of them, and with `-f` those to come.

use std::io::{self, Write};

use hearth_wire::{FunctionPath, LogStream, Origin};
use serde::de::DeserializeOwned;

use super::client::{Host, PAGE_MAX, query, segment};
use super::error::{CliError, usage};
use super::follow::{Event, follow};
use super::print::{OrDash, Print, Table, bytes, escape, micros, milliseconds};
use crate::api::logs::{CallInfo, CallPage, LineInfo, LinePage, Missed};
use crate::config::ClientArgs;
use crate::terminal::{self, complain};

/// What is shown of the past before following.
const BEFORE_FOLLOWING: u32 = 10;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hearth logs hello -n 20\n  hearth logs -f")]
pub struct LogsArgs {
    /// The function, like hello or jobs/nightly [default: all]
    path: Option<FunctionPath>,
    /// Go on with what is written from now on
    #[arg(long, short)]
    follow: bool,
    /// How many of the last lines, 1 to 1000, or fewer where they are large; with -f also 0
    /// [default: 100, or 10 with -f]
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u32).range(0..=PAGE_MAX))]
    lines: Option<u32>,
    /// Only those of one call
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Only what was written there
    #[arg(long, value_parser = ["stdout", "stderr", "host"])]
    stream: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hearth calls hello -n 20\n  hearth calls -f")]
pub struct CallsArgs {
    /// The function, like hello or jobs/nightly [default: all]
    path: Option<FunctionPath>,
    /// Go on with the calls from now on
    #[arg(long, short)]
    follow: bool,
    /// How many of the last calls, 1 to 1000; with -f also 0 [default: 100, or 10 with -f]
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u32).range(0..=PAGE_MAX))]
    calls: Option<u32>,
    /// Only the one with this request id
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

pub fn logs(args: &LogsArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let LogsArgs { path, follow, lines, request_id, stream } = args;
    some(*lines, *follow)?;
    let filters = [
        ("path", path.as_ref().map(FunctionPath::as_str)),
        ("request_id", request_id.as_deref()),
        ("stream", stream.as_deref()),
    ];
    let host = Host::connect(client)?;
    let base = host.of_tenant("/logs")?;
    if *follow {
        exists(&host, path.as_ref())?;
        let write = |line: LineInfo| write_line(&line, &mut print.out());
        return followed(&host, &base, &filters, *lines, "line", print, write);
    }
    let answer = host.get(&with_last(&base, &filters, *lines))?;
    if answer.parse::<LinePage>()?.lines.is_empty() {
        exists(&host, path.as_ref())?;
    }
    let is_filtered = filters.iter().any(|(_, filter)| filter.is_some());
    print.answer::<LinePage>(&answer, |page, out| match page.lines.as_slice() {
        [] => writeln!(out, "{}", nothing("line", is_filtered)),
        lines => lines.iter().try_for_each(|line| write_line(line, out)),
    })
}

pub fn calls(args: &CallsArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let CallsArgs { path, follow, calls, request_id } = args;
    some(*calls, *follow)?;
    let filters =
        [("path", path.as_ref().map(FunctionPath::as_str)), ("request_id", request_id.as_deref())];
    let host = Host::connect(client)?;
    let base = host.of_tenant("/calls")?;
    if *follow {
        exists(&host, path.as_ref())?;
        let write = |call: CallInfo| write_call(&call, &mut print.out());
        return followed(&host, &base, &filters, *calls, "call", print, write);
    }
    let answer = host.get(&with_last(&base, &filters, *calls))?;
    if answer.parse::<CallPage>()?.calls.is_empty() {
        exists(&host, path.as_ref())?;
    }
    let is_filtered = filters.iter().any(|(_, filter)| filter.is_some());
    print.answer::<CallPage>(&answer, |page, out| {
        write_calls(&page.calls, &nothing("call", is_filtered), out)
    })
}

/// None of what is there is something to ask for only where more is to come.
fn some(count: Option<u32>, follow: bool) -> Result<(), CliError> {
    match count {
        Some(0) if !follow => {
            Err(usage(format!("-n takes a number from 1 to {PAGE_MAX}, and with -f also 0")))
        }
        Some(_) | None => Ok(()),
    }
}

/// What is asked of a function that there never was has an answer of its own: it was misspelt.
fn exists(host: &Host, path: Option<&FunctionPath>) -> Result<(), CliError> {
    if let Some(path) = path {
        host.get(&host.of_tenant(&format!("/functions/{}/versions", segment(path)))?)?;
    }
    Ok(())
}

fn nothing(kind: &str, is_filtered: bool) -> String {
    match is_filtered {
        true => format!("There is no {kind} that matches."),
        false => format!("There is no {kind} yet."),
    }
}

fn with_last(base: &str, filters: &[(&str, Option<&str>)], count: Option<u32>) -> String {
    let count = count.map(|count| count.to_string());
    let mut pairs = filters.to_vec();
    pairs.push(("limit", count.as_deref()));
    format!("{base}{}", query(&pairs))
}

/// The last so many, and then what comes: each a line of JSON for programs.
fn followed<T: DeserializeOwned>(
    host: &Host,
    base: &str,
    filters: &[(&str, Option<&str>)],
    count: Option<u32>,
    kind: &str,
    print: Print,
    mut write: impl FnMut(T) -> io::Result<()>,
) -> Result<(), CliError> {
    let mut pairs = filters.to_vec();
    pairs.push(("follow", Some("true")));
    // To the API, none of the past is what is not asked for.
    let count = Some(count.unwrap_or(BEFORE_FOLLOWING)).filter(|count| *count > 0);
    let path = with_last(base, &pairs, count);
    follow(host, &path, |Event { kind: of, data }| match of.as_str() {
        of if of == kind && print.json() => print.raw(&data),
        of if of == kind => Ok(write(serde_json::from_str(&data).map_err(CliError::Answer)?)?),
        "missed" => {
            let Missed { missed } = serde_json::from_str(&data).map_err(CliError::Answer)?;
            complain(format_args!("{missed} more came faster than they could be shown"));
            Ok(())
        }
        _ => Ok(()),
    })
}

fn write_line(line: &LineInfo, out: &mut dyn Write) -> io::Result<()> {
    let LineInfo { id: _, time, function, version, request_id, stream, level, text } = line;
    let said = match (level, stream) {
        (Some(level), _) => level.as_str(),
        (None, LogStream::Stdout) => "out ",
        (None, LogStream::Stderr) => "err ",
        (None, LogStream::Host) => "host",
    };
    let (time, request_id, text) = (milliseconds(*time), escape(request_id), escape(text));
    let line = format!("{time} {function}@{version} {request_id} {said} {text}");
    writeln!(out, "{}", terminal::record(&line, terminal::output_width()))
}

fn write_calls(calls: &[CallInfo], empty: &str, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new([
        "time", "function", "origin", "method", "status", "outcome", "took", "in", "out", "woke",
        "request",
    ]);
    for call in calls {
        table.row([
            &milliseconds(call.time),
            &format_args!("{}@{}", call.function, call.version),
            &OrDash(call.origin.map(Origin::as_str)),
            &call.method,
            &call.status,
            &call.outcome.as_str(),
            &micros(call.duration_us),
            &bytes(call.request_bytes),
            &bytes(call.response_bytes),
            &OrDash(call.cold_us.map(micros)),
            &call.request_id,
        ]);
    }
    table.write(out, empty)
}

fn write_call(call: &CallInfo, out: &mut dyn Write) -> io::Result<()> {
    let CallInfo { function, version, method, status, request_id, .. } = call;
    let (time, took) = (milliseconds(call.time), micros(call.duration_us));
    let outcome = call.outcome.as_str();
    let origin = OrDash(call.origin.map(Origin::as_str));
    let (method, request_id) = (escape(method), escape(request_id));
    let woke = call.cold_us.map(|woke| format!(", woke in {}", micros(woke))).unwrap_or_default();
    let line = format!(
        "{time} {function}@{version} {request_id} {origin} {method} {status} {outcome} {took}{woke}"
    );
    writeln!(out, "{}", terminal::record(&line, terminal::output_width()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_wire::{LogLevel, Outcome};

    #[test]
    fn what_is_asked_for() {
        let filters = [("path", Some("/a")), ("stream", None)];
        assert_eq!(with_last("/logs", &filters, Some(5)), "/logs?path=%2Fa&limit=5");
        assert_eq!(with_last("/logs", &[], None), "/logs");
    }

    #[test]
    fn a_line_cannot_pretend_to_be_another() {
        let line = LineInfo {
            id: 1,
            time: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            function: "/hello".parse().unwrap(),
            version: 3.into(),
            request_id: "r-1".to_owned(),
            stream: LogStream::Stderr,
            level: None,
            text: "a\n\u{1b}[31mb".to_owned(),
        };
        let mut out = Vec::new();
        write_line(&line, &mut out).unwrap();
        let written = "2026-01-02 03:04:05.678Z /hello@3 r-1 err  a\\n\\u{1b}[31mb\n";
        assert_eq!(String::from_utf8(out).unwrap(), written);
        let mut out = Vec::new();
        write_line(&LineInfo { level: Some(LogLevel::Critical), ..line }, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), written.replace("err ", "critical"));
    }

    #[test]
    fn a_call_in_one_line() {
        let call = CallInfo {
            id: 1,
            time: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            function: "/hello".parse().unwrap(),
            version: 3.into(),
            origin: Some(Origin::Api),
            request_id: "r-1".to_owned(),
            method: "POST".to_owned(),
            status: 200,
            outcome: Outcome::Answered,
            duration_us: 1_500,
            request_bytes: 14,
            response_bytes: 26,
            cold_us: Some(2_300),
        };
        let mut out = Vec::new();
        write_call(&call, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2026-01-02 03:04:05.678Z /hello@3 r-1 api POST 200 answered 1.5 ms, woke in 2.3 ms\n"
        );
    }
}
