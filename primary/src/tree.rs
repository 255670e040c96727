//! The client of `hearth-worker tree`: what a tenant's directory holds is packed, unpacked, counted
//! and removed by a process of its own, which is behind its walls before it looks at anything, and
//! is of the user whom the directory belongs to. The host itself goes no further than to the
//! directory's own descriptor.
//!
//! All of it blocks, for as long as the other side moves. What is packed, and where to, is
//! `backup`'s to say; which directory goes, `generations`'.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hearth_wire::limits::PADDING_MAX_BYTES;
use hearth_wire::{
    Databases, SocketError, TreeDone, TreeJob, TreePath, TreeReply, TreeRequest, VERSION, pair,
    recv, send,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::process::geteuid;

use crate::stderr::Speaker;

/// The longest that the other side may do nothing that can be seen.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Of one that closed its end of the pipe already.
const LAST_WORD: Duration = Duration::from_secs(5);
/// Removing, counting and copying a database show nothing before they are done.
const DONE_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("hearth-worker could not be started on a tenant's directory")]
    Spawn(#[source] io::Error),
    #[error("the conversation about a tenant's directory broke")]
    Socket(#[from] SocketError),
    #[error("the helper for a tenant's directory failed: {0}")]
    Failed(String),
    #[error("the helper for a tenant's directory exited without an answer")]
    Gone,
    #[error("the helper for a tenant's directory took too long")]
    Late,
}

#[derive(Debug, Clone)]
pub struct Trees {
    program: Arc<Path>,
}

impl Trees {
    pub fn new(worker_program: &Path) -> Self {
        Self { program: worker_program.into() }
    }

    /// A tar of the directory under this name, or else of what is in it.
    pub fn pack(
        &self,
        directory: &OwnedFd,
        name: Option<TreePath>,
        databases: Databases,
    ) -> Result<Packing, TreeError> {
        let (ours, theirs) = io::pipe().map_err(TreeError::Spawn)?;
        let job = TreeJob::Pack { name, databases };
        let job = Job::start(&self.program, job, directory, Some(theirs.as_fd()))?;
        let silence = match databases {
            Databases::Files => SILENCE_MAX,
            // Nothing comes of one before all of it is copied.
            Databases::Copied { .. } => DONE_MAX,
        };
        let pipe = Patient::new(ours, PollFlags::IN, silence).map_err(TreeError::Spawn)?;
        Ok(Packing { job, pipe })
    }

    /// Takes a tar, and makes in the directory what it holds.
    pub fn unpack(&self, directory: &OwnedFd) -> Result<Unpacking, TreeError> {
        let (theirs, ours) = io::pipe().map_err(TreeError::Spawn)?;
        let job = Job::start(&self.program, TreeJob::Unpack, directory, Some(theirs.as_fd()))?;
        let pipe = Patient::new(ours, PollFlags::OUT, SILENCE_MAX).map_err(TreeError::Spawn)?;
        Ok(Unpacking { job, pipe })
    }

    /// Removes everything below the directory, and leaves that.
    pub fn remove(&self, directory: &OwnedFd) -> Result<TreeDone, TreeError> {
        Job::start(&self.program, TreeJob::Remove, directory, None)?.reply(DONE_MAX)
    }

    /// Counts what is below the directory, and what it takes of the disk.
    pub fn measure(&self, directory: &OwnedFd) -> Result<TreeDone, TreeError> {
        Job::start(&self.program, TreeJob::Measure, directory, None)?.reply(DONE_MAX)
    }
}

pub struct Packing {
    job: Job,
    pipe: Patient<PipeReader>,
}

impl Packing {
    /// To be called when the tar was read to its end. Whoever reads one stops at the first block of
    /// that, and the other side may still be writing the rest.
    pub fn finish(mut self) -> Result<TreeDone, TreeError> {
        let padding = io::copy(&mut self.by_ref().take(PADDING_MAX_BYTES), &mut io::sink());
        if let Err(error) = padding {
            tracing::debug!(%error, "the end of a tar could not be read");
        }
        drop(self.pipe);
        self.job.reply(SILENCE_MAX)
    }
}

impl Read for Packing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pipe.patiently(|pipe| pipe.read(buffer))
    }
}

pub struct Unpacking {
    job: Job,
    pipe: Patient<PipeWriter>,
}

impl Unpacking {
    /// To be called when the tar was written to its end.
    pub fn finish(self) -> Result<TreeDone, TreeError> {
        drop(self.pipe);
        self.job.reply(SILENCE_MAX)
    }
}

impl Write for Unpacking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.pipe.patiently(|pipe| pipe.write(bytes)) {
            // The other side has ended, and has said why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                match self.job.reply(LAST_WORD) {
                    Ok(_) => Err(error),
                    Err(why) => Err(io::Error::other(why)),
                }
            }
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One process and the conversation with it; it does not outlive this.
struct Job {
    child: Child,
    control: OwnedFd,
    errors: PipeReader,
}

impl Job {
    fn start(
        program: &Path,
        job: TreeJob,
        directory: &OwnedFd,
        pipe: Option<BorrowedFd<'_>>,
    ) -> Result<Self, TreeError> {
        let owner = fstat(directory).map_err(|errno| TreeError::Spawn(errno.into()))?.st_uid;
        let uid = (owner != geteuid().as_raw()).then_some(owner);
        let (control, theirs) = pair().map_err(TreeError::Spawn)?;
        let (errors, its_errors) = io::pipe().map_err(TreeError::Spawn)?;
        let child = Command::new(program)
            .arg("tree")
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::from(its_errors))
            // A key pressed at the host's terminal is the host's alone.
            .process_group(0)
            .spawn()
            .map_err(TreeError::Spawn)?;
        let started = Self { child, control, errors };
        let fds: Vec<_> = [directory.as_fd()].into_iter().chain(pipe).collect();
        send(&started.control, &TreeRequest { version: VERSION, uid, job }, &fds)?;
        Ok(started)
    }

    fn reply(&self, most: Duration) -> Result<TreeDone, TreeError> {
        if !ready(self.control.as_fd(), PollFlags::IN, most).map_err(SocketError::from)? {
            return Err(TreeError::Late);
        }
        match recv::<TreeReply>(&self.control)? {
            Some((TreeReply::Done(done), _)) => Ok(done),
            Some((TreeReply::Failed { reason }, _)) => Err(TreeError::Failed(reason)),
            None => Err(TreeError::Gone),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // It has answered, or is not wanted any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
        Speaker::tree().tell_last(&self.errors);
    }
}

/// An end of a pipe at which nobody waits for ever.
struct Patient<P> {
    pipe: P,
    wanted: PollFlags,
    silence: Duration,
}

impl<P: AsFd> Patient<P> {
    /// The flag belongs to this end alone: the other one is another open file.
    fn new(pipe: P, wanted: PollFlags, silence: Duration) -> io::Result<Self> {
        fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
        Ok(Self { pipe, wanted, silence })
    }

    fn patiently<T>(&mut self, mut act: impl FnMut(&mut P) -> io::Result<T>) -> io::Result<T> {
        loop {
            match act(&mut self.pipe) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if !ready(self.pipe.as_fd(), self.wanted, self.silence)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

fn ready(fd: BorrowedFd<'_>, wanted: PollFlags, most: Duration) -> io::Result<bool> {
    let most = Timespec { tv_sec: most.as_secs().cast_signed(), tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(fd, wanted)], Some(&most)) {
            Err(rustix::io::Errno::INTR) => {}
            polled => return Ok(polled? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A helper that is slow to write the last block of its tar, and says what came of that.
    #[test]
    fn the_other_side_may_finish_its_tar() {
        let (control, theirs) = pair().unwrap();
        let (ours, mut pipe) = io::pipe().unwrap();
        let (errors, _) = io::pipe().unwrap();
        let child = Command::new("true").spawn().unwrap();
        let job = Job { child, control, errors };
        let patient = Patient::new(ours, PollFlags::IN, SILENCE_MAX).unwrap();
        let mut packing = Packing { job, pipe: patient };
        let helper = std::thread::spawn(move || {
            pipe.write_all(&[0; 512]).unwrap();
            // Until nobody reads any more, if it comes to that.
            let soon = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            poll(&mut [PollFd::new(&pipe, PollFlags::empty())], Some(&soon)).unwrap();
            let reply = match pipe.write_all(&[0; 512]) {
                Ok(()) => TreeReply::Done(TreeDone::default()),
                Err(error) => TreeReply::Failed { reason: error.to_string() },
            };
            drop(pipe);
            send(&theirs, &reply, &[]).unwrap();
        });
        let mut block = [0; 512];
        packing.read_exact(&mut block).unwrap();
        assert_eq!(packing.finish().unwrap(), TreeDone::default());
        helper.join().unwrap();
    }
}
