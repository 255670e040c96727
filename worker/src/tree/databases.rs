//! The databases of a tenant's directory, for a backup: each is copied by SQLite in one read
//! transaction, so that it is as it was at one instant, whoever writes to it meanwhile.
//!
//! What SQLite looks at is strangers' bytes: everything else of the job is done before, and then the
//! process is sealed. A copy takes its room in the same directory, without a name, so that it is gone
//! with this process whatever ends that.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::{Context, ensure};
use hearth_jail::files;
use hearth_wire::{Databases, Unsound};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// Of somebody who does not give way to a reader, which no database of Hearth's own workers has.
const BUSY: std::time::Duration = std::time::Duration::from_secs(10);
/// Every page, in one step: one in several would begin again at each write.
const ALL: i32 = -1;

/// Of a database's file, in which it says by which versions of the format it is written and read: by
/// those that know no log. See the file format of SQLite, 1.3.3.
const HEADER_BYTES: u64 = 100;
const VERSIONS_AT: u64 = 18;
const VERSIONS: [u8; 2] = [1, 1];

/// Closes this process but for what SQLite does to files of the directory, none of which is then
/// larger than this when it is written to.
pub fn prepare(most: u64) -> anyhow::Result<()> {
    hearth_jail::seal_tree(most)?;
    // What one left behind that was ended between the two.
    discard();
    Ok(files::confine()?)
}

/// A copy of a database, from its first byte on, and how many it has.
pub struct Copied {
    pub file: File,
    pub bytes: u64,
    /// What SQLite finds wrong in it.
    pub damage: Option<String>,
}

/// Copies the database of this name.
pub fn copy(name: &str) -> anyhow::Result<Copied> {
    let source = open(name, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    source.busy_timeout(BUSY)?;
    // Its log stays as it is, for who comes next.
    source.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let file = files::open(Databases::COPY).context("there is no room for a copy")?;
    let make = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let opened = open(Databases::COPY, make);
    let opened = opened.and_then(|it| Ok((it, open(Databases::COPY, make)?)));
    // SQLite has opened it as this has, and nobody needs its name.
    discard();
    let (mut target, checker) = opened?;
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    let step = Backup::new(&source, &mut target)?.step(ALL)?;
    ensure!(step == StepResult::Done, "somebody else has it locked");
    drop((source, target));
    let damage = damage(&file, &checker)?;
    let bytes = files::bytes_of(&file)?;
    Ok(Copied { file, bytes, damage })
}

fn open(name: &str, flags: OpenFlags) -> anyhow::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    Ok(Connection::open_with_flags(name, flags)?)
}

/// What SQLite finds wrong in a copy. It has no log, and could have none without a name: so that none
/// is looked for, it says meanwhile that it is a database without one.
fn damage(file: &File, copy: &Connection) -> io::Result<Option<String>> {
    let mut versions = [0; VERSIONS.len()];
    let is_whole = files::bytes_of(file)? >= HEADER_BYTES;
    if is_whole {
        file.read_exact_at(&mut versions, VERSIONS_AT)?;
        file.write_all_at(&VERSIONS, VERSIONS_AT)?;
    }
    let checked = copy
        .execute_batch("PRAGMA temp_store = MEMORY")
        .and_then(|()| copy.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)));
    if is_whole {
        file.write_all_at(&versions, VERSIONS_AT)?;
    }
    Ok(match checked {
        Ok(sound) if sound == "ok" => None,
        Ok(damage) => Some(damage),
        Err(error) => Some(error.to_string()),
    })
}

fn discard() {
    // None is there, or the next copy says why it cannot be made.
    let _ = files::remove(Databases::COPY);
}

/// Of a file that was no database when SQLite came to it, or not any more a whole one.
pub fn unsound(name: &str, what: &str) -> Unsound {
    let mut reason = what.to_owned();
    reason.truncate(reason.floor_char_boundary(Unsound::REASON_MAX_BYTES));
    Unsound { name: name.to_owned(), reason }
}
