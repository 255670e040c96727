//! What was uploaded, content-addressed: `modules/<sha256>.wasm.zst`, written once, never changed.
//!
//! Bytes are counted, hashed and packed here, and never interpreted. A disk may change them all the
//! same: whether a module still is what its name says is looked at here, and what follows if it is
//! not is `release`'s. All of it blocks.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dashmap::DashMap;
use hearth_wire::{ModuleDigest, limits};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::durable;
use crate::fail::{self, Point};
use crate::files;

/// How modules are packed on disk: fast, and within a few percent of the best for code.
const LEVEL: i32 = 3;
const SUFFIX: &str = ".wasm.zst";
const BUFFER: usize = 64 << 10;

/// How an uploaded file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Zstd,
}

#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("a module may have {} unpacked, and this one has more", limits::size(*.0))]
    TooLarge(u64),
    #[error("the file is named .wasm.zst and is no zstd frame (or one with a window above 8 MiB)")]
    NotZstd,
    #[error("the file is empty")]
    Empty,
    /// The upload itself broke.
    #[error("the upload ended early")]
    Body(#[source] io::Error),
    #[error("storing the module")]
    Disk(#[source] io::Error),
}

/// A module that has arrived and is not kept yet; without [`Modules::keep`] it leaves nothing.
#[derive(Debug)]
pub struct Arrived {
    pub sha256: ModuleDigest,
    /// Bytes unpacked, and as kept.
    pub size: u64,
    pub stored: u64,
    /// The unpacked module, at its start. Has no name.
    pub raw: File,
    packed: NamedTempFile,
}

/// What a kept module was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Whole,
    /// Other bytes than its name says, unreadable, or gone.
    Damaged,
}

/// What became of a module that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    New,
    /// The same bytes were there.
    Already,
    /// It took the place of one that was damaged.
    Mended,
}

pub struct Modules {
    dir: PathBuf,
    /// On the same file system as `dir`.
    tmp: PathBuf,
    /// What was found since this process started.
    found: DashMap<ModuleDigest, Condition>,
    /// Told when something else is found than before.
    pub changed: Notify,
    /// One at a time is given its name, so that what is found there is durable.
    placing: Mutex<()>,
}

impl Modules {
    pub fn new(dir: PathBuf, tmp: PathBuf) -> Self {
        Self { dir, tmp, found: DashMap::new(), changed: Notify::new(), placing: Mutex::default() }
    }

    fn path(&self, sha256: ModuleDigest) -> PathBuf {
        self.dir.join(file_name(sha256))
    }

    /// Gives a kept module a second name, in a directory where no sweep comes by.
    pub fn link(&self, sha256: ModuleDigest, dir: &Path) -> io::Result<()> {
        let path = self.path(sha256);
        if !fs::symlink_metadata(&path)?.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        fs::hard_link(path, dir.join(file_name(sha256)))
    }

    /// Takes an upload's bytes in, at most so many of the module.
    pub fn ingest(
        &self,
        packing: Packing,
        upload: impl Read,
        most: u64,
    ) -> Result<Arrived, IngestError> {
        let mut upload = Marked { inner: upload, failed: false };
        let taken = match packing {
            Packing::Plain => self.take(&mut upload, most),
            Packing::Zstd => {
                let decoder = zstd::Decoder::new(&mut upload).and_then(|mut decoder| {
                    decoder.window_log_max(limits::ZSTD_WINDOW_LOG_MAX)?;
                    Ok(decoder)
                });
                decoder.map_err(Taking::Source).and_then(|decoder| self.take(decoder, most))
            }
        };
        taken.map_err(|taking| match taking {
            Taking::TooLarge => IngestError::TooLarge(most),
            Taking::Empty => IngestError::Empty,
            Taking::Disk(error) => IngestError::Disk(error),
            Taking::Source(error) if upload.failed => IngestError::Body(error),
            Taking::Source(_) => IngestError::NotZstd,
        })
    }

    fn take(&self, mut module: impl Read, most: u64) -> Result<Arrived, Taking> {
        fail::step(Point::ModuleCreate).map_err(Taking::Disk)?;
        let raw = tempfile::tempfile_in(&self.tmp).map_err(Taking::Disk)?;
        let packed = NamedTempFile::new_in(&self.tmp).map_err(Taking::Disk)?;
        let mut packer = zstd::Encoder::new(packed.as_file(), LEVEL).map_err(Taking::Disk)?;
        let mut plain = BufWriter::new(raw);
        let mut hasher = Sha256::new();
        let mut size = 0;
        let mut buffer = vec![0; BUFFER];
        loop {
            let got = module.read(&mut buffer).map_err(Taking::Source)?;
            if got == 0 {
                break;
            }
            size += got as u64;
            if size > most {
                return Err(Taking::TooLarge);
            }
            hasher.update(&buffer[..got]);
            fail::step(Point::ModuleWrite).map_err(Taking::Disk)?;
            plain.write_all(&buffer[..got]).map_err(Taking::Disk)?;
            packer.write_all(&buffer[..got]).map_err(Taking::Disk)?;
        }
        if size == 0 {
            return Err(Taking::Empty);
        }
        packer.finish().map_err(Taking::Disk)?;
        let mut raw = plain.into_inner().map_err(|error| Taking::Disk(error.into_error()))?;
        raw.rewind().map_err(Taking::Disk)?;
        let stored = packed.as_file().metadata().map_err(Taking::Disk)?.len();
        let sha256 = ModuleDigest::new(hasher.finalize().into());
        Ok(Arrived { sha256, size, stored, raw, packed })
    }

    /// Makes a module durable under its name, before any metadata may name it.
    pub fn keep(&self, arrived: Arrived) -> io::Result<Kept> {
        let Arrived { sha256, packed, .. } = arrived;
        let path = self.path(sha256);
        let _alone = self.placing.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = match (path.try_exists()?, self.found(sha256)) {
            (true, Some(Condition::Whole) | None) => Kept::Already,
            (true, Some(Condition::Damaged)) | (false, Some(_)) => Kept::Mended,
            (false, None) => Kept::New,
        };
        // Where it is there, too: from how long it takes nobody is to see that another has it.
        durable::sync(packed.as_file(), Point::ModuleSync)?;
        durable::place(packed, &path, Point::ModulePlace)?;
        if let Err(error) = durable::sync_dir(&self.dir, Point::ModuleSyncDir) {
            // Its name may be lost with the power, so nobody may find it. One that was there has
            // a name, and either file is whole.
            if kept != Kept::Already {
                let _ = fs::remove_file(&path);
            }
            return Err(error);
        }
        self.note(sha256, Condition::Whole);
        Ok(kept)
    }

    /// Gives modules that lie in `from`, and are durable there, their names here, too.
    pub fn adopt(&self, from: &Path) -> io::Result<()> {
        let _alone = self.placing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut placed = Vec::new();
        let mut place = || {
            for module in fs::read_dir(from)? {
                let module = module?;
                let path = self.dir.join(module.file_name());
                match fs::hard_link(module.path(), &path) {
                    Ok(()) => placed.push(path),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                }
            }
            durable::sync_dir(&self.dir, Point::ModuleSyncDir)
        };
        place().inspect_err(|_| {
            // As in `keep`: nobody may find what may be lost with the power.
            for path in &placed {
                let _ = fs::remove_file(path);
            }
        })
    }

    /// What was found of it, if it was looked at.
    pub fn found(&self, sha256: ModuleDigest) -> Option<Condition> {
        self.found.get(&sha256).map(|found| *found)
    }

    /// How many were found damaged.
    pub fn damaged(&self) -> usize {
        self.found.iter().filter(|found| **found == Condition::Damaged).count()
    }

    /// What a kept module is. One that was whole is not looked at again.
    pub fn condition(&self, sha256: ModuleDigest) -> io::Result<Condition> {
        match self.found(sha256) {
            Some(Condition::Whole) => Ok(Condition::Whole),
            Some(Condition::Damaged) | None => self.look(sha256),
        }
    }

    /// Reads a kept module to its end.
    pub fn look(&self, sha256: ModuleDigest) -> io::Result<Condition> {
        let condition = match self.digest(sha256) {
            Ok(found) if found == sha256 => Condition::Whole,
            Ok(_) => Condition::Damaged,
            Err(error) if is_damage(&error) => Condition::Damaged,
            Err(error) => return Err(error),
        };
        self.note(sha256, condition);
        Ok(condition)
    }

    fn note(&self, sha256: ModuleDigest, condition: Condition) {
        let before = self.found.insert(sha256, condition).unwrap_or(Condition::Whole);
        if before == condition {
            return;
        }
        match condition {
            Condition::Whole => info!(%sha256, "a module is whole again"),
            Condition::Damaged => {
                error!(%sha256, "a module is damaged on disk: its versions are out of service");
            }
        }
        self.changed.notify_one();
    }

    fn digest(&self, sha256: ModuleDigest) -> io::Result<ModuleDigest> {
        let packed = files::open(&self.path(sha256))?;
        let mut decoder = zstd::Decoder::new(packed)?;
        decoder.window_log_max(limits::ZSTD_WINDOW_LOG_MAX)?;
        let mut module = decoder.take(limits::MODULE_MAX_BYTES + 1);
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            match module.read(&mut buffer)? {
                0 => return Ok(ModuleDigest::new(hasher.finalize().into())),
                got => hasher.update(&buffer[..got]),
            }
        }
    }

    /// Unpacks a kept module, and checks that it still is what its name says.
    pub fn unpack(&self, sha256: ModuleDigest) -> io::Result<File> {
        let kept = files::open(&self.path(sha256))?;
        let arrived = match self.ingest(Packing::Zstd, kept, limits::MODULE_MAX_BYTES) {
            Ok(arrived) => arrived,
            Err(IngestError::Body(error) | IngestError::Disk(error)) => return Err(error),
            Err(_) => return Err(damaged(sha256)),
        };
        if arrived.sha256 == sha256 { Ok(arrived.raw) } else { Err(damaged(sha256)) }
    }

    /// Removes those modules that nothing names.
    pub fn sweep(&self, named: &HashSet<ModuleDigest>) -> io::Result<u64> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let sha256 = name
                .to_str()
                .and_then(|name| name.strip_suffix(SUFFIX))
                .and_then(|digest| digest.parse().ok());
            if sha256.is_none_or(|sha256| !named.contains(&sha256)) {
                removed += u64::from(swept(&self.dir.join(name), Point::ModuleRemove));
            }
        }
        self.found.retain(|sha256, _| named.contains(sha256));
        Ok(removed)
    }
}

/// Removes what nothing names, whatever it is. What cannot be removed keeps nothing else from it.
pub(super) fn swept(path: &Path, point: Point) -> bool {
    let removed = durable::remove_dir(path, point);
    if let Err(error) = &removed {
        warn!(path = %path.display(), error = error as &dyn std::error::Error, "not swept");
    }
    removed.is_ok()
}

/// Under which a module is kept.
pub fn file_name(sha256: ModuleDigest) -> String {
    format!("{sha256}{SUFFIX}")
}

fn damaged(sha256: ModuleDigest) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the module {sha256} is damaged on disk"))
}

/// Whether it is what lies there, and not the host that had no descriptor or memory to read them.
fn is_damage(error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(errno) => [Errno::NOENT, Errno::IO].map(Errno::raw_os_error).contains(&errno),
        // The decoder's, or something that is no file.
        None => true,
    }
}

enum Taking {
    TooLarge,
    Empty,
    Source(io::Error),
    Disk(io::Error),
}

/// Remembers whether reading itself failed, which a decoder's error does not tell.
struct Marked<R> {
    inner: R,
    failed: bool,
}

impl<R: Read> Read for Marked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer);
        self.failed |= got.is_err();
        got
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = limits::MODULE_MAX_BYTES;

    fn modules() -> (tempfile::TempDir, Modules) {
        let dir = tempfile::tempdir().unwrap();
        let (kept, tmp) = (dir.path().join("modules"), dir.path().join("tmp"));
        fs::create_dir(&kept).unwrap();
        fs::create_dir(&tmp).unwrap();
        (dir, Modules::new(kept, tmp))
    }

    fn count(modules: &Modules) -> usize {
        let entries = |dir: &Path| fs::read_dir(dir).unwrap().count();
        entries(&modules.dir) + entries(&modules.tmp)
    }

    #[test]
    fn plain_and_packed_are_one_module() {
        let (_dir, modules) = modules();
        let bytes = b"some module".repeat(10_000);
        let plain = modules.ingest(Packing::Plain, &bytes[..], MOST).unwrap();
        let packed = zstd::encode_all(&bytes[..], 19).unwrap();
        let packed = modules.ingest(Packing::Zstd, &packed[..], MOST).unwrap();
        assert_eq!((plain.sha256, plain.size), (packed.sha256, packed.size));
        assert_eq!(plain.size, bytes.len() as u64);
        let sha256 = plain.sha256;
        modules.keep(plain).unwrap();
        modules.keep(packed).unwrap();
        assert_eq!(count(&modules), 1);
        let mut unpacked = Vec::new();
        modules.unpack(sha256).unwrap().read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, bytes);
    }

    #[test]
    fn what_is_refused_leaves_nothing() {
        let (_dir, modules) = modules();
        let bomb = zstd::encode_all(io::repeat(0).take(limits::MODULE_MAX_BYTES + 1), 1).unwrap();
        assert!(matches!(
            modules.ingest(Packing::Zstd, &bomb[..], MOST),
            Err(IngestError::TooLarge(MOST))
        ));
        assert!(matches!(
            modules.ingest(Packing::Zstd, &b"plain"[..], MOST),
            Err(IngestError::NotZstd)
        ));
        assert!(matches!(
            modules.ingest(Packing::Plain, io::empty(), MOST),
            Err(IngestError::Empty)
        ));
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        assert!(matches!(modules.ingest(Packing::Zstd, Broken, MOST), Err(IngestError::Body(_))));
        assert_eq!(count(&modules), 0);
    }

    #[test]
    fn a_window_above_the_bound_is_refused() {
        let (_dir, modules) = modules();
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(limits::ZSTD_WINDOW_LOG_MAX + 1).unwrap();
        encoder.write_all(&vec![7; 20 << 20]).unwrap();
        let frame = encoder.finish().unwrap();
        assert!(matches!(
            modules.ingest(Packing::Zstd, &frame[..], MOST),
            Err(IngestError::NotZstd)
        ));
    }

    #[test]
    fn damage_is_noticed() {
        let (_dir, modules) = modules();
        let kept = modules.ingest(Packing::Plain, &b"one"[..], MOST).unwrap();
        let other = zstd::encode_all(&b"two"[..], 1).unwrap();
        let (sha256, path) = (kept.sha256, modules.path(kept.sha256));
        modules.keep(kept).unwrap();
        for damage in [&other[..], &b"rubbish"[..], &b""[..]] {
            fs::write(&path, damage).unwrap();
            assert_eq!(modules.unpack(sha256).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn row_15_what_is_no_file_is_a_damaged_module_which_an_upload_mends() {
        let (_dir, modules) = modules();
        let ingest = || modules.ingest(Packing::Plain, &b"one"[..], MOST).unwrap();
        let (sha256, elsewhere) = (ingest().sha256, modules.tmp.join("elsewhere"));
        let path = modules.path(sha256);
        fs::write(&elsewhere, "precious").unwrap();
        let plant: [fn(&Path, &Path); 4] = [
            |path, _| fs::create_dir_all(path.join("deep")).unwrap(),
            |path, _| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            |path, to| std::os::unix::fs::symlink(to, path).unwrap(),
            |path, to| fs::hard_link(to, path).unwrap(),
        ];
        for plant in plant {
            let _ = fs::remove_file(&path);
            plant(&path, &elsewhere);
            assert_eq!(modules.look(sha256).unwrap(), Condition::Damaged);
            assert!(modules.unpack(sha256).is_err());
            assert_eq!(modules.keep(ingest()).unwrap(), Kept::Mended);
            assert_eq!(modules.look(sha256).unwrap(), Condition::Whole);
            assert_eq!(fs::read(&elsewhere).unwrap(), b"precious");
        }
        fs::remove_file(&path).unwrap();
        plant[0](&path, &elsewhere);
        plant[1](&modules.dir.join("pipe"), &elsewhere);
        assert_eq!(modules.sweep(&HashSet::new()).unwrap(), 2);
    }

    #[test]
    fn a_sweep_takes_what_nothing_names() {
        let (_dir, modules) = modules();
        let one = modules.ingest(Packing::Plain, &b"one"[..], MOST).unwrap();
        let two = modules.ingest(Packing::Plain, &b"two"[..], MOST).unwrap();
        let named = HashSet::from([one.sha256]);
        modules.keep(one).unwrap();
        modules.keep(two).unwrap();
        assert_eq!(modules.sweep(&named).unwrap(), 1);
        assert_eq!(modules.sweep(&named).unwrap(), 0);
        assert_eq!(count(&modules), 1);
    }
}
