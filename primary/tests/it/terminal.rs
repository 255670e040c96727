//! A terminal of eighty columns, and what somebody sees and types there.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::processes::eventually;

pub const COLUMNS: u16 = 80;

pub struct Terminal {
    typed: File,
    far: OwnedFd,
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// The program has the terminal for its own: what is typed there can end it.
    pub fn run(command: &Command) -> Self {
        let size = Winsize { ws_row: 24, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).unwrap();
        // Not for other tests' programs, which would hold it open.
        for end in [&pair.master, &pair.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let stdio = || Stdio::from(pair.slave.try_clone().unwrap());
        // By a program that makes it a session of its own, with this terminal.
        // What these tests were started with may ignore signals, which a program begins with.
        let mut child = Command::new("env");
        child.args(["--default-signal", "setsid", "--ctty", "--wait"]);
        child.arg(command.get_program()).args(command.get_args());
        child.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(directory) = command.get_current_dir() {
            child.current_dir(directory);
        }
        let child = child.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let mut near = File::from(pair.master);
        let typed = near.try_clone().unwrap();
        let reader = std::thread::spawn({
            let shown = shown.clone();
            move || {
                let mut bytes = [0; 4096];
                // Nobody has the other end any more: an error.
                while let Ok(count @ 1..) = near.read(&mut bytes) {
                    shown.lock().unwrap().extend_from_slice(&bytes[..count]);
                }
            }
        });
        Self { typed, far: pair.slave, child, shown, reader }
    }

    pub fn type_in(&mut self, text: &str) {
        self.typed.write_all(text.as_bytes()).unwrap();
    }

    /// Whether what is typed is shown.
    pub fn echoes(&self) -> bool {
        tcgetattr(self.far.as_fd()).unwrap().local_flags.contains(LocalFlags::ECHO)
    }

    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).replace("\r\n", "\n")
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    #[track_caller]
    pub fn shows(&self, part: &str) {
        eventually(part, || self.shown().contains(part).then_some(()));
    }

    /// How it ended. The terminal is still there.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the end of a command", || self.child.try_wait().unwrap())
    }

    /// All that it showed, once it has ended.
    #[track_caller]
    pub fn finish(mut self) -> (String, ExitStatus) {
        let status = self.ended();
        let Self { typed, far, child: _, shown, reader } = self;
        // Its reader comes to an end when nobody has the other end any more.
        drop((typed, far));
        reader.join().unwrap();
        let shown = String::from_utf8_lossy(&shown.lock().unwrap()).replace("\r\n", "\n");
        (shown, status)
    }
}

/// No line is wider than the terminal, which would break it within a word.
#[track_caller]
pub fn fits(asked: &str, shown: &str) {
    for line in shown.lines() {
        assert!(line.chars().count() <= usize::from(COLUMNS), "{asked}: {line:?}");
    }
}

/// Nothing in it that a terminal obeys.
#[track_caller]
pub fn is_harmless(asked: &str, shown: &str) {
    let active = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    if let Some(c) = shown.chars().find(|c| active(*c)) {
        panic!("{asked} shows {c:?}: {shown:?}");
    }
}
