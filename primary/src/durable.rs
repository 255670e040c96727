//! The steps by which files become durable, each behind its fail point. `primary/clippy.toml`
//! keeps everybody else from making them, so that none is made past the tests of crashes.
//!
//! A sync that failed is not tried again: the kernel may have dropped what it could not write
//! and call the next one a success. Whoever gets an error here removes what it was about.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::NamedTempFile;

use crate::fail::{self, Point};

/// Whether the disk did not take or give what it should: it is full, or its owner's share of it is,
/// or it fails, or takes nothing any more.
pub fn is_the_disks(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
        || error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

#[expect(clippy::disallowed_methods, reason = "this is the place for it")]
pub fn sync(file: &File, point: Point) -> io::Result<()> {
    fail::step(point)?;
    file.sync_all()
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path, point: Point) -> io::Result<()> {
    sync(&File::open(dir)?, point)
}

/// Makes everything durable that is on the file system of this directory.
#[expect(clippy::disallowed_methods, reason = "this is the place for it")]
pub fn sync_file_system(dir: &Path, point: Point) -> io::Result<()> {
    fail::step(point)?;
    Ok(rustix::fs::syncfs(File::open(dir)?)?)
}

#[expect(clippy::disallowed_methods, reason = "this is the place for it")]
pub fn rename(from: &Path, to: &Path, point: Point) -> io::Result<()> {
    fail::step(point)?;
    fs::rename(from, to)
}

/// Gives each of two files or directories the other's name.
#[expect(clippy::disallowed_methods, reason = "this is the place for it")]
pub fn exchange(one: &Path, other: &Path, point: Point) -> io::Result<()> {
    fail::step(point)?;
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// Gives a temporary file its name, in the place of what may have it.
#[expect(clippy::disallowed_methods, reason = "this is the place for it")]
pub fn place(file: NamedTempFile, name: &Path, point: Point) -> io::Result<()> {
    fail::step(point)?;
    file.persist(name)?;
    Ok(())
}

/// Makes a directory, and those above it, with durable names. One that is there is left as it is.
pub fn create_dir(dir: &Path, point: Point) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = match dir.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    create_dir(above, point)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_dir(above, point),
    }
}

/// Removes a directory with all that is in it. One that is not there is as good.
pub fn remove_dir(dir: &Path, point: Point) -> io::Result<()> {
    fail::step(point)?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub fn remove_file(file: &Path, point: Point) -> io::Result<()> {
    fail::step(point)?;
    fs::remove_file(file)
}
