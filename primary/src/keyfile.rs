//! The file of the key that seals secrets: beside the store, or where its operator says. Made whole or
//! not at all, and replaced so that after a crash at any moment there is the old one or the new.
//!
//! ```text
//! FILE.new written, synced ─► what it seals is on the disk ─► FILE.new becomes FILE ─► synced
//! ```
//!
//! Which of both is the right one, the store knows: [`crate::settings`] asks it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::fail::Point;
use crate::files;
use crate::sealing::Key;

/// In the data directory, where no other is named.
pub const FILE: &str = "secrets.key";
const NEW: &str = ".new";
/// Longer than a key with all that people put around one.
const BYTES_MAX: u64 = 1 << 10;
const OTHERS_READ: u32 = 0o077;

/// Why a key cannot be had from its file. For the operator: it names the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{} cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} is not a key: it must have 32 bytes in base64, and nothing else", .0.display())]
    NoKey(PathBuf),
    #[error(
        "everybody on this machine can change {}: take that right away (chmod o-w) first",
        .0.display()
    )]
    Everybodys(PathBuf),
}

#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
    /// What leads to one that its operator named is followed.
    named: bool,
}

impl KeyFile {
    pub fn new(data: &Path, named: Option<&Path>) -> Self {
        match named {
            Some(path) => Self { path: path.to_owned(), named: true },
            None => Self { path: data.join(FILE), named: false },
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `None` where there is no such file.
    pub fn read(&self) -> Result<Option<Key>, KeyFileError> {
        self.read_at(&self.path)
    }

    /// The one that was to take its place when a host ended.
    pub fn read_new(&self) -> Result<Option<Key>, KeyFileError> {
        self.read_at(&self.new_path())
    }

    fn read_at(&self, path: &Path) -> Result<Option<Key>, KeyFileError> {
        let strange = |source| KeyFileError::Read(path.to_owned(), source);
        let found = match self.named {
            true => fs::canonicalize(path).and_then(|found| files::read(&found, BYTES_MAX)),
            false => files::read(path, BYTES_MAX),
        };
        let text = match found {
            Ok(text) => zeroize::Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(strange(error)),
        };
        if let Some(path) = files::everybodys(path) {
            return Err(KeyFileError::Everybodys(path));
        }
        Key::parse(&text).map(Some).ok_or_else(|| KeyFileError::NoKey(path.to_owned()))
    }

    /// Whether others than its owner may read it.
    pub fn is_open_to_others(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.mode() & OTHERS_READ != 0)
    }

    /// Where it is: what leads to one that was named stays where it is.
    fn place(&self) -> PathBuf {
        match self.named {
            true => fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone()),
            false => self.path.clone(),
        }
    }

    fn new_path(&self) -> PathBuf {
        let mut path = self.place().into_os_string();
        path.push(NEW);
        path.into()
    }

    fn sync_directory(&self, point: Point) -> io::Result<()> {
        let place = self.place();
        match place.parent() {
            Some(above) if !above.as_os_str().is_empty() => durable::sync_dir(above, point),
            _ => durable::sync_dir(Path::new("."), point),
        }
    }

    /// Puts a key beside the one that there is.
    pub fn write_new(&self, key: &Key) -> io::Result<()> {
        let path = self.new_path();
        let mut file = files::open_or_make(&path)?;
        file.set_len(0)?;
        file.write_all(key.text().as_bytes())?;
        durable::sync(&file, Point::KeySync)?;
        self.sync_directory(Point::KeySyncNew)
    }

    /// The new one is the key from now on.
    pub fn put_in_place(&self) -> io::Result<()> {
        durable::rename(&self.new_path(), &self.place(), Point::KeyPlace)?;
        self.sync_directory(Point::KeySyncDir)
    }

    /// Takes away what was to become the key and did not.
    pub fn drop_new(&self) -> io::Result<()> {
        match fs::remove_file(self.new_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn scratch() -> (tempfile::TempDir, KeyFile) {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::new(directory.path(), None);
        (directory, file)
    }

    #[test]
    fn a_key_is_there_once_it_is_in_its_place() {
        let (directory, file) = scratch();
        assert_eq!(file.read().unwrap(), None);
        let [key, next] = [(); 2].map(|()| Key::random().unwrap());
        file.write_new(&key).unwrap();
        assert_eq!((file.read().unwrap(), file.read_new().unwrap()), (None, Some(key.clone())));
        file.put_in_place().unwrap();
        assert_eq!((file.read().unwrap(), file.read_new().unwrap()), (Some(key.clone()), None));
        let mode = fs::metadata(file.path()).unwrap().mode() & 0o7777;
        assert_eq!((mode, file.is_open_to_others()), (0o600, false));

        file.write_new(&next).unwrap();
        file.write_new(&next).unwrap();
        assert_eq!(file.read().unwrap(), Some(key.clone()));
        file.drop_new().unwrap();
        file.drop_new().unwrap();
        assert_eq!((file.read().unwrap(), file.read_new().unwrap()), (Some(key), None));
        file.write_new(&next).unwrap();
        file.put_in_place().unwrap();
        assert_eq!(file.read().unwrap(), Some(next));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_key_is_named() {
        let (directory, file) = scratch();
        fs::write(file.path(), "nothing of the kind").unwrap();
        assert!(matches!(file.read(), Err(KeyFileError::NoKey(_))));
        fs::write(file.path(), vec![b'A'; 10_000]).unwrap();
        assert!(matches!(file.read(), Err(KeyFileError::Read(..))));
        fs::write(file.path(), Key::random().unwrap().text().as_bytes()).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(file.read(), Err(KeyFileError::Everybodys(_))));
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(file.read().unwrap().is_some() && file.is_open_to_others());
        fs::remove_file(file.path()).unwrap();
        fs::create_dir(file.path()).unwrap();
        assert!(matches!(file.read(), Err(KeyFileError::Read(..))));
        drop(directory);
    }

    #[test]
    fn row_15_a_link_is_followed_where_the_operator_named_it_alone() {
        let (directory, file) = scratch();
        let elsewhere = directory.path().join("elsewhere");
        let key = Key::random().unwrap();
        fs::write(&elsewhere, key.text().as_bytes()).unwrap();
        symlink(&elsewhere, file.path()).unwrap();
        assert!(matches!(file.read(), Err(KeyFileError::Read(..))));
        let named = KeyFile::new(Path::new("/nowhere"), Some(file.path()));
        assert_eq!(named.read().unwrap(), Some(key));
        let next = Key::random().unwrap();
        named.write_new(&next).unwrap();
        named.put_in_place().unwrap();
        assert_eq!(named.read().unwrap(), Some(next));
        assert!(fs::symlink_metadata(file.path()).unwrap().is_symlink());
        nix::unistd::mkfifo(&directory.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let pipe = KeyFile::new(Path::new("/nowhere"), Some(&directory.path().join("pipe")));
        assert!(matches!(pipe.read(), Err(KeyFileError::Read(..))));
    }
}
