//! One line of the log, written to standard error in pieces that its reader has room for.
//!
//! Whoever logs waits for nobody: what is not read within [`PATIENCE`] is lost and counted, and from
//! then on nothing is waited for until something can be written again.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, write};

/// A pipe that is ready takes so much without waiting: `PIPE_BUF` of Linux, see pipe(7).
const PIECE: usize = 4096;
/// For a reader that is only slow, such as a terminal that scrolls.
const PATIENCE: Duration = Duration::from_millis(50);

/// What becomes of lines.
pub struct Lines {
    last: Mutex<Last>,
    lost: AtomicU64,
}

/// What became of the line before.
#[derive(Clone, Copy)]
enum Last {
    Written,
    /// With whether some of it was written.
    Lost {
        begun: bool,
    },
}

impl Lines {
    pub const fn new() -> Self {
        Self { last: Mutex::new(Last::Written), lost: AtomicU64::new(0) }
    }

    /// A whole line, or what is lost of it.
    pub fn write(&self, to: impl AsFd, line: &[u8]) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (patience, before) = match *last {
            Last::Written => (PATIENCE, &b""[..]),
            Last::Lost { begun: false } => (Duration::ZERO, &b""[..]),
            Last::Lost { begun: true } => (Duration::ZERO, &b"\n"[..]),
        };
        let until = Instant::now() + patience;
        let ended = before.len() == write_until(to.as_fd(), before, until);
        let written = if ended { write_until(to.as_fd(), line, until) } else { 0 };
        *last = match ended && written == line.len() {
            true => Last::Written,
            false => Last::Lost { begun: written > 0 || !ended },
        };
        if let Last::Lost { .. } = *last {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines were lost since this was asked last.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

/// How many of the bytes were written.
fn write_until(to: BorrowedFd<'_>, bytes: &[u8], until: Instant) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match has_room(to, until) {
            Ok(true) => {}
            Err(Errno::INTR) => continue,
            Ok(false) | Err(_) => break,
        }
        let piece = &bytes[written..bytes.len().min(written + PIECE)];
        match write(to, piece) {
            Ok(taken) if taken > 0 => written += taken,
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => break,
        }
    }
    written
}

fn has_room(to: BorrowedFd<'_>, until: Instant) -> Result<bool, Errno> {
    let left = until.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).expect("some milliseconds");
    Ok(poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], Some(&left))? > 0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, pipe};

    use super::*;

    #[test]
    fn whoever_logs_does_not_wait_for_a_reader_that_does_not_read() {
        let (mut read, write) = pipe().unwrap();
        let lines = Lines::new();
        let line = [b'x'; 10_000];
        let began = Instant::now();
        for _ in 0..1_000 {
            lines.write(&write, &line);
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let lost = lines.take_lost();
        assert!((990..1_000).contains(&lost), "{lost}");
        assert_eq!(lines.take_lost(), 0);

        let mut said = vec![0; 64 << 10];
        let taken = read.read(&mut said).unwrap();
        said.truncate(taken);
        lines.write(&write, b"again\n");
        assert_eq!(lines.take_lost(), 0);
        drop(write);
        read.read_to_end(&mut said).unwrap();
        // What was begun and not ended of another has a line of its own.
        assert!(said.ends_with(b"x\nagain\n"));
    }

    #[test]
    fn a_reader_that_left_and_a_full_disk_lose_the_line_alone() {
        let (read, write) = pipe().unwrap();
        drop(read);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let lines = Lines::new();
        lines.write(&write, b"one\n");
        lines.write(&full, b"two\n");
        assert_eq!(lines.take_lost(), 2);
    }
}
