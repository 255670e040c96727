//! The steps by which files become durable, each behind its fail point. `primary/clippy.toml`
//! keeps everybody else from making them, so that none is made past the tests of crashes.
//!
//! A sync that failed is not tried again: the kernel may have dropped what it could not write
//! and call the next one a success. Whoever gets an error here removes what it was about.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, renameat_with};
use tempfile::NamedTempFile;

use crate::fail::{self, Point};

#[expect(clippy::disallowed_methods, reason = "this is the place for it")]
pub fn sync(file: &File, point: Point) -> io::Result<()> {
    fail::step(point)?;
    file.sync_all()
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path, point: Point) -> io::Result<()> {
    sync(&directory(dir)?, point)
}

/// What an operator put in the place of one is followed; a pipe is not waited for.
fn directory(dir: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir, flags, Mode::empty())?.into())
}

/// Makes everything durable that is on the file system of this directory.
#[expect(clippy::disallowed_methods, reason = "this is the place for it")]
pub fn sync_file_system(dir: &Path, point: Point) -> io::Result<()> {
    fail::step(point)?;
    Ok(rustix::fs::syncfs(directory(dir)?)?)
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

/// Gives a temporary file its name, in the place of what may have it, whatever that is.
#[expect(clippy::disallowed_methods, reason = "this is the place for it")]
pub fn place(file: NamedTempFile, name: &Path, point: Point) -> io::Result<()> {
    fail::step(point)?;
    if is_dir(name) {
        fs::remove_dir_all(name)?;
    }
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

/// The same of a directory in which nobody but the host puts anything: what else has its name goes.
pub fn create_own_dir(dir: &Path, point: Point) -> io::Result<()> {
    if fs::symlink_metadata(dir).is_ok_and(|found| !found.is_dir()) {
        fs::remove_file(dir)?;
    }
    create_dir(dir, point)
}

/// Removes a directory with all that is in it, or what else has its name. One that is not there is
/// as good.
pub fn remove_dir(dir: &Path, point: Point) -> io::Result<()> {
    fail::step(point)?;
    let removed = if is_dir(dir) { fs::remove_dir_all(dir) } else { fs::remove_file(dir) };
    removed.or_else(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(()),
        _ => Err(error),
    })
}

fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}
