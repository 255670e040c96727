//! The file that a backup is: a tar, compressed with zstd, of
//!
//! ```text
//! backup.json                      the format, who made it and when: always the first
//! hearth.db                        tenants, tokens, functions, versions, generations
//! modules/<sha256>.wasm.zst        each module that these name
//! tenants/<tenant>/{logs,state}/…  what of a tenant's directory cannot be made again
//! manifest.json                    size and SHA-256 of each file before it: always the last
//! ```
//!
//! Nothing in it depends on an engine or on this machine. [`read`] believes nothing that it reads:
//! an entry that is none of these, or is not what the manifest says, ends it with an error, and so
//! does a file that ends early. Where the contents come from and go to is others' business.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};

use hearth_wire::{ModuleDigest, TenantName, TreePath, json, limits};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use crate::generations::KEPT;

/// Raised when an older Hearth could not read it any more.
const FORMAT: u32 = 1;
const HEAD: &str = "backup.json";
const MANIFEST: &str = "manifest.json";
const DATABASE: &str = "hearth.db";
const MODULES: &str = "modules/";
const MODULE_SUFFIX: &str = ".wasm.zst";
const TENANTS: &str = "tenants/";
/// With which each of zstd's frames begins.
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Fast; modules, which are most of it, are packed already.
const LEVEL: i32 = 3;

const HEAD_MAX_BYTES: u64 = 64 << 10;
const VERSION_MAX_BYTES: usize = 64;
/// What ten thousand tenants with all their journals come to, several times.
const MANIFEST_MAX_BYTES: u64 = 256 << 20;
const MEMBERS_MAX: usize = 1_000_000;
const DATABASE_MAX_BYTES: u64 = 64 << 30;
/// Even where it could not be packed smaller than it is.
const MODULE_MAX_BYTES: u64 = limits::MODULE_MAX_BYTES + (1 << 20);
/// As large as the largest `disk_bytes`.
const FILE_MAX_BYTES: u64 = 1 << 40;
/// What may stand behind a tar's end: zeros up to a whole record, with room.
const PADDING_MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("this is not a backup of Hearth")]
    Foreign,
    #[error(
        "this backup has the format {found}, and this version of hearth reads {FORMAT}: use the version that made it ({hearth})"
    )]
    Format { found: u32, hearth: String },
    #[error("the backup is incomplete: the transfer was cut off")]
    Cut,
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    #[error("the backup has an unknown entry {0:?}")]
    Stranger(String),
    #[error("the backup has {name} with {size} bytes, and it may have {most}")]
    TooLarge { name: String, size: u64, most: u64 },
    #[error("the backup cannot be read")]
    Read(#[source] io::Error),
    /// Whoever takes the contents could not.
    #[error("the contents of the backup could not be written")]
    Taken(#[source] io::Error),
}

/// What a backup holds besides its own two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    Database,
    Module(ModuleDigest),
    Directory { tenant: TenantName, path: TreePath },
    File { tenant: TenantName, path: TreePath },
}

impl Member {
    fn parse(name: &str, kind: EntryType) -> Option<Self> {
        if let Some(rest) = name.strip_prefix(TENANTS) {
            let (tenant, path) = rest.split_once('/')?;
            let tenant = tenant.parse().ok()?;
            let path: TreePath = path.trim_end_matches('/').parse().ok()?;
            // What workers start from is never taken from a backup.
            path.names().next().filter(|part| KEPT.contains(part))?;
            return match kind {
                EntryType::Directory => Some(Self::Directory { tenant, path }),
                EntryType::Regular => Some(Self::File { tenant, path }),
                _ => None,
            };
        }
        match (kind, name.strip_prefix(MODULES)) {
            (EntryType::Regular, None) if name == DATABASE => Some(Self::Database),
            (EntryType::Regular, Some(module)) => {
                Some(Self::Module(module.strip_suffix(MODULE_SUFFIX)?.parse().ok()?))
            }
            _ => None,
        }
    }

    fn most_bytes(&self) -> u64 {
        match self {
            Self::Database => DATABASE_MAX_BYTES,
            Self::Module(_) => MODULE_MAX_BYTES,
            Self::Directory { .. } => 0,
            Self::File { .. } => FILE_MAX_BYTES,
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database => f.write_str(DATABASE),
            Self::Module(sha256) => write!(f, "{MODULES}{sha256}{MODULE_SUFFIX}"),
            Self::Directory { tenant, path } | Self::File { tenant, path } => {
                write!(f, "{TENANTS}{tenant}/{path}")
            }
        }
    }
}

/// The first file. A reader of another format understands at least this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    format: u32,
    /// The version that made it.
    pub hearth: String,
    pub made_at: Timestamp,
}

/// Something that is missing in a backup that is whole all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// It was not on the disk.
    Module(ModuleDigest),
    /// Of a tenant's directory: links, devices, names that no file of Hearth's has.
    Files { tenant: TenantName, files: u64 },
    /// The key that opens so many secrets, which are in it sealed.
    SecretsKey { secrets: u64 },
    /// One of a tenant's databases is damaged: the reason says whether it is in the backup as it is.
    Database { tenant: TenantName, name: String, reason: String },
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(sha256) => {
                write!(
                    f,
                    "the module {sha256} was not on the host's disk, and is not in the backup"
                )
            }
            Self::Files { tenant, files } => write!(
                f,
                "{files} files of the tenant {tenant} are links, devices or oddly named, and are not in the backup"
            ),
            Self::SecretsKey { secrets } => write!(
                f,
                "secrets in the backup: {secrets}, as they are sealed; the key that opens them is not in it: keep the host's secrets.key (or the file of its --secrets-key) as well, apart from the backup, and restore with --secrets-key FILE"
            ),
            Self::Database { tenant, name, reason } => write!(
                f,
                "the database {} of the tenant {tenant} could not be backed up soundly: {}",
                name.escape_debug(),
                reason.escape_debug()
            ),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    size: u64,
    sha256: ModuleDigest,
}

/// The last file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    members: BTreeMap<String, Sum>,
    left_out: Vec<LeftOut>,
}

/// Writes a backup, one member after the other.
pub struct Writer<W: Write> {
    tar: Builder<zstd::Encoder<'static, W>>,
    made_at: Timestamp,
    manifest: Manifest,
}

impl<W: Write> Writer<W> {
    pub fn begin(out: W) -> io::Result<Self> {
        let mut packer = zstd::Encoder::new(out, LEVEL)?;
        packer.include_checksum(true)?;
        let mut writer = Self {
            tar: Builder::new(packer),
            made_at: Timestamp::now(),
            manifest: Manifest::default(),
        };
        let hearth = env!("CARGO_PKG_VERSION").to_owned();
        writer.json(HEAD, &Head { format: FORMAT, hearth, made_at: writer.made_at })?;
        Ok(writer)
    }

    /// A file of exactly this size.
    pub fn file(&mut self, member: &Member, size: u64, content: impl Read) -> io::Result<()> {
        let name = member.to_string();
        let mut content = Hashed::new(content.take(size));
        self.tar.append(&self.header(&name, EntryType::Regular, size)?, &mut content)?;
        if content.bytes != size {
            return Err(io::Error::other(format!("{name} became shorter while it was read")));
        }
        self.manifest.members.insert(name, content.sum());
        Ok(())
    }

    pub fn directory(&mut self, member: &Member) -> io::Result<()> {
        let header = self.header(&member.to_string(), EntryType::Directory, 0)?;
        self.tar.append(&header, io::empty())
    }

    pub fn leave_out(&mut self, left_out: LeftOut) {
        self.manifest.left_out.push(left_out);
    }

    pub fn finish(mut self) -> io::Result<W> {
        let manifest = std::mem::take(&mut self.manifest);
        self.json(MANIFEST, &manifest)?;
        self.tar.into_inner()?.finish()
    }

    fn json(&mut self, name: &str, content: &impl Serialize) -> io::Result<()> {
        let json = serde_json::to_vec(content)?;
        let header = self.header(name, EntryType::Regular, json.len() as u64)?;
        self.tar.append(&header, json.as_slice())
    }

    fn header(&self, name: &str, kind: EntryType, size: u64) -> io::Result<Header> {
        let mut header = Header::new_ustar();
        header.set_path(name)?;
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o700 } else { 0o600 });
        header.set_mtime(self.made_at.as_second().unsigned_abs());
        header.set_size(size);
        header.set_cksum();
        Ok(header)
    }
}

/// What a backup held that was read to its end and found whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    pub head: Head,
    pub modules: u64,
    pub left_out: Vec<LeftOut>,
}

/// Takes what is in one member.
pub type Take<'a> = dyn FnMut(&Member, u64, &mut dyn Read) -> io::Result<()> + 'a;

/// Reads a backup to its end, and gives out each member as it comes. Only when all of it was read
/// is it known to be whole, so nothing of it may be put to use before.
pub fn read(mut source: impl Read, take: &mut Take<'_>) -> Result<Whole, ArchiveError> {
    let mut begin = Vec::new();
    source.by_ref().take(ZSTD.len() as u64).read_to_end(&mut begin).map_err(unreadable)?;
    if begin != ZSTD {
        return Err(ArchiveError::Foreign);
    }
    let unpacked = zstd::Decoder::new(ZSTD.chain(source)).and_then(|mut unpacked| {
        unpacked.window_log_max(limits::ZSTD_WINDOW_LOG_MAX)?;
        Ok(unpacked)
    });
    let mut archive = Archive::new(unpacked.map_err(ArchiveError::Read)?);
    let (head, found, manifest) = members(&mut archive, take)?;
    let mut rest = archive.into_inner().take(PADDING_MAX_BYTES);
    let mut buffer = [0; 8 << 10];
    let mut padding = 0;
    loop {
        match rest.read(&mut buffer).map_err(unreadable)? {
            0 if padding < PADDING_MAX_BYTES => break,
            got if buffer[..got].iter().all(|byte| *byte == 0) && got > 0 => padding += got as u64,
            _ => return Err(ArchiveError::Damaged("something stands behind its end".to_owned())),
        }
    }
    for (name, sum) in &manifest.members {
        match found.get(name) {
            Some(found) if found == sum => {}
            Some(_) => return Err(ArchiveError::Damaged(format!("{name} is another file"))),
            None => return Err(ArchiveError::Damaged(format!("{name} is missing"))),
        }
    }
    if let Some(name) = found.keys().find(|name| !manifest.members.contains_key(*name)) {
        return Err(ArchiveError::Damaged(format!("{name} is not in its manifest")));
    }
    let modules = found.keys().filter(|name| name.starts_with(MODULES)).count() as u64;
    Ok(Whole { head, modules, left_out: manifest.left_out })
}

type Found = BTreeMap<String, Sum>;

fn members(
    archive: &mut Archive<impl Read>,
    take: &mut Take<'_>,
) -> Result<(Head, Found, Manifest), ArchiveError> {
    // Raw: of the extensions that tar has, this knows none.
    let entries = archive.entries().map_err(ArchiveError::Read)?.raw(true);
    let mut head = None;
    let mut found = Found::new();
    let mut manifest = None;
    for entry in entries {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => return Err(unreadable(error)),
        };
        let kind = entry.header().entry_type();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let size = entry.size();
        if head.is_none() {
            if (name.as_str(), kind) != (HEAD, EntryType::Regular) {
                return Err(ArchiveError::Foreign);
            }
            head = Some(read_head(&mut entry, size)?);
            continue;
        }
        if manifest.is_some() {
            return Err(ArchiveError::Stranger(name));
        }
        if (name.as_str(), kind) == (MANIFEST, EntryType::Regular) {
            let json = small(&name, &mut entry, size, MANIFEST_MAX_BYTES)?;
            let parsed = serde_json::from_slice(&json);
            manifest = Some(parsed.map_err(|error| {
                ArchiveError::Damaged(format!("its manifest does not parse: {error}"))
            })?);
            continue;
        }
        let Some(member) = Member::parse(&name, kind) else {
            return Err(ArchiveError::Stranger(name));
        };
        let most = member.most_bytes();
        if size > most {
            return Err(ArchiveError::TooLarge { name, size, most });
        }
        let mut content = Hashed::new(&mut entry);
        let taken = take(&member, size, &mut content);
        // What was not wanted counts, too.
        let rest = io::copy(&mut content, &mut io::sink());
        if let Some(error) = content.failed.take() {
            return Err(unreadable(error));
        }
        taken.map_err(ArchiveError::Taken)?;
        rest.map_err(unreadable)?;
        if content.bytes != size {
            return Err(ArchiveError::Cut);
        }
        if !matches!(member, Member::Directory { .. })
            && found.insert(name.clone(), content.sum()).is_some()
        {
            return Err(ArchiveError::Damaged(format!("it has {name} twice")));
        }
        if found.len() > MEMBERS_MAX {
            return Err(ArchiveError::Damaged(format!("it has more than {MEMBERS_MAX} files")));
        }
    }
    match (head, manifest) {
        (Some(head), Some(manifest)) => Ok((head, found, manifest)),
        (Some(_), None) => Err(ArchiveError::Cut),
        (None, _) => Err(ArchiveError::Foreign),
    }
}

fn read_head(entry: &mut impl Read, size: u64) -> Result<Head, ArchiveError> {
    let json = small(HEAD, entry, size, HEAD_MAX_BYTES)?;
    let head: Head = json::from_slice(&json).map_err(|_| ArchiveError::Foreign)?;
    if !is_version(&head.hearth) {
        return Err(ArchiveError::Foreign);
    }
    match head.format {
        FORMAT => Ok(head),
        found => Err(ArchiveError::Format { found, hearth: head.hearth }),
    }
}

/// As versions are written everywhere, in this format and in those to come.
fn is_version(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+-".contains(&byte);
    (1..=VERSION_MAX_BYTES).contains(&text.len()) && text.bytes().all(plain)
}

fn small(name: &str, entry: &mut impl Read, size: u64, most: u64) -> Result<Vec<u8>, ArchiveError> {
    if size > most {
        return Err(ArchiveError::TooLarge { name: name.to_owned(), size, most });
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err(ArchiveError::Cut) }
}

/// What the file system says about itself has a number; all else was said by a decoder.
fn unreadable(error: io::Error) -> ArchiveError {
    match error.kind() {
        _ if error.raw_os_error().is_some() => ArchiveError::Read(error),
        io::ErrorKind::UnexpectedEof => ArchiveError::Cut,
        io::ErrorKind::TimedOut => ArchiveError::Read(error),
        _ => ArchiveError::Damaged(error.to_string()),
    }
}

/// Counts and hashes what passes, and remembers whether reading itself failed.
struct Hashed<R> {
    inner: R,
    hasher: Sha256,
    bytes: u64,
    failed: Option<io::Error>,
}

impl<R> Hashed<R> {
    fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new(), bytes: 0, failed: None }
    }

    fn sum(self) -> Sum {
        Sum { size: self.bytes, sha256: ModuleDigest::new(self.hasher.finalize().into()) }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(got) => {
                self.hasher.update(&buffer[..got]);
                self.bytes += got as u64;
                Ok(got)
            }
            Err(error) => {
                let told = io::Error::from(error.kind());
                self.failed = Some(error);
                Err(told)
            }
        }
    }
}
