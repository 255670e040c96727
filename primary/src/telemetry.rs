//! What the host says of itself: its log on standard error, and its figures for Prometheus.
//!
//! Log lines of functions are not this (see `logs.rs`). Whoever knows a figure records it with the
//! macros of `metrics`; this file names and describes them all, so that they can be found. A log
//! that cannot be written, or that nobody reads, is lost, and nobody ends or waits for it.

mod json;
mod lines;

use std::io::{self, IsTerminal, Write};

use hearth_wire::TenantName;
use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use syscalls::Sysno;
use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use self::lines::Lines;
use crate::config::{Log, LogFormat};
use crate::terminal::{error_width, escape_coloured, escape_json, record};

/// Seconds. From a warm call of 0.1 ms to the longest that a function may have.
const BUCKETS: [f64; 15] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
    300.0,
];

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log could not be set up")]
    Log(#[from] TryInitError),
    #[error("the metrics could not be set up")]
    Metrics(#[from] BuildError),
}

/// The figures recorded so far.
#[derive(Clone)]
pub struct Telemetry {
    figures: PrometheusHandle,
}

/// Sets up both, once for the whole process. The filter was checked when the configuration was.
pub fn init(settings: &Log) -> Result<Telemetry, TelemetryError> {
    let json = match settings.format {
        LogFormat::Text => false,
        LogFormat::Json => true,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&settings.filter))
        .with_writer(move || StandardError { json })
        // It would be said on standard error, by what panics where that cannot be written.
        .log_internal_errors(false)
        .with_ansi(!json && io::stderr().is_terminal());
    if json {
        log.fmt_fields(JsonFields::new()).event_format(json::Json).finish().try_init()?;
    } else {
        log.compact().with_target(false).finish().try_init()?;
    }
    let figures = recorder()?.install_recorder()?;
    describe();
    Ok(Telemetry { figures })
}

static LINES: Lines = Lines::new();

/// Takes a line of the log at a time. What cannot be written is lost: the reader of a pipe has
/// left or does not read, or the disk is full, and the host serves on.
struct StandardError {
    json: bool,
}

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = match self.json {
            true => escape_json(&text).into_owned(),
            false => record(&escape_coloured(&text), error_width()).into_owned(),
        };
        LINES.write(io::stderr(), line.as_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn recorder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS)
}

impl Telemetry {
    /// As Prometheus reads them.
    pub fn render(&self) -> String {
        self.figures.render()
    }

    /// Folds what was recorded into its buckets, which rendering does too, and says how much of the
    /// log was lost. To be called every few
    /// seconds, so that memory stays bounded where nobody reads the figures.
    pub fn fold(&self) {
        self.figures.run_upkeep();
        let lost = LINES.take_lost();
        if lost > 0 {
            metrics::counter!("hearth_log_lines_lost_total").increment(lost);
            warn!(lines = lost, "the log lost lines that could not be written in time");
        }
    }
}

/// Counts a system call that the walls forbid, by its number, and names it. A compiler's has no
/// tenant.
pub fn sandbox_violation(tenant: Option<&TenantName>, call: u32) -> &'static str {
    let call = usize::try_from(call).ok().and_then(Sysno::new);
    let call = call.map_or("unknown", |call| call.name());
    let tenant = tenant.map(ToString::to_string).unwrap_or_default();
    let labels = [("tenant", tenant), ("call", call.to_owned())];
    metrics::counter!("hearth_sandbox_violations_total", &labels).increment(1);
    call
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};

    describe_counter!(
        "hearth_calls_total",
        "Calls that reached a function, by tenant and outcome."
    );
    describe_histogram!("hearth_call_seconds", Unit::Seconds, "How long calls took.");
    describe_counter!("hearth_wakes_total", "Workers started for a connection or a call.");
    describe_histogram!(
        "hearth_wake_seconds",
        Unit::Seconds,
        "From a sleeping tenant's connection being seen to its worker accepting."
    );
    describe_histogram!(
        "hearth_spawn_seconds",
        Unit::Seconds,
        "From that connection being seen to the zygote being asked for a worker."
    );
    describe_histogram!(
        "hearth_walls_seconds",
        Unit::Seconds,
        "What putting up its walls took of a worker's start."
    );
    describe_counter!("hearth_worker_deaths_total", "Workers that ended without being told to.");
    describe_counter!(
        "hearth_sandbox_violations_total",
        "Forbidden system calls, by tenant and call; a compiler's has no tenant."
    );
    describe_counter!(
        "hearth_out_of_memory_total",
        "Workers that the kernel ended since their tenant had all of its memory."
    );
    describe_counter!(
        "hearth_state_looks_total",
        "Looks at how much of the disk the state of a tenant takes whose worker runs."
    );
    describe_counter!(
        "hearth_state_over_quota_total",
        "Looks at which a state took more than its tenant may have: its workers were ended."
    );
    describe_gauge!("hearth_isolation", "1 for the level of isolation that was reached.");
    describe_gauge!("hearth_workers", "Tenants, by the state of their worker.");
    describe_gauge!(
        "hearth_connections_parked",
        "Connections that wait without a worker until their clients say something."
    );
    describe_counter!(
        "hearth_front_connections_total",
        "Connections at the front door: handed over to a worker for good, or proxied."
    );
    describe_counter!(
        "hearth_log_lines_lost_total",
        "Lines of this log that nobody read in time, or that could not be written."
    );
    describe_counter!("hearth_uploads_total", "Uploads, by outcome.");
    describe_counter!("hearth_backups_total", "Backups, by outcome.");
    describe_gauge!(
        "hearth_modules_damaged",
        "Modules that the disk has changed: their versions are out of service."
    );
    describe_gauge!(
        "hearth_store_read_only",
        "1 since the store's disk failed: it takes no changes until Hearth starts again."
    );
    describe_counter!(
        "hearth_gateway_requests_total",
        "Requests at the front door that were for a tenant."
    );
    describe_counter!(
        "hearth_log_records_unreadable_total",
        "Lines and calls in journals that a reader met and could not read."
    );
    describe_counter!(
        "hearth_connections_dropped_total",
        "Connections that the host could not take care of."
    );
    describe_counter!(
        "hearth_log_records_dropped_total",
        "Log lines and call records that came faster than they could be kept."
    );
    describe_counter!("hearth_api_requests_total", "Answers of the management API, by status.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rendered_with_buckets() {
        let recorder = recorder().unwrap().build_recorder();
        let figures = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::counter!("hearth_calls_total", "tenant" => "acme", "outcome" => "answered")
                .increment(2);
            metrics::histogram!("hearth_call_seconds").record(0.003);
        });
        let text = Telemetry { figures }.render();
        for line in [
            "# TYPE hearth_calls_total counter",
            r#"hearth_calls_total{tenant="acme",outcome="answered"} 2"#,
            r#"hearth_call_seconds_bucket{le="0.0025"} 0"#,
            r#"hearth_call_seconds_bucket{le="0.005"} 1"#,
        ] {
            assert!(text.lines().any(|rendered| rendered == line), "{line}\n{text}");
        }
    }
}
