//! What the worker tells the primary of its calls: log lines and call records, in batches.
//!
//! Owns the one queue of them and its bounds; no secret comes into it. A guest that writes faster
//! than can be taken loses lines, which are counted; it never waits, and never makes anybody wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hearth_wire::limits::LOG_LINE_MAX_BYTES;
use hearth_wire::{
    CallRecord, Channel, FromWorker, FunctionPath, FunctionVersion, LogLevel, LogLine, LogStream,
    Report, RequestId, SocketError,
};
use tokio::sync::Notify;

use crate::scrub::Scrub;

/// A batch is sent when it is this old or this large.
const AGE_MAX: Duration = Duration::from_millis(100);
const BATCH_BYTES: usize = Report::ITEMS_MAX * ITEM_BYTES;
/// What of it waits at once.
const QUEUE_BYTES: usize = 1 << 20;
const CALLS_MAX: usize = 2_048;
/// What a line or a record takes besides its texts.
const ITEM_BYTES: usize = 64;

/// A handle to the queue.
#[derive(Clone)]
pub struct Reporter {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Notify,
    scrub: Scrub,
}

impl Reporter {
    /// Lines are taken at so many bytes a second, of all guests together.
    pub fn new(bytes_per_second: u64, scrub: Scrub) -> Self {
        let queue = Mutex::new(Queue::new(bytes_per_second, Instant::now()));
        Self { shared: Arc::new(Shared { queue, filled: Notify::new(), scrub }) }
    }

    /// A text that leaves the worker, without secrets.
    pub fn clean(&self, text: String) -> String {
        self.shared.scrub.clean(text)
    }

    pub fn line(&self, line: LogLine) {
        self.put(|queue| queue.line(line, Instant::now()));
    }

    pub fn call(&self, record: CallRecord) {
        self.put(|queue| queue.call(record));
    }

    /// Whoever sends is woken when a batch begins and when it is full, and not in between.
    fn put(&self, item: impl FnOnce(&mut Queue)) {
        let mut queue = self.queue();
        let before = queue.bytes;
        item(&mut queue);
        let (begins, fills) = (before == 0, before < BATCH_BYTES && queue.bytes >= BATCH_BYTES);
        drop(queue);
        if begins || fills {
            self.shared.filled.notify_one();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what there is and sends it nowhere.
    #[cfg(measures)]
    pub fn forget(&self) {
        while self.queue().take().is_some() {}
    }

    /// Sends batches for as long as it is polled.
    pub async fn keep_sending(&self, channel: &Channel) -> Result<(), SocketError> {
        loop {
            self.shared.filled.notified().await;
            let due = tokio::time::sleep(AGE_MAX);
            tokio::pin!(due);
            while self.queue().bytes < BATCH_BYTES {
                tokio::select! {
                    () = &mut due => break,
                    () = self.shared.filled.notified() => {}
                }
            }
            self.send_all(channel).await?;
        }
    }

    /// Sends what there is.
    pub async fn send_all(&self, channel: &Channel) -> Result<(), SocketError> {
        while let Some(report) = { self.queue().take() } {
            channel.send(&FromWorker::Report(report), &[]).await?;
        }
        Ok(())
    }
}

/// Who a call's lines are from.
#[derive(Clone)]
pub struct CallLog {
    pub reporter: Reporter,
    pub function: FunctionPath,
    pub version: FunctionVersion,
    pub request_id: RequestId,
}

impl CallLog {
    pub fn line(&self, stream: LogStream, text: String) {
        self.say(stream, None, text);
    }

    /// What a function says of how much it matters, beside what it writes to standard error.
    pub fn levelled(&self, level: LogLevel, text: String) {
        self.say(LogStream::Stderr, Some(level), text);
    }

    fn say(&self, stream: LogStream, level: Option<LogLevel>, text: String) {
        let mut text = self.reporter.clean(text);
        // What the host says may quote the guest or its caller.
        text.truncate(text.floor_char_boundary(LOG_LINE_MAX_BYTES));
        self.reporter.line(LogLine {
            time_ms: now_ms(),
            function: self.function.clone(),
            version: self.version.clone(),
            request_id: self.request_id.to_string(),
            stream,
            level,
            text,
        });
    }
}

/// Milliseconds since the epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Pure: bounded by bytes queued and by bytes a second.
struct Queue {
    lines: Vec<LogLine>,
    calls: Vec<CallRecord>,
    bytes: usize,
    lines_dropped: u64,
    calls_dropped: u64,
    bytes_per_second: u64,
    allowance: u64,
    refilled: Instant,
}

impl Queue {
    fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self {
            lines: Vec::new(),
            calls: Vec::new(),
            bytes: 0,
            lines_dropped: 0,
            calls_dropped: 0,
            bytes_per_second,
            allowance: bytes_per_second,
            refilled: now,
        }
    }

    fn line(&mut self, line: LogLine, now: Instant) {
        let micros = now.saturating_duration_since(self.refilled).as_micros();
        let earned =
            u64::try_from(micros).unwrap_or(u64::MAX).saturating_mul(self.bytes_per_second);
        self.allowance = (self.allowance + earned / 1_000_000).min(self.bytes_per_second);
        self.refilled = now;
        let size = line_bytes(&line);
        if self.bytes + size > QUEUE_BYTES || self.allowance < size as u64 {
            self.lines_dropped += 1;
            return;
        }
        self.allowance -= size as u64;
        self.bytes += size;
        self.lines.push(line);
    }

    fn call(&mut self, record: CallRecord) {
        if self.calls.len() == CALLS_MAX {
            self.calls_dropped += 1;
            return;
        }
        self.bytes += call_bytes(&record);
        self.calls.push(record);
    }

    /// The oldest of both, up to a batch; `None` where there is nothing to tell.
    fn take(&mut self) -> Option<Report> {
        let mut size = 0;
        let mut fits = |bytes: usize| {
            size += bytes;
            size <= BATCH_BYTES
        };
        let lines = self.lines.iter().take_while(|line| fits(line_bytes(line))).count();
        let calls = self.calls.iter().take_while(|call| fits(call_bytes(call))).count();
        let report = Report {
            lines: self.lines.drain(..lines).collect(),
            calls: self.calls.drain(..calls).collect(),
            lines_dropped: std::mem::take(&mut self.lines_dropped),
            calls_dropped: std::mem::take(&mut self.calls_dropped),
        };
        let taken = report.lines.iter().map(line_bytes).sum::<usize>()
            + report.calls.iter().map(call_bytes).sum::<usize>();
        self.bytes -= taken;
        (report != Report::default()).then_some(report)
    }
}

fn line_bytes(line: &LogLine) -> usize {
    let of_call = line.function.as_str().len() + line.version.bytes() + line.request_id.len();
    ITEM_BYTES + of_call + line.text.len()
}

fn call_bytes(call: &CallRecord) -> usize {
    let of_function = call.function.as_str().len() + call.version.bytes();
    ITEM_BYTES + of_function + call.request_id.len() + call.method.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_wire::{FRAME_MAX, Origin, Outcome};

    const RATE: u64 = 1 << 20;

    fn line(text: String) -> LogLine {
        LogLine {
            time_ms: 0,
            function: "/f".parse().unwrap(),
            version: 1.into(),
            request_id: "r".repeat(RequestId::BYTES_MAX),
            stream: LogStream::Stdout,
            level: None,
            text,
        }
    }

    fn call() -> CallRecord {
        CallRecord {
            time_ms: i64::MAX,
            function: "/f".parse().unwrap(),
            version: FunctionVersion::Bundled("9.".repeat(32).try_into().unwrap()),
            origin: Origin::Internal,
            request_id: "r".repeat(RequestId::BYTES_MAX),
            method: "M".repeat(CallRecord::METHOD_MAX_BYTES),
            status: 200,
            outcome: Outcome::Answered,
            duration_us: u64::MAX,
            request_bytes: u64::MAX,
            response_bytes: u64::MAX,
            cold_us: Some(u64::MAX),
        }
    }

    #[test]
    fn a_batch_fits_its_frame_and_nothing_is_lost_within_the_bounds() {
        let now = Instant::now();
        let mut queue = Queue::new(RATE, now);
        for _ in 0..100 {
            queue.line(line("x".repeat(LOG_LINE_MAX_BYTES)), now);
            queue.call(call());
        }
        let (mut lines, mut calls) = (0, 0);
        while let Some(report) = queue.take() {
            assert!(report.lines.len() + report.calls.len() <= Report::ITEMS_MAX);
            let size = report.lines.iter().map(line_bytes).sum::<usize>()
                + report.calls.iter().map(call_bytes).sum::<usize>();
            assert!(size <= BATCH_BYTES && BATCH_BYTES < FRAME_MAX);
            assert_eq!(report.lines_dropped, 0);
            lines += report.lines.len();
            calls += report.calls.len();
        }
        assert_eq!((lines, calls, queue.bytes), (100, 100, 0));
    }

    #[test]
    fn a_flood_is_dropped_counted_and_over_after_a_while() {
        let now = Instant::now();
        let mut queue = Queue::new(RATE, now);
        for _ in 0..1_000 {
            queue.line(line("x".repeat(4 << 10)), now);
        }
        let mut taken = 0;
        let mut dropped = 0;
        while let Some(report) = queue.take() {
            taken += report.lines.len();
            dropped += report.lines_dropped;
        }
        assert_eq!(taken as u64 + dropped, 1_000);
        assert!(taken as u64 * (4 << 10) <= RATE, "{taken}");
        queue.line(line("again".to_owned()), now + Duration::from_millis(10));
        assert_eq!(queue.take().map(|report| report.lines.len()), Some(1));
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn records_have_a_bound_of_their_own() {
        let mut queue = Queue::new(RATE, Instant::now());
        for _ in 0..CALLS_MAX + 3 {
            queue.call(call());
        }
        assert_eq!(queue.take().map(|report| report.calls_dropped), Some(3));
    }
}
