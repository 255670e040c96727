//! A backup back into an empty data directory, with no host on it; and what a host that serves
//! takes tenants out of ([`unpack`]).
//!
//! ```text
//! DATA/restoring/…  everything, checked against its digests and made durable
//!      └─► DATA/{modules, tenants, hearth.db}, and only then is DATA/restoring removed
//! ```
//!
//! What is in the file was said by nobody knows whom. Its store is made anew, row by row (`rebuild` of
//! the store), and of tenants' directories there is only what a backup keeps.
//!
//! While `restoring` is there no host starts on the directory, so that it is whole or it is
//! nothing, whatever ends this in its midst; the next restore removes what the last one left. What
//! goes wrong here leaves the directory as it was found. Artifacts and generations are made again
//! by the host, from the modules.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hearth_wire::{Code, ModuleDigest, SettingName, TenantName, TreePath};
use tar::{Builder, EntryType, Header};

use super::archive::{self, ArchiveError, LeftOut, Member, Whole};
use crate::durable;
use crate::fail::Point;
use crate::fault::{Fault, Verdict};
use crate::files;
use crate::generations::{MODULES, TENANTS, module_file};
use crate::keyfile;
use crate::lock::{self, Lock};
use crate::owner::{self, LOCK, LOST_AND_FOUND, RESTORING};
use crate::sealing::Key;
use crate::store::database::DatabaseError;
use crate::store::{self, Contents, StoreError};
use crate::terminal::complain;
use crate::tree::{TreeError, Trees, Unpacking};

/// What may be beside a restore that did not end.
const HALF: [&str; 7] =
    [RESTORING, MODULES, TENANTS, store::FILE, keyfile::FILE, LOCK, LOST_AND_FOUND];

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(
        "{} is not empty (it has {found:?}); restore into an empty directory, and start the host on that",
        data.display()
    )]
    NotEmpty { data: PathBuf, found: String },
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the backup's store could not be read")]
    Store(#[from] StoreError),
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    #[error("{} cannot be written", data.display())]
    Disk { data: PathBuf, source: io::Error },
    #[error("{0}")]
    InUse(String),
    #[error(
        "the key that was given does not open the backup's secrets ({tenant}: {name}); give the one of the host that made it, or leave --secrets-key out, and put the right key in its place before the host is started"
    )]
    Key { tenant: TenantName, name: SettingName },
}

impl Fault for RestoreError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::InUse(_) | Self::NotEmpty { .. } => Verdict::caller(Code::Conflict, self),
            Self::Disk { .. } | Self::Archive(ArchiveError::Taken(_)) => {
                let failed = "the backup could not be taken in; the host's log says why";
                Verdict::of_host(self, failed)
            }
            Self::Store(StoreError::Database(
                error @ (DatabaseError::Full(_) | DatabaseError::Disk(_)),
            )) => error.verdict(),
            Self::Archive(ArchiveError::Read(_)) => {
                Verdict::caller(Code::BadRequest, "the backup broke off on its way")
            }
            Self::Store(StoreError::Database(error @ DatabaseError::TooNew { .. })) => {
                Verdict::caller(Code::BadRequest, error)
            }
            Self::Archive(_) | Self::Damaged(_) | Self::Key { .. } => {
                Verdict::caller(Code::BadRequest, self)
            }
            Self::Store(_) => Verdict::caller(Code::BadRequest, "the backup's store is damaged"),
        }
    }
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    pub whole: Whole,
    pub tenants: usize,
}

/// Whether a restore began in this data directory and did not end.
pub fn is_unfinished(data: &Path) -> bool {
    fs::symlink_metadata(data.join(RESTORING)).is_ok()
}

/// Restores into a directory that is empty or not there, and whose files are then this user's.
/// With a key, the backup's secrets open, and the key is put beside the store.
pub fn restore(
    source: impl Read,
    data: &Path,
    trees: &Trees,
    key: Option<&Key>,
) -> Result<Restored, RestoreError> {
    let target = Target::claim(data)?;
    let restored = target.fill(source, trees, key).and_then(|restored| {
        target.put_in_place().map_err(|source| target.disk(source))?;
        Ok(restored)
    });
    if restored.is_err() {
        target.abandon();
    }
    restored
}

/// A data directory that is this process's alone.
struct Target<'a> {
    data: &'a Path,
    half: PathBuf,
    /// Whether the directory, and its lock, were made here.
    made: (bool, bool),
    _lock: Lock,
}

impl<'a> Target<'a> {
    fn claim(data: &'a Path) -> Result<Self, RestoreError> {
        let disk = |source| RestoreError::Disk { data: data.to_owned(), source };
        let made = !data.exists();
        fs::create_dir_all(data).map_err(disk)?;
        let made = (made, !data.join(LOCK).exists());
        let lock = lock::take(data).map_err(|error| RestoreError::InUse(error.to_string()))?;
        let target = Self { data, half: data.join(RESTORING), made, _lock: lock };
        // It was empty when that began, and no host has started on it since: what else is there is
        // somebody's.
        let is_half = is_unfinished(data) && beside_half(data).map_err(disk)?.is_none();
        if is_half {
            target.remove().map_err(disk)?;
        }
        if let Some(found) = owner::stranger(data).map_err(disk)? {
            let found = beside_half(data).map_err(disk)?.unwrap_or(found);
            target.let_go().map_err(disk)?;
            return Err(RestoreError::NotEmpty { data: data.to_owned(), found });
        }
        let begin = || {
            private_dir(&target.half)?;
            durable::sync_dir(data, Point::DataSync)
        };
        if let Err(source) = begin() {
            target.abandon();
            return Err(disk(source));
        }
        Ok(target)
    }

    fn disk(&self, source: io::Error) -> RestoreError {
        RestoreError::Disk { data: self.data.to_owned(), source }
    }

    fn fill(
        &self,
        source: impl Read,
        trees: &Trees,
        key: Option<&Key>,
    ) -> Result<Restored, RestoreError> {
        let (mut whole, contents) = unpack(source, &self.half, trees)?;
        if let Some(key) = key {
            store::sealed(&self.half.join(store::FILE), |tenant, name, sealed| {
                match key.open(tenant, name, sealed.by, &sealed.bytes) {
                    Ok(_) => Ok(()),
                    Err(_) => Err(RestoreError::Key { tenant: tenant.clone(), name: name.clone() }),
                }
            })?;
            let text = key.text();
            write_new(&self.half.join(keyfile::FILE), &mut text.as_bytes())
                .map_err(|source| self.disk(source))?;
            whole.left_out.retain(|left| !matches!(left, LeftOut::SecretsKey { .. }));
        }
        let tenants = contents.tenants.len();
        store::note_restore(&self.half.join(store::FILE), whole.head.made_at, tenants)?;
        Ok(Restored { whole, tenants })
    }

    /// Durable first, then in its place, and the mark that it is not whole goes last.
    fn put_in_place(&self) -> io::Result<()> {
        durable::sync_file_system(&self.half, Point::DataSync)?;
        for name in [MODULES, TENANTS, store::FILE] {
            durable::rename(&self.half.join(name), &self.data.join(name), Point::DataSync)?;
        }
        let key = self.half.join(keyfile::FILE);
        if key.exists() {
            durable::rename(&key, &self.data.join(keyfile::FILE), Point::DataSync)?;
        }
        durable::sync_dir(self.data, Point::DataSync)?;
        fs::remove_dir(&self.half)?;
        durable::sync_dir(self.data, Point::DataSync)
    }

    fn remove(&self) -> io::Result<()> {
        for name in [MODULES, TENANTS] {
            there(fs::remove_dir_all(self.data.join(name)))?;
        }
        // A key stays: somebody may have put it there.
        there(fs::remove_file(self.data.join(store::FILE)))?;
        there(fs::remove_dir_all(&self.half))
    }

    /// As it was before.
    fn abandon(&self) {
        if let Err(error) = self.remove().and_then(|()| self.let_go()) {
            complain(format_args!("{} could not be cleared: {error}", self.data.display()));
        }
    }

    fn let_go(&self) -> io::Result<()> {
        let (directory, lock) = self.made;
        if lock {
            fs::remove_file(self.data.join(LOCK))?;
        }
        if directory { fs::remove_dir(self.data) } else { Ok(()) }
    }
}

/// What no restore puts into a data directory.
fn beside_half(data: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(data)? {
        let found = entry?.file_name().to_string_lossy().into_owned();
        if !HALF.contains(&found.as_str()) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Puts what a backup holds into an empty directory, and tells what its store names. All of it
/// was checked then, and nothing is durable yet.
pub fn unpack(
    source: impl Read,
    half: &Path,
    trees: &Trees,
) -> Result<(Whole, Contents), RestoreError> {
    let disk = |source| RestoreError::Disk { data: half.to_owned(), source };
    for dir in [half.join(MODULES), half.join(TENANTS)] {
        private_dir(&dir).map_err(disk)?;
    }
    let (named, bundled) = (None, HashSet::new());
    let mut filling = Filling { half, trees, named, bundled, tree: None, refused: None };
    let read =
        archive::read(source, &mut |member, size, content| filling.take(member, size, content));
    let Filling { named, tree, refused, .. } = filling;
    if let Some(refused) = refused {
        return Err(refused);
    }
    let whole = read?;
    if let Some(tree) = tree {
        tree.finish().map_err(disk)?;
    }
    let (contents, put) = named.ok_or_else(|| damaged("it has no store"))?;
    let is_missing = |sha256: &&ModuleDigest| {
        !put.contains(*sha256) && !whole.left_out.contains(&LeftOut::Module(**sha256))
    };
    if let Some(sha256) = contents.modules.iter().find(is_missing) {
        return Err(damaged(format!("its store names the module {sha256}, which is not in it")));
    }
    Ok((whole, contents))
}

fn damaged(what: impl Into<String>) -> RestoreError {
    RestoreError::Damaged(what.into())
}

/// Where the members go as they come.
struct Filling<'a> {
    half: &'a Path,
    trees: &'a Trees,
    /// What the store names, and the modules that came: from the store on, which comes first.
    named: Option<(Contents, HashSet<ModuleDigest>)>,
    /// Modules of what came with an earlier build, which nothing names any more.
    bundled: HashSet<ModuleDigest>,
    tree: Option<Tree>,
    /// Why the reading was ended, where it was not the file's fault.
    refused: Option<RestoreError>,
}

impl Filling<'_> {
    fn take(&mut self, member: &Member, size: u64, content: &mut dyn Read) -> io::Result<()> {
        match member {
            Member::Database if self.named.is_none() => {
                let archived = self.half.join(store::ARCHIVED);
                write_new(&archived, content)?;
                let file = self.half.join(store::FILE);
                let rebuilt = store::rebuild(&archived, &file)
                    .and_then(|bundled| Ok((store::inspect(&file)?, bundled)));
                match rebuilt {
                    Ok((contents, bundled)) => {
                        self.named = Some((contents, Default::default()));
                        self.bundled = bundled;
                    }
                    Err(StoreError::Database(DatabaseError::Damaged(what))) => {
                        return self.refuse(damaged(format!("its store: {what}")));
                    }
                    Err(error) => return self.refuse(error.into()),
                }
                fs::remove_file(archived)
            }
            Member::Module(sha256) => match &mut self.named {
                Some((contents, put)) if contents.modules.contains(sha256) => {
                    put.insert(*sha256);
                    write_new(&self.half.join(MODULES).join(module_file(*sha256)), content)
                }
                // This build has its own.
                Some(_) if self.bundled.remove(sha256) => {
                    io::copy(content, &mut io::sink()).map(drop)
                }
                _ => self.refuse(damaged(format!("its store does not name {member}"))),
            },
            Member::Directory { tenant, path } | Member::File { tenant, path } => {
                let known =
                    self.named.as_ref().is_some_and(|(it, _)| it.tenants.contains_key(tenant));
                if !known {
                    return self.refuse(damaged(format!("its store does not name {member}")));
                }
                let is_file = matches!(member, Member::File { .. });
                self.tree(tenant)?.put(path, is_file.then_some(size), content)
            }
            Member::Database => self.refuse(damaged("it has two stores")),
        }
    }

    fn refuse(&mut self, why: RestoreError) -> io::Result<()> {
        self.refused = Some(why);
        Err(io::ErrorKind::InvalidData.into())
    }

    /// The tenant's directory, and its one process; that of the one before ends.
    fn tree(&mut self, tenant: &TenantName) -> io::Result<&mut Tree> {
        if self.tree.as_ref().is_none_or(|tree| tree.tenant != *tenant) {
            if let Some(before) = self.tree.take() {
                before.finish()?;
            }
            let directory = self.half.join(TENANTS).join(tenant.as_str());
            private_dir(&directory)?;
            let opened = files::dir(&directory)?;
            let unpacking = self.trees.unpack(&opened).map_err(io::Error::other)?;
            self.tree = Some(Tree { tenant: tenant.clone(), tar: Builder::new(unpacking) });
        }
        Ok(self.tree.as_mut().expect("it was just made"))
    }
}

/// One tenant's files on their way to where they are unpacked.
struct Tree {
    tenant: TenantName,
    tar: Builder<Unpacking>,
}

impl Tree {
    /// A file of this size, or a directory.
    fn put(
        &mut self,
        path: &TreePath,
        size: Option<u64>,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_path(path.as_str())?;
        header.set_entry_type(if size.is_some() {
            EntryType::Regular
        } else {
            EntryType::Directory
        });
        header.set_size(size.unwrap_or(0));
        header.set_mode(0o600);
        header.set_cksum();
        self.tar.append(&header, content)
    }

    fn finish(self) -> io::Result<()> {
        let told = |error: TreeError| io::Error::other(error);
        self.tar.into_inner()?.finish().map(drop).map_err(told)
    }
}

fn write_new(path: &Path, content: &mut dyn Read) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    io::copy(content, &mut file)?;
    file.flush()
}

fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
