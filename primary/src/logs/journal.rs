//! One journal: JSON lines in segments of bounded size, the oldest of which is deleted when there
//! are too many. A segment's name carries the id of its first record and the rest count on from
//! there, so that ids need no file of their own.
//!
//! [`Journal`] writes and has one owner. [`page`] only reads, at any time: it takes a last line
//! without its end for one that is being written.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Entry, Filter, Record};

/// A segment is closed before it grows beyond this.
pub(super) const SEGMENT_BYTES: u64 = 1 << 20;
pub(super) const SEGMENTS: usize = 4;

pub(super) struct Journal {
    directory: PathBuf,
    kind: &'static str,
    /// First ids, oldest first; the last one is the segment that is written.
    segments: VecDeque<u64>,
    /// The segment that is written; `None` until something is.
    open: Option<(File, u64)>,
    next: u64,
}

impl Journal {
    /// Goes on where the last one stopped. A line that was cut off by a crash is taken away.
    pub(super) fn open(directory: PathBuf, kind: &'static str) -> io::Result<Self> {
        let segments: VecDeque<u64> = segments(&directory, kind)?.into();
        let mut journal = Self { directory, kind, segments, open: None, next: 1 };
        if let Some(&first) = journal.segments.back() {
            let mut file = OpenOptions::new().read(true).append(true).open(segment(
                &journal.directory,
                kind,
                first,
            ))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
            if whole < bytes.len() {
                file.set_len(whole as u64)?;
            }
            let records = bytes[..whole].iter().filter(|&&b| b == b'\n').count() as u64;
            journal.next = first + records;
            journal.open = Some((file, whole as u64));
        }
        Ok(journal)
    }

    /// The id that the next record gets.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The first record's id. After an error the journal must be opened anew.
    pub(super) fn append<T: Record>(&mut self, records: &[T]) -> io::Result<u64> {
        let first = self.next;
        if records.is_empty() {
            return Ok(first);
        }
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        if self
            .open
            .as_ref()
            .is_none_or(|(_, size)| *size > 0 && size + lines.len() as u64 > SEGMENT_BYTES)
        {
            self.rotate()?;
        }
        let (file, size) = self.open.as_mut().expect("a segment was opened");
        file.write_all(&lines)?;
        *size += lines.len() as u64;
        self.next += records.len() as u64;
        Ok(first)
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Not the directory above: where the tenant is gone, its journals stay gone.
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(segment(
            &self.directory,
            self.kind,
            self.next,
        ))?;
        self.open = Some((file, 0));
        self.segments.push_back(self.next);
        while self.segments.len() > SEGMENTS {
            if let Some(oldest) = self.segments.pop_front() {
                fs::remove_file(segment(&self.directory, self.kind, oldest))?;
            }
        }
        Ok(())
    }
}

/// Which part of a journal is wanted.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub filter: Filter,
    /// Only records with smaller ids.
    pub before: Option<u64>,
    /// Only records with greater ids.
    pub after: Option<u64>,
    /// The newest so many of those.
    pub limit: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// Oldest first.
    pub entries: Vec<Entry<T>>,
    /// Whether there may be older ones that match.
    pub more: bool,
    /// With `after`: how many above it are not in the page, since there were too many or since
    /// they are no longer kept.
    pub missed: u64,
}

pub(super) fn page<T: Record>(directory: &Path, query: &Query) -> io::Result<Page<T>> {
    let mut page = Page { entries: Vec::new(), more: false, missed: 0 };
    let segments = segments(directory, T::KIND)?;
    let after = query.after.unwrap_or(0);
    if let (Some(_), Some(&oldest)) = (query.after, segments.first()) {
        page.missed = oldest.saturating_sub(after + 1);
    }
    'segments: for &first in segments.iter().rev() {
        if query.before.is_some_and(|before| before <= first) {
            continue;
        }
        let text = match fs::read_to_string(segment(directory, T::KIND, first)) {
            Ok(text) => text,
            // It was the oldest, and is gone since the directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let lines: Vec<&str> = whole.lines().collect();
        for (id, line) in (first..).zip(lines).collect::<Vec<_>>().into_iter().rev() {
            if id <= after {
                break 'segments;
            }
            if query.before.is_some_and(|before| before <= id) {
                continue;
            }
            // A line that is no record was damaged from outside; its id stays its own.
            let Ok(record) = serde_json::from_str::<T>(line) else { continue };
            if !record.matches(&query.filter) {
                continue;
            }
            if page.entries.len() < query.limit {
                page.entries.push(Entry { id, record });
            } else if query.after.is_some() {
                page.missed += 1;
            } else {
                page.more = true;
                break 'segments;
            }
        }
    }
    page.entries.reverse();
    Ok(page)
}

/// The first ids of a journal's segments, oldest first; none where there is no directory.
fn segments(directory: &Path, kind: &str) -> io::Result<Vec<u64>> {
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut segments = Vec::new();
    for entry in listing {
        let name = entry?.file_name();
        let first = name
            .to_str()
            .and_then(|name| name.strip_prefix(kind)?.strip_prefix('.')?.strip_suffix(".jsonl"))
            .and_then(|first| first.parse::<u64>().ok());
        segments.extend(first);
    }
    segments.sort_unstable();
    Ok(segments)
}

fn segment(directory: &Path, kind: &str, first: u64) -> PathBuf {
    directory.join(format!("{kind}.{first:020}.jsonl"))
}
