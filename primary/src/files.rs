//! How files of the data directory are opened: each as the regular file that it is to be, by its
//! own name. Something else may lie in its place: a link to another file, a pipe at whose end one
//! waits for ever, a directory. That is an error here, and never waited for, followed or written to.
//!
//! What is to follow from it is its owner's to say; what is durable, `durable.rs`'s.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, mkdirat, openat, unlinkat};
use rustix::io::Errno;

/// A pipe is opened without waiting for its other end, and then seen to be one.
const BY_ITS_NAME: OFlags =
    OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);
const PRIVATE_DIR: Mode = Mode::from_raw_mode(0o700);
const EVERYBODY_WRITES: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// To be read.
pub fn open(path: &Path) -> io::Result<File> {
    regular(openat(CWD, path, OFlags::RDONLY | BY_ITS_NAME, Mode::empty()))
}

/// The whole of one that has at most so many bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    whole(open(path)?, most)
}

/// To be written, and made where there is none.
pub fn open_or_make(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | BY_ITS_NAME;
    regular(openat(CWD, path, flags, PRIVATE_FILE))
}

/// A directory, to be read and to find files in.
pub fn dir(path: &Path) -> io::Result<OwnedFd> {
    folder(openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | BY_ITS_NAME, Mode::empty()))
}

/// The file itself or its directory, where everybody on the machine may change or replace it. What
/// leads to it is followed, as it was written by whoever named it; a pipe is as good as its writer.
pub fn everybodys(path: &Path) -> Option<PathBuf> {
    let found = std::fs::canonicalize(path).ok()?;
    let directory = found.parent()?.to_owned();
    let mode = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.mode());
    let is_file = std::fs::metadata(&found).is_ok_and(|found| found.is_file());
    // In one with the sticky bit nobody replaces another's.
    let is_open = mode(&directory) & (EVERYBODY_WRITES | STICKY) == EVERYBODY_WRITES;
    match is_file {
        true if mode(&found) & EVERYBODY_WRITES != 0 => Some(found),
        true if is_open => Some(directory),
        _ => None,
    }
}

/// Whether an error says that something else lies in the place of a file or directory.
pub fn is_something_else(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData && error.raw_os_error().is_none()
}

fn something_else(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn regular(opened: rustix::io::Result<OwnedFd>) -> io::Result<File> {
    let opened = opened.map_err(|errno| match errno {
        Errno::LOOP => something_else("a link lies in the place of a file"),
        // A socket, or a pipe that nobody reads, or a directory that was to be written.
        Errno::NXIO | Errno::ISDIR => {
            something_else("what lies in the place of a file is not a file")
        }
        errno => errno.into(),
    })?;
    match FileType::from_raw_mode(fstat(&opened)?.st_mode) {
        FileType::RegularFile => Ok(opened.into()),
        FileType::Directory => Err(something_else("a directory lies in the place of a file")),
        _ => Err(something_else("what lies in the place of a file is not a file")),
    }
}

fn folder(opened: rustix::io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    opened.map_err(|errno| match errno {
        // With O_DIRECTORY a link is no directory, whatever it leads to.
        Errno::NOTDIR | Errno::LOOP => {
            something_else("what lies in the place of a directory is not a directory")
        }
        errno => errno.into(),
    })
}

fn whole(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(something_else("a file is larger than any of its kind")),
        false => Ok(bytes),
    }
}

/// A directory whose files are nobody else's: a file with a second name is as good as a link. All
/// that is done in it is done by its descriptor, wherever its name may lead by then.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl Folder {
    /// By a path whose last two steps are no links.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (above, name) = steps(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | BY_ITS_NAME;
        Ok(Self(folder(openat(dir(above)?, name, flags, Mode::empty()))?))
    }

    /// The same, made where there is none; what is above it must be there.
    pub fn open_or_make(path: &Path) -> io::Result<Self> {
        let (above, name) = steps(path)?;
        match mkdirat(dir(above)?, name, PRIVATE_DIR) {
            Ok(()) | Err(Errno::EXIST) => Self::open(path),
            Err(errno) => Err(errno.into()),
        }
    }

    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if ![&b"."[..], b".."].contains(&&name[..]) {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// The whole of a file that has at most so many bytes.
    pub fn read(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        whole(self.file(name, OFlags::RDONLY)?, most)
    }

    /// One that is there, to be read and written to at its end.
    pub fn append(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlags::RDWR | OFlags::APPEND)
    }

    /// A new one, to be written to at its end.
    pub fn create(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL)
    }

    fn file(&self, name: &str, how: OFlags) -> io::Result<File> {
        let file = regular(openat(&self.0, name, how | BY_ITS_NAME, PRIVATE_FILE))?;
        match fstat(&file)?.st_nlink {
            1 => Ok(file),
            _ => Err(something_else("a file has a second name")),
        }
    }

    /// Takes a name away, whatever it stands for. A directory must be empty.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(self.0.as_fd(), name, AtFlags::empty()) {
            Err(Errno::ISDIR) => Ok(unlinkat(self.0.as_fd(), name, AtFlags::REMOVEDIR)?),
            removed => Ok(removed?),
        }
    }
}

fn steps(path: &Path) -> io::Result<(&Path, &std::ffi::OsStr)> {
    path.parent().zip(path.file_name()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory with one of each kind of what is no file of ours, and their names.
    fn planted() -> (tempfile::TempDir, [&'static str; 6]) {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        fs::write(at("target"), "precious").unwrap();
        symlink(at("target"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        symlink("/dev/zero", at("endless")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir(at("directory")).unwrap();
        std::mem::forget(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());
        (scratch, ["link", "dangling", "endless", "pipe", "directory", "socket"])
    }

    #[test]
    fn row_15_what_is_no_file_is_neither_waited_for_nor_followed() {
        let (scratch, names) = planted();
        let inside = Folder::open(scratch.path()).unwrap();
        for name in names {
            let path = scratch.path().join(name);
            let told = [
                open(&path).map(drop),
                read(&path, 100).map(drop),
                open_or_make(&path).map(drop),
                inside.append(name).map(drop),
                inside.read(name, 100).map(drop),
            ];
            for error in told.map(Result::unwrap_err) {
                assert!(is_something_else(&error), "{name}: {error:?}");
            }
            assert_eq!(inside.create(name).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            if name != "directory" {
                assert!(is_something_else(&dir(&path).unwrap_err()), "{name}");
            }
        }
        assert_eq!(fs::read(scratch.path().join("target")).unwrap(), b"precious");
        assert!(!scratch.path().join("nowhere").exists());
        for name in names {
            inside.remove(name).unwrap();
        }
        assert_eq!(inside.names().unwrap(), ["target"]);
    }

    #[test]
    fn row_15_a_file_with_a_second_name_is_not_a_folders_own() {
        let (scratch, _) = planted();
        fs::hard_link(scratch.path().join("target"), scratch.path().join("second")).unwrap();
        let inside = Folder::open(scratch.path()).unwrap();
        assert!(is_something_else(&inside.append("second").unwrap_err()));
        assert!(is_something_else(&inside.read("second", 100).unwrap_err()));
        assert_eq!(read(&scratch.path().join("second"), 100).unwrap(), b"precious");
    }

    #[test]
    fn a_folder_is_no_link_and_lies_in_none() {
        let scratch = tempfile::tempdir().unwrap();
        let (real, led) = (scratch.path().join("real"), scratch.path().join("led"));
        fs::create_dir_all(real.join("logs")).unwrap();
        symlink(&real, &led).unwrap();
        Folder::open(&real.join("logs")).unwrap();
        for path in [&led, &led.join("logs")] {
            assert!(is_something_else(&Folder::open(path).unwrap_err()), "{path:?}");
            assert!(is_something_else(&Folder::open_or_make(path).unwrap_err()), "{path:?}");
        }
        let late = Folder::open_or_make(&scratch.path().join("gone/logs")).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_everybody_may_change_is_told() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = tempfile::tempdir().unwrap();
        let (dir, link) = (scratch.path().join("dir"), scratch.path().join("link"));
        fs::create_dir(&dir).unwrap();
        let file = dir.join("file");
        fs::write(&file, "token").unwrap();
        symlink(&file, &link).unwrap();
        for (of_dir, of_file, told) in [
            (0o755, 0o600, None),
            (0o755, 0o664, None),
            (0o1777, 0o644, None),
            (0o755, 0o602, Some(&file)),
            (0o755, 0o666, Some(&file)),
            (0o777, 0o600, Some(&dir)),
        ] {
            fs::set_permissions(&dir, fs::Permissions::from_mode(of_dir)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(of_file)).unwrap();
            for path in [&file, &link] {
                let found = everybodys(path);
                let told = told.map(|told| fs::canonicalize(told).unwrap());
                assert_eq!(found, told, "{of_dir:o} {of_file:o} {path:?}");
            }
        }
        assert_eq!(everybodys(Path::new("/dev/null")), None);
        assert_eq!(everybodys(Path::new("/nowhere")), None);
    }

    #[test]
    fn a_file_is_read_up_to_a_bound() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(is_something_else(&read(&path, 4).unwrap_err()));
    }
}
