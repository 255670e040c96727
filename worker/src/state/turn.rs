//! Turns at writing, between the workers of one tenant that overlap: a lock of a file beside the
//! databases, which whoever comes waits for. SQLite's own way, to sleep and to ask again, leaves the
//! one behind that asks less often.
//!
//! The end of a process gives its turn back.

use std::fs::File;
use std::io;
use std::sync::Arc;

use hearth_jail::files;

use super::place::Place;

const FILE: &str = "turn";

/// The lock is of what was opened: of two that were, one waits for the other, be it in one process.
pub struct Turns {
    file: Arc<File>,
}

/// Until it is dropped.
pub struct Turn {
    file: Arc<File>,
}

impl Turns {
    pub fn open(place: &Place) -> io::Result<Self> {
        Ok(Self { file: Arc::new(place.open(FILE)?) })
    }

    /// Blocks.
    pub fn take(&self) -> io::Result<Turn> {
        files::lock(&self.file)?;
        Ok(Turn { file: Arc::clone(&self.file) })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // It does not fail of what is locked; and the end of the process does the same.
        let _ = files::unlock(&self.file);
    }
}
