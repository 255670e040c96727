//! A line that is typed and not shown. Whatever ends the program meanwhile, its terminal shows
//! again what is typed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read};

use crate::terminal::ask;

/// What ends or stops a program that waits for somebody to type.
const ENDINGS: [Signal; 5] =
    [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTSTP];

/// Asks at the terminal that standard input is. To be called while there is one thread.
pub fn read_hidden(question: &str, most: usize) -> io::Result<String> {
    let stdin = io::stdin();
    let endings = SigSet::from_iter(ENDINGS);
    loop {
        ask(format_args!("{question}"));
        let before = endings.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let came = hidden_line(stdin.as_fd(), &endings, most);
        ask(format_args!("\n"));
        // The terminal shows again what is typed: now a signal may do what it does.
        before.thread_set_mask()?;
        match came? {
            Came::Line(line) => return Ok(line),
            // Whoever was stopped goes on behind this, and is asked again.
            Came::Ending(signal) => raise(signal)?,
        }
    }
}

enum Came {
    Line(String),
    Ending(Signal),
}

fn hidden_line(stdin: BorrowedFd<'_>, endings: &SigSet, most: usize) -> io::Result<Came> {
    let signals = SignalFd::with_flags(endings, SfdFlags::SFD_CLOEXEC)?;
    let _hidden = Hidden::begin(stdin)?;
    let mut line = Vec::new();
    loop {
        let mut both =
            [PollFd::new(&signals, PollFlags::IN), PollFd::from_borrowed_fd(stdin, PollFlags::IN)];
        match poll(&mut both, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let (signalled, typed) = (!both[0].revents().is_empty(), !both[1].revents().is_empty());
        if signalled && let Some(signal) = signals.read_signal()? {
            let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
            return Ok(Came::Ending(Signal::try_from(number)?));
        }
        if typed {
            let mut bytes = [0; 512];
            let count = read(stdin, &mut bytes)?;
            line.extend_from_slice(&bytes[..count]);
            if count == 0 || line.ends_with(b"\n") || line.len() > most {
                let line = String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData)?;
                return Ok(Came::Line(line));
            }
        }
    }
}

/// Shows nothing that is typed for as long as it lives.
struct Hidden<'a> {
    terminal: BorrowedFd<'a>,
    shown: Termios,
}

impl<'a> Hidden<'a> {
    fn begin(terminal: BorrowedFd<'a>) -> io::Result<Self> {
        let shown = tcgetattr(terminal)?;
        let mut hidden = shown.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &hidden)?;
        Ok(Self { terminal, shown })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.shown);
    }
}
