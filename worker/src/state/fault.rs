//! Why a tenant's state did not do what it was asked to.

use hearth_wire::NameError;
use rusqlite::{ErrorCode, ffi};

use super::place::DatabaseFile;

/// One answers for all that asked at once, so it is cloned. Its text is for the function that asked,
/// and names no file of the host's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    #[error("this host keeps no state for functions: its kernel has no Landlock")]
    NoState,
    #[error(transparent)]
    Name(#[from] NameError),
    /// It was removed since it was opened.
    #[error("the store was removed: open it again")]
    NoStore,
    #[error("there are {most} {what} already, which is this tenant's limit")]
    TooMany { what: &'static str, most: u64 },
    /// By its bound, in bytes.
    #[error("the {what} has more than {most} bytes")]
    TooLarge { what: &'static str, most: usize },
    #[error("more than {most} keys were named at once")]
    TooManyAtOnce { most: usize },
    #[error("the value is not a number of 8 bytes, which `increment` needs")]
    NotACounter,
    #[error("the number does not fit into 8 bytes")]
    Overflow,
    /// Of the tenant's share or of the disk. Reads go on, and what is deleted makes room.
    #[error("no room is left: delete something, or ask the host for a larger `disk_bytes`")]
    Full,
    /// Since a sync failed, until there is another worker.
    #[error("nothing can be written any more since the host's disk failed")]
    ReadOnly,
    #[error("the host's disk failed")]
    Disk,
    #[error("{0} is damaged: restore it from a backup")]
    Damaged(&'static str),
    #[error("the state is busy: try again")]
    Busy,
    #[error("it needs more memory than there is for it")]
    Memory,
    #[error("it was interrupted")]
    Interrupted,
    /// The worker ends.
    #[error("the state is closed")]
    Closed,
    #[error("the state was written by a newer version of Hearth")]
    TooNew,
    /// A defect of ours, which was contained.
    #[error("the state failed")]
    Broken,
    /// What SQLite said of a statement.
    #[error("{message}")]
    Sql {
        /// Extended, as SQLite numbers them; 0 where SQLite was not asked.
        code: i32,
        message: String,
    },
}

impl Fault {
    /// With the name of what was asked.
    pub fn of(file: DatabaseFile, error: rusqlite::Error) -> Self {
        match Self::from(error) {
            Self::Damaged(_) => Self::Damaged(file.noun()),
            fault => fault,
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::SystemIoFailure) => match is_final(&error) {
                true => Self::ReadOnly,
                false => Self::Disk,
            },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::OutOfMemory) => Self::Memory,
            Some(ErrorCode::OperationInterrupted) => Self::Interrupted,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged("the database")
            }
            _ => Self::Sql {
                code: error.sqlite_error().map_or(0, |error| error.extended_code),
                message: error.to_string(),
            },
        }
    }
}

/// Whether a sync failed: what was written before may be on the disk or not, and the kernel, asked
/// again, may say that all is well.
fn is_final(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(
        code,
        Some(
            ffi::SQLITE_IOERR_FSYNC
                | ffi::SQLITE_IOERR_DIR_FSYNC
                | ffi::SQLITE_IOERR_CLOSE
                | ffi::SQLITE_IOERR_DIR_CLOSE
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_fault_an_error_of_sqlites_is() {
        let of = |code| {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            Fault::of(DatabaseFile::Stores, error)
        };
        for (code, fault) in [
            (ffi::SQLITE_FULL, Fault::Full),
            (ffi::SQLITE_IOERR_FSYNC, Fault::ReadOnly),
            (ffi::SQLITE_IOERR_DIR_FSYNC, Fault::ReadOnly),
            (ffi::SQLITE_IOERR_WRITE, Fault::Disk),
            (ffi::SQLITE_IOERR_READ, Fault::Disk),
            (ffi::SQLITE_BUSY, Fault::Busy),
            (ffi::SQLITE_NOMEM, Fault::Memory),
            (ffi::SQLITE_INTERRUPT, Fault::Interrupted),
            (ffi::SQLITE_CORRUPT, Fault::Damaged(DatabaseFile::Stores.noun())),
            (ffi::SQLITE_NOTADB, Fault::Damaged(DatabaseFile::Stores.noun())),
        ] {
            assert_eq!(of(code), fault);
        }
        let Fault::Sql { code, .. } = of(ffi::SQLITE_CONSTRAINT_UNIQUE) else { panic!() };
        assert_eq!(code, ffi::SQLITE_CONSTRAINT_UNIQUE);
    }
}
