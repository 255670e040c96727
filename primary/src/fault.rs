//! Whose fault an error is, and what of it may be told: each kind of error says so itself, by
//! [`Fault`], and [`crate::problem`] makes of that what is answered and what is logged. Knows none of
//! the kinds.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use hearth_wire::Code;
use rusqlite::ErrorCode;
use rustix::io::Errno;

use crate::descriptors::is_shortage;

/// How long whoever came too early, or to one too many, may stay away.
const COME_AGAIN: Duration = Duration::from_secs(5);

/// Who has to do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Who asked, since it cannot be done as it was asked.
    Caller,
    /// The module, or what it says of itself.
    Function,
    /// A bound was reached: its owner makes room, or somebody raises it.
    Limit,
    /// The host, its disk or Hearth itself: its operator.
    Host,
}

/// What is in the host's log of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logged {
    No,
    Warning,
    Error,
}

/// What is said of one error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub blame: Blame,
    pub code: Code,
    /// For the caller: what to do, and nothing of the host.
    pub told: String,
    /// Of a module that imports what is not there, or what it may not import anew: all of these.
    pub imports: Vec<String>,
    /// When it may help to come again.
    pub retry_after: Option<Duration>,
    pub logged: Logged,
}

/// When to come again, where that can help.
pub fn again_after(code: Code) -> Option<Duration> {
    matches!(code, Code::TooManyRequests | Code::WorkerUnavailable).then_some(COME_AGAIN)
}

/// An error that says whose fault it is.
pub trait Fault: Error + 'static {
    fn verdict(&self) -> Verdict;
}

impl Verdict {
    fn new(blame: Blame, code: Code, told: impl fmt::Display) -> Self {
        let retry_after = again_after(code);
        let logged = if blame == Blame::Host { Logged::Error } else { Logged::No };
        let (told, imports) = (told.to_string(), Vec::new());
        Self { blame, code, told, imports, retry_after, logged }
    }

    pub fn caller(code: Code, told: impl fmt::Display) -> Self {
        Self::new(Blame::Caller, code, told)
    }

    pub fn function(code: Code, told: impl fmt::Display) -> Self {
        Self::new(Blame::Function, code, told)
    }

    pub fn limit(code: Code, told: impl fmt::Display) -> Self {
        Self::new(Blame::Limit, code, told)
    }

    pub fn host(code: Code, told: impl fmt::Display) -> Self {
        Self::new(Blame::Host, code, told)
    }

    /// Of whatever came too late for a host that ends.
    pub fn stopping() -> Self {
        Self { logged: Logged::No, ..Self::host(Code::WorkerUnavailable, "the host is going down") }
    }

    /// Of the host's fault: that of its disk, where the disk is behind it, and else told so. A shortage
    /// passes.
    pub fn of_host(error: &(dyn Error + 'static), told: &str) -> Self {
        match Disk::behind(error) {
            Some(disk) => disk.into(),
            None if is_short(error) => Self::host(Code::WorkerUnavailable, told),
            None => Self::host(Code::Internal, told),
        }
    }

    /// For whoever asked for something larger: what has a name of its own keeps it, and all else is
    /// the host's fault, told so.
    pub fn within(self, told: &str) -> Self {
        match (self.blame, self.code) {
            (Blame::Host, Code::Internal) | (Blame::Caller | Blame::Function, _) => {
                Self::host(Code::Internal, told)
            }
            (Blame::Host | Blame::Limit, _) => self,
        }
    }

    /// The same with more behind what is told.
    pub fn and(mut self, more: &str) -> Self {
        self.told += more;
        self
    }

    /// The same with what it is about before what is told.
    pub fn about(mut self, what: &impl fmt::Display) -> Self {
        self.told = format!("{what}: {}", self.told);
        self
    }

    pub fn again_after(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    pub fn logged(self, logged: Logged) -> Self {
        Self { logged, ..self }
    }
}

/// An error and what caused it, from the outside in.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// Whether it comes of a shortage of descriptors or memory, somewhere below.
pub fn is_short(error: &(dyn Error + 'static)) -> bool {
    causes(error).filter_map(|cause| cause.downcast_ref()).any(is_shortage)
}

/// What a disk did that did not take, or give, what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Disk {
    /// Or the share of it that the host may have is.
    #[error("the host's disk is full")]
    Full,
    /// Or takes nothing any more.
    #[error("the host's disk failed")]
    Failed,
}

impl Disk {
    pub fn of(error: &io::Error) -> Option<Self> {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Self::Full),
            io::ErrorKind::ReadOnlyFilesystem => Some(Self::Failed),
            _ if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Some(Self::Failed),
            _ => None,
        }
    }

    /// The one that is this error's cause, however deep.
    pub fn behind(error: &(dyn Error + 'static)) -> Option<Self> {
        causes(error).find_map(|cause| {
            if let Some(io) = cause.downcast_ref::<io::Error>() {
                return Self::of(io);
            }
            if let Some(disk) = cause.downcast_ref::<Self>() {
                return Some(*disk);
            }
            match cause.downcast_ref::<rusqlite::Error>()?.sqlite_error_code()? {
                ErrorCode::DiskFull => Some(Self::Full),
                ErrorCode::SystemIoFailure | ErrorCode::ReadOnly => Some(Self::Failed),
                _ => None,
            }
        })
    }
}

impl From<Disk> for Verdict {
    fn from(disk: Disk) -> Self {
        Self::host(Code::StorageFull, disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Outer<E: Error + 'static> {
        said: &'static str,
        source: E,
    }

    fn outer<E: Error + 'static>(source: E) -> Outer<E> {
        Outer { said: "a change", source }
    }

    #[test]
    fn the_disk_is_found_behind_whatever_it_caused() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let quota = io::Error::from(io::ErrorKind::QuotaExceeded);
        let failed = io::Error::from_raw_os_error(Errno::IO.raw_os_error());
        let sqlite = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        for (found, expected) in [
            (Disk::behind(&full()), Some(Disk::Full)),
            (Disk::behind(&quota), Some(Disk::Full)),
            (Disk::behind(&outer(outer(full()))), Some(Disk::Full)),
            (Disk::behind(&outer(failed)), Some(Disk::Failed)),
            (Disk::behind(&outer(sqlite(rusqlite::ffi::SQLITE_FULL))), Some(Disk::Full)),
            (Disk::behind(&outer(sqlite(rusqlite::ffi::SQLITE_IOERR))), Some(Disk::Failed)),
            (Disk::behind(&outer(sqlite(rusqlite::ffi::SQLITE_BUSY))), None),
            (Disk::behind(&outer(Disk::Full)), Some(Disk::Full)),
            (Disk::behind(&io::Error::from(io::ErrorKind::NotFound)), None),
            (Disk::behind(&outer(fmt::Error)), None),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_nobodys_own_to_know_is_told_as_the_hosts_fault() {
        let told = "it could not be made";
        let inner = Verdict::caller(Code::NotFound, "there is no such row").within(told);
        assert_eq!((inner.blame, inner.code, &*inner.told), (Blame::Host, Code::Internal, told));
        let disk = Verdict::from(Disk::Full).within(told);
        assert_eq!((disk.code, &*disk.told), (Code::StorageFull, "the host's disk is full"));
        let limit = Verdict::limit(Code::StorageFull, "no more of it");
        assert_eq!(limit.clone().within(told), limit);
    }
}
