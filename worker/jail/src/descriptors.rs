//! A process's descriptors: its control socket arrives as its standard input, the rest with
//! messages. Owns how they get their fixed numbers and how everything else is closed, whatever the
//! host itself was started with.
//!
//! | number | what |
//! |---|---|
//! | 0 | the control socket |
//! | 1 | `/dev/null` |
//! | 2 | the writing end of a pipe that somebody reads, or `/dev/null` |
//! | 3 | a worker's state directory, or `/dev/null` where it has none |
//! | 4 | a worker's listener |
//! | 5 | a worker's release directory |
//! | 6 | in the zygote, while it speaks to a spare child, the socket for that; `/dev/null` else |

use std::collections::BTreeSet;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::DupFlags;

use crate::files::STATE;

/// The control socket, beside which nothing is left open but where to say what went wrong. It can
/// be taken once, before anything else is opened.
pub fn take_stdin() -> io::Result<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(io::Error::other("standard input is taken already"));
    }
    rustix::io::fcntl_getfd(io::stdin().as_fd())?;
    close_range(libc::STDERR_FILENO + 1, RawFd::MAX)?;
    settle_output()?;
    // SAFETY: descriptor 0 is open, as was just seen, and the swap above makes this its only
    // owner: nothing in these programs reads standard input otherwise.
    Ok(unsafe { OwnedFd::from_raw_fd(libc::STDIN_FILENO) })
}

/// Standard output leads nowhere. Errors go to a pipe, from which nothing can be read and whose
/// reader bounds what comes; a terminal, a file or a log of the host's is none.
fn settle_output() -> io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    nix::unistd::dup2_stdout(&null)?;
    if !is_pipes_end(io::stderr().as_fd()) {
        nix::unistd::dup2_stderr(&null)?;
    }
    Ok(())
}

fn is_pipes_end(fd: BorrowedFd<'_>) -> bool {
    let is_pipe = rustix::fs::fstat(fd)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    let access = rustix::fs::fcntl_getfl(fd).map(|flags| flags & OFlags::RWMODE);
    is_pipe && access == Ok(OFlags::WRONLY)
}

/// From here on what this process says goes to another pipe.
pub fn speak_to(pipe: OwnedFd) -> io::Result<()> {
    Ok(nix::unistd::dup2_stderr(&pipe)?)
}

/// Low descriptor numbers, taken before anything else can have them.
pub struct Slots {
    /// At [`STATE`]. Never closed but by the process's end: the filter trusts its number.
    state: ManuallyDrop<OwnedFd>,
    listener: OwnedFd,
    release: OwnedFd,
}

impl Slots {
    pub fn reserve() -> io::Result<Self> {
        let state = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        if state.as_raw_fd() != STATE {
            return Err(not_the_number(&state, STATE));
        }
        let another = || rustix::io::fcntl_dupfd_cloexec(&state, STATE);
        let (listener, release) = (another()?, another()?);
        Ok(Self { state: ManuallyDrop::new(state), listener, release })
    }

    pub fn numbers(&self) -> [RawFd; 3] {
        [self.state.as_raw_fd(), self.listener.as_raw_fd(), self.release.as_raw_fd()]
    }

    /// The state directory, where there is one, the listener and the release directory at their fixed
    /// numbers.
    pub fn fill(
        mut self,
        state: Option<OwnedFd>,
        listener: OwnedFd,
        release: OwnedFd,
    ) -> io::Result<(OwnedFd, OwnedFd)> {
        if let Some(state) = state {
            rustix::io::dup3(&state, &mut self.state, DupFlags::CLOEXEC)?;
        }
        rustix::io::dup3(&listener, &mut self.listener, DupFlags::CLOEXEC)?;
        rustix::io::dup3(&release, &mut self.release, DupFlags::CLOEXEC)?;
        Ok((self.listener, self.release))
    }
}

/// For a child that tries the walls, which is nobody's worker: a directory where a worker's state is.
pub fn stand_in_for_state() -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open("/dev", flags, Mode::empty())?;
    // SAFETY: takes no pointer. The number is the one that [`Slots`] holds and never closes.
    let failed = unsafe { libc::dup3(directory.as_raw_fd(), STATE, libc::O_CLOEXEC) } == -1;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn not_the_number(fd: &OwnedFd, number: RawFd) -> io::Error {
    io::Error::other(format!("{} is not the number {number}", fd.as_raw_fd()))
}

/// Where the zygote speaks to its spare children, one at a time.
pub(crate) const SPARE_CHILD: RawFd = 6;

/// The one number by which the zygote may speak to somebody besides its primary.
pub struct Mouthpiece {
    number: OwnedFd,
}

impl Mouthpiece {
    /// After [`Slots::reserve`], and before anything else is opened.
    pub fn reserve() -> io::Result<Self> {
        let number =
            rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        match number.as_raw_fd() {
            SPARE_CHILD => Ok(Self { number }),
            _ => Err(not_the_number(&number, SPARE_CHILD)),
        }
    }

    /// Speaks through this socket: afterwards it is where it was, alone.
    pub fn speak_through<T>(
        &mut self,
        socket: &OwnedFd,
        speak: impl FnOnce(BorrowedFd<'_>) -> T,
    ) -> io::Result<T> {
        rustix::io::dup3(socket, &mut self.number, DupFlags::CLOEXEC)?;
        let spoken = speak(self.number.as_fd());
        rustix::io::dup3(io::stdout().as_fd(), &mut self.number, DupFlags::CLOEXEC)?;
        Ok(spoken)
    }
}

/// The numbers of all descriptors that this process has open.
pub fn open_now() -> io::Result<BTreeSet<RawFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open("/proc/self/fd", flags, Mode::empty())?;
    let mut entries = Dir::read_from(&directory)?;
    let own = [directory.as_raw_fd(), entries.fd()?.as_raw_fd()];
    let mut open = BTreeSet::new();
    while let Some(entry) = entries.read() {
        let number = entry?.file_name().to_str().ok().and_then(|name| name.parse().ok());
        open.extend(number.filter(|number| !own.contains(number)));
    }
    Ok(open)
}

/// Closes every descriptor but these. For a child that was just forked, which drops before this
/// what it owns and does not keep.
pub fn keep_only(kept: &BTreeSet<RawFd>) -> io::Result<()> {
    let mut first = 0;
    for &fd in kept {
        if first < fd {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: takes no pointer. The descriptors have no owner left in this process: that is what
    // `keep_only` asks of its caller, and a forgotten one would find its number closed, not lent
    // to another file, since nothing is opened in between.
    let failed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == -1;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_go_to_the_writing_end_of_a_pipe_alone() {
        let (ours, theirs) = io::pipe().unwrap();
        assert!(is_pipes_end(theirs.as_fd()));
        assert!(!is_pipes_end(ours.as_fd()));
        for path in ["/dev/null", "/dev/ptmx"] {
            if let Ok(file) = std::fs::File::options().read(true).write(true).open(path) {
                assert!(!is_pipes_end(file.as_fd()), "{path}");
            }
        }
        let file = std::fs::File::options().write(true).open("/dev/null").unwrap();
        assert!(!is_pipes_end(file.as_fd()));
    }

    /// At a number that nobody else comes to: what other tests open and close beside this one has the
    /// lowest that is free.
    #[test]
    fn what_is_open_is_seen() {
        const FAR: RawFd = 900;
        let file = std::fs::File::open("/dev/null").unwrap();
        let is_seen = |number| open_now().unwrap().contains(&number);
        assert!(!is_seen(FAR));
        let copy = rustix::io::fcntl_dupfd_cloexec(&file, FAR).unwrap();
        assert_eq!(copy.as_raw_fd(), FAR);
        assert!(is_seen(FAR));
        drop(copy);
        assert!(!is_seen(FAR));
    }
}
