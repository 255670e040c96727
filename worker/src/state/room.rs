//! How much room there is for what is written next. Pure, but for [`measure`].
//!
//! ```text
//!  share of the tenant
//!  ├── the other databases with their WALs ──┤── this one's pages ──┤── kept for WALs ──┤
//!                                                       max_page_count ┘
//! ```
//!
//! A database never grows into what is kept for WALs, so that what is deleted, which is written there
//! as well, always has its place. A WAL is emptied into its database once it is long, after the
//! replies.

use std::io;

use super::place::{DatabaseFile, Place};

/// A WAL that is longer than this is emptied, where the share is not small.
const WAL_BYTES: u64 = 4 << 20;
/// Of a small share it is this part.
const WAL_PART: u64 = 16;
const WAL_LEAST: u64 = 64 << 10;
/// What a WAL may come to before nobody waits for its readers any more, in WALs that are long.
const WALS_KEPT: u64 = 2;

/// What a page, and its frame in a WAL, have besides what is kept.
const PAGE_HEAD: u64 = 4;
const FRAME_HEAD: u64 = 24;
/// Of growth that is left.
const TIGHT_BYTES: u64 = 4 << 20;
const TREES: u64 = 6;
/// As SQLite counts them.
const PAGES_MAX: u64 = u32::MAX as u64 - 1;

/// What is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Of all other databases, with their WALs.
    pub others: u64,
    /// Of this one. What of it is in the WAL alone does not count.
    pub file: u64,
    pub wal: u64,
}

/// What one database may still take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Its pages at the most.
    pub pages: u64,
    /// What may be written at once.
    pub bytes: u64,
}

impl Room {
    /// As SQLite is told. It never takes it for less than there is.
    pub fn max_page_count(self) -> i64 {
        i64::try_from(self.pages.clamp(1, PAGES_MAX)).unwrap_or(i64::MAX)
    }
}

/// From when on a WAL is emptied.
pub fn wal_is_long(share: u64) -> u64 {
    (share / WAL_PART).clamp(WAL_LEAST, WAL_BYTES)
}

/// From when on it is emptied even if readers have to be waited for.
pub fn wal_is_too_long(share: u64) -> u64 {
    WALS_KEPT * wal_is_long(share)
}

/// What so many bytes that are written come to in a WAL, at the most, where they are of one entry:
/// pages of their own, and some of the trees that lead to them.
pub fn in_wal(bytes: u64, page_bytes: u64) -> u64 {
    match bytes {
        // What makes room has its place in any case.
        0 => 0,
        bytes => (bytes / (page_bytes - PAGE_HEAD) + TREES) * (page_bytes + FRAME_HEAD),
    }
}

pub fn room(share: u64, found: Found, page_bytes: u64) -> Room {
    let Found { others, file, wal } = found;
    let free = share.saturating_sub(others);
    let pages = free.saturating_sub(wal_is_too_long(share)) / page_bytes;
    Room { pages, bytes: free.saturating_sub(file).saturating_sub(wal) }
}

/// Whether it may be that what is written next does not fit: what a statement of SQL will write is not
/// known.
pub fn is_tight(room: Room, found: Found, wanted: u64, page_bytes: u64) -> bool {
    let grows = room.pages.saturating_mul(page_bytes).saturating_sub(found.file);
    wanted > room.bytes || grows < TIGHT_BYTES.max(wanted)
}

/// Whether a WAL is larger than what is free, and than what is kept for it in any case.
pub fn is_beyond(share: u64, found: Found) -> bool {
    let Found { others, file, wal } = found;
    wal > share.saturating_sub(others).saturating_sub(file).max(wal_is_too_long(share))
}

/// The longest file that there is, so that one which is longer than the share by now can be read and
/// made shorter.
pub fn longest(place: &Place, numbered: u32) -> io::Result<u64> {
    let mut longest = 0;
    let mut look = |database: DatabaseFile| -> io::Result<u64> {
        let bytes = place.bytes(&database.name())?;
        longest = longest.max(bytes).max(place.bytes(&database.wal())?);
        Ok(bytes)
    };
    look(DatabaseFile::Stores)?;
    // Where there is no list, there is no database.
    if look(DatabaseFile::Catalogue)? > 0 {
        for number in 1..=numbered {
            look(DatabaseFile::Numbered(number))?;
        }
    }
    Ok(longest)
}

/// Asks for the length of each file. `numbered` is how many databases are known; there may be more,
/// which another worker has made.
pub fn measure(place: &Place, of: DatabaseFile, numbered: u32) -> io::Result<Found> {
    let mut found = Found { others: 0, file: 0, wal: 0 };
    let mut add = |database: DatabaseFile| -> io::Result<bool> {
        let (file, wal) = (place.bytes(&database.name())?, place.bytes(&database.wal())?);
        if database == of {
            (found.file, found.wal) = (file, wal);
        } else {
            found.others += file + wal;
        }
        Ok(file > 0)
    };
    add(DatabaseFile::Stores)?;
    add(DatabaseFile::Catalogue)?;
    let mut number = 1;
    while add(DatabaseFile::Numbered(number))? || number < numbered {
        number += 1;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_and_wals_are_within_the_share() {
        const SHARE: u64 = 64 << 20;
        for (others, file, wal, pages, bytes) in [
            (0, 0, 0, 14_336, SHARE),
            (32 << 20, 0, 0, 6_144, 32 << 20),
            (32 << 20, 16 << 20, 1 << 20, 6_144, 15 << 20),
            // Nothing grows any more, and what is kept for WALs is still there.
            (0, 56 << 20, 4 << 20, 14_336, 4 << 20),
            (60 << 20, 0, 0, 0, 4 << 20),
            (65 << 20, 1 << 20, 0, 0, 0),
        ] {
            let found = Found { others, file, wal };
            assert_eq!(room(SHARE, found, 4096), Room { pages, bytes }, "{found:?}");
        }
    }

    #[test]
    fn a_wal_takes_what_is_free_and_what_is_kept_for_it() {
        const MIB: u64 = 1 << 20;
        for (others, file, most) in [
            (0, 0, 64 * MIB),
            (16 * MIB, 8 * MIB, 40 * MIB),
            (32 * MIB, 31 * MIB, 8 * MIB),
            (99 * MIB, 99 * MIB, 8 * MIB),
        ] {
            for (wal, beyond) in [(0, false), (most, false), (most + 1, true)] {
                let found = Found { others, file, wal };
                assert_eq!(is_beyond(64 * MIB, found), beyond, "{found:?}");
            }
        }
    }

    #[test]
    fn what_is_written_is_whole_pages() {
        assert_eq!(in_wal(0, 4096), 0);
        assert_eq!(in_wal(1, 4096), 6 * 4120);
        assert_eq!(in_wal(1 << 20, 4096), 262 * 4120);
    }

    #[test]
    fn a_small_share_has_small_wals() {
        assert_eq!(wal_is_long(1 << 40), WAL_BYTES);
        assert_eq!(wal_is_long(1 << 20), WAL_LEAST);
        for share in [1 << 20, 10 << 20, 1 << 30, 1 << 40] {
            assert!(wal_is_too_long(share) <= share / 8, "{share}");
        }
    }

    #[test]
    fn what_another_worker_made_is_measured_too() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::Directory(directory.path().to_owned());
        for (name, bytes) in [("kv.db", 10), ("kv.db-wal", 3), ("1.db", 20), ("3.db", 40)] {
            std::fs::write(directory.path().join(name), vec![0; bytes]).unwrap();
        }
        let others = |of, numbered| measure(&place, of, numbered).unwrap();
        assert_eq!(others(DatabaseFile::Stores, 3), Found { others: 60, file: 10, wal: 3 });
        assert_eq!(others(DatabaseFile::Numbered(1), 0), Found { others: 13, file: 20, wal: 0 });
        assert_eq!(longest(&place, 3).unwrap(), 10);
        std::fs::write(directory.path().join("names.db"), [0]).unwrap();
        assert_eq!(longest(&place, 2).unwrap(), 20);
        assert_eq!(longest(&place, 3).unwrap(), 40);
    }
}
