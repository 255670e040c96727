//! Whose a data directory is, and whom this host may run tenants as.
//!
//! A host sweeps its directory, so it takes none in which it would sweep what is somebody else's:
//! without a store, nothing there may have a name of what a host keeps.
//!
//! What a host makes is closed to everybody but whom it ran as: root, who is kept from nothing,
//! would shut a user out of that user's own directory by starting on it once.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

use crate::files;
use crate::keyfile;
use crate::leftovers;
use crate::store::FILE as STORE;
use crate::terminal::shell_word;

/// In the data directory.
pub const LOCK: &str = "lock";
/// Half of what a restore makes.
pub const RESTORING: &str = "restoring";
/// What a fresh file system has by itself.
pub const LOST_AND_FOUND: &str = "lost+found";
/// More than a host writes into its lock while it has no store.
const NOTES_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    #[error("{} is not a directory; give --data one that is empty, or that is not there yet", .0.display())]
    NotADirectory(PathBuf),
    #[error(
        "{} is not empty (it has {found:?}) and has no hearth.db, so that it is not a data directory of Hearth, which would sweep it; nothing in it was changed. Give --data another directory, or one that is not there yet; where Hearth's data was here, put its hearth.db back",
        data.display()
    )]
    NotEmpty { data: PathBuf, found: String },
    #[error(
        "{} belongs to the user id {owner}, and this runs as {own}, whose files {owner} could not open any more. Run it as {owner} (setpriv --reuid {owner} --clear-groups …), or give it all to {own} first: chown -R {own} {}",
        path.display(),
        shell_word(&data.to_string_lossy())
    )]
    Foreign { data: PathBuf, path: PathBuf, owner: u32, own: u32 },
    #[error(
        "{} is closed to the user id {own}, as whom this runs. Run it as whom it belongs to, or give it all to {own} first: chown -R {own} {}",
        path.display(),
        shell_word(&data.to_string_lossy())
    )]
    Closed { data: PathBuf, path: PathBuf, own: u32, source: io::Error },
}

/// A tenant's own files, of a user id that this host cannot run anything as.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} belongs to the user id {owner}, whom this host cannot run anything as: start it as root with CAP_SETUID, CAP_SETGID and CAP_CHOWN, or give it to {own} first: chown -R {own} {}",
    state.display(),
    shell_word(&state.to_string_lossy())
)]
pub struct ForeignState {
    pub state: PathBuf,
    pub owner: u32,
    pub own: u32,
}

/// What is in a directory besides what may be there before there is a host's data: what a file
/// system begins with, the key that seals secrets, where its operator put it there, and the lock of a
/// start, or of a restore, that ended early.
pub fn stranger(data: &Path) -> io::Result<Option<String>> {
    found(data, |name| ![LOST_AND_FOUND, keyfile::FILE].contains(&name))
}

/// What is in a directory of these names, the lock of a host's excepted.
fn found(data: &Path, is_meant: impl Fn(&str) -> bool) -> io::Result<Option<String>> {
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_meant(&name) && !(name == LOCK && is_lock(&entry.path())) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Whether a directory is a host's, or nobody's.
pub fn is_data(data: &Path) -> io::Result<bool> {
    Ok(stranger(data)?.is_none() || is_begun(data))
}

/// Whether there is a host's data, or half of what a restore makes of it.
fn is_begun(data: &Path) -> bool {
    [STORE, RESTORING].iter().any(|name| fs::symlink_metadata(data.join(name)).is_ok())
}

/// Whether a file is what a host writes there. One that cannot be read is judged by whose it is.
fn is_lock(path: &Path) -> bool {
    let read = files::read(path, NOTES_BYTES_MAX);
    match read {
        Ok(text) => leftovers::are_notes(&text),
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// What a host takes for its own wherever it is, and sweeps or writes over.
const TAKEN: [&str; 5] = ["tmp", "modules", "artifacts", "tenants", LOCK];

/// Refuses a directory that is no host's, before anything in it is touched. What is no name of a
/// host's may lie there: settings, or a token for the first start.
fn check_begun(data: &Path) -> Result<(), OwnerError> {
    match found(data, |name| TAKEN.contains(&name) || name.starts_with(STORE)) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(OwnerError::NotADirectory(data.to_owned()))
        }
        // A restore that did not end is told of by itself.
        Ok(Some(found)) if !is_begun(data) => {
            Err(OwnerError::NotEmpty { data: data.to_owned(), found })
        }
        // It is not there yet, or is closed, which is told below.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Refuses a directory that is not a host's, in which somebody else has been the host, or has left
/// what this one could not use.
pub fn check(data: &Path) -> Result<(), OwnerError> {
    check_begun(data)?;
    // The store, or what a host makes before that.
    let made = [STORE, LOCK].map(|name| data.join(name));
    of_another(data, made)?;
    let within = fs::read_dir(data).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in std::iter::once(data.to_owned()).chain(within) {
        let Ok(kind) = fs::symlink_metadata(&path).map(|meta| meta.file_type()) else { continue };
        let wanted = match (kind.is_dir(), kind.is_file()) {
            (true, _) => Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
            (_, true) => Access::READ_OK | Access::WRITE_OK,
            // What is neither is no file of a host's.
            (false, false) => continue,
        };
        if let Err(errno @ (Errno::ACCESS | Errno::PERM)) = access(&path, wanted) {
            let (data, own) = (data.to_owned(), geteuid().as_raw());
            return Err(OwnerError::Closed { data, path, own, source: errno.into() });
        }
    }
    Ok(())
}

/// Refuses a directory that is somebody else's, be there anything in it or not.
pub fn check_empty(data: &Path) -> Result<(), OwnerError> {
    of_another(data, [data.to_owned()])
}

fn of_another<const N: usize>(data: &Path, paths: [PathBuf; N]) -> Result<(), OwnerError> {
    let own = geteuid().as_raw();
    let owner = |path: &PathBuf| fs::symlink_metadata(path).map(|meta| meta.uid());
    let found = paths.into_iter().find_map(|path| Some((owner(&path).ok()?, path)));
    match found {
        Some((owner, path)) if owner != own => {
            Err(OwnerError::Foreign { data: data.to_owned(), path, owner, own })
        }
        Some(_) | None => Ok(()),
    }
}

/// Why tenants cannot have user ids of their own, where the zygote could change its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoUids {
    NotRoot,
    /// Of the rights that it takes, the ones that are missing.
    Rights(String),
    /// In this user namespace there are not all of these.
    Ids(RangeInclusive<u32>),
}

/// Whether this process can give tenants these user ids.
pub fn can_give(ids: &RangeInclusive<u32>) -> Result<(), NoUids> {
    const NEEDED: [(CapabilitySet, &str); 3] = [
        (CapabilitySet::SETUID, "CAP_SETUID"),
        (CapabilitySet::SETGID, "CAP_SETGID"),
        (CapabilitySet::CHOWN, "CAP_CHOWN"),
    ];
    let had = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let missing = NEEDED.into_iter().filter(|(right, _)| !had.contains(*right));
    let missing: Vec<&str> = missing.map(|(_, name)| name).collect();
    // Somebody else may have been given these rights, and nobody but root has them as a matter of
    // course.
    match (missing.is_empty(), geteuid().is_root()) {
        (true, _) => {}
        (false, true) => return Err(NoUids::Rights(missing.join(" "))),
        (false, false) => return Err(NoUids::NotRoot),
    }
    // Where they cannot be read there are no namespaces, and all ids are there.
    let maps = ["/proc/self/uid_map", "/proc/self/gid_map"].map(fs::read_to_string);
    let lacks_some = |map: io::Result<String>| map.is_ok_and(|map| !has_all(&map, ids));
    match maps.into_iter().any(lacks_some) {
        true => Err(NoUids::Ids(ids.clone())),
        false => Ok(()),
    }
}

/// See user_namespaces(7): the first id within, the first outside, how many.
fn has_all(map: &str, ids: &RangeInclusive<u32>) -> bool {
    let mut ranges: Vec<(u64, u64)> = map
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u64>);
            let (first, _, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
            let first = first.ok()?;
            Some((first, first + count.ok()?))
        })
        .collect();
    ranges.sort_unstable();
    let mut next = u64::from(*ids.start());
    for (first, end) in ranges {
        if first <= next {
            next = next.max(end);
        }
    }
    next > u64::from(*ids.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_ids_a_namespace_has() {
        let ids = 1_900_000_000..=1_900_065_535;
        for (map, all) in [
            ("         0          0 4294967295\n", true),
            ("         0       1000          1\n", false),
            ("0 1000 1\n1 100000 65536\n", false),
            ("0 1000 1\n1900000000 100000 65536\n", true),
            ("1900000001 100000 65536\n", false),
            ("1900000000 100000 65535\n", false),
            ("1900030000 0 70000\n0 0 1900030000", true),
            ("", false),
        ] {
            assert_eq!(has_all(map, &ids), all, "{map:?}");
        }
    }

    #[test]
    fn a_directory_that_is_no_hosts_is_refused_and_what_a_start_left_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        assert!(check(&data).is_ok(), "it is not there yet");
        fs::create_dir(&data).unwrap();
        fs::create_dir(data.join(LOST_AND_FOUND)).unwrap();
        // As a start has it that ended before it had a store.
        for notes in ["", "b pid:[1] 100 50\n", "b pid:[1] 100 50\nb pid:[1] 200 60\n"] {
            fs::write(data.join(LOCK), notes).unwrap();
            assert!(check(&data).is_ok(), "{notes:?}");
        }
        fs::write(data.join(LOCK), "somebody's\n").unwrap();
        let said = check(&data).unwrap_err().to_string();
        assert!(said.contains("is not empty (it has \"lock\")"), "{said}");
        fs::remove_file(data.join(LOCK)).unwrap();
        fs::write(data.join("hearth.toml"), "").unwrap();
        assert!(check(&data).is_ok(), "what no host touches");
        for name in ["tmp", "modules", "tenants", "artifacts", "hearth.db-wal"] {
            fs::create_dir(data.join(name)).unwrap();
            let said = check(&data).unwrap_err().to_string();
            assert!(said.contains(&format!("is not empty (it has {name:?})")), "{said}");
            fs::write(data.join(STORE), "").unwrap();
            assert!(check(&data).is_ok(), "{name}");
            fs::remove_file(data.join(STORE)).unwrap();
            fs::remove_dir(data.join(name)).unwrap();
        }
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(check(&file), Err(OwnerError::NotADirectory(_))));
    }

    #[test]
    fn what_is_there_of_a_host_is_whose_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path();
        assert!(check(data).is_ok() && check(&data.join("new")).is_ok());
        assert!(check_empty(data).is_ok());
        fs::write(data.join("lock"), "").unwrap();
        assert!(check(data).is_ok());
        if !geteuid().is_root() {
            return;
        }
        std::os::unix::fs::chown(data.join("lock"), Some(1_500), None).unwrap();
        let said = check(data).unwrap_err().to_string();
        assert!(said.contains("lock belongs to the user id 1500"), "{said}");
        // The store says more than a lock that somebody made anew.
        fs::write(data.join("hearth.db"), "").unwrap();
        assert!(check(data).is_ok());
    }
}
