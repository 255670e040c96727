//! What was uploaded, content-addressed: `modules/<sha256>.wasm.zst`, written once, never changed.
//!
//! Bytes are counted, hashed and packed here, and never interpreted. A disk may change them all the
//! same: whether a module still is what its name says is looked at here, and what follows if it is
//! not is `generations`'. All of it blocks, but for a [`Spool`], into which a file of an upload comes
//! at its sender's pace: nothing of it is unpacked before it is whole.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;
use hearth_wire::{Code, ModuleDigest, limits};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::pins::Sweep;
use super::room::{NoRoom, Reservation, Room};
use crate::durable;
use crate::fail::{self, Point};
use crate::fault::{Fault, Verdict};
use crate::files;

/// How modules are packed on disk: fast, and within a few percent of the best for code.
const LEVEL: i32 = 3;
const SUFFIX: &str = ".wasm.zst";
const BUFFER: usize = 64 << 10;
/// Into how many times its bytes a file may unpack, and how much it may in any case. Code packs
/// into a third or a fifth; what packs into a hundredth is made for it.
const UNPACKS_MAX: u64 = 100;
const UNPACKS_ALWAYS: u64 = 8 << 20;

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
    #[error("the file unpacks into more than {UNPACKS_MAX} times its bytes, which no module does")]
    TooDense,
    #[error(
        "the file is named .wasm.zst, but it is not a zstd frame, or its window is above 8 MiB"
    )]
    NotZstd,
    #[error("the file is empty")]
    Empty,
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("the module could not be stored")]
    Disk(#[source] io::Error),
}

impl Fault for IngestError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::TooLarge(_) | Self::TooDense => Verdict::caller(Code::TooLarge, self),
            Self::NotZstd | Self::Empty => Verdict::caller(Code::InvalidModule, self),
            Self::NoRoom(error) => error.verdict(),
            Self::Disk(_) => Verdict::of_host(self, "the host could not store the module"),
        }
    }
}

/// A file of an upload, as it comes.
pub struct Spool {
    file: tokio::fs::File,
    bytes: u64,
    room: Reservation,
}

impl Spool {
    pub async fn write(&mut self, chunk: &[u8]) -> Result<(), IngestError> {
        self.bytes += chunk.len() as u64;
        self.room.reach(self.bytes)?;
        fail::step(Point::SpoolWrite).map_err(IngestError::Disk)?;
        self.file.write_all(chunk).await.map_err(IngestError::Disk)
    }

    /// It came whole.
    pub async fn finish(mut self) -> Result<Spooled, IngestError> {
        self.file.flush().await.map_err(IngestError::Disk)?;
        let file = self.file.into_std().await;
        Ok(Spooled { file, bytes: self.bytes, room: self.room })
    }
}

/// A file of an upload, as it was sent. Has no name on the disk.
pub struct Spooled {
    file: File,
    bytes: u64,
    room: Reservation,
}

/// A module that has arrived and is not kept yet; without [`Modules::keep`] it leaves nothing.
pub struct Arrived {
    pub sha256: ModuleDigest,
    /// Bytes unpacked, and as kept.
    pub size: u64,
    pub stored: u64,
    /// The unpacked module, at its start. Has no name.
    pub raw: File,
    packed: NamedTempFile,
    /// Of an upload's; the host's own has none.
    _raw_room: Option<Reservation>,
    /// To be held until what is packed is the tenant's, or nobody's.
    pub packed_room: Option<Reservation>,
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

    /// For a file that is about to come.
    pub fn spool(&self, room: &Arc<Room>) -> Result<Spool, IngestError> {
        fail::step(Point::SpoolCreate).map_err(IngestError::Disk)?;
        let file = tempfile::tempfile_in(&self.tmp).map_err(IngestError::Disk)?;
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(BUFFER);
        Ok(Spool { file, bytes: 0, room: room.reservation() })
    }

    /// Takes a file in that came with an upload: at most so many bytes of a module.
    pub fn take_in(
        &self,
        packing: Packing,
        spooled: Spooled,
        most: u64,
        room: &Arc<Room>,
    ) -> Result<Arrived, IngestError> {
        let Spooled { mut file, bytes, room: came } = spooled;
        file.rewind().map_err(IngestError::Disk)?;
        let mut plain = file.try_clone().map_err(IngestError::Disk)?;
        match packing {
            // What came is the module.
            Packing::Plain => {
                let taken = Taken { raw: Raw::There(file, came), packed: Some(room.reservation()) };
                self.take(&mut plain, most, taken).map_err(|taking| match taking {
                    Taking::Source(error) => IngestError::Disk(error),
                    taking => taking.of(most),
                })
            }
            Packing::Zstd => {
                let allowed = UNPACKS_ALWAYS.max(bytes.saturating_mul(UNPACKS_MAX));
                let raw = Raw::New(Some(room.reservation()));
                let taken = Taken { raw, packed: Some(room.reservation()) };
                match self.unpack_from(plain, most.min(allowed), taken) {
                    Err(IngestError::TooLarge(_)) if allowed < most => Err(IngestError::TooDense),
                    arrived => arrived,
                }
            }
        }
    }

    /// Takes a packed module of the host's own in.
    pub fn ingest(&self, packed: impl Read, most: u64) -> Result<Arrived, IngestError> {
        self.unpack_from(packed, most, Taken { raw: Raw::New(None), packed: None })
    }

    fn unpack_from(
        &self,
        packed: impl Read,
        most: u64,
        taken: Taken,
    ) -> Result<Arrived, IngestError> {
        let mut packed = Marked { inner: packed, failed: false };
        let decoder = zstd::Decoder::new(&mut packed).and_then(|mut decoder| {
            decoder.window_log_max(limits::ZSTD_WINDOW_LOG_MAX)?;
            Ok(decoder)
        });
        let decoder = decoder.map_err(Taking::Source);
        decoder.and_then(|decoder| self.take(decoder, most, taken)).map_err(|taking| match taking {
            Taking::Source(error) if packed.failed => IngestError::Disk(error),
            taking => taking.of(most),
        })
    }

    fn take(&self, mut module: impl Read, most: u64, mut taken: Taken) -> Result<Arrived, Taking> {
        fail::step(Point::ModuleCreate).map_err(Taking::Disk)?;
        let mut plain = match &taken.raw {
            Raw::There(..) => None,
            Raw::New(_) => {
                let raw = tempfile::tempfile_in(&self.tmp).map_err(Taking::Disk)?;
                Some(BufWriter::new(raw))
            }
        };
        let packed = NamedTempFile::new_in(&self.tmp).map_err(Taking::Disk)?;
        let written = Counted { inner: packed.as_file(), bytes: 0 };
        let mut packer = zstd::Encoder::new(written, LEVEL).map_err(Taking::Disk)?;
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
            if let Some(plain) = &mut plain {
                if let Raw::New(Some(room)) = &mut taken.raw {
                    room.reach(size)?;
                }
                plain.write_all(&buffer[..got]).map_err(Taking::Disk)?;
            }
            packer.write_all(&buffer[..got]).map_err(Taking::Disk)?;
            if let Some(room) = &mut taken.packed {
                room.reach(packer.get_ref().bytes)?;
            }
        }
        if size == 0 {
            return Err(Taking::Empty);
        }
        let stored = packer.finish().map_err(Taking::Disk)?.bytes;
        if let Some(room) = &mut taken.packed {
            room.reach(stored)?;
        }
        let (mut raw, raw_room) = match (taken.raw, plain) {
            (Raw::There(raw, room), _) => (raw, Some(room)),
            (Raw::New(room), Some(plain)) => {
                let raw = plain.into_inner().map_err(|error| Taking::Disk(error.into_error()))?;
                (raw, room)
            }
            (Raw::New(_), None) => unreachable!("a new one was made above"),
        };
        raw.rewind().map_err(Taking::Disk)?;
        let sha256 = ModuleDigest::new(hasher.finalize().into());
        let (_raw_room, packed_room) = (raw_room, taken.packed);
        Ok(Arrived { sha256, size, stored, raw, packed, _raw_room, packed_room })
    }

    /// Makes a module durable under its name, before any metadata may name it.
    pub fn keep(&self, arrived: Arrived) -> io::Result<Kept> {
        let Arrived { sha256, packed, .. } = arrived;
        let path = self.path(sha256);
        // Where it is there, too: from how long it takes nobody is to see that another has it.
        durable::sync(packed.as_file(), Point::ModuleSync)?;
        let _alone = self.placing.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = match (path.try_exists()?, self.found(sha256)) {
            (true, Some(Condition::Whole) | None) => Kept::Already,
            (true, Some(Condition::Damaged)) | (false, Some(_)) => Kept::Mended,
            (false, None) => Kept::New,
        };
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
        let arrived = match self.ingest(kept, limits::MODULE_MAX_BYTES) {
            Ok(arrived) => arrived,
            Err(IngestError::Disk(error)) => return Err(error),
            Err(_) => return Err(damaged(sha256)),
        };
        if arrived.sha256 == sha256 { Ok(arrived.raw) } else { Err(damaged(sha256)) }
    }

    /// Removes those modules that nothing names.
    pub fn sweep(&self, named: &HashSet<ModuleDigest>, sweep: &Sweep) -> io::Result<u64> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let path = self.dir.join(&name);
            let remove = || swept(&path, Point::ModuleRemove).then_some(()).ok_or(());
            let sha256 = name
                .to_str()
                .and_then(|name| name.strip_suffix(SUFFIX))
                .and_then(|digest| digest.parse().ok());
            removed += match sha256 {
                Some(sha256) if named.contains(&sha256) => 0,
                Some(sha256) => u64::from(sweep.remove(sha256, remove).unwrap_or(false)),
                None => u64::from(remove().is_ok()),
            };
        }
        self.found.retain(|sha256, _| named.contains(sha256));
        Ok(removed)
    }

    /// Removes one that nothing names.
    pub fn remove(&self, sha256: ModuleDigest, sweep: &Sweep) -> io::Result<()> {
        let path = self.path(sha256);
        let removed = sweep.remove(sha256, || match fs::symlink_metadata(&path) {
            Ok(_) => durable::remove_dir(&path, Point::ModuleRemove),
            Err(_) => Ok(()),
        })?;
        if removed {
            self.found.remove(&sha256);
        }
        Ok(())
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
    NoRoom(NoRoom),
    Source(io::Error),
    Disk(io::Error),
}

impl From<NoRoom> for Taking {
    fn from(error: NoRoom) -> Self {
        Self::NoRoom(error)
    }
}

impl Taking {
    /// Where the source can be read, and is not what it should be.
    fn of(self, most: u64) -> IngestError {
        match self {
            Self::TooLarge => IngestError::TooLarge(most),
            Self::Empty => IngestError::Empty,
            Self::NoRoom(error) => IngestError::NoRoom(error),
            Self::Disk(error) => IngestError::Disk(error),
            Self::Source(_) => IngestError::NotZstd,
        }
    }
}

/// Where the room for a module is from; the host's own need none.
struct Taken {
    raw: Raw,
    packed: Option<Reservation>,
}

enum Raw {
    /// The module is on the disk already.
    There(File, Reservation),
    New(Option<Reservation>),
}

struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
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
mod tests;
