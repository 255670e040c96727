//! A file that a command writes, which is there whole or not at all.
//!
//! What has its name already is treated as by any other tool: a regular file is replaced in one step,
//! a link stays and leads to the new one, and into a device or a pipe is written. Until it is whole
//! the file has no name, so that nothing is left of it whenever the command is killed. Where a file
//! system has no such files there is one beside it, of always the same name.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, linkat, openat};
use rustix::io::Errno;

const DESCRIPTORS: &str = "/proc/self/fd";
/// Whoever has a backup has every tenant's code.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

pub enum Replacing {
    /// A device or a pipe, which was there.
    Into(File),
    Beside {
        file: File,
        target: PathBuf,
        /// The name that it has for the last step, or has all along.
        part: PathBuf,
        is_named: bool,
    },
}

impl Replacing {
    pub fn open(path: &Path) -> io::Result<Self> {
        let leads_to = match fs::metadata(path) {
            Ok(found) => Some(found.file_type()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match leads_to {
            Some(kind) if kind.is_file() => Self::beside(fs::canonicalize(path)?),
            Some(kind) if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Some(kind) if kind.is_char_device() || kind.is_fifo() => {
                Ok(Self::Into(File::options().write(true).open(path)?))
            }
            Some(_) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "this is a disk or a socket; name a file, a pipe or a terminal",
            )),
            None if fs::symlink_metadata(path).is_ok() => {
                Err(io::Error::new(io::ErrorKind::NotFound, "this is a link that leads nowhere"))
            }
            None => Self::beside(path.to_owned()),
        }
    }

    fn beside(target: PathBuf) -> io::Result<Self> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut part = OsString::from(".");
        part.push(name);
        part.push(".part");
        let part = target.with_file_name(part);
        if Path::new(DESCRIPTORS).is_dir() {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            match openat(CWD, directory(&target), flags, PRIVATE) {
                Ok(file) => {
                    return Ok(Self::Beside { file: file.into(), target, part, is_named: false });
                }
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Self::named(target, part)
    }

    fn named(target: PathBuf, part: PathBuf) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(CWD, &part, flags, PRIVATE)?);
        if let Err(Errno::WOULDBLOCK) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            let busy = format!("another command writes {} at this moment", part.display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, busy));
        }
        file.set_len(0)?;
        Ok(Self::Beside { file, target, part, is_named: true })
    }

    /// With which rights the file is there, in place of its owner's alone.
    pub fn allow(&self, mode: u32) -> io::Result<()> {
        match self {
            Self::Into(_) => Ok(()),
            Self::Beside { file, .. } => file.set_permissions(Permissions::from_mode(mode)),
        }
    }

    /// To be called when all of it was written.
    #[expect(clippy::disallowed_methods, reason = "a client's file, and none of the host's")]
    pub fn finish(self) -> io::Result<()> {
        let (file, target, part, is_named) = match self {
            Self::Into(mut file) => return file.flush(),
            Self::Beside { file, target, part, is_named } => (file, target, part, is_named),
        };
        file.sync_all()?;
        let directory = File::open(directory(&target))?;
        // Two that end at the same time would take each other's name away.
        let _ = flock(&directory, FlockOperation::LockExclusive);
        if !is_named {
            let unnamed = format!("{DESCRIPTORS}/{}", file.as_raw_fd());
            let link = || linkat(CWD, &unnamed, CWD, &part, AtFlags::SYMLINK_FOLLOW);
            if let Err(errno) = link() {
                if errno != Errno::EXIST {
                    return Err(errno.into());
                }
                fs::remove_file(&part)?;
                link()?;
            }
        }
        fs::rename(&part, &target).inspect_err(|_| drop(fs::remove_file(&part)))?;
        directory.sync_all()
    }
}

impl Write for Replacing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (Self::Into(file) | Self::Beside { file, .. }) = self;
        file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let (Self::Into(file) | Self::Beside { file, .. }) = self;
        file.flush()
    }
}

fn directory(target: &Path) -> &Path {
    match target.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            names.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write(mut to: Replacing, text: &str) {
        to.write_all(text.as_bytes()).unwrap();
        to.finish().unwrap();
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        let mut half = Replacing::open(&path).unwrap();
        half.write_all(b"half").unwrap();
        assert_eq!(names(place.path()), [""; 0], "it has no name");
        drop(half);
        write(Replacing::open(&path).unwrap(), "one");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let (mut two, three) = (Replacing::open(&path).unwrap(), Replacing::open(&path).unwrap());
        two.write_all(b"tw").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write(three, "three");
        two.write_all(b"o").unwrap();
        two.finish().unwrap();
        assert_eq!(
            (names(place.path()), fs::read(&path).unwrap()),
            (vec!["file".into()], b"two".to_vec())
        );
    }

    #[test]
    fn where_every_file_has_a_name_it_is_always_the_same() {
        let place = tempfile::tempdir().unwrap();
        let (path, part) = (place.path().join("file"), place.path().join(".file.part"));
        let named = || Replacing::named(path.clone(), part.clone());
        let mut cut = named().unwrap();
        cut.write_all(b"longer than the next").unwrap();
        assert!(named().is_err(), "one at a time");
        drop(cut);
        assert_eq!(names(place.path()), [".file.part"]);
        write(named().unwrap(), "one");
        assert_eq!(
            (names(place.path()), fs::read(&path).unwrap()),
            (vec!["file".into()], b"one".to_vec())
        );
        // What one left is in nobody's way.
        fs::write(&part, "left").unwrap();
        write(Replacing::open(&path).unwrap(), "two");
        assert_eq!(
            (names(place.path()), fs::read(&path).unwrap()),
            (vec!["file".into()], b"two".to_vec())
        );
        symlink(&path, &part).unwrap();
        assert!(named().is_err());
    }

    #[test]
    fn what_is_no_regular_file_stays_what_it_is() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("far")).unwrap();
        fs::write(at("far/file"), "old").unwrap();
        symlink("far/file", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        write(Replacing::open(&at("link")).unwrap(), "new");
        assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("far/file"));
        assert_eq!(fs::read(at("far/file")).unwrap(), b"new");
        assert!(Replacing::open(&at("dangling")).is_err());
        assert!(Replacing::open(&at("far")).is_err());
        write(Replacing::open(Path::new("/dev/null")).unwrap(), "gone");
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());

        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let read = std::thread::spawn({
            let pipe = at("pipe");
            move || fs::read_to_string(pipe).unwrap()
        });
        write(Replacing::open(&at("pipe")).unwrap(), "through");
        assert_eq!(read.join().unwrap(), "through");
        assert!(fs::metadata(at("pipe")).unwrap().file_type().is_fifo());
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(Replacing::open(&at("socket")).is_err());
    }
}
