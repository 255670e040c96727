//! A guest's standard output and standard error, cut into log lines of its call.
//!
//! A line ends at its newline, or with the call. What a line has above its bound is dropped up
//! to the newline, so a guest that never ends its line costs a line's memory and no more.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hearth_wire::LogStream;
use hearth_wire::limits::LOG_LINE_MAX_BYTES;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::report::CallLog;

/// Taken from a guest at once.
const WRITE_MAX_BYTES: usize = 64 << 10;

/// One stream of one call. Clones write to the same lines.
#[derive(Clone)]
pub struct GuestLog {
    writing: Arc<Mutex<Writing>>,
}

struct Writing {
    log: CallLog,
    stream: LogStream,
    lines: Lines,
}

impl GuestLog {
    pub fn new(log: CallLog, stream: LogStream) -> Self {
        let writing = Writing { log, stream, lines: Lines::default() };
        Self { writing: Arc::new(Mutex::new(writing)) }
    }

    fn take(&self, bytes: &[u8]) {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Writing { log, stream, lines } = &mut *writing;
        lines.take(bytes, |line| log.line(*stream, line));
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let Self { log, stream, lines } = self;
        lines.end(|line| log.line(*stream, line));
    }
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

impl IsTerminal for GuestLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestLog {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl OutputStream for GuestLog {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
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
impl Pollable for GuestLog {
    async fn ready(&mut self) {}
}

impl AsyncWrite for GuestLog {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = &bytes[..bytes.len().min(WRITE_MAX_BYTES)];
        self.take(taken);
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
