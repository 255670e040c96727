//! A disk that loses its power: what of a directory is still there if everything goes that was not
//! synced, or if chance decides of each thing that was not.
//!
//! What a file held when it was synced last is durable, and which names a directory had when it
//! was; nothing else is, as POSIX has it. A real file system keeps more.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::traffic::Choices;

/// What a disk writes at once.
const SECTOR: usize = 512;
/// What processes share in memory, for all that it looks like a file.
const IN_MEMORY: &str = "-shm";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    File(u64),
    Directory(u64),
}

type Names = BTreeMap<OsString, Node>;

/// Files and directories by their inodes.
#[derive(Clone)]
pub struct Disk {
    root: PathBuf,
    top: u64,
    files: BTreeMap<u64, Arc<[u8]>>,
    directories: BTreeMap<u64, Names>,
}

impl Disk {
    /// With everything as it is now.
    pub fn of(root: &Path) -> io::Result<Self> {
        let top = fs::metadata(root)?.ino();
        let (files, directories) = (BTreeMap::new(), BTreeMap::new());
        let mut disk = Self { root: root.to_owned(), top, files, directories };
        let mut paths = vec![root.to_owned()];
        while let Some(path) = paths.pop() {
            let Some(entries) = disk.keep(&path)? else { continue };
            paths.extend(entries.keys().map(|name| path.join(name)));
        }
        Ok(disk)
    }

    /// Keeps what is at this path now: a file's bytes, or a directory's names. What is elsewhere, or
    /// gone by now, is nothing to it.
    pub fn sync(&mut self, path: &Path) -> io::Result<()> {
        if path.starts_with(&self.root) {
            self.keep(path)?;
        }
        Ok(())
    }

    fn keep(&mut self, path: &Path) -> io::Result<Option<&Names>> {
        let Some(meta) = there(fs::symlink_metadata(path))? else { return Ok(None) };
        if meta.is_file() {
            let Some(bytes) = there(fs::read(path))? else { return Ok(None) };
            self.files.insert(meta.ino(), bytes.into());
            return Ok(None);
        }
        let mut names = Names::new();
        let Some(entries) = there(fs::read_dir(path))? else { return Ok(None) };
        for entry in entries {
            let entry = entry?;
            let Some(meta) = there(entry.metadata())? else { continue };
            let node =
                if meta.is_dir() { Node::Directory(meta.ino()) } else { Node::File(meta.ino()) };
            names.insert(entry.file_name(), node);
        }
        self.directories.insert(meta.ino(), names);
        Ok(self.directories.get(&meta.ino()))
    }

    /// What may be found where the power failed on the way from this, all that is durable, to
    /// `live`: each name and each sector in between is written or not.
    pub fn torn(&self, live: &Self, chance: &mut Choices) -> Self {
        let mut torn = self.clone();
        for (inode, names) in &live.directories {
            let durable = torn.directories.entry(*inode).or_default();
            let all: Vec<OsString> = names.keys().chain(durable.keys()).cloned().collect();
            for name in all.into_iter().filter(|_| chance.below(2) == 0) {
                match names.get(&name) {
                    Some(node) => durable.insert(name, *node),
                    None => durable.remove(&name),
                };
            }
        }
        for (inode, bytes) in &live.files {
            let durable = torn.files.entry(*inode).or_default();
            if durable == bytes {
                continue;
            }
            let mut mixed = durable.to_vec();
            mixed.resize(if chance.below(2) == 0 { bytes.len() } else { mixed.len() }, 0);
            for (written, sector) in mixed.chunks_mut(SECTOR).zip(bytes.chunks(SECTOR)) {
                if written.len() <= sector.len() && chance.below(2) == 0 {
                    written.copy_from_slice(&sector[..written.len()]);
                }
            }
            *durable = mixed.into();
        }
        torn
    }

    /// Puts it where it can be looked at, in a directory that is not there yet.
    pub fn write(&self, to: &Path) -> io::Result<()> {
        self.write_directory(self.top, to)
    }

    fn write_directory(&self, inode: u64, to: &Path) -> io::Result<()> {
        fs::create_dir(to)?;
        for (name, node) in self.directories.get(&inode).into_iter().flatten() {
            match node {
                Node::Directory(inode) => self.write_directory(*inode, &to.join(name))?,
                Node::File(_) if name.as_encoded_bytes().ends_with(IN_MEMORY.as_bytes()) => {}
                // One that was named and never synced is there, and empty.
                Node::File(inode) => {
                    let bytes = self.files.get(inode).map_or(&[][..], |bytes| bytes);
                    fs::write(to.join(name), bytes)?;
                }
            }
        }
        Ok(())
    }
}

fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
