//! A guest's standard output and standard error, cut into log lines of its call, and what it says
//! by `wasi:logging`, which is a line as it comes.
//!
//! A line ends at its newline, or with the call. What a line has above its bound is dropped up
//! to the newline, so a guest that never ends its line costs a line's memory and no more.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hearth_host::{Level, Listener};
use hearth_wire::limits::LOG_LINE_MAX_BYTES;
use hearth_wire::{LogLevel, LogStream};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::report::CallLog;

/// Taken from a guest at once.
const WRITE_MAX_BYTES: usize = 64 << 10;

/// Where an instance's lines go: to the log of the call that it serves, if it serves one. Clones
/// are the same log.
#[derive(Clone, Default)]
pub struct GuestLog {
    writing: Arc<Mutex<Writing>>,
}

#[derive(Default)]
struct Writing {
    log: Option<Arc<CallLog>>,
    stdout: Lines,
    stderr: Lines,
}

impl GuestLog {
    pub fn begin(&self, log: Arc<CallLog>) {
        self.lock().log = Some(log);
    }

    /// Says the lines that are not ended, and nothing after that.
    pub fn end(&self) {
        let mut writing = self.lock();
        let Writing { log, stdout, stderr } = &mut *writing;
        if let Some(log) = log.take() {
            stdout.end(|line| log.line(LogStream::Stdout, line));
            stderr.end(|line| log.line(LogStream::Stderr, line));
        }
    }

    pub fn stream(&self, stream: LogStream) -> GuestStream {
        GuestStream { log: self.clone(), stream }
    }

    fn take(&self, stream: LogStream, bytes: &[u8]) {
        let mut writing = self.lock();
        let Writing { log: Some(log), stdout, stderr } = &mut *writing else { return };
        let lines = if stream == LogStream::Stderr { stderr } else { stdout };
        lines.take(bytes, |line| log.line(stream, line));
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for GuestLog {
    fn said(&self, level: Level, text: String) {
        let level = match level {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
            Level::Critical => LogLevel::Critical,
        };
        if let Some(log) = &self.lock().log {
            log.levelled(level, text);
        }
    }
}

/// Standard output or standard error. Clones write to the same lines.
#[derive(Clone)]
pub struct GuestStream {
    log: GuestLog,
    stream: LogStream,
}

#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], mut say: impl FnMut(String)) {
        let mut pieces = bytes.split(|&byte| byte == b'\n');
        let mut piece = pieces.next().unwrap_or_default();
        loop {
            let room = LOG_LINE_MAX_BYTES.saturating_sub(self.begun.len());
            self.begun.extend_from_slice(&piece[..piece.len().min(room)]);
            match pieces.next() {
                None => return,
                Some(next) => {
                    say(text(&self.begun));
                    self.begun.clear();
                    piece = next;
                }
            }
        }
    }

    fn end(&mut self, mut say: impl FnMut(String)) {
        if !self.begun.is_empty() {
            say(text(&self.begun));
            self.begun = Vec::new();
        }
    }
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut text = String::from_utf8_lossy(line).into_owned();
    text.truncate(text.floor_char_boundary(LOG_LINE_MAX_BYTES));
    text
}

impl IsTerminal for GuestStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl OutputStream for GuestStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.take(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_MAX_BYTES)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestStream {
    async fn ready(&mut self) {}
}

impl AsyncWrite for GuestStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = &bytes[..bytes.len().min(WRITE_MAX_BYTES)];
        self.log.take(self.stream, taken);
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(writes: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut said) = (Lines::default(), Vec::new());
        for bytes in writes {
            lines.take(bytes, |line| said.push(line));
        }
        lines.end(|line| said.push(line));
        said
    }

    #[test]
    fn lines_end_at_newlines_and_with_the_call() {
        assert_eq!(lines(&[b"a\nb", b"c\n", b"d"]), ["a", "bc", "d"]);
        assert_eq!(lines(&[b"\n\n"]), ["", ""]);
        assert_eq!(lines(&[b"a\r\n"]), ["a"]);
        assert_eq!(lines(&[b"\xff!"]), ["\u{fffd}!"]);
        assert!(lines(&[b""]).is_empty());
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_is_whole() {
        let long = vec![b'x'; LOG_LINE_MAX_BYTES];
        assert_eq!(
            lines(&[&long, b"more", &long, b"\nnext\n"]),
            ["x".repeat(LOG_LINE_MAX_BYTES), "next".to_owned()]
        );
        let wild = vec![0xff; LOG_LINE_MAX_BYTES];
        assert!(lines(&[&wild])[0].len() <= LOG_LINE_MAX_BYTES);
    }

    proptest! {
        #[test]
        fn how_it_is_written_makes_no_difference(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cut in 0_usize..200,
        ) {
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(lines(&[first, second]), lines(&[&bytes]));
        }
    }
}
