//! `hearth-worker tree`: one job in one tenant's directory, done as whoever it belongs to and by
//! nobody with more rights: its files are packed for a backup, unpacked from one, counted, or
//! removed.
//!
//! Whatever lies in the directory may have been put there by hostile code, and may change while
//! it is looked at. So it is only ever reached from its descriptor, one plain name after the
//! other, no link is followed, and nothing but regular files with one name and directories, all on
//! one file system, is taken for a tenant's own. What their owner forbade itself to read is read
//! all the same, as an owner may. Which job, as whom, and what becomes of the files, is the
//! primary's to say.

mod databases;

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, bail, ensure};
use hearth_wire::limits::PADDING_MAX_BYTES;
use hearth_wire::{
    Databases, TreeDone, TreeJob, TreePath, TreeReply, TreeRequest, Unsound, VERSION,
};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, chmod, fchmod, fstat, mkdirat, openat, renameat,
    statat, unlinkat,
};
use rustix::io::Errno;
use tar::{Archive, Builder, EntryType, Header};

use databases::Copied;

/// Directories within each other that are open at the same time: a tenant's own have
/// [`TreePath`]'s depth.
const DEPTH_MAX: usize = 24;
/// Files and directories of one tenant.
const FILES_MAX: u64 = 1_000_000;
/// What `st_blocks` counts in, whatever the file system's own block is.
const BLOCK_BYTES: u64 = 512;
const BUFFER: usize = 64 << 10;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const PRIVATE_DIR: Mode = Mode::RWXU;
/// A name is looked at before it is opened; that it is the same file is checked behind that.
const LOOK: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

pub fn run() -> anyhow::Result<()> {
    let control = hearth_jail::take_stdin().context("standard input is not a control socket")?;
    // Never closed but by the process's end: its filter trusts the number.
    let control = ManuallyDrop::new(control);
    let received = hearth_wire::recv::<TreeRequest>(&*control)?;
    let Some((request, fds)) = received else { return Ok(()) };
    let reply = match perform(request, fds) {
        Ok(done) => TreeReply::Done(done),
        Err(error) => TreeReply::Failed { reason: format!("{error:#}") },
    };
    Ok(hearth_wire::send(&*control, &reply, &[])?)
}

fn perform(request: TreeRequest, mut fds: Vec<OwnedFd>) -> anyhow::Result<TreeDone> {
    let TreeRequest { version, uid, job } = request;
    ensure!(version == VERSION, "hearth-worker speaks version {VERSION}, and hearth {version}");
    let others = "the request came with other descriptors than it needs";
    hearth_jail::fence_tree(uid, fds.first().context(others)?.as_fd())?;
    let pipe = (fds.len() == 2).then(|| fds.remove(1)).map(File::from);
    let (Some(directory), true) = (fds.pop(), fds.is_empty()) else {
        bail!("{others}");
    };
    // The same holds for the directory, at the number of a state's.
    let directory = ManuallyDrop::new(directory);
    match (job, pipe) {
        (TreeJob::Pack { name, databases }, Some(pipe)) => {
            pack(&directory, name.as_ref(), databases, pipe)
        }
        (TreeJob::Unpack, Some(pipe)) => unpack(&directory, pipe),
        (TreeJob::Remove, None) => {
            let root = open_root(&directory)?;
            let mut remover =
                Remover { root: root.as_fd(), moved: 0, removed: TreeDone::default() };
            remover.empty(root.as_fd(), 0)?;
            Ok(remover.removed)
        }
        (TreeJob::Measure, None) => {
            let mut measured = TreeDone::default();
            measure(open_root(&directory)?.as_fd(), 0, &mut measured)?;
            Ok(measured)
        }
        _ => bail!("{others}"),
    }
}

fn pack(
    directory: &OwnedFd,
    name: Option<&TreePath>,
    databases: Databases,
    pipe: File,
) -> anyhow::Result<TreeDone> {
    let tar = Builder::new(BufWriter::with_capacity(BUFFER, pipe));
    let root = open_root(directory)?;
    let stat = fstat(&root)?;
    let copied = match databases {
        Databases::Files => None,
        Databases::Copied { .. } => Some(Vec::new()),
    };
    let mut packer = Packer { tar, device: stat.st_dev, copied, done: TreeDone::default() };
    packer.directory(root, &stat, name, Place::Root)?;
    if let (Databases::Copied { most_bytes }, Some(found)) = (databases, packer.copied.take()) {
        ensure!(directory.as_raw_fd() == hearth_jail::files::STATE, "the directory came second");
        packer.databases(found, most_bytes)?;
    }
    packer.tar.into_inner()?.flush().context("the pipe broke")?;
    Ok(packer.done)
}

/// Where in the directory of the request something is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Below,
}

/// A file that is a database by its name.
struct Found {
    name: String,
    path: TreePath,
    stat: Stat,
}

struct Packer {
    tar: Builder<BufWriter<File>>,
    /// Another one is another file system, mounted where no tenant's is.
    device: u64,
    /// What of the files right in the directory is to be copied as databases, where that is asked for.
    copied: Option<Vec<Found>>,
    done: TreeDone,
}

impl Packer {
    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &TreePath,
        place: Place,
    ) -> anyhow::Result<()> {
        let plain = path.names().next_back().unwrap_or_default();
        let copied = self.copied.as_mut().filter(|_| place == Place::Root);
        if copied.is_some() && Databases::is_beside(plain) {
            return Ok(());
        }
        let Some(seen) = there(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW))? else {
            return Ok(());
        };
        let kind = FileType::from_raw_mode(seen.st_mode);
        let own = match kind {
            FileType::Directory => seen.st_dev == self.device,
            FileType::RegularFile => seen.st_dev == self.device && seen.st_nlink == 1,
            _ => false,
        };
        if !own || self.done.files >= FILES_MAX {
            self.done.left_out += 1;
            return Ok(());
        }
        if let Some(copied) = copied
            && kind == FileType::RegularFile
            && Databases::is_one(plain)
        {
            copied.push(Found { name: plain.to_owned(), path: path.clone(), stat: seen });
            return Ok(());
        }
        let found = match kind {
            FileType::Directory => open_dir(dir, name),
            _ => open_own(dir, name, LOOK),
        };
        let Some(found) = there(found).with_context(|| format!("{path} cannot be read"))? else {
            return Ok(());
        };
        let stat = fstat(&found)?;
        if !same(&seen, &stat) {
            self.done.left_out += 1;
            return Ok(());
        }
        match kind {
            FileType::Directory => self.directory(found, &stat, Some(path), Place::Below),
            _ => self.file(found, &stat, path),
        }
    }

    fn directory(
        &mut self,
        dir: OwnedFd,
        stat: &Stat,
        path: Option<&TreePath>,
        place: Place,
    ) -> anyhow::Result<()> {
        if let Some(path) = path {
            self.tar.append(&header(EntryType::Directory, 0, stat, path)?, io::empty())?;
            self.done.files += 1;
        }
        let below = |name: &str| match path {
            Some(path) => path.join(name),
            None => name.parse(),
        };
        let mut entries = Dir::read_from(&dir)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match name.to_str().ok().and_then(|name| below(name).ok()) {
                Some(path) => self.entry(dir.as_fd(), name, &path, place)?,
                None => self.done.left_out += 1,
            }
        }
        Ok(())
    }

    /// Last of all, since this process is sealed for it. One that cannot be copied keeps no other from
    /// it.
    fn databases(&mut self, found: Vec<Found>, most_bytes: u64) -> anyhow::Result<()> {
        // What it takes by now it may take, be its tenant's limit lower meanwhile.
        let taken = found.iter().map(|it| u64::try_from(it.stat.st_blocks).unwrap_or(0));
        let taken = taken.sum::<u64>().saturating_mul(BLOCK_BYTES);
        databases::prepare(most_bytes.max(taken))?;
        for Found { name, path, mut stat } in found {
            let reason = match databases::copy(&name) {
                Ok(Copied { file, bytes, damage }) => {
                    stat.st_size = i64::try_from(bytes)?;
                    self.file(file.into(), &stat, &path)?;
                    damage.map(|damage| {
                        format!("it is damaged, and in the backup as it is: {damage}")
                    })
                }
                Err(error) => Some(format!("it is not in the backup: {error:#}")),
            };
            match reason {
                Some(reason) if self.done.unsound.len() < Unsound::MOST => {
                    self.done.unsound.push(databases::unsound(&name, &reason));
                }
                Some(_) => self.done.left_out += 1,
                None => {}
            }
        }
        Ok(())
    }

    /// Exactly as long as the header says, though the file may grow or shrink meanwhile.
    fn file(&mut self, file: OwnedFd, stat: &Stat, path: &TreePath) -> anyhow::Result<()> {
        let size = u64::try_from(stat.st_size)?;
        let content = File::from(file).take(size).chain(io::repeat(0)).take(size);
        let header = header(EntryType::Regular, size, stat, path)?;
        self.tar.append(&header, content).with_context(|| format!("{path} cannot be packed"))?;
        self.done.files += 1;
        self.done.bytes += size;
        Ok(())
    }
}

fn header(kind: EntryType, size: u64, stat: &Stat, path: &TreePath) -> anyhow::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(path.as_str())?;
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o700 } else { 0o600 });
    header.set_size(size);
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_cksum();
    Ok(header)
}

fn unpack(directory: &OwnedFd, pipe: File) -> anyhow::Result<TreeDone> {
    let mut done = TreeDone::default();
    let mut archive = Archive::new(BufReader::with_capacity(BUFFER, pipe));
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        ensure!(done.files < FILES_MAX, "there are more than {FILES_MAX} files");
        let path = entry.path_bytes();
        let path = std::str::from_utf8(&path)?.trim_end_matches('/').parse::<TreePath>()?;
        let (parent, name) = parent(directory, &path).with_context(|| format!("{path}"))?;
        match entry.header().entry_type() {
            EntryType::Directory => mkdirat(&parent, name, PRIVATE_DIR)
                .with_context(|| format!("{path} cannot be made"))?,
            EntryType::Regular => {
                let new = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = openat(&parent, name, new, PRIVATE_FILE);
                let mut file = File::from(file.with_context(|| format!("{path} cannot be made"))?);
                let wrote = io::copy(&mut entry, &mut file);
                let wrote = wrote.with_context(|| format!("{path} cannot be written"))?;
                ensure!(wrote == entry.size(), "{path} ends early");
                done.bytes += wrote;
            }
            kind => bail!("{path} is neither a file nor a directory but {kind:?}"),
        }
        done.files += 1;
    }
    // The end is of several blocks, and the other side may still be writing them.
    io::copy(&mut archive.into_inner().take(PADDING_MAX_BYTES), &mut io::sink())?;
    Ok(done)
}

/// The directory that a path's last name is in, which was unpacked before it, and that name.
fn parent<'a>(directory: &OwnedFd, path: &'a TreePath) -> io::Result<(OwnedFd, &'a str)> {
    let mut names = path.names();
    let last = names.next_back().expect("a path has a name");
    let mut at = directory.try_clone()?;
    for name in names {
        at = openat(&at, name, LOOK | OFlags::DIRECTORY, Mode::empty())?;
    }
    Ok((at, last))
}

struct Remover<'a> {
    root: BorrowedFd<'a>,
    /// Directories that were too deep, and got another place.
    moved: u64,
    removed: TreeDone,
}

impl Remover<'_> {
    /// Until nothing is found: what is removed while a directory is read may hide something else.
    fn empty(&mut self, dir: BorrowedFd<'_>, depth: usize) -> anyhow::Result<()> {
        loop {
            let before = (self.removed.files, self.moved);
            let mut entries = Dir::read_from(dir)?;
            while let Some(entry) = entries.read() {
                let entry = entry?;
                let name = entry.file_name();
                if !matches!(name.to_bytes(), b"." | b"..") {
                    self.entry(dir, name, depth)?;
                }
            }
            if (self.removed.files, self.moved) == before {
                return Ok(());
            }
        }
    }

    /// A link is removed, and what it leads to stays.
    fn entry(&mut self, dir: BorrowedFd<'_>, name: &CStr, depth: usize) -> anyhow::Result<()> {
        let named = || format!("{} cannot be removed", name.to_string_lossy().escape_debug());
        let seen = there(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW));
        let Some(seen) = seen.with_context(named)? else { return Ok(()) };
        let removed = if FileType::from_raw_mode(seen.st_mode) == FileType::Directory {
            if depth + 1 >= DEPTH_MAX {
                // Found again at the root, from where it is not as deep.
                let place = format!("deep {}", self.moved);
                self.moved += 1;
                there(renameat(dir, name, self.root, place)).with_context(named)?;
                return Ok(());
            }
            let inner = open_dir(dir, name);
            let Some(inner) = there(inner).with_context(named)? else { return Ok(()) };
            self.empty(inner.as_fd(), depth + 1)?;
            unlinkat(dir, name, AtFlags::REMOVEDIR)
        } else {
            unlinkat(dir, name, AtFlags::empty())
        };
        if there(removed).with_context(named)?.is_some() {
            self.removed.files += 1;
            self.removed.bytes += u64::try_from(seen.st_size).unwrap_or(0);
        }
        Ok(())
    }
}

/// Adds what the files and directories below take of the disk, once for each of their names.
fn measure(dir: BorrowedFd<'_>, depth: usize, sum: &mut TreeDone) -> anyhow::Result<()> {
    ensure!(depth < DEPTH_MAX, "there are more than {DEPTH_MAX} directories in each other");
    let mut entries = Dir::read_from(dir)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        ensure!(sum.files < FILES_MAX, "there are more than {FILES_MAX} files");
        let Some(seen) = there(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW))? else { continue };
        sum.files += 1;
        sum.bytes += u64::try_from(seen.st_blocks).unwrap_or(0) * BLOCK_BYTES;
        if FileType::from_raw_mode(seen.st_mode) == FileType::Directory
            && let Some(inner) = there(open_dir(dir, name))?
        {
            measure(inner.as_fd(), depth + 1, sum)?;
        }
    }
    Ok(())
}

/// The directory of the request, which came as a place and not opened.
fn open_root(directory: &OwnedFd) -> io::Result<OwnedFd> {
    if let Err(Errno::ACCESS) = statat(directory, c".", AtFlags::empty()) {
        permit(directory.as_fd())?;
    }
    Ok(open_dir(directory.as_fd(), c".")?)
}

/// Opened so that what is in it can be read and removed.
fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let opened = open_own(dir, name, LOOK | OFlags::DIRECTORY)?;
    if !Mode::from_raw_mode(fstat(&opened)?.st_mode).contains(PRIVATE_DIR) {
        fchmod(&opened, PRIVATE_DIR)?;
    }
    Ok(opened)
}

fn open_own(dir: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    match openat(dir, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let place = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            permit(openat(dir, name, place, Mode::empty())?.as_fd())?;
            openat(dir, name, flags, Mode::empty())
        }
        opened => opened,
    }
}

/// Gives the owner back what it took from itself: of this very file, whatever its name leads to.
fn permit(place: BorrowedFd<'_>) -> Result<(), Errno> {
    chmod(format!("/proc/self/fd/{}", place.as_raw_fd()), PRIVATE_DIR)
}

fn same(one: &Stat, other: &Stat) -> bool {
    let is = |it: &Stat| (it.st_dev, it.st_ino, FileType::from_raw_mode(it.st_mode));
    is(one) == is(other)
}

/// What went away meanwhile is nothing.
fn there<T>(found: Result<T, Errno>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
