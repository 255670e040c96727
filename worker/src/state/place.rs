//! Where a tenant's state is: its directory, the files in it by their names, and how much they may
//! take together. Opens nothing of SQLite's.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use hearth_jail::files;
use hearth_wire::Limits;

/// However large the limit is.
const NUMBERS_LOOKED_AT: u32 = 64;

/// The directory.
#[derive(Debug, Clone)]
pub enum Place {
    /// Behind the seal, by the descriptor that a worker is born with.
    Sealed,
    #[cfg(test)]
    Directory(PathBuf),
}

impl Place {
    /// Before anything of SQLite's is opened there.
    pub fn begin(&self) -> io::Result<()> {
        match self {
            Self::Sealed => files::confine().map_err(io::Error::other),
            #[cfg(test)]
            Self::Directory(_) => Ok(()),
        }
    }

    /// As SQLite is given it.
    pub fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Sealed => PathBuf::from(name),
            #[cfg(test)]
            Self::Directory(directory) => directory.join(name),
        }
    }

    /// Opens a file that is not SQLite's, made where it is not there.
    pub fn open(&self, name: &str) -> io::Result<File> {
        match self {
            Self::Sealed => files::open(name),
            #[cfg(test)]
            Self::Directory(directory) => {
                let mut options = File::options();
                options.read(true).write(true).create(true).truncate(false);
                options.open(directory.join(name))
            }
        }
    }

    /// How long a file is; 0 where there is none. It is not opened for that, since to close it again
    /// would give up the locks that SQLite has of it.
    pub fn bytes(&self, name: &str) -> io::Result<u64> {
        match self {
            Self::Sealed => files::bytes(name),
            #[cfg(test)]
            Self::Directory(directory) => match directory.join(name).metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
                found => Ok(found?.len()),
            },
        }
    }
}

/// What a tenant may have of state.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Databases and their WALs together.
    pub bytes: u64,
    pub stores: u64,
    pub databases: u64,
}

impl Share {
    /// With nothing else on the tenant's disk.
    pub fn of(limits: &Limits) -> Self {
        let Limits { disk_bytes, stores, databases, .. } = *limits;
        Self { bytes: disk_bytes, stores, databases }
    }

    /// Numbers that databases may have, of which not each has a file yet.
    pub fn numbered(self) -> u32 {
        u32::try_from(self.databases).unwrap_or(u32::MAX).min(NUMBERS_LOOKED_AT)
    }
}

/// One file of SQLite's, with its WAL beside it. Its name says nothing of the tenant's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DatabaseFile {
    /// All key-value stores.
    Stores,
    /// Which database has which number. Apart from the stores, so that a damaged one of the two takes
    /// nothing of the other.
    Catalogue,
    /// A database of the tenant's, by its number from 1.
    Numbered(u32),
}

impl DatabaseFile {
    pub fn name(self) -> String {
        match self {
            Self::Stores => "kv.db".to_owned(),
            Self::Catalogue => "names.db".to_owned(),
            Self::Numbered(number) => format!("{number}.db"),
        }
    }

    /// Its WAL's.
    pub fn wal(self) -> String {
        self.name() + "-wal"
    }

    /// As an error calls it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Stores => "the file of the key-value stores",
            Self::Catalogue => "the list of the databases",
            Self::Numbered(_) => "the database",
        }
    }
}
