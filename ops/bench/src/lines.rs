//! What another program says, a line at a time, and never waited for without end.

use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A host with ten thousand tenants has started long before.
const PATIENCE: Duration = Duration::from_secs(60);
const LINE_MAX_BYTES: usize = 64 << 10;

pub struct Lines {
    from: PipeReader,
    read: Vec<u8>,
}

impl Lines {
    pub fn new(from: PipeReader) -> Self {
        Self { from, read: Vec::new() }
    }

    /// The next line without its end; nothing where the program has closed its side.
    pub fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.drain(..=end).take(end).collect();
                return Ok(Some(String::from_utf8(line)?));
            }
            ensure!(self.read.len() <= LINE_MAX_BYTES, "a line without end");
            wait_for_input(&self.from)?;
            let mut part = [0; 4 << 10];
            match self.from.read(&mut part)? {
                0 => return Ok(None),
                got => self.read.extend_from_slice(&part[..got]),
            }
        }
    }

    /// The next line, which says that, and must come.
    pub fn expect(&mut self, what: &str) -> anyhow::Result<String> {
        let line = self.next().with_context(|| format!("waiting to hear {what}"))?;
        line.with_context(|| format!("a program ended before it said {what}"))
    }
}

/// Waits until a descriptor has something to read, or is at its end.
pub fn wait_for_input(descriptor: &impl AsFd) -> anyhow::Result<()> {
    let patience = Timespec::try_from(PATIENCE)?;
    loop {
        let mut polled = [PollFd::new(descriptor, PollFlags::IN)];
        match poll(&mut polled, Some(&patience)) {
            Ok(ready) => {
                ensure!(ready > 0, "nothing happened in {PATIENCE:?}");
                return Ok(());
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_one_by_one_until_the_end() {
        let (ours, mut theirs) = std::io::pipe().unwrap();
        theirs.write_all(b"one\n\ntwo\nhalf").unwrap();
        drop(theirs);
        let mut lines = Lines::new(ours);
        let said: Vec<_> = std::iter::from_fn(|| lines.next().unwrap()).collect();
        assert_eq!(said, ["one", "", "two"]);
    }
}
