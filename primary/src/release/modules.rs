//! What was uploaded, content-addressed: `modules/<sha256>.wasm.zst`, written once, never changed.
//!
//! Bytes are counted, hashed and packed here, and never interpreted. All of it blocks.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use hearth_wire::{ModuleDigest, limits};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

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

pub struct Modules {
    dir: PathBuf,
    /// On the same file system as `dir`.
    tmp: PathBuf,
}

impl Modules {
    pub fn new(dir: PathBuf, tmp: PathBuf) -> Self {
        Self { dir, tmp }
    }

    fn path(&self, sha256: ModuleDigest) -> PathBuf {
        self.dir.join(file_name(sha256))
    }

    /// Gives a kept module a second name, in a directory where no sweep comes by.
    pub fn link(&self, sha256: ModuleDigest, dir: &Path) -> io::Result<()> {
        fs::hard_link(self.path(sha256), dir.join(file_name(sha256)))
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
    pub fn keep(&self, arrived: Arrived) -> io::Result<()> {
        let path = self.path(arrived.sha256);
        arrived.packed.as_file().sync_all()?;
        match arrived.packed.persist_noclobber(&path) {
            Ok(_) => sync_dir(&self.dir),
            // The same bytes are kept already: the name is their digest.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error.error),
        }
    }

    /// Unpacks a kept module, and checks that it still is what its name says.
    pub fn unpack(&self, sha256: ModuleDigest) -> io::Result<File> {
        let arrived = match self.ingest(
            Packing::Zstd,
            File::open(self.path(sha256))?,
            limits::MODULE_MAX_BYTES,
        ) {
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
                fs::remove_file(self.dir.join(name))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Under which a module is kept.
pub fn file_name(sha256: ModuleDigest) -> String {
    format!("{sha256}{SUFFIX}")
}

fn damaged(sha256: ModuleDigest) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the module {sha256} is damaged on disk"))
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
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

    fn files(modules: &Modules) -> usize {
        let count = |dir: &Path| fs::read_dir(dir).unwrap().count();
        count(&modules.dir) + count(&modules.tmp)
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
        assert_eq!(files(&modules), 1);
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
        assert_eq!(files(&modules), 0);
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
    fn a_sweep_takes_what_nothing_names() {
        let (_dir, modules) = modules();
        let one = modules.ingest(Packing::Plain, &b"one"[..], MOST).unwrap();
        let two = modules.ingest(Packing::Plain, &b"two"[..], MOST).unwrap();
        let named = HashSet::from([one.sha256]);
        modules.keep(one).unwrap();
        modules.keep(two).unwrap();
        assert_eq!(modules.sweep(&named).unwrap(), 1);
        assert_eq!(modules.sweep(&named).unwrap(), 0);
        assert_eq!(files(&modules), 1);
    }
}
