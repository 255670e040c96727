//! A backup of a host that serves: everything that cannot be made again, as one stream.
//!
//! ```text
//! store ── copy ──► DATA/tmp/…/hearth.db ──┐
//! modules ── links ► DATA/tmp/…/<sha256> ──┼─► archive.rs ──► whoever asked
//! tenants' directories ── hearth-worker tree ┘
//! ```
//!
//! The store comes first, and names all the rest; what it names is held in a directory of the
//! backup's own, so that a slow reader keeps no sweep from its work and an upload, a rollback or a
//! removal meanwhile changes nothing. A tenant that is removed meanwhile has its rows in the
//! backup, and no files. What goes back is `restore.rs`'s; who may ask is the API's to say.

pub mod archive;
pub mod restore;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use hearth_wire::{Code, Databases, ModuleDigest, TenantName, TreeDone, TreePath, Unsound};
use http_body_util::BodyExt;
use tar::{Archive, EntryType};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::actor::Author;
use crate::durable;
use crate::fail::Point;
use crate::fair::Fair;
use crate::fault::{Fault, Verdict};
use crate::files;
use crate::generations::{GenerationError, Generations, KEPT, STATE, module_file};
use crate::isolation::Level;
use crate::patience::{blocking, within};
use crate::store::{self, Contents, Store, StoreError, Tenant, TenantId};
use crate::tree::{TreeError, Trees};
use archive::{LeftOut, Member, Writer};
use restore::RestoreError;

/// What is sent in one piece, and pieces that wait for their reader.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS: usize = 4;
/// Backups of one tenant each, of all tenants together.
const TENANTS_AT_ONCE: usize = 4;
/// A reader that takes nothing for this long has gone.
const STALLED: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("a backup is being made already; there is one at a time")]
    Busy,
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("a file of the data directory could not be read or written")]
    Disk(#[from] io::Error),
    #[error("the modules could not be read")]
    Generation(#[from] GenerationError),
    #[error("the files of the tenant {tenant} could not be read")]
    Tree { tenant: TenantName, source: TreeError },
    #[error("the backup could not be passed on")]
    Write(#[source] io::Error),
}

impl Fault for BackupError {
    fn verdict(&self) -> Verdict {
        let failed = "the backup could not be made; the host's log says why";
        match self {
            Self::Busy => Verdict::caller(Code::Conflict, self),
            Self::Store(error) => error.verdict(),
            Self::Generation(error) => error.verdict().within(failed),
            Self::Disk(_) | Self::Tree { .. } | Self::Write(_) => Verdict::of_host(self, failed),
        }
    }
}

#[derive(Clone)]
pub struct Backups {
    store: Store,
    generations: Generations,
    trees: Trees,
    isolation: Level,
    /// Cancelled when the host goes down, which waits for no backup.
    stop: CancellationToken,
    alone: Arc<Semaphore>,
    /// Of one tenant each.
    of_tenants: Fair<TenantId>,
}

/// A backup on its way. It is whole only if it ends without an error.
pub type Stream = mpsc::Receiver<io::Result<Bytes>>;

/// The store at one instant, and links to all modules that it names.
struct Snapshot {
    directory: TempDir,
    contents: Contents,
    missing: Vec<ModuleDigest>,
    /// What each tenant may have on the disk.
    disk_bytes: HashMap<TenantName, u64>,
}

/// A backup that was taken in and found whole. It goes with its handle.
pub struct Staged {
    pub directory: TempDir,
    pub contents: Contents,
    _alone: OwnedSemaphorePermit,
}

impl Backups {
    pub fn new(
        store: Store,
        generations: Generations,
        trees: Trees,
        isolation: Level,
        stop: CancellationToken,
    ) -> Self {
        let alone = Arc::new(Semaphore::new(1));
        let of_tenants = Fair::new(TENANTS_AT_ONCE, 1);
        Self { store, generations, trees, isolation, stop, alone, of_tenants }
    }

    /// Of the whole host.
    pub async fn begin(&self, by: &Author) -> Result<Stream, BackupError> {
        let alone = self.alone.clone().try_acquire_owned().map_err(|_| BackupError::Busy)?;
        self.send(None, alone, by).await
    }

    /// Of one tenant alone, when it is its turn: nothing of another's is in it, nor of the host's.
    pub async fn begin_one(&self, tenant: &Tenant, by: &Author) -> Result<Stream, BackupError> {
        let turn = self.of_tenants.turn(tenant.id).await;
        self.send(Some(&tenant.name), turn, by).await
    }

    async fn send<P: Send + 'static>(
        &self,
        only: Option<&TenantName>,
        place: P,
        by: &Author,
    ) -> Result<Stream, BackupError> {
        let snapshot = self.snapshot(only).await?;
        let (chunks, stream) = mpsc::channel(CHUNKS);
        let runtime = Handle::current();
        let sending = Sending {
            chunks: chunks.clone(),
            pending: Vec::with_capacity(CHUNK_BYTES),
            stop: self.stop.clone(),
            runtime: runtime.clone(),
        };
        let (making, by) = (self.clone(), by.clone());
        info!(%by, tenants = snapshot.contents.tenants.len(), "backup begins");
        tokio::task::spawn_blocking(move || {
            // Given back at its end, whoever waits for it.
            let _place = place;
            let outcome = match making.write(snapshot, sending) {
                Ok(bytes) => {
                    info!(%by, bytes, "backup made");
                    "done"
                }
                Err(error) => {
                    error!(%by, error = &error as &dyn std::error::Error, "backup failed");
                    // The stream breaks off, which its reader cannot take for its end.
                    let broken = chunks.send(Err(io::Error::other("the backup failed")));
                    let _ = runtime.block_on(tokio::time::timeout(STALLED, broken));
                    "failed"
                }
            };
            metrics::counter!("hearth_backups_total", "outcome" => outcome).increment(1);
        });
        Ok(stream)
    }

    /// Takes a backup in, checks it from its first byte to its last, and leaves it beside what
    /// serves, where [`crate::provision`] finds tenants to take over.
    pub async fn stage(&self, mut body: Body) -> Result<Staged, RestoreError> {
        let busy = || RestoreError::InUse("another backup or restore is on its way".to_owned());
        let alone = self.alone.clone().try_acquire_owned().map_err(|_| busy())?;
        let (chunks, arriving) = mpsc::channel(CHUNKS);
        let feeding = async {
            while let Some(frame) = next_frame(&mut body, &self.stop).await {
                let chunk = frame.map(|frame| frame.into_data().unwrap_or_default());
                let last = chunk.is_err();
                if chunks.send(chunk).await.is_err() || last {
                    break;
                }
            }
            drop(chunks);
        };
        let (generations, trees) = (self.generations.clone(), self.trees.clone());
        let staging = blocking(move || {
            let disk = |source| RestoreError::Disk { data: "the data directory".into(), source };
            let directory = generations.scratch().map_err(disk)?;
            let (_, contents) = restore::unpack(Chunks::new(arriving), directory.path(), &trees)?;
            durable::sync_file_system(directory.path(), Point::DataSync).map_err(disk)?;
            Ok(Staged { directory, contents, _alone: alone })
        });
        let ((), staged) = tokio::join!(feeding, staging);
        staged
    }

    async fn snapshot(&self, only: Option<&TenantName>) -> Result<Snapshot, BackupError> {
        let directory = self.generations.scratch()?;
        // No sweep between the copy and the links.
        let _arriving = self.generations.arriving().await;
        let contents = self.store.snapshot(directory.path(), only).await?;
        let missing = self.generations.link_modules(&contents.modules, directory.path()).await?;
        let tenants = self.store.tenants().await?.into_iter();
        let disk_bytes = tenants.map(|it| (it.name.clone(), it.limits().disk_bytes)).collect();
        Ok(Snapshot { directory, contents, missing, disk_bytes })
    }

    /// How many bytes it had.
    fn write(&self, snapshot: Snapshot, sending: Sending) -> Result<u64, BackupError> {
        let Snapshot { directory, contents, missing, disk_bytes } = snapshot;
        let mut counted = Counted { inner: sending, bytes: 0 };
        let mut archive = Writer::begin(&mut counted).map_err(BackupError::Write)?;
        let mut put = |member: &Member, file: File| -> Result<(), BackupError> {
            let size = file.metadata()?.len();
            archive.file(member, size, file).map_err(BackupError::Write)
        };
        put(&Member::Database, files::open(&directory.path().join(store::FILE))?)?;
        for sha256 in &contents.modules {
            if !missing.contains(sha256) {
                let file = directory.path().join(module_file(*sha256));
                put(&Member::Module(*sha256), files::open(&file)?)?;
                // Its own name is enough again, and the sweep may have that.
                std::fs::remove_file(file)?;
            }
        }
        for sha256 in missing {
            warn!(%sha256, "a module is not on disk, and not in the backup");
            archive.leave_out(LeftOut::Module(sha256));
        }
        match contents.secrets.values().sum::<u64>() {
            0 => {}
            secrets => archive.leave_out(LeftOut::SecretsKey { secrets }),
        }
        for tenant in contents.tenants.into_keys() {
            let mut left_out = 0_u64;
            // Of one that was removed meanwhile there is nothing either.
            let most_bytes = disk_bytes.get(&tenant).copied().unwrap_or(0);
            for part in KEPT {
                let left = match self.generations.kept(&tenant, part) {
                    Ok(Some(directory)) => {
                        let done =
                            self.tree(&tenant, &directory, part, most_bytes, &mut archive)?;
                        tell_of_unsound(&tenant, done.unsound, &mut archive);
                        done.left_out
                    }
                    Ok(None) => 0,
                    // One tenant's directory that is none is no reason for having no backup.
                    Err(error) => {
                        warn!(%tenant, part, error = &error as &dyn std::error::Error, "not read");
                        1
                    }
                };
                left_out = left_out.saturating_add(left);
            }
            if left_out > 0 {
                warn!(%tenant, files = left_out, "files are not in the backup");
                archive.leave_out(LeftOut::Files { tenant, files: left_out });
            }
        }
        archive.finish().and_then(Write::flush).map_err(BackupError::Write)?;
        Ok(counted.bytes)
    }

    /// A part of one tenant's directory, whose databases come to so many bytes each at most.
    fn tree(
        &self,
        tenant: &TenantName,
        directory: &OwnedFd,
        part: &str,
        most_bytes: u64,
        archive: &mut Writer<impl Write>,
    ) -> Result<TreeDone, BackupError> {
        let failed = |source| BackupError::Tree { tenant: tenant.clone(), source };
        let name: TreePath = part.parse().expect("it is a plain name");
        let databases = match (part == STATE, self.isolation > Level::D) {
            // A worker may have them open.
            (true, true) => Databases::Copied { most_bytes },
            _ => Databases::Files,
        };
        let packing = self.trees.pack(directory, Some(name), databases).map_err(failed)?;
        let mut tree = Archive::new(packing);
        let packed = tree_members(tenant, &mut tree, archive);
        // Where its stream broke off, it knows why.
        let done = tree.into_inner().finish().map_err(failed);
        match packed {
            Err(BackupError::Write(error)) => Err(BackupError::Write(error)),
            packed => done.and_then(|done| packed.map(|()| done)),
        }
    }
}

/// What the other side says of itself is bounded here.
fn tell_of_unsound(tenant: &TenantName, unsound: Vec<Unsound>, archive: &mut Writer<impl Write>) {
    for Unsound { mut name, mut reason } in unsound.into_iter().take(Unsound::MOST) {
        name.truncate(name.floor_char_boundary(TreePath::BYTES_MAX));
        reason.truncate(reason.floor_char_boundary(Unsound::REASON_MAX_BYTES));
        warn!(%tenant, database = ?name, ?reason, "a tenant's database could not be backed up soundly");
        archive.leave_out(LeftOut::Database { tenant: tenant.clone(), name, reason });
    }
}

/// The next piece of a body, from a sender who may not fall silent.
async fn next_frame(
    body: &mut Body,
    stop: &CancellationToken,
) -> Option<io::Result<http_body::Frame<Bytes>>> {
    let frame = tokio::select! {
        frame = within(STALLED, body.frame()) => frame,
        () = stop.cancelled() => return Some(Err(io::ErrorKind::UnexpectedEof.into())),
    };
    match frame {
        Ok(Some(Ok(frame))) => Some(Ok(frame)),
        Ok(None) => None,
        Ok(Some(Err(_))) | Err(_) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// What a tenant's directory holds, under the tenant's name. The other side is taken for hostile.
fn tree_members(
    tenant: &TenantName,
    tree: &mut Archive<impl Read>,
    archive: &mut Writer<impl Write>,
) -> Result<(), BackupError> {
    let failed = |reason: String| BackupError::Tree {
        tenant: tenant.clone(),
        source: TreeError::Failed(reason),
    };
    for entry in tree.entries()?.raw(true) {
        let entry = entry.map_err(|error| failed(error.to_string()))?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path.trim_end_matches('/').parse();
        let path = path.map_err(|_| failed("the name of a file is not valid".to_owned()))?;
        let (tenant, size) = (tenant.clone(), entry.size());
        match entry.header().entry_type() {
            EntryType::Directory => archive.directory(&Member::Directory { tenant, path }),
            EntryType::Regular => archive.file(&Member::File { tenant, path }, size, entry),
            kind => return Err(failed(format!("{path} is {kind:?}"))),
        }
        .map_err(BackupError::Write)?;
    }
    Ok(())
}

/// The writing thread's end of a stream.
struct Sending {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    pending: Vec<u8>,
    stop: CancellationToken,
    runtime: Handle,
}

impl Sending {
    fn send(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.pending, Vec::with_capacity(CHUNK_BYTES));
        let sent = async {
            tokio::select! {
                sent = within(STALLED, self.chunks.send(Ok(chunk.into()))) => sent,
                () = self.stop.cancelled() => Ok(Err(mpsc::error::SendError(Ok(Bytes::new())))),
            }
        };
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES - self.pending.len();
        let taken = bytes.len().min(room);
        self.pending.extend_from_slice(&bytes[..taken]);
        if self.pending.len() == CHUNK_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() { Ok(()) } else { self.send() }
    }
}

struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wrote = self.inner.write(bytes)?;
        self.bytes += wrote as u64;
        Ok(wrote)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A body's chunks as a blocking reader, of which there is one at a time.
struct Chunks {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Chunks {
    fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { receiver, current: Bytes::new() }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let taken = self.current.split_to(buffer.len().min(self.current.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}
